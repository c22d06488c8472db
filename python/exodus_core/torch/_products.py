"""Products with spikes for torch: `Linear`, whose forward pass and weight gradient visit the spikes only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from .. import _core
from .._backends.tensors import TENSORS, new, type_name_of
from .._products import Engine, Estimate, Packed, Packing, Sizes, check_engine, estimate_of
from ._function import _TYPES, _thread_count, differentiable_once
from ._handing import take
from ._run import is_traced


@dataclass
class Call:
    """A call's choice of an engine, and the one that it used."""

    engine: Engine
    used: str = "dense"


def takes_events(call: Call, x: Tensor, *others: Tensor | None) -> bool:
    """Tell whether the kernels can compute a product; raise if they cannot and are asked for."""
    reason = ""
    if is_traced(x):
        reason = "a program that is compiled or transformed takes dense products"
    elif not all(t is None or (t.is_cpu and t.layout == torch.strided) for t in (x, *others)):
        reason = f"the kernels take dense tensors on the CPU, got {x.layout} on {x.device}"
    elif x.dtype not in _TYPES or any(t is not None and t.dtype is not x.dtype for t in others):
        reason = f"input and weights must have one of the kernels' dtypes, got {x.dtype}"
    if reason and call.engine == "events":
        raise RuntimeError(f'engine="events" cannot be used here: {reason}')
    return not reason and call.engine != "dense"


def in_autocast(*tensors: Any) -> tuple[Any, ...]:
    """Convert tensors to autocast's dtype where it is on, as torch's own products do."""
    if not torch.is_autocast_enabled("cpu"):
        return tensors
    dtype, casts = torch.get_autocast_dtype("cpu"), (torch.float32, torch.float16, torch.bfloat16)
    return tuple(t.to(dtype) if t is not None and t.is_cpu and t.dtype in casts else t for t in tensors)


def packing(like: Tensor) -> Packing:
    """Return how matrices of a tensor's dtype are packed."""
    kinds = {"bits": torch.int64, "first": torch.int64, "values": like.dtype}
    return Packing(
        type_name_of(like.dtype),
        TENSORS.handle,
        lambda count, kind: torch.empty(count, dtype=kinds[kind], device="cpu"),
        _thread_count(),
    )


def pack(matrix: Tensor, engine: Engine, estimate: Estimate) -> Packed | None:
    """Pack a matrix of spikes in C order, as ``Packing.pack`` does, or take the bits that its layer wrote."""
    packed = take(matrix)
    if packed is None:
        return packing(matrix).pack(matrix, engine, estimate)
    return packed if engine == "events" or estimate.prefers_events(packed.spikes / matrix.numel()) else None


def handles(packed: Packed) -> tuple[Any, ...]:
    """Return the addresses of packed spikes, for the extension."""
    return tuple(None if part is None else part.data_ptr() for part in packed[1:])


NO_SPIKES = Packed(0, None, None, None)


@dataclass(frozen=True)
class Saved:
    """The tensors kept for backward: weights, packed spikes or input. Hooks may have moved them and back."""

    spikes: int
    kinds: tuple[tuple[torch.dtype, torch.Size] | None, ...]

    @staticmethod
    def keep(ctx: Any, weight: Tensor, packed: Packed | None, x: Tensor | None = None) -> Saved:
        """Save the tensors for backward."""
        spikes, *parts = packed or NO_SPIKES
        tensors = weight, x, *parts
        ctx.save_for_backward(*tensors)
        return Saved(spikes, tuple(None if t is None else (t.dtype, t.shape) for t in tensors))

    def restore(self, tensors: Sequence[Tensor | None]) -> tuple[Tensor, Tensor | None, Packed]:
        """Check the saved tensors, whose addresses the kernels get, and return weights, input and spikes."""
        found = tuple(None if t is None else (t.dtype, t.shape) for t in tensors)
        if found != self.kinds:
            raise RuntimeError(
                f"saved tensors must come back with the dtypes and shapes {self.kinds}, got {found}: a hook "
                "on saved tensors has changed them"
            )
        weight, x, *parts = tensors
        assert weight is not None
        return weight, x, Packed(self.spikes, *(None if t is None else t.contiguous() for t in parts))


