"""The operations that the package needs of an array library, beside the kernels.

``numpy.py`` has them for NumPy, ``device.py`` for the libraries that have arrays on a GPU.
"""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType
from typing import Any, Protocol

import numpy as np

Array = Any  # of any library
Shape = tuple[int, ...]

# The type of parameters, states and potentials, by that of current and spikes.
ARITHMETIC = {
    "float16": "float32",
    "bfloat16": "float32",
    "float32": "float32",
    "float64": "float64",
}


class Backend(Protocol):
    """An array library on one device. Types are named as the kernels name them, such as "float32"."""

    def __hash__(self) -> int:
        """Layouts are remembered by backend."""

    @property
    def xp(self) -> ModuleType:
        """The library's namespace, as in the array API standard."""

    @property
    def kernels(self) -> ModuleType:
        """The extension whose kernels run on these arrays."""

    def array(self, name: str, value: Any) -> Array:
        """Return an argument; raise a TypeError that names it unless it is an array for the kernels."""

    def typed(self, name: str, value: Any, type_name: str) -> Array:
        """Return an argument as `array` does; raise a TypeError too unless it has this type."""

    def type_name(self, array: Array) -> str:
        """Name an array's type."""

    def itemsize(self, array: Array) -> int:
        """Return the bytes of an element."""

    def strides(self, array: Array) -> Shape:
        """Return the distances between neighbours along each axis, in bytes."""

    def aligned(self, array: Array) -> bool:
        """Tell whether elements lie at multiples of their size."""

    def writeable(self, array: Array) -> bool:
        """Tell whether an array may be written into."""

    def overlap(self, a: Array, b: Array) -> bool:
        """Tell whether two arrays may share memory."""

    def lies(self, array: Array, order: Shape) -> bool:
        """Tell whether an array is dense, its axes in this order from the outermost in memory on."""

    def empty(self, shape: Shape, order: Shape, type_name: str) -> Array:
        """Make an array whose axes lie in this order."""

    def empty_on_line(self, shape: Shape, order: Shape, type_name: str) -> Array:
        """Make one that begins on a cache line."""

    def copy(self, array: Array, order: Shape) -> Array:
        """Copy an array into this order of axes."""

    def dense(self, array: Array) -> Array:
        """Copy an array without its gaps."""

    def contiguous(self, array: Array) -> Array:
        """Return an array in C order: itself, if it is."""

    def permute(self, array: Array, axes: Shape) -> Array:
        """Return an array with its axes in another order."""

    def convert(self, value: Any, type_name: str) -> Array:
        """Return a number or an array, of NumPy's too, as an array of a type."""

    def read_only(self, array: Array) -> Array:
        """Return an array for a user's function, which cannot write into the original."""

    def decay(self, dt: Any, tau: Any) -> Array:
        """Return e^(-dt / tau) in float64."""

    def rotation(self, angle: Any) -> tuple[Array, Array]:
        """Return cosine and sine in float64."""

    def constant(self, array: np.ndarray) -> Array:
        """Return a descriptor's read-only array in float64."""

    def handle(self, array: Array | None) -> Any:
        """Return an array as the extension takes it."""

    def where(self, array: Array, threads: int) -> Any:
        """Return the extension's last argument: the threads, or the stream and an allocator."""

    def finish(self, array: Array) -> None:
        """Wait for the kernels where the library would not."""


def require_type(name: str, given: str, type_name: str) -> None:
    """Raise unless an argument's type is the one that is needed."""
    if given != type_name:
        raise TypeError(f"{name} must have dtype {type_name}, got {given}")


@lru_cache(maxsize=1024)
def _of_torch(kind: Any) -> bool:
    return any(base.__module__.split(".")[0] == "torch" for base in kind.__mro__)


def is_torch(value: Any) -> bool:
    """Tell whether a value is one of torch's, without importing torch."""
    kind: Any = type(value)
    return _of_torch(kind)


@lru_cache(maxsize=1024)
def placement(shape: Shape, order: Shape) -> tuple[Shape, Shape]:
    """Return the lengths in memory's order, and the transposition back."""
    return tuple(shape[axis] for axis in order), tuple(map(order.index, range(len(order))))
