"""Tensors as parameters of neurons. An optimiser may move them anywhere; they are put into their domains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._domains import DECAY, FREE, POSITIVE, Domain
from ..neurons import Neuron


def _in_range(domain: Domain, value: Tensor) -> Tensor:
    """Put a learnt value into its domain: a decay into [0, 1], a threshold or time constant above 0."""
    if domain is DECAY:
        return value.clamp(0.0, 1.0)
    return value.clamp_min(torch.finfo(value.dtype).eps) if domain is POSITIVE else value


def _tensor_value(name: str, parameter: Tensor, domain: Domain = FREE) -> Tensor:
    """Return a copy, put into its domain. Backward reads it even if an optimiser has changed the tensor."""
    if parameter.is_meta:
        raise TypeError(f"{name} must have values, got a parameter on the meta device")
    if not parameter.is_floating_point():
        raise TypeError(f"{name} must have a floating-point dtype, got {parameter.dtype}")
    value = parameter.detach()
    if value.dtype not in (torch.float32, torch.float64):
        value = value.float()
    return _in_range(domain, value).clone()


def number_of(name: str, parameter: Tensor, domain: Domain) -> float:
    """Return a learnt value of no dimensions, on the CPU, as the neuron uses it."""
    if not parameter.is_floating_point():
        raise TypeError(f"{name} must have a floating-point dtype, got {parameter.dtype}")
    value: float = parameter.item()
    if domain is DECAY:
        return 0.0 if value < 0.0 else 1.0 if value > 1.0 else value
    least = torch.finfo(parameter.dtype).eps
    return least if domain is POSITIVE and value < least else value


def value_of(name: str, parameter: Tensor, domain: Domain) -> np.ndarray:
    """Return a learnt value as the neuron uses it, as a NumPy array."""
    return _tensor_value(name, parameter, domain).cpu().numpy()


def with_tensors(neuron: Neuron, current: Tensor, learnt: Mapping[str, Tensor], remedy: str) -> Neuron:
    """Return the descriptor with the values of learnt tensors, which are on the device of the current.

    Values on a GPU stay there, and the CPU does not wait for them. `remedy` is a hint for the error message
    about tensors on the wrong device.
    """
    if not learnt:
        return neuron
    for name, parameter in learnt.items():
        if parameter.device != current.device and not parameter.is_meta:
            raise TypeError(
                f"{name} must be on the device of current, {current.device}, got {parameter.device}: {remedy}"
            )
    take = _tensor_value if current.is_cuda else value_of
    facts = neuron._facts()
    return neuron._with_unchecked({name: take(name, p, facts[name].domain) for name, p in learnt.items()})


def check_parameters(neuron: Neuron, parameters: Any) -> dict[str, Tensor]:
    """Check a mapping of names to tensors, and return it in the order of the neuron's parameters."""
    if not isinstance(parameters, Mapping):
        raise TypeError(f"parameters must be a mapping of names to tensors, got {type(parameters).__name__}")
    names = neuron._names()
    for name, tensor in parameters.items():
        if name not in names:
            raise ValueError(f"parameters must name parameters of the neuron, {names}, got {name!r}")
        if not isinstance(tensor, Tensor):
            raise TypeError(f"parameters[{name!r}] must be a torch tensor, got {type(tensor).__name__}")
        _check_shape(name, tuple(tensor.shape), neuron._leading(name))
    return {name: parameters[name] for name in names if name in parameters}


def _check_shape(name: str, shape: tuple[int, ...], leading: tuple[int | None, ...]) -> None:
    fits = len(shape) >= len(leading) and all(m in (None, n) for n, m in zip(shape, leading, strict=False))
    if not fits or 0 in shape:
        axes = ", ".join("K" if n is None else str(n) for n in leading)
        wanted = f"shape ({axes}, ...)" if leading else "a value"
        raise ValueError(f"parameters[{name!r}] must have {wanted}, got shape {shape}")
