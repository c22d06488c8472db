"""What a container hands on beside a tensor: bits of a layer's spikes, and how a product came about.

A layer can write a bit for each spike while the spikes are in the cache. The product that follows then need
not read them. A layer whose surrogate is 0 at most elements can write where it is not, too: the product's
backward pass need compute no other element of the gradient of the spikes.
A product keeps its spikes as bits, from which it can be computed again. So the layer that follows need not
keep its current, with ``memory="lean"``.
Both are right only as long as nothing changes the tensor in between. So a container asks for them only where
they will be taken, and they are taken only with the very memory that the module before has written.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from .._products import Packed, Support

_Kind = TypeVar("_Kind", bound=nn.Module)

LEAST = 1 << 16  # elements; with fewer, Python takes longer than reading the spikes


class Handed(NamedTuple):
    """What a layer hands on: its spikes, and the support of its surrogate if it is wanted and known."""

    packed: Packed
    support: Support | None


class Recipe(NamedTuple):
    """How a product is computed again, bit for bit."""

    compute: Callable[..., Tensor]  # a function of the tensors, which holds none of them
    tensors: tuple[Tensor | None, ...]  # autograd has to keep them, and to see that nothing changes them


class _Offer(NamedTuple):
    result: Tensor  # of a module; as long as it is held, its memory is not used again
    version: int  # torch counts changes in place
    offered: Any

    def is_for(self, tensor: Tensor) -> bool:
        """Tell whether a dense tensor is the module's result, unchanged."""
        return (
            tensor.data_ptr() == self.result.data_ptr()
            and tensor.numel() == self.result.numel()
            and tensor.dtype is self.result.dtype
            and self.result._version == self.version
        )


class _Hands(threading.local):
    asked: type[Handed] | type[Recipe] | None = None
    support_asked = False
    offer: _Offer | None = None


_hands = _Hands()


@contextmanager
def asking(kind: type[Handed] | type[Recipe], with_support: bool = False) -> Iterator[None]:
    """Ask the module that is called inside for `Handed` (with the support or without) or a `Recipe`."""
    _hands.asked, _hands.support_asked = kind, with_support
    try:
        yield
    finally:
        _hands.asked, _hands.support_asked = None, False


def is_asked(kind: type[Handed] | type[Recipe]) -> bool:
    """Tell whether a module is to offer a `Handed` or a `Recipe`."""
    return _hands.asked is kind


def is_support_asked() -> bool:
    """Tell whether a layer is to write bits of the support of its surrogate."""
    return _hands.support_asked


def give(result: Tensor, offered: Handed | Recipe) -> None:
    """Offer something for a module's result, which is dense."""
    if not result.is_inference():  # which has no version
        _hands.offer = _Offer(result, result._version, offered)


def _take(kind: type, tensor: Tensor) -> Any:
    offer, _hands.offer = _hands.offer, None
    return offer.offered if offer and isinstance(offer.offered, kind) and offer.is_for(tensor) else None


def take_handed(x: Tensor, inputs: int) -> Handed | None:
    """Return the bits of a tensor in C order, if they are handed on and rows of `inputs` are whole words."""
    handed: Handed | None = _take(Handed, x)
    return handed if handed is not None and inputs % 64 == 0 else None


def take_recipe(tensor: Tensor) -> Recipe | None:
    """Return how a dense tensor is computed again, in its shape and order of memory, if that is known."""
    recipe: Recipe | None = _take(Recipe, tensor)
    if recipe is None:
        return None
    return Recipe(partial(_compute, recipe.compute, tensor.shape, tensor.stride()), recipe.tensors)


def _compute(
    compute: Callable[..., Tensor], shape: tuple[int, ...], strides: tuple[int, ...], *tensors: Tensor | None
) -> Tensor:
    return compute(*tensors).as_strided(shape, strides)


def forget() -> None:
    """Release a result for which nothing has been taken."""
    _hands.offer = None


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
