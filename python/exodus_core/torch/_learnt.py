"""Tensors as parameters of neurons. An optimiser may move them anywhere; they are put into their domains."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .._domains import DECAY, POSITIVE, Facts
from ..neurons import Neuron

NO_FACTS = Facts()


def range_of(facts: Facts, dtype: torch.dtype) -> tuple[float, float]:
    """Return the ends of a learnt value's range: [0, 1] for a decay, above 0 for a threshold or tau."""
    if facts.domain is DECAY:
        return 0.0, 1.0
    return (least_of(facts.least, dtype) if facts.domain is POSITIVE else -math.inf), math.inf


def least_of(least: float, dtype: torch.dtype) -> float:
    """Return the smallest learnt value that is above 0. `least` is that of the facts, or 0."""
    return max(least, torch.finfo(dtype).eps)


def _tensor_value(name: str, parameter: Tensor, facts: Facts = NO_FACTS) -> Tensor:
    """Return a copy, put into its domain. Backward reads it even if an optimiser has changed the tensor."""
    if parameter.is_meta:
        raise TypeError(f"{name} must have values, got a parameter on the meta device")
    if not parameter.is_floating_point():
        raise TypeError(f"{name} must have a floating-point dtype, got {parameter.dtype}")
    value = parameter.detach()
    if value.dtype not in (torch.float32, torch.float64):
        value = value.float()
    return value.clamp(*range_of(facts, value.dtype))


def number_of(name: str, parameter: Tensor, facts: Facts) -> float:
    """Return a learnt value of no dimensions, on the CPU, as the neuron uses it."""
    dtype = parameter.dtype
    if not dtype.is_floating_point:
        raise TypeError(f"{name} must have a floating-point dtype, got {dtype}")
    value: float = parameter.item()
    if value - value != 0.0:  # NaN or infinite
        _refuse(name, value)
    least, most = range_of(facts, dtype)
    return least if value < least else most if value > most else value


def value_of(name: str, parameter: Tensor, facts: Facts) -> np.ndarray:
    """Return a learnt value as the neuron uses it, as a NumPy array."""
    return _tensor_value(name, parameter, facts).cpu().numpy()


def _finite_value_of(name: str, parameter: Tensor, facts: Facts) -> np.ndarray:
    value = value_of(name, parameter, facts)
    require_finite(name, parameter)
    return value


def require_finite(name: str, parameter: Tensor) -> None:
    """Raise an error if training has made a value on the CPU NaN or infinite, even where it is clamped."""
    finite = torch.isfinite(parameter.detach()) if parameter.is_cpu else None
    if finite is not None and not bool(finite.all()):
        _refuse(name, parameter.detach()[~finite][0].item())


def _refuse(name: str, value: float) -> None:
    raise ValueError(
        f"{name} must be finite, got {value!r}: an optimiser has made it so, perhaps by a gradient that was "
        "not finite"
    )


def broadcast(value: Tensor, shape: tuple[int, ...], leading: int) -> Tensor:
    """Broadcast a value to a shape. The `leading` axes of both are not the neurons'."""
    own = tuple(value.shape)
    ones = (1,) * (len(shape) - len(own))
    return value.reshape((*own[:leading], *ones, *own[leading:])).expand(shape)


@torch.no_grad()
def assign(module: nn.Module, name: str, array: np.ndarray, leading: int = 0) -> None:
    """Give a module's parameter or buffer other numbers. It remains the tensor that an optimiser may hold."""
    parametrised = parametrize.is_parametrized(module, name)
    own = getattr(module, name) if parametrised else {**module._parameters, **module._buffers}.get(name)
    if own is None:
        raise TypeError(
            f"{name} was replaced by a tensor that is no parameter: it must be set to a tensor, got {array}"
        )
    try:
        numbers = broadcast(torch.from_numpy(array).to(own), tuple(own.shape), leading)
    except RuntimeError:
        raise ValueError(f"{name} must broadcast to shape {tuple(own.shape)}, got {array.shape}") from None
    if parametrised:
        setattr(module, name, numbers.clone())  # through the right inverse
    else:
        own.copy_(numbers)


def keeping_precision(
    fn: Callable[[Tensor], Tensor], least: torch.dtype = torch.float32
) -> Callable[[Tensor], Tensor]:
    """Wrap a function that moves tensors, such that it does not convert them to less than a dtype.

    The kernels compute in float32 for narrower inputs. A decay of 0.999 would be 1 in bfloat16, and no
    optimiser could change it by less than 0.004.
    """

    def moved(tensor: Tensor) -> Tensor:
        result = fn(tensor)
        rounded = result.is_floating_point() and result.dtype.itemsize < tensor.dtype.itemsize
        return tensor.to(result.device) if rounded and result.dtype.itemsize < least.itemsize else result

    return moved


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
    facts, take = neuron._facts(), _tensor_value if current.is_cuda else _finite_value_of
    return neuron._with_unchecked({name: take(name, p, facts[name]) for name, p in learnt.items()})


def check_parameters(neuron: Neuron, parameters: Any) -> dict[str, Tensor]:
    """Check a mapping of names to tensors, and return it in the order of the neuron's parameters."""
    if not isinstance(parameters, Mapping):
        raise TypeError(f"parameters must be a mapping of names to tensors, got {type(parameters).__name__}")
    names = neuron._parameter_names()
    for name, tensor in parameters.items():
        if name not in names:
            raise ValueError(f"parameters must name parameters of the neuron, {names}, got {name!r}")
        if not isinstance(tensor, Tensor):
            raise TypeError(f"parameters[{name!r}] must be a torch tensor, got {type(tensor).__name__}")
        _check_shape(name, tuple(tensor.shape), neuron._leading_lengths(name))
    return {name: parameters[name] for name in names if name in parameters}


def _check_shape(name: str, shape: tuple[int, ...], leading: tuple[int | None, ...]) -> None:
    fits = len(shape) >= len(leading) and all(m in (None, n) for n, m in zip(shape, leading, strict=False))
    if not fits or 0 in shape:
        axes = ", ".join("K" if n is None else str(n) for n in leading)
        wanted = f"shape ({axes}, ...)" if leading else "a value"
        raise ValueError(f"parameters[{name!r}] must have {wanted}, got shape {shape}")
