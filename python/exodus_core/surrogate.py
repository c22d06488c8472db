"""Surrogate gradients, which stand for f'(u), the derivative of the spike function, in a backward pass.

Each is a value (a frozen dataclass) that goes to ``backward`` and to torch layers, and a function on
arrays: ``surrogate(potential, threshold)`` evaluates it by the very kernel that a backward pass uses.
Below x = u - threshold and th = threshold; every surrogate takes `scale`, a factor.

Any callable ``(potential, threshold) -> array`` serves in place of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from . import _core
from ._backends import FLOATS, is_torch, require_plain
from ._ieee import ieee
from ._values import Value, number

__all__ = [
    "ATan",
    "Boxcar",
    "FastSigmoid",
    "Gaussian",
    "MultiGaussian",
    "PeriodicExponential",
    "Sigmoid",
    "SingleExponential",
    "StraightThrough",
    "Surrogate",
    "Triangle",
]

_ANY_SIGN = ("mean", "scale", "ratio")


@dataclass(frozen=True, eq=False, repr=False)
class Surrogate(Value):
    """Base of the built-in surrogates."""

    _kind: ClassVar[str]

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if is_torch(value):
                value = number(field.name, value)
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
                raise TypeError(f"{field.name} must be a number, got {value!r}")
            if not math.isfinite(value) or (value <= 0 and field.name not in _ANY_SIGN):
                kind = "finite" if field.name in _ANY_SIGN else "positive and finite"
                raise ValueError(f"{field.name} must be {kind}, got {value!r}")
            object.__setattr__(self, field.name, float(value))

    def __repr__(self) -> str:
        shown = (f"{field.name}={getattr(self, field.name)!r}" for field in fields(self))
        return f"{type(self).__name__}({', '.join(shown)})"

    @cached_property
    def _argument(self) -> tuple[int, float, float, float, float]:
        """The bindings' argument: the kind's number, the scale, and the table's a, b, c."""
        shape = [getattr(self, field.name) for field in fields(self) if field.name != "scale"]
        a, b, c = shape + [0.0] * (3 - len(shape))
        return _core.surrogates.index(self._kind), self.scale, a, b, c  # type: ignore[attr-defined]

    def __call__(self, potential: Any, threshold: Any = 1.0) -> Any:
        """Evaluate the surrogate.

        Parameters
        ----------
        potential : array_like
            u, float32 or float64; other numbers are taken as float64.
        threshold : array_like, optional
            Positive, broadcasts against `potential`.

        Returns
        -------
        ndarray
            h = f'(u), in the potential's dtype and the broadcast shape.
        """
        require_plain("potential", potential)
        require_plain("threshold", threshold)
        u = np.asarray(potential)
        if u.dtype not in FLOATS:
            u = u.astype(np.float64)
        with ieee():
            th = np.asarray(threshold, u.dtype)
        shape = np.broadcast_shapes(u.shape, th.shape)
        u = np.ascontiguousarray(np.broadcast_to(u, shape))
        h = np.empty(shape, u.dtype)
        if h.size:
            _core.evaluate(u.dtype.name, self._argument, _kernel_parameter(th, shape, u.dtype), u, h)
        return h[()]


def _kernel_parameter(value: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Return a number, or an array that broadcasts to a shape, as the extension takes a parameter."""
    if np.ndim(value) == 0 or np.size(value) == 1:
        return float(np.asarray(value, dtype).reshape(()))
    values = np.ascontiguousarray(np.broadcast_to(np.asarray(value, dtype), shape))
    return values, values.size, 1


@dataclass(frozen=True, eq=False, repr=False)
class SingleExponential(Surrogate):
    """scale exp(-abs(x) / (width th)) / (width th).

    SLAYER's rho, with width tauRho and scale scaleRho; sinabs' SingleExponential. The default peaks at 1/th,
    within the stability bound h <= (1 + alpha) / reset (see ``growth``); that of sinabs has scale 1 and
    exceeds it.
    """

    width: float = 0.5
    scale: float = 0.5
    _kind = "single_exponential"


@dataclass(frozen=True, eq=False, repr=False)
class PeriodicExponential(Surrogate):
    """scale exp(-abs(y) / width), with a peak at every multiple of the threshold.

    y = x below the threshold, else th (2 frac(u/th - 1/2) - 1): for neurons with several spikes a step.
    """

    width: float = 0.5
    scale: float = 1.0
    _kind = "periodic_exponential"


@dataclass(frozen=True, eq=False, repr=False)
class Boxcar(Surrogate):
    """Scale / width where abs(x) <= width / 2, else 0.

    The rectangle of STBP (Wu et al. 2018), of width a1.
    """

    width: float = 1.0
    scale: float = 1.0
    _kind = "boxcar"


@dataclass(frozen=True, eq=False, repr=False)
class Triangle(Surrogate):
    """Scale max(0, 1 - abs(x) / width) / width.

    The triangle of Bellec et al. (2018), gamma max(0, 1 - abs(x)), with scale gamma; SpikingJelly's
    PiecewiseQuadratic, with width 1 / alpha.
    """

    width: float = 1.0
    scale: float = 1.0
    _kind = "triangle"


@dataclass(frozen=True, eq=False, repr=False)
class Gaussian(Surrogate):
    """Scale G(x; mean, sigma), the normal density.

    SpikingJelly's Erf, with sigma 1 / (sqrt(2) alpha); sinabs' Gaussian.
    """

    mean: float = 0.0
    sigma: float = 0.5
    scale: float = 1.0
    _kind = "gaussian"


@dataclass(frozen=True, eq=False, repr=False)
class MultiGaussian(Surrogate):
    """A normal density with negative wings.

    scale ((1 + ratio) G(x; 0, sigma) - ratio G(x; sigma, s sigma) - ratio G(x; -sigma, s sigma)), of Yin et
    al. (2021).
    """

    sigma: float = 0.5
    ratio: float = 0.15
    s: float = 6.0
    scale: float = 1.0
    _kind = "multi_gaussian"


@dataclass(frozen=True, eq=False, repr=False)
class FastSigmoid(Surrogate):
    """Scale / (slope abs(x) + 1)^2: SuperSpike.

    The derivative of Zenke and Ganguli (2018), with slope beta; snnTorch's fast_sigmoid, Norse's superspike
    with slope alpha, SpikingJelly's SoftSign with slope alpha and scale alpha / 2.
    """

    slope: float = 25.0
    scale: float = 1.0
    _kind = "fast_sigmoid"


@dataclass(frozen=True, eq=False, repr=False)
class ATan(Surrogate):
    """Scale (slope / 2) / (1 + (pi slope x / 2)^2).

    SpikingJelly's ATan and snnTorch's atan, with slope alpha.
    """

    slope: float = 2.0
    scale: float = 1.0
    _kind = "atan"


@dataclass(frozen=True, eq=False, repr=False)
class Sigmoid(Surrogate):
    """Scale slope g (1 - g) with g = 1 / (1 + e^(-slope x)).

    SpikingJelly's Sigmoid, with slope alpha; snnTorch's sigmoid, whose default slope is 25.
    """

    slope: float = 4.0
    scale: float = 1.0
    _kind = "sigmoid"


@dataclass(frozen=True, eq=False, repr=False)
class StraightThrough(Surrogate):
    """The constant `scale`; snnTorch's straight_through_estimator."""

    scale: float = 1.0
    _kind = "straight_through"
