"""The backend of torch's tensors on the CPU, for the CPU kernels. Only ``exodus_core.torch`` imports it."""

from __future__ import annotations

import math
import sys
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _core
from ._memory import COUNT_OF_UNUSED, LARGE, MEMORY
from ._protocol import ARITHMETIC, Array, Shape, require_type
from .numpy import NumpyBackend

_TYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}


def arithmetic_of(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of parameters, states and potentials for inputs of a dtype."""
    return _TYPES[ARITHMETIC[_NAMES[dtype]]]


def type_name_of(dtype: torch.dtype) -> str:
    """Return the kernels' name of a dtype."""
    return _NAMES[dtype]


_FOR_HUGE_PAGES = 1 << 22  # bytes, from which huge pages pay (benchmarks/fresh.py); NumPy has the same


class _Storages:
    """Storages of torch, as a kind of memory."""

    def allocate(self, size: int) -> torch.UntypedStorage:
        """Allocate a storage. A large one gets huge pages, as NumPy's arrays do."""
        storage = torch.empty(size, dtype=torch.uint8, device="cpu").untyped_storage()
        if size >= _FOR_HUGE_PAGES:
            _core.use_huge_pages(storage.data_ptr(), size)
        return storage

    def is_unused(self, blocks: list[torch.UntypedStorage], k: int) -> bool:
        """Tell whether neither a tensor nor Python code but the list refers to a storage."""
        alone: bool = torch._C._storage_Use_Count(blocks[k]._cdata) == 1
        return alone and sys.getrefcount(blocks[k]) == COUNT_OF_UNUSED

    def is_whole(self, block: torch.UntypedStorage, size: int) -> bool:
        """Tell whether a storage was neither resized nor given to other processes."""
        return block.nbytes() == size and not block.is_shared()


_STORAGES = _Storages()


def new(shape: Shape, dtype: torch.dtype, strides: Shape | None = None) -> Tensor:
    """Allocate a tensor for results. A large one may have the memory of an earlier result."""
    if strides is None:
        strides = _strides(tuple(shape), tuple(range(len(shape))))
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE:
        return torch.empty_strided(shape, strides, dtype=dtype, device="cpu")
    empty = torch.empty(0, dtype=dtype, device="cpu")
    return MEMORY.take(_STORAGES, size, lambda storage: empty.set_(storage, 0, shape, strides))


@lru_cache(maxsize=1024)
def _strides(shape: Shape, order: Shape) -> Shape:
    """Return the strides, in elements, of a dense tensor whose axes lie in this order."""
    strides, step = [0] * len(shape), 1
    for axis in reversed(order):
        strides[axis] = step
        step *= max(shape[axis], 1)
    return tuple(strides)


class TensorBackend(NumpyBackend):
    """The backend of torch's tensors on the CPU.

    Arrays over time, and states, are tensors, which the extension takes by their address. Parameters and
    their gradients are NumPy's, as everywhere on the CPU.
    """

    def __reduce__(self) -> str:
        """Pickle and copy as the one instance, `TENSORS`."""
        return "TENSORS"

    def array(self, name: str, value: Any) -> Tensor:
        """Return the value if it is a tensor on the CPU with a dtype of the kernels."""
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a torch tensor, got {type(value).__name__}")
        if value.device.type != "cpu" or value.layout != torch.strided:
            raise TypeError(f"{name} must be a dense tensor on the CPU, got {value.layout} on {value.device}")
        if value.dtype not in _NAMES:
            raise TypeError(f"{name} must have dtype {' or '.join(_TYPES)}, got {value.dtype}")
        return value.resolve_neg()

    def typed(self, name: str, value: Any, type_name: str) -> Tensor:
        """Return the value as `array` does, if it has this dtype."""
        tensor = self.array(name, value)
        if tensor.dtype is not _TYPES[type_name]:
            require_type(name, _NAMES[tensor.dtype], type_name)
        return tensor

    def type_name(self, array: Array) -> str:
        """Return the kernels' name of a tensor's dtype."""
        return _NAMES[array.dtype]

    def itemsize(self, array: Array) -> int:
        """Return the size of an element in bytes."""
        size: int = array.element_size()
        return size

    def strides(self, array: Array) -> Shape:
        """Return the strides in bytes."""
        size = array.element_size()
        return tuple([stride * size for stride in array.stride()])

    def aligned(self, array: Array) -> bool:
        """Tell whether the elements are aligned to their size."""
        return bool(array.data_ptr() % array.element_size() == 0)

    def has_order(self, array: Array, order: Shape) -> bool:
        """Tell whether a tensor is dense and its axes lie in this order, outermost in memory first."""
        shape, expected = array.shape, _strides(tuple(array.shape), order)
        same = array.stride() == expected or all(
            [n <= 1 or a == b for n, a, b in zip(shape, array.stride(), expected, strict=True)]
        )
        return (same or 0 in shape) and self.aligned(array)

    def empty(self, shape: Shape, order: Shape, type_name: str) -> Tensor:
        """Allocate a tensor whose axes lie in this order."""
        return new(shape, _TYPES[type_name], _strides(shape, order))

    empty_on_line = empty  # torch aligns at least that well

    def copy(self, array: Array, order: Shape) -> Tensor:
        """Copy a tensor into this order of axes."""
        return self.empty(tuple(array.shape), order, _NAMES[array.dtype]).copy_(array)

    def dense(self, array: Array) -> Tensor:
        """Copy a tensor without gaps, in its own order of axes."""
        order = sorted(range(array.dim()), key=lambda axis: -array.stride(axis))
        return self.copy(array, tuple(order))

    def contiguous(self, array: Array) -> Any:
        """Return a tensor, or an array of NumPy, itself if it is in C order, else a copy that is."""
        return array.contiguous() if isinstance(array, Tensor) else np.ascontiguousarray(array)

    def convert(self, value: Any, type_name: str) -> Any:
        """Convert a tensor to a dtype; anything else as NumPy's backend does."""
        return value.to(_TYPES[type_name]) if isinstance(value, Tensor) else super().convert(value, type_name)

    def to_computing(self, array: Any) -> np.ndarray:
        """Return a tensor's memory as an array of NumPy, which has no bfloat16: that is converted."""
        values = array.float() if array.dtype == torch.bfloat16 else array
        memory: np.ndarray = values.detach().numpy()
        return memory

    def handle(self, array: Any) -> Any:
        """Return a tensor's address; arrays of NumPy, which are parameters, themselves."""
        return array.data_ptr() if isinstance(array, Tensor) else array


TENSORS = TensorBackend()
