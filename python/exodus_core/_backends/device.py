"""Arrays on a GPU, of libraries that share memory by DLPack or the CUDA array interface.

All other operations on them are those of the array API standard, which array-api-compat provides for torch,
CuPy and JAX.
"""

from __future__ import annotations

import importlib
import math
import sys
from contextlib import AbstractContextManager
from functools import lru_cache
from threading import Lock
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from .. import cuda
from .._cache import IdentityCache
from ._protocol import NO_CONTEXT, Array, Shape, placement, require_type

try:
    import array_api_compat
except ImportError as error:
    raise ImportError("arrays on a GPU need array-api-compat: pip install 'exodus-snn[cuda]'") from error

_SIZES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}  # of the kernels' types
_LEGACY_STREAM = 1  # the number of the default stream in the CUDA array interface

_constants = IdentityCache()  # for a descriptor's array: its copies on devices, by backend
_namespaces: dict[type, ModuleType] = {}  # by the class of arrays
_backends: list[DeviceBackend] = []  # one for each library and device
_remembering = Lock()


class Described(NamedTuple):
    """An operand: an array, and where it lies in memory, as its library has told."""

    array: Array
    shape: Shape
    address: int
    strides: Shape  # in bytes
    type_name: str
    read_only: bool
    stream: int | None  # that of its last use, None if its library names none


@lru_cache(maxsize=32)
def _torch_name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


@lru_cache(maxsize=128)
def _in_order(axes: int) -> Shape:
    return tuple(range(axes))


@lru_cache(maxsize=1024)
def _in_bytes(strides: Shape, itemsize: int) -> Shape:
    return tuple(stride * itemsize for stride in strides)


@lru_cache(maxsize=1024)
def _as_new(shape: Shape, order: Shape, type_name: str) -> tuple[Shape, Shape | None, Shape]:
    """Return the shape of a new array in memory, the permutation of its axes if any, and its byte strides."""
    lengths, axes = placement(shape, order)
    strides = tuple(_SIZES[type_name] * math.prod(lengths[axis + 1 :]) for axis in range(len(lengths)))
    return lengths, None if axes == _in_order(len(axes)) else axes, strides


@lru_cache(maxsize=1024)
def _is_dense(shape: Shape, strides: Shape, order: Shape, size: int) -> bool:
    for axis in reversed(order):
        if shape[axis] > 1 and strides[axis] != size:
            return False
        size *= shape[axis]
    return True


_new = tuple.__new__  # A named tuple's own constructor is Python code, which takes longer.


def _describe_tensor(tensor: Any) -> Described:
    strides = _in_bytes(tensor.stride(), tensor.element_size())
    return Described(tensor, tensor.shape, tensor.data_ptr(), strides, _torch_name(tensor.dtype), False, None)


def _locate_tensor(tensor: Any) -> tuple[int, None]:
    return tensor.data_ptr(), None


