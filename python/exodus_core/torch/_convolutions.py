"""Convolutions of spikes for torch: `Conv1d` and `Conv2d`, which visit the spikes only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import _core
from .._backends.tensors import TENSORS, new, type_name_of
from .._products import Engine, Estimate, Packed, estimated, vectors
from ._function import _thread_count, differentiable_once
from ._handing import Recipe, is_asked
from ._products import Call, EngineModule, Saved, handles, in_autocast, offer_recipe, pack, takes_events

_FEW = 8  # channels, below which torch's own convolutions are slow (benchmarks/products.py)
# How much longer a multiplication takes in torch's convolutions than in its matrix products, by the number of
# channels.
_SLOWER = ((1, 30.0), (2, 8.0), (4, 2.2), (8, 0.65), (16, 0.75))
_OVERLAPPING = 11  # vectors; a spike that adds fewer waits for those of its neighbour, which they overlap
_WRITTEN = 0.5  # nanoseconds of an element of the result


class Axis(NamedTuple):
    """Height or width of a convolution."""

    size: int
    kernel: int
    stride: int
    padding: int
    dilation: int

    @property
    def output(self) -> int:
        """The size of the result."""
        return (self.size + 2 * self.padding - self.dilation * (self.kernel - 1) - 1) // self.stride + 1


class Geometry(NamedTuple):
    """The sizes of a convolution."""

    frames: int
    channels: int
    outputs: int
    groups: int
    y: Axis
    x: Axis

    @property
    def inputs(self) -> int:
        """The number of elements of a frame."""
        return self.channels * self.y.size * self.x.size

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result."""
        return self.frames, self.outputs, self.y.output, self.x.output

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """The sizes that the extension takes beside the axes."""
        return self[:4]

    @property
    def fewest_channels(self) -> int:
        """The smaller number of channels of a group, of input and result."""
        return min(self.channels, self.outputs) // self.groups

    @lru_cache(maxsize=256)  # noqa: B019 (a tuple, which keeps nothing alive)
    def estimate(self, type_name: str) -> Estimate:
        """Estimate the times of the convolution."""
        outputs, joined = self.outputs // self.groups, self.x.kernel * self.outputs // self.groups
        planes, together = (
            self.y.kernel * n for n in (outputs * -(-self.x.kernel // 4), vectors(joined, type_name))
        )
        per_spike = min(planes, max(together, _OVERLAPPING))
        inputs = self.frames * self.inputs
        results = self.frames * self.outputs * self.y.output * self.x.output
        taps = self.channels // self.groups * self.y.kernel * self.x.kernel
        slower = [factor for channels, factor in _SLOWER if channels <= self.fewest_channels][-1]
        return estimated(inputs, per_spike, slower * results * taps, type_name, _WRITTEN * results)

    @property
    def has_direct_gradient(self) -> bool:
        """Whether the input's gradient is computed by a kernel of this library, for few channels."""
        return self.y.stride == self.x.stride == 1 and self.fewest_channels < _FEW


@lru_cache(maxsize=256)
def geometry_of(
    shape: tuple[int, ...],
    outputs: int,
    groups: int,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: tuple[int, ...],
) -> Geometry | None:
    """Return the sizes of a convolution; None without a result, or if the padding differs between two sides.

    `padding` has the last axis first, before and behind it.
    """
    before, behind = padding[::2][::-1], padding[1::2][::-1]
    own = zip(shape[2:], kernel, stride, before, dilation, strict=True)
    axes = [Axis(*axis) for axis in own]
    if before != behind or any(axis.size < 1 or axis.output < 1 for axis in axes):
        return None
    y, width = (Axis(1, 1, 1, 0, 1), *axes)[-2:]
    return Geometry(shape[0], shape[1], outputs, groups, y, width)


def _convolve(geometry: Geometry, packed: Packed, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve packed frames of spikes, and add the bias."""
    y = new(geometry.shape, weight.dtype)
    own, own_bias = (None if t is None else t.resolve_neg().contiguous() for t in (weight, bias))
    sizes = geometry.sizes, geometry.y, geometry.x
    tensors = TENSORS.handle(own), TENSORS.handle(own_bias), y.data_ptr()
    name = type_name_of(weight.dtype)
    _core.convolution(name, *sizes, packed.spikes, handles(packed), *tensors, _thread_count())
    return y


class _Convolution(torch.autograd.Function):
    """The convolution of frames (frames, channels, height, width) as a function of its tensors."""

    @staticmethod
    def forward(
        ctx: Any, geometry: Geometry, packed: Packed | None, x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.geometry, ctx.saved = geometry, Saved.keep(ctx, weight, packed, x if packed is None else None)
        if packed is None:
            return torch.conv2d(x, weight, bias, *_arguments(geometry), geometry.groups)
        return _convolve(geometry, packed, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return differentiable_once(_Convolution._gradients, ctx, grads)

    @staticmethod
    def _gradients(ctx: Any, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        _, _, with_x, with_weight, with_bias = ctx.needs_input_grad
        (grad,) = grads
        if grad is None:
            return (None,) * 5
        geometry: Geometry = ctx.geometry
        weight, x, packed = ctx.saved.restore(ctx.saved_tensors)
        dense = x is not None
        direct = with_x and geometry.has_direct_gradient
        # The kernels compute the gradients at which they are faster, and torch the others.
        grad_x = new(_input_shape(geometry), weight.dtype) if direct else None
        grad_weight = weight.new_empty(weight.shape) if with_weight and not dense else None
        grad_bias = weight.new_empty(geometry.outputs) if with_bias and not dense else None
        if any(t is not None for t in (grad_x, grad_weight, grad_bias)):
            g, own = grad.resolve_neg().contiguous(), weight.resolve_neg().contiguous()
            name = type_name_of(weight.dtype)
            arguments = name, geometry.sizes, geometry.y, geometry.x, packed.spikes, handles(packed)
            results = TENSORS.handle(grad_weight), TENSORS.handle(grad_bias)
            last = own.data_ptr(), TENSORS.handle(grad_x), _thread_count()
            _core.convolution_gradients(*arguments, g.data_ptr(), *results, *last)
        left = with_x and not direct, with_weight and dense, with_bias and dense
        if any(left):
            found = _torchs_gradients(geometry, grad, x, weight, left)
            grad_x, grad_weight, grad_bias = (
                a if b is None else b for a, b in zip((grad_x, grad_weight, grad_bias), found, strict=True)
            )
        return None, None, grad_x, grad_weight, grad_bias


def _arguments(geometry: Geometry) -> tuple[list[int], list[int], list[int]]:
    """Return strides, paddings and dilations, as torch takes them."""
    axes = geometry.y, geometry.x
    return [a.stride for a in axes], [a.padding for a in axes], [a.dilation for a in axes]


def _input_shape(geometry: Geometry) -> tuple[int, ...]:
    return geometry.frames, geometry.channels, geometry.y.size, geometry.x.size


def _torchs_gradients(
    geometry: Geometry, grad: Tensor, x: Tensor | None, weight: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """Compute gradients of input, weight and bias by torch. The input's own needs no values of the input."""
    if x is None:
        x = weight.new_zeros(()).expand(_input_shape(geometry))
    found: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
        grad, x, weight, [geometry.outputs], *_arguments(geometry), False, [0, 0], geometry.groups, wanted
    )
    return found


def spike_convolution(
    call: Call, geometry: Geometry, x: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor | None:
    """Convolve frames of spikes, or return None where all is faster by torch's convolution."""
    call.direct = geometry.has_direct_gradient
    handed = pack(call, x, geometry.frames, geometry.inputs, geometry.estimate(type_name_of(x.dtype)))
    packed = None if handed is None else handed.packed
    if packed is not None:
        call.used = "events"
    elif not (x.requires_grad and torch.is_grad_enabled() and call.direct):
        return None
    y: Tensor = _Convolution.apply(geometry, packed, x, weight, bias)
    if packed is not None and is_asked(Recipe):
        offer_recipe(y, partial(_convolve, geometry), packed, weight, bias)
    return y


class _ConvolutionModule(EngineModule):
    """The base of `Conv1d` and `Conv2d`, in front of torch's own."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Any = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        engine: Engine = "auto",
    ) -> None:
        sizes = in_channels, out_channels, kernel_size, stride, padding, dilation
        super().__init__(*sizes, groups, bias, padding_mode, device, dtype)
        self.engine = engine

    def _geometry(self, x: Tensor) -> Geometry | None:
        """Return the sizes of a convolution of frames; None if torch is to compute it, or to refuse it."""
        kernel: Any = self.kernel_size
        if self.padding_mode != "zeros" or x.dim() != len(kernel) + 2 or x.shape[1] != self.in_channels:
            return None
        axes: Any = kernel, self.stride, self.dilation
        padding: Any = self._reversed_padding_repeated_twice
        return geometry_of(tuple(x.shape), self.out_channels, self.groups, *axes, tuple(padding))

    def _by_kernels(self, call: Call, input: Tensor) -> Tensor | None:
        batched = input.dim() == len(self.kernel_size) + 2  # type: ignore[arg-type]
        x, weight, bias = in_autocast(input if batched else input.unsqueeze(0), self.weight, self.bias)
        if not takes_events(call, x, weight, bias):
            return None
        geometry = self._geometry(x)
        if geometry is None:
            if call.engine == "events":
                raise RuntimeError(
                    'engine="events" needs an input of the module\'s channels and a padding of zeros that is '
                    f"equal on both sides, got shape {tuple(input.shape)} and {self}"
                )
            return None
        if x.dim() == 4:
            y = spike_convolution(call, geometry, x, weight, bias)
        else:
            y = spike_convolution(call, geometry, x.unsqueeze(2), weight.unsqueeze(2), bias)
            y = None if y is None else y.squeeze(2)
        return y if batched or y is None else y.squeeze(0)


class Conv1d(_ConvolutionModule, nn.Conv1d):
    """``torch.nn.Conv1d`` for spikes: see ``Conv2d``.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As for ``torch.nn.Conv1d``.
    device, dtype
        As for ``torch.nn.Conv1d``.
    engine : {"auto", "events", "dense"}, optional
        See ``Conv2d``.
    """


class Conv2d(_ConvolutionModule, nn.Conv2d):
    """``torch.nn.Conv2d`` for spikes: the forward pass and the weight's gradient visit the spikes only.

    Weights, ``state_dict`` and gradients are those of ``torch.nn.Conv2d``; sums have another order, so they
    are equal to rounding. For backward the spikes are kept as bits. The gradient of an input with few
    channels is computed by a kernel of this library.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As for ``torch.nn.Conv2d``.
    device, dtype
        As for ``torch.nn.Conv2d``.
    engine : {"auto", "events", "dense"}, optional
        "events" visits the spikes, "dense" uses torch's convolution. "auto" chooses by the shape, the number
        of spikes and the instruction set. Inputs that are not on the CPU, padding that is not of zeros, and
        programs that are compiled or transformed, take the dense convolution.

    Attributes
    ----------
    engine_used : str or None
        The engine of the last call, "events" or "dense".

    Raises
    ------
    ValueError
        If `engine` is none of these.
    """
