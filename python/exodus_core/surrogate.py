"""Surrogate gradients, which take the place of f'(u), the derivative of the spike function, in backward.

Each surrogate is a frozen dataclass, to be passed to ``backward`` and to torch layers. It is also a function:
``surrogate(potential, threshold)`` evaluates it by the same code as a backward pass. In the formulas below,
x = u - threshold and th = threshold. Every surrogate has a factor, `scale`.

A callable ``(potential, threshold) -> array`` can be passed instead of a built-in surrogate.
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
    _compact: ClassVar[bool] = False  # 0 from some distance to the threshold on

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
        """The extension's argument: the number of the kind, the scale, and the parameters a, b, c."""
        shape = [getattr(self, field.name) for field in fields(self) if field.name != "scale"]
        a, b, c = shape + [0.0] * (3 - len(shape))
        return _core.surrogates.index(self._kind), self.scale, a, b, c  # type: ignore[attr-defined]

    def __call__(self, potential: Any, threshold: Any = 1.0) -> Any:
        """Evaluate the surrogate.

        Parameters
        ----------
        potential : array_like
            u, float32 or float64; other numbers are converted to float64.
        threshold : array_like, optional
            Positive; it broadcasts against `potential`.

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
            _core.evaluate(u.dtype.name, self._argument, _broadcast_threshold(th, shape, u.dtype), u, h)
        return h[()]


def _broadcast_threshold(value: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Return a number or an array, broadcast to a shape, in the form that the extension takes."""
    if np.ndim(value) == 0 or np.size(value) == 1:
        return float(np.asarray(value, dtype).reshape(()))
    values = np.ascontiguousarray(np.broadcast_to(np.asarray(value, dtype), shape))
    return values, values.size, 1


@dataclass(frozen=True, eq=False, repr=False)
class SingleExponential(Surrogate):
    """scale exp(-abs(x) / (width th)) / (width th).

    This is SLAYER's rho, with width tauRho and scale scaleRho, and sinabs' SingleExponential. The default
    peaks at 1/th, within the stability bound h <= (1 + alpha) / reset (see ``growth``). The default of sinabs
    has scale 1 and exceeds the bound.
    """

    width: float = 0.5
    scale: float = 0.5
    _kind = "single_exponential"


@dataclass(frozen=True, eq=False, repr=False)
class PeriodicExponential(Surrogate):
    """scale exp(-abs(y) / width), with a peak at every multiple of the threshold.

    y = x below the threshold, else th (2 frac(u/th - 1/2) - 1). It is meant for several spikes per step.
    """

    width: float = 0.5
    scale: float = 1.0
    _kind = "periodic_exponential"


@dataclass(frozen=True, eq=False, repr=False)
class Boxcar(Surrogate):
    """Scale / width where abs(x) <= width / 2, else 0.

    This is the rectangle of STBP (Wu et al. 2018), with width a1.
    """

    width: float = 1.0
    scale: float = 1.0
    _kind = "boxcar"
    _compact = True


@dataclass(frozen=True, eq=False, repr=False)
class Triangle(Surrogate):
    """Scale max(0, 1 - abs(x) / width) / width.

    This is the triangle of Bellec et al. (2018), gamma max(0, 1 - abs(x)), with scale gamma, and
    SpikingJelly's PiecewiseQuadratic, with width 1 / alpha.
    """

    width: float = 1.0
    scale: float = 1.0
    _kind = "triangle"
    _compact = True


@dataclass(frozen=True, eq=False, repr=False)
class Gaussian(Surrogate):
    """Scale G(x; mean, sigma), the normal density.

    This is SpikingJelly's Erf, with sigma 1 / (sqrt(2) alpha), and sinabs' Gaussian.
    """

    mean: float = 0.0
    sigma: float = 0.5
    scale: float = 1.0
    _kind = "gaussian"


@dataclass(frozen=True, eq=False, repr=False)
class MultiGaussian(Surrogate):
    """A normal density with negative wings.

    scale ((1 + ratio) G(x; 0, sigma) - ratio G(x; sigma, s sigma) - ratio G(x; -sigma, s sigma)), from Yin
    et al. (2021).
    """

    sigma: float = 0.5
    ratio: float = 0.15
    s: float = 6.0
    scale: float = 1.0
    _kind = "multi_gaussian"


@dataclass(frozen=True, eq=False, repr=False)
class FastSigmoid(Surrogate):
    """Scale / (slope abs(x) + 1)^2: SuperSpike.

    This is the surrogate of Zenke and Ganguli (2018), with slope beta; snnTorch's fast_sigmoid; Norse's
    superspike, with slope alpha; and SpikingJelly's SoftSign, with slope alpha and scale alpha / 2.
    """

    slope: float = 25.0
    scale: float = 1.0
    _kind = "fast_sigmoid"


@dataclass(frozen=True, eq=False, repr=False)
class ATan(Surrogate):
    """Scale (slope / 2) / (1 + (pi slope x / 2)^2).

    This is SpikingJelly's ATan and snnTorch's atan, with slope alpha.
    """

    slope: float = 2.0
    scale: float = 1.0
    _kind = "atan"


@dataclass(frozen=True, eq=False, repr=False)
class Sigmoid(Surrogate):
    """Scale slope g (1 - g) with g = 1 / (1 + e^(-slope x)).

    This is SpikingJelly's Sigmoid, with slope alpha, and snnTorch's sigmoid, whose default slope is 25.
    """

    slope: float = 4.0
    scale: float = 1.0
    _kind = "sigmoid"


@dataclass(frozen=True, eq=False, repr=False)
class StraightThrough(Surrogate):
    """The constant `scale`; snnTorch's straight_through_estimator."""

    scale: float = 1.0
    _kind = "straight_through"