class DeviceBackend:
    """The backend of a library's arrays on one device, for the CUDA kernels. Equal ones are the same."""

    def __init__(self, xp: ModuleType, device: Any) -> None:
        self.xp, self.device = xp, device
        self._is_torch = xp.__name__.endswith(".torch")
        self._kind_to_enter: Any = type(device) if hasattr(device, "use") else None

    def __deepcopy__(self, memo: Any) -> DeviceBackend:
        """Return itself: a module cannot be copied."""
        return self

    def __reduce__(self) -> Any:
        """Pickle the library by its name."""
        return _of_library, (self.xp.__name__, self.device)

    @property
    def computing(self) -> DeviceBackend:
        """The backend itself: the library computes on the device."""
        return self

    @property
    def kernels(self) -> ModuleType:
        """The extension module with the CUDA kernels."""
        return cuda.kernels()

    def current(self) -> AbstractContextManager[None]:
        """Return a context in which a CuPy device is the current one; other libraries do not need it.

        CuPy puts the current device's stream into an array's interface, and makes new arrays there. A device
        remembers in itself which was current before, so threads must not share one.
        """
        kind = self._kind_to_enter
        return NO_CONTEXT if kind is None else kind(int(self.device))

    def array(self, name: str, value: Any) -> Described:
        """Return the operand of an array on this device with a dtype of the kernels."""
        if type(value) is Described:
            return value
        if self._is_torch and getattr(value, "requires_grad", False):
            raise TypeError(
                f"{name} must not require a gradient, got a tensor that does: use exodus_core.torch.spike"
            )
        if not self._has(value):
            raise TypeError(f"{name} must be an array of {self}, got {_described(value)}")
        operand = self.operand(value)
        if operand.type_name not in _SIZES:
            raise TypeError(f"{name} must have dtype {' or '.join(_SIZES)}, got {operand.type_name}")
        return operand

    def _has(self, value: Any) -> bool:
        try:
            return bool(_namespace(value) is self.xp and value.device == self.device)
        except (TypeError, AttributeError):
            return False

    def __str__(self) -> str:
        return f"{self.xp.__name__.rpartition('.')[2]} on {self.device}"

    def typed(self, name: str, value: Any, type_name: str) -> Described:
        """Return the operand as `array` does, if it has this dtype."""
        operand = self.array(name, value)
        require_type(name, operand.type_name, type_name)
        return operand

    def operand(self, array: Array) -> Described:
        """Return the operand of an array on this device."""
        return _describe_tensor(array) if self._is_torch else _new(Described, self.kernels.describe(array))

    def plain(self, *operands: Any) -> tuple[Any, ...]:
        """Return the arrays of operands, also in named tuples of them."""
        return tuple(
            [None if x is None else x.array if type(x) is Described else _plain(x) for x in operands]
        )

    def type_name(self, operand: Described) -> str:
        """Return the kernels' name of an operand's dtype."""
        return operand.type_name

    def itemsize(self, operand: Described) -> int:
        """Return the size of an element in bytes."""
        return _SIZES[operand.type_name]

    def strides(self, operand: Described) -> Shape:
        """Return the strides in bytes."""
        return operand.strides

    def aligned(self, operand: Described) -> bool:
        """Tell whether the elements are aligned to their size."""
        return operand.address % _SIZES[operand.type_name] == 0

    def writeable(self, operand: Described) -> bool:
        """Tell whether an array may be written into."""
        return array_api_compat.is_writeable_array(operand.array) and not operand.read_only

    def overlap(self, a: Described, b: Described) -> bool:
        """Tell whether the address ranges of two arrays overlap."""
        (a_begin, a_end), (b_begin, b_end) = _extent(a), _extent(b)
        return a_begin < b_end and b_begin < a_end

    def has_order(self, operand: Described, order: Shape) -> bool:
        """Tell whether an array is dense and its axes lie in this order, outermost in memory first."""
        size = _SIZES[operand.type_name]
        return operand.address % size == 0 and _is_dense(operand.shape, operand.strides, order, size)

    def empty(self, shape: Shape, order: Shape, type_name: str) -> Described:
        """Allocate an array whose axes lie in this order."""
        lengths, axes, strides = _as_new(shape, order, type_name)
        array = self.xp.empty(lengths, dtype=getattr(self.xp, type_name), device=self.device)
        if axes is not None:
            return self.operand(self.xp.permute_dims(array, axes))
        address, stream = _locate_tensor(array) if self._is_torch else self.kernels.locate(array)
        return _new(Described, (array, lengths, address, strides, type_name, False, stream))

    empty_on_line = empty  # GPU allocators align at least that well

    def copy(self, operand: Described, order: Shape) -> Described:
        """Copy an array into this order of axes."""
        if not array_api_compat.is_writeable_array(operand.array):
            return operand  # JAX: nobody can write into it, and its arrays have only one memory order.
        copy = self.empty(operand.shape, order, operand.type_name)
        copy.array[...] = operand.array
        return copy

    def dense(self, operand: Described) -> Described:
        """Copy an array without gaps."""
        return self.copy(operand, _in_order(len(operand.shape)))

    def contiguous(self, operand: Described) -> Described:
        """Return the operand itself if it is in C order, else a copy that is."""
        order = _in_order(len(operand.shape))
        return operand if self.has_order(operand, order) else self.copy(operand, order)

    def permute(self, array: Array, axes: Shape) -> Array:
        """Return a view with the axes permuted."""
        return array if axes == _in_order(len(axes)) else self.xp.permute_dims(array, axes)

    def convert(self, value: Any, type_name: str) -> Array:
        """Convert a number, or an array of this library or of NumPy, to an array of a dtype."""
        dtype = getattr(self.xp, type_name)
        if self._has(value):
            return self.xp.astype(value, dtype, copy=False)
        with self.current():  # descriptors convert their values outside of calls
            if np.ndim(value) == 0:  # `full` needs no copy to the device, which would wait
                return self.xp.full((), float(value), dtype=dtype, device=self.device)
            return self.xp.asarray(np.array(value), dtype=dtype, device=self.device)

    def to_computing(self, operand: Described) -> Array:
        """Return the operand's array."""
        return operand.array

    def read_only(self, array: Array) -> Array:
        """Return a copy for a user's function: most libraries have no read-only arrays."""
        if not array_api_compat.is_writeable_array(array):
            return array
        copy = self.xp.empty_like(array)
        copy[...] = array
        return copy

    def _in_c_order(self, value: Any) -> tuple[Described, int]:
        """Return a number or an array in float64 and C order, and the number of its elements."""
        operand = self.contiguous(self.operand(self.convert(value, "float64")))
        return operand, math.prod(operand.shape)

    def _doubles(self, shape: Shape) -> Described:
        return self.empty(shape, _in_order(len(shape)), "float64")

    def decay(self, dt: float, tau: Array) -> Array:
        """Return e^(-dt / tau), on the device."""
        with self.current():
            given, count = self._in_c_order(tau)
            decays = self._doubles(given.shape)
            stream, _ = self.execution(given, 0)
            self.kernels.decay(float(dt), (given.address, count, 1), count, decays.address, stream)
            self.finish(given)
            return decays.array

    def rotation(self, angle: Array) -> tuple[Array, Array]:
        """Return cosine and sine, on the device."""
        with self.current():
            given, count = self._in_c_order(angle)
            cosines, sines = self._doubles(given.shape), self._doubles(given.shape)
            stream, _ = self.execution(given, 0)
            self.kernels.rotation((given.address, count, 1), count, cosines.address, sines.address, stream)
            self.finish(given)
            return cosines.array, sines.array

    def constant(self, array: np.ndarray) -> Array:
        """Return the copy on this device, in float64, of a descriptor's read-only array.

        The copy is made once. A copy in every call would wait for the device, and a CUDA graph cannot
        capture it.
        """
        known = _constants.of(array)
        if self not in known:
            known[self] = self.convert(array, "float64")
        return known[self]

    def handle(self, operand: Described | None) -> int | None:
        """Return the address of an operand."""
        return None if operand is None else operand.address

    def execution(self, operand: Described, threads: int) -> tuple[int, Any]:
        """Return the stream, and a function that allocates workspace."""
        held: list[Array] = []  # keeps the workspace alive as long as the function

        def allocate(count: int) -> tuple[Array, int]:
            memory = self.xp.empty(count, dtype=self.xp.uint8, device=self.device)
            held.append(memory)
            return memory, self.operand(memory).address

        if self._is_torch:
            stream = sys.modules["torch"].cuda.current_stream(self.device).cuda_stream
        else:
            stream = operand.stream
        return _LEGACY_STREAM if stream is None else stream, allocate

    def finish(self, operand: Described) -> None:
        """Wait for the kernels, if the array's library names no stream and so cannot wait for theirs."""
        if operand.stream is None and not self._is_torch and 0 not in operand.shape:
            self.kernels.wait(operand.address, _LEGACY_STREAM)


