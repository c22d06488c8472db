"""Recurrent weights in torch: ``spike(recurrent=)`` and ``Recurrent``.

Property: the gradients of all inputs are those of autograd through a loop over single steps with torch's own
matrix product. A recurrent layer is a module like any other (state, single steps, copies, pickles,
state_dict, masks), and can be trained. Witness: the loop.
"""

import copy
import io
import pickle

import numpy as np
import pytest

import exodus_core as ec
from exodus_core import surrogate
from neuron_examples import FIRING, SCALARS

torch = pytest.importorskip("torch")
snn = pytest.importorskip("exodus_core.torch")
from torch import nn  # noqa: E402

NEURONS = [SCALARS[name] for name in FIRING if "alpha" in SCALARS[name]._parameter_names()]
EACH = pytest.mark.parametrize("neuron", NEURONS, ids=lambda neuron: type(neuron).__name__)


def leaf(*shape, scale=1.0, shift=0.0):
    return (torch.randn(*shape, dtype=torch.float64) * scale + shift).requires_grad_()


def loop(current, neuron, weight, alpha, method):
    """The witness, step by step: torch's matrix product adds the effect of earlier spikes."""
    state = neuron.initial_state(tuple(current.shape[1:]), "float64")
    state = type(state)(*map(torch.from_numpy, state))
    spikes, potential = [], []
    for a in current:
        trace = snn.spike(
            a + state.spikes @ weight,
            neuron,
            method=method,
            time_dim=None,
            state=state,
            parameters={"alpha": alpha},
        )
        state = trace.state
        spikes.append(trace.spikes)
        potential.append(trace.potential)
    return torch.stack(spikes), torch.stack(potential), state


@pytest.mark.parametrize("method", ["exodus", "slayer", "bptt"])
@EACH
def test_gradients_are_those_of_a_loop(neuron, method):
    torch.manual_seed(0)
    current, weight = leaf(15, 3, 8, scale=0.8, shift=0.4), leaf(8, 8, scale=0.3)
    alpha = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    inputs = (current, weight, alpha)
    trace = snn.spike(current, neuron, method=method, recurrent=weight, parameters={"alpha": alpha})
    spikes, potential, state = loop(current, neuron, weight, alpha, method)
    assert spikes.sum() > 10
    torch.testing.assert_close(trace.spikes, spikes, rtol=0, atol=0)
    torch.testing.assert_close(trace.potential, potential, rtol=1e-13, atol=1e-13)
    seeds = [torch.randn_like(x) for x in (spikes, potential, *state)]
    found = torch.autograd.grad((trace.spikes, trace.potential, *trace.state), inputs, seeds)
    expected = torch.autograd.grad((spikes, potential, *state), inputs, seeds)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


@EACH
def test_a_layer_is_the_function_and_its_steps(neuron):
    torch.manual_seed(1)
    layer = snn.Recurrent(snn.from_neuron(neuron), 6, dtype=torch.float64)
    current = leaf(12, 4, 6, scale=0.8, shift=0.4)
    out, state = layer(current, None)
    expected = snn.spike(current, neuron, recurrent=layer.weight)
    torch.testing.assert_close(out, expected.spikes, rtol=0, atol=0)
    torch.testing.assert_close(layer(current), out, rtol=0, atol=0)
    stepwise, own = [], None
    for frame in current:
        spikes, own = layer.step(frame, own)
        stepwise.append(spikes)
    torch.testing.assert_close(torch.stack(stepwise), out, rtol=0, atol=0)
    for one, other in zip(own, state, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    early, middle = layer(current[:5], layer.initial_state((4, 6), dtype=torch.float64))
    late, _ = layer(current[5:], middle)
    torch.testing.assert_close(torch.cat([early, late]), out, rtol=0, atol=0)


def test_weights_without_gradients_get_none():
    current, weight = leaf(9, 5, shift=0.3), torch.randn(5, 5, dtype=torch.float64)
    snn.spike(current, ec.LIF(alpha=0.9), recurrent=weight).spikes.sum().backward()
    assert current.grad is not None and weight.grad is None
    weight.requires_grad_()
    snn.spike(current.detach(), ec.LIF(alpha=0.9), recurrent=weight).spikes.sum().backward()
    assert weight.grad.abs().sum() > 0


def test_masked_weights_stay_zero():
    mask = 1 - torch.eye(7)
    layer = snn.Recurrent(snn.LIF(alpha=0.9, threshold=0.5), 7, mask=mask)
    assert not layer.weight.diagonal().any()
    assert "42 weights" in repr(layer)
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.1)
    before = layer.weight.detach().clone()
    for _ in range(3):
        optimiser.zero_grad()
        layer(torch.rand(20, 4, 7)).sum().backward()
        assert not layer.weight.grad.diagonal().any()
        optimiser.step()
    assert not layer.weight.diagonal().any()
    assert (layer.weight != before).sum() == 42


