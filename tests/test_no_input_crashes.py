"""No input crashes: a call gives the right result, or raises a ValueError or a TypeError.

Property: for any array, state, gradient or layout, the process survives, the input is not modified, and a
result is correct. Witness: the NumPy forward and the dense oracle.
"""

import dataclasses
import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import exodus_core as ec
import reference
from cases import random_problem
from compare import assert_gradients_match, assert_same_bits
from drive import METHODS, backward, forward, neuron_of
from reference import Model

MODEL = Model(alpha=0.9, threshold=0.6, v_min=-0.3)
NEURON = neuron_of(MODEL)
REFUSED = (ValueError, TypeError)


def attempt(current, time_axis=0, neuron=NEURON):
    """Compare the trace with the reference and return it, or None if the input was refused."""
    try:
        trace = ec.forward(neuron, current, time_axis=time_axis)
    except REFUSED:
        return None
    native = np.moveaxis(current, time_axis, 0).astype(current.dtype.newbyteorder("="))
    run = reference.forward(MODEL, native)
    assert_same_bits(np.moveaxis(trace.spikes, time_axis, 0), run.spikes)
    assert_same_bits(np.moveaxis(trace.potential, time_axis, 0), run.potential)
    return trace


@st.composite
def views(draw):
    """A view into a small buffer, with any axes, steps, directions, lengths and repeats."""
    dtype = draw(st.sampled_from(("<f4", "<f8", ">f4", ">f8", "i4", "?", "c8", "O")))
    dims = draw(st.integers(0, 5))
    shape = draw(st.tuples(*(st.integers(0, 5) for _ in range(dims))))
    array = np.random.default_rng(draw(st.integers(0, 99))).normal(0.2, 0.6, shape)
    array = array.astype(dtype).transpose(draw(st.permutations(range(dims))))
    slices = (st.builds(slice, st.none(), st.none(), st.sampled_from((1, 2, -1, -3))),) * dims
    array = array[draw(st.tuples(*slices))] if dims else array
    if array.ndim and array.size and draw(st.integers(0, 3)) == 0:
        array = np.broadcast_to(array[..., :1], (*array.shape[:-1], draw(st.integers(0, 4))))
    return array


@given(views(), st.one_of(st.none(), st.integers(-6, 6)))
def test_any_view_on_any_axis(view, time_axis):
    if time_axis is None:
        return attempt_single_step(view)
    trace = attempt(view, time_axis)
    plain = view.dtype in (np.float32, np.float64) and view.dtype.isnative
    has_time = -view.ndim <= time_axis < view.ndim and view.shape[time_axis] > 0  # Other axes may be empty.
    assert (trace is not None) == (plain and has_time)
    return None


def attempt_single_step(view):
    try:
        trace = ec.forward(NEURON, view, time_axis=None)
    except REFUSED:
        return
    frame = view.astype(view.dtype.newbyteorder("="))
    run = reference.forward(MODEL, frame[None])
    assert_same_bits(trace.spikes, run.spikes[0])
    assert_same_bits(trace.potential, run.potential[0])


@given(views(), views(), st.integers(0, 4), st.sampled_from(METHODS))
def test_backward_of_any_view_is_that_of_a_contiguous_copy(view, other, time_axis, method):
    if not view.size or view.dtype not in (np.float32, np.float64) or not view.dtype.isnative:
        view = np.full((3, 1, 4), 0.5)
    time_axis %= max(view.ndim, 1)
    view = np.atleast_1d(view)
    rng = np.random.default_rng(0)
    # The gradient has another memory order. It is taken from the other view if the shapes agree.
    grad = rng.normal(size=view.shape[::-1]).astype(view.dtype).T
    if other.shape == view.shape and other.dtype == view.dtype:
        grad = other
    tidy, tidy_grad = np.array(view, order="C"), np.array(grad, order="C")
    expected = ec.backward(ec.forward(NEURON, tidy, time_axis=time_axis), tidy_grad, method=method)
    actual = ec.backward(ec.forward(NEURON, view, time_axis=time_axis), grad, method=method)
    assert_same_bits(actual.current, expected.current)
    assert_same_bits(actual.state.potential, expected.state.potential)


