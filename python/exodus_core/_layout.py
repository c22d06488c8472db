"""`Layout`: how an array lies in memory, and its sizes (outer, time, inner) for the kernels.

Neurons are independent, so the order of the axes in memory makes no difference to them, and a dense array of
any stride order is used in place. Axes outside of time count as `outer`, axes inside of it as `inner`.
Results, gradients and states have the memory order of the input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from ._backends import NUMPY, Array, Backend, Operand, backend_of
from ._integers import integer


@dataclass(frozen=True)
class Layout:
    """How an array lies in memory.

    Attributes
    ----------
    shape : tuple of int
        The shape of the array.
    order : tuple of int
        The axes, outermost in memory first.
    time_axis : int or None
        The axis of time, not negative; None for a single step, which has none.
    backend : Backend
        The backend of the array, and of the results, gradients and states that belong to it.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    time_axis: int | None
    backend: Backend = NUMPY

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
        """The sizes (outer, time, inner) for the kernels."""
        if self.time_axis is None:
            return 1, 1, math.prod(self.shape)
        place = self.order.index(self.time_axis)
        outer = math.prod(self.shape[axis] for axis in self.order[:place])
        inner = math.prod(self.shape[axis] for axis in self.order[place + 1 :])
        return outer, self.shape[self.time_axis], inner

    @cached_property
    def features(self) -> tuple[int, int]:
        """The number of neurons along the last axis that is not time, and the distance between neighbours.

        Recurrent weights connect these neurons. Neuron j in memory order is feature (j / distance) % count.
        """
        axis = max(axis for axis in range(len(self.shape)) if axis != self.time_axis)
        inside = self.order[self.order.index(axis) + 1 :]
        return self.shape[axis], math.prod(self.shape[k] for k in inside if k != self.time_axis)

    def empty(self, type_name: str) -> Operand:
        """Allocate an array with this layout. All results over time are allocated here."""
        return self.backend.empty_on_line(self.shape, self.order, type_name)

    def empty_neurons(self, type_name: str, leading: tuple[int, ...] = ()) -> Operand:
        """Allocate an array with one value per neuron, or with leading axes in front of the neurons'."""
        return self.backend.empty(leading + self.neuron_shape, self._neuron_order(len(leading)), type_name)

    def _neuron_order(self, leading: int) -> tuple[int, ...]:
        if leading == 0:
            return self.neuron_order
        return tuple(range(leading)) + tuple(axis + leading for axis in self.neuron_order)

    def _placed(self, operand: Operand, order: tuple[int, ...]) -> Operand:
        return operand if self.backend.has_order(operand, order) else self.backend.copy(operand, order)

    def place(self, operand: Operand | None) -> Operand | None:
        """Return an array over time, if any: itself if it has this memory order, else a copy that has."""
        return None if operand is None else self._placed(operand, self.order)

    def copy_neurons(self, operand: Operand) -> Operand:
        """Copy an array with one value per neuron, or with leading axes, into this memory order."""
        return self.backend.copy(operand, self._neuron_order(len(operand.shape) - len(self.neuron_shape)))

    def place_neurons(self, operand: Operand | None) -> Operand | None:
        """Return an array as ``copy_neurons`` does, if any, but itself if it has this memory order."""
        if operand is None:
            return None
        return self._placed(operand, self._neuron_order(len(operand.shape) - len(self.neuron_shape)))

    def with_time(self, parameter: Array) -> Array:
        """Reshape a parameter to broadcast against the array with its time axis."""
        shape = tuple(parameter.shape)
        if len(shape) == 0 or self.time_axis is None:
            return parameter
        neurons = (1,) * (len(self.shape) - 1 - len(shape)) + shape
        return parameter.reshape((*neurons[: self.time_axis], 1, *neurons[self.time_axis :]))

    def has_same_order(self, operand: Operand) -> bool:
        """Tell whether an array of this shape has this memory order."""
        return self.backend.has_order(operand, self.order)


def arrange(
    name: str,
    value: Any,
    time_axis: int | None,
    axis_name: str = "time_axis",
    backend: Backend | None = None,
) -> tuple[Operand, Operand, Layout]:
    """Check an input; return it as it was given, as the kernels read it, and the layout in which they do.

    The two are one unless the input has gaps, overlaps or negative strides: then the second is a copy. The
    backend is that of the array's library if it is not given.
    """
    backend = backend_of(value) if backend is None else backend
    given = array = backend.array(name, value)
    shape = tuple(array.shape)
    if time_axis is not None:
        time_axis = integer(axis_name, time_axis, other=" or None")
        if not -len(shape) <= time_axis < len(shape):
            raise ValueError(
                f"{axis_name} must be an axis of {name}, whose shape is {shape}, got {time_axis}"
            )
        time_axis %= len(shape)
        if shape[time_axis] == 0:
            raise ValueError(f"{name} must not have a time axis of length zero, got shape {shape}")
    layout = _layout(shape, backend.strides(array), backend.itemsize(array), time_axis, backend)
    if layout is None or not backend.aligned(array):
        array = backend.dense(array)
        layout = _layout(shape, backend.strides(array), backend.itemsize(array), time_axis, backend)
    if layout is None:  # The library could not keep the order of the axes: fall back to C order.
        layout = Layout(shape, tuple(range(len(shape))), time_axis, backend)
        array = backend.copy(array, layout.order)
    return given, array, layout


@lru_cache(maxsize=1024)
def _layout(
    shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int, time_axis: int | None, backend: Backend
) -> Layout | None:
    """Return the layout of a dense array, else None. Cached: a network repeats the same few layouts."""
    order = tuple(range(len(shape))) if 0 in shape else _dense_order(shape, strides, itemsize)
    return None if order is None else Layout(shape, order, time_axis, backend)


def _dense_order(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> tuple[int, ...] | None:
    """Return the axes by decreasing stride, or None if there are gaps or overlaps."""
    order = sorted(range(len(shape)), key=lambda axis: -strides[axis])
    wide = [axis for axis in order if shape[axis] > 1]
    expected = itemsize
    for axis in reversed(wide):
        if strides[axis] != expected:
            return None
        expected *= shape[axis]
    # The stride of an axis of length 1 means nothing: the axis stays where it is among the others.
    result = list(wide)
    for axis, size in enumerate(shape):
        if size == 1:
            result.insert(next((k for k, other in enumerate(result) if other > axis), len(result)), axis)
    return tuple(result)


def require(name: str, value: Any, shape: tuple[int, ...], like: Layout, type_name: str) -> Operand:
    """Check that an argument is an array of this shape and dtype, of the library of `like`."""
    operand = like.backend.typed(name, value, type_name)
    if operand.shape != shape:  # torch's shapes are tuples too
        raise ValueError(f"{name} must have shape {shape}, got {tuple(operand.shape)}")
    return operand
