"""`spike(parameters=...)`: any parameter of any neuron can come from any computation, and has a gradient.

Property: for every parameter of every neuron, results have the bits of the descriptor with these values. The
gradient of the tensor is that of `exodus_core.backward`, and torch passes it on to tied, generated and scaled
parameters. Values are clamped, with the gradient passed straight through, like learnt ones. Witnesses: the
numpy functions, layers that learn the same parameters, and the chain rule by hand.
"""

import numpy as np
import pytest

import exodus_core as ec
from compare import assert_same_bits
from drive import METHODS
from exodus_core import kernel
from neuron_examples import SCALARS

torch = pytest.importorskip("torch")
import exodus_core.torch as snn  # noqa: E402

NEURONS = SCALARS | {
    "LIF": ec.LIF(alpha=0.9, gain=0.8, reset_amount=0.7, v_min=-0.4),
    "LIF of tau": ec.LIF(tau=5.0, gain="1-alpha", threshold=0.2),
    "IF": ec.IF(threshold=0.9),
    "CubaLIF": ec.CubaLIF(alpha=0.9, tau_syn=3.0),
    "ALIF": ec.ALIF(0.9, 0.95, 0.2),
    "SRM": ec.SRM(kernel.Alpha(4.0), kernel.DoubleExponential(0.8, 0.5, scale=-0.7)),
    "SRM of taps": ec.SRM(kernel.FIR([0.9, 0.5, -0.1]), kernel.Exponential(0.8, scale=-0.9)),
    "ExpLeak": ec.ExpLeak(alpha=0.9),
    "StateSpace": ec.StateSpace([[0.9, -0.2], [0.3, 0.8]], [0.9, 0.2], [-0.8, 0.3], reset="zero"),
    "AdLIF": ec.AdLIF(tau=6.0, alpha_adapt=0.9, coupling=0.5, adapt_scale=0.3, threshold=0.2),
    "AdLIF, symplectic": ec.AdLIF(0.9, 0.95, 3.0, 0.3, threshold=0.1, order="symplectic"),
    "ResonateAndFire": ec.ResonateAndFire(tau=9.0, frequency=0.7, threshold=0.8),
}
EACH = pytest.mark.parametrize("name", NEURONS)
LANES = (2, 3)


