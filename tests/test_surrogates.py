"""Surrogates have the values of their documented formulas, wherever they are evaluated.

Property: `surrogate(u, threshold)` is the formula, to 1e-13 of its peak in float64 and to 1e-6 in float32.
Densities integrate to 1. Backward with a built-in surrogate equals backward with a callable of the same
values. Surrogates behave as frozen dataclasses. Witnesses: the formulas in float64 NumPy, quadrature, and for
`growth` a direct count.
"""

import dataclasses

import numpy as np
import pytest

import exodus_core as ec
import reference
from cases import random_problem
from compare import assert_gradients_match, assert_same_bits
from drive import METHODS, backward, forward, neuron_of, surrogate_of
from exodus_core import surrogate
from reference import SURROGATE_NAMES, Model

WITNESSES = [
    *(reference.surrogate(name) for name in SURROGATE_NAMES),
    reference.surrogate("SingleExponential", width=0.2, scale=1.0),
    reference.surrogate("PeriodicExponential", width=0.9, scale=2.0),
    reference.surrogate("Boxcar", width=0.625, scale=0.5),
    reference.surrogate("Triangle", width=0.7, scale=0.3),
    reference.surrogate("Gaussian", mean=-0.2, sigma=0.3, scale=0.4),
    reference.surrogate("MultiGaussian", sigma=0.4, ratio=0.3, s=3.0, scale=1.5),
    reference.surrogate("FastSigmoid", slope=10.0, scale=0.8),
    reference.surrogate("ATan", slope=3.0, scale=0.9),
    reference.surrogate("Sigmoid", slope=2.0, scale=0.9),
    reference.surrogate("StraightThrough", scale=0.25),
]
EACH = pytest.mark.parametrize("witness", WITNESSES, ids=str)
TOLERANCE = {np.float32: 1e-6, np.float64: 1e-13}


def assert_is_formula(witness, potential, threshold):
    """Compare with the formula, to the dtype's tolerance relative to the peak, for each threshold."""
    dtype = potential.dtype.type
    actual = surrogate_of(witness)(potential, threshold)
    expected = witness(potential, threshold)
    grid = np.linspace(-3, 3, 601)[:, None] + np.ravel(threshold)
    peak = np.abs(witness(grid, np.ravel(threshold))).max()
    assert actual.dtype == dtype
    assert actual.shape == potential.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[dtype] * peak)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@EACH
def test_is_the_formula(witness, dtype):
    # Thresholds and the widths of Boxcar are exact in binary, so both sides jump at the same potential.
    rng = np.random.default_rng(0)
    for threshold in (0.5, 1.0, 1.75):
        near = rng.normal(threshold, 0.5, 4001)
        assert_is_formula(witness, near.astype(dtype), threshold)
        assert_is_formula(witness, np.linspace(-2, 2, 4001).astype(dtype), threshold)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@EACH
