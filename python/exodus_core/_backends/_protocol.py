"""`Backend`: the operations that the package needs from an array library, in addition to the kernels.

``numpy.py`` implements them for NumPy, ``device.py`` for libraries with arrays on a GPU.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from types import ModuleType
from typing import Any, Protocol

import numpy as np

Array = Any  # an array of any library
Operand = Any  # an array of a call, in the form of its backend: see `Backend`
Shape = tuple[int, ...]
NO_CONTEXT = nullcontext()

# By the dtype of current and spikes: the dtype of parameters, states and potentials, and of the arithmetic.
ARITHMETIC = {
    "float16": "float32",
    "bfloat16": "float32",
    "float32": "float32",
    "float64": "float64",
}


class Backend(Protocol):
    """An array library on one device. Type names are the kernels' names of dtypes, such as "float32".

    An array enters a call as an operand, and leaves it by `plain`. On the CPU an operand is the array itself,
    which tells at once where it lies in memory. A library on a GPU takes microseconds to tell, so there the
    operand holds the array and what its library has told, and nobody asks twice. Operands last for one call:
    a library may move an array afterwards.
    """

    def __hash__(self) -> int:
        """Hash the backend: caches of layouts have it in their keys."""

    @property
    def xp(self) -> ModuleType:
        """The library's namespace, as in the array API standard."""

    @property
    def computing(self) -> Backend:
        """The backend of parameters and their gradients, and of the arrays that Python code computes with."""

    @property
    def kernels(self) -> ModuleType:
        """The extension module whose kernels run on these arrays."""

    def current(self) -> AbstractContextManager[None]:
        """Return a context in which the arrays' device is the current one, if the library has such a thing.

        A call enters it once. Methods that describe or allocate arrays are called inside of it.
        """

    def array(self, name: str, value: Any) -> Operand:
        """Return the operand of a value that the kernels can take; else raise TypeError.

        An operand stays itself.
        """

    def typed(self, name: str, value: Any, type_name: str) -> Operand:
        """Return the operand as `array` does; raise TypeError as well if its dtype is another one."""

    def operand(self, array: Array) -> Operand:
        """Return the operand of an array that needs no check."""

    def plain(self, *operands: Any) -> tuple[Any, ...]:
        """Return the arrays of operands. None stays None, and a named tuple's fields are treated alike."""

    def type_name(self, operand: Operand) -> str:
        """Return the name of an operand's dtype."""

    def itemsize(self, operand: Operand) -> int:
        """Return the size of an element in bytes."""

    def strides(self, operand: Operand) -> Shape:
        """Return the strides in bytes."""

    def aligned(self, operand: Operand) -> bool:
        """Tell whether the elements are aligned to their size."""

    def writeable(self, operand: Operand) -> bool:
        """Tell whether an array may be written into."""

    def overlap(self, a: Operand, b: Operand) -> bool:
        """Tell whether two arrays may share memory."""

    def has_order(self, operand: Operand, order: Shape) -> bool:
        """Tell whether an array is dense and its axes lie in this order, outermost in memory first."""

    def empty(self, shape: Shape, order: Shape, type_name: str) -> Operand:
        """Allocate an array whose axes lie in this order."""

    def empty_on_line(self, shape: Shape, order: Shape, type_name: str) -> Operand:
        """Allocate an array as `empty` does, aligned to a cache line."""

    def copy(self, operand: Operand, order: Shape) -> Operand:
        """Copy an array into this order of axes."""

    def dense(self, operand: Operand) -> Operand:
        """Copy an array without gaps, in its own order of axes where the library allows it."""

    def contiguous(self, operand: Operand) -> Operand:
        """Return the operand itself if it is in C order, else a copy that is."""

    def permute(self, array: Array, axes: Shape) -> Array:
        """Return a view with the axes permuted."""

    def convert(self, value: Any, type_name: str) -> Array:
        """Convert a number, or an array of this library or of NumPy, to an array of a dtype."""

    def to_computing(self, operand: Operand) -> Array:
        """Return the operand's array as one of `computing`, in the same memory."""

    def read_only(self, array: Array) -> Array:
        """Return an array for a user's function, through which the original cannot be changed."""

    def decay(self, dt: Any, tau: Any) -> Array:
        """Return e^(-dt / tau) in float64."""

    def rotation(self, angle: Any) -> tuple[Array, Array]:
        """Return cosine and sine in float64."""

    def constant(self, array: np.ndarray) -> Array:
        """Convert a descriptor's read-only array to float64."""

    def handle(self, operand: Operand | None) -> Any:
        """Return the operand in the form that the extension takes: a NumPy array, or an address."""

    def execution(self, operand: Operand, threads: int) -> Any:
        """Return the extension's last argument: the number of threads, or a stream and an allocator."""

    def finish(self, operand: Operand) -> None:
        """Wait for the kernels, if the array's library cannot do so itself."""


def require_type(name: str, given: str, type_name: str) -> None:
    """Raise TypeError unless an argument has the required dtype."""
    if given != type_name:
        raise TypeError(f"{name} must have dtype {type_name}, got {given}")


@lru_cache(maxsize=1024)
def _of_torch(kind: Any) -> bool:
    return any(base.__module__.split(".")[0] == "torch" for base in kind.__mro__)


def is_torch(value: Any) -> bool:
    """Tell whether a value is an instance of a torch class, without importing torch."""
    kind: Any = type(value)
    return _of_torch(kind)


@lru_cache(maxsize=1024)
def placement(shape: Shape, order: Shape) -> tuple[Shape, Shape]:
    """Return the shape in memory order, and the permutation that restores the order of the axes."""
    return tuple(shape[axis] for axis in order), tuple(map(order.index, range(len(order))))
