"""Bits of a layer's spikes, which a container hands on to the product that follows.

A layer can write a bit for each spike while the spikes are in the cache. The product then need not read them.
A layer whose surrogate is 0 at most elements can write where it is not, too: the product's backward pass need
compute no other element of the gradient of the spikes.
That is right only as long as nothing changes the spikes in between. So a container asks for bits only where
the product comes next, and a product takes them only for the very memory that the layer has written.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from .._products import Packed, Support

_Kind = TypeVar("_Kind", bound=nn.Module)

LEAST = 1 << 16  # elements; with fewer, Python takes longer than reading the spikes


class Handed(NamedTuple):
    """What a layer hands on: its spikes, and the support of its surrogate if it is wanted and known."""

    packed: Packed
    support: Support | None


class _Fired(NamedTuple):
    result: Tensor  # of a layer; as long as it is held, its memory is not used again
    version: int  # torch counts changes in place
    handed: Handed

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
    support_asked = False
    fired: _Fired | None = None


_hands = _Hands()


@contextmanager
def asking(with_support: bool) -> Iterator[None]:
    """Ask the layer that is called inside for bits of its spikes, and of the support of its surrogate."""
    _hands.asked, _hands.support_asked, _hands.fired = True, with_support, None
    try:
        yield
    finally:
        _hands.asked = _hands.support_asked = False


def is_asked() -> bool:
    """Tell whether a layer is to write bits of its spikes."""
    return _hands.asked


def is_support_asked() -> bool:
    """Tell whether a layer is to write bits of the support of its surrogate."""
    return _hands.support_asked


def give(result: Tensor, handed: Handed) -> None:
    """Hand on a layer's result and its bits."""
    if not result.is_inference():  # which has no version
        _hands.fired = _Fired(result, result._version, handed)


def take(matrix: Tensor) -> Handed | None:
    """Return what has been handed on with a matrix in C order, if anything has."""
    fired, _hands.fired = _hands.fired, None
    return fired.handed if fired is not None and fired.is_whole(matrix) else None


def forget() -> None:
    """Release a result that no product has taken."""
    _hands.fired = None


def next_of(kind: type[_Kind], layer: nn.Module, following: Sequence[nn.Module]) -> _Kind | None:
    """Return the module of a kind that a layer's result reaches, past nothing that could change it."""
    hooks = torch.nn.modules.module
    if layer._forward_hooks or hooks._global_forward_hooks or hooks._global_forward_pre_hooks:
        return None
    for module in following:
        if module._forward_pre_hooks:
            return None
        if isinstance(module, kind):
            return module
        if type(module) not in (nn.Flatten, nn.Identity) or module._forward_hooks:
            return None
    return None
