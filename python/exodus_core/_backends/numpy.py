"""The backend of NumPy's arrays, for the CPU kernels."""

from __future__ import annotations

import math
import sys
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from .. import _core
from ._memory import COUNT_OF_UNUSED, LARGE, MEMORY
from ._protocol import NO_CONTEXT, Array, Shape, is_torch, placement, require_type

_LINE = 64  # bytes
_FITS_A_CACHE = 1 << 16  # bytes; the kernels stream only results that are larger than the caches
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))  # of parameters, states and potentials
_TYPES = {dtype.name: dtype for dtype in (np.dtype(np.float16), *FLOATS)}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}
_IN_ORDER = tuple(tuple(range(axes)) for axes in range(65))  # NumPy has at most 64

# Arrays of other classes are refused, since they mean more than their values: a masked array has a mask, a
# quantity has a unit.
_plain_classes: set[type] = {np.ndarray, np.memmap}


def register_plain(kind: type) -> type:
    """Accept arrays of a class for their values. Usable as a class decorator."""
    _plain_classes.add(kind)
    return kind


def require_plain(name: str, value: Any) -> None:
    """Raise TypeError if a value is an array of a class that is not registered as plain."""
    if isinstance(value, np.ndarray) and type(value) not in _plain_classes:
        raise TypeError(
            f"{name} must be a plain numpy array, got {type(value).__name__}: "
            "if only its values matter, pass numpy.asarray of it"
        )


class _Bytes:
    """Arrays of bytes, as a kind of memory."""

    def allocate(self, size: int) -> np.ndarray:
        """Allocate an array."""
        return np.empty(size, np.uint8)

    def is_unused(self, blocks: list[np.ndarray], k: int) -> bool:
        """Tell whether no view of an array is left."""
        return sys.getrefcount(blocks[k]) == COUNT_OF_UNUSED

    def is_whole(self, block: np.ndarray, size: int) -> bool:
        """Tell whether an array still has its size, unless someone has resized it by force."""
        return block.nbytes == size


_BYTES = _Bytes()


