"""Products with spikes for torch: `Linear`, whose forward pass and weight gradient visit the spikes only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling

from .. import _core
from .._backends.tensors import TENSORS, new, type_name_of
from .._products import (
    ENOUGH,
    Engine,
    Estimate,
    Packed,
    Packing,
    Sizes,
    check_engine,
    estimate_of,
    estimate_of_input_gradient,
    may_be_sparse,
)
from ._function import _TYPES, _thread_count, differentiable_once
from ._handing import Handed, Recipe, give, is_asked, take_handed
from ._run import is_traced

_EXCHANGE = getattr(Tensor, "__dlpack_c_exchange_api__", None)


@dataclass
class Call:
    """A call's choice of an engine, and the one that it used.

    Attributes
    ----------
    most_spikes : float or None
        The share of spikes in a sample up to which "auto" packs them, where there is a choice.
    direct : bool
        Whether the gradient of a dense input is computed by this library, if it is wanted.
    masked : bool
        Whether the gradient of the input is computed only where the layer before needs it.
    """

    engine: Engine
    most_spikes: float | None = None
    direct: bool = False
    used: str = "dense"
    masked: bool = False


_DENSE = Call("auto")  # a call for which torch's module is used


def takes_events(call: Call, x: Tensor, *others: Tensor | None) -> bool:
    """Tell whether the kernels can compute a product; raise if they cannot and are asked for."""
    if call.engine == "dense":
        return False
    reason = ""
    if is_traced(x):
        reason = "a program that is compiled or transformed takes dense products"
    elif x.dtype not in _TYPES:
        reason = f"input and weights must have one of the kernels' dtypes, got {x.dtype}"
    else:
        for t in (x, *others):
            if t is not None and not (t.is_cpu and t.layout is torch.strided):
                reason = f"the kernels take dense tensors on the CPU, got {x.layout} on {x.device}"
            elif t is not None and t.dtype is not x.dtype:
                reason = f"input and weights must have one of the kernels' dtypes, got {x.dtype}"
    if reason and call.engine == "events":
        raise RuntimeError(f'engine="events" cannot be used here: {reason}')
    return not reason


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


def pack(call: Call, x: Tensor, rows: int, inputs: int, estimate: Estimate) -> Handed | None:
    """Pack a tensor as a matrix of spikes, or take the bits that its layer wrote.

    Returns None where the dense product is to be used.
    """
    call.most_spikes = estimate.most_spikes
    if not estimate.admits_events(call.engine):
        return None
    in_order = x if x.is_contiguous() and not x.is_neg() else x.detach().resolve_neg().contiguous()
    handed = take_handed(in_order, inputs)
    if handed is None:
        type_name, address = type_name_of(x.dtype), in_order.data_ptr()
        if not may_be_sparse(call.engine, type_name, rows, inputs, address, estimate):
            return None
        packed = packing(x).pack(in_order.detach().view(rows, inputs), call.engine, estimate)
        return None if packed is None else Handed(packed, None)
    share = handed.packed.spikes / (rows * inputs)
    return handed if call.engine == "events" or estimate.prefers_events(share) else None


def handles(packed: Packed) -> tuple[Any, ...]:
    """Return the addresses of packed spikes, for the extension."""
    return tuple(None if part is None else part.data_ptr() for part in packed[1:])


NO_SPIKES = Packed(0, None, None, None)
_Tensors = tuple[Tensor | None, ...]


@dataclass(frozen=True)
class Saved:
    """The tensors kept for backward, which hooks may have moved and back.

    They are the weights, the spikes, and one other: what the gradient of the input reads, which is the input
    or the bits of the elements that are wanted; or the bias, to compute the product again.
    """

    spikes: int
    kinds: tuple[tuple[torch.dtype, torch.Size] | None, ...]

    @staticmethod
    def of(weight: Tensor, packed: Packed | None, other: Tensor | None) -> tuple[Saved, _Tensors]:
        """Return what describes the tensors, and the tensors to keep."""
        spikes, *parts = packed or NO_SPIKES
        tensors = weight, other, *parts
        return Saved(spikes, tuple(None if t is None else (t.dtype, t.shape) for t in tensors)), tensors

    @staticmethod
    def keep(ctx: Any, weight: Tensor, packed: Packed | None, of_input: Tensor | None) -> Saved:
        """Save the tensors for backward."""
        saved, tensors = Saved.of(weight, packed, of_input)
        ctx.save_for_backward(*tensors)
        return saved

    def restore(self, tensors: Sequence[Tensor | None]) -> tuple[Tensor, Tensor | None, Packed]:
        """Check the saved tensors, whose addresses the kernels get, and return them."""
        found = tuple(None if t is None else (t.dtype, t.shape) for t in tensors)
        if found != self.kinds:
            raise RuntimeError(
                f"saved tensors must come back with the dtypes and shapes {self.kinds}, got {found}: a hook "
                "on saved tensors has changed them"
            )
        weight, other, *parts = tensors
        assert weight is not None
        return weight, other, Packed(self.spikes, *(None if t is None else t.contiguous() for t in parts))


def offer_recipe(
    y: Tensor, compute: Callable[..., Tensor], packed: Packed, weight: Tensor, bias: Tensor | None
) -> None:
    """Hand on how a product is computed again. `compute` takes packed spikes, weights and bias."""
    saved, tensors = Saved.of(weight.detach(), packed, None if bias is None else bias.detach())
    give(y, Recipe(partial(_again, compute, saved), tensors))


def _again(compute: Callable[..., Tensor], saved: Saved, *tensors: Tensor | None) -> Tensor:
    weight, bias, packed = saved.restore(tensors)
    return compute(packed, weight, bias)


def _multiply(
    sizes: Sizes, leading: tuple[int, ...], packed: Packed, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """Multiply packed spikes with weights, and add the bias. `leading` are the result's other dimensions."""
    y = new((*leading, sizes.outputs), weight.dtype)
    own = weight.resolve_neg().contiguous()
    own_bias = None if bias is None else bias.resolve_neg().contiguous()
    spikes = type_name_of(weight.dtype), sizes, packed.spikes, handles(packed)
    weights = own.data_ptr(), (1, sizes.inputs), TENSORS.handle(own_bias)
    _core.product(*spikes, *weights, y.data_ptr(), _thread_count())
    return y


