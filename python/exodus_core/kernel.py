"""Kernels of the spike response model: how an input, or a spike, is felt over the steps that follow.

All but FIR run as the same recursion of two numbers per neuron (`exodus/kernel.hpp`), forward and backward,
so that they cost the same however long they last. The order of operations below is the contract of the
forward pass.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ._backends import decay, register_plain
from ._domains import FREE, POSITIVE, check_values
from ._ieee import ieee
from ._maps import Constant, Formula, Map, Same, own_facts
from ._values import Number, Value, in_float64, number, plain

FILTER_MODEL = "KernelFilter"  # the model of the kernels that runs one without spikes

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

    _timing: ClassVar[str] = "prompt"  # of exodus::FilterTiming; "late": y takes x of the step before
    _maps: ClassVar[tuple[Map, ...]]  # to the recursion's numbers or the taps, as in `exodus/kernel.hpp`
    _decays: ClassVar[tuple[str, ...]] = ()

    def _fields(self) -> tuple[str, ...]:
        raise NotImplementedError

    @ieee()
    def __post_init__(self) -> None:
        for name in self._fields():
            object.__setattr__(self, name, number(name, getattr(self, name)))
        values = {name: getattr(self, name) for name in self._fields()}
        check_values(values, own_facts(self._maps, FILTER_MODEL))

    @property
    def decays(self) -> dict[str, Number]:
        """The decays per step, by name, in float64; "alpha" of `Alpha` is exp(-1/tau), `FIR` has none."""
        return {name: in_float64(value) for name, value in self._decay_values().items()}

    def _decay_values(self) -> dict[str, Number]:
        return {name: getattr(self, name) for name in self._decays}

    def _history(self) -> dict[str, tuple[int]]:
        """Return the number of values per neuron of the state's x and y, where it is not one."""
        return {}

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
    _maps = Same(("alpha", "scale"), ("a", "scale")), Constant((), ("b",), 0.0)

    def _fields(self) -> tuple[str, ...]:
        return "alpha", "scale"

    def _evaluate(self, length: int, *values: np.ndarray) -> np.ndarray:
        alpha, scale = values
        taps: np.ndarray = scale * _powers(length, alpha)
        return taps


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
    _maps = (Same(("alpha", "beta", "scale"), ("a", "b", "scale")),)

    def _fields(self) -> tuple[str, ...]:
        return "alpha", "beta", "scale"

    def _evaluate(self, length: int, *values: np.ndarray) -> np.ndarray:
        alpha, beta, scale = values
        taps, y = _powers(length, alpha), np.zeros_like(beta)
        for k in range(length):
            y = beta * y + taps[k]
            taps[k] = scale * y
        return taps


class _Recursion(Formula):
    """The alpha kernel's numbers: p = e^(-1/tau) twice, and w = scale (e/tau) p."""

    domains = (POSITIVE, FREE)

    def values(self, xp: Any, tau: Any, scale: Any) -> Sequence[Any]:
        p = decay(1.0, tau)
        e = xp.full_like(tau, np.e)  # torch would multiply a number by 1 / tau, which is rounded twice
        return p, p, scale * (e / tau) * p

    def chain(self, xp: Any, own: Sequence[Any], grads: Sequence[Any]) -> Sequence[tuple[Any, ...]]:
        tau, scale = own
        a, b, weight = grads
        p = decay(1.0, tau)
        peak = np.e / tau * p  # w / scale
        slope = p / tau**2  # of p; that of w is w (1/tau^2 - 1/tau)
        return (a * slope, b * slope, weight * scale * peak * (1 / tau**2 - 1 / tau)), (weight * peak,)

    def sources(self, name: str) -> Iterable[str]:
        return self.kernel if name == self.own[0] else self.kernel[2:]


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

    _timing = "late"
    _maps = (_Recursion(("tau", "scale"), ("a", "b", "scale")),)

    def _fields(self) -> tuple[str, ...]:
        return "tau", "scale"

    def _decay_values(self) -> dict[str, Number]:
        return {"alpha": plain(decay(1.0, self.tau))}

    def _evaluate(self, length: int, *values: np.ndarray) -> np.ndarray:
        tau, scale = values
        n = np.arange(length, dtype=np.float64).reshape((length,) + (1,) * tau.ndim)
        taps: np.ndarray = scale * (n / tau) * np.e * decay(n, tau)
        return taps


@register_plain
class _Taps(np.ndarray):
    """The values of a FIR kernel; like those of the other kernels they can be asked for, ``taps(length)``."""

    def __call__(self, length: int) -> np.ndarray:
        values = np.zeros((check_length(length), *self.shape[1:]))
        values[: len(self)] = self[:length]
        return values


class _Values(Same):
    """The taps as a plain array."""

    def apply(self, own: Sequence[Number]) -> Sequence[Number]:
        return tuple(np.asarray(taps) if isinstance(taps, np.ndarray) else taps for taps in own)


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

    _maps = (_Values(("taps",), ("taps",)),)

    def __post_init__(self) -> None:
        if np.ndim(self.taps) == 0:
            raise ValueError(f"taps must be an array with an axis of taps, got {self.taps!r}")
        super().__post_init__()
        object.__setattr__(self, "taps", np.asarray(self.taps).view(_Taps))

    def _fields(self) -> tuple[str, ...]:
        return ("taps",)

    def _history(self) -> dict[str, tuple[int]]:
        return {"x": (len(self.taps) - 1,), "y": (0,)}
