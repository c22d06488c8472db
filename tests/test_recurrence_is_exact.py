"""Recurrent weights: a'[n] = a[n] + s[n-1] W before any neuron that fires (docs/mathematics.md, Recurrence).

Property: forward has the bits of the sum in the order of the contract, in every layout and chunking, on any
number of threads. In float64 EXODUS and BPTT give the gradients of autograd of the unrolled step to 1e-10,
and agree to 1e-12. SLAYER gives those of autograd with the reset detached, but not the synapse. This holds
for the current, every state, every parameter and the weights. Witness: `stepwise`.
"""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import exodus_core as ec
from cases import SURROGATES
from compare import assert_gradients_match, assert_same_bits
from drive import METHODS, surrogate_of
from neuron_examples import EXAMPLES, FIRING
from test_hidden_states_are_exact import ALIF, CUBA, FOLLOWS, random_data, srm
from test_neurons_are_their_step import problems

stepwise = pytest.importorskip("stepwise", reason="needs torch")
Model = stepwise.Model

LIF = Model("LIF", {"alpha": 0.9, "threshold": 0.8, "gain": 1.1})
COUPLED = Model(
    "StateSpace",
    {"A": [[0.9, -0.2], [0.3, 0.8]], "b": [0.9, 0.2], "r": [-0.8, 0.1], "threshold": 0.8},
)
MODELS = [
    LIF,
    Model("LIF", LIF.keywords | {"reset": "zero"}),
    Model("LIF", LIF.keywords | {"max_spikes": None}),
    CUBA,
    FOLLOWS,
    ALIF,
    COUPLED,
    srm("Alpha", "DoubleExponential"),
    srm("FIR", "FIR"),
    srm("FIR", "Alpha"),
    srm("Alpha", "FIR"),
]
SOME = pytest.mark.parametrize(
    "model", [LIF, CUBA, ALIF, COUPLED, srm("FIR", "FIR")], ids=lambda model: model.name
)
EACH = pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{model.name}-{len(model.keywords)}")
# (shape, time axis, order in memory). The neurons are on the last axis that is not time.
LAYOUTS = [
    ((23, 5), 0, None),
    ((23, 300), 0, None),
    ((23, 3, 70), 0, None),
    ((2, 23, 70), 1, None),
    ((3, 23, 4), 1, None),
    ((2, 5, 3, 4), 0, None),
    ((6, 4, 23), 2, None),
    ((4, 23), 1, None),
    ((200, 23), 1, None),
    ((23, 3, 70), 0, (2, 1, 0)),
    ((23, 3, 70), 0, (0, 2, 1)),
    ((5, 23, 4, 6), 1, (3, 1, 0, 2)),
    ((1, 23, 2100), 1, None),
]


def weights(rng, count, dtype=np.float64):
    """Random weights of both signs, some of them zero."""
    w = rng.normal(0, 0.8 / np.sqrt(count), (count, count))
    return np.where(rng.random(w.shape) < 0.1, 0, w).astype(dtype)


def in_memory(array, order):
    """The same array with its axes in another order in memory."""
    if order is None:
        return np.ascontiguousarray(array)
    return np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))


def solve(neuron, current, state, seeds, w, method="exodus", *, surrogate=SURROGATES[0], time_axis=0):
    trace = ec.forward(neuron, current, state=state, recurrent=w, time_axis=time_axis)
    spikes, potential, final = seeds
    grads = ec.backward(
        trace,
        spikes,
        grad_potential=potential,
        grad_state=final,
        method=method,
        surrogate=surrogate_of(surrogate),
    )
    return trace, grads


def with_recurrent(grads):
    """The gradients, with that of the weights among those of the parameters."""
    return dataclasses.replace(grads, parameters=grads.parameters | {"recurrent": grads.recurrent})


def check(model, current, state, seeds, w, surrogate):
    neuron, found = model.neuron(), {}
    given_state = None if state is None else neuron._state(*state)
    for method in METHODS:
        trace, found[method] = solve(neuron, current, given_state, seeds, w, method, surrogate=surrogate)
        found[method] = with_recurrent(found[method])
        expected, magnitude = stepwise.unroll(
            model, surrogate, current, state, seeds, detach_reset=method == "slayer", recurrent=w
        )
        assert_gradients_match(found[method], expected, magnitude, tol=1e-10)
    potential, spikes, final = stepwise.forward(model, current, state, w)
    assert_same_bits(trace.potential, potential, "potential")
    assert_same_bits(trace.spikes, spikes, "spikes")
    for actual, wanted in zip(trace.state, final, strict=True):
        assert_same_bits(actual, wanted, "state")
    _, magnitude = stepwise.unroll(model, surrogate, current, state, seeds, recurrent=w)
    assert_gradients_match(found["exodus"], found["bptt"], magnitude, tol=1e-12)


