"""Delays as operators of torch, for programs that are traced or transformed (see `_operators.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._delay import BoundDelay, bind_delay
from .._layout import arrange
from ._function import _backend, _memory, _tensor, _thread_count, refuse_to_differentiate
from ._learnt import _tensor_value, require_finite
from ._operators import dense, fake_neurons, operator
from ._transforms import Dims, one_by_one


def values_of(delay: Tensor) -> Any:
    """Return the values of a delay for the kernels. They are not checked against `most`: they are clamped."""
    value = _tensor_value("delay", delay)
    require_finite("delay", delay)
    return value if value.is_cuda else value.numpy()


def _bound_to(name: str, x: Tensor, delay: Tensor, most: int, time_dim: int | None) -> tuple[Any, BoundDelay]:
    """Return an input as the kernels take it, and the delays bound to its layout."""
    _, array, layout = arrange(name, _memory(dense(x)), time_dim, "time_dim", _backend(x))
    return array, bind_delay(layout, values_of(delay), most, layout.backend.type_name(array))


def _delay(
    x: Tensor, delay: Tensor, state: Tensor | None, most: int, time_dim: int | None
) -> tuple[Tensor, Tensor]:
    array, bound = _bound_to("x", x, delay, most, time_dim)
    initial = bound.state("state", None if state is None else _memory(state))
    output, final = bound.run(array, initial, _thread_count())
    return _tensor(output), _tensor(final)


def _fake_delay(
    x: Tensor, delay: Tensor, state: Tensor | None, most: int, time_dim: int | None
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), fake_neurons(x, time_dim, (most + 1,))


def _delay_backward(
    grad: Tensor, grad_final: Tensor, x: Tensor | None, delay: Tensor, state: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    array, bound = _bound_to("grad", grad, delay, *options)
    learns = x is not None
    result = bound.run_adjoint(
        array,
        bound.over_time("x", None if x is None else _memory(x)),
        bound.state("state", None if state is None or not learns else _memory(state)),
        bound.state("grad_state", _memory(grad_final)),
        _thread_count(),
        with_delay=learns,
    )
    grad_delay = _tensor(result.delay).to(delay.dtype) if learns else delay.new_empty(0)
    return _tensor(result.x), grad_delay, _tensor(result.state)


def _fake_delay_backward(
    grad: Tensor, grad_final: Tensor, x: Tensor | None, delay: Tensor, state: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    most, time_dim = options
    grad_delay = delay.new_empty(0) if x is None else torch.empty_like(delay)
    return torch.empty_like(grad), grad_delay, fake_neurons(grad, time_dim, (most + 1,))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, delay, state, most, time_dim = inputs
    learns = ctx.needs_input_grad[1]
    ctx.options, ctx.has_state = (most, time_dim), state is not None
    ctx.save_for_backward(x if learns else None, delay, state if learns else None)


def _backward(ctx: Any, grad: Tensor, grad_final: Tensor) -> Any:
    x, delay, state = ctx.saved_tensors
    grad_x, grad_delay, grad_state = delay_backward(grad, grad_final, x, delay, state, *ctx.options)
    learns = ctx.needs_input_grad[1]
    return grad_x, grad_delay if learns else None, grad_state if ctx.has_state else None, None, None


delay_operator = operator(
    "delay(Tensor x, Tensor delay, Tensor? state, int most, int? time_dim) -> (Tensor, Tensor)",
    _delay,
    _fake_delay,
    _backward,
    _setup_context,
)
delay_backward = operator(
    "delay_backward(Tensor grad, Tensor grad_final, Tensor? x, Tensor delay, Tensor? state, int most, "
    "int? time_dim) -> (Tensor, Tensor, Tensor)",
    _delay_backward,
    _fake_delay_backward,
)


@dataclass(frozen=True)
class Options:
    """The arguments of an operator that are not tensors."""

    most: int
    time_dim: int | None
    has_state: bool


class DelayFunction(torch.autograd.Function):
    """A delay under ``torch.func``: the output and the final state."""

    @staticmethod
    def forward(options: Options, x: Tensor, delay: Tensor, state: Tensor | None) -> Any:
        return delay_operator(x, delay, state, options.most, options.time_dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        options, x, delay, state = inputs
        learns = ctx.needs_input_grad[2]
        ctx.options, ctx.learns = options, learns
        ctx.save_for_backward(x if learns else None, delay, state if learns else None)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        grad_x, grad_delay, grad_state = DelayBackwardFunction.apply(ctx.options, *grads, *ctx.saved_tensors)
        return None, grad_x, grad_delay if ctx.learns else None, grad_state if ctx.options.has_state else None

    @staticmethod
    def vmap(info: Any, in_dims: Dims, options: Options, *tensors: Tensor | None) -> Any:
        return one_by_one(DelayFunction, info.batch_size, options, tensors, in_dims[1:])


class DelayBackwardFunction(torch.autograd.Function):
    """The adjoint of a delay under ``torch.func``."""

    @staticmethod
    def forward(options: Options, *tensors: Tensor) -> Any:
        return delay_backward(*tensors, options.most, options.time_dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    backward = staticmethod(refuse_to_differentiate)

    @staticmethod
    def vmap(info: Any, in_dims: Dims, options: Options, *tensors: Tensor | None) -> Any:
        return one_by_one(DelayBackwardFunction, info.batch_size, options, tensors, in_dims[1:])


def run_operator(
    x: Tensor, delay: Tensor, state: Tensor | None, most: int, time_dim: int | None
) -> Sequence[Tensor]:
    """Delay an input by an operator."""
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        results: Sequence[Tensor] = DelayFunction.apply(
            Options(most, time_dim, state is not None), x, delay, state
        )
        return results
    traced: Sequence[Tensor] = delay_operator(x, delay, state, most, time_dim)
    return traced
