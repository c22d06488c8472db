"""Property: a delay has the bits of its formula, and its adjoint is the formula's gradient.

With t = k + f, k = floor(t): y[n] = (1-f) x[n-k] + f x[n-k-1], where the state has x before step 0. Chunks,
layouts, threads and the kernels' algorithms change no bit. Witnesses: the formula element by element, in
float64 and in the arrays' own dtype; for the adjoint, sums over all pairs of steps.
"""

import itertools

import numpy as np
import pytest

import exodus_core as ec
from compare import assert_gradient_close, assert_parameter_close, assert_same_bits

STEPS, MOST = 23, 6
# (shape, time axis): time first, last and between, with few neurons and with more than a block of lanes.
ARRAYS = [
    ((STEPS,), 0),
    ((STEPS, 3, 5), 0),
    ((STEPS, 2, 333), 0),
    ((3, STEPS, 5), 1),
    ((2, STEPS, 70), 1),
    ((3, 5, STEPS), 2),
    ((4, 3), 0),  # shorter than the longest delay
    ((2, 1, 130), 1),
]
DELAYS = {
    "none": lambda neurons, draw: 0,
    "whole": lambda neurons, draw: 2,
    "the longest": lambda neurons, draw: MOST,
    "between steps": lambda neurons, draw: 1.5,
    "below the longest": lambda neurons, draw: MOST - 0.25,
    "of the last axis": lambda neurons, draw: draw.uniform(0, MOST, neurons[-1:]),
    "of each neuron": lambda neurons, draw: draw.uniform(0, MOST, neurons),
    "whole, of each neuron": lambda neurons, draw: draw.integers(0, MOST + 1, neurons),
    "of the first axis": lambda neurons, draw: draw.uniform(0, MOST, neurons[:1] + (1,) * (len(neurons) - 1)),
}
EACH = pytest.mark.parametrize("delay", DELAYS)
ON = pytest.mark.parametrize(("shape", "axis"), ARRAYS, ids=str)


def neurons_of(shape, axis):
    return shape[:axis] + shape[axis + 1 :]


def problem(name, shape, axis, dtype=np.float64, seed=0):
    """Input, delay, state."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=shape).astype(dtype)
    neurons = neurons_of(shape, axis)
    delay = np.asarray(DELAYS[name](neurons, draw)).astype(dtype)
    return x, delay, draw.normal(size=(MOST + 1, *neurons)).astype(dtype)


def history(x, state):
    """The state followed by the input, in the order of time. Step n is at index n + most + 1."""
    return np.concatenate([state[::-1], x])


def formula(x, delay, state):
    """The delayed array, element by element in the array's dtype, and the final state; time is first."""
    values, before = history(x, state), len(state)
    delays = np.broadcast_to(delay, x.shape[1:])
    output = np.empty_like(x)
    for n, *j in itertools.product(*map(range, x.shape)):
        t = delays[tuple(j)]
        k = int(np.floor(t))
        f = t - x.dtype.type(k)
        near = values[(before + n - k, *j)]
        output[(n, *j)] = near if f == 0 else (1 - f) * near + f * values[(before + n - k - 1, *j)]
    return output, values[::-1][:before]


def gradients(grad, x, delay, state, grad_state):
    """The gradients of sum(grad * output) + sum(grad_state * final), step by step, with time first."""
    before, delays = len(state), np.broadcast_to(delay, x.shape[1:])
    values, found = history(x, state), np.zeros((before + len(x), *x.shape[1:]))
    of_delay, magnitude = np.zeros(x.shape[1:]), np.zeros(x.shape[1:])
    for n, *j in itertools.product(*map(range, x.shape)):
        t, at = delays[tuple(j)], before + n
        k = int(np.floor(t))
        f, g = t - k, grad[(n, *j)]
        found[(at - k, *j)] += (1 - f) * g
        if f != 0:
            found[(at - k - 1, *j)] += f * g
        near, far = values[(at - k, *j)], values[(at - k - 1, *j)]
        of_delay[tuple(j)] += g * (far - near)
        magnitude[tuple(j)] += abs(g) * (abs(far) + abs(near))
    found[len(x) :] += grad_state[::-1]
    return found[before:], of_delay, found[:before][::-1], magnitude