class _Linear(torch.autograd.Function):
    """x w^T + b as a function of its tensors. The spikes of x are packed already."""

    @staticmethod
    def forward(
        ctx: Any, sizes: Sizes, handed: Handed, x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        packed, support = handed
        wanted = None if support is None else support.bits
        ctx.sizes, ctx.shape, ctx.saved = sizes, x.shape, Saved.keep(ctx, weight, packed, wanted)
        return _multiply(sizes, x.shape[:-1], packed, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return differentiable_once(_Linear._gradients, ctx, grads)

    @staticmethod
    def _gradients(ctx: Any, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        _, _, with_x, with_weight, with_bias = ctx.needs_input_grad
        (grad,) = grads
        if grad is None:
            return (None,) * 5
        weight, wanted, packed = ctx.saved.restore(ctx.saved_tensors)
        g = grad.resolve_neg().reshape(-1, ctx.sizes.outputs).contiguous()
        grad_x = grad_weight = grad_bias = None
        if with_x:
            grad_x = _input_gradient(ctx.sizes, g, weight, wanted).view(ctx.shape)
        if with_weight or with_bias:
            grad_weight = weight.new_empty(weight.shape) if with_weight else None
            grad_bias = weight.new_empty(ctx.sizes.outputs) if with_bias else None
            arguments = type_name_of(weight.dtype), ctx.sizes, packed.spikes, handles(packed), g.data_ptr()
            results = TENSORS.handle(grad_weight), (1, ctx.sizes.inputs), TENSORS.handle(grad_bias)
            _core.product_gradients(*arguments, *results, _thread_count())
        return None, None, grad_x, grad_weight, grad_bias


def _input_gradient(sizes: Sizes, g: Tensor, weight: Tensor, wanted: Tensor | None) -> Tensor:
    """Compute the gradient of a product's input, everywhere or where it is wanted."""
    grad_x = new((sizes.rows, sizes.inputs), g.dtype)
    if wanted is None:
        return torch.mm(g, weight, out=grad_x)
    bits, own = wanted.contiguous(), weight.resolve_neg().contiguous()
    addresses = bits.data_ptr(), g.data_ptr(), own.data_ptr()
    arguments = (1, sizes.inputs), grad_x.data_ptr(), _thread_count()
    _core.product_input_gradient(type_name_of(g.dtype), sizes, *addresses, *arguments)
    return grad_x


def _without_dense_support(handed: Handed, sizes: Sizes, type_name: str, engine: Engine) -> Handed:
    """Leave the support out where it has so many elements that the dense product is faster."""
    if handed.support is None or engine == "events":
        return handed
    share = handed.support.elements / (sizes.rows * sizes.inputs)
    is_sparse = estimate_of_input_gradient(sizes, type_name).prefers_events(share)
    return handed if is_sparse else handed._replace(support=None)


def spike_linear(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
    """Multiply spikes with weights, or return None where torch's product is faster."""
    outputs, inputs = weight.shape
    sizes = Sizes(math.prod(x.shape[:-1]), inputs, outputs)
    type_name = type_name_of(x.dtype)
    handed = pack(call, x, sizes.rows, inputs, estimate_of(sizes, type_name))
    if handed is None:
        return None
    handed = _without_dense_support(handed, sizes, type_name, call.engine)
    call.used, call.masked = "events", handed.support is not None
    y: Tensor = _Linear.apply(sizes, handed, x, weight, bias)
    if is_asked(Recipe):
        offer_recipe(y, partial(_multiply, sizes, x.shape[:-1]), handed.packed, weight, bias)
    return y


class Known(NamedTuple):
    """An input that a module has had before, by its shape and dtype, and what `Call` has of it."""

    shape: torch.Size
    type_name: str
    most_spikes: float
    direct: bool


class EngineModule(nn.Module):
    """Mixin of modules that choose an engine for each call."""

    engine: Engine
    engine_used: str | None = None
    _known: Known | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute. An engine is checked."""
        if name == "engine":
            check_engine(value)
        super().__setattr__(name, value)
        self.__dict__.pop("_known", None)  # which follows from sizes and weights

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled."""
        return {name: value for name, value in self.__dict__.items() if name != "_known"}

    def _is_dense(self, x: Tensor) -> bool:
        """Tell whether torch's module is to take an input that is like the one before, by a sample of it.

        This comes before all else and asks little of torch: after a large product no code is in the caches.
        Each question then takes microseconds, of which a small product has some hundreds.
        """
        if is_compiling() or type(x) is not Tensor:
            return False
        known = self._known
        if known is None or self.engine != "auto":
            return False
        shape, type_name, most, direct = known
        share = _core.estimate_share_of_array(x, _EXCHANGE, shape, type_name, ENOUGH * most)
        return share is not None and share > most and not (direct and x.requires_grad)

    def _by_kernels(self, call: Call, input: Tensor) -> Tensor | None:
        """Compute the result by this library's kernels, or return None where torch is to do so."""
        raise NotImplementedError

    def _note(self, call: Call) -> None:
        # Directly, since torch's __setattr__ searches modules and parameters first.
        self.__dict__["engine_used"] = call.used

    def _remember(self, call: Call, x: Tensor) -> None:
        if call.most_spikes is not None:
            self.__dict__["_known"] = Known(x.shape, type_name_of(x.dtype), call.most_spikes, call.direct)

    def forward(self, input: Tensor) -> Tensor:
        """Compute the result of torch's module.

        Parameters
        ----------
        input : Tensor
            Spikes, of a shape that torch's module takes.

        Returns
        -------
        Tensor
            The result, with the shape that torch's has.
        """
        y = None
        if self._is_dense(input):
            self._note(_DENSE)
        else:
            call = Call(self.engine)
            y = self._by_kernels(call, input)
            if not is_compiling():
                self._note(call)
                self._remember(call, input)
        result: Tensor = super().forward(input) if y is None else y
        return result

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
    masked_input_grad : bool, optional
        Compute the gradient of the input only where the surrogate of the layer before is not 0, and set it
        to 0 elsewhere. That layer multiplies it by the surrogate, so all other gradients stay the same, to
        rounding. It takes effect in ``Sequential``, after a layer that hands on its bits (docs/products.md)
        and whose surrogate is ``Boxcar`` or ``Triangle``; with ``engine="auto"`` where that is faster.

    Attributes
    ----------
    engine_used : str or None
        The engine of the last call, "events" or "dense".
    masks_input_grad : bool or None
        Whether the backward pass of the last call computes only a part of the input's gradient.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """

    masked_input_grad: bool = False
    masks_input_grad: bool | None = None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        engine: Engine = "auto",
        masked_input_grad: bool = False,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self.engine = engine
        self.masked_input_grad = masked_input_grad

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute. Its own are checked."""
        if name == "masked_input_grad" and not isinstance(value, bool):
            raise TypeError(f"masked_input_grad must be a bool, got {value!r}")
        super().__setattr__(name, value)

    def _note(self, call: Call) -> None:
        super()._note(call)
        self.__dict__["masks_input_grad"] = call.masked

    def extra_repr(self) -> str:
        """Show the module's arguments."""
        return super().extra_repr() + (", masked_input_grad=True" if self.masked_input_grad else "")

    def _by_kernels(self, call: Call, input: Tensor) -> Tensor | None:
        x, weight, bias = in_autocast(input, self.weight, self.bias)
        fits = x.dim() > 0 and x.shape[-1] == self.in_features
        return spike_linear(call, x, weight, bias) if fits and takes_events(call, x, weight, bias) else None
