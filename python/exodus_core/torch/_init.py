"""``init_``: scale the weights of a network so that every layer fires from the start."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .._forward import forward
from ..neurons import Neuron
from ._function import Trace
from ._modules import Layer
from ._observing import first_tensor, observed
from ._stateful import Stateful, reset_state

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm, nn.LayerNorm)
_SCALED = (nn.Linear, nn.Bilinear, nn.Embedding, nn.modules.conv._ConvNd, *_NORMS)
_NEVER = 1e30  # a threshold that no potential reaches
_MOST_PASSES = 60  # per layer


def calculate_gain(
    neuron: Neuron,
    steps: int,
    *,
    target_rate: float = 0.1,
    mean: float = 0.0,
    variance: float = 1.0,
    shape: tuple[int, ...] = (),
) -> float:
    """Compute the gain of weights before a spiking layer: their standard deviation is gain / sqrt(fan_in).

    Let k[n] be the response of the potential to a current of 1 at step 0, (gain alpha^n for an LIF). Inputs
    that are independent over time, with the given mean m and variance v, and independent weights of mean 0
    and variance Var w, give a potential without reset of the variance

        Var u[n] = fan_in Var w (v sum_{i<=n} k[i]^2 + m^2 (sum_{i<=n} k[i])^2).

    For a long input to an LIF the sums are gain^2 / (1 - alpha^2) and gain^2 / (1 - alpha)^2. If u is normal,
    it exceeds the threshold at a fraction `target_rate` of the steps where its standard deviation is
    threshold / z, with z the quantile of the normal distribution at 1 - target_rate. The gain is the one that
    gives this standard deviation on average over the steps. It leaves out the reset, so the layer fires a
    little less: ``init_`` measures and corrects it.

    Parameters
    ----------
    neuron : Neuron
        A descriptor of a neuron that fires, such as ``layer.neuron``.
    steps : int
        The number of steps.
    target_rate : float, optional
        The spikes per neuron and step. Above 0.4 it counts as 0.4.
    mean, variance : float, optional
        Of the input over steps and neurons. For spikes of rate p they are p and p (1 - p).
    shape : tuple of int, optional
        The shape of the neurons, if the values of the neuron are arrays.

    Returns
    -------
    float
        The gain.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    if not isinstance(neuron, Neuron) or not neuron._fires:
        raise TypeError(f"neuron must be a descriptor of a neuron that fires, got {neuron!r:.80}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a positive integer, got {steps!r}")
    _check_rate(target_rate)
    if not (math.isfinite(mean) and math.isfinite(variance) and variance >= 0):
        raise ValueError(f"mean must be finite and variance at least 0, got {mean} and {variance}")
    impulse = np.zeros((steps, *shape))
    impulse[0] = 1.0
    response = forward(neuron._with({"threshold": _NEVER}), impulse).potential
    squares, sums = np.cumsum(response**2, axis=0), np.cumsum(response, axis=0)
    power = float(np.mean(variance * squares + mean**2 * sums**2))
    if power == 0:
        raise ValueError(f"mean and variance must make a potential, got {mean} and {variance} for {neuron!r}")
    threshold = float(np.mean(neuron._value_of("threshold")))
    return threshold / (NormalDist().inv_cdf(1 - min(target_rate, 0.4)) * math.sqrt(power))


