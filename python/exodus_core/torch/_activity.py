"""The counts of a `Monitor`: the activity of spiking layers, and the synaptic operations of weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ._function import Trace
from ._functional import growth
from ._modules import Layer
from ._observing import sizes, time_and_batch_first

# Joules at 45 nm and 0.9 V, in 32-bit floating point: an addition 0.9 pJ, a multiplication 3.7 pJ.
# Source: M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, pp. 10-14.
ENERGY_ACCUMULATE = 0.9e-12
ENERGY_MULTIPLY_ADD = 4.6e-12

_Convolution = nn.modules.conv._ConvNd
WEIGHTED = (nn.Linear, _Convolution)


@dataclass
class LayerActivity:
    """The activity of a spiking layer in the calls that a `Monitor` has seen.

    Attributes
    ----------
    name, kind : str
        The layer's name in the network, and its class.
    time_dim : int
        The layer's dimension of time.
    sizes : list of tuple of int
        The different (time, batch) sizes of its inputs.
    size : tuple of int
        The (time, batch) size of the last input.
    batch_is_silent, batch_is_saturated : bool
        Whether no neuron fired in the last call, or all did at every step.
    calls : int
        The number of calls.
    potential_min, potential_max : float
        The range of the potential before the reset.
    growth : float
        The fraction of steps at which the exact gradient grows (``snn.growth``), in the first call. NaN if it
        was not measured, as for layers on a GPU.
    """

    name: str
    kind: str
    time_dim: int
    sizes: list[tuple[int, int]] = field(default_factory=list)
    calls: int = 0
    potential_min: float = math.inf
    potential_max: float = -math.inf
    growth: float = math.nan
    size: tuple[int, int] = (0, 0)
    batch_is_silent: bool = False
    batch_is_saturated: bool = False
    _most: int = 0  # steps and sequences in the largest call
    _spikes: float = 0.0
    _values: int = 0
    _fired: dict[tuple[int, ...], tuple[Tensor, int]] = field(default_factory=dict, repr=False)

    @property
    def rate(self) -> float:
        """Spikes per neuron and step; NaN for neurons without spikes."""
        return self._spikes / self._values if self._values else math.nan

    @property
    def neurons(self) -> int:
        """The number of neurons, in a sequence."""
        return sum(fired.numel() for fired, _ in self._fired.values())

    @property
    def silent(self) -> float:
        """The fraction of neurons that have not fired at all."""
        return self._share(lambda fired, steps: fired == 0)

    @property
    def saturated(self) -> float:
        """The fraction of neurons that have fired at every step."""
        return self._share(lambda fired, steps: fired == steps)

    def _share(self, condition: Any) -> float:
        found = sum(int(condition(fired, steps).sum()) for fired, steps in self._fired.values())
        return found / self.neurons if self.neurons else math.nan

    def add(self, current: Tensor, trace: Trace, time_dim: int | None, most: int | None) -> None:
        """Count a call of a layer whose neurons fire at most a number of spikes at a step."""
        self.calls += 1
        size = sizes(current, time_dim)
        self.size = size
        self._most = max(self._most, size[0] * size[1])
        if size not in self.sizes:
            self.sizes.append(size)
        if trace.potential.numel() > 0:
            low, high = torch.aminmax(trace.potential.detach())
            # These functions keep a NaN.
            self.potential_min = float(np.minimum(self.potential_min, low.item()))
            self.potential_max = float(np.maximum(self.potential_max, high.item()))
        if trace.spikes is not None:
            self._count(time_and_batch_first(trace.spikes.detach(), time_dim), most == 1)

    def _count(self, spikes: Tensor, is_binary: bool) -> None:
        steps = spikes.shape[0] * spikes.shape[1]
        counts = sum_of_whole_numbers(spikes, (0, 1))
        fired = counts if is_binary else (spikes != 0).sum(dim=(0, 1)).double()
        self.batch_is_silent = spikes.numel() > 0 and not bool(fired.any())
        self.batch_is_saturated = spikes.numel() > 0 and bool((fired == steps).all())
        self._spikes += counts.sum().item()
        self._values += spikes.numel()
        before, steps_before = self._fired.get(tuple(fired.shape), (0, 0))
        self._fired[tuple(fired.shape)] = fired + before, steps + steps_before

    def is_whole_batch(self) -> bool:
        """Tell whether the last call was no short piece of a batch, as of sequences of different lengths."""
        return 2 * self.size[0] * self.size[1] >= self._most

    def measure_growth(self, layer: Layer, trace: Trace) -> None:
        """Measure ``growth`` where it is defined: on the CPU, for neurons whose gradient has a factor."""
        if trace.spikes is None or trace.potential.is_cuda or trace.potential.numel() == 0:
            return
        try:
            self.growth = growth(trace, layer.surrogate)
        except TypeError:
            return  # an SRM without such a factor, or a trace of an operator


@dataclass
class SynapticOperations:
    """The operations of a module with weights, or of recurrent weights, in the calls of a `Monitor`.

    Attributes
    ----------
    name, kind : str
        The module's name in the network, and its class.
    accumulates : float
        Additions of a weight to a current: for each spike, its fan-out. The fan-out of a convolution is
        exact, also at the borders and with strides. Recurrent spikes count in the call that emits them.
    multiply_adds : float
        Multiply-adds, in calls whose input is not spikes (whole numbers that are not negative): one per
        connection and step.
    dense : float
        The multiply-adds of the dense twin, with the same weights at every step.
    """

    name: str
    kind: str
    accumulates: float = 0.0
    multiply_adds: float = 0.0
    dense: float = 0.0
    _fan_outs: dict[tuple[int, ...], Tensor] = field(default_factory=dict, repr=False)

    @property
    def energy(self) -> float:
        """The estimate in joules: 0.9 pJ for an accumulate, 4.6 pJ for a multiply-add.

        These are Horowitz' figures for 32-bit floating point at 45 nm (ISSCC 2014). Memory accesses and the
        neurons' own updates are not counted.
        """
        return ENERGY_ACCUMULATE * self.accumulates + ENERGY_MULTIPLY_ADD * self.multiply_adds

    @property
    def dense_energy(self) -> float:
        """The estimate in joules for the dense twin."""
        return ENERGY_MULTIPLY_ADD * self.dense

    def add(self, module: nn.Module, given: Tensor, is_known: bool = False) -> None:
        """Count a call of a module. It may be known that the input is spikes, which saves passes over it."""
        dims = 1 if isinstance(module, nn.Linear) else len(module.kernel_size) + 1  # type: ignore[arg-type]
        shape = tuple(given.shape[given.dim() - dims :])
        if shape not in self._fan_outs:
            self._fan_outs[shape] = fan_out(module, shape).to(given.device)
        self._add(given.detach(), self._fan_outs[shape], is_known)

    def add_recurrent(self, spikes: Tensor, time_dim: int | None, weight: Tensor) -> None:
        """Count a call of recurrent weights, where weights of 0 are no connections.

        A spike counts in the call that emits it, so that chunks of time and single steps sum to the whole.
        """
        self._add(
            time_and_batch_first(spikes.detach(), time_dim),
            (weight.detach() != 0).sum(1).to(torch.float32),
            True,
        )

    def _add(self, x: Tensor, fan_out: Tensor, is_known: bool) -> None:
        connections = fan_out.sum(dtype=torch.float64).item()
        dense = connections * (x.numel() // max(fan_out.numel(), 1))
        self.dense += dense
        if is_known or are_spikes(x):
            samples = tuple(range(x.dim() - fan_out.dim()))
            counts = sum_of_whole_numbers(x, samples) if samples else x
            self.accumulates += (counts * fan_out).sum(dtype=torch.float64).item()
        else:
            self.multiply_adds += dense


def are_spikes(x: Tensor) -> bool:
    """Tell whether all values are whole numbers that are not negative: spikes, or counts of spikes."""
    if not x.is_floating_point() or x.numel() == 0:
        return True
    first = x[(0,) * (x.dim() - 1)]  # most inputs that are not spikes show it here
    return all(torch.equal(y, y.trunc()) and bool(y.amin() >= 0) for y in (first, x))


def sum_of_whole_numbers(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Sum whole numbers, which float32 does exactly below 2^24, in half the time of float64."""
    return x.sum(dims, dtype=torch.promote_types(x.dtype, torch.float32)).double()


