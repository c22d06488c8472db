"""Kernels of the spike response model: how an input, or a spike, is felt over the steps that follow.

All but FIR run as the same recursion of two numbers per neuron (`exodus/kernel.hpp`), forward and backward,
so that they cost the same however long they last. The order of operations below is the contract of the
forward pass.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ._backends import decay, ieee, in_double, register_plain
from ._values import Number, Value, in_float64, number, plain, require_that

__all__ = ["FIR", "Alpha", "DoubleExponential", "Exponential", "Kernel"]


def check_length(length: Any) -> int:
    """The number of taps that are asked for."""
    if isinstance(length, bool) or not isinstance(length, numbers.Integral):
        raise TypeError(f"length must be an integer, got {length!r}")
    if length < 0:
        raise ValueError(f"length must not be negative, got {length}")
    return int(length)


def _powers(length: int, base: np.ndarray) -> np.ndarray:
    """base^0, base^1, ... by repeated products, whose bits are the same everywhere; those of pow are not."""
    factors = np.broadcast_to(base, (length, *base.shape)).copy()
    factors[:1] = 1.0
    return np.multiply.accumulate(factors, axis=0)


class Kernel(Value):
    """Base of the kernels."""

    _late: ClassVar[bool] = False  # y takes x of the step before
    _decays: ClassVar[tuple[str, ...]] = ()

    def _fields(self) -> tuple[str, ...]:
        raise NotImplementedError

    @ieee()
    def __post_init__(self) -> None:
        for name in self._fields():
            value = number(name, getattr(self, name))
            inside = (np.asarray(value) >= 0) & (np.asarray(value) <= 1) if name in self._decays else True
            require_that(name, value, inside, "in [0, 1]" if name in self._decays else "finite")
            object.__setattr__(self, name, value)

    @property
    def decays(self) -> dict[str, Number]:
        """The decays per step, by name, in float64; "alpha" of `Alpha` is exp(-1/tau), `FIR` has none."""
        return {name: in_float64(value) for name, value in self._decay_values().items()}

    def _decay_values(self) -> dict[str, Number]:
        return {name: getattr(self, name) for name in self._decays}

    def _parameters(self) -> dict[str, Number]:
        """The recursion's numbers, or the taps, by the names of `exodus/kernel.hpp`, not yet rounded."""
        raise NotImplementedError

    def _history(self) -> dict[str, tuple[int]]:
        """How many values the state's x and y have for a neuron, if not one."""
        return {}

    def _own_gradients(self, grads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Gradients by the kernel's own names from those of the recursion's numbers, within ``ieee``."""
        raise NotImplementedError

    def _sources(self, name: str) -> set[str]:
        """The recursion's numbers behind a parameter."""
        raise NotImplementedError

    def taps(self, length: int) -> np.ndarray:
        """Evaluate the kernel.

        Parameters
        ----------
        length : int
            How many values.

        Returns
        -------
        ndarray
            kernel[0], ..., kernel[length - 1] in float64; parameters that are arrays add their axes behind.
        """
        values = [np.asarray(getattr(self, name), np.float64) for name in self._fields()]
        with ieee():
            return self._evaluate(check_length(length), *np.broadcast_arrays(*values))

    def _evaluate(self, length: int, *values: np.ndarray) -> np.ndarray:
        """The taps, of values of the same shape."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False, repr=False)
class Exponential(Kernel):
    """scale alpha^n; x[n] = (alpha x[n-1]) + in[n], y[n] = x[n], out[n] = scale y[n].

    Parameters
    ----------
    alpha : float or array_like
        Decay per step, in [0, 1].
    scale : float or array_like, optional
        Factor.
    """

    alpha: Number
    scale: Number = 1.0

    _decays = ("alpha",)

    def _fields(self) -> tuple[str, ...]:
        return "alpha", "scale"

    def _parameters(self) -> dict[str, Number]:
        return {"a": self.alpha, "b": 0.0, "scale": self.scale}

    def _own_gradients(self, grads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {("alpha" if name == "a" else name): grad for name, grad in grads.items()}

    def _sources(self, name: str) -> set[str]:
        return {"a" if name == "alpha" else name}

    def _evaluate(self, length: int, *values: np.ndarray) -> np.ndarray:
        alpha, scale = values
        return scale * _powers(length, alpha)


@dataclass(frozen=True, eq=False, repr=False)
class DoubleExponential(Kernel):
    """scale times the convolution of alpha^n with beta^n.

    x[n] = (alpha x[n-1]) + in[n], y[n] = (beta y[n-1]) + x[n], out[n] = scale y[n].

    Parameters
    ----------
    alpha, beta : float or array_like
        Decays per step, in [0, 1].
    scale : float or array_like, optional
        Factor.
    """

    alpha: Number
    beta: Number
    scale: Number = 1.0

    _decays = ("alpha", "beta")

    def _fields(self) -> tuple[str, ...]:
        return "alpha", "beta", "scale"

    def _parameters(self) -> dict[str, Number]:
        return {"a": self.alpha, "b": self.beta, "scale": self.scale}

    def _own_gradients(self, grads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = {"a": "alpha", "b": "beta", "scale": "scale"}
        return {names[name]: grad for name, grad in grads.items()}

    def _sources(self, name: str) -> set[str]:
        return {{"alpha": "a", "beta": "b", "scale": "scale"}[name]}

    def _evaluate(self, length: int, *values: np.ndarray) -> np.ndarray:
        alpha, beta, scale = values
        taps, y = _powers(length, alpha), np.zeros_like(beta)
        for k in range(length):
            y = beta * y + taps[k]
            taps[k] = scale * y
        return taps


@dataclass(frozen=True, eq=False, repr=False)
class Alpha(Kernel):
    """scale (n/tau) e^(1-n/tau), which peaks at `scale` after tau steps: SLAYER's kernel.

    With p = e^(-1/tau) and w = scale (e/tau) p, each rounded to the arithmetic dtype:
    x[n] = (p x[n-1]) + in[n], y[n] = (p y[n-1]) + x[n-1], out[n] = w y[n].

    Parameters
    ----------
    tau : float or array_like
        Time constant in steps, above 0.
    scale : float or array_like, optional
        Factor.
    """

    tau: Number
    scale: Number = 1.0

    _late = True

    @ieee()
    def __post_init__(self) -> None:
        super().__post_init__()
        require_that("tau", self.tau, np.asarray(self.tau) > 0, "above 0")

    def _fields(self) -> tuple[str, ...]:
        return "tau", "scale"

    def _decay_values(self) -> dict[str, Number]:
        return {"alpha": self._parameters()["a"]}

    def _parameters(self) -> dict[str, Number]:
        xp, tau, scale = in_double(self.tau, self.scale)
        with ieee():
            p = decay(1.0, tau)
            e = xp.full_like(tau, np.e)  # torch would multiply a number by 1 / tau, which is rounded twice
            return {"a": plain(p), "b": plain(p), "scale": plain(scale * (e / tau) * p)}

    def _own_gradients(self, grads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        xp, tau, scale, weight = in_double(self.tau, self.scale, grads["scale"])
        p = decay(1.0, tau)
        peak = np.e / tau * p  # w / scale
        own = {"scale": _sum_to(xp, weight * peak, scale.shape)}
        if "a" in grads:  # d p / d tau = p / tau^2, d w / d tau = w (1/tau^2 - 1/tau)
            slope = weight * scale * peak * (1 / tau**2 - 1 / tau)
            own["tau"] = (grads["a"] + grads["b"]) * p / tau**2 + _sum_to(xp, slope, tau.shape)
        return own

    def _sources(self, name: str) -> set[str]:
        return {"a", "b", "scale"} if name == "tau" else {"scale"}

    def _evaluate(self, length: int, *values: np.ndarray) -> np.ndarray:
        tau, scale = values
        n = np.arange(length, dtype=np.float64).reshape((length,) + (1,) * tau.ndim)
        return scale * (n / tau) * np.e * decay(n, tau)


@register_plain
class _Taps(np.ndarray):
    """The values of a FIR kernel; like those of the other kernels they can be asked for, ``taps(length)``."""

    def __call__(self, length: int) -> np.ndarray:
        values = np.zeros((check_length(length), *self.shape[1:]))
        values[: len(self)] = self[:length]
        return values


@dataclass(frozen=True, eq=False, repr=False)
class FIR(Kernel):
    """Any kernel, by its values: out[n] = sum of taps[k] in[n-k], from k = 0 on, starting at 0.

    Its cost grows with the number of taps: forward, for every input of `epsilon` and every spike of `nu`;
    backward, for every step. A neuron remembers one input less than there are taps.

    Parameters
    ----------
    taps : array_like
        kernel[0], kernel[1], ...: shape (K,), or (K, ...) with axes behind that broadcast against the
        neurons, (K, C, 1, 1) for a kernel per channel of (B, T, C, H, W). What lies beyond is zero.
    """

    taps: Any = field()

    def __post_init__(self) -> None:
        if np.ndim(self.taps) == 0:
            raise ValueError(f"taps must be an array with an axis of taps, got {self.taps!r}")
        super().__post_init__()
        object.__setattr__(self, "taps", np.asarray(self.taps).view(_Taps))

    def _fields(self) -> tuple[str, ...]:
        return ("taps",)

    def _parameters(self) -> dict[str, Number]:
        return {"taps": np.asarray(self.taps) if isinstance(self.taps, np.ndarray) else self.taps}

    def _history(self) -> dict[str, tuple[int]]:
        return {"x": (len(self.taps) - 1,), "y": (0,)}

    def _own_gradients(self, grads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return grads

    def _sources(self, name: str) -> set[str]:
        return {name}


def _sum_to(xp: Any, array: Any, shape: tuple[int, ...]) -> Any:
    """Undo the broadcasting of a gradient."""
    array = xp.sum(array, axis=tuple(range(array.ndim - len(shape))))
    return xp.sum(array, axis=tuple(k for k, size in enumerate(shape) if size == 1), keepdims=True)
