"""Errors that name a layer: of its shapes, and with ``detect_anomaly`` of a NaN in its input."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from ._run import is_traced

_active: list[dict[int, str]] = []  # the names of modules, by id, of the contexts that are open


class detect_anomaly:
    """Make a NaN in the input or the state of a spiking layer an error that names the layer.

    A NaN never fires, so that a network with one trains on in silence. Use it as a context manager. The
    switches of torch, ``torch.autograd.set_detect_anomaly(True)`` and ``torch.autograd.detect_anomaly()``,
    turn on the same check, and torch's slower check of the backward pass. Programs that are compiled are
    checked only as far as torch does it.

    Parameters
    ----------
    net : nn.Module, optional
        The network. With it, an error has the layer's name in the network; without it, the layer's repr only.

    Raises
    ------
    ValueError
        Inside the context, if the input of a layer contains a NaN.

    Examples
    --------
    >>> with snn.detect_anomaly(net):
    ...     net(x)
    """

    def __init__(self, net: nn.Module | None = None) -> None:
        if net is not None and not isinstance(net, nn.Module):
            raise TypeError(f"net must be a torch module, got {type(net).__name__}")
        self._names = {} if net is None else {id(module): name for name, module in net.named_modules()}

    def __enter__(self) -> None:
        _active.append(self._names)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _active.remove(self._names)


def explained(error: ValueError, layer: nn.Module, current: Tensor, time_dim: int | None) -> ValueError:
    """Add the layer and its dimension of time to an error, which a wrong time_dim may have caused."""
    if time_dim is None or "time_dim" in str(error):
        return error
    shape = tuple(current.shape)
    return ValueError(f"{error} ({type(layer).__name__} with time_dim={time_dim}, input of shape {shape})")


def check_if_on(layer: nn.Module, current: Tensor, state: Any) -> None:
    """If it is turned on, raise an error that names the layer if its input or its state contains a NaN."""
    if torch.compiler.is_compiling() or not (_active or torch.is_anomaly_enabled()):
        return
    _check_values("current", layer, current)
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        for field, value in zip(state._fields, state, strict=True):
            if isinstance(value, Tensor):
                _check_values(f"state.{field}", layer, value)


def _check_values(argument: str, layer: nn.Module, value: Tensor) -> None:
    if torch._C._are_functorch_transforms_active():
        return  # values cannot be read there
    wrong = value.detach().isnan()
    try:
        found = bool(wrong.any())
    except RuntimeError:
        if is_traced(value):
            return  # by make_fx, or with fake tensors, which have no values
        raise
    if found:
        first = tuple(wrong.nonzero()[0].tolist())
        raise ValueError(
            f"{argument} of {_described(layer)} must not contain NaN, got {int(wrong.sum())} of "
            f"{value.numel()} values in shape {tuple(value.shape)}, the first at index {first}"
        )


def _described(layer: nn.Module) -> str:
    shown = f"{type(layer).__name__}({layer.extra_repr()})"
    for names in reversed(_active):
        if names.get(id(layer)):
            return f"layer {names[id(layer)]!r}, {shown},"
    return f"the layer {shown}"