def data(seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return (rng.normal(0.3, 0.8, (40, *LANES)).astype(dtype) for _ in range(3))


def per_neuron(neuron, name):
    """A parameter's value for each neuron, all different."""
    value = np.array(neuron._value_of(name), np.float64)
    leading = value.shape[: len(neuron._leading_lengths(name))]
    spread = np.random.default_rng(1).uniform(0.9, 1.05, (*leading, *LANES))
    return value.reshape(*leading, *(1,) * len(LANES)) * spread


def loss_of(trace, e, q):
    loss = (trace.potential * torch.tensor(q)).sum()
    return loss if trace.spikes is None else loss + (trace.spikes * torch.tensor(e)).sum()


@pytest.mark.parametrize("method", METHODS)
@EACH
def test_every_parameter_is_the_descriptors(name, method):
    neuron = NEURONS[name]
    current, e, q = data()
    values = {key: per_neuron(neuron, key) for key in neuron._parameter_names()}
    tensors = {key: torch.tensor(value, requires_grad=True) for key, value in values.items()}
    a = torch.tensor(current, requires_grad=True)
    trace = snn.spike(a, neuron, method=method, parameters=tensors)
    loss_of(trace, e, q).backward()
    same = neuron._with(values)
    expected = ec.forward(same, current)
    spikes = None if expected.spikes is None else e
    grads = ec.backward(expected, spikes, grad_potential=q, method=method)
    assert_same_bits(trace.potential.detach().numpy(), expected.potential)
    assert_same_bits(a.grad.numpy(), grads.current)
    assert grads.parameters.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert_same_bits(tensor.grad.numpy(), grads.parameters[key], key)


@EACH
def test_each_parameter_alone(name):
    neuron = NEURONS[name]
    current, e, q = data(2)
    for key in neuron._parameter_names():
        tensor = torch.tensor(np.array(neuron._value_of(key), np.float64), requires_grad=True)
        loss_of(snn.spike(torch.tensor(current), neuron, parameters={key: tensor}), e, q).backward()
        trace = ec.forward(neuron, current)
        spikes = None if trace.spikes is None else e
        expected = ec.backward(trace, spikes, grad_potential=q, parameters=(key,)).parameters[key]
        np.testing.assert_allclose(tensor.grad.numpy(), expected, rtol=1e-12, atol=1e-14, err_msg=key)


def test_a_tied_time_constant():
    # One tensor is both decays of one neuron, and the decay of another.
    current, e, _ = (torch.tensor(x) for x in data(3))
    shared = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    both = snn.spike(current, ec.CubaLIF(0.5, 0.5), parameters={"alpha": shared, "alpha_syn": shared**2})
    one = snn.spike(current, ec.LIF(0.5), parameters={"alpha": shared})
    ((both.spikes + one.spikes) * e).sum().backward()
    traces = ec.forward(ec.CubaLIF(0.8, 0.8**2), current.numpy()), ec.forward(ec.LIF(0.8), current.numpy())
    of_both, of_one = (ec.backward(trace, e.numpy()).parameters for trace in traces)
    expected = of_both["alpha"] + 2 * 0.8 * of_both["alpha_syn"] + of_one["alpha"]
    np.testing.assert_allclose(shared.grad.item(), expected, rtol=1e-10)


def test_a_generated_matrix_learns():
    # A network generates the matrix of each neuron from features of that neuron.
    torch.manual_seed(0)
    generator = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4))
    known, current = torch.randn(5, 3), torch.randn(60, 8, 5) * 0.7 + 0.2
    teacher = ec.StateSpace([[0.9, -0.3], [0.2, 0.8]], [1.0, 0.0], [-1.0, 0.3])
    target = snn.spike(current, teacher).potential
    neuron = ec.StateSpace(np.zeros((2, 2)), [1.0, 0.0], [-1.0, 0.3])
    optimizer = torch.optim.Adam(generator.parameters(), 1e-2)
    losses = []
    for _ in range(80):
        A = generator(known).T.reshape(2, 2, 5)
        loss = (snn.spike(current, neuron, parameters={"A": A}).potential - target).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize(
    ("neuron", "key", "value", "used"),
    [
        (ec.LIF(0.9), "alpha", 1.7, 1.0),
        (ec.LIF(0.9), "alpha", -0.2, 0.0),
        (ec.AdLIF(0.9, 0.9, 0.3, 0.2), "alpha_adapt", 1.2, 1.0),
        (ec.ResonateAndFire(0.9, 0.4), "decay", 1.01, 1.0),
        (ec.SRM(kernel.Exponential(0.9), kernel.Exponential(0.9, -1.0)), "epsilon.alpha", 3.0, 1.0),
        (ec.StateSpace(np.eye(2), [1, 0], [-1, 0]), "threshold", -1.0, np.finfo(np.float64).eps),
    ],
)
def test_values_are_clamped_straight_through(neuron, key, value, used):
    current, e, _ = data(4)
    tensor = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    trace = snn.spike(torch.tensor(current), neuron, parameters={key: tensor})
    (trace.spikes * torch.tensor(e)).sum().backward()
    clamped = neuron._with({key: used})
    expected = ec.forward(clamped, current)
    assert_same_bits(trace.potential.detach().numpy(), expected.potential)
    np.testing.assert_allclose(tensor.grad.item(), ec.backward(expected, e).parameters[key], rtol=1e-10)


@EACH
def test_a_layer_learns_the_same(name):
    neuron = NEURONS[name]
    current, e, q = data(5, np.float32)
    layer = snn.from_neuron(neuron, learn=neuron._parameter_names(), output="trace")
    loss_of(layer(torch.tensor(current)), e, q).backward()
    tensors = {key: getattr(layer, key.replace(".", "_")) for key in neuron._parameter_names()}
    learnt = {key: tensor.grad.clone() for key, tensor in tensors.items()}
    layer.zero_grad()
    loss_of(snn.spike(torch.tensor(current), neuron, parameters=tensors), e, q).backward()
    for key, tensor in tensors.items():
        assert torch.equal(tensor.grad, learnt[key]), key


