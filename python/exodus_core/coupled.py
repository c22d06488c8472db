"""Neurons with two coupled states: any by its matrix, and the published ones that are of this kind.

x[n] = A x[n-1] + b a[n] + r s[n-1], x = (u, v), s[n] = 1 where u[n] >= threshold (`exodus/state_space.hpp`).
The kernel takes nine numbers or arrays; the descriptors here say how they are made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ._backends import Array, in_double, rotation
from ._growth import growing_windows, time_first
from ._maps import Chain, Formula, Gradient, Map, same, to_decays
from ._values import Number, number, numeric, plain
from .neurons import DECAYS, RESETS, Decaying, Neuron, State, check, choice

__all__ = ["AdLIF", "AdLIFState", "ResonateAndFire", "StateSpace", "StateSpaceState"]

_MATRIX = ("A00", "A01", "A10", "A11")
_KERNEL = (*_MATRIX, "b0", "b1", "r0", "r1", "threshold")  # in the order of exodus::StateSpaceParameters
_LEADING = {"A": (2, 2), "b": (2,), "r": (2,)}


class _Coupled(NamedTuple):
    potential: np.ndarray
    spikes: np.ndarray
    second: np.ndarray


class _Adapting(NamedTuple):
    potential: np.ndarray
    spikes: np.ndarray
    adaptation: np.ndarray


class StateSpaceState(State, _Coupled):
    """State of StateSpace and ResonateAndFire after a step: `potential` and `second` are u and v."""

    __slots__ = ()


class AdLIFState(State, _Adapting):
    """State of AdLIF after a step: `adaptation` is w, of the symplectic order that of the step before."""

    __slots__ = ()


STATES = (StateSpaceState, AdLIFState)


class CoupledStates(Neuron):
    """Base of the neurons that the state-space kernel runs."""

    _model = "StateSpace"
    _state: ClassVar[Any] = StateSpaceState
    # Gradients of b read the current; those of a second column the second state, which is rebuilt from it.
    _current_readers = frozenset({"A01", "A11", "b0", "b1"})

    def _reset_to_zero(self) -> bool:
        """Whether a spike also makes the potential zero."""
        return False

    def _options(self) -> dict[str, int]:
        return {"reset": RESETS.index("zero" if self._reset_to_zero() else "subtract")}

    def _check_together(self, values: Mapping[str, Number]) -> None:
        """Check parameters of which the matrix is made, one by one and that they broadcast."""
        check(values)
        shapes = {name: np.shape(value) for name, value in values.items() if np.shape(value)}
        try:
            np.broadcast_shapes(*shapes.values())
        except ValueError:
            raise ValueError(f"{' and '.join(shapes)} must broadcast, got shapes {shapes}") from None
        check(self._parameters())

    def _growing(self, h: np.ndarray, trace: Any) -> np.ndarray:
        values = {name: np.asarray(value, np.float64) for name, value in self._parameters().items()}
        over_time = (time_first(array, trace.time_axis) for array in (h, trace.potential, trace.spikes))
        return growing_windows(values, *over_time, to_zero=self._reset_to_zero())


@dataclass(frozen=True)
class _Entries(Map):
    """The entries of the arrays A, b and r, one after another along their leading axes."""

    def apply(self, own: Sequence[Number]) -> Sequence[Number]:
        (value,), leading = own, _LEADING[self.own[0]]
        if isinstance(value, tuple):
            return tuple(np.ravel(value).tolist())
        return tuple(plain(value[(*index, ...)]) for index in np.ndindex(leading))

    def transpose(self, own: Sequence[Number], grads: Sequence[Gradient]) -> Sequence[Gradient]:
        xp, *arrays = in_double(*grads)
        return (xp.reshape(xp.stack(arrays), _LEADING[self.own[0]] + tuple(arrays[0].shape)),)


_STATE_SPACE = (
    _Entries(("A",), _MATRIX),
    _Entries(("b",), ("b0", "b1")),
    _Entries(("r",), ("r0", "r1")),
    *same("threshold"),
)


@dataclass(frozen=True, eq=False, repr=False)
class StateSpace(CoupledStates):
    """Two coupled states by their matrix (docs/mathematics.md, Coupled states).

    x[n] = A Z x[n-1] + b a[n] + r s[n-1], where x[0] is the potential u, s[n] = 1 where u[n] >= threshold,
    and Z, of a reset to zero, takes away the potential of a neuron that fired. The order of operations is
    ``x0 = (((A00 u) + (A01 v)) + (b0 a)) + (r0 s)``, x1 likewise.

    Parameters
    ----------
    A : array_like
        Shape (2, 2), or (2, 2, ...) with axes behind that broadcast against the neurons, (2, 2, C, 1, 1)
        for a matrix per channel of (B, T, C, H, W). Entries of nested lists may be numbers and arrays.
    b, r : array_like
        What an input and a spike of the step before add to the states, shape (2,) or (2, ...).
    threshold : float or array_like, optional
        Above 0. Its gradient counts firing alone: what a spike takes away is in r.
    reset : {"subtract", "zero"}, optional
        "zero" makes the potential of a neuron that fired zero before A, beside what r adds.

    Raises
    ------
    ValueError, TypeError
        If a value is out of its range or not a number, or an array has another shape.
    """

    A: Any
    b: Any
    r: Any
    threshold: Number = 1.0
    _: KW_ONLY
    reset: str = "subtract"

    _value_fields = ("threshold",)

    def __post_init__(self) -> None:
        for name in _LEADING:
            object.__setattr__(self, name, _entries(name, getattr(self, name)))
        self._set_values()
        choice("reset", self.reset, ("subtract", "zero"))
        for name in _LEADING:
            check({name: np.asarray(getattr(self, name))})
        check({"threshold": self.threshold})

    def _maps(self) -> Sequence[Map]:
        return _STATE_SPACE

    def _leading(self, name: str) -> tuple[int | None, ...]:
        return _LEADING.get(name, ())

    def _reset_to_zero(self) -> bool:
        return self.reset == "zero"


def _entries(name: str, value: Any) -> Any:
    """A parameter with leading axes: nested tuples of floats, or a read-only array of its own."""
    leading = _LEADING[name]
    if isinstance(value, (list, tuple)):
        value = _stacked(name, value, leading)
    array = number(name, value)
    if np.shape(array)[: len(leading)] != leading:
        axes = ", ".join(map(str, leading))
        raise ValueError(
            f"{name} must have shape ({axes}{',' * (len(leading) == 1)}) or ({axes}, ...), "
            f"got {np.shape(array)}"
        )
    if array.ndim > len(leading):
        return array
    numbers = array.astype(np.float64).tolist()
    return tuple(tuple(row) if isinstance(row, list) else row for row in numbers)


def _stacked(name: str, value: Any, leading: tuple[int, ...]) -> np.ndarray:
    """Nested lists of numbers and arrays as one array, the entries broadcast to the same shape."""
    rows = list(value)
    if len(leading) == 2 and all(isinstance(row, (list, tuple)) for row in rows):
        rows = [_stacked(name, row, leading[1:]) for row in rows]
    parts = [numeric(name, row) for row in rows]
    depth = len(leading) - 1  # that of axes in a part which are not the neurons'
    try:
        behind = np.broadcast_shapes(*(part.shape[depth:] for part in parts))
        shapes = [
            part.shape[:depth] + (1,) * (len(behind) - part.ndim + depth) + part.shape[depth:]
            for part in parts
        ]
        return np.stack(
            [
                np.broadcast_to(part.reshape(shape), part.shape[:depth] + behind)
                for part, shape in zip(parts, shapes, strict=True)
            ]
        )
    except ValueError:
        shapes = [part.shape for part in parts]
        raise ValueError(f"{name} must have entries that broadcast, got parts of shapes {shapes}") from None


class _AdaptationFirst(Formula):
    """The matrix of the adaptive LIF whose adaptation is updated before its potential."""

    def values(self, xp: Any, *own: Array) -> Sequence[Array]:
        al, be, aa, bb, threshold = own
        gain = 1.0 - al
        matrix = (al - gain * aa, -(gain * be), aa, be)
        return *matrix, gain, 0.0, -(al * threshold) - gain * bb, bb, threshold

    def chain(self, xp: Any, own: Sequence[Array], grads: Sequence[Array]) -> Sequence[tuple[Array, ...]]:
        al, be, aa, bb, threshold = own
        A00, A01, A10, A11, b0, _, r0, r1, of_threshold = grads
        gain = 1.0 - al
        return (
            (A00 * (1.0 + aa), A01 * be, -b0, r0 * (bb - threshold)),
            (-A01 * gain, A11),
            (-A00 * gain, A10),
            (-r0 * gain, r1),
            (-r0 * al, of_threshold),
        )

    def sources(self, name: str) -> Iterable[str]:
        return {
            "alpha": ("A00", "A01", "b0", "r0"),
            "alpha_adapt": ("A01", "A11"),
            "coupling": ("A00", "A10"),
            "adapt_scale": ("r0", "r1"),
            "threshold": ("r0", "threshold"),
        }[name]


class _Symplectic(Formula):
    """The matrix of the adaptive LIF in the symplectic order, for (potential, adaptation one step late)."""

    def values(self, xp: Any, *own: Array) -> Sequence[Array]:
        al, be, aa, bb, threshold = own
        gain, rate = 1.0 - al, 1.0 - be
        coupled, jump = rate * aa, rate * bb
        matrix = (al - gain * coupled, -(gain * be), coupled, be)
        return *matrix, gain, 0.0, -(gain * jump), jump, threshold

    def chain(self, xp: Any, own: Sequence[Array], grads: Sequence[Array]) -> Sequence[tuple[Array, ...]]:
        al, be, aa, bb, _ = own
        A00, A01, A10, A11, b0, _, r0, r1, of_threshold = grads
        gain, rate = 1.0 - al, 1.0 - be
        return (
            (A00 * (1.0 + rate * aa), A01 * be, -b0, r0 * (rate * bb)),
            (A00 * (gain * aa), -A01 * gain, -A10 * aa, A11, r0 * (gain * bb), -r1 * bb),
            (-A00 * (gain * rate), A10 * rate),
            (-r0 * (gain * rate), r1 * rate),
            (of_threshold,),
        )

    def sources(self, name: str) -> Iterable[str]:
        return {
            "alpha": ("A00", "A01", "b0", "r0"),
            "alpha_adapt": (*_MATRIX, "r0", "r1"),
            "coupling": ("A00", "A10"),
            "adapt_scale": ("r0", "r1"),
            "threshold": ("threshold",),
        }[name]


_ORDERS: dict[str, type[Formula]] = {"adaptation_first": _AdaptationFirst, "symplectic": _Symplectic}


@lru_cache(maxsize=256)
def _maps_of(kind: Any, neuron: Any, given: tuple[str, ...], dt: float) -> tuple[Map, ...]:
    """A formula of a neuron's decays, each by the name that was given, and of its other parameters."""
    first = to_decays(neuron._decays, given, dt) + same(*neuron._others)
    return (Chain.of(first, kind(neuron._decays + neuron._others, _KERNEL)),)


