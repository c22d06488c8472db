"""Kernels as filters, and SLAYER's neuron.

Property: `kernel_filter` is the convolution with the kernel's taps, and has the same bits in chunks.
`kernel_filter_adjoint` is its transpose, states included. `SRM.from_slayer` spikes at the steps where
SLAYER's own definition does. Witnesses: dense convolution, and SLAYER's loop over spikes.
"""

import dataclasses
import pickle

import numpy as np
import pytest

import exodus_core as ec
from compare import assert_same_bits

KERNELS = [
    ec.kernel.Exponential(0.9, scale=-0.4),
    ec.kernel.Exponential(1.0),
    ec.kernel.DoubleExponential(0.9, 0.6, scale=1.7),
    ec.kernel.DoubleExponential(0.7, 0.7),
    ec.kernel.Alpha(4.0, scale=0.8),
    ec.kernel.Alpha(0.2),
    ec.kernel.FIR([0.7]),
    ec.kernel.FIR(np.random.default_rng(7).normal(size=11)),
    ec.kernel.FIR(np.random.default_rng(8).normal(size=90)),
]
ONES = dict.fromkeys(("tauSr", "tauRef", "scaleRef", "tauRho", "scaleRho", "theta"), 1.0)
FILTER, ADJOINT = ec.kernel_filter, ec.kernel_filter_adjoint
EACH = pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: repr(kernel)[:40])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@EACH
def test_the_filter_is_a_convolution(kernel):
    x = normal(40, 3, 5)
    output, _ = ec.kernel_filter(kernel, x)
    expected = np.apply_along_axis(lambda lane: np.convolve(lane, kernel.taps(40))[:40], 0, x)
    np.testing.assert_allclose(output, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "axis"), [((40, 3, 5), 0), ((3, 40, 5), 1), ((3, 5, 40), 2), ((3, 5, 40), -1)]
)
@EACH
def test_the_adjoint_is_the_transpose(kernel, shape, axis):
    x, g = normal(*shape), normal(*shape, seed=1)
    shapes = [a.shape for a in ec.kernel_filter(kernel, x, time_axis=axis).state]
    start = [normal(*shape, seed=2 + k) for k, shape in enumerate(shapes)]
    ends = [normal(*shape, seed=5 + k) for k, shape in enumerate(shapes)]
    output, final = ec.kernel_filter(kernel, x, time_axis=axis, state=start)
    turned, before = ec.kernel_filter_adjoint(kernel, g, time_axis=axis, state=ends)
    forward = np.vdot(output, g) + sum(np.vdot(a, b) for a, b in zip(final, ends, strict=True))
    backward = np.vdot(x, turned) + sum(np.vdot(a, b) for a, b in zip(start, before, strict=True))
    assert forward == pytest.approx(backward, rel=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@EACH
def test_chunks_are_the_whole(kernel, dtype):
    x = normal(30, 70).astype(dtype)
    whole = ec.kernel_filter(kernel, x)
    first = ec.kernel_filter(kernel, x[:13])
    then = ec.kernel_filter(kernel, x[13:], state=first.state)
    assert_same_bits(np.concatenate([first.output, then.output]), whole.output)
    for actual, expected in zip(then.state, whole.state, strict=True):
        assert_same_bits(actual, expected)
    step = ec.kernel_filter(kernel, x[13], time_axis=None, state=first.state)
    assert_same_bits(step.output, whole.output[13])


def test_parameters_may_differ_between_neurons():
    tau = np.array([2.0, 5.0, 9.0])
    x = normal(30, 3)
    output, _ = ec.kernel_filter(ec.kernel.Alpha(tau), x)
    for i, value in enumerate(tau):
        alone, _ = ec.kernel_filter(ec.kernel.Alpha(value), x[:, i : i + 1])
        assert_same_bits(output[:, i], alone[:, 0])
    assert ec.kernel.Alpha(tau).taps(7).shape == (7, 3)


def test_taps_may_differ_between_neurons():
    taps = normal(9, 3, seed=3)
    x = normal(30, 2, 3)
    output, _ = ec.kernel_filter(ec.kernel.FIR(taps), x)
    for i in range(3):
        alone, _ = ec.kernel_filter(ec.kernel.FIR(taps[:, i]), x[:, :, i])
        assert_same_bits(output[:, :, i], alone)
    channels, _ = ec.kernel_filter(ec.kernel.FIR(taps[:, :, None]), np.swapaxes(x, 1, 2).copy())
    assert_same_bits(np.swapaxes(channels, 1, 2).copy(), output)


def test_a_recursive_kernel_is_the_fir_of_its_taps():
    x = normal(60, 7) + 0.3
    for kernel in KERNELS[:6]:
        output, _ = ec.kernel_filter(kernel, x)
        sums, _ = ec.kernel_filter(ec.kernel.FIR(kernel.taps(60)), x)
        np.testing.assert_allclose(sums, output, rtol=1e-12, atol=1e-12)
    fall = ec.kernel.Alpha(3.0, scale=-0.8)
    one = ec.forward(ec.SRM(ec.kernel.Alpha(5.0), fall), x)
    other = ec.forward(ec.SRM(ec.kernel.FIR(ec.kernel.Alpha(5.0).taps(60)), ec.kernel.FIR(fall.taps(60))), x)
    assert one.spikes.any()
    np.testing.assert_array_equal(one.spikes, other.spikes)
    grads = [ec.backward(trace, x) for trace in (one, other)]
    np.testing.assert_allclose(grads[0].current, grads[1].current, rtol=1e-9, atol=1e-11)


def test_an_input_has_no_effect_after_the_last_tap():
    x = normal(40, 5)
    x[10, 2], x[12, 4] = np.inf, np.nan
    output, _ = ec.kernel_filter(ec.kernel.FIR(np.ones(6)), x)
    finite = np.isfinite(output)
    assert finite[:, [0, 1, 3]].all()
    assert (finite[:, 2] == ((np.arange(40) < 10) | (np.arange(40) > 15))).all()
    assert (finite[:, 4] == ((np.arange(40) < 12) | (np.arange(40) > 17))).all()
    neuron = ec.SRM(ec.kernel.FIR(np.ones(6)), ec.kernel.Exponential(0.5, scale=-1.0))
    assert np.isfinite(ec.forward(neuron, x[:, :2]).potential).all()


def test_taps_are_values():
    fir = ec.kernel.FIR([1.0, -0.5, 0.25])
    np.testing.assert_array_equal(fir.taps(5), [1.0, -0.5, 0.25, 0.0, 0.0])
    np.testing.assert_array_equal(fir.taps(2), [1.0, -0.5])
    assert fir.taps(4).flags.writeable and not fir.taps.flags.writeable
    assert ec.kernel.FIR(np.ones((3, 2, 1))).taps(5).shape == (5, 2, 1)
    assert fir == ec.kernel.FIR(np.array([1.0, -0.5, 0.25])) != ec.kernel.FIR([1.0, -0.5])
    assert eval(repr(fir), {"FIR": ec.kernel.FIR, "np": np}) == fir
    assert pickle.loads(pickle.dumps(fir)) == fir == dataclasses.replace(fir)


@pytest.mark.parametrize("role", ["epsilon", "nu"])
def test_the_taps_gradient_against_finite_differences(role):
    # As long as the spikes do not change, the potential is linear in the taps of either kernel.
    rng = np.random.default_rng(9)
    current, q = rng.normal(size=(25, 3)), rng.normal(size=(25, 3))
    taps = {"epsilon": rng.normal(size=6), "nu": rng.normal(size=(4, 3))}

    def run(moved):
        neuron = ec.SRM(*(ec.kernel.FIR(moved[k]) for k in ("epsilon", "nu")), threshold=0.7)
        return ec.forward(neuron, current)

    trace = run(taps)
    assert trace.spikes.any()
    found = ec.backward(trace, grad_potential=q, method="slayer").parameters[f"{role}.taps"]
    assert found.shape == taps[role].shape
    for k in np.ndindex(taps[role].shape):
        sides = []
        for sign in (1, -1):
            moved = dict(taps) | {role: taps[role].copy()}
            moved[role][k] += sign * 1e-7
            again = run(moved)
            np.testing.assert_array_equal(again.spikes, trace.spikes)
            sides.append(np.sum(q * again.potential))
        assert found[k] == pytest.approx((sides[0] - sides[1]) / 2e-7, rel=1e-5, abs=1e-6)


def test_a_loss_on_filtered_spikes_is_a_loss_on_spikes():
    # Section 7: dL/ds is the gradient of the filtered output, correlated with the kernel.
    neuron, kernel = ec.LIF(alpha=0.9), ec.kernel.Alpha(3.0)
    current, target = normal(50, 4) + 0.3, normal(50, 4, seed=1)
    trace = ec.forward(neuron, current)
    filtered, _ = ec.kernel_filter(kernel, trace.spikes)
    e, _ = ec.kernel_filter_adjoint(kernel, filtered - target)
    dense = np.array([[kernel.taps(50)[m - n] if m >= n else 0.0 for m in range(50)] for n in range(50)])
    np.testing.assert_allclose(e, dense @ (filtered - target), rtol=1e-11, atol=1e-12)
    assert np.isfinite(ec.backward(trace, e).current).all()


def slayer(description, current):
    """SLAYER's loop: every spike adds the whole refractory kernel, from its own step on."""
    d = description
    t = np.arange(len(current)) * d["Ts"]
    response = t / d["tauSr"] * np.exp(1 - t / d["tauSr"])
    refractory = -d["scaleRef"] * d["theta"] * t / d["tauRef"] * np.exp(1 - t / d["tauRef"])
    u = np.stack([np.convolve(lane, response)[: len(t)] for lane in current.T], 1)
    spikes = np.zeros_like(u)
    for n in range(len(t)):
        spikes[n] = u[n] >= d["theta"]
        u[n:] += np.outer(refractory[: len(t) - n], spikes[n])
    rho = (
        d["scaleRho"]
        / (d["tauRho"] * d["theta"])
        * np.exp(-np.abs(u - d["theta"]) / (d["tauRho"] * d["theta"]))
    )
    return u, spikes, rho


@pytest.mark.parametrize("step", [1.0, 0.5])
def test_slayers_neuron_is_slayers_definition(step):
    description = {
        "tauSr": 10.0,
        "tauRef": 2.0,
        "scaleRef": 2.0,
        "theta": 3.0,
        "tauRho": 0.7,
        "scaleRho": 1.2,
    }
    description["Ts"] = step
    neuron, surrogate = ec.SRM.from_slayer(type="SRMALPHA", **description)
    current = np.random.default_rng(5).normal(0.2, 0.8, (200, 20))
    trace = ec.forward(neuron, current)
    u, spikes, rho = slayer(description, current)
    assert 0.005 < spikes.mean() < 0.5
    np.testing.assert_array_equal(trace.spikes, spikes)
    np.testing.assert_allclose(trace.potential, u, rtol=0, atol=1e-11)
    np.testing.assert_allclose(surrogate(trace.potential, neuron.threshold), rho, rtol=1e-11)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: FILTER(0.9, np.ones((4, 2))), TypeError, ("kernel", "0.9")),
        (lambda: FILTER(KERNELS[0], [1.0, 2.0]), TypeError, ("x", "numpy array", "list")),
        (
            lambda: FILTER(KERNELS[0], np.ones((4, 2)), time_axis=2),
            ValueError,
            ("time_axis", "x", "2"),
        ),
        (lambda: FILTER(KERNELS[0], np.ones((4, 2)), state=(1, 2)), TypeError, ("state", "3", "2")),
        (lambda: ec.kernel.FIR([]), ValueError, ("taps", "empty", "(0,)")),
        (lambda: ec.kernel.FIR(0.5), ValueError, ("taps", "axis of taps", "0.5")),
        (lambda: ec.kernel.FIR([0.5, np.nan]), ValueError, ("taps", "finite", "nan")),
        (lambda: ec.kernel.FIR(["a"]), TypeError, ("taps", "number")),
        (lambda: ec.kernel.FIR(), TypeError, ("taps",)),
        (
            lambda: FILTER(ec.kernel.FIR([1e300]), np.ones((4, 2), np.float32)),
            ValueError,
            ("taps", "float32"),
        ),
        (
            lambda: FILTER(ec.kernel.FIR(np.ones((4, 3))), np.ones((5, 2))),
            ValueError,
            ("taps", "(2,)", "(3,)", "first axis"),
        ),
        (
            lambda: FILTER(ec.kernel.FIR(np.ones(4)), np.ones((5, 2)), state=[np.ones(2)] * 3),
            ValueError,
            ("state.x", "(3, 2)", "(2,)"),
        ),
        (
            lambda: ADJOINT(KERNELS[0], np.ones(3, int)),
            TypeError,
            ("grad", "float32", "i8"),
        ),
        (lambda: ADJOINT(None, np.ones(3)), TypeError, ("kernel", "None")),
        (lambda: ec.SRM.from_slayer(**ONES | {"theta": 0}), ValueError, ("theta", "above 0")),
        (lambda: ec.SRM.from_slayer(**ONES, type="LOIHI"), ValueError, ("type", "SRMALPHA", "LOIHI")),
    ],
)
def test_what_does_not_fit_is_named(call, error, words):
    with pytest.raises(error) as caught:
        call()
    for word in words:
        assert word in str(caught.value)
