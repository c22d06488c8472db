"""Arrays on a GPU, of libraries that share memory by DLPack or the CUDA array interface.

All other operations on them are those of the array API standard, which array-api-compat provides for torch,
CuPy and JAX.
"""

from __future__ import annotations

import importlib
import math
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from .. import cuda
from .._cache import IdentityCache
from ._protocol import Array, Shape, is_torch, placement, require_type

try:
    import array_api_compat
except ImportError as error:
    raise ImportError("arrays on a GPU need array-api-compat: pip install 'exodus-snn[cuda]'") from error

_SIZES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
_INTERFACE_NAMES = {"<f2": "float16", "<f4": "float32", "<f8": "float64"}
_DLPACK_NAMES = {(2, 16): "float16", (2, 32): "float32", (2, 64): "float64", (4, 16): "bfloat16"}
_LEGACY_STREAM = 1  # the number of the default stream in the CUDA array interface

_constants = IdentityCache()  # for a descriptor's array: its copies on devices, by backend


class _Memory(NamedTuple):
    """Where an array lies in memory. `stream` is that of its last use, None if its library names none."""

    address: int
    strides: Shape  # in bytes
    type_name: str
    read_only: bool
    stream: int | None


@lru_cache(maxsize=32)
def _torch_name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _current(device: Any) -> Any:
    """Return a context in which a CuPy device is the current one; other libraries do not need it."""
    return device if hasattr(device, "use") else nullcontext()


def _interface(array: Array) -> dict[str, Any] | None:
    """Return an array's CUDA array interface. CuPy puts the current device's stream into it."""
    with _current(getattr(array, "device", None)):
        return getattr(array, "__cuda_array_interface__", None)


