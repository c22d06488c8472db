"""Arrays on a GPU, of libraries that share their memory by DLPack or the CUDA array interface.

Everything else that such arrays need is in the array API standard. array-api-compat provides it for torch,
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
_LEGACY_STREAM = 1  # the default stream, as the CUDA array interface writes it

_constants = IdentityCache()  # of a descriptor's array: by backend its copy there


class _Memory(NamedTuple):
    """An array's place in memory: strides in bytes, and the stream of its last use if its library says."""

    address: int
    strides: Shape
    type_name: str
    read_only: bool
    stream: int | None


@lru_cache(maxsize=32)
def _torch_name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _current(device: Any) -> Any:
    """A context in which a device is the current one, of a library that looks at that: CuPy's."""
    return device if hasattr(device, "use") else nullcontext()


def _interface(array: Array) -> dict[str, Any] | None:
    """Return an array's CUDA array interface, in which CuPy names the stream of the current device."""
    with _current(getattr(array, "device", None)):
        return getattr(array, "__cuda_array_interface__", None)


def _memory(array: Array) -> _Memory:
    strides: Shape | None
    if is_torch(array):
        size = array.element_size()
        strides = tuple(stride * size for stride in array.stride())
        return _Memory(array.data_ptr(), strides, _torch_name(array.dtype), False, None)
    told = _interface(array)
    # One that says nothing of streams (JAX's) leaves open whether the values are there yet: DLPack waits.
    if told is not None and ("stream" in told or not hasattr(array, "__dlpack__")):
        (address, read_only), stream = told["data"], told.get("stream")
        name, strides = _INTERFACE_NAMES.get(told["typestr"], told["typestr"]), told.get("strides")
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
    """A library's arrays on one device, for the CUDA kernels."""

    xp: ModuleType
    device: Any

    def __hash__(self) -> int:
        # CuPy's devices have none.
        return hash((self.xp.__name__, str(self.device)))

    def __deepcopy__(self, memo: Any) -> DeviceBackend:
        """Nothing of it can change, and modules cannot be copied."""
        return self

    def __reduce__(self) -> Any:
        """Pickled, the library is its name."""
        return _of_library, (self.xp.__name__, self.device)

    @property
    def kernels(self) -> ModuleType:
        """The extension."""
        return cuda.kernels()

    def array(self, name: str, value: Any) -> Array:
        """The argument, if it is an array of this device and of a type that the kernels have."""
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
        """Return an argument as `array` does, if it has this type."""
        array = self.array(name, value)
        require_type(name, self.type_name(array), type_name)
        return array

    def type_name(self, array: Array) -> str:
        """The name of an array's type, as the kernels know it."""
        return _memory(array).type_name

    def itemsize(self, array: Array) -> int:
        """Bytes of an element."""
        return _SIZES[_memory(array).type_name]

    def strides(self, array: Array) -> Shape:
        """The distances of neighbours along the axes, in bytes."""
        return _memory(array).strides

    def aligned(self, array: Array) -> bool:
        """Tell whether elements lie at multiples of their size."""
        memory = _memory(array)
        return memory.address % _SIZES[memory.type_name] == 0

    def writeable(self, array: Array) -> bool:
        """Tell whether an array may be written into."""
        return array_api_compat.is_writeable_array(array) and not _memory(array).read_only

    def overlap(self, a: Array, b: Array) -> bool:
        """Tell whether the memory from the first to the last element of two arrays overlaps."""
        (a_begin, a_end), (b_begin, b_end) = _extent(a), _extent(b)
        return a_begin < b_end and b_begin < a_end

    def lies(self, array: Array, order: Shape) -> bool:
        """Tell whether an array is dense, its axes in this order from the outermost in memory on."""
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
        """A new array whose axes lie in this order."""
        lengths, axes = placement(shape, order)
        dtype = getattr(self.xp, type_name)
        with _current(self.device):
            return self.permute(self.xp.empty(lengths, dtype=dtype, device=self.device), axes)

    empty_on_line = empty  # allocators of GPUs begin there

    def copy(self, array: Array, order: Shape) -> Array:
        """A copy whose axes lie in this order."""
        if not array_api_compat.is_writeable_array(array):
            return array  # nobody else can write it, and it has the one order that such libraries have
        copy = self.empty(tuple(array.shape), order, self.type_name(array))
        copy[...] = array
        return copy

    def dense(self, array: Array) -> Array:
        """A copy without gaps."""
        return self.copy(array, tuple(range(len(array.shape))))

    def contiguous(self, array: Array) -> Array:
        """The array in the order of its axes."""
        order = tuple(range(len(array.shape)))
        return array if self.lies(array, order) else self.copy(array, order)

    def permute(self, array: Array, axes: Shape) -> Array:
        """The array with its axes in another order."""
        return array if axes == tuple(range(len(axes))) else self.xp.permute_dims(array, axes)

    def convert(self, value: Any, type_name: str) -> Array:
        """A number or an array, of NumPy's too, as an array of a type."""
        dtype = getattr(self.xp, type_name)
        if self._has(value):
            return self.xp.astype(value, dtype, copy=False)
        with _current(self.device):
            if np.ndim(value) == 0:  # nothing to copy to the device, which would wait
                return self.xp.full((), float(value), dtype=dtype, device=self.device)
            return self.xp.asarray(np.array(value), dtype=dtype, device=self.device)

    def read_only(self, array: Array) -> Array:
        """A copy for functions of the user's: most libraries have no arrays that cannot be written."""
        return self.dense(array)

    def decay(self, dt: float, tau: Array) -> Array:
        """e^(-dt / tau), on the device."""
        tau = self.contiguous(self.convert(tau, "float64"))
        shape, count = tuple(tau.shape), math.prod(tau.shape)
        decays = self.empty(shape, tuple(range(len(shape))), "float64")
        stream, _ = self.where(tau, 0)
        self.kernels.decay(float(dt), (self.handle(tau), count, 1), count, self.handle(decays), stream)
        self.finish(tau)
        return decays

    def rotation(self, angle: Array) -> tuple[Array, Array]:
        """Cosine and sine, on the device."""
        angle = self.contiguous(self.convert(angle, "float64"))
        shape, count = tuple(angle.shape), math.prod(angle.shape)
        cosines, sines = (self.empty(shape, tuple(range(len(shape))), "float64") for _ in range(2))
        stream, _ = self.where(angle, 0)
        of_angle = self.handle(angle), count, 1
        self.kernels.rotation(of_angle, count, self.handle(cosines), self.handle(sines), stream)
        self.finish(angle)
        return cosines, sines

    def constant(self, array: np.ndarray) -> Array:
        """A descriptor's array, which nobody can write, in float64.

        It is copied once: a copy at each call would wait, and cannot be in a CUDA graph.
        """
        known = _constants.of(array)
        if self not in known:
            known[self] = self.convert(array, "float64")
        return known[self]

    def handle(self, array: Array | None) -> int | None:
        """Return an array as the extension takes it."""
        if array is None:
            return None
        return array.data_ptr() if is_torch(array) else _memory(array).address

    def where(self, array: Array, threads: int) -> tuple[int, Any]:
        """Return the stream, and a function that allocates workspace."""
        held: list[Array] = []  # until the call is over

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
        """Wait for the kernels where the library would not, since it knows nothing of their stream."""
        if is_torch(array) or 0 in array.shape:
            return
        memory = _memory(array)
        if memory.stream is None:
            self.kernels.wait(memory.address, _LEGACY_STREAM)


def _of_library(name: str, device: Any) -> DeviceBackend:
    return DeviceBackend(importlib.import_module(name), device)


def _extent(array: Array) -> tuple[int, int]:
    """The addresses of an array's first byte, and of that behind its last."""
    if 0 in array.shape:
        return 0, 0
    memory = _memory(array)
    ends = [(n - 1) * stride for n, stride in zip(array.shape, memory.strides, strict=True)]
    begin = memory.address + sum(end for end in ends if end < 0)
    return begin, memory.address + sum(end for end in ends if end > 0) + _SIZES[memory.type_name]


def _described(value: Any) -> str:
    """Describe a value, for messages."""
    device = getattr(value, "device", None)
    return type(value).__name__ + ("" if device is None else f" on {device}")


def device_backend(array: Array) -> DeviceBackend:
    """The backend of an array on a GPU."""
    try:
        return DeviceBackend(array_api_compat.array_namespace(array), array_api_compat.device(array))
    except TypeError:
        raise TypeError(
            "arrays on a GPU must be of a library with the array API (torch, CuPy, JAX), "
            f"got {type(array).__name__}"
        ) from None
