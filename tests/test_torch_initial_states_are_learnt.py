"""Layers can learn the state from which they start.

Property: a learnt state variable is a parameter, 0 at first, that broadcasts to the neurons. A layer that
gets no state starts from it, whole or step by step, and gives it the gradient of its initial state. A state
that is passed takes its place. Any state variable but spikes can be learnt, of any neuron. Witness: a layer
that learns nothing, with that state passed in as leaves of autograd.
"""

import copy
import io
import pickle

import numpy as np
import pytest

import exodus_core as ec
from compare import assert_same_bits
from exodus_core import kernel
from neuron_examples import SCALARS

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")

CURRENT = 0.3 + 0.8 * torch.randn(12, 2, 3, generator=torch.Generator().manual_seed(0))
NEURONS = SCALARS | {
    "SRM of taps": ec.SRM(kernel.FIR([0.5, 0.4, 0.3]), kernel.Exponential(0.9, scale=-1.0)),
    "SRM of alphas": ec.SRM(kernel.Alpha(3.0), kernel.Alpha(2.0, scale=-1.0)),
}
EACH = pytest.mark.parametrize("name", NEURONS)


def learnable(neuron):
    """The names of the fields that can be learnt, written down by hand where it is not all but spikes."""
    if not isinstance(neuron, ec.SRM):
        return [f"state.{field}" for field in neuron._state._fields if field != "spikes"]
    taps = isinstance(neuron.epsilon, kernel.FIR)
    return ["state.epsilon_x", *([] if taps else ["state.epsilon_y"]), "state.nu_x", "state.nu_y"]


def spread(layer):
    """Give every learnt state other values than 0."""
    for k, name in enumerate(layer._learn_states):
        parameter = layer.get_parameter(name.replace(".", "_"))
        with torch.no_grad():
            parameter.copy_(torch.linspace(0.1 + 0.1 * k, 0.5, parameter.numel()).reshape(parameter.shape))
    return layer


def made(name, shape=(2, 3), **keywords):
    """A layer that learns its whole initial state, per neuron."""
    neuron = NEURONS[name]
    history = neuron._values_per_neuron()
    shapes = {key: (*history.get(key.removeprefix("state."), ()), *shape) for key in learnable(neuron)}
    return spread(snn.from_neuron(neuron, learn=shapes, **keywords))


def explicit(layer):
    """The learnt state, as one that can be passed in."""
    state = layer._given.initial_state((2, 3))
    own = {
        key.removeprefix("state."): p.detach()
        for key, p in zip(layer._learn_states, layer.parameters(), strict=True)
    }
    fields = {field: own.get(field, torch.from_numpy(value)) for field, value in state._asdict().items()}
    return type(state)(**{field: value.clone().requires_grad_() for field, value in fields.items()})


@EACH
def test_a_layer_begins_from_the_learnt_state(name):
    layer = made(name, output="trace")
    state = explicit(layer)
    assert list(layer._learn_states) == learnable(NEURONS[name])
    found, final = layer(CURRENT, None)
    plain, expected = snn.from_neuron(NEURONS[name], output="trace")(CURRENT, state)
    assert_same_bits(found.potential.detach(), plain.potential.detach())
    assert not torch.equal(found.potential, snn.from_neuron(NEURONS[name], output="trace")(CURRENT).potential)
    for one, other in zip(final, expected, strict=True):
        assert_same_bits(one.detach(), other.detach())
    for trace in (found, plain):
        (trace.potential * CURRENT).sum().backward()
    for key, parameter in zip(layer._learn_states, layer.parameters(), strict=True):
        assert_same_bits(parameter.grad, getattr(state, key.removeprefix("state.")).grad)
        # The y of a kernel that is one exponential repeats its x, so that its initial value has no effect.
        if (name, key) != ("SRM of taps", "state.nu_y"):
            assert parameter.grad.abs().sum() > 0


@EACH
def test_steps_equal_the_whole(name):
    layer = made(name, output="potential", time_dim=1)
    current = CURRENT.movedim(0, 1)
    whole, last = layer(current, None)
    state, found = None, []
    for frame in current.unbind(1):
        one, state = layer.step(frame, state)
        found.append(one)
    assert_same_bits(torch.stack(found, 1).detach(), whole.detach())
    assert_same_bits(layer(current).detach(), whole.detach())
    for one, other in zip(state, last, strict=True):
        assert_same_bits(one.detach(), other.detach())


@pytest.mark.parametrize("shape", [(), (3,), (1, 3), (2, 1)], ids=str)
def test_it_broadcasts_to_the_neurons(shape):
    layer = spread(snn.LIF(0.9, learn={"state.potential": shape}, output="potential"))
    each = made("LIF")
    with torch.no_grad():
        each.state_potential.copy_(layer.state_potential)
    plain = snn.LIF(0.9, output="potential")
    state = explicit(each)
    assert_same_bits(layer(CURRENT).detach(), plain(CURRENT, state)[0].detach())
    layer(CURRENT).sum().backward()
    plain(CURRENT, state)[0].sum().backward()
    grad = state.potential.grad.sum_to_size(shape)
    torch.testing.assert_close(layer.state_potential.grad, grad, rtol=1e-6, atol=0)


def test_a_collection_learns_one_number():
    layer = snn.CubaLIF(0.9, 0.8, learn=["state.current", "alpha", "state.potential"])
    shapes = {name: tuple(p.shape) for name, p in layer.named_parameters()}
    assert shapes == {"alpha": (), "state_potential": (), "state_current": ()}
    assert list(shapes) == ["alpha", "state_potential", "state_current"]  # the order of the neuron
    assert "learn=('alpha', 'state.potential', 'state.current')" in repr(layer)
    assert_same_bits(layer(CURRENT).detach(), snn.CubaLIF(np.float32(0.9), 0.8)(CURRENT))
    taps = snn.from_neuron(NEURONS["SRM of taps"], learn=["state.epsilon_x"])
    assert taps.state_epsilon_x.shape == (2,)
    taps(CURRENT).sum().backward()