@pytest.mark.parametrize("name", [name for name in FIRING if EXAMPLES[name].bits])
@given(st.data())
def test_all_methods_are_autograd_of_the_unrolled_step(name, data):
    model, current, state, seeds, surrogate = data.draw(problems(name))
    w = weights(np.random.default_rng(data.draw(st.integers(0, 2**32))), current.shape[-1])
    check(model, current, state, seeds, w, surrogate)


@EACH
def test_many_neurons_and_entries_are_autograd_of_the_unrolled_step(model):
    """Sizes with several groups of entries, whole and partial vectors, and several tiles of the weights."""
    rng = np.random.default_rng(3)
    for lanes in ((7, 41), (2, 70), (1, 270)):
        current, state, seeds = random_data(rng, 12, lanes, model=model)
        check(model, current, state, seeds, weights(rng, lanes[-1]), SURROGATES[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@EACH
def test_forward_is_the_formula_in_every_layout(model, dtype):
    for shape, axis, order in LAYOUTS:
        rng = np.random.default_rng(1)
        lanes = shape[:axis] + shape[axis + 1 :]
        current, state, _ = random_data(rng, shape[axis], lanes, dtype, model=model)
        w = weights(rng, lanes[-1], dtype)
        neuron = model.neuron()
        moved = in_memory(np.moveaxis(current, 0, axis), order)
        trace = ec.forward(neuron, moved, state=neuron._state(*state), recurrent=w, time_axis=axis)
        potential, spikes, final = stepwise.forward(model, current, state, w)
        assert spikes.any()
        wide = [k for k, size in enumerate(shape) if size > 1]
        assert [trace.potential.strides[k] for k in wide] == [moved.strides[k] for k in wide]
        assert_same_bits(np.moveaxis(trace.potential, axis, 0), potential, "potential")
        assert_same_bits(np.moveaxis(trace.spikes, axis, 0), spikes, "spikes")
        for actual, wanted in zip(trace.state, final, strict=True):
            assert_same_bits(actual, wanted, "state")


@pytest.mark.parametrize("method", METHODS)
@SOME
def test_backward_is_the_same_in_every_layout(model, method):
    for shape, axis, order in LAYOUTS[:-1]:  # The last is too large: autograd needs the weights at each step.
        rng = np.random.default_rng(2)
        lanes = shape[:axis] + shape[axis + 1 :]
        current, state, seeds = random_data(rng, shape[axis], lanes, model=model)
        per_neuron = {
            k: np.broadcast_to(v, lanes) * rng.uniform(0.9, 1, lanes)
            for k, v in model.keywords.items()
            if k in ("alpha", "threshold", "epsilon.scale")
        }
        varied = Model(model.name, model.keywords | per_neuron)
        w = weights(rng, lanes[-1])
        neuron = varied.neuron()
        moved = [in_memory(np.moveaxis(x, 0, axis), order) for x in (current, *seeds[:2])]
        _, grads = solve(
            neuron, moved[0], neuron._state(*state), (*moved[1:], seeds[2]), w, method, time_axis=axis
        )
        expected, magnitude = stepwise.unroll(
            varied, SURROGATES[0], current, state, seeds, detach_reset=method == "slayer", recurrent=w
        )
        grads = with_recurrent(dataclasses.replace(grads, current=np.moveaxis(grads.current, axis, 0)))
        assert_gradients_match(grads, expected, magnitude, tol=1e-10)


@EACH
def test_chunks_are_the_whole(model):
    rng = np.random.default_rng(4)
    lanes, cut = (3, 37), 9
    current, state, seeds = random_data(rng, 24, lanes, model=model)
    w, neuron = weights(rng, lanes[-1]), model.neuron()
    whole, grads = solve(neuron, current, neuron._state(*state), seeds, w)
    first = ec.forward(neuron, current[:cut], state=neuron._state(*state), recurrent=w)
    second = ec.forward(neuron, current[cut:], state=first.state, recurrent=w)
    assert_same_bits(np.concatenate([first.potential, second.potential]), whole.potential)
    for one, other in zip(second.state, whole.state, strict=True):
        assert_same_bits(one, other, "state")
    curve = surrogate_of(SURROGATES[0])
    late = ec.backward(
        second, seeds[0][cut:], grad_potential=seeds[1][cut:], grad_state=seeds[2], surrogate=curve
    )
    early = ec.backward(
        first, seeds[0][:cut], grad_potential=seeds[1][:cut], grad_state=late.state, surrogate=curve
    )
    near = {"rtol": 1e-11, "atol": 1e-12}
    np.testing.assert_allclose(np.concatenate([early.current, late.current]), grads.current, **near)
    np.testing.assert_allclose(early.recurrent + late.recurrent, grads.recurrent, **near)
    for one, other in zip(early.state, grads.state, strict=True):
        np.testing.assert_allclose(one, other, **near)


def test_any_number_of_threads_gives_the_same_bits():
    rng = np.random.default_rng(5)
    current, state, seeds = random_data(rng, 60, (33, 50), np.float32, model=CUBA)
    w, neuron = weights(rng, 50, np.float32), CUBA.neuron()
    seeds = (seeds[0].astype(np.float32), None, None)
    results, before = [], ec.get_num_threads()
    try:
        for threads in (1, 2, 3, 8):
            ec.set_num_threads(threads)
            results.append(solve(neuron, current, neuron._state(*state), seeds, w))
    finally:
        ec.set_num_threads(before)
    (trace, grads), *others = results
    assert np.abs(grads.recurrent).max() > 0
    for other_trace, other in others:
        assert_same_bits(other_trace.potential, trace.potential)
        assert_same_bits(other.current, grads.current)
        assert_same_bits(other.recurrent, grads.recurrent)
        for name, value in grads.parameters.items():
            assert_same_bits(other.parameters[name], value)


def test_weights_of_zero_have_no_effect():
    rng = np.random.default_rng(6)
    current, state, seeds = random_data(rng, 30, (4, 20), model=CUBA)
    neuron = CUBA.neuron()
    trace, grads = solve(neuron, current, neuron._state(*state), seeds, np.zeros((20, 20)))
    plain, expected = solve(neuron, current, neuron._state(*state), seeds, None)
    assert expected.recurrent is None
    assert_same_bits(trace.potential, plain.potential)
    np.testing.assert_allclose(grads.current, expected.current, rtol=1e-12)


def test_only_requested_gradients_are_computed():
    rng = np.random.default_rng(7)
    current = rng.normal(0.3, 0.8, (20, 3, 8))
    trace = ec.forward(ec.LIF(alpha=0.9), current, recurrent=weights(rng, 8))
    grad = rng.normal(size=current.shape)
    every = ec.backward(trace, grad)
    for names in ((), ("alpha",), ("recurrent",), ("alpha", "recurrent")):
        some = ec.backward(trace, grad, parameters=names)
        assert set(some.parameters) == set(names) - {"recurrent"}
        assert (some.recurrent is not None) == ("recurrent" in names)
        assert_same_bits(some.current, every.current)
        if some.recurrent is not None:
            assert_same_bits(some.recurrent, every.recurrent)
    reused = ec.backward(trace, grad, out=some)
    assert reused is some and reused.recurrent is not None


def test_the_spikes_of_a_state_act_in_a_single_step():
    w = np.array([[0.0, 0.5], [0.25, 0.0]])
    neuron = ec.LIF(alpha=1.0, reset="none")
    state = neuron._state(np.zeros(2), np.array([1.0, 2.0]))
    trace = ec.forward(neuron, np.zeros(2), time_axis=None, state=state, recurrent=w)
    np.testing.assert_array_equal(trace.potential, [0.5, 0.5])


W = np.zeros((4, 4), np.float32)
BAD = {
    "a list": (TypeError, [[0.0]]),
    "another dtype": (TypeError, np.zeros((4, 4))),
    "another size": (ValueError, np.zeros((5, 5), np.float32)),
    "one axis": (ValueError, np.zeros(4, np.float32)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_weights_raise(case):
    error, bad = BAD[case]
    with pytest.raises(error, match=r"^recurrent must"):
        ec.forward(ec.LIF(alpha=0.9), np.zeros((3, 2, 4), np.float32), recurrent=bad)
    trace = ec.forward(ec.LIF(alpha=0.9), np.zeros((3, 2, 4), np.float32), recurrent=W)
    trace.recurrent = bad
    with pytest.raises(error, match=r"^trace\.recurrent must"):
        ec.backward(trace, np.zeros((3, 2, 4), np.float32))


def test_a_neuron_without_spikes_has_no_recurrence():
    with pytest.raises(ValueError, match="recurrent must be None for ExpLeak"):
        ec.forward(ec.ExpLeak(alpha=0.9), np.zeros((3, 4), np.float32), recurrent=W)
    with pytest.raises(ValueError, match="recurrent needs a current with an axis of neurons"):
        ec.forward(ec.LIF(alpha=0.9), np.zeros(3, np.float32), recurrent=W)


def test_edited_spikes_are_checked():
    x = np.zeros((3, 2, 4), np.float32)
    trace = ec.forward(ec.LIF(alpha=0.9), x, recurrent=W)
    trace.spikes = np.zeros(3)
    with pytest.raises(TypeError, match=r"trace\.spikes must"):
        ec.backward(trace, x)


@pytest.mark.parametrize("shape", [(3, 0, 4), (3, 4, 0)])
def test_empty_batches_have_gradients_of_zero(shape):
    x = np.zeros(shape, np.float32)
    w = np.ones((shape[-1],) * 2, np.float32)
    trace = ec.forward(ec.LIF(alpha=0.9), x, recurrent=w)
    grads = ec.backward(trace, x)
    assert grads.recurrent.shape == w.shape and not grads.recurrent.any()