def test_threshold_per_neuron_broadcasts(witness, dtype):
    potential = np.random.default_rng(1).normal(1, 0.6, (50, 3, 4)).astype(dtype)
    assert_is_formula(witness, potential, np.array([0.5, 1.0, 1.5, 1.75], dtype))
    assert_is_formula(witness, potential, np.array([[0.5], [1.0], [1.75]], dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@EACH
def test_extremes(witness, dtype):
    huge = np.finfo(dtype).max
    potential = np.array([0.0, -0.0, 1e4, -1e4, -huge, -np.inf, huge, np.inf], dtype)
    if witness.name == "PeriodicExponential":
        # It has no limit at +inf. For a large potential frac() has lost all digits.
        potential = potential[:-2]
    actual, expected = surrogate_of(witness)(potential, 1.0), witness(potential, 1.0)
    peak = np.abs(witness(np.linspace(-2, 4, 601), 1.0)).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[dtype] * peak)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("witness", [w for w in WITNESSES if w.name != "StraightThrough"])
def test_nan_stays_nan(witness, dtype):
    # A piecewise curve must not choose a piece for NaN, which would hide NaN from the gradient.
    potential = np.full(70, 0.9, dtype)
    potential[5] = np.nan
    h = surrogate_of(witness)(potential, 1.0)
    assert np.isnan(h[5])
    assert np.isfinite(np.delete(h, 5)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_straight_through_ignores_the_potential(dtype):
    potential = np.array([np.nan, np.inf, -np.inf, 0.0], dtype)
    assert_same_bits(surrogate.StraightThrough(scale=0.5)(potential, 1.0), np.full(4, 0.5, dtype))


def logistic(x):
    return 1 / (1 + np.exp(-x))


# The derivatives as papers and other libraries write them, with x = u - threshold and threshold 1.
ELSEWHERE = {
    "SuperSpike (Zenke and Ganguli 2018), beta 10": (
        lambda x: (1 + np.abs(10 * x)) ** -2,
        surrogate.FastSigmoid(slope=10),
    ),
    "snnTorch fast_sigmoid": (lambda x: 1 / (25 * np.abs(x) + 1) ** 2, surrogate.FastSigmoid()),
    "snnTorch atan": (lambda x: 1 / (1 + (np.pi / 2 * 2 * x) ** 2) * 2 / 2, surrogate.ATan()),
    "snnTorch sigmoid": (
        lambda x: 25 * np.exp(-25 * x) / (np.exp(-25 * x) + 1) ** 2,
        surrogate.Sigmoid(slope=25),
    ),
    "snnTorch straight_through_estimator": (np.ones_like, surrogate.StraightThrough()),
    "Norse superspike, alpha 100": (
        lambda x: 1 / (100 * np.abs(x) + 1) ** 2,
        surrogate.FastSigmoid(slope=100),
    ),
    "SpikingJelly ATan": (lambda x: 2 / 2 / (1 + (np.pi / 2 * 2 * x) ** 2), surrogate.ATan()),
    "SpikingJelly Sigmoid": (
        lambda x: 4 * logistic(4 * x) * (1 - logistic(4 * x)),
        surrogate.Sigmoid(),
    ),
    "SpikingJelly SoftSign, alpha 2": (
        lambda x: 2 / (2 * (1 + np.abs(2 * x)) ** 2),
        surrogate.FastSigmoid(slope=2, scale=1.0),
    ),
    "SpikingJelly PiecewiseQuadratic, alpha 2": (
        lambda x: np.where(np.abs(x) > 1 / 2, 0, -(2**2) * np.abs(x) + 2),
        surrogate.Triangle(width=1 / 2),
    ),
    "SpikingJelly Erf, alpha 2": (
        lambda x: 2 / np.sqrt(np.pi) * np.exp(-(2**2) * x**2),
        surrogate.Gaussian(sigma=1 / (2 * np.sqrt(2))),
    ),
    "Triangle of Bellec et al. 2018, gamma 0.3": (
        lambda x: 0.3 * np.maximum(0, 1 - np.abs(x)),
        surrogate.Triangle(scale=0.3),
    ),
    "STBP rectangle (Wu et al. 2018), a 0.8": (
        lambda x: (np.abs(x) < 0.8 / 2) / 0.8,
        surrogate.Boxcar(width=0.8),
    ),
    "SLAYER rho, tauRho 0.3, scaleRho 0.7": (
        lambda x: 0.7 / 0.3 * np.exp(-np.abs(x) / 0.3),
        surrogate.SingleExponential(width=0.3, scale=0.7),
    ),
    "sinabs SingleExponential": (
        lambda x: 1 / 0.5 * np.exp(-np.abs(x) / 0.5),
        surrogate.SingleExponential(scale=1.0),
    ),
    "sinabs Gaussian": (
        lambda x: 1 / (0.5 * np.sqrt(2 * np.pi)) * np.exp(-(x**2) / (2 * 0.5**2)),
        surrogate.Gaussian(),
    ),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_curve_is_that_of_the_other_library(name):
    formula, ours = ELSEWHERE[name]
    x = np.linspace(-1.7, 1.7, 500)
    np.testing.assert_allclose(ours(x + 1.0, 1.0), formula(x), rtol=1e-9, atol=1e-14)


# ATan has heavy tails, so substitute x = tan t, dx = (1 + x^2) dt, which covers the whole line.
ANGLES = (np.arange(200_000) + 0.5) / 200_000 * np.pi - np.pi / 2
INTEGRALS = {
    surrogate.SingleExponential(): 1,
    surrogate.SingleExponential(width=0.3, scale=1.0): 2,
    surrogate.Boxcar(width=0.7): 1,
    surrogate.Triangle(width=0.6): 1,
    surrogate.Gaussian(mean=0.4, sigma=0.3): 1,
    surrogate.MultiGaussian(ratio=0.15): 1 - 0.15,
    surrogate.FastSigmoid(slope=5.0): 2 / 5,
    surrogate.ATan(slope=3.0): 1,
    surrogate.Sigmoid(slope=3.0): 1,
}


@pytest.mark.parametrize(("curve", "area"), INTEGRALS.items(), ids=map(repr, INTEGRALS))
def test_area_under_the_curve(curve, area):
    # The area must not depend on the threshold: another area would scale all gradients.
    for threshold in (0.5, 1.0, 2.0):
        x = np.tan(ANGLES)
        h = curve(x + threshold, threshold)
        assert np.mean(h * (1 + x**2)) * np.pi == pytest.approx(area, rel=1e-4)


def test_peaks():
    # The default peaks at 1 / threshold, within the bound of stability.
    for threshold in (0.5, 1.0, 2.0):
        at_threshold = np.array([threshold])
        assert surrogate.SingleExponential()(at_threshold, threshold) == 1 / threshold
        assert surrogate.SingleExponential(scale=1.0)(at_threshold, threshold) == 2 / threshold
    at_multiples = np.array([1.0, 2.0, 3.0, 7.0])
    np.testing.assert_allclose(surrogate.PeriodicExponential()(at_multiples, 1.0), 1, rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@EACH
def test_backward_with_a_callable_is_backward_with_the_built_in(witness, dtype, method):
    model = Model(alpha=0.9, threshold=np.array([[0.5], [0.75], [1.0]]), v_min=-0.5)
    problem = random_problem(model, seed=1, lanes=(3, 7), dtype=dtype, surrogate=witness)
    trace, built_in = forward(problem), surrogate_of(witness)
    expected = backward(trace, problem, method)
    actual = backward(trace, problem, method, surrogate=lambda u, th: built_in(u, th))
    _, magnitude = problem.expected(detach_reset=method == "slayer")
    tol = {np.float32: 1e-5, np.float64: 1e-12}[dtype]
    assert_gradients_match(actual, expected, magnitude, tol=tol)


@pytest.mark.parametrize("method", METHODS)
def test_a_callable_may_return_any_memory_order(method):
    problem = random_problem(Model(alpha=0.9), seed=2, lanes=(3, 7))
    trace, curve = forward(problem), surrogate.ATan()
    plain = backward(trace, problem, method, surrogate=lambda u, th: curve(u, th))
    for turn in (np.asfortranarray, lambda h: h[::-1].copy()[::-1], lambda h: np.repeat(h, 2, 2)[..., ::2]):
        turned = backward(trace, problem, method, surrogate=lambda u, th, t=turn: t(curve(u, th)))
        assert_same_bits(turned.current, plain.current)


@pytest.mark.parametrize("time_axis", [0, 1, 2])
def test_a_callable_gets_the_users_layout_and_a_threshold_that_broadcasts(time_axis):
    threshold = np.array([[0.5], [0.75]])
    current = np.moveaxis(np.ones((5, 2, 3)), 0, time_axis)
    trace = ec.forward(ec.LIF(alpha=0.9, threshold=threshold), current, time_axis=time_axis)
    seen = []

    def record(potential, th):
        seen.append((potential, th))
        return np.ones_like(potential)

    ec.backward(trace, np.ones_like(current), surrogate=record)
    [(potential, th)] = seen
    assert_same_bits(potential, trace.potential)
    broadcast = np.moveaxis(np.broadcast_to(th, potential.shape), time_axis, 0)
    assert_same_bits(broadcast, np.broadcast_to(threshold, (5, 2, 3)))


def halves(u, th):
    u *= 0.5
    return u


def subtracts(u, th):
    np.subtract(u, th, out=u)
    return u


def lowers(u, th):
    th -= 0.1
    return u * th


def clears(u, th):
    u[...] = 0.0
    return u


def reaches_through(u, th):
    u.reshape(-1)[0] = 1.0
    return u


@pytest.mark.parametrize("curve", [halves, subtracts, lowers, clears, reaches_through])
@pytest.mark.parametrize(
    "neuron",
    [
        ec.LIF(alpha=0.9, v_min=-0.3),
        ec.LIF(alpha=0.9, threshold=np.linspace(0.5, 1, 3)),
        ec.ALIF(alpha=0.9, alpha_adapt=0.8, adapt_scale=0.2),
        ec.AdLIF(0.9, 0.8, 2.0, 0.2, order="symplectic"),
    ],
    ids=["LIF", "LIF of arrays", "ALIF", "AdLIF"],
)
def test_a_callable_cannot_change_its_arguments(neuron, curve):
    current = np.random.default_rng(0).normal(0.2, 0.7, (30, 4, 3))
    trace = ec.forward(neuron, current)
    before = [x.copy() for x in (trace.potential, trace.spikes, *trace.state)]
    for call in (lambda: ec.backward(trace, current, surrogate=curve), lambda: ec.growth(trace, curve)):
        with pytest.raises(ValueError, match="read-only"):
            call()
    for array, copy in zip((trace.potential, trace.spikes, *trace.state), before, strict=True):
        assert_same_bits(array, copy)
    # Only the function's view is read-only.
    trace.potential[0] = 0.0


def test_a_callable_may_return_its_argument():
    current = np.random.default_rng(0).normal(0.2, 0.7, (30, 4, 3))
    trace = ec.forward(ec.LIF(0.9), current)
    expected = ec.backward(trace, current, surrogate=lambda u, th: u.copy())
    assert_same_bits(ec.backward(trace, current, surrogate=lambda u, th: u).current, expected.current)


GROWTHS = [
    ({"alpha": 0.9}, lambda h, u, s: 0.9 - 0.8 * h),
    ({"alpha": 1.0, "reset_amount": 1.5}, lambda h, u, s: 1.0 - 1.5 * h),
    ({"alpha": 0.9, "reset_timing": "before_decay"}, lambda h, u, s: 0.9 - 0.9 * 0.8 * h),
    ({"alpha": 0.9, "reset": "none"}, lambda h, u, s: 0.9 + 0.0 * h),
    ({"alpha": 0.9, "reset": "zero"}, lambda h, u, s: 0.9 * (s == 0) - 0.9 * u * h),
]


@pytest.mark.parametrize(("fields", "factor"), GROWTHS, ids=lambda x: str(x) if isinstance(x, dict) else "")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_growth_counts_the_steps_whose_factor_exceeds_one(fields, factor, dtype):
    steep = reference.surrogate("SingleExponential", width=0.3, scale=1.0)
    model = Model(threshold=0.8, **fields)
    trace = forward(random_problem(model, steps=50, lanes=(40,), dtype=dtype))
    h = steep(trace.potential, dtype(0.8))
    expected = np.mean(np.abs(factor(h, trace.potential, trace.spikes)) > 1)
    actual = ec.growth(trace, surrogate_of(steep))
    # The factor of one step may be rounded to the other side of 1.
    assert actual == pytest.approx(expected, abs=1.5 / trace.potential.size)
    assert (expected > 0) == (fields.get("reset") != "none")


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("timing", ["after_decay", "before_decay"])
def test_default_surrogate_never_grows(alpha, timing):
    model = Model(alpha=alpha, threshold=np.linspace(0.3, 2, 40), reset_timing=timing)
    trace = forward(random_problem(model, steps=50, lanes=(40,)))
    assert ec.growth(trace, surrogate.SingleExponential()) == 0


@pytest.mark.parametrize("time_axis", [0, 1, 2])
def test_growth_uses_each_neurons_parameters_on_any_axis(time_axis):
    model = Model(alpha=np.array([[0.5], [1.0]]), threshold=np.array([0.5, 1.0, 2.0]))
    problem = random_problem(model, steps=50, lanes=(2, 3))
    current = np.moveaxis(problem.current, 0, time_axis)
    trace = ec.forward(neuron_of(model), current, time_axis=time_axis)
    potential = np.moveaxis(trace.potential, time_axis, 0)
    steep = reference.surrogate("ATan", slope=4.0)
    factor = model.alpha - model.threshold * steep(potential, model.threshold)
    expected = np.mean(np.abs(factor) > 1)
    assert 0 < expected < 1
    assert ec.growth(trace, surrogate_of(steep)) == pytest.approx(expected, abs=0.006)


def test_growth_accepts_a_callable():
    trace = forward(random_problem(Model(alpha=0.9), steps=5))
    assert ec.growth(trace, lambda u, th: np.full_like(u, 5.0)) == 1
    assert ec.growth(trace, lambda u, th: np.full_like(u, 1.0)) == 0


@EACH
def test_is_a_value(witness):
    one, other = surrogate_of(witness), surrogate_of(witness)
    assert one == other
    assert hash(one) == hash(other)
    assert eval(repr(one), vars(surrogate)) == one
    changed = dataclasses.replace(one, scale=0.123)
    assert changed.scale == 0.123
    assert changed != one
    assert type(changed) is type(one)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.scale = 2.0


def test_defaults_are_those_of_the_table():
    assert surrogate.SingleExponential() == surrogate.SingleExponential(width=0.5, scale=0.5)
    assert surrogate.PeriodicExponential() == surrogate.PeriodicExponential(width=0.5, scale=1.0)
    assert surrogate.Gaussian() == surrogate.Gaussian(mean=0.0, sigma=0.5, scale=1.0)
    assert surrogate.FastSigmoid() == surrogate.FastSigmoid(slope=25.0, scale=1.0)
    names = {name for name in SURROGATE_NAMES if dataclasses.is_dataclass(getattr(surrogate, name))}
    assert names == set(SURROGATE_NAMES)


POSITIVE = [
    ("SingleExponential", "width"),
    ("PeriodicExponential", "width"),
    ("Boxcar", "width"),
    ("Triangle", "width"),
    ("Gaussian", "sigma"),
    ("MultiGaussian", "sigma"),
    ("MultiGaussian", "s"),
    ("FastSigmoid", "slope"),
    ("ATan", "slope"),
    ("Sigmoid", "slope"),
]


@pytest.mark.parametrize(("name", "argument"), POSITIVE)
@pytest.mark.parametrize("value", [0, 0.0, -1.0, np.nan])
def test_a_size_that_is_not_positive_is_an_error(name, argument, value):
    with pytest.raises(ValueError, match=rf"\b{argument}\b"):
        getattr(surrogate, name)(**{argument: value})


@pytest.mark.parametrize("name", SURROGATE_NAMES)
def test_a_scale_that_is_not_a_number_is_an_error(name):
    with pytest.raises(ValueError, match="scale"):
        getattr(surrogate, name)(scale=np.nan)
    with pytest.raises((TypeError, ValueError), match="scale"):
        getattr(surrogate, name)(scale="large")
