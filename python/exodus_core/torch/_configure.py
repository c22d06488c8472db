"""``configure``: set a keyword of all layers of a network at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from .._backward import check_algorithm
from .._custom_surrogate import SurrogateLike
from ..neurons import Neuron
from ._children import sees_time
from ._initial import PREFIX, state_names
from ._modules import Layer, check_memory_of, check_time_dim
from ._valued import Learn, attribute_of


def configure(
    net: nn.Module,
    *,
    surrogate: SurrogateLike | None = None,
    method: str | None = None,
    time_dim: int | None = None,
    learn: Learn | None = None,
    memory: str | None = None,
    inplace: bool | None = None,
) -> nn.Module:
    """Set keywords of all spiking layers in a network. Nothing is changed if an argument does not fit.

    Parameters
    ----------
    net : nn.Module
        A layer, or a network of any modules.
    surrogate : Surrogate or callable, optional
        The surrogate of all layers, as for ``Layer``.
    method : {"exodus", "slayer", "bptt"}, optional
        The algorithm of the backward pass.
    time_dim : int, optional
        The dimension of time of all layers, delays and containers.
    learn : collection of str, or mapping of str to shape, optional
        The parameters and initial states that all layers learn, as for ``Layer``. A layer learns those that
        its neuron has.
        Values that are not named are no longer learnt, and keep their present value; ``learn=()`` freezes
        all. A value that is learnt already stays the same ``nn.Parameter``. Make the optimizer afterwards.
    memory : {"full", "lean"}, optional
        What all layers keep for the backward pass, as for ``Layer``.
    inplace : bool, optional
        Whether all layers write the potential over the current, as for ``Layer``.

    Returns
    -------
    nn.Module
        The network itself.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit, or if no layer has a parameter that `learn` names; the message names it.
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"net must be a torch module, got {type(net).__name__}")
    layers = [module for module in net.modules() if isinstance(module, Layer)]
    for layer in layers:
        check_algorithm(
            layer.method if method is None else method, layer.surrogate if surrogate is None else surrogate
        )
        check_memory_of(
            layer.memory if memory is None else memory, layer.inplace if inplace is None else inplace
        )
    if time_dim is not None:
        check_time_dim(time_dim)
    if learn is not None:
        _learn(net, layers, learn)
    for layer in layers:
        if surrogate is not None:
            layer.surrogate = surrogate
        if method is not None:
            layer.method = method
        if memory is not None:
            layer.memory = memory
        if inplace is not None:
            layer.inplace = inplace
    if time_dim is not None:
        _set_time_dim(net, time_dim)
    return net


def _set_time_dim(net: nn.Module, time_dim: int) -> None:
    """Set the time_dim of everything that sees time."""
    for module in net.modules():
        if sees_time(module) and not isinstance(module, nn.RNNBase):
            module.time_dim = time_dim  # type: ignore[assignment]


def _learn(net: nn.Module, layers: list[Layer], learn: Any) -> None:
    """Check the values that the layers shall learn, and register them."""
    if isinstance(learn, str) or not isinstance(learn, Iterable):
        raise TypeError(f"learn must be a collection of names or a mapping to shapes, got {learn!r}")
    wanted: Any = learn if isinstance(learn, Mapping) else tuple(learn)
    known = {name for layer in layers for name in _learnable(layer._given)}
    for name in wanted:
        if name not in known:
            raise ValueError(
                f"learn must name parameters or states of a layer, {sorted(known)}, got {name!r}"
            )
    device = next((parameter.device for parameter in net.parameters()), None)
    changes = [(layer, *_values_to_learn(layer, wanted, device)) for layer in layers]
    for layer, neuron, values in changes:
        for name in (*layer._learn_names, *layer._learn_states):
            layer._parameters.pop(attribute_of(name), None)
        layer._hold(neuron)
        layer._learn_names = tuple(name for name in neuron._parameter_names() if name in values)
        layer._learn_states = tuple(name for name in state_names(neuron) if name in values)
        for name in (*layer._learn_names, *layer._learn_states):
            value = values[name]
            if value is not None:
                value.requires_grad_(name in wanted)
                layer.register_parameter(attribute_of(name), value)


def _learnable(neuron: Neuron) -> list[str]:
    return [*neuron._parameter_names(), *state_names(neuron)]


def _values_to_learn(
    layer: Layer, wanted: Any, device: torch.device | None
) -> tuple[Neuron, dict[str, nn.Parameter | None]]:
    """Return the descriptor with the present values, and the parameters to register, by name.

    They are checked, but the layer is not changed. The parameter is None for a value that stays as it is
    because torch has put something else in its place, as `parametrize` does. An initial state that is no
    longer learnt remains a parameter, without a gradient, since a descriptor has no place for it.
    """
    neuron = layer.neuron
    names = [name for name in _learnable(neuron) if name in wanted]
    own = {name: wanted[name] for name in names} if isinstance(wanted, Mapping) else names
    found: dict[str, nn.Parameter | None] = {}
    like = Layer(neuron, learn=own)
    for name, value in (like._learnt() | like._learnt_states()).items():
        found[name] = nn.Parameter(value.detach().to(device))
    for name, value in (layer._learnt() | layer._learnt_states()).items():
        present = layer._parameters.get(attribute_of(name))
        stays = name in found and found[name].shape == value.shape  # type: ignore[union-attr]
        stays = stays or (name not in found and name.startswith(PREFIX))
        if present is None and not stays:
            raise ValueError(
                f"learn must keep {name} of {type(layer).__name__}, which is parametrised, pruned or "
                "normalised: remove that first"
            )
        if stays:
            found[name] = present
    return neuron, found