class _FromDecays(CoupledStates, Decaying):
    """Neurons whose matrix is made of decays and of other parameters."""

    _others: ClassVar[tuple[str, ...]]

    def _maps_by(self, kind: Any) -> Sequence[Map]:
        given = tuple([self._own_name(name) for name in self._decays])
        neuron: Any = type(self)
        maps: tuple[Map, ...] = _maps_of(kind, neuron, given, self.dt)
        return maps

    def _check_all(self) -> None:
        self._check_decay()
        taus = [DECAYS[name] for name in self._decays]
        names = (*self._decays, *taus, *self._others)
        self._check_together({name: value for name in names if (value := getattr(self, name)) is not None})


@dataclass(frozen=True, eq=False, repr=False)
class AdLIF(_FromDecays):
    """The adaptive LIF whose adaptation w follows the potential too, so that it can oscillate.

    With I the input and order "adaptation_first" (Bittar and Garner 2022; sparch)::

        w[n] = alpha_adapt w[n-1] + coupling u[n-1] + adapt_scale s[n-1]
        u[n] = alpha (u[n-1] - threshold s[n-1]) + (1 - alpha) (I[n] - w[n])
        s[n] = 1 where u[n] >= threshold

    and with order "symplectic" (SE-adLIF; Baronig et al. 2025), whose potential a spike sets to zero::

        u~[n] = alpha u[n-1] + (1 - alpha) (I[n] - w[n-1])
        s[n] = 1 where u~[n] >= threshold
        u[n] = u~[n] (1 - s[n])
        w[n] = alpha_adapt w[n-1] + (1 - alpha_adapt) (coupling u[n] + adapt_scale s[n])

    Both run as a `StateSpace` whose entries are made in float64 and rounded once. `potential` is u, of the
    symplectic order u~, and the state's `adaptation` there is w[n-1].

    Parameters
    ----------
    alpha, alpha_adapt : float or array_like, optional
        Decays of the membrane and of the adaptation per step, in [0, 1].
    coupling : float or array_like
        How the adaptation follows the potential (a in the papers).
    adapt_scale : float or array_like
        What a spike adds to the adaptation (b in the papers).
    threshold : float or array_like, optional
        Above 0. In the order "adaptation_first" a spike also subtracts it, which its gradient counts.
    tau, tau_adapt : float or array_like, optional
        Time constants in the unit of `dt`, each in place of its decay.
    dt : float, optional
        Length of a step.
    order : {"adaptation_first", "symplectic"}, optional
        Of the updates within a step.

    Raises
    ------
    ValueError, TypeError
        If a value is out of its range or not a number.
    """

    alpha: Number = None
    alpha_adapt: Number = None
    coupling: Number = None
    adapt_scale: Number = None
    threshold: Number = 1.0
    _: KW_ONLY
    tau: Number = None
    tau_adapt: Number = None
    dt: float = 1.0
    order: str = "adaptation_first"

    _state = AdLIFState
    _decays = ("alpha", "alpha_adapt")
    _others = ("coupling", "adapt_scale", "threshold")
    _value_fields = ("alpha", "alpha_adapt", "coupling", "adapt_scale", "threshold", "tau", "tau_adapt")

    def __post_init__(self) -> None:
        for name in ("coupling", "adapt_scale"):
            if getattr(self, name) is None:
                raise TypeError(f"{name} must be a number or an array of numbers, got None")
        choice("order", self.order, tuple(_ORDERS))
        self._set_values()
        self._check_all()

    def _maps(self) -> Sequence[Map]:
        return self._maps_by(_ORDERS[self.order])

    def _reset_to_zero(self) -> bool:
        return self.order == "symplectic"