def _memory(array: Array) -> _Memory:
    strides: Shape | None
    if is_torch(array):
        size = array.element_size()
        strides = tuple(stride * size for stride in array.stride())
        return _Memory(array.data_ptr(), strides, _torch_name(array.dtype), False, None)
    interface = _interface(array)
    # JAX's interface names no stream, so the values may not be there yet. DLPack waits for them.
    if interface is not None and ("stream" in interface or not hasattr(array, "__dlpack__")):
        (address, read_only), stream = interface["data"], interface.get("stream")
        kind, strides = interface["typestr"], interface.get("strides")
        name = _INTERFACE_NAMES.get(kind, kind)
    else:
        address, code, bits, elements = cuda.kernels().dlpack(array.__dlpack__(stream=_LEGACY_STREAM))
        read_only, stream = False, None
        name = _DLPACK_NAMES.get((code, bits), f"of code {code} and {bits} bits")
        strides = None if elements is None else tuple(stride * bits // 8 for stride in elements)
    if strides is None:
        size, shape = _SIZES.get(name, 1), array.shape
        strides = tuple(size * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    return _Memory(address, strides, name, read_only, stream)


@dataclass(frozen=True)
class DeviceBackend:
    """The backend of a library's arrays on one device, for the CUDA kernels."""

    xp: ModuleType
    device: Any

    def __hash__(self) -> int:
        # By name: CuPy's devices have no hash.
        return hash((self.xp.__name__, str(self.device)))

    def __deepcopy__(self, memo: Any) -> DeviceBackend:
        """Return itself: it is immutable, and a module cannot be copied."""
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

    def array(self, name: str, value: Any) -> Array:
        """Return the value if it is an array on this device with a dtype of the kernels."""
        if is_torch(value) and getattr(value, "requires_grad", False):
            raise TypeError(
                f"{name} must not require a gradient, got a tensor that does: use exodus_core.torch.spike"
            )
        if not self._has(value):
            raise TypeError(f"{name} must be an array of {self}, got {_described(value)}")
        type_name = _memory(value).type_name
        if type_name not in self.kernels.types:
            raise TypeError(f"{name} must have dtype {' or '.join(self.kernels.types)}, got {type_name}")
        return value

    def _has(self, value: Any) -> bool:
        try:
            return array_api_compat.array_namespace(value) is self.xp and (
                array_api_compat.device(value) == self.device
            )
        except (TypeError, AttributeError):
            return False

    def __str__(self) -> str:
        return f"{self.xp.__name__.rpartition('.')[2]} on {self.device}"

    def typed(self, name: str, value: Any, type_name: str) -> Array:
        """Return the value as `array` does, if it has this dtype."""
        array = self.array(name, value)
        require_type(name, self.type_name(array), type_name)
        return array

    def type_name(self, array: Array) -> str:
        """Return the kernels' name of an array's dtype."""
        return _memory(array).type_name

    def itemsize(self, array: Array) -> int:
        """Return the size of an element in bytes."""
        return _SIZES[_memory(array).type_name]

    def strides(self, array: Array) -> Shape:
        """Return the strides in bytes."""
        return _memory(array).strides

    def aligned(self, array: Array) -> bool:
        """Tell whether the elements are aligned to their size."""
        memory = _memory(array)
        return memory.address % _SIZES[memory.type_name] == 0

    def writeable(self, array: Array) -> bool:
        """Tell whether an array may be written into."""
        return array_api_compat.is_writeable_array(array) and not _memory(array).read_only

    def overlap(self, a: Array, b: Array) -> bool:
        """Tell whether the address ranges of two arrays overlap."""
        (a_begin, a_end), (b_begin, b_end) = _extent(a), _extent(b)
        return a_begin < b_end and b_begin < a_end

    def has_order(self, array: Array, order: Shape) -> bool:
        """Tell whether an array is dense and its axes lie in this order, outermost in memory first."""
        memory = _memory(array)
        expected = _SIZES[memory.type_name]
        if memory.address % expected != 0:
            return False
        for axis in reversed(order):
            if array.shape[axis] > 1 and memory.strides[axis] != expected:
                return False
            expected *= array.shape[axis]
        return True

    def empty(self, shape: Shape, order: Shape, type_name: str) -> Array:
        """Allocate an array whose axes lie in this order."""
        lengths, axes = placement(shape, order)
        dtype = getattr(self.xp, type_name)
        with _current(self.device):
            return self.permute(self.xp.empty(lengths, dtype=dtype, device=self.device), axes)

    empty_on_line = empty  # GPU allocators align at least that well

    def copy(self, array: Array, order: Shape) -> Array:
        """Copy an array into this order of axes."""
        if not array_api_compat.is_writeable_array(array):
            return array  # JAX: nobody can write into it, and its arrays have only one memory order.
        copy = self.empty(tuple(array.shape), order, self.type_name(array))
        copy[...] = array
        return copy

    def dense(self, array: Array) -> Array:
        """Copy an array without gaps."""
        return self.copy(array, tuple(range(len(array.shape))))

    def contiguous(self, array: Array) -> Array:
        """Return the array itself if it is in C order, else a copy that is."""
        order = tuple(range(len(array.shape)))
        return array if self.has_order(array, order) else self.copy(array, order)

    def permute(self, array: Array, axes: Shape) -> Array:
        """Return a view with the axes permuted."""
        return array if axes == tuple(range(len(axes))) else self.xp.permute_dims(array, axes)

    def convert(self, value: Any, type_name: str) -> Array:
        """Convert a number, or an array of this library or of NumPy, to an array of a dtype."""
        dtype = getattr(self.xp, type_name)
        if self._has(value):
            return self.xp.astype(value, dtype, copy=False)
        with _current(self.device):
            if np.ndim(value) == 0:  # `full` needs no copy to the device, which would wait
                return self.xp.full((), float(value), dtype=dtype, device=self.device)
            return self.xp.asarray(np.array(value), dtype=dtype, device=self.device)

    def to_computing(self, array: Array) -> Array:
        """Return the array itself."""
        return array

    def read_only(self, array: Array) -> Array:
        """Return a copy for a user's function: most libraries have no read-only arrays."""
        return self.dense(array)

    def decay(self, dt: float, tau: Array) -> Array:
        """Return e^(-dt / tau), on the device."""
        tau = self.contiguous(self.convert(tau, "float64"))
        shape, count = tuple(tau.shape), math.prod(tau.shape)
        decays = self.empty(shape, tuple(range(len(shape))), "float64")
        stream, _ = self.execution(tau, 0)
        self.kernels.decay(float(dt), (self.handle(tau), count, 1), count, self.handle(decays), stream)
        self.finish(tau)
        return decays

    def rotation(self, angle: Array) -> tuple[Array, Array]:
        """Return cosine and sine, on the device."""
        angle = self.contiguous(self.convert(angle, "float64"))
        shape, count = tuple(angle.shape), math.prod(angle.shape)
        cosines, sines = (self.empty(shape, tuple(range(len(shape))), "float64") for _ in range(2))
        stream, _ = self.execution(angle, 0)
        angles = self.handle(angle), count, 1
        self.kernels.rotation(angles, count, self.handle(cosines), self.handle(sines), stream)
        self.finish(angle)
        return cosines, sines

    def constant(self, array: np.ndarray) -> Array:
        """Return the copy on this device, in float64, of a descriptor's read-only array.

        The copy is made once. A copy in every call would wait for the device, and a CUDA graph cannot
        capture it.
        """
        known = _constants.of(array)
        if self not in known:
            known[self] = self.convert(array, "float64")
        return known[self]

    def handle(self, array: Array | None) -> int | None:
        """Return the address of an array."""
        if array is None:
            return None
        return array.data_ptr() if is_torch(array) else _memory(array).address

    def execution(self, array: Array, threads: int) -> tuple[int, Any]:
        """Return the stream, and a function that allocates workspace."""
        held: list[Array] = []  # keeps the workspace alive as long as the function

        def allocate(count: int) -> tuple[Array, int]:
            with _current(self.device):
                memory = self.xp.empty(count, dtype=self.xp.uint8, device=self.device)
            held.append(memory)
            return memory, _memory(memory).address

        if is_torch(array):
            stream = sys.modules["torch"].cuda.current_stream(array.device).cuda_stream
        else:
            stream = _memory(array).stream
        return _LEGACY_STREAM if stream is None else stream, allocate

    def finish(self, array: Array) -> None:
        """Wait for the kernels, if the array's library names no stream and so cannot wait for theirs."""
        if is_torch(array) or 0 in array.shape:
            return
        memory = _memory(array)
        if memory.stream is None:
            self.kernels.wait(memory.address, _LEGACY_STREAM)


def _of_library(name: str, device: Any) -> DeviceBackend:
    return DeviceBackend(importlib.import_module(name), device)


def _extent(array: Array) -> tuple[int, int]:
    """Return the address of an array's first byte, and the address after its last byte."""
    if 0 in array.shape:
        return 0, 0
    memory = _memory(array)
    ends = [(n - 1) * stride for n, stride in zip(array.shape, memory.strides, strict=True)]
    begin = memory.address + sum(end for end in ends if end < 0)
    return begin, memory.address + sum(end for end in ends if end > 0) + _SIZES[memory.type_name]


def _described(value: Any) -> str:
    """Describe a value's type and device, for error messages."""
    device = getattr(value, "device", None)
    return type(value).__name__ + ("" if device is None else f" on {device}")


def device_backend(array: Array) -> DeviceBackend:
    """Return the backend of an array on a GPU."""
    try:
        return DeviceBackend(array_api_compat.array_namespace(array), array_api_compat.device(array))
    except TypeError:
        raise TypeError(
            "arrays on a GPU must be of a library with the array API (torch, CuPy, JAX), "
            f"got {type(array).__name__}"
        ) from None