def _of_library(name: str, device: Any) -> DeviceBackend:
    return _backend(importlib.import_module(name), device)


def _plain(state: Any) -> Any:
    """Return the named tuple of the arrays of a named tuple of operands."""
    return type(state)(*[operand.array for operand in state])


def _extent(operand: Described) -> tuple[int, int]:
    """Return the address of an array's first byte, and the address after its last byte."""
    shape, address = operand.shape, operand.address
    if 0 in shape:
        return 0, 0
    ends = [(n - 1) * stride for n, stride in zip(shape, operand.strides, strict=True)]
    begin = address + sum(end for end in ends if end < 0)
    return begin, address + sum(end for end in ends if end > 0) + _SIZES[operand.type_name]


def _described(value: Any) -> str:
    """Describe a value's type and device, for error messages."""
    device = getattr(value, "device", None)
    return type(value).__name__ + ("" if device is None else f" on {device}")


def _namespace(array: Array) -> ModuleType:
    """Return the namespace of the library that an array's class belongs to."""
    kind = type(array)
    if kind not in _namespaces:
        _namespaces[kind] = array_api_compat.array_namespace(array)
    return _namespaces[kind]


def device_backend(array: Array) -> DeviceBackend:
    """Return the backend of an array on a GPU, the same one for all arrays of its library and device."""
    try:
        xp, device = _namespace(array), array.device
    except TypeError:
        raise TypeError(
            "arrays on a GPU must be of a library with the array API (torch, CuPy, JAX), "
            f"got {type(array).__name__}"
        ) from None
    return _backend(xp, device)


def _backend(xp: ModuleType, device: Any) -> DeviceBackend:
    found = _remembered(xp, device)
    if found is not None:
        return found
    with _remembering:
        found = _remembered(xp, device)  # another thread may have been first
        if found is None:
            found = DeviceBackend(xp, device)
            _backends.append(found)
    return found


def _remembered(xp: ModuleType, device: Any) -> DeviceBackend | None:
    for backend in _backends:
        if backend.xp is xp and backend.device == device:
            return backend
    return None
