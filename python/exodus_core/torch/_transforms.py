"""The operators under ``torch.func``: an autograd function with rules for ``grad`` and ``vmap``.

torch's operators cannot be differentiated under these transforms, autograd functions with a `setup_context`
can. Such a function costs more per call than the one of eager calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ._function import refuse_to_differentiate
from ._operators import Program, spike, spike_backward

Dims = Sequence[int | None]


def _batched(program: Program) -> Program:
    """Return the program for tensors with a batch dimension in front of the others."""
    axis = program.time_dim
    return program if axis is None or axis < 0 else replace(program, time_dim=axis + 1)


def _state_dims(program: Program) -> tuple[int, ...]:
    """Return the batch dimension of each field of a state: behind those of its values per neuron."""
    lengths = program.origin._values_per_neuron()
    return tuple([len(lengths.get(field, ())) for field in program.origin._state._fields])


class SpikeFunction(torch.autograd.Function):
    """The forward pass: spikes, potential and the fields of the final state."""

    @staticmethod
    def forward(program: Program, current: Tensor, recurrent: Tensor | None, *rest: Tensor) -> Any:
        count = len(program.names)
        spikes, potential, final = spike(
            current, recurrent, list(rest[:count]), list(rest[count:]), *program.texts, True
        )
        return (spikes, potential, *final)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        program, current, recurrent, *rest = inputs
        ctx.program, ctx.dtype = program, current.dtype
        spikes = output[0] if ctx.needs_input_grad[2] else None
        ctx.save_for_backward(output[1], current, spikes, recurrent, *rest)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        count = len(ctx.program.names)
        _, _, needs_recurrent, *needs = ctx.needs_input_grad
        call = Backward(ctx.program, ctx.dtype, needs_recurrent, tuple(needs[:count]), len(grads))
        current, recurrent, *rest = SpikeBackwardFunction.apply(call, *grads, *ctx.saved_tensors)
        own = [grad if needed else None for grad, needed in zip(rest[:count], needs, strict=False)]
        return (None, current, recurrent if needs_recurrent else None, *own, *rest[count:])

    @staticmethod
    def vmap(info: Any, in_dims: Dims, program: Program, *tensors: Tensor | None) -> Any:
        count = len(program.names)
        _, current_dim, *dims = in_dims
        if all(dim is None for dim in dims[: count + 1]):
            state_dims, spikes_dim = _state_dims(program), 0 if program.origin._fires else None
            wanted = (0, *[None] * (count + 1), *(state_dims if len(tensors) > count + 2 else ()))
            moved = _moved(tensors, (current_dim, *dims), wanted, info.batch_size)
            return SpikeFunction.apply(_batched(program), *moved), (spikes_dim, 0, *state_dims)
        return one_by_one(SpikeFunction, info.batch_size, program, tensors, (current_dim, *dims))


@dataclass(frozen=True)
class Backward:
    """The arguments of the backward operator that are not tensors."""

    program: Program
    dtype: torch.dtype
    needs_recurrent: bool
    needs_learnt: tuple[bool, ...]
    grads: int  # the number of gradients in front of the saved tensors


class SpikeBackwardFunction(torch.autograd.Function):
    """The backward pass: the gradients of current, recurrent weights, learnt values and initial state."""

    @staticmethod
    def forward(call: Backward, *tensors: Tensor) -> Any:
        grad_spikes, grad_potential, *grad_state = tensors[: call.grads]
        potential, current, spikes, recurrent, *rest = tensors[call.grads :]
        count = len(call.needs_learnt)
        grad_current, grad_recurrent, learnt, state = spike_backward(
            grad_spikes,
            grad_potential,
            grad_state,
            potential,
            current,
            spikes,
            recurrent,
            rest[:count],
            rest[count:],
            *call.program.texts,
            call.dtype,
            call.needs_recurrent,
            list(call.needs_learnt),
        )
        return (grad_current, grad_recurrent, *learnt, *state)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    backward = staticmethod(refuse_to_differentiate)

    @staticmethod
    def vmap(info: Any, in_dims: Dims, call: Backward, *tensors: Tensor | None) -> Any:
        dims, count = in_dims[1:], len(call.needs_learnt)
        fixed = dims[call.grads + 3 : call.grads + 4 + count]  # recurrent weights and learnt values
        sums = call.needs_recurrent or any(call.needs_learnt)
        if sums or any(dim is not None for dim in fixed):
            return one_by_one(SpikeBackwardFunction, info.batch_size, call, tensors, dims)
        state_dims = _state_dims(call.program)
        initial = state_dims if len(tensors) > call.grads + 4 + count else ()
        wanted = (0, 0, *state_dims, 0, 0, 0, None, *[None] * count, *initial)
        moved = _moved(tensors, dims, wanted, info.batch_size)
        results = SpikeBackwardFunction.apply(replace(call, program=_batched(call.program)), *moved)
        return results, (0, None, *[None] * count, *initial)


def _moved(tensors: Sequence[Tensor | None], dims: Dims, wanted: Dims, size: int) -> list[Tensor | None]:
    """Move the batch dimension of tensors to where it is wanted; expand those that have none."""
    moved: list[Tensor | None] = []
    for tensor, dim, to in zip(tensors, dims, wanted, strict=True):
        if tensor is None or to is None:
            moved.append(tensor)
        elif dim is None:
            moved.append(tensor.unsqueeze(to).expand(*tensor.shape[:to], size, *tensor.shape[to:]))
        else:
            moved.append(tensor.movedim(dim, to))
    return moved


def one_by_one(
    function: type[torch.autograd.Function],
    size: int,
    call: Any,
    tensors: Sequence[Tensor | None],
    dims: Dims,
) -> Any:
    """Call a function for each element of a batch, where parameters or their gradients differ."""
    results = []
    for k in range(size):
        own = [
            tensor if tensor is None or dim is None else tensor.select(dim, k)
            for tensor, dim in zip(tensors, dims, strict=True)
        ]
        results.append(function.apply(call, *own))
    return tuple(map(torch.stack, zip(*results, strict=True))), (0,) * len(results[0])