class _TurnedReal(Formula):
    """A rotation that shrinks, for (real, imaginary) where the real part fires."""

    turn: ClassVar[float] = 1.0  # A10 is turn times decay sin(frequency), A01 its negative
    into: ClassVar[tuple[float, float]] = (1.0, 0.0)

    def values(self, xp: Any, *own: Array) -> Sequence[Array]:
        radius, angle, threshold = own
        cosine, sine = rotation(angle)
        along, across = radius * cosine, self.turn * (radius * sine)
        return along, -across, across, along, *self.into, -threshold, 0.0, threshold

    def chain(self, xp: Any, own: Sequence[Array], grads: Sequence[Array]) -> Sequence[tuple[Array, ...]]:
        radius, angle, _ = own
        A00, A01, A10, A11, *_, r0, _, of_threshold = grads
        cosine, sine = rotation(angle)
        along, across = A00 + A11, self.turn * (A10 - A01)
        return (
            (along * cosine + across * sine,),
            (radius * (across * cosine - along * sine),),
            (-r0, of_threshold),
        )

    def sources(self, name: str) -> Iterable[str]:
        return ("r0", "threshold") if name == "threshold" else _MATRIX


class _TurnedImaginary(_TurnedReal):
    """The same for (imaginary, real) where the imaginary part fires."""

    turn = -1.0
    into = (0.0, 1.0)


