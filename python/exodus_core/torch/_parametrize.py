"""`parametrize`: learnt values as functions of numbers without bounds, on ``torch.nn.utils.parametrize``."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize as torch_parametrize

from .._domains import DECAY, FREE, POSITIVE, Domain
from .._values import choice
from ._learnt import NO_FACTS, least_of, value_of
from ._modules import Layer
from ._valued import attribute_of


class _Bounded(nn.Module):
    """A value f(x) of a learnt number x. f is increasing, and x is clamped to where f has a slope.

    The gradient passes straight through the clamp, so that x can come back from beyond a bound, where f would
    be constant in floating point.
    """

    kind: ClassVar[str]
    fits: ClassVar[tuple[Domain, ...]]  # the domains that contain every value of f
    image: ClassVar[str]

    def __init__(self, name: str, least: float) -> None:
        super().__init__()
        self.name, self.least = name, least

    def f(self, x: Tensor) -> Tensor:
        """Return the value of a number."""
        raise NotImplementedError

    def inverse(self, value: Tensor) -> Tensor:
        """Return the number of a value, in float64."""
        raise NotImplementedError

    def bounds(self, dtype: torch.dtype) -> tuple[float, float]:
        """Return the smallest and the largest number that f gets."""
        raise NotImplementedError

    def holds(self, value: Tensor) -> Tensor:
        """Tell which values are in the closure of the image of f."""
        return value >= 0

    def forward(self, x: Tensor) -> Tensor:
        """Return the value."""
        clamped = x.detach().clamp(*self.bounds(x.dtype))
        return self.f(clamped + (x - x.detach()))

    def right_inverse(self, value: Tensor) -> Tensor:
        """Return the number that has a value, or, if the value is at an end of the range, one close to it."""
        good = torch.isfinite(value) & self.holds(value)
        if not bool(good.all()):
            raise ValueError(
                f"{self.name} must be {self.image}, as it is parametrised by {self.kind!r}, "
                f"got {value[~good][0].item()!r}"
            )
        low, high = self.bounds(value.dtype)
        return self.inverse(value.detach().double()).clamp(low, high).to(value.dtype)


def _digits(dtype: torch.dtype) -> float:
    """Return -log of the rounding error: sigmoid(x) has a slope up to here, and exp(-x) is not yet 0."""
    return -math.log(torch.finfo(dtype).eps)


class Sigmoid(_Bounded):
    """A value between 0 and 1. For a decay near 1, a step of x changes 1 - alpha in proportion."""

    kind = "sigmoid"
    fits = (DECAY, POSITIVE, FREE)
    image = "in [0, 1]"

    def f(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)

    def inverse(self, value: Tensor) -> Tensor:
        return torch.logit(value)

    def bounds(self, dtype: torch.dtype) -> tuple[float, float]:
        return -_digits(dtype), _digits(dtype)

    def holds(self, value: Tensor) -> Tensor:
        return (value >= 0) & (value <= 1)


class Softplus(_Bounded):
    """A value above 0: log(1 + e^x), which is x for large x."""

    kind = "softplus"
    fits = (POSITIVE, FREE)
    image = "at least 0"

    def f(self, x: Tensor) -> Tensor:
        return nn.functional.softplus(x)

    def inverse(self, value: Tensor) -> Tensor:
        return value + torch.log(-torch.expm1(-value))

    def bounds(self, dtype: torch.dtype) -> tuple[float, float]:
        least = least_of(self.least, dtype)
        return least + math.log(-math.expm1(-least)), math.inf


class Exp(_Bounded):
    """A value above 0: e^x. A step of x changes it in proportion, whatever its unit."""

    kind = "exp"
    fits = (POSITIVE, FREE)
    image = "at least 0"

    def f(self, x: Tensor) -> Tensor:
        return torch.exp(x)

    def inverse(self, value: Tensor) -> Tensor:
        return torch.log(value)

    def bounds(self, dtype: torch.dtype) -> tuple[float, float]:
        least = least_of(self.least, dtype)
        return math.log(least), 0.5 * math.log(torch.finfo(dtype).max)


_KINDS: dict[str, type[_Bounded]] = {part.kind: part for part in (Sigmoid, Softplus, Exp)}


def parametrize(layer: Layer, name: str, kind: str) -> Layer:
    """Learn a value of a layer as a function of a number that has no bounds.

    A value that is learnt directly is clamped to its range, and an optimiser moves it in units of its own: by
    Adam's usual 0.001 per step, a time constant of 20 hardly changes. As ``"exp"`` of a number, every time
    constant changes by 0.1 % per step, and as ``"sigmoid"`` of one, a decay near 1 changes its distance
    from 1 in proportion. Neither can leave its range, nor reach an end of it, where its gradient would be 0.

    The value remains an attribute, such as ``layer.alpha``, and can be set. The number is the parameter
    ``layer.parametrizations.alpha.original``. This is ``torch.nn.utils.parametrize``, whose functions work on
    the layer, such as ``remove_parametrizations(layer, "alpha")``. Call this function before the optimiser
    is made.

    Parameters
    ----------
    layer : Layer
        A layer, such as ``snn.LIF(alpha=0.9, learn=("alpha",))``.
    name : str
        A value that the layer learns, such as "alpha", "tau" or "epsilon.tau".
    kind : {"sigmoid", "softplus", "exp"}
        "sigmoid" is 1 / (1 + e^-x), for decays and other values between 0 and 1. "softplus" is log(1 + e^x)
        and "exp" is e^x, for time constants, thresholds and other values above 0.

    Returns
    -------
    Layer
        The layer, which is changed in place. Its value is the same, to rounding; a value at an end of the
        range, such as a decay of 1, moves just inside. A time constant is at least 1/16 of a step.

    Raises
    ------
    ValueError, TypeError
        If the layer does not learn the value, or if `kind` has values that are not in its range, or if it is
        parametrised already.

    Examples
    --------
    >>> layer = snn.parametrize(snn.LIF(tau=20.0, learn=("tau",)), "tau", "exp")
    >>> round(layer.tau.item(), 4), round(layer.parametrizations.tau.original.item(), 4)
    (20.0, 2.9957)
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"layer must be a spiking layer such as LIF, got {type(layer).__name__}")
    learnt = (*layer._learn_names, *layer._learn_states)
    if not isinstance(name, str) or name not in learnt:
        raise ValueError(f"name must be that of a learnt value, {list(learnt)}, got {name!r}")
    choice("kind", kind, tuple(_KINDS))
    attribute, facts = attribute_of(name), layer._given._facts().get(name, NO_FACTS)
    if torch_parametrize.is_parametrized(layer, attribute):
        raise ValueError(f"name must be that of a value that is not parametrised yet, got {name!r}")
    if attribute not in layer._parameters:
        raise ValueError(f"{attribute} must be a parameter, got one that was replaced, or pruned: {name!r}")
    chosen = _KINDS[kind]
    if facts.domain not in chosen.fits:
        raise ValueError(f"kind must have values that are {facts.domain.text}, as {name}, got {kind!r}")
    parameter: Any = layer._parameters[attribute]
    if parameter.is_meta:
        raise TypeError(f"{name} must have values to be parametrised, got a parameter on the meta device")
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(value_of(name, parameter, facts)))
    torch_parametrize.register_parametrization(layer, attribute, chosen(name, facts.least))
    return layer
