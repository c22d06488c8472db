"""Property: the operators are what torch's compiler expects, and compute what eager layers do.

Witness: torch's ``opcheck``, and eager layers.
"""

import numpy as np
import pytest
import torch
from torch import library

import exodus_core as ec
import exodus_core.torch as snn
from exodus_core import surrogate
from exodus_core._text import from_text, to_text
from exodus_core.torch import _operators
from neuron_examples import FIRING, SCALARS, per_neuron

SHAPE = (5, 3, 4)
DEFAULT = to_text(surrogate.SingleExponential())


def arguments(neuron, dtype=torch.float64, *, learn=True, state=True, recurrent=False, time_dim=0):
    torch.manual_seed(0)
    names = neuron._parameter_names() if learn else []
    learnt = [
        torch.tensor(np.array(neuron._value_of(name)), dtype=dtype, requires_grad=True) for name in names
    ]
    current = torch.randn(SHAPE, dtype=dtype, requires_grad=True)
    neurons = [n for axis, n in enumerate(SHAPE) if axis != time_dim]
    zeros = neuron.initial_state(tuple(neurons), str(dtype).removeprefix("torch."))
    initial = [torch.from_numpy(field + 0.1).requires_grad_() for field in zeros] if state else []
    weights = torch.randn(4, 4, dtype=dtype, requires_grad=True) if recurrent else None
    text = to_text(neuron)
    return current, weights, learnt, initial, text, names, DEFAULT, "exodus", time_dim, True


@pytest.mark.parametrize("state", [False, True], ids=["rest", "state"])
@pytest.mark.parametrize("learn", [False, True], ids=["fixed", "learnt"])
@pytest.mark.parametrize("name", SCALARS)
def test_opcheck_of_every_neuron(name, learn, state):
    library.opcheck(_operators.spike, arguments(SCALARS[name], learn=learn, state=state))


@pytest.mark.parametrize("time_dim", [0, 1, -1, None])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_opcheck_of_layouts(order, time_dim):
    current, *rest = arguments(SCALARS["CubaLIF"], state=False, time_dim=time_dim)
    strided = current.detach().permute(order).contiguous().permute(tuple(np.argsort(order))).requires_grad_()
    for given in (strided, current.detach()[:, ::2].requires_grad_(), current.detach().expand(2, *SHAPE)):
        library.opcheck(_operators.spike, (given, *rest))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_opcheck_with_recurrent_weights(dtype):
    library.opcheck(_operators.spike, arguments(SCALARS["LIF"], dtype, recurrent=True))


@pytest.mark.parametrize("recurrent", [False, True])
def test_opcheck_of_the_backward_operator(recurrent):
    current, weights, learnt, initial, text, names, *rest = arguments(SCALARS["LIF"], recurrent=recurrent)
    with torch.no_grad():
        spikes, potential, final = _operators.spike(current, weights, learnt, initial, text, names, *rest)
        library.opcheck(
            _operators.spike_backward,
            (
                torch.randn_like(spikes),
                torch.randn_like(potential),
                [torch.randn_like(field) for field in final],
                potential,
                current.detach(),
                spikes,
                None if weights is None else weights.detach(),
                [value.detach() for value in learnt],
                [field.detach() for field in initial],
                text,
                names,
                *rest[:-1],
                torch.float64,
                recurrent,
                [True] * len(names),
            ),
        )


@pytest.mark.parametrize("method", ["exodus", "slayer", "bptt"])
@pytest.mark.parametrize("name", SCALARS)
def test_gradients_are_those_of_eager_layers(name, method):
    neuron = SCALARS[name]
    current, _, learnt, initial, *texts = arguments(neuron)
    texts[3] = method
    spikes, potential, final = _operators.spike(current, None, learnt, initial, *texts)
    trace = snn.spike(
        current,
        neuron,
        method=method,
        state=neuron._state(*initial),
        parameters=dict(zip(neuron._parameter_names(), learnt, strict=True)),
    )
    seeds = [torch.randn_like(potential) for _ in range(2)] + [torch.randn_like(field) for field in final]
    results = []
    for own in ((spikes, potential, *final), (trace.spikes, trace.potential, *trace.state)):
        pairs = [
            (part, seed) for part, seed in zip(own, seeds, strict=True) if part is not None and part.numel()
        ]
        loss = sum((part * seed).sum() for part, seed in pairs)
        results.append(torch.autograd.grad(loss, (current, *learnt, *initial)))
    assert torch.equal(potential, trace.potential)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("name", [*SCALARS])
def test_text_has_every_bit(name):
    neuron = SCALARS[name]
    assert from_text(to_text(neuron)) == neuron
    arrays = per_neuron(name, (3, 4))
    assert from_text(to_text(arrays)) == arrays
    assert from_text(to_text(neuron)) is from_text(to_text(neuron))


def test_text_of_every_surrogate():
    kinds = [getattr(surrogate, name) for name in surrogate.__all__ if name != "Surrogate"]
    for kind in kinds:
        value = kind(scale=1 / 3)
        assert from_text(to_text(value)) == value


@pytest.mark.parametrize("value", [object(), torch.nn.Identity()])
def test_text_of_something_else_is_refused(value):
    with pytest.raises(TypeError, match="must be a descriptor, a kernel or a surrogate, got"):
        to_text(value)


def test_a_function_as_surrogate_has_a_number_while_it_lives():
    def curve(u, threshold):
        return u * 0 + 1

    text = _operators.surrogate_text(curve)
    assert _operators.surrogate_text(curve) == text
    *front, _, method, time_dim, potential = arguments(SCALARS["LIF"])
    spikes, *_ = _operators.spike(*front, text, method, time_dim, potential)
    spikes.sum().backward()
    expected = snn.spike(
        front[0].detach().requires_grad_(), SCALARS["LIF"], surrogate=surrogate.StraightThrough()
    )
    assert front[0].grad.shape == expected.spikes.shape
    del curve
    with pytest.raises(RuntimeError, match="a Python function that this process does not have"):
        _operators._surrogate_of("function:1000000")


@pytest.mark.parametrize("name", FIRING)
def test_second_derivatives_raise(name):
    current, *rest = arguments(SCALARS[name], learn=False, state=False)
    spikes, *_ = _operators.spike(current, *rest)
    (grad,) = torch.autograd.grad(spikes.sum(), current, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        grad.sum().backward()


def test_the_neuron_of_a_text_is_checked():
    current, *rest = arguments(ec.LIF(alpha=0.9), learn=False, state=False)
    rest[3] = rest[3].replace("0.9", "1.9")
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\], got 1.9"):
        _operators.spike(current, *rest)
