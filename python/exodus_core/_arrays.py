"""From arrays of any layout to the kernels' (outer, time, inner), and from parameters to (count, repeat).

A neuron does not care in which order the other axes lie in memory, so any dense stride order is used in
place: axes outside of time are `outer`, axes inside are `inner`. Everything that goes with an array
(results, gradients, states) lies in the same order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

_LINE = 64  # bytes
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def is_torch(value: Any) -> bool:
    """Whether a value is one of torch's, without importing torch."""
    return any(base.__module__.split(".")[0] == "torch" for base in type(value).__mro__)


def float_array(name: str, value: Any) -> np.ndarray:
    """The argument as an array, if it is a float32 or float64 array already."""
    if not isinstance(value, np.ndarray):
        hint = ": for torch tensors use exodus_core.torch.spike" if is_torch(value) else ""
        raise TypeError(f"{name} must be a numpy array, got {type(value).__name__}{hint}")
    if value.dtype not in FLOATS:
        raise TypeError(
            f"{name} must have dtype float32 or float64 in native byte order, got {value.dtype.str}"
        )
    return np.asarray(value)


def require(name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The argument as an array of exactly this shape and dtype."""
    array = float_array(name, value)
    if array.dtype != dtype:
        raise TypeError(f"{name} must have dtype {dtype}, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    return array


def overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays share an element."""
    try:
        return np.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def _dense_order(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> tuple[int, ...] | None:
    """The axes from the longest stride to the shortest, or None if there are gaps or overlaps."""
    order = sorted(range(len(shape)), key=lambda axis: -strides[axis])
    wide = [axis for axis in order if shape[axis] > 1]
    expected = itemsize
    for axis in reversed(wide):
        if strides[axis] != expected:
            return None
        expected *= shape[axis]
    # An axis of size one lies anywhere: it keeps its place among the others.
    result = list(wide)
    for axis, size in enumerate(shape):
        if size == 1:
            result.insert(next((k for k, other in enumerate(result) if other > axis), len(result)), axis)
    return tuple(result)


@dataclass(frozen=True)
class Arrangement:
    """How an array with (or, `time_axis` None, without) a time axis lies in memory.

    Attributes
    ----------
    shape : tuple of int
        Of the array.
    order : tuple of int
        Its axes, outermost in memory first.
    time_axis : int or None
        Not negative.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    time_axis: int | None

    @cached_property
    def neuron_shape(self) -> tuple[int, ...]:
        """The shape without the time axis."""
        return tuple(n for axis, n in enumerate(self.shape) if axis != self.time_axis)

    @cached_property
    def neuron_order(self) -> tuple[int, ...]:
        """The axes of `neuron_shape`, outermost in memory first."""
        if self.time_axis is None:
            return self.order
        return tuple(axis - (axis > self.time_axis) for axis in self.order if axis != self.time_axis)

    @cached_property
    def sizes(self) -> tuple[int, int, int]:
        """(outer, time, inner)."""
        if self.time_axis is None:
            return 1, 1, math.prod(self.shape)
        place = self.order.index(self.time_axis)
        outer = math.prod(self.shape[axis] for axis in self.order[:place])
        inner = math.prod(self.shape[axis] for axis in self.order[place + 1 :])
        return outer, self.shape[self.time_axis], inner

    def empty(self, dtype: np.dtype) -> np.ndarray:
        """A new array that lies like this: the one place where results over time are allocated."""
        return _empty_on_line(self.shape, self.order, dtype)

    def empty_neurons(self, dtype: np.dtype, leading: tuple[int, ...] = ()) -> np.ndarray:
        """A new array with a value per neuron, or with leading axes several."""
        return _empty(leading + self.neuron_shape, self._neuron_order(len(leading)), dtype)

    def _neuron_order(self, leading: int) -> tuple[int, ...]:
        return tuple(range(leading)) + tuple(axis + leading for axis in self.neuron_order)

    def place(self, array: np.ndarray) -> np.ndarray:
        """The array itself if it lies like this, else a copy that does."""
        return array if _lies(array, self.order) else _copy(array, self.order)

    def copy_neurons(self, array: np.ndarray) -> np.ndarray:
        """A copy of an array with a value per neuron, or with leading axes several, that lies like this."""
        return _copy(array, self._neuron_order(array.ndim - len(self.neuron_shape)))

    def place_neurons(self, array: np.ndarray) -> np.ndarray:
        """The same, but the array itself if it lies like this."""
        order = self._neuron_order(array.ndim - len(self.neuron_shape))
        return array if _lies(array, order) else _copy(array, order)

    def with_time(self, parameter: np.ndarray) -> np.ndarray:
        """A parameter, shaped to broadcast against the array with its time axis."""
        if parameter.ndim == 0 or self.time_axis is None:
            return parameter
        neurons = len(self.shape) - 1
        padded = parameter.reshape((1,) * (neurons - parameter.ndim) + parameter.shape)
        return np.expand_dims(padded, self.time_axis)

    def lies_here(self, array: np.ndarray) -> bool:
        """Whether an array of this shape lies in memory like this."""
        return _lies(array, self.order)


def _empty(shape: tuple[int, ...], order: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    lengths, axes = _placement(shape, order)
    return np.empty(lengths, dtype).transpose(axes)


def _empty_on_line(shape: tuple[int, ...], order: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that begins on a cache line: streaming stores fill whole lines, numpy's own begin within."""
    lengths, axes = _placement(shape, order)
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start : start + size].view(dtype).reshape(lengths).transpose(axes)


@lru_cache(maxsize=1024)
def _placement(shape: tuple[int, ...], order: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The lengths in the order of memory, and the transposition back."""
    return tuple(shape[axis] for axis in order), tuple(map(order.index, range(len(order))))


def _copy(array: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    copy = _empty(array.shape, order, array.dtype)
    copy[...] = array
    return copy


def _lies(array: np.ndarray, order: tuple[int, ...]) -> bool:
    return array.transpose(order).flags.c_contiguous and array.flags.aligned


def arrange(
    name: str, array: np.ndarray, time_axis: int | None, axis_name: str = "time_axis"
) -> tuple[np.ndarray, Arrangement]:
    """The array, copied once if it has gaps, overlaps or negative strides, and its arrangement."""
    if time_axis is not None:
        if isinstance(time_axis, bool) or not isinstance(time_axis, (int, np.integer)):
            raise TypeError(f"{axis_name} must be an integer or None, got {time_axis!r}")
        if not -array.ndim <= time_axis < array.ndim:
            raise ValueError(
                f"{axis_name} must be an axis of {name}, whose shape is {array.shape}, got {time_axis}"
            )
        time_axis = int(time_axis) % array.ndim
    if array.size == 0:
        raise ValueError(f"{name} must not have an axis of length zero, got shape {array.shape}")
    arrangement = _arrangement(array.shape, array.strides, array.itemsize, time_axis)
    if arrangement is None or not array.flags.aligned:
        array = np.array(array, order="K", copy=True)
        arrangement = _arrangement(array.shape, array.strides, array.itemsize, time_axis)
        if arrangement is None:  # "K" is a wish: where strides are odd, any order will do
            array = np.ascontiguousarray(array)
            arrangement = Arrangement(array.shape, tuple(range(array.ndim)), time_axis)
    return array, arrangement


@lru_cache(maxsize=1024)
def _arrangement(
    shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int, time_axis: int | None
) -> Arrangement | None:
    """The arrangement of a dense array; remembered, since a network calls with the same ones."""
    order = _dense_order(shape, strides, itemsize)
    return None if order is None else Arrangement(shape, order, time_axis)


@dataclass(frozen=True)
class BoundParameter:
    """A parameter as the kernels take it for an arrangement.

    Attributes
    ----------
    number : float
        The value of all neurons, if `values` is None.
    values : ndarray or None
        In memory order; neuron j has values[(j / repeat) % count]. Of taps, a row for each.
    repeat : int
        See `values`.
    shape : tuple of int
        Of the parameter, as the user gave it.
    """

    number: float
    values: np.ndarray | None
    repeat: int
    shape: tuple[int, ...]
    _padded: tuple[int, ...]  # the shape with ones in front
    _order: tuple[int, ...]
    _full: bool  # expanded to a value per neuron

    @classmethod
    def scalar(cls, value: float) -> BoundParameter:
        """A number for all neurons."""
        return cls(value, None, 1, (), (), (), False)

    @property
    def argument(self) -> float | tuple[np.ndarray, int]:
        """What the bindings take: a number, or (values, repeat)."""
        return self.number if self.values is None else (self.values, self.repeat)

    @property
    def count(self) -> int:
        """How many values the kernels see."""
        return 1 if self.values is None else self.values.size

    def gradient(self, flat: np.ndarray, arrangement: Arrangement) -> np.ndarray:
        """The kernels' gradient, `count` doubles, in the parameter's own shape."""
        shape = arrangement.neuron_shape if self._full else self._padded
        lanes = flat.reshape([-1] + [shape[axis] for axis in self._order])  # a row, or of taps one for each
        grad = lanes.transpose(0, *(axis + 1 for axis in np.argsort(self._order)))
        if self._full:
            axes = tuple(k + 1 for k, n in enumerate(self._padded) if n == 1)
            grad = grad.sum(axis=axes, keepdims=True)
        return grad.reshape(self.shape)


def bind_parameter(
    name: str, value: float | np.ndarray, arrangement: Arrangement, dtype: np.dtype, taps: bool = False
) -> BoundParameter:
    """Round a parameter to the arithmetic dtype; broadcast it, of taps each, against the neurons."""
    array = np.asarray(value, dtype)
    shape, neurons, order = array.shape[taps:], arrangement.neuron_shape, arrangement.neuron_order
    if len(shape) > len(neurons) or any(
        n not in (1, m) for n, m in zip(shape[::-1], neurons[::-1], strict=False)
    ):
        raise ValueError(
            f"{name} must broadcast against the neurons' shape {neurons}, got shape {shape}"
            + (" beside its first axis" if taps else "")
            + _hint(shape, neurons)
        )
    padded = (1,) * (len(neurons) - len(shape)) + shape
    if array.ndim == 0:
        return BoundParameter.scalar(float(array))
    if array.size == 1 and not taps:
        return BoundParameter(float(array.reshape(())), None, 1, shape, padded, order, False)
    # In memory order: the parameter's axes must follow each other for (j / repeat) % count to say it.
    sizes = [padded[axis] for axis in order]
    own = [k for k, axis in enumerate(order) if padded[axis] > 1]
    between = [k for k in range(own[0], own[-1] + 1) if neurons[order[k]] > 1] if own else []
    full = any(sizes[k] == 1 for k in between)
    rows = array.reshape((-1, *padded))
    if full:
        rows = np.broadcast_to(rows, (len(rows), *neurons))
    values = np.ascontiguousarray(rows.transpose(0, *(axis + 1 for axis in order)))
    values = values.reshape((len(rows), -1) if taps else -1)
    repeat = 1 if full or not own else math.prod(neurons[order[k]] for k in range(own[-1] + 1, len(order)))
    return BoundParameter(0.0, values, repeat, array.shape, padded, order, full)


def _hint(shape: tuple[int, ...], neurons: tuple[int, ...]) -> str:
    if len(shape) != 1 or shape[0] not in neurons:
        return ""
    behind = len(neurons) - 1 - neurons.index(shape[0])
    return f": for one value per channel pass {(shape[0],) + (1,) * behind}"