def fan_out(module: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Return the number of outputs that each input of a module contributes to, for an input of a shape."""
    if isinstance(module, nn.Linear):
        return torch.full(shape, float(module.out_features), dtype=torch.float32, device="cpu")
    # The modes of the call that is watched must not reach this computation.
    with torch.inference_mode(False), torch.autocast("cpu", enabled=False):
        return _fan_out_of_convolution(module, shape)


def _fan_out_of_convolution(module: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Return the gradient of the sum of all outputs with weights of 1."""
    assert isinstance(module, _Convolution)
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    keywords = {name: getattr(module, name) for name in (*names, "padding_mode")}
    if module.transposed:
        keywords["output_padding"] = module.output_padding
    kind: Any = next(kind for kind in _KINDS if isinstance(module, kind))
    twin: Any = nn.utils.skip_init(kind, **keywords, bias=False, device="cpu", dtype=torch.float32)
    nn.init.ones_(twin.weight)
    x = torch.zeros(1, *shape, dtype=torch.float32, device="cpu")
    # This works inside of other transforms, which torch.autograd does not.
    outputs, gradient_of = torch.func.vjp(twin, x)  # type: ignore[misc]
    counts: Tensor = gradient_of(torch.ones_like(outputs))[0][0]
    return counts


_KINDS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
