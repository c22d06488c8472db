"""Observers of layers, which see the potential as well, whatever the output of the layer is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ._function import Trace
from ._modules import Layer

Observer = Callable[[Layer, Tensor, Trace, "int | None", "Tensor | None"], None]


def add_observer(layer: Layer, observer: Observer) -> None:
    """Add an observer, which gets the layer, its current, the trace, time_dim and the recurrent weights."""
    layer.__dict__["_observers"] = (*layer._observers, observer)


def remove_observer(layer: Layer, observer: Observer) -> None:
    """Remove an observer of a layer, which may have others."""
    left = tuple(other for other in layer._observers if other != observer)
    layer.__dict__.pop("_observers", None)
    if left:
        layer.__dict__["_observers"] = left


@contextmanager
def observed(layers: Iterable[Layer], observer: Observer) -> Iterator[None]:
    """Observe layers inside a context."""
    layers = list(layers)
    for layer in layers:
        add_observer(layer, observer)
    try:
        yield
    finally:
        for layer in layers:
            remove_observer(layer, observer)


def first_tensor(given: tuple[Any, ...], keywords: Mapping[str, Any]) -> Tensor | None:
    """Return the input of a module that was called with arguments, or with keywords only."""
    return next((x for x in (*given, *keywords.values()) if isinstance(x, Tensor)), None)


def check_values_are_visible() -> None:
    """Raise an error where tensors have no values: under ``torch.func.vmap``, and in ``torch.export``."""
    functions: Any = torch._C._functorch
    stack = functions.get_interpreter_stack() or ()
    if any(one.key() == functions.TransformType.Vmap for one in stack):
        raise RuntimeError(
            "a Monitor cannot watch calls under torch.func.vmap, which hides the values of the samples: "
            "run the network on the whole batch"
        )
    kinds: Any = torch._C._TorchDispatchModeKey
    if torch._C._get_dispatch_mode(kinds.FAKE) is not None:
        raise RuntimeError(
            "a Monitor cannot watch a network that is exported, or that gets fake tensors, without values: "
            "leave its context before"
        )


def sizes(x: Tensor, time_dim: int | None) -> tuple[int, int]:
    """Return the sizes of time and of the batch, which is the first dimension that is not time."""
    shape = list(x.shape)
    steps = 1 if time_dim is None else shape.pop(time_dim % len(shape))
    return steps, shape[0] if shape else 1


def time_and_batch_first(x: Tensor, time_dim: int | None) -> Tensor:
    """Return x as (time, batch, neurons...)."""
    x = x.unsqueeze(0) if time_dim is None else x.movedim(time_dim, 0)
    return x if x.dim() > 1 else x.unsqueeze(1)
