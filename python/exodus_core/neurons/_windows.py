"""How the gradients of coupled states grow: products of steps' matrices (docs/mathematics.md, Growth)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

_TIMES = 4  # A window lasts 4 / (1 - slowest decay) steps, after which that decay leaves less than e^-4.


def time_first(array: np.ndarray, axis: int | None) -> np.ndarray:
    """Return an array over time in float64, with time on the first axis."""
    return np.asarray(array[None] if axis is None else np.moveaxis(array, axis, 0), np.float64)


def growing_windows(
    p: Mapping[str, np.ndarray], h: np.ndarray, u: np.ndarray, s: np.ndarray, *, to_zero: bool
) -> np.ndarray:
    """Tell of each window whether the product of its steps' matrices has a norm above 1.

    The matrix of a single step stretches some direction for most useful parameters, though products of steps
    do not grow. A window lasts a few times as long as the slowest decay. `p` are the parameters of the
    state-space kernel; h, u and s have time first.
    """
    steps = _matrices(p, h, u, s, to_zero)
    slowest = float(np.max(_spectral_radius(p["A00"], p["A01"], p["A10"], p["A11"])))
    longest = len(steps)
    window = longest if slowest >= 1 else min(longest, math.ceil(_TIMES / (1 - slowest)))
    return _stretches(_products(steps, window))


def _matrices(
    p: Mapping[str, np.ndarray], h: np.ndarray, u: np.ndarray, s: np.ndarray, to_zero: bool
) -> np.ndarray:
    """d(u, v)[n+1] / d(u, v)[n] of every step, where spikes have the surrogate's derivative h."""
    kept, lost = (s == 0, u) if to_zero else (np.ones_like(u), np.zeros_like(u))
    first = [p[f"A{i}0"] * kept + h * (p[f"r{i}"] - lost * p[f"A{i}0"]) for i in (0, 1)]
    second = [np.broadcast_to(p[f"A{i}1"], u.shape) for i in (0, 1)]
    return np.stack([np.stack(first, -1), np.stack(second, -1)], -1)


def _products(steps: np.ndarray, window: int) -> np.ndarray:
    """Return the products of `window` matrices from each step on, later ones on the left."""
    products, covered = steps, 1
    for bit in f"{window:b}"[1:]:
        products, covered = products[covered:] @ products[:-covered], 2 * covered
        if bit == "1":
            products, covered = steps[covered:] @ products[:-1], covered + 1
    return products


def _stretches(matrices: np.ndarray) -> np.ndarray:
    """Tell of each matrix whether its larger singular value is above 1.

    The sum of their squares is that of the entries', their product the determinant's magnitude: one of them
    is above 1 where (s^2 - 1) (t^2 - 1) < 0, both are only where s t > 1.
    """
    (a, b), (c, d) = np.moveaxis(matrices, (-2, -1), (0, 1))
    squares, determinant = a * a + b * b + c * c + d * d, a * d - b * c
    stretches: np.ndarray = (
        (squares > 1 + determinant * determinant) | (np.abs(determinant) > 1) | np.isinf(squares)
    )
    return stretches


def _spectral_radius(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Return the larger magnitude of the eigenvalues of ((a, b), (c, d))."""
    half, determinant = (a + d) / 2, a * d - b * c
    root = np.sqrt(half * half - determinant + 0j)
    radius: np.ndarray = np.maximum(np.abs(half + root), np.abs(half - root))
    return radius