# Each use of a copied trace runs in its own process, which crashes if an address outlives its array.
MAKE_TRACE = """
import copy, pickle, sys
import numpy as np, exodus_core as ec
current = np.random.default_rng(0).normal(0.3, 0.7, (5, 40, 25)){turn}
alpha = {alpha}
ones = np.ones(current.shape)
trace = ec.forward(ec.LIF(alpha=alpha), current)
expected = ec.backward(trace, ones).current
"""
PICKLE = "sys.stdout.buffer.write(pickle.dumps((trace, expected)))"
UNPICKLE = """
import pickle, sys
import numpy as np, exodus_core as ec
trace, expected = pickle.loads(sys.stdin.buffer.read())
assert (ec.backward(trace, np.ones(expected.shape)).current == expected).all()
"""
# New arrays get the freed memory, so that a stale address reads their numbers.
DEEPCOPY = """
other = copy.deepcopy(trace)
del trace, alpha
others = [np.full(1000, 1e9) for _ in range(1000)]
assert (ec.backward(other, ones).current == expected).all()
"""


@pytest.mark.parametrize("turn", ["", ".transpose(0, 2, 1)"], ids=["C order", "another order"])
@pytest.mark.parametrize("alpha", ["0.9", "current[0] % 1"], ids=["one", "each"])
@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
def test_a_copied_trace_does_not_point_into_the_original(how, alpha, turn):
    # A copy may have another memory order than its original.
    make = MAKE_TRACE.format(alpha=alpha, turn=turn)
    if how == "pickle":
        done = run_python(UNPICKLE, run_python(make + PICKLE).stdout)
    else:
        done = run_python(make + DEEPCOPY)
    assert done.returncode == 0, done.stderr.decode()


def run_python(code, stdin=b""):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=120)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("steps", [1, 2, 7, 33, 100])
@pytest.mark.parametrize("lanes", [(1,), (2,), (63, 1), (1, 1, 1, 1)])
def test_smallest_sizes(steps, lanes, dtype, method):
    problem = random_problem(MODEL, steps=steps, lanes=lanes, dtype=dtype)
    trace = forward(problem)
    expected, magnitude = problem.expected(detach_reset=method == "slayer")
    tol = {np.float32: 1e-5, np.float64: 1e-10}[dtype]
    assert_gradients_match(backward(trace, problem, method), expected, magnitude, tol=tol)


@pytest.mark.parametrize("method", METHODS)
def test_one_neuron_that_is_only_a_time_axis(method):
    current = np.linspace(-1, 2, 30)
    trace = attempt(current)
    assert trace.state.potential.shape == ()
    grads = ec.backward(trace, np.ones(30), method=method)
    assert grads.current.shape == (30,)
    assert grads.state.potential.shape == ()


def test_one_step_of_one_neuron():
    trace = ec.forward(NEURON, np.array(0.75), time_axis=None)
    assert trace.spikes.shape == ()
    assert trace.spikes == 1
    assert ec.backward(trace, np.array(1.0)).current.shape == ()


