"""StateSpace, two states coupled by a matrix. Its equations are in `exodus/state_space.hpp`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .._backends import Array, in_double
from .._domains import check_values, model_facts
from .._ieee import ieee
from .._maps import Chain, Gradient, Map, same
from .._values import Number, choice, number, numeric, plain
from ._decays import Decaying, to_decays
from ._protocol import Neuron, Recording, State
from ._windows import growing_windows, time_first

MATRIX = ("A00", "A01", "A10", "A11")
_KERNEL = (*MATRIX, "b0", "b1", "r0", "r1", "threshold")  # in the order of exodus::StateSpaceParameters
_LEADING = {"A": (2, 2), "b": (2,), "r": (2,)}


class _Coupled(NamedTuple):
    potential: Array
    spikes: Array
    second: Array


class StateSpaceState(State, _Coupled):
    """State of StateSpace and ResonateAndFire after a step: `potential` is x[0], `second` is x[1]."""

    __module__ = "exodus_core.coupled"
    __slots__ = ()


class CoupledStates(Neuron):
    """Base of the neurons that run on the state-space model."""

    _model = "StateSpace"
    _state: ClassVar[Any] = StateSpaceState

    def _reset_to_zero(self) -> bool:
        """Tell whether a spike sets the potential to zero before the next step."""
        return False

    def _options(self) -> dict[str, int | str]:
        return {"reset": "zero" if self._reset_to_zero() else "subtract"}

    def _growing(self, h: np.ndarray, recording: Recording) -> Array:
        values = {name: np.asarray(value, np.float64) for name, value in self._parameters().items()}
        over_time = (
            time_first(array, recording.layout.time_axis)
            for array in (h, recording.potential, recording.spikes)
        )
        return growing_windows(values, *over_time, to_zero=self._reset_to_zero())


@dataclass(eq=False, repr=False)
class _Entries(Map):
    """The map from one of the arrays A, b and r to its entries along the leading axes."""

    def apply(self, own: Sequence[Number]) -> Sequence[Number]:
        (value,), leading = own, _LEADING[self.own[0]]
        if isinstance(value, tuple):
            return tuple(np.ravel(value).tolist())
        return tuple(plain(value[(*index, ...)]) for index in np.ndindex(leading))

    def transpose(self, own: Sequence[Number], grads: Sequence[Gradient]) -> Sequence[Gradient]:
        xp, *arrays = in_double(*grads)
        return (xp.reshape(xp.stack(arrays), _LEADING[self.own[0]] + tuple(arrays[0].shape)),)


_STATE_SPACE = (
    _Entries(("A",), MATRIX),
    _Entries(("b",), ("b0", "b1")),
    _Entries(("r",), ("r0", "r1")),
    *same("threshold"),
)


@dataclass(frozen=True, eq=False, repr=False)
class StateSpace(CoupledStates):
    """Two states coupled by a matrix (docs/mathematics.md, Coupled states).

    x[n] = A Z x[n-1] + b a[n] + r s[n-1], where x[0] is the potential u and s[n] = 1 where u[n] >= threshold.
    With reset "zero", Z sets the potential of a neuron that fired to zero; otherwise it is the identity. The
    order of operations is ``x0 = (((A00 u) + (A01 v)) + (b0 a)) + (r0 s)``, and likewise for x1.

    Parameters
    ----------
    A : array_like
        Shape (2, 2), or (2, 2, ...) where the axes after the second broadcast against the neurons:
        (2, 2, C, 1, 1) for a matrix per channel of (B, T, C, H, W). Nested lists may mix numbers and arrays.
    b, r : array_like
        Amounts that an input, and a spike of the step before, add to the states; shape (2,) or (2, ...).
    threshold : float or array_like, optional
        Above 0. Its gradient includes only firing, since r has the amount that a spike subtracts.
    reset : {"subtract", "zero"}, optional
        With "zero", a spike sets the potential to zero before A is applied, in addition to the effect of r.

    Raises
    ------
    ValueError, TypeError
        If a value is out of its range or not a number, or an array has the wrong shape.
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
        self._check_values()

    def _maps(self) -> Sequence[Map]:
        return _STATE_SPACE

    def _leading_lengths(self, name: str) -> tuple[int | None, ...]:
        return _LEADING.get(name, ())

    def _reset_to_zero(self) -> bool:
        return self.reset == "zero"


def _entries(name: str, value: Any) -> Any:
    """Return a parameter with leading axes as nested tuples of floats, or as a read-only copy."""
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
    """Stack nested lists of numbers and arrays into one array; the entries broadcast against each other."""
    rows = list(value)
    if len(leading) == 2 and all(isinstance(row, (list, tuple)) for row in rows):
        rows = [_stacked(name, row, leading[1:]) for row in rows]
    parts = [numeric(name, row) for row in rows]
    depth = len(leading) - 1  # the number of axes of a part in front of the neurons'
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


@lru_cache(maxsize=256)
def _maps_of(kind: Any, neuron: Any, given: tuple[str, ...], dt: float) -> tuple[Map, ...]:
    """Return the map of a neuron to its matrix: the maps to its decays, then the formula `kind`."""
    names = tuple(neuron._decays)
    first = to_decays(names, given, dt) + same(*neuron._others)
    return (Chain.of(first, kind(names + neuron._others, _KERNEL)),)


class FromDecays(CoupledStates, Decaying):
    """Base of the neurons whose matrix is computed from decays and other parameters."""

    _others: ClassVar[tuple[str, ...]]

    def _maps_by(self, kind: Any) -> Sequence[Map]:
        given = tuple([self._own_name(name) for name in self._decays])
        neuron: Any = type(self)
        maps: tuple[Map, ...] = _maps_of(kind, neuron, given, self.dt)
        return maps

    @ieee()
    def _check_all(self) -> None:
        """Check each parameter, then that they broadcast, then the matrix that is computed from them."""
        self._check_decay()
        self._check_values()
        shapes = {name: np.shape(self._value_of(name)) for name in self._parameter_names()}
        shapes = {name: shape for name, shape in shapes.items() if shape}
        try:
            np.broadcast_shapes(*shapes.values())
        except ValueError:
            raise ValueError(f"{' and '.join(shapes)} must broadcast, got shapes {shapes}") from None
        check_values(self._parameters(), model_facts(self._model))