class NumpyBackend:
    """The backend of NumPy's arrays, for the CPU kernels."""

    xp = np
    kernels = _core

    @property
    def computing(self) -> NumpyBackend:
        """NumPy's own backend."""
        return NUMPY

    def __reduce__(self) -> str:
        """Pickle and copy as the one instance, `NUMPY`."""
        return "NUMPY"

    def current(self) -> AbstractContextManager[None]:
        """Return a context that does nothing."""
        return NO_CONTEXT

    def array(self, name: str, value: Any) -> Array:
        """Return the value if it is an array with a dtype of the kernels."""
        if not isinstance(value, np.ndarray):
            hint = ": for torch tensors use exodus_core.torch.spike" if is_torch(value) else ""
            raise TypeError(f"{name} must be a numpy array, got {type(value).__name__}{hint}")
        if value.dtype not in _NAMES:
            raise TypeError(
                f"{name} must have dtype float16, float32 or float64 in native byte order, "
                f"got {value.dtype.str}"
            )
        if type(value) is np.ndarray:
            return value
        require_plain(name, value)
        return np.asarray(value)

    def typed(self, name: str, value: Any, type_name: str) -> Array:
        """Return the value as `array` does, if it has this dtype."""
        if type(value) is np.ndarray and value.dtype is _TYPES[type_name]:
            return value  # the usual case; equal dtypes may also be different objects
        array = self.array(name, value)
        require_type(name, _NAMES[array.dtype], type_name)
        return array

    def operand(self, array: Array) -> Array:
        """Return the array itself."""
        return array

    def plain(self, *operands: Any) -> tuple[Any, ...]:
        """Return the operands, which are arrays."""
        return operands

    def type_name(self, array: np.ndarray) -> str:
        """Return the kernels' name of an array's dtype."""
        return _NAMES[array.dtype]

    def itemsize(self, array: np.ndarray) -> int:
        """Return the size of an element in bytes."""
        return array.itemsize

    def strides(self, array: np.ndarray) -> Shape:
        """Return the strides in bytes."""
        return array.strides

    def aligned(self, array: np.ndarray) -> bool:
        """Tell whether the elements are aligned to their size."""
        return array.flags.aligned

    def writeable(self, array: np.ndarray) -> bool:
        """Tell whether an array may be written into."""
        return array.flags.writeable

    def overlap(self, a: np.ndarray, b: np.ndarray) -> bool:
        """Tell whether two arrays share an element, or may do so where that is too costly to decide."""
        max_work = 10_000
        try:  # Positional, since this runs on every call with `out=`.
            return np.shares_memory(a, b, max_work)  # type: ignore[arg-type]
        except np.exceptions.TooHardError:
            return True

    def has_order(self, array: np.ndarray, order: Shape) -> bool:
        """Tell whether an array is dense and its axes lie in this order, outermost in memory first."""
        flags = array.flags if order == _IN_ORDER[len(order)] else array.transpose(order).flags
        return flags.c_contiguous and flags.aligned

    def empty(self, shape: Shape, order: Shape, type_name: str) -> Array:
        """Allocate an array whose axes lie in this order."""
        if order == _IN_ORDER[len(order)]:
            return np.empty(shape, _TYPES[type_name])
        lengths, axes = placement(shape, order)
        return np.empty(lengths, _TYPES[type_name]).transpose(axes)

    def empty_on_line(self, shape: Shape, order: Shape, type_name: str) -> Array:
        """Allocate an array as `empty` does, aligned to a cache line: streaming stores fill whole lines."""
        dtype = _TYPES[type_name]
        size = math.prod(shape) * dtype.itemsize
        if size <= _FITS_A_CACHE:
            return self.empty(shape, order, type_name)
        lengths, axes = placement(shape, order)

        def as_array(memory: np.ndarray) -> Array:
            start = -memory.ctypes.data % _LINE
            return memory[start : start + size].view(dtype).reshape(lengths).transpose(axes)

        if size < LARGE:
            return as_array(_BYTES.allocate(size + _LINE))
        return MEMORY.take(_BYTES, size + _LINE, as_array)

    def copy(self, array: np.ndarray, order: Shape) -> Array:
        """Copy an array into this order of axes."""
        copy = self.empty(array.shape, order, _NAMES[array.dtype])
        copy[...] = array
        return copy

    def dense(self, array: np.ndarray) -> Array:
        """Copy an array without gaps, in its own order of axes where NumPy can."""
        return np.array(array, order="K", copy=True)

    def contiguous(self, array: np.ndarray) -> np.ndarray:
        """Return the array itself if it is in C order, else a copy that is."""
        return np.ascontiguousarray(array)

    def permute(self, array: np.ndarray, axes: Shape) -> np.ndarray:
        """Return a view with the axes permuted."""
        return array.transpose(axes)

    def convert(self, value: Any, type_name: str) -> np.ndarray:
        """Convert a number or an array to an array of a dtype."""
        return np.asarray(value).astype(_TYPES[type_name], copy=False)

    def to_computing(self, array: np.ndarray) -> np.ndarray:
        """Return the array itself."""
        return array

    def read_only(self, array: np.ndarray) -> np.ndarray:
        """Return a read-only view for a user's function."""
        view = array.view()
        view.flags.writeable = False
        return view

    def decay(self, dt: Any, tau: Any) -> np.ndarray:
        """Return e^(-dt / tau). If dt is an array, it and tau broadcast."""
        tau = np.asarray(tau, np.float64, order="C")
        if isinstance(dt, np.ndarray):
            dt, tau = (np.ascontiguousarray(part) for part in np.broadcast_arrays(dt, tau))
            dt = dt, dt.size, 1
        decays = np.empty(tau.shape)
        if decays.size:
            _core.decay(dt, (tau, tau.size, 1), decays)
        return decays

    def rotation(self, angle: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return cosine and sine of a number or an array."""
        angle = np.asarray(angle, np.float64, order="C")
        cosines, sines = np.empty(angle.shape), np.empty(angle.shape)
        if angle.size:
            _core.rotation((angle, angle.size, 1), cosines, sines)
        return cosines, sines

    def constant(self, array: np.ndarray) -> np.ndarray:
        """Convert a descriptor's read-only array to float64."""
        return self.convert(array, "float64")

    def handle(self, array: Any) -> Any:
        """Return the array itself, which the extension takes."""
        return array

    def execution(self, array: np.ndarray, threads: int) -> Any:
        """Return the number of threads."""
        return threads

    def finish(self, array: np.ndarray) -> None:
        """Do nothing: the CPU kernels are done when a call returns."""


NUMPY = NumpyBackend()
