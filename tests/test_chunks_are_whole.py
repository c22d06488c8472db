"""A sequence can be cut into chunks: the state has everything that later steps need, forward and backward.

Property: three chained calls equal one call. Forward has the same bits. Backward is equal to rounding, where
each chunk's `grads.state` is the `grad_state` of the chunk before, and parameter gradients add up. Witness:
one call over the whole sequence.
"""

import itertools

import numpy as np
import pytest

import exodus_core as ec
from cases import every_model, name_of, random_problem
from compare import assert_gradients_match, assert_same_bits
from drive import METHODS, backward, forward, neuron_of, state_of
from oracle import Gradients, Seeds
from reference import Model

CUTS = (7, 15)
MODELS = [
    *every_model(),
    Model(alpha=0.9, gain="1-alpha", threshold=0.1),
    Model(alpha=np.array([0.5, 0.9]), gain=1.5, threshold=np.array([[0.5], [0.8], [0.9]])),
    Model(alpha=0.9, reset_amount=0.5, reset_timing="before_decay", v_min=-0.3),
]


def forward_in_chunks(problem, neuron):
    state = state_of(neuron, problem.potential, problem.spikes, problem.current.dtype)
    traces = []
    for part in np.split(problem.current, CUTS):
        traces.append(ec.forward(neuron, part, state=state))
        state = traces[-1].state
    return traces


def backward_in_chunks(problem, traces, method):
    """Run backward from the last chunk to the first, and pass each state's gradient on."""
    e, q = (np.split(x, CUTS) if x is not None else [None] * 3 for x in problem.seeds[:2])
    grad_state, found = problem.seeds.state, []
    for i in reversed(range(3)):
        part = problem._replace(seeds=Seeds(e[i], q[i], grad_state))
        found.append(backward(traces[i], part, method))
        grad_state = found[-1].state
    current = np.concatenate([grads.current for grads in reversed(found)])
    names = found[0].parameters
    total = {name: sum(grads.parameters[name] for grads in found) for name in names}
    return Gradients(current, grad_state, total)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_forward_in_chunks_has_the_bits_of_the_whole(model, dtype):
    problem = random_problem(model, seed=1, steps=23, dtype=dtype)
    whole = forward(problem)
    traces = forward_in_chunks(problem, neuron_of(model))
    assert_same_bits(np.concatenate([t.spikes for t in traces]), whole.spikes)
    assert_same_bits(np.concatenate([t.potential for t in traces]), whole.potential)
    for last, field in zip(traces[-1].state, whole.state, strict=True):
        assert_same_bits(last, field)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_backward_in_chunks_is_the_whole_to_rounding(model, method):
    problem = random_problem(model, seed=2, steps=23)
    whole = backward(forward(problem), problem, method)
    parts = backward_in_chunks(problem, forward_in_chunks(problem, neuron_of(model)), method)
    _, magnitude = problem.expected(detach_reset=method == "slayer")
    assert_gradients_match(parts, whole, magnitude, tol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_readout_in_chunks_is_the_whole(method):
    problem = random_problem(Model(alpha=0.9, gain=0.4, spiking=False), seed=3, steps=23)
    neuron = neuron_of(problem.model)
    whole_trace, traces = forward(problem), forward_in_chunks(problem, neuron)
    assert_same_bits(np.concatenate([t.potential for t in traces]), whole_trace.potential)
    whole = backward(whole_trace, problem, method)
    parts = backward_in_chunks(problem, traces, method)
    _, magnitude = problem.expected()
    assert_gradients_match(parts, whole, magnitude, tol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_single_steps_backward_are_the_whole(method):
    problem = random_problem(Model(alpha=0.9, v_min=-0.3), seed=4, steps=12)
    whole = backward(forward(problem), problem, method)
    neuron = neuron_of(problem.model)
    state = state_of(neuron, problem.potential, problem.spikes, np.float64)
    traces = []
    for frame in problem.current:
        traces.append(ec.forward(neuron, frame, time_axis=None, state=state))
        state = traces[-1].state
    grad_state = problem.seeds.state
    currents = []
    for n in reversed(range(12)):
        seeds = Seeds(problem.seeds.spikes[n], problem.seeds.potential[n], grad_state)
        grads = backward(traces[n], problem._replace(seeds=seeds), method)
        grad_state = grads.state
        currents.append(grads.current)
    _, magnitude = problem.expected(detach_reset=method == "slayer")
    actual = Gradients(np.stack(currents[::-1]), grad_state, whole.parameters)
    assert_gradients_match(actual, whole, magnitude, tol=1e-13)


def test_chunks_do_not_share_memory_with_their_states():
    # If a state were an alias of the next call's input, the second backward would differ.
    problem = random_problem(Model(alpha=0.9), seed=5, steps=23)
    traces = forward_in_chunks(problem, neuron_of(problem.model))
    before = traces[1].state.potential.copy()
    ec.forward(neuron_of(problem.model), problem.current[15:], state=traces[1].state, out=traces[2])
    assert_same_bits(traces[1].state.potential, before)
    for earlier, later in itertools.pairwise(traces):
        assert not np.shares_memory(earlier.state.potential, later.state.potential)