def test_a_state_that_is_passed_takes_its_place():
    layer = spread(snn.LIF(0.9, learn={"state.potential": (3,)}, output="potential"))
    rest = layer._given.initial_state((2, 3))
    found, _ = layer(CURRENT, tuple(map(torch.from_numpy, rest)))
    assert_same_bits(found, snn.LIF(0.9, output="potential")(CURRENT))


def test_initial_state_is_where_the_layer_begins():
    layer = spread(snn.CubaLIF(0.9, 0.8, learn=("state.potential", "state.current"), output="potential"))
    state = layer.initial_state((2, 3))
    assert_same_bits(layer(CURRENT, state)[0].detach(), layer(CURRENT).detach())
    layer(CURRENT, state)[0].sum().backward()
    assert layer.state_current.grad != 0
    given = layer.initial_state((2, 3), potential=0.25)
    assert (given.potential == 0.25).all()
    assert (given.current == layer.state_current).all()
    assert (snn.LIF(0.9).initial_state((2,)).potential == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("learnt", [torch.float32, torch.float64], ids=str)
def test_it_is_converted_to_the_dtype_of_the_state(dtype, learnt):
    layer = made("LIF").to(learnt)
    _, final = layer(CURRENT.to(dtype), None)
    assert final.potential.dtype == dtype
    layer(CURRENT.to(dtype)).sum().backward()
    assert layer.state_potential.grad.dtype == learnt


def test_a_recurrent_layer_begins_from_it():
    layer = spread(snn.LIF(0.9, threshold=0.3, learn={"state.potential": (3,)}))
    net = snn.Recurrent(layer, 3)
    state = layer.initial_state((2, 3))
    assert_same_bits(net(CURRENT).detach(), net(CURRENT, state)[0].detach())
    assert not torch.equal(
        net(CURRENT), net(CURRENT, tuple(map(torch.from_numpy, layer._given.initial_state((2, 3)))))[0]
    )
    net(CURRENT).sum().backward()
    assert layer.state_potential.grad.abs().sum() > 0


def test_training_finds_the_state():
    target = torch.tensor([0.9, -0.4, 0.2])
    wanted = snn.ExpLeak(0.9)(CURRENT, (target.expand(2, 3),))[0]
    layer = snn.ExpLeak(0.9, learn={"state.potential": (3,)})
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (layer(CURRENT) - wanted).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(layer.state_potential.detach(), target, rtol=0, atol=1e-3)


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda layer: pickle.loads(pickle.dumps(layer))}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_it_is_copied(make):
    layer = made("CubaLIF")
    assert_same_bits(make(layer)(CURRENT).detach(), layer(CURRENT).detach())


def test_it_is_set_saved_loaded_and_parametrised():
    layer, other = (snn.LIF(0.9, learn={"state.potential": (3,)}, output="potential") for _ in range(2))
    layer.state_potential = [0.5, 0.25, 0.125]
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert_same_bits(other.state_potential.detach(), np.float32([0.5, 0.25, 0.125]))
    snn.parametrize(other, "state.potential", "softplus")
    torch.testing.assert_close(other(CURRENT), layer(CURRENT))
    with pytest.raises(ValueError, match="state_potential must be finite, got inf"):
        layer.state_potential = float("inf")
    with pytest.raises(RuntimeError, match="state_potential"):
        snn.LIF(0.9).load_state_dict(layer.state_dict())


WRONG = {
    "spikes": (
        lambda: snn.LIF(0.9, learn=("state.spikes",)),
        r"learn must name.*state\.potential.*got 'state.spikes'",
    ),
    "of an SRM": (
        lambda: snn.from_neuron(NEURONS["SRM"], learn=("state.potential",)),
        r"learn must name.*state\.epsilon_x.*got 'state.potential'",
    ),
    "that has no y": (
        lambda: snn.from_neuron(NEURONS["SRM of taps"], learn=("state.epsilon_y",)),
        "learn must name",
    ),
    "shape": (
        lambda: snn.LIF(0.9, learn={"state.potential": (4,)})(CURRENT),
        r"state\.potential must broadcast against the neurons' shape \(2, 3\), got shape \(4,\)",
    ),
    "too many axes": (
        lambda: snn.LIF(0.9, learn={"state.potential": (1, 1, 3)}).step(CURRENT[0]),
        r"state\.potential must broadcast against the neurons' shape \(2, 3\), got shape \(1, 1, 3\)",
    ),
    "history": (
        lambda: snn.from_neuron(NEURONS["SRM of taps"], learn={"state.epsilon_x": (3, 3)}),
        r"learn\['state.epsilon_x'\] must be a shape to which.* \(2,\) broadcasts, got \(3, 3\)",
    ),
    "time_dim": (
        lambda: snn.LIF(0.9, learn=("state.potential",), time_dim=5)(CURRENT),
        r"time_dim must be an axis of current.*got 5",
    ),
}


@pytest.mark.parametrize(("call", "message"), WRONG.values(), ids=WRONG)
def test_errors(call, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()


def test_a_state_that_training_has_made_nan_raises():
    layer = snn.LIF(0.9, learn={"state.potential": (3,)})
    with torch.no_grad():
        layer.state_potential[1] = float("nan")
    with pytest.raises(ValueError, match=r"state\.potential must be finite, got nan"):
        layer(CURRENT)
    assert "nan" in repr(layer)
