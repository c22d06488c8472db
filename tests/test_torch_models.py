"""Every neuron as a torch layer.

Property: a layer has the bits of `exodus_core.forward` and `backward` with its descriptor, learnt values
included. Learnt decays are clamped into [0, 1]. States can be passed on, and state dicts saved and loaded.
Witness: the numpy functions, which have their own witnesses.
"""

import functools
import inspect

import numpy as np
import pytest

import exodus_core as ec
from compare import assert_same_bits
from exodus_core import neurons
from neuron_examples import EXAMPLES, SCALARS, TAUS

torch = pytest.importorskip("torch")
import exodus_core.torch as snn  # noqa: E402

ALPHA, FALL = ec.kernel.Alpha(4.0), ec.kernel.Exponential(0.8, scale=-0.7)
TAPS = ec.kernel.FIR(np.array([0.9, 0.5, -0.1, 0.2]))
PER_NEURON = ec.kernel.FIR(-np.random.default_rng(9).uniform(0.2, 0.9, (6, 1, 5)))
MATRIX = EXAMPLES["StateSpace"].keywords["A"]


def made(neuron):
    """A function that makes the layer of a descriptor from its keywords, and the learnable parameters."""
    kind = getattr(snn, type(neuron).__name__)
    return functools.partial(kind, **neuron._given()), tuple(neuron._parameter_names())


OTHERS = {
    "StateSpace that resets to zero": ec.StateSpace(MATRIX, [0.9, 0.2], [-0.8, 0.3], reset="zero"),
    "AdLIF of the symplectic order": ec.AdLIF(
        tau=5.0, tau_adapt=9.0, coupling=4.0, adapt_scale=0.2, order="symplectic", threshold=0.1
    ),
    "ResonateAndFire on the imaginary part": ec.ResonateAndFire(
        tau=9.0, frequency=2.0, threshold=0.5, fires_on="imaginary"
    ),
    "SRM of exponentials": ec.SRM(ALPHA, FALL),
    "SRM of taps": ec.SRM(TAPS, PER_NEURON),
    "SRM of both": ec.SRM(ALPHA, TAPS),
}
NEURONS = {name: neuron for name, neuron in (SCALARS | TAUS | OTHERS).items() if neuron._fires}
LAYERS = {name: made(neuron) for name, neuron in NEURONS.items()}
EACH = pytest.mark.parametrize("name", LAYERS)


def data(seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(0.3, 0.8, (40, 3, 5)).astype(np.float32) for _ in range(3))


@EACH
def test_a_layer_is_the_numpy_functions(name):
    make, learn = LAYERS[name]
    layer = make(learn=learn, output="trace")
    current, e, q = data()
    a = torch.tensor(current, requires_grad=True)
    trace = layer(a)
    ((trace.spikes * torch.tensor(e)).sum() + (trace.potential * torch.tensor(q)).sum()).backward()
    expected = ec.forward(layer.neuron, current)
    grads = ec.backward(expected, e, grad_potential=q)
    assert expected.spikes.any()
    assert_same_bits(trace.spikes.detach().numpy(), expected.spikes)
    assert_same_bits(a.grad.numpy(), grads.current)
    for key in learn:
        parameter = getattr(layer, key.replace(".", "_"))
        np.testing.assert_allclose(parameter.grad.numpy(), grads.parameters[key], rtol=1e-6)


@EACH
def test_a_state_continues_a_call(name):
    layer = LAYERS[name][0](time_dim=1)
    current, *_ = data(1)
    x = torch.tensor(np.ascontiguousarray(current.transpose(1, 0, 2)))
    whole = layer(x)
    first, state = layer(x[:, :17], None)
    then, state = layer(x[:, 17:39], state)
    last, _ = layer.step(x[:, 39], state)
    assert torch.equal(torch.cat([first, then, last[:, None]], 1), whole)


@EACH
def test_state_dict_round_trip(name):
    make, learn = LAYERS[name]
    one, other = make(learn=learn), make(learn=learn)
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.mul_(0.9)
    other.load_state_dict(one.state_dict())
    assert other.neuron == one.neuron != make().neuron
    assert set(one.state_dict()) == {"_extra_state", *(key.replace(".", "_") for key in learn)}