_PARTS: dict[str, type[Formula]] = {"real": _TurnedReal, "imaginary": _TurnedImaginary}


@dataclass(frozen=True, eq=False, repr=False)
class ResonateAndFire(_FromDecays):
    """A damped oscillator that fires (Izhikevich 2001), discrete: it answers inputs in its own rhythm.

    z[n] = decay e^(i frequency) z[n-1] + a[n] - reset of s[n-1], a complex number; s[n] = 1 where its real,
    or its imaginary, part is at least the threshold, which a spike subtracts from this part in the next
    step. The potential is the part that fires, the state's `second` the other one.

    Parameters
    ----------
    decay : float or array_like, optional
        By which the amplitude shrinks per step, in [0, 1].
    frequency : float or array_like
        Angle of rotation per step in radians, any finite number; `dt` does not scale it. A period of P steps
        is 2 pi / P.
    threshold : float or array_like, optional
        Above 0; its gradient counts firing and reset.
    tau : float or array_like, optional
        Time constant in the unit of `dt`, in place of `decay` = exp(-dt / tau).
    dt : float, optional
        Length of a step.
    fires_on : {"real", "imaginary"}, optional
        The part that fires. The input goes into the real one.

    Raises
    ------
    ValueError, TypeError
        If a value is out of its range or not a number.
    """

    decay: Number = None
    frequency: Number = None
    threshold: Number = 1.0
    _: KW_ONLY
    tau: Number = None
    dt: float = 1.0
    fires_on: str = "real"

    _decays = ("decay",)
    _others = ("frequency", "threshold")
    _value_fields = ("decay", "frequency", "threshold", "tau")

    def __post_init__(self) -> None:
        if self.frequency is None:
            raise TypeError("frequency must be a number or an array of numbers, got None")
        choice("fires_on", self.fires_on, tuple(_PARTS))
        self._set_values()
        self._check_all()

    def _maps(self) -> Sequence[Map]:
        return self._maps_by(_PARTS[self.fires_on])