class _Linear(torch.autograd.Function):
    """x w^T + b as a function of its tensors. The spikes of x are packed already."""

    @staticmethod
    def forward(
        ctx: Any, sizes: Sizes, packed: Packed, x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.sizes, ctx.shape, ctx.saved = sizes, x.shape, Saved.keep(ctx, weight, packed)
        y = new((*x.shape[:-1], sizes.outputs), x.dtype)
        own = weight.resolve_neg().contiguous()
        own_bias = None if bias is None else bias.resolve_neg().contiguous()
        arguments = (
            type_name_of(x.dtype),
            sizes,
            packed.spikes,
            handles(packed),
            own.data_ptr(),
            (1, sizes.inputs),
        )
        _core.product(*arguments, TENSORS.handle(own_bias), y.data_ptr(), _thread_count())
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return differentiable_once(_Linear._gradients, ctx, grads)

    @staticmethod
    def _gradients(ctx: Any, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        _, _, with_x, with_weight, with_bias = ctx.needs_input_grad
        (grad,) = grads
        if grad is None:
            return (None,) * 5
        weight, _, packed = ctx.saved.restore(ctx.saved_tensors)
        g = grad.resolve_neg().reshape(-1, ctx.sizes.outputs).contiguous()
        grad_x = grad_weight = grad_bias = None
        if with_x:
            grad_x = torch.mm(g, weight, out=new((len(g), ctx.sizes.inputs), g.dtype)).view(ctx.shape)
        if with_weight or with_bias:
            grad_weight = weight.new_empty(weight.shape) if with_weight else None
            grad_bias = weight.new_empty(ctx.sizes.outputs) if with_bias else None
            arguments = type_name_of(weight.dtype), ctx.sizes, packed.spikes, handles(packed), g.data_ptr()
            results = TENSORS.handle(grad_weight), (1, ctx.sizes.inputs), TENSORS.handle(grad_bias)
            _core.product_gradients(*arguments, *results, _thread_count())
        return None, None, grad_x, grad_weight, grad_bias


def spike_linear(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply spikes with weights by events, or with torch's product where that is faster."""
    outputs, inputs = weight.shape
    sizes = Sizes(math.prod(x.shape[:-1]), inputs, outputs)
    estimate, packed = estimate_of(sizes, type_name_of(x.dtype)), None
    if estimate.admits_events(call.engine):
        rows = x.detach().resolve_neg().reshape(sizes.rows, inputs).contiguous()
        packed = pack(rows, call.engine, estimate)
    if packed is None:
        return linear(x, weight, bias)
    call.used = "events"
    y: Tensor = _Linear.apply(sizes, packed, x, weight, bias)
    return y


class EngineModule(nn.Module):
    """Mixin of modules that choose an engine for each call."""

    engine: Engine
    engine_used: str | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute. An engine is checked."""
        if name == "engine":
            check_engine(value)
        super().__setattr__(name, value)

    def _note(self, call: Call) -> None:
        if not torch.compiler.is_compiling():
            self.engine_used = call.used

    def extra_repr(self) -> str:
        """Show the module's own arguments, and the engine if it is forced."""
        return super().extra_repr() + ("" if self.engine == "auto" else f", engine={self.engine!r}")


class Linear(EngineModule, nn.Linear):
    """``torch.nn.Linear`` for spikes: the forward pass and the weight's gradient visit the spikes only.

    Weights, ``state_dict`` and gradients are those of ``torch.nn.Linear``; sums have another order, so they
    are equal to rounding. For backward the spikes are kept as bits. Where the input is 0, weights that are
    infinite or NaN have no effect.

    Parameters
    ----------
    in_features, out_features, bias, device, dtype
        As for ``torch.nn.Linear``.
    engine : {"auto", "events", "dense"}, optional
        "events" visits the spikes, "dense" uses torch's product. "auto" chooses by the shape, the number of
        spikes and the instruction set. Inputs that are not on the CPU, and programs that are compiled or
        transformed, take the dense product.

    Attributes
    ----------
    engine_used : str or None
        The engine of the last call, "events" or "dense".

    Raises
    ------
    ValueError
        If `engine` is none of these.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        engine: Engine = "auto",
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self.engine = engine

    def forward(self, input: Tensor) -> Tensor:
        """Multiply the input with the weights, and add the bias.

        Parameters
        ----------
        input : Tensor
            Spikes, of shape (..., in_features).

        Returns
        -------
        Tensor
            Of shape (..., out_features).
        """
        call = Call(self.engine)
        x, weight, bias = in_autocast(input, self.weight, self.bias)
        fits = x.dim() > 0 and x.shape[-1] == self.in_features
        events = fits and takes_events(call, x, weight, bias)
        y = spike_linear(call, x, weight, bias) if events else linear(x, weight, bias)
        self._note(call)
        return y