def test_weights_begin_orthogonal():
    weight = snn.Recurrent(snn.IF(), 16).weight.detach()
    torch.testing.assert_close(weight @ weight.T, 0.25 * torch.eye(16), rtol=0, atol=1e-6)


def test_a_layer_is_a_module():
    layer = snn.Recurrent(snn.LIF(tau=10.0, learn=("tau",)), 5, mask=np.tri(5))
    assert sorted(layer.state_dict()) == ["layer._extra_state", "layer.tau", "mask", "weight"]
    current = torch.rand(10, 2, 5)
    expected = layer(current)
    other = snn.Recurrent(snn.LIF(tau=3.0, learn=("tau",)), 5, mask=np.ones((5, 5)))
    other.load_state_dict(layer.state_dict())
    stored = io.BytesIO()
    torch.save(layer.state_dict(), stored)
    stored.seek(0)
    loaded = torch.load(stored, weights_only=True)
    assert set(loaded) == set(layer.state_dict())
    for twin in (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(twin(current), expected, rtol=0, atol=0)
    layer.double()
    assert layer(current.double()).dtype == torch.float64
    assert torch.func.functional_call(layer, {"weight": torch.zeros(5, 5).double()}, current.double()).any()


def test_other_time_dimensions_and_layouts():
    torch.manual_seed(2)
    weight = torch.randn(4, 4)
    current = torch.rand(11, 3, 4)
    expected = snn.spike(current, ec.IF(), recurrent=weight).spikes
    for dim, order in ((1, (1, 0, 2)), (2, (1, 2, 0))):
        moved = current.permute(*order)
        for tensor in (moved, moved.contiguous()):
            spikes = snn.spike(tensor, ec.IF(), recurrent=weight, time_dim=dim).spikes
            torch.testing.assert_close(spikes, expected.permute(*order), rtol=0, atol=0)


def test_a_recurrent_layer_learns_to_repeat_a_pulse():
    """When the current is silent, only the recurrent weights can remember the pulse."""
    torch.manual_seed(0)
    current = torch.zeros(20, 8, 12)
    current[0, :4, :6] = 2.0
    current[0, 4:, 6:] = 2.0
    labels = torch.arange(8) // 4
    layer = snn.Recurrent(snn.LIF(alpha=0.5, surrogate=surrogate.FastSigmoid(5.0)), 12)
    readout = nn.Linear(12, 2)
    optimiser = torch.optim.Adam([*layer.parameters(), *readout.parameters()], lr=0.03)
    losses = []
    for _ in range(120):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(readout(layer(current)[10:].mean(0)), labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 0.5 and losses[-1] < 0.1


def test_errors_name_what_is_wrong():
    current = torch.rand(5, 3)
    for bad, error, words in (
        (np.zeros((3, 3)), TypeError, "recurrent must be a torch tensor"),
        (torch.zeros(2, 2), ValueError, r"recurrent must have shape \(3, 3\)"),
        (torch.zeros(3, 3).double(), TypeError, "recurrent must have dtype float32"),
    ):
        with pytest.raises(error, match=words):
            snn.spike(current, ec.IF(), recurrent=bad)
    with pytest.raises(ValueError, match="recurrent must be None for ExpLeak"):
        snn.spike(current, ec.ExpLeak(alpha=0.9), recurrent=torch.zeros(3, 3))
    for arguments, keywords, error, words in (
        ((nn.Linear(2, 2), 2), {}, TypeError, "layer must be a spiking layer"),
        ((snn.ExpLeak(alpha=0.5), 2), {}, ValueError, "layer must be one that fires"),
        ((snn.IF(), 2.0), {}, TypeError, "features must be an integer"),
        ((snn.IF(), 0), {}, ValueError, "features must be at least 1"),
        ((snn.IF(), 2), {"mask": torch.ones(3, 2)}, ValueError, "mask must have shape"),
        ((snn.IF(), 2), {"mask": torch.full((2, 2), 0.5)}, ValueError, "mask must have values"),
    ):
        with pytest.raises(error, match=words):
            snn.Recurrent(*arguments, **keywords)


def test_saved_tensors_may_not_be_changed():
    weight = torch.randn(3, 3, requires_grad=True)
    spikes = snn.spike(torch.rand(5, 3), ec.IF(), recurrent=weight).spikes
    with torch.no_grad():
        weight.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        spikes.sum().backward()
