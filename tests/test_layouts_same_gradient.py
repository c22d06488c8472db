"""A gradient does not depend on the memory order, nor on the number of threads.

Property: all results of backward have the same bits for any position of the time axis, any memory order and
any thread count. Only the gradients of parameters, which are sums over neurons, are rounded differently in
another memory order. Witness: one thread, and a C-ordered array with time first.
"""

import itertools

import numpy as np
import pytest

import exodus_core as ec
from cases import every_model, name_of, random_problem
from compare import assert_gradients_match, assert_same_bits
from drive import METHODS, neuron_of, state_of, surrogate_of
from oracle import Gradients, Seeds
from reference import Model, surrogate

EACH = Model(
    alpha=np.linspace(0.5, 1, 6)[:, None],
    threshold=0.7,
    gain=np.linspace(0.5, 2, 9),
    v_min=-0.2,
)


def solve(problem, method, move=lambda x: x, time_axis=0):
    """Run backward on arrays that `move` has laid out, and move the gradient back."""
    neuron, seeds = neuron_of(problem.model), problem.seeds
    state = state_of(neuron, problem.potential, problem.spikes, problem.current.dtype)
    trace = ec.forward(neuron, move(problem.current), time_axis=time_axis, state=state)
    grads = ec.backward(
        trace,
        move(seeds.spikes),
        method=method,
        surrogate=surrogate_of(problem.surrogate),
        grad_potential=move(seeds.potential),
        grad_state=seeds.state,
    )
    assert grads.current.strides == move(problem.current).strides
    return Gradients(np.moveaxis(grads.current, time_axis, 0), grads.state, grads.parameters)


def assert_same_gradients(actual, expected, *, parameters=True):
    assert_same_bits(actual.current, expected.current, "current")
    for one, other in zip(actual.state, expected.state, strict=True):
        assert_same_bits(one, other, "state")
    for name in expected.parameters if parameters else ():
        assert_same_bits(actual.parameters[name], expected.parameters[name], name)


def to_axis(axis):
    return lambda x: np.moveaxis(x, 0, axis).copy()


def in_memory_order(order):
    return lambda x: x.transpose(order).copy().transpose(np.argsort(order))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", [*every_model(), EACH], ids=name_of)
def test_position_of_time(model, method, dtype):
    problem = random_problem(model, seed=1, steps=25, lanes=(6, 9), dtype=dtype)
    expected = solve(problem, method)
    for axis in (1, 2):
        assert_same_gradients(solve(problem, method, to_axis(axis), axis), expected)


@pytest.mark.parametrize("lanes", [(1,), (3,), (8,), (35,), (64,), (65,), (1000,), (40, 3)])
@pytest.mark.parametrize("method", METHODS)
def test_position_of_time_for_every_width(lanes, method):
    problem = random_problem(Model(alpha=0.9), seed=2, lanes=lanes, dtype=np.float32)
    last = len(lanes)
    expected = solve(problem, method)
    assert_same_gradients(solve(problem, method, to_axis(last), last), expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("time_axis", range(3))
def test_memory_order(method, time_axis):
    problem = random_problem(EACH, seed=3, steps=11, lanes=(6, 9), dtype=np.float32)
    expected = solve(problem, method)
    _, magnitude = problem.expected(detach_reset=method == "slayer")
    for order in itertools.permutations(range(3)):

        def move(x, order=order):
            return in_memory_order(order)(np.moveaxis(x, 0, time_axis))

        actual = solve(problem, method, move, time_axis)
        # Neurons are summed in memory order, so only the gradients of parameters may be rounded differently.
        assert_same_gradients(actual, expected, parameters=False)
        assert_gradients_match(actual, expected, magnitude, tol=1e-5)


SHAPES = [
    shape[drop:]
    for drop in range(4)
    for shape in itertools.product((1, 2), (1, 3), (1, 4))
    if all(size == 1 for size in shape[:drop])
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_parameters_of_every_shape_in_every_memory_order(shape):
    # The kernels take a parameter as (count, repeat) in memory order; its gradient must get its own shape.
    rng = np.random.default_rng(7)
    model = Model(
        alpha=rng.uniform(0.5, 1, shape),
        threshold=rng.uniform(0.5, 1, shape[-1:]),
        gain=rng.uniform(0.5, 2, shape),
        v_min=rng.uniform(-0.5, 0, shape),
    )
    problem = random_problem(model, seed=7, steps=6, lanes=(2, 3, 4))
    expected, magnitude = problem.expected()
    for time_axis, order in itertools.product(range(4), itertools.permutations(range(4))):

        def move(x, time_axis=time_axis, order=order):
            return in_memory_order(order)(np.moveaxis(x, 0, time_axis))

        actual = solve(problem, "exodus", move, time_axis)
        assert_gradients_match(actual, expected, magnitude, tol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_in_another_order_than_the_current(method):
    # torch may pass a gradient whose memory order is not that of the current.
    problem = random_problem(EACH, seed=4, steps=11, lanes=(6, 9), dtype=np.float32)
    expected = solve(problem, method)
    turned = Seeds(
        np.asfortranarray(problem.seeds.spikes),
        problem.seeds.potential[::-1].copy()[::-1],
        problem.seeds.state,
    )
    assert turned.potential.strides[0] < 0
    assert_same_gradients(solve(problem._replace(seeds=turned), method), expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("time_axis", [0, 1, 2])
def test_thread_count(threads, method, time_axis):
    model = Model(alpha=0.95, threshold=np.linspace(0.5, 1, 257), v_min=-0.3, gain=0.9)
    gaussian = surrogate("Gaussian")
    problem = big_problem(model)._replace(surrogate=gaussian)
    threads(1)
    expected = solve(problem, method, to_axis(time_axis), time_axis)
    for count in (2, 3, 4):
        threads(count)
        assert_same_gradients(solve(problem, method, to_axis(time_axis), time_axis), expected)


def big_problem(model):
    """A problem with enough lanes to give every thread several rows."""
    return random_problem(model, seed=5, steps=20, lanes=(120, 257), dtype=np.float32)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("steps", "lanes"), [(3000, (2,)), (3000, (1,)), (1, (4000,))])
def test_thread_count_of_long_and_of_flat_arrays(threads, method, steps, lanes):
    # The split of time may depend on the sizes, but not on the number of threads.
    problem = random_problem(Model(alpha=0.95), seed=6, steps=steps, lanes=lanes, dtype=np.float32)
    threads(1)
    expected = solve(problem, method)
    for count in (2, 4):
        threads(count)
        assert_same_gradients(solve(problem, method), expected)