def test_without_gradients_and_in_other_dtypes():
    current = torch.tensor(next(data(6)))
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        alpha = torch.tensor(0.9, dtype=dtype)
        trace = snn.spike(current, ec.LIF(0.5), parameters={"alpha": alpha})
        assert not trace.potential.requires_grad
        expected = ec.forward(ec.LIF(float(alpha)), current.numpy())
        assert_same_bits(trace.potential.numpy(), expected.potential)
        alpha.requires_grad_()
        snn.spike(current, ec.LIF(0.5), parameters={"alpha": alpha}).potential.sum().backward()
        assert alpha.grad.dtype == dtype and alpha.grad != 0


def test_a_state_continues_a_call():
    current = torch.tensor(next(data(7)))
    coupling = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    neuron = ec.AdLIF(0.9, 0.8, 0.0, 0.2)

    def run(current, state):
        return snn.spike(current, neuron, state=state, parameters={"coupling": coupling})

    whole = run(current, None)
    first = run(current[:15], None)
    second = run(current[15:], first.state)
    parts = torch.cat([first.potential, second.potential])
    assert torch.equal(parts, whole.potential)
    of_parts, of_whole = (torch.autograd.grad(x.pow(2).sum(), coupling)[0] for x in (parts, whole.potential))
    torch.testing.assert_close(of_parts, of_whole)


MATRIX = ec.StateSpace(np.eye(2), [1, 0], [-1, 0])


@pytest.mark.parametrize(
    ("neuron", "parameters", "error", "words"),
    [
        (ec.LIF(0.9), {"tau": torch.tensor(3.0)}, ValueError, ("parameters", "'alpha'", "'tau'")),
        (ec.LIF(tau=3.0), {"alpha": torch.tensor(0.9)}, ValueError, ("parameters", "'tau'", "'alpha'")),
        (ec.LIF(0.9, gain="1-alpha"), {"gain": torch.tensor(0.9)}, ValueError, ("parameters", "'gain'")),
        (ec.LIF(0.9), {"alpha": 0.9}, TypeError, ("parameters['alpha']", "tensor", "float")),
        (ec.LIF(0.9), [torch.tensor(0.9)], TypeError, ("parameters", "mapping", "list")),
        (ec.LIF(0.9), {"alpha": torch.tensor(1)}, TypeError, ("alpha", "floating-point", "int64")),
        (ec.LIF(0.9), {"alpha": torch.ones(4)}, ValueError, ("alpha", "(2, 3)", "(4,)")),
        (ec.LIF(0.9), {"alpha": torch.ones(0)}, ValueError, ("parameters['alpha']", "(0,)")),
        (MATRIX, {"A": torch.ones(2)}, ValueError, ("parameters['A']", "(2, 2, ...)", "(2,)")),
        (MATRIX, {"A": torch.ones(2, 3)}, ValueError, ("parameters['A']", "(2, 2, ...)", "(2, 3)")),
        (MATRIX, {"b": torch.ones(())}, ValueError, ("parameters['b']", "(2, ...)", "()")),
        (MATRIX, {"A": torch.ones(2, 2, 4)}, ValueError, ("A ", "(2, 3)", "(4,)")),
        (NEURONS["SRM of taps"], {"epsilon.taps": torch.ones(())}, ValueError, ("epsilon.taps", "(K, ...)")),
        (
            NEURONS["AdLIF"],
            {"coupling": torch.ones(4)},
            ValueError,
            ("coupling", "broadcast", "(2, 3)", "(4,)"),
        ),
        (ec.LIF(0.9), {"alpha": torch.empty((), device="meta")}, TypeError, ("alpha", "values", "meta")),
    ],
)
def test_what_does_not_fit_is_named(neuron, parameters, error, words):
    with pytest.raises(error) as caught:
        snn.spike(torch.zeros(5, *LANES), neuron, parameters=parameters)
    for word in words:
        assert word in str(caught.value)