@pytest.mark.parametrize(
    "current",
    [
        np.array([[0.1, None]], object),
        np.array([[0.1, 2]], object),
        np.zeros(3, [("a", "f4")]),
        np.zeros(3, "M8[s]"),
        np.zeros((2, 3), ">f4"),
        np.zeros((2, 3), ">f8"),
        np.zeros((2, 3), "f2"),
        np.zeros((2, 3), np.longdouble),
        np.ma.masked_array(np.zeros((2, 3)), mask=True),
        np.zeros((2, 3)).view(np.recarray),
        np.float32(0.5),
        [[0.1, 0.2]],
        ((0.1,),),
        None,
        "abc",
        b"abcd",
        memoryview(b"abcdefgh"),
        range(5),
        iter([0.1]),
        {"a": 1},
        float("nan"),
        np.lib.stride_tricks.as_strided(np.zeros(4, np.float32), (3, 3), (0, 0)),
    ],
    ids=lambda x: f"{type(x).__name__} {getattr(x, 'dtype', '')}",
)
def test_objects_that_are_not_quite_arrays(current):
    for time_axis in (0, -1, None):
        try:
            trace = ec.forward(NEURON, current, time_axis=time_axis)
        except REFUSED:
            continue
        assert isinstance(current, np.ndarray)
        assert trace.spikes.shape == current.shape


def test_an_object_with_an_array_of_its_own_is_not_trusted():
    class Liar:
        shape, dtype, strides, ndim = (10**9,), np.dtype(np.float32), (4,), 1

        @property
        def __array_interface__(self):
            return {"shape": (4,), "typestr": "<i4", "data": (0, False), "version": 3}

    with pytest.raises(REFUSED):
        ec.forward(NEURON, Liar())


def test_strides_far_apart():
    # 3 x 4 numbers are spread over 64 MB. They must be copied, and not be taken for a dense block.
    buffer = np.zeros(16_000_000, np.float32)
    current = np.lib.stride_tricks.as_strided(buffer, (3, 4), (20_000_000, 4_000_000))
    current[...] = np.random.default_rng(0).normal(0.3, 0.7, (3, 4))
    for time_axis in (0, 1):
        assert attempt(current, time_axis).potential.nbytes == 48


def test_a_sliding_window_larger_than_its_memory():
    base = np.random.default_rng(0).normal(0.2, 0.6, 1000).astype(np.float32)
    window = np.lib.stride_tricks.sliding_window_view(base, 500)
    for time_axis in (0, 1):
        assert attempt(window, time_axis) is not None


@pytest.mark.parametrize("method", METHODS)
def test_gradients_that_are_views_of_one_another(method):
    problem = random_problem(MODEL, lanes=(3,), dtype=np.float64)
    trace = forward(problem)
    shared = np.random.default_rng(0).normal(size=(20, 3))
    shared.flags.writeable = False
    seeds = problem.seeds._replace(spikes=shared, potential=shared, state=(shared[0], shared[0]))
    problem = problem._replace(seeds=seeds)
    expected, magnitude = problem.expected(detach_reset=method == "slayer")
    assert_gradients_match(backward(trace, problem, method), expected, magnitude, tol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_that_are_not_dense(method):
    problem = random_problem(MODEL, lanes=(3, 4))
    trace = forward(problem)
    plain = backward(trace, problem, method)
    e, q, (u, s) = problem.seeds
    wide = np.zeros((20, 3, 8))
    wide[:, :, ::2] = e
    turned = q[::-1, :, ::-1].copy()[::-1, :, ::-1]
    state = (np.asfortranarray(u), s[::-1].copy()[::-1])
    seeds = problem.seeds._replace(spikes=wide[:, :, ::2], potential=turned, state=state)
    other = backward(trace, problem._replace(seeds=seeds), method)
    assert_same_bits(other.current, plain.current)
    assert_same_bits(other.state.potential, plain.state.potential)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, 5e-324])
@pytest.mark.parametrize("method", METHODS)
def test_any_value_of_a_gradient_stays_in_its_neuron(value, method):
    problem = random_problem(MODEL, lanes=(70,))
    trace = forward(problem)
    clean = backward(trace, problem, method)
    problem.seeds.spikes[4, 5] = value
    grads = backward(trace, problem, method)
    others = np.delete(np.arange(70), 5)
    assert_same_bits(grads.current[:, others], clean.current[:, others])