def init_(net: nn.Module, x: Any, *, target_rate: float = 0.1, tolerance: float = 0.1) -> dict[str, float]:
    """Scale the weights of a network in place, so that every spiking layer fires at a rate from the start.

    A deep spiking network with the usual initial weights is often silent after a few layers, and then its
    gradients vanish. Layer by layer, from the input on, the weights and the bias of the last module with
    weights before the layer (``Linear``, ``Conv``, ``BatchNorm``, ...) are multiplied by one number. It
    starts from the gain of ``calculate_gain``. The rate is then measured on `x`, and the number is bisected
    until the rate is at the target. So the weights keep their distribution, which may come from any of
    torch's initialisers.

    Layers whose output is the potential, as of an ``ExpLeak``, stay as they are. Dropout is off. Batch
    normalisation works in its own mode: in training, with the statistics of the batch. Modes, buffers, kept
    states, gradients and the state of the random number generators are what they were before. Nothing in it
    is random: the same weights and the same `x` give the same result. If it fails, the weights are what they
    were.

    Parameters
    ----------
    net : nn.Module
        A network of any modules that is called as ``net(x)``.
    x : Tensor or iterable
        A batch of typical inputs, or a ``DataLoader`` that makes them, of which the first batch is taken. Of
        a batch ``(inputs, labels)`` the inputs are taken.
    target_rate : float, optional
        Spikes per neuron and step, between 0 and 1. Weights with a mean of 0, as of torch's initialisers,
        reach about 0.4, since half of the potentials are negative.
    tolerance : float, optional
        The relative deviation from `target_rate` that is accepted.

    Returns
    -------
    dict of str to float
        The rate of every layer that fires, by name, measured on `x` with the final weights.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    RuntimeError
        If no scale of a module's weights brings its layer to the rate.

    Warns
    -----
    UserWarning
        If a layer has no weights before it, or ends up away from the target.
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"net must be a torch module, got {type(net).__name__}")
    lazy = [name for name, p in net.named_parameters() if nn.parameter.is_lazy(p)]
    if lazy:
        raise ValueError(f"net must have its weights, got {lazy[0]} without a shape: run it once before")
    _check_rate(target_rate)
    if not isinstance(tolerance, (int, float)) or not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be between 0 and 1, got {tolerance!r}")
    with _unchanged(net):
        probe = _Probe(net, _first_batch(x))
        parts = probe.parts()
        for part in parts:
            if part.module is None:
                _warn_of_missing_weights(part)
            else:
                _scale(probe, part, target_rate, tolerance)
        probe.run()
        scaled = [part.name for part in parts if part.module is not None]
        _warn_of_missed_rates(scaled, probe.rates, target_rate, tolerance)
        return probe.rates


def _check_rate(rate: Any) -> None:
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < 1:
        raise ValueError(f"target_rate must be between 0 and 1, in spikes per neuron and step, got {rate!r}")


def _first_batch(x: Any) -> Tensor:
    batch = x
    while not isinstance(batch, Tensor):
        try:
            if isinstance(batch, (str, bytes, Mapping)):  # their iterators lead to no tensor
                raise TypeError
            batch = next(iter(batch))
        except (TypeError, StopIteration):
            inside = "" if batch is x else f" with {type(batch).__name__}"
            raise TypeError(
                "x must be a batch of inputs, a tensor, or a DataLoader of them, got "
                f"{type(x).__name__}{inside}"
            ) from None
    if batch.numel() == 0:
        raise ValueError(f"x must have sequences and steps, got shape {tuple(batch.shape)}")
    if batch.isnan().any():
        raise ValueError(f"x must not contain NaN, got {int(batch.isnan().sum())} of {batch.numel()} values")
    return batch


@contextmanager
def _unchanged(net: nn.Module) -> Iterator[None]:
    """Restore all that passes over a network change, and its weights if they fail."""
    modes = [(module, module.training) for module in net.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in net.buffers()]
    weights = [(p, p.detach().clone()) for p in net.parameters()]
    kept = [(memory, memory.state, memory.kind) for memory in _memories(net)]
    devices = sorted({p.get_device() for p in net.parameters() if p.is_cuda})
    with torch.no_grad(), torch.random.fork_rng(devices):
        try:
            for module, _ in modes:
                if not isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.training = False
            yield
        except BaseException:
            _restore(weights)
            raise
        finally:
            _restore(buffers)
            for module, mode in modes:
                module.training = mode
            for memory, state, kind in kept:
                memory.state, memory.kind = state, kind


def _memories(net: nn.Module) -> list[Any]:
    """Return the memories of the stateful modules in a network."""
    stateful = (module for module in net.modules() if isinstance(module, Stateful))
    return [module._kept for module in stateful if module._kept is not None]


def _restore(values: list[tuple[Any, Tensor]]) -> None:
    for tensor, value in values:
        tensor.copy_(value)


class _Reached(Exception):
    """Ends a pass at the layer that is measured."""


@dataclass
class _Part:
    """A spiking layer, and the module whose weights set its rate."""

    name: str
    layer: Layer
    current: Tensor | None = None
    time_dim: int | None = None
    module: nn.Module | None = None
    module_name: str = ""
    mean: float = 0.0  # of the module's input
    variance: float = 1.0

    def __str__(self) -> str:
        return f"layer {self.name!r} ({type(self.layer).__name__}, time_dim={self.layer.time_dim})"


class _Probe:
    """Passes over a network that see the layers' rates."""

    def __init__(self, net: nn.Module, x: Tensor) -> None:
        self.net, self.x = net, x
        self.rates: dict[str, float] = {}
        self.values = 0  # neurons times sequences times steps of the last layer that ran
        self._names = {module: name for name, module in net.named_modules()}
        self._layers = {m: n for m, n in self._names.items() if _fires(m)}
        if not self._layers:
            raise ValueError(f"net must contain a spiking layer, got {type(net).__name__} without any")
        self._generator = torch.random.get_rng_state()

    def run(self, until: Layer | None = None, see: Callable[..., None] | None = None) -> None:
        """Run the network, to its end or to a layer. The function sees modules with weights, and layers."""
        self.rates = {}

        def observe(layer: Any, current: Tensor, trace: Trace, time_dim: int | None, *others: Any) -> None:
            if self._layers[layer] in self.rates:
                return  # a layer in several places counts at the first one
            self.values = trace.spikes.numel()  # type: ignore[union-attr]
            self.rates[self._layers[layer]] = float(trace.spikes.mean(dtype=torch.float64))  # type: ignore[union-attr]
            if see is not None:
                see(layer, current, time_dim)
            if layer is until:
                raise _Reached

        def see_module(module: nn.Module, given: tuple[Any, ...], keywords: Any, result: Any) -> None:
            x = first_tensor(given, keywords)
            if see is not None and x is not None:
                see(module, x, None)

        torch.random.set_rng_state(self._generator)
        reset_state(self.net)
        hooks = []
        if see is not None:
            modules = (m for m in self._names if isinstance(m, _SCALED))
            hooks = [m.register_forward_hook(see_module, with_kwargs=True) for m in modules]
        with observed(list(self._layers), observe):
            try:
                self.net(self.x)
            except _Reached:
                pass
            finally:
                for hook in hooks:
                    hook.remove()

    def parts(self) -> list[_Part]:
        """Run the network once, and return its spiking layers in the order in which they run."""
        parts: list[_Part] = []
        last: list[nn.Module] = []

        def see(module: nn.Module, given: Tensor, time_dim: int | None) -> None:
            if not isinstance(module, Layer):
                last[:] = [module]
                return
            part = _Part(self._names[module], module, given, time_dim)
            if last:
                part.module = last.pop()
                part.module_name = self._names[part.module]
            parts.append(part)

        self.run(see=see)
        return parts

    def look(self, part: _Part) -> None:
        """Run the network up to a layer, and note its current and the input of the module before it."""

        def see(module: nn.Module, given: Tensor, time_dim: int | None) -> None:
            if module is part.layer:
                part.current, part.time_dim = given, time_dim
            elif module is part.module and not isinstance(module, (*_NORMS, nn.Embedding)):
                part.mean = float(given.mean(dtype=torch.float64))
                part.variance = float(given.double().var(correction=0))

        self.run(until=part.layer, see=see)


