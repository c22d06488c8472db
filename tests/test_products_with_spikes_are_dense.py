"""``spike_matmul`` and its gradients are the dense product's.

Property: for any shape, rate, dtype, order in memory and kind of spikes (ones, numbers, NaN, infinities) the
results equal sums over all elements in float64, to rounding of the sum of the terms' magnitudes. Where x is
0, weights that are not finite have no effect. Bits do not depend on the number of threads. Witness: NumPy in
float64.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import exodus_core as ec
from exodus_core import _products

UNITS = {"float16": 2.0**-11, "float32": 2.0**-23, "float64": 2.0**-52}
ENGINES = ("events", "dense", "auto")


def near(found, x, w, dtype):
    """Whether a product in `dtype` is near x w. Sums are float32 at least; float16 is rounded once more."""
    exact, size = (np.matmul(a(x), a(w)) for a in (np.float64, lambda v: np.abs(np.float64(v))))
    allowed = 60 * min(UNITS[dtype], UNITS["float32"]) * size + UNITS[dtype] * np.abs(exact)
    return np.all(np.abs(np.float64(found) - exact) <= allowed + (1e-7 if dtype == "float16" else 0))


@st.composite
def factors(draw):
    dtype = draw(st.sampled_from(sorted(UNITS)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    leading = draw(st.sampled_from([(), (1,), (5,), (3, 7), (0,), (600,), (2, 300)]))
    inputs, outputs = (
        draw(st.sampled_from([1, 3, 64, 65, 130, 0])),
        draw(st.sampled_from([1, 2, 16, 33, 128, 0])),
    )
    rate = draw(st.sampled_from([0.0, 0.02, 0.2, 0.5, 1.0]))
    x = (rng.random((*leading, inputs)) < rate).astype(dtype)
    if draw(st.booleans()):
        x = (x * rng.normal(size=x.shape)).astype(dtype)
    w, g = (
        rng.normal(size=(inputs, outputs)).astype(dtype),
        rng.normal(size=(*leading, outputs)).astype(dtype),
    )
    if draw(st.booleans()):  # gaps and another order in memory
        x, w = np.repeat(x, 2, -1)[..., ::2], np.asfortranarray(w)
    return x, w, g


@given(factors(), st.sampled_from(ENGINES))
def test_products_are_the_sums_of_all_elements(given_factors, engine):
    x, w, g = given_factors
    dtype, rows = x.dtype.name, x.reshape(-1, x.shape[-1]) if x.shape[-1] else np.zeros((g.size, 0))
    y = ec.spike_matmul(x, w, engine=engine)
    assert y.shape == g.shape and y.dtype == x.dtype
    assert near(y, x, w, dtype)
    grads = ec.spike_matmul_backward(x, w, g, engine=engine)
    assert grads.x.shape == x.shape and grads.w.shape == w.shape
    assert grads.x.dtype == grads.w.dtype == x.dtype
    assert near(grads.x, g, w.T, dtype)
    if x.size and g.size:
        assert near(grads.w, rows.T, g.reshape(len(rows), -1), dtype)
    else:
        assert not np.any(grads.w)


def sparse(shape, rate=0.05, dtype=np.float32, seed=0):
    return (np.random.default_rng(seed).random(shape) < rate).astype(dtype)


def test_weights_without_spikes_may_be_anything():
    x = np.array([[0, 1, -0.0, 2]], np.float32)
    w = np.array([[np.nan, 1], [2, 3], [np.inf, -np.inf], [0.5, 4]], np.float32)
    assert ec.spike_matmul(x, w, engine="events").tolist() == [[3, 11]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_stay_in_their_row(value):
    x, w = sparse((40, 30)), np.ones((30, 5), np.float32)
    x[7, 3] = value
    y = ec.spike_matmul(x, w, engine="events")
    assert not np.isfinite(y[7]).any() and np.isfinite(np.delete(y, 7, 0)).all()
    grads = ec.spike_matmul_backward(x, w, np.ones((40, 5), np.float32), engine="events")
    assert not np.isfinite(grads.w[3]).any() and np.isfinite(np.delete(grads.w, 3, 0)).all()


def test_bits_do_not_depend_on_threads():
    x, w = sparse((9000, 70)), np.random.default_rng(1).normal(size=(70, 40)).astype(np.float32)
    g = np.random.default_rng(2).normal(size=(9000, 40)).astype(np.float32)
    before = ec.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            ec.set_num_threads(threads)
            found.append((ec.spike_matmul(x, w), *ec.spike_matmul_backward(x, w, g)))
    finally:
        ec.set_num_threads(before)
    for one in found[1:]:
        # The gradient of x is NumPy's product, whose bits may depend on its own threads, not on ours.
        assert all(np.array_equal(a, b) for a, b in zip(one, found[0], strict=True))


@pytest.mark.parametrize(("rate", "events"), [(0.01, True), (0.05, True), (1.0, False)])
def test_auto_takes_events_for_few_spikes(rate, events, monkeypatch):
    called = []
    monkeypatch.setattr(_products, "_dense", lambda a, b: called.append(1) or a @ b)
    ec.spike_matmul(sparse((2000, 128), rate), np.ones((128, 64), np.float32))
    assert (not called) == events


@pytest.mark.parametrize("part", ["later rows", "later columns", "every fourth row"])
@pytest.mark.parametrize("inputs", [64, 128, 192, 100])
def test_auto_sees_dense_inputs_without_reading_all(part, inputs, monkeypatch):
    x = np.zeros((8192, inputs), np.float32)
    if part == "later rows":  # a network is silent in its first steps
        x[4096:] = 1
    elif part == "later columns":
        x[:, inputs // 2 :] = 1
    else:
        x[3::4] = 1
    packed, called = [], []
    monkeypatch.setattr(_products._core, "pack", lambda *arguments: packed.append(1))
    monkeypatch.setattr(_products, "_dense", lambda a, b: called.append(1) or a @ b)
    ec.spike_matmul(x, np.ones((inputs, 64), np.float32))
    assert called and not packed


X, W = sparse((6, 4)), np.ones((4, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ec.spike_matmul(X.tolist(), W), TypeError, "x must be a numpy array, got list"),
        (
            lambda: ec.spike_matmul(X.astype(int), W),
            TypeError,
            "x must have dtype float16, float32 or float64",
        ),
        (lambda: ec.spike_matmul(X, W.astype(np.float64)), TypeError, "w must have dtype float32, .*float64"),
        (lambda: ec.spike_matmul(np.ma.array(X), W), TypeError, "x must be a plain numpy array"),
        (lambda: ec.spike_matmul(X, W[:3]), ValueError, r"w must have shape .*got \(3, 3\) and \(6, 4\)"),
        (lambda: ec.spike_matmul(X, W[0]), ValueError, r"w must have shape \(inputs, outputs\)"),
        (lambda: ec.spike_matmul(np.float32(1) * np.ones(()), W), TypeError, "x must be a numpy array"),
        (lambda: ec.spike_matmul(X, W, engine="fast"), ValueError, "engine must be one of 'auto', 'events'"),
        (lambda: ec.spike_matmul_backward(X, W, X), ValueError, r"grad must have .*\(6, 3\), got \(6, 4\)"),
        (lambda: ec.spike_matmul_backward(X, W, W @ W.T), ValueError, r"grad must have .*\(6, 3\)"),
        (lambda: ec.spike_matmul_backward(X, W, None), TypeError, "grad must be a numpy array, got NoneType"),
    ],
)
def test_wrong_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_tensors_are_sent_to_the_layer():
    torch = pytest.importorskip("torch", reason="needs torch")
    with pytest.raises(TypeError, match=r"x must hold numpy arrays.*exodus_core\.torch\.Linear"):
        ec.spike_matmul(torch.ones(2, 4), W)
