"""Comparison of results: all tests use these functions.

Forward results must have the same bits: one rounding difference at the threshold flips a spike. The error of
a gradient is measured relative to the largest gradient of its lane (a neuron over time), because sums cancel:
one ulp in the surrogate may move a single element by many ulp, but by little compared with its lane. A
parameter's gradient is a sum over time and lanes; its error is relative to the sum of its terms' magnitudes.
"""

import numpy as np

_BITS = {2: np.uint16, 4: np.uint32, 8: np.uint64}


def assert_same_bits(actual, expected, name="array"):
    """Require equal shape, dtype and bits. All NaNs are equal, since payloads are not in the contract."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    _assert_same_shape(actual, expected, name)
    assert actual.dtype == expected.dtype, f"{name}: dtype {actual.dtype}, not {expected.dtype}"
    bits = _BITS[actual.dtype.itemsize]
    differs = actual.view(bits) != expected.view(bits)
    differs &= ~(np.isnan(actual) & np.isnan(expected))
    if differs.any():
        raise AssertionError(_first_difference(actual, expected, differs, name, "bits differ"))


def assert_gradient_close(actual, expected, *, tol, time_axis=0, scale=None, name="gradient"):
    """Require |actual - expected| <= tol * scale; the default scale is the lane's largest |expected|."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    _assert_same_shape(actual, expected, name)
    if scale is None:
        scale = lane_scale(expected, time_axis)
    _assert_within(actual, expected, tol * scale, name, f"further apart than {tol:g} of the lane")


def assert_parameter_close(actual, expected, *, tol, terms, name="parameter"):
    """Require |actual - expected| <= tol * terms, where `terms` is the sum of the terms' magnitudes."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    _assert_same_shape(actual, expected, name)
    _assert_within(actual, expected, tol * terms, name, f"further apart than {tol:g} of the terms")


def assert_gradients_match(actual, expected, magnitude, *, tol):
    """Compare the gradients of the current, of each state field and of each parameter.

    `magnitude` has the same three parts, with the magnitudes that the tolerance is relative to.
    """
    assert_gradient_close(actual.current, expected.current, tol=tol, scale=magnitude.current, name="current")
    assert len(actual.state) == len(expected.state)
    for i, (one, other, scale) in enumerate(zip(actual.state, expected.state, magnitude.state, strict=True)):
        assert_gradient_close(one, other, tol=tol, scale=scale, name=f"state[{i}]")
    assert set(actual.parameters) == set(expected.parameters)
    for name, terms in magnitude.parameters.items():
        one, other = actual.parameters[name], expected.parameters[name]
        assert_parameter_close(one, other, tol=tol, terms=terms, name=name)


def lane_scale(gradient, time_axis=0):
    """The largest |gradient| of each lane. The time axis is kept, with length 1."""
    return np.max(np.abs(gradient), axis=time_axis, keepdims=True)


def _assert_same_shape(actual, expected, name):
    assert actual.shape == expected.shape, f"{name}: shape {actual.shape}, not {expected.shape}"


def _assert_within(actual, expected, limit, name, reason):
    # The floor is for lanes whose gradients underflow, where exp() may flush to zero.
    floor = 1e3 * np.finfo(np.float32 if actual.dtype == np.float32 else np.float64).tiny
    with np.errstate(invalid="ignore"):
        near = np.abs(actual.astype(np.float64) - expected) <= limit + floor
    # NaN and infinities match only the same value.
    differs = ~(near | (actual == expected) | (np.isnan(actual) & np.isnan(expected)))
    if differs.any():
        raise AssertionError(_first_difference(actual, expected, differs, name, reason, limit))


def _first_difference(actual, expected, differs, name, reason, limit=None):
    where = tuple(int(i) for i in np.argwhere(differs)[0]) if differs.ndim else ()
    text = f"{name}: {np.count_nonzero(differs)} of {differs.size} {reason}; first at {where}: "
    text += f"{actual[where]!r}, expected {expected[where]!r}"
    if limit is not None:
        text += f", allowed difference {np.broadcast_to(limit, differs.shape)[where]:.3g}"
    return text
