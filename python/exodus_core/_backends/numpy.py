"""NumPy's arrays, for the kernels of the CPU."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import _core
from ._protocol import Shape, is_torch, placement, require_type

_LINE = 64  # bytes
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_NAMES = {dtype: dtype.name for dtype in FLOATS}
_TYPES = {dtype.name: dtype for dtype in FLOATS}
_IN_ORDER = tuple(tuple(range(axes)) for axes in range(65))  # NumPy has at most 64

# An array of another class is more than its values: a masked array has a mask, a quantity a unit.
_plain_classes: set[type] = {np.ndarray, np.memmap}


def register_plain(kind: type) -> type:
    """Let arrays of a class be taken for their values."""
    _plain_classes.add(kind)
    return kind


def require_plain(name: str, value: Any) -> None:
    """Raise if a value is an array of a class whose meaning would be lost."""
    if isinstance(value, np.ndarray) and type(value) not in _plain_classes:
        raise TypeError(
            f"{name} must be a plain numpy array, got {type(value).__name__}: "
            "if its values are all that counts, pass numpy.asarray of it"
        )


class NumpyBackend:
    """NumPy's arrays, for the kernels of the CPU."""

    xp = np
    kernels = _core

    def __reduce__(self) -> str:
        """There is one, also for copies and in other processes."""
        return "NUMPY"

    def array(self, name: str, value: Any) -> np.ndarray:
        """The argument, if it is an array of a type that the kernels have."""
        if not isinstance(value, np.ndarray):
            hint = ": for torch tensors use exodus_core.torch.spike" if is_torch(value) else ""
            raise TypeError(f"{name} must be a numpy array, got {type(value).__name__}{hint}")
        if value.dtype not in FLOATS:
            raise TypeError(
                f"{name} must have dtype float32 or float64 in native byte order, got {value.dtype.str}"
            )
        if type(value) is np.ndarray:
            return value
        require_plain(name, value)
        return np.asarray(value)

    def typed(self, name: str, value: Any, type_name: str) -> np.ndarray:
        """Return an argument as `array` does, if it has this type."""
        if type(value) is np.ndarray and value.dtype is _TYPES[type_name]:
            return value  # as it nearly always is; otherwise it may be another object for the same type
        array = self.array(name, value)
        require_type(name, _NAMES[array.dtype], type_name)
        return array

    def type_name(self, array: np.ndarray) -> str:
        """The name of an array's type, as the kernels know it."""
        return _NAMES[array.dtype]

    def itemsize(self, array: np.ndarray) -> int:
        """Bytes of an element."""
        return array.itemsize

    def strides(self, array: np.ndarray) -> Shape:
        """The distances of neighbours along the axes, in bytes."""
        return array.strides

    def aligned(self, array: np.ndarray) -> bool:
        """Tell whether elements lie at multiples of their size."""
        return array.flags.aligned

    def writeable(self, array: np.ndarray) -> bool:
        """Tell whether an array may be written into."""
        return array.flags.writeable

    def overlap(self, a: np.ndarray, b: np.ndarray) -> bool:
        """Tell whether two arrays share an element."""
        max_work = 10_000
        try:  # By position: as a keyword it doubles the time.
            return np.shares_memory(a, b, max_work)  # type: ignore[arg-type]
        except np.exceptions.TooHardError:
            return True

    def lies(self, array: np.ndarray, order: Shape) -> bool:
        """Tell whether an array is dense, its axes in this order from the outermost in memory on."""
        flags = array.flags if order == _IN_ORDER[len(order)] else array.transpose(order).flags
        return flags.c_contiguous and flags.aligned

    def empty(self, shape: Shape, order: Shape, type_name: str) -> np.ndarray:
        """A new array whose axes lie in this order."""
        lengths, axes = placement(shape, order)
        return np.empty(lengths, _TYPES[type_name]).transpose(axes)

    def empty_on_line(self, shape: Shape, order: Shape, type_name: str) -> np.ndarray:
        """Make one that begins on a cache line, since streaming stores fill whole lines."""
        lengths, axes = placement(shape, order)
        dtype = _TYPES[type_name]
        size = math.prod(shape) * dtype.itemsize
        memory = np.empty(size + _LINE, np.uint8)
        start = -memory.ctypes.data % _LINE
        return memory[start : start + size].view(dtype).reshape(lengths).transpose(axes)

    def copy(self, array: np.ndarray, order: Shape) -> np.ndarray:
        """A copy whose axes lie in this order."""
        copy = self.empty(array.shape, order, _NAMES[array.dtype])
        copy[...] = array
        return copy

    def dense(self, array: np.ndarray) -> np.ndarray:
        """A copy without gaps, if that can be, in the order of the array."""
        return np.array(array, order="K", copy=True)

    def contiguous(self, array: np.ndarray) -> np.ndarray:
        """The array in the order of its axes."""
        return np.ascontiguousarray(array)

    def permute(self, array: np.ndarray, axes: Shape) -> np.ndarray:
        """The array with its axes in another order."""
        return array.transpose(axes)

    def convert(self, value: Any, type_name: str) -> np.ndarray:
        """A number or an array, as an array of a type."""
        return np.asarray(value).astype(_TYPES[type_name], copy=False)

    def read_only(self, array: np.ndarray) -> np.ndarray:
        """The array for functions of the user's, which must not write into it."""
        view = array.view()
        view.flags.writeable = False
        return view

    def decay(self, dt: Any, tau: Any) -> np.ndarray:
        """e^(-dt / tau), of a number or an array dt and an array tau that broadcast."""
        tau = np.asarray(tau, np.float64, order="C")
        if isinstance(dt, np.ndarray):
            dt, tau = (np.ascontiguousarray(part) for part in np.broadcast_arrays(dt, tau))
            dt = dt, dt.size, 1
        decays = np.empty(tau.shape)
        if decays.size:
            _core.decay(dt, (tau, tau.size, 1), decays)
        return decays

    def rotation(self, angle: Any) -> tuple[np.ndarray, np.ndarray]:
        """Cosine and sine of a number or an array."""
        angle = np.asarray(angle, np.float64, order="C")
        cosines, sines = np.empty(angle.shape), np.empty(angle.shape)
        if angle.size:
            _core.rotation((angle, angle.size, 1), cosines, sines)
        return cosines, sines

    def constant(self, array: np.ndarray) -> np.ndarray:
        """A descriptor's array, which nobody can write, in float64."""
        return self.convert(array, "float64")

    def handle(self, array: Any) -> Any:
        """Return an array as the extension takes it."""
        return array

    def where(self, array: np.ndarray, threads: int) -> Any:
        """Return the number of threads."""
        return threads

    def finish(self, array: np.ndarray) -> None:
        """Wait for the kernels where the library would not: these are done."""


NUMPY = NumpyBackend()
