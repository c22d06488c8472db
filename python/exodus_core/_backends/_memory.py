"""The memory of large results, which later results of the same size take over.

The first write to each page of new memory is a fault of the system's, and the faults of a large array take
longer than a pass of the kernels over it (`benchmarks/fresh.py`). So the memory of a result is remembered,
and is used again when nothing else refers to it: the reference counts of NumPy's arrays and of torch's
storages tell. Memory that is in use, by a view or a graph for instance, is never touched.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from .._integers import integer

LARGE = 1 << 20  # bytes, from which reuse pays (benchmarks/fresh.py)
_LIMIT = 1 << 30  # bytes

_Result = TypeVar("_Result")
_one_block = [object()]
COUNT_OF_UNUSED = sys.getrefcount(_one_block[0])  # of an object that only a list refers to


class Kind(Protocol):
    """A kind of memory, such as torch's storages. Blocks of it are in a list that refers to them."""

    def allocate(self, size: int) -> Any:
        """Allocate a block of so many bytes."""

    def is_unused(self, blocks: list[Any], k: int) -> bool:
        """Tell whether nothing but the list refers to a block."""

    def is_whole(self, block: Any, size: int) -> bool:
        """Tell whether a block still has its size, and belongs to this process alone."""


class Memory:
    """Blocks of memory that results have, or had.

    Parameters
    ----------
    limit : int
        The most bytes that are remembered, whether results still have them or not.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.RLock()  # a finalizer may run while it is held
        self._blocks: dict[tuple[Kind, int], list[Any]] = {}  # the size that was used last is last

    @property
    def held(self) -> int:
        """The bytes that are remembered."""
        return sum(size * len(blocks) for (_, size), blocks in self._blocks.items())

    def take(self, kind: Kind, size: int, as_result: Callable[[Any], _Result]) -> _Result:
        """Return ``as_result`` of a block of so many bytes, one that is not used any more or a new one."""
        with self._lock:  # until the result refers to the block
            blocks = self._blocks.pop((kind, size), [])
            blocks[:] = [block for block in blocks if kind.is_whole(block, size)]
            self._blocks[kind, size] = blocks
            for k in range(len(blocks)):
                if kind.is_unused(blocks, k):
                    return as_result(blocks[k])
            block = kind.allocate(size)
            if size <= self.limit:
                self._forget_unused(self.limit - size)
                if self.held + size <= self.limit:
                    blocks.append(block)
            return as_result(block)

    def _forget_unused(self, most: int) -> None:
        """Forget unused blocks, those of the size that was used longest ago first, until `most` are held."""
        excess = self.held - most
        for (kind, size), blocks in list(self._blocks.items()):
            for k in reversed(range(len(blocks))):
                if excess > 0 and kind.is_unused(blocks, k):
                    del blocks[k]
                    excess -= size

    def empty(self) -> None:
        """Give all unused blocks back."""
        with self._lock:
            self._forget_unused(0)

    def reset(self, limit: int) -> None:
        """Set the limit, and forget all blocks, also those that results have."""
        with self._lock:
            self.limit, self._blocks = limit, {}

    def after_fork(self) -> None:
        """Begin anew in a forked process, where a thread that held the lock is gone."""
        self._lock = threading.RLock()
        self.reset(self.limit)


MEMORY = Memory(_LIMIT)
os.register_at_fork(after_in_child=MEMORY.after_fork)


def empty_cache() -> None:
    """Give the memory of earlier large results back to the system, where nothing uses it any more."""
    MEMORY.empty()


def get_cache_limit() -> int:
    """Return the most bytes of large results whose memory is remembered for later ones.

    Returns
    -------
    int
        1 GiB, if ``set_cache_limit`` has not changed it.
    """
    return MEMORY.limit


def set_cache_limit(limit: int) -> None:
    """Set the most bytes of large results whose memory is remembered for later ones.

    The memory of arrays and tensors from 1 MiB on is used again, by a result of the same size, when nothing
    refers to it any more. Results beyond the limit have memory of their own, as have all with a limit of 0.

    Parameters
    ----------
    limit : int
        Bytes, 0 or more.

    Raises
    ------
    ValueError, TypeError
        If `limit` is not an integer of at least 0.
    """
    MEMORY.reset(integer("limit", limit, 0))
