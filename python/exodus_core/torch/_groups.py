"""`parameter_groups`: the parameters of neurons apart from weights, for an optimiser."""

from __future__ import annotations

from typing import Any

from torch import nn

from ._delay import Delay
from ._modules import Layer


def parameter_groups(
    net: nn.Module, *, weight_decay: float = 0.0, neuron_lr: float | None = None
) -> list[dict[str, Any]]:
    """Group a network's parameters for an optimiser, so that weight decay spares the neurons.

    Weight decay pulls parameters to 0, which is meant for weights. It would make neurons forget (a decay of
    0), fire at everything (a threshold of 0), or pull a parametrised value to an arbitrary one.

    Parameters
    ----------
    net : Module
        A network.
    weight_decay : float, optional
        The weight decay of all parameters that are not the neurons'. The neurons have none.
    neuron_lr : float, optional
        The learning rate of the neurons' parameters. None is the optimiser's.

    Returns
    -------
    list of dict
        One or two groups, named "weights" and "neurons", in the order of ``net.named_parameters()``. Neurons
        have the learnt values and initial states of spiking layers, and the delays of ``Delay``. Recurrent
        weights are weights.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of its kind, or a number is negative.

    Examples
    --------
    >>> optimizer = torch.optim.AdamW(snn.parameter_groups(net, weight_decay=0.01, neuron_lr=1e-2), lr=1e-3)
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"net must be a module, got {type(net).__name__}")
    _check_rate("weight_decay", weight_decay)
    if neuron_lr is not None:
        _check_rate("neuron_lr", neuron_lr)
    layers = [module for module in net.modules() if isinstance(module, (Layer, Delay))]
    own = {id(parameter) for layer in layers for parameter in layer.parameters()}
    weights = [parameter for parameter in net.parameters() if id(parameter) not in own]
    neurons = [parameter for parameter in net.parameters() if id(parameter) in own]
    groups: list[dict[str, Any]] = [
        {"params": weights, "name": "weights", "weight_decay": weight_decay},
        {"params": neurons, "name": "neurons", "weight_decay": 0.0},
    ]
    if neuron_lr is not None:
        groups[1]["lr"] = neuron_lr
    return [group for group in groups if group["params"]]


def _check_rate(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be finite and not negative, got {value!r}")