def _fires(module: nn.Module) -> bool:
    return isinstance(module, Layer) and module._given._fires and module.output != "potential"


def _scale(probe: _Probe, part: _Part, target: float, tolerance: float) -> None:
    """Bisect the scale of a module's weights until its layer fires at the target."""
    assert part.module is not None
    weights = [
        (name, value.detach().clone())
        for name in ("weight", "bias")
        if isinstance(value := getattr(part.module, name, None), Tensor)
    ]
    owner = f"{part.module_name!r} ({type(part.module).__name__})"
    if not weights:
        raise RuntimeError(f"{part} follows {owner}, which normalises and has no weights: use affine=True")
    probe.look(part)
    start = _start(part, dict(weights)["weight"], target)
    tried: dict[float, float] = {}

    def rate_at(scale: float) -> float:
        for name, value in weights:
            _set(part.module, name, value * scale)
        probe.run(until=part.layer)
        tried[scale] = probe.rates[part.name]
        return tried[scale]

    best = _bisect(rate_at, start, target, tolerance)
    if best is None:
        low, high = min(tried.values()), max(tried.values())
        raise RuntimeError(
            f"no scale of the weights of {owner} brings {part} to target_rate={target}: its rate lies "
            f"between {low:.3g} and {high:.3g}. Check time_dim, the input, the threshold, and weights of 0; "
            "above about 0.4 the weights need a positive mean"
        )
    if (tried[best] if best == next(reversed(tried)) else rate_at(best)) == 0:
        raise RuntimeError(
            f"{part} is silent below some scale of the weights of {owner}, and above it fires far more than "
            f"target_rate={target}: its {probe.values} neurons and steps with x are too few for this rate, "
            "or all neurons fire together"
        )