def test_learnt_shapes_add_the_neurons_axes_behind_those_of_a_parameter():
    current, e, _ = data(3)
    matrices = snn.StateSpace(MATRIX, [0.9, 0.2], [-0.8, 0.3], learn={"A": (2, 2, 3, 1), "b": (2, 5)})
    taps = snn.SRM(TAPS, FALL, learn={"epsilon.taps": (4, 5)})
    for layer, shapes in ((matrices, [(2, 2, 3, 1), (2, 5)]), (taps, [(4, 5)])):
        assert [tuple(p.shape) for p in layer.parameters()] == shapes
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.mul_(torch.rand_like(parameter) * 0.2 + 0.9)  # so that all entries differ
        spikes = layer(torch.tensor(current))
        (spikes * torch.tensor(e)).sum().backward()
        trace = ec.forward(layer.neuron, current)
        assert_same_bits(spikes.detach().numpy(), trace.spikes)
        expected = ec.backward(trace, e).parameters
        for key in layer._learn_names:
            found = getattr(layer, key.replace(".", "_")).grad.numpy()
            np.testing.assert_allclose(found, expected[key], rtol=1e-6)
    for shape in ((2, 3), (3, 2, 2), (2,), (2, 3, 5)):
        with pytest.raises(ValueError, match=r"A.*must be a shape to which"):
            snn.StateSpace(MATRIX, [0.9, 0.2], [-0.8, 0.3], learn={"A": shape})


def test_learnt_decays_stay_in_range():
    layer = snn.CubaLIF(0.9, 0.7, learn=("alpha_syn",))
    with torch.no_grad():
        layer.alpha_syn.fill_(1.7)
    assert layer.neuron.alpha_syn == 1.0
    resonating = snn.ResonateAndFire(0.9, 0.4, learn=("decay", "threshold"))
    with torch.no_grad():
        resonating.decay.fill_(1.2)
        resonating.threshold.fill_(-1.0)
    assert resonating.neuron.decay == 1.0 and 0 < resonating.neuron.threshold < 1e-6
    srm = snn.SRM(ec.kernel.DoubleExponential(0.9, 0.5), FALL, learn=("epsilon.beta", "nu.alpha"))
    with torch.no_grad():
        srm.epsilon_beta.fill_(-0.3)
        srm.nu_alpha.fill_(2.0)
    assert srm.neuron.epsilon.beta == 0.0 and srm.neuron.nu.alpha == 1.0
    assert torch.isfinite(srm(torch.ones(5, 2))).all()


def test_a_network_of_srms_learns():
    torch.manual_seed(0)
    layer = snn.SRM(ALPHA, FALL, learn=("epsilon.tau", "nu.scale"))
    weight = torch.nn.Linear(20, 6)
    x, target = (torch.rand(60, 8, 20) < 0.1).float(), 0.1 + 0.2 * torch.rand(8, 6)
    optimizer = torch.optim.Adam([*weight.parameters(), *layer.parameters()], 3e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (layer(weight(x)).mean(0) - target).pow(2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.3 * losses[0]


def test_from_neuron_restores_the_layer():
    for name, (make, _) in LAYERS.items():
        layer = make()  # Values that are not learnt are not changed.
        again = snn.from_neuron(layer.neuron)
        assert type(again).__name__ == name.split()[0] and again.neuron == layer.neuron


@pytest.mark.parametrize("kernel", [FALL, ec.kernel.DoubleExponential(0.9, 0.6), ALPHA, TAPS], ids=repr)
def test_the_potential_path_passes_gradcheck(kernel):
    # Without spikes the potential is a smooth function of current, state and kernel parameters.
    rng = np.random.default_rng(2)
    layer = snn.SRM(kernel, FALL, 1e9, learn=[f"epsilon.{name}" for name in kernel._fields()], output="trace")
    layer.double()
    current = torch.tensor(rng.normal(size=(6, 2)), requires_grad=True)
    shapes = [s.shape for s in layer.neuron.initial_state((2,), np.float64)]
    state = [torch.tensor(rng.normal(size=shape), requires_grad=0 not in shape) for shape in shapes]
    names = [name for name, _ in layer.named_parameters()]

    def potential(current, *rest):
        values = dict(zip(names, rest[6:], strict=True))
        trace, _ = torch.func.functional_call(layer, values, (current, rest[:6]))
        return trace.potential

    assert torch.autograd.gradcheck(potential, (current, *state, *layer.parameters()))


def test_every_descriptor_has_a_layer_of_its_name_with_its_keywords():
    kinds = [getattr(neurons, name) for name in neurons.__all__]
    descriptors = [kind for kind in kinds if issubclass(kind, ec.Neuron)]
    for kind in set(descriptors) - {ec.Neuron, neurons.Filter}:
        layer = getattr(snn, kind.__name__)
        assert kind.__name__ in snn.__all__ and snn.Layer._layers[kind] is layer
        own, taken = inspect.signature(kind).parameters, inspect.signature(layer).parameters
        assert {name: p.default for name, p in own.items()}.items() <= {
            name: p.default for name, p in taken.items()
        }.items()