@given(st.data())
def test_any_mixture_of_arguments_to_backward(data):
    current = np.full((4, 3), 0.7)
    trace = ec.forward(NEURON, current)
    things = [None, 0.5, "x", np.ones((4, 3)), np.ones((4, 3), np.float32), np.ones((3, 4)), []]
    things += [np.ones(3), np.ones((4, 3), ">f8"), np.ones((4, 3), object), np.ones((0, 3))]
    anything = st.sampled_from(things)
    state = st.one_of(anything, st.tuples(anything, anything), st.tuples(anything))
    arguments = {
        "method": data.draw(st.sampled_from((*METHODS, None, "EXODUS", 3))),
        "grad_potential": data.draw(anything),
        "grad_state": data.draw(state),
        "surrogate": data.draw(st.sampled_from((ec.surrogate.Boxcar(), lambda u, t: u, None))),
    }
    try:
        grads = ec.backward(trace, data.draw(anything), **arguments)
    except REFUSED:
        return
    assert grads.current.shape == (4, 3)
    assert np.isfinite(grads.current).all()


@given(st.data())
def test_any_mixture_of_parameters(data):
    things = [None, 0.5, 1.0, 0.0, -1.0, np.nan, np.inf, 1e300, 1e-300, "1-alpha", "zero", []]
    things += [np.ones(3), np.ones((2, 1)), np.zeros((0,)), np.ones(5), 1, True, 2**70, [0.5] * 3]
    names = ("alpha", "tau", "dt", "threshold", "gain", "reset", "reset_amount", "v_min")
    names += ("reset_timing", "max_spikes")
    chosen = data.draw(st.sets(st.sampled_from(names), max_size=4))
    fields = {name: data.draw(st.sampled_from(things), label=name) for name in sorted(chosen)}
    if "tau" not in fields:
        fields.setdefault("alpha", 0.9)
    for dtype in (np.float32, np.float64):
        current = np.random.default_rng(0).normal(0.2, 0.7, (5, 2, 3)).astype(dtype)
        try:
            trace = ec.forward(ec.LIF(**fields), current)
            grads = ec.backward(trace, np.ones_like(current))
        except REFUSED:
            continue
        assert trace.spikes.shape == grads.current.shape == (5, 2, 3)


@pytest.mark.parametrize("shift", [0, 1, 4, 11, 12, 13])
def test_out_that_overlaps_by_any_amount(shift):
    # Two arrays of 12 numbers in one buffer share memory if they are less than 12 numbers apart.
    buffer = np.zeros(40, np.float32)
    current = buffer[shift : shift + 12].reshape(4, 3)
    current[...] = 0.7
    expected = reference.forward(MODEL, current.copy())
    earlier = ec.forward(NEURON, np.zeros((4, 3), np.float32))
    earlier = dataclasses.replace(earlier, potential=buffer[:12].reshape(4, 3))
    if shift < 12:
        with pytest.raises(ValueError, match="overlap"):
            ec.forward(NEURON, current, out=earlier)
        assert (current == np.float32(0.7)).all()
    else:
        trace = ec.forward(NEURON, current, out=earlier)
        assert_same_bits(trace.potential, expected.potential)
        assert np.shares_memory(trace.potential, buffer)


def test_inputs_are_never_written_to():
    problem = random_problem(MODEL, lanes=(5, 7), dtype=np.float32)
    arrays = [problem.current, problem.potential, problem.spikes, *problem.seeds[:2]]
    arrays += problem.seeds.state
    before = [x.copy() for x in arrays]
    for array in arrays:
        array.flags.writeable = False
    trace = forward(problem)
    outputs = (trace.spikes.copy(), trace.potential.copy())
    for method in METHODS:
        backward(trace, problem, method)
    for array, copy in itertools.chain(
        zip(arrays, before, strict=True), zip((trace.spikes, trace.potential), outputs, strict=True)
    ):
        assert_same_bits(array, copy)
