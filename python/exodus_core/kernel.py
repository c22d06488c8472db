"""Kernels of the spike response model: the effect of an input, or of a spike, on the steps that follow.

All kernels but FIR run as one recursion of two values per neuron, forward and backward (`exodus/kernel.hpp`),
so their cost does not depend on their length. The forward pass computes exactly the operations given below,
in that order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ._backends import decay, register_plain
from ._domains import FREE, LEAST_TAU, POSITIVE, Facts, check_values
from ._ieee import ieee
from ._integers import integer
from ._maps import Constant, Formula, Map, Same, relations
from ._values import Number, Value, in_float64, number, plain

FILTER_MODEL = "KernelFilter"  # the C++ model that convolves without spikes

__all__ = ["FIR", "Alpha", "DoubleExponential", "Exponential", "Kernel"]


def _powers(length: int, base: np.ndarray) -> np.ndarray:
    """Return base^0, base^1, ... by repeated products. Unlike pow, they have the same bits everywhere."""
    factors = np.broadcast_to(base, (length, *base.shape)).copy()
    factors[:1] = 1.0
    return np.multiply.accumulate(factors, axis=0)


class Kernel(Value):
    """Base of the kernels."""

    _timing: ClassVar[str] = "prompt"  # exodus::FilterTiming; with "late", y[n] takes x[n-1]
    _maps: ClassVar[tuple[Map, ...]]  # to the coefficients of the recursion, or to taps (`exodus/kernel.hpp`)
    _decays: ClassVar[tuple[str, ...]] = ()

    def _fields(self) -> tuple[str, ...]:
        raise NotImplementedError

    @ieee()
    def __post_init__(self) -> None:
        for name in self._fields():
            object.__setattr__(self, name, number(name, getattr(self, name)))
        values = {name: getattr(self, name) for name in self._fields()}
        check_values(values, relations(self._maps, FILTER_MODEL).facts)

    @property
    def decays(self) -> dict[str, Number]:
        """The decays per step, by name, in float64. `Alpha` has the decay exp(-1/tau), `FIR` has none."""
        return {name: in_float64(value) for name, value in self._decay_values().items()}

    def _decay_values(self) -> dict[str, Number]:
        return {name: getattr(self, name) for name in self._decays}

    def _values_per_neuron(self) -> dict[str, tuple[int]]:
        """Return the number of values per neuron in the state's x and y, unless it is one."""
        return {}

    def taps(self, length: int) -> np.ndarray:
        """Evaluate the kernel.

        Parameters
        ----------
        length : int
            The number of values.

        Returns
        -------
        ndarray
            kernel[0], ..., kernel[length - 1] in float64, on the first axis. The axes of parameters that are
            arrays follow.
        """
        values = [np.asarray(getattr(self, name), np.float64) for name in self._fields()]
        with ieee():
            return self._evaluate(integer("length", length, 0), *np.broadcast_arrays(*values))

    def _evaluate(self, length: int, *values: np.ndarray) -> np.ndarray:
        """Return the taps for parameters of equal shapes."""
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
    """The coefficients of the alpha kernel's recursion: p = e^(-1/tau) twice, and w = scale (e/tau) p."""

    domains = (POSITIVE, FREE)

    def values(self, xp: Any, tau: Any, scale: Any) -> Sequence[Any]:
        p = decay(1.0, tau)
        e = xp.full_like(tau, np.e)  # For a plain number torch computes np.e * (1 / tau), rounded twice.
        return p, p, scale * (e / tau) * p

    def chain(self, xp: Any, own: Sequence[Any], grads: Sequence[Any]) -> Sequence[tuple[Any, ...]]:
        tau, scale = own
        a, b, weight = grads
        p = decay(1.0, tau)
        peak = np.e / tau * p  # w / scale
        slope = p / tau**2  # dp/dtau; dw/dtau is w (1/tau^2 - 1/tau)
        return (a * slope, b * slope, weight * scale * peak * (1 / tau**2 - 1 / tau)), (weight * peak,)

    def sources(self, name: str) -> Iterable[str]:
        return self.model if name == self.own[0] else self.model[2:]

    def facts(self, model: Mapping[str, Facts]) -> Sequence[Facts]:
        tau, scale = super().facts(model)
        return tau._replace(least=LEAST_TAU), scale


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
    """The taps of an FIR kernel. They are callable, since ``taps(length)`` is a method of other kernels."""

    def __call__(self, length: int) -> np.ndarray:
        values = np.zeros((integer("length", length, 0), *self.shape[1:]))
        values[: len(self)] = self[:length]
        return values


class _Values(Same):
    """The identity, for taps, which it turns into a plain array."""

    def apply(self, own: Sequence[Number]) -> Sequence[Number]:
        return tuple(np.asarray(taps) if isinstance(taps, np.ndarray) else taps for taps in own)


@dataclass(frozen=True, eq=False, repr=False)
class FIR(Kernel):
    """Any kernel, given by its values: out[n] = sum_k taps[k] in[n-k], added up from k = 0 on.

    The cost grows with the number of taps K. The forward pass pays for K taps at every input of `epsilon`
    and at every spike of `nu`, the backward pass at every step. A neuron stores K - 1 earlier inputs.

    Parameters
    ----------
    taps : array_like
        kernel[0], kernel[1], ...: shape (K,), or (K, ...) where the axes after the first broadcast against
        the neurons: (K, C, 1, 1) for a kernel per channel of (B, T, C, H, W). The kernel is zero beyond.
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

    def _values_per_neuron(self) -> dict[str, tuple[int]]:
        return {"x": (len(self.taps) - 1,), "y": (0,)}