def summed(values, delay):
    """The sum over the neurons that share a value of the delay."""
    padded = (1,) * (values.ndim - delay.ndim) + delay.shape
    axes = tuple(k for k, n in enumerate(padded) if n == 1)
    return values.sum(axis=axes, keepdims=True).reshape(delay.shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@ON
@EACH
def test_forward_has_the_bits_of_the_formula(delay, shape, axis, dtype):
    x, t, state = problem(delay, shape, axis, dtype)
    for given, initial in ((None, np.zeros_like(state)), (state, state)):
        expected, final = formula(np.moveaxis(x, axis, 0), t, initial)
        result = ec.delay(x, t, most=MOST, time_axis=axis, state=given)
        assert_same_bits(np.moveaxis(result.output, axis, 0), expected)
        assert_same_bits(result.state, final)
        assert result.output.strides == x.strides


@ON
@EACH
def test_adjoint_is_the_gradient_of_the_formula(delay, shape, axis):
    x, t, state = problem(delay, shape, axis)
    draw = np.random.default_rng(1)
    grad, grad_state = draw.normal(size=shape), draw.normal(size=state.shape)
    for given, grad_final in itertools.product((None, state), (None, grad_state)):
        of_x, of_delay, of_state, magnitude = gradients(
            np.moveaxis(grad, axis, 0),
            np.moveaxis(x, axis, 0),
            t,
            np.zeros_like(state) if given is None else given,
            np.zeros_like(state) if grad_final is None else grad_final,
        )
        found = ec.delay_adjoint(grad, x, t, most=MOST, time_axis=axis, state=given, grad_state=grad_final)
        assert_gradient_close(np.moveaxis(found.x, axis, 0), of_x, tol=1e-12, scale=1.0)
        assert_gradient_close(found.state, of_state, tol=1e-12, scale=1.0)
        assert_parameter_close(found.delay, summed(of_delay, t), tol=1e-12, terms=summed(magnitude, t))


def test_gradient_in_float32_is_that_in_float64():
    x, t, state = problem("of each neuron", (300, 2, 70), 0, np.float32)
    grad = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    found = ec.delay_adjoint(grad, x, t, most=MOST, state=state)
    wide = ec.delay_adjoint(
        *(a.astype(np.float64) for a in (grad, x, t)), most=MOST, state=state.astype(float)
    )
    assert {part.dtype for part in found} == {np.dtype(np.float32)}
    np.testing.assert_allclose(found.x, wide.x, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.delay, wide.delay, rtol=0, atol=1e-6 * 300)


@pytest.mark.parametrize("most", [1, 7, 8, 40, 200, 1023, 1024, 3000])
def test_delays_of_any_length_are_the_formula(most):
    """The kernel has several algorithms, and chooses by the longest delay of a row."""
    draw = np.random.default_rng(most)
    for shape, axis, count in (((60, 90), 0, 90), ((60, 3), 0, 3), ((3, 60), 1, 3)):
        x = draw.normal(size=shape)
        t = draw.uniform(0, most, count)
        t[:2] = most, most - 0.5
        state = draw.normal(size=(most + 1, count))
        grad, grad_state = draw.normal(size=shape), draw.normal(size=state.shape)
        expected, final = formula(np.moveaxis(x, axis, 0), t, state)
        result = ec.delay(x, t, most=most, time_axis=axis, state=state)
        assert_same_bits(np.moveaxis(result.output, axis, 0), expected)
        assert_same_bits(result.state, final)
        of_x, of_delay, of_state, _ = gradients(
            np.moveaxis(grad, axis, 0), np.moveaxis(x, axis, 0), t, state, grad_state
        )
        found = ec.delay_adjoint(grad, x, t, most=most, time_axis=axis, state=state, grad_state=grad_state)
        np.testing.assert_allclose(np.moveaxis(found.x, axis, 0), of_x, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.state, of_state, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.delay, of_delay, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cuts", [(1, 22), (2, 1, 20), (9, 14), (1,) * STEPS], ids=len)
@pytest.mark.parametrize("delay", ["between steps", "of each neuron", "the longest", "of the first axis"])
def test_chunks_have_the_bits_of_the_whole(delay, cuts, dtype):
    for shape, axis in (((STEPS, 2, 70), 0), ((2, 3, STEPS), 2)):
        x, t, state = problem(delay, shape, axis, dtype)
        whole = ec.delay(x, t, most=MOST, time_axis=axis, state=state)
        found, carried = [], state
        for piece in np.split(x, np.cumsum(cuts)[:-1], axis):
            part = ec.delay(np.ascontiguousarray(piece), t, most=MOST, time_axis=axis, state=carried)
            found.append(part.output)
            carried = part.state
        assert_same_bits(np.concatenate(found, axis), whole.output)
        assert_same_bits(carried, whole.state)


@pytest.mark.parametrize("delay", ["between steps", "of each neuron"])
def test_gradients_of_chunks_add_up_to_those_of_the_whole(delay):
    x, t, state = problem(delay, (STEPS, 2, 70), 0)
    draw = np.random.default_rng(1)
    grad, grad_state = draw.normal(size=x.shape), draw.normal(size=state.shape)
    whole = ec.delay_adjoint(grad, x, t, most=MOST, state=state, grad_state=grad_state)
    carried = ec.delay(x[:9], t, most=MOST, state=state).state
    late = ec.delay_adjoint(grad[9:], x[9:], t, most=MOST, state=carried, grad_state=grad_state)
    early = ec.delay_adjoint(grad[:9], x[:9], t, most=MOST, state=state, grad_state=late.state)
    np.testing.assert_allclose(np.concatenate([early.x, late.x]), whole.x, rtol=0, atol=1e-14)
    np.testing.assert_allclose(early.state, whole.state, rtol=0, atol=1e-14)
    np.testing.assert_allclose(early.delay + late.delay, whole.delay, rtol=0, atol=1e-11)


@EACH
def test_layouts_have_the_same_bits(delay):
    x, t, state = problem(delay, (STEPS, 4, 66), 0, np.float32)
    grad = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    expected = ec.delay(x, t, most=MOST, state=state)
    back = ec.delay_adjoint(grad, x, t, most=MOST, state=state)
    for order in itertools.permutations(range(3)):
        layout = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
        gaps = np.repeat(layout, 2, axis=1)[:, ::2]
        for given in (layout, gaps, layout[::-1].copy()[::-1]):
            found = ec.delay(given, t, most=MOST, state=state)
            assert_same_bits(found.output, expected.output)
            assert_same_bits(found.state, expected.state)
            grads = ec.delay_adjoint(grad, given, t, most=MOST, state=state)
            assert_same_bits(grads.x, back.x)
            assert_same_bits(grads.state, back.state)
            np.testing.assert_allclose(grads.delay, back.delay, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("delay", ["between steps", "of each neuron", "of the last axis"])
def test_threads_change_no_bit(delay, threads):
    for shape, axis in (((300, 3, 200), 0), ((40, 300, 9), 1), ((300, 40, 9), 0), ((300, 3, 200), 2)):
        x, t, state = problem(delay, shape, axis, np.float32)
        found = []
        for count in (1, 2, 5):
            threads(count)
            found.append(
                (
                    *ec.delay(x, t, most=MOST, time_axis=axis, state=state),
                    *ec.delay_adjoint(x, x, t, most=MOST, time_axis=axis, state=state),
                )
            )
        for others in found[1:]:
            for one, other in zip(found[0], others, strict=True):
                assert_same_bits(other, one)


def test_results_larger_than_the_caches_are_the_same():
    """Such results are written with streaming stores, past the caches."""
    draw = np.random.default_rng(0)
    for shape, axis, inner in (((40, 70003), 0, 70003), ((40, 700, 101), 0, 101), ((70003, 40), 1, None)):
        x = draw.normal(size=shape).astype(np.float32)
        t = 2.25 if inner is None else draw.uniform(0, MOST, inner).astype(np.float32)
        whole = ec.delay(x, t, most=MOST, time_axis=axis)
        back = ec.delay_adjoint(x, x, t, most=MOST, time_axis=axis)
        some = (slice(None), slice(100, 165)) if axis == 0 else (slice(100, 165), slice(None))
        own = t if inner is None or x.ndim == 3 else t[100:165]
        part = ec.delay(np.ascontiguousarray(x[some]), own, most=MOST, time_axis=axis)
        grads = ec.delay_adjoint(*(np.ascontiguousarray(x[some]),) * 2, own, most=MOST, time_axis=axis)
        assert_same_bits(whole.output[some], part.output)
        assert_same_bits(back.x[some], grads.x)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@ON
def test_an_integer_delay_does_not_spread_nan_and_infinity(shape, axis, bad):
    x = np.ones(shape)
    n = shape[axis] - 1
    at = tuple(n // 2 if k == axis else size - 1 for k, size in enumerate(shape))
    x[at] = bad
    neurons = neurons_of(shape, axis)
    whole = np.full(neurons, 1.0)
    whole.flat[: whole.size // 2] = 2.0
    output = ec.delay(x, whole, most=MOST, time_axis=axis).output
    late = tuple(index + 1 if k == axis else index for k, index in enumerate(at))
    reached = late[axis] <= n
    if whole.flat[-1] == 1.0:
        assert np.sum(~np.isfinite(output)) == reached
        assert not reached or not np.isfinite(output[late])
    back = ec.delay_adjoint(x, np.ones(shape), whole, most=MOST, time_axis=axis)
    assert np.sum(~np.isfinite(back.x)) + np.sum(~np.isfinite(back.state)) == 1


def test_gradient_of_a_delay_reads_what_the_output_reads():
    """An input that arrives after the last step does not contribute."""
    for shape, axis, neurons in (((10, 1), 0, 1), ((10, 80), 0, 80), ((1, 10), 1, 1)):
        x = np.ones(shape)
        x[(slice(-3, None), slice(None)) if axis == 0 else (slice(None), slice(-3, None))] = np.inf
        t = np.full(neurons, 3.0) if axis == 0 else 3.0
        found = ec.delay_adjoint(np.ones(shape), x, t, time_axis=axis)
        assert np.all(np.isfinite(found.delay))


def test_an_integer_delay_has_the_derivative_from_the_right():
    x = np.random.default_rng(0).normal(size=(30, 4))
    for t in (0.0, 2.0):
        steps = (ec.delay(x, t + h).output.sum() for h in (2**-10, 0.0))
        right = (next(steps) - next(steps)) * 2**10
        assert ec.delay_adjoint(np.ones_like(x), x, t, most=5).delay == pytest.approx(right, rel=1e-9)


def test_at_the_longest_delay_the_gradient_reads_the_oldest_of_the_state():
    state = np.arange(1.0, 5.0)[:, None]  # x[-1], x[-2], x[-3], x[-4]
    found = ec.delay_adjoint(np.ones((1, 1)), np.zeros((1, 1)), 3.0, most=3, state=state)
    assert found.delay == 4.0 - 3.0


def test_single_steps_without_a_time_axis_are_the_whole():
    x, t, state = problem("of each neuron", (STEPS, 4, 5), 0, np.float32)
    whole = ec.delay(x, t, most=MOST, state=state)
    for n in range(STEPS):
        result = ec.delay(x[n], t, most=MOST, time_axis=None, state=state)
        assert_same_bits(result.output, whole.output[n])
        state = result.state
    assert_same_bits(state, whole.state)


def test_the_default_longest_delay_is_the_largest_rounded_up():
    x = np.arange(10.0)[:, None]
    assert ec.delay(x, 2.5).state.tolist() == [[9.0], [8.0], [7.0], [6.0]]
    assert ec.delay(x, 0).state.tolist() == [[9.0]]


def test_arguments_are_not_modified():
    x, t, state = problem("of each neuron", (STEPS, 4, 70), 0)
    copies = x.copy(), t.copy(), state.copy()
    result = ec.delay(x, t, most=MOST, state=state)
    ec.delay_adjoint(x, x, t, most=MOST, state=state, grad_state=state)
    for one, other in zip((x, t, state), copies, strict=True):
        assert_same_bits(one, other)
    assert not any(np.shares_memory(a, b) for a in result for b in (x, t, state))


@pytest.mark.parametrize(
    ("shape", "axis"), [((5, 0, 3), 0), ((5, 0), 0), ((0, 5, 3), 1), ((0, 70, 5), 2), ((5, 3, 0), 0)]
)
def test_arrays_without_neurons(shape, axis):
    x = np.zeros(shape, np.float32)
    result = ec.delay(x, 1.5, most=3, time_axis=axis)
    result = ec.delay(x, 1.5, most=3, time_axis=axis, state=result.state)
    assert result.output.shape == shape
    assert result.state.shape == (4, *neurons_of(shape, axis))
    found = ec.delay_adjoint(x, x, np.ones((1,), np.float32), most=3, time_axis=axis, state=result.state)
    assert found.x.shape == shape
    assert found.state.shape == result.state.shape
    assert found.delay.tolist() == [0.0]


X = np.zeros((8, 2, 3))
MISTAKES = [
    (dict(x=[[1.0]]), TypeError, "x must be a numpy array"),
    (dict(x=np.zeros((8, 3), int)), TypeError, "x must have dtype float16, float32 or float64"),
    (dict(x=np.zeros((0, 3))), ValueError, "x must not have a time axis of length zero"),
    (dict(time_axis=3), ValueError, "time_axis must be an axis of x"),
    (dict(time_axis=0.5), TypeError, "time_axis must be an integer"),
    (dict(delay=-0.5), ValueError, "delay must be at least 0, got -0.5"),
    (dict(delay=[1.0, np.nan, 2.0]), ValueError, "delay must be at least 0, got nan"),
    (dict(delay=np.inf), ValueError, "delay must be at least 0, got inf"),
    (dict(delay=5.5, most=5), ValueError, "delay must be at most 5.*got 5.5"),
    (dict(delay=[[1.0], [6.0]], most=5), ValueError, "delay must be at most 5.*got 6.0"),
    (dict(delay="3"), TypeError, "delay must be a number"),
    (dict(delay=None), TypeError, "delay must be a number"),
    (dict(delay=True), TypeError, "delay must be a number"),
    (dict(delay=[]), ValueError, "delay must not be empty"),
    (dict(delay=np.ones(4)), ValueError, r"delay must broadcast against the neurons' shape \(2, 3\)"),
    (dict(delay=np.ones(2)), ValueError, r"for one value per channel pass \(2, 1\)"),
    (dict(most=-1), ValueError, "most must be at least 0, got -1"),
    (dict(most=2.0), TypeError, "most must be an integer, got 2.0"),
    (dict(most=True), TypeError, "most must be an integer"),
    (dict(most=2**62), ValueError, "most must be so small that a state of most"),
    (dict(state=np.zeros((3, 2, 3))), ValueError, "most must be given with a state"),
    (
        dict(state=np.zeros((3, 2, 3)), most=3),
        ValueError,
        r"state must have shape \(4, 2, 3\), got \(3, 2, 3\)",
    ),
    (dict(state=np.zeros((4, 2, 3), np.float32), most=3), TypeError, "state must have dtype float64"),
    (dict(state=(1, 2), most=3), TypeError, "state must be a numpy array"),
]


@pytest.mark.parametrize(("change", "kind", "message"), MISTAKES, ids=lambda v: str(v)[:40])
def test_mistakes_are_named(change, kind, message):
    arguments = dict(x=X, delay=1.0) | change
    with pytest.raises(kind, match=message):
        ec.delay(arguments.pop("x"), arguments.pop("delay"), **arguments)
    arguments = dict(x=X, delay=1.0) | change
    with pytest.raises(kind, match=message):
        ec.delay_adjoint(X, arguments.pop("x"), arguments.pop("delay"), **arguments)


def test_mistakes_in_gradients_are_named():
    with pytest.raises(ValueError, match=r"grad must have shape \(8, 2, 3\), got \(7, 2, 3\)"):
        ec.delay_adjoint(X[1:], X, 1.0)
    with pytest.raises(TypeError, match="grad must have dtype float64, got float32"):
        ec.delay_adjoint(X.astype(np.float32), X, 1.0)
    with pytest.raises(ValueError, match="most must be given with a state"):
        ec.delay_adjoint(X, X, 1.0, grad_state=np.zeros((2, 2, 3)))
    with pytest.raises(ValueError, match=r"grad_state must have shape \(4, 2, 3\)"):
        ec.delay_adjoint(X, X, 1.0, most=3, grad_state=np.zeros((2, 2, 3)))
