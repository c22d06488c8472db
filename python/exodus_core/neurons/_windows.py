"""Growth of gradients of coupled states: products of the steps' matrices (docs/mathematics.md, Growth)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

_TIMES = 4  # A window lasts 4 / (1 - slowest decay) steps, over which that decay shrinks to less than e^-4.


def time_first(array: np.ndarray, axis: int | None) -> np.ndarray:
    """Convert an array over time to float64, with time on the first axis."""
    return np.asarray(array[None] if axis is None else np.moveaxis(array, axis, 0), np.float64)


def growing_windows(
    p: Mapping[str, np.ndarray], h: np.ndarray, u: np.ndarray, s: np.ndarray, *, to_zero: bool
) -> np.ndarray:
    """Tell for each window whether the product of its steps' matrices has a norm above 1.

    For most useful parameters the matrix of a single step stretches some direction, although products of
    steps do not grow. A window is therefore a few times as long as the slowest decay. `p` has the parameters
    of the state-space kernel; h, u and s have time on the first axis.
    """
    steps = _matrices(p, h, u, s, to_zero)
    slowest = float(np.max(_spectral_radius(p["A00"], p["A01"], p["A10"], p["A11"])))
    longest = len(steps)
    window = longest if slowest >= 1 else min(longest, math.ceil(_TIMES / (1 - slowest)))
    return _stretches(_products(steps, window))


def _matrices(
    p: Mapping[str, np.ndarray], h: np.ndarray, u: np.ndarray, s: np.ndarray, to_zero: bool
) -> np.ndarray:
    """Return the Jacobian d(u, v)[n+1] / d(u, v)[n] of each step, where the surrogate h is ds/du."""
    kept, lost = (s == 0, u) if to_zero else (np.ones_like(u), np.zeros_like(u))
    first = [p[f"A{i}0"] * kept + h * (p[f"r{i}"] - lost * p[f"A{i}0"]) for i in (0, 1)]
    second = [np.broadcast_to(p[f"A{i}1"], u.shape) for i in (0, 1)]
    return np.stack([np.stack(first, -1), np.stack(second, -1)], -1)


def _products(steps: np.ndarray, window: int) -> np.ndarray:
    """Return, for each step, the product of the next `window` matrices, later ones on the left."""
    products, covered = steps, 1
    for bit in f"{window:b}"[1:]:
        products, covered = products[covered:] @ products[:-covered], 2 * covered
        if bit == "1":
            products, covered = steps[covered:] @ products[:-1], covered + 1
    return products


def _stretches(matrices: np.ndarray) -> np.ndarray:
    """Tell for each matrix whether its larger singular value is above 1.

    For the singular values s and t, s^2 + t^2 is the sum of the entries' squares, and s t is the magnitude of
    the determinant. Exactly one of them is above 1 if (s^2 - 1) (t^2 - 1) < 0. If both are, s t > 1.
    """
    (a, b), (c, d) = np.moveaxis(matrices, (-2, -1), (0, 1))
    squares, determinant = a * a + b * b + c * c + d * d, a * d - b * c
    stretches: np.ndarray = (
        (squares > 1 + determinant * determinant) | (np.abs(determinant) > 1) | np.isinf(squares)
    )
    return stretches


def _spectral_radius(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Return the spectral radius of ((a, b), (c, d))."""
    half, determinant = (a + d) / 2, a * d - b * c
    root = np.sqrt(half * half - determinant + 0j)
    radius: np.ndarray = np.maximum(np.abs(half + root), np.abs(half - root))
    return radius
