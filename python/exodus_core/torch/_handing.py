"""Bits of a layer's spikes, which a container hands on to the product that follows.

A layer can write a bit for each spike while the spikes are in the cache. The product then need not read them.
That is right only as long as nothing changes the spikes in between. So a container asks for bits only where
the product comes next, and a product takes them only for the very memory that the layer has written.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._products import Packed

LEAST = 1 << 16  # elements; with fewer, Python takes longer than reading the spikes


class _Fired(NamedTuple):
    result: Tensor  # of a layer; as long as it is held, its memory is not used again
    version: int  # torch counts changes in place
    packed: Packed

    def is_whole(self, matrix: Tensor) -> bool:
        """Tell whether a matrix in C order is the layer's result, unchanged, in rows of whole words."""
        return (
            matrix.data_ptr() == self.result.data_ptr()
            and matrix.numel() == self.result.numel()
            and matrix.dtype is self.result.dtype
            and matrix.shape[1] % 64 == 0
            and self.result._version == self.version
        )


class _Hands(threading.local):
    asked = False
    fired: _Fired | None = None


_hands = _Hands()


@contextmanager
def asking() -> Iterator[None]:
    """Ask the layer that is called inside for bits."""
    _hands.asked, _hands.fired = True, None
    try:
        yield
    finally:
        _hands.asked = False


def is_asked() -> bool:
    """Tell whether a layer is to write bits."""
    return _hands.asked


def give(result: Tensor, packed: Packed) -> None:
    """Hand on a layer's result and its spikes."""
    if not result.is_inference():  # which has no version
        _hands.fired = _Fired(result, result._version, packed)


def take(matrix: Tensor) -> Packed | None:
    """Return the spikes of a matrix in C order, if they have been handed on."""
    fired, _hands.fired = _hands.fired, None
    return fired.packed if fired is not None and fired.is_whole(matrix) else None


def forget() -> None:
    """Release a result that no product has taken."""
    _hands.fired = None


def leads_to(kind: type[nn.Module], layer: nn.Module, following: Sequence[nn.Module]) -> bool:
    """Tell whether a layer's result reaches a module of a kind, past nothing that could change it."""
    hooks = torch.nn.modules.module
    if layer._forward_hooks or hooks._global_forward_hooks or hooks._global_forward_pre_hooks:
        return False
    for module in following:
        if module._forward_pre_hooks:
            return False
        if isinstance(module, kind):
            return True
        if type(module) not in (nn.Flatten, nn.Identity) or module._forward_hooks:
            return False
    return False