def _bisect(rate_at: Callable[[float], float], start: float, target: float, tolerance: float) -> float | None:
    """Return the scale whose rate comes closest to the target, or None if no scales enclose it."""
    low = high = None
    scale, best, distance = start, start, math.inf
    for _ in range(_MOST_PASSES):
        rate = rate_at(scale)
        if abs(rate - target) < distance:
            best, distance = scale, abs(rate - target)
        if distance <= tolerance * target:
            return best
        low, high = (scale, high) if rate < target else (low, scale)
        if low is not None and high is not None:
            if abs(high / low - 1) < 1e-6:
                return best
            scale = math.sqrt(low * high)
        else:
            scale *= 2.0 if high is None else 0.5
    return best if low is not None and high is not None else None


def _start(part: _Part, weight: Tensor, target: float) -> float:
    """Return the scale at which the weights have the gain of ``calculate_gain``."""
    assert part.current is not None
    steps, shape = _steps_and_shape(part.current, part.time_dim)
    neuron = part.layer.neuron
    try:
        gain = calculate_gain(
            neuron, steps, target_rate=target, mean=part.mean, variance=part.variance, shape=shape
        )
    except ValueError:
        return 1.0  # there is no input: bisection finds out
    is_norm = isinstance(part.module, (*_NORMS, nn.Embedding))
    fan_in = 1 if is_norm else weight[0].numel()
    size = float(weight.double().square().mean().sqrt())
    start = gain / math.sqrt(fan_in) / size if size > 0 else 1.0
    return start if math.isfinite(start) and start > 0 else 1.0


def _steps_and_shape(current: Tensor, time_dim: int | None) -> tuple[int, tuple[int, ...]]:
    """Return the number of steps, and the shape of the neurons of one sequence, the batch being 1."""
    shape = list(current.shape)
    steps = 1 if time_dim is None else shape.pop(time_dim % current.dim())
    return steps, tuple([1, *shape[1:]] if shape else [])


def _set(module: Any, name: str, value: Tensor) -> None:
    if parametrize.is_parametrized(module, name):
        setattr(module, name, value)
    else:
        getattr(module, name).copy_(value)


def _warn_of_missing_weights(part: _Part) -> None:
    warnings.warn(
        f"{part} has no weights before it that init_ could scale (Linear, Conv, BatchNorm, ...): its rate is "
        "what its input makes it. Set its gain or its threshold",
        stacklevel=3,
    )


def _warn_of_missed_rates(
    scaled: list[str], rates: dict[str, float], target: float, tolerance: float
) -> None:
    away = [name for name in scaled if abs(rates[name] - target) > tolerance * target]
    if away:
        shown = ", ".join(f"{name!r}: {rates[name]:.3g}" for name in away)
        warnings.warn(
            f"these layers do not fire at target_rate={target} within {tolerance:.0%}: {shown}. They share "
            "weights with other layers, or x has too few neurons and steps",
            stacklevel=3,
        )
