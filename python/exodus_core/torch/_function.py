"""Autograd through the kernels: tensors go to them by address, so that no build is tied to a torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _threads
from .._arrays import Arrangement, BoundParameter
from .._backends import Array
from .._run import SurrogateLike, check_algorithm, run_backward, run_forward
from .._run import Trace as ArrayTrace
from ..neurons import Neuron
from ..surrogate import SingleExponential, Surrogate


@dataclass(eq=False)
class Trace:
    """What a neuron did over time, as tensors.

    Attributes
    ----------
    spikes : Tensor or None
        s[n], in the current's shape, dtype and memory order; None for ExpLeak.
    potential : Tensor
        u[n], before the reset.
    state : named tuple of Tensor
        After the last step; the next call's ``state=``.
    """

    spikes: Tensor | None
    potential: Tensor
    state: Any


@dataclass
class _Call:
    """What a call passes around autograd."""

    neuron: Neuron  # with the learnt values in place
    learnt: tuple[str, ...]
    surrogate: SurrogateLike
    method: str
    time_dim: int | None
    has_state: bool


@dataclass
class _Saved:
    """What the backward pass needs beside the saved tensors."""

    arrangement: Arrangement
    parameters: dict[str, BoundParameter]
    time_axis: int | None
    type_name: str


def check_tensor(name: str, tensor: Any) -> None:
    """Check that the kernels can take a tensor."""
    if not isinstance(tensor, Tensor):
        raise TypeError(
            f"{name} must be a torch tensor, got {type(tensor).__name__}: for arrays use exodus_core.forward"
        )
    if not tensor.is_cuda and tensor.device.type != "cpu":
        raise TypeError(f"{name} must be on the CPU or a CUDA device, got a tensor on {tensor.device}")
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got {tensor.layout}")
    if not tensor.is_cuda and tensor.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name} must have dtype float32 or float64, got {tensor.dtype}")


def _array(name: str, tensor: Any) -> Array:
    """The tensor's memory as an array: NumPy's, or on a GPU a tensor without history."""
    check_tensor(name, tensor)
    return _memory(tensor)


def _memory(tensor: Tensor) -> Array:
    plain = tensor.detach().resolve_neg()
    return plain if plain.is_cuda else plain.numpy()


def _tensor(array: Array) -> Tensor:
    """The way back."""
    return array if isinstance(array, Tensor) else torch.from_numpy(np.asarray(array))


def _own(array: Array) -> Array:
    """An array that torch may write: a descriptor's own may not be."""
    return np.array(array) if isinstance(array, np.ndarray) else array


def _thread_count() -> int:
    return 0 if _threads.was_chosen() else torch.get_num_threads()


def _array_surrogate(surrogate: SurrogateLike) -> SurrogateLike:
    """A custom surrogate gets tensors and gives one."""
    if isinstance(surrogate, Surrogate):
        return surrogate

    def evaluate(potential: Array, threshold: Array) -> Array:
        with torch.no_grad():
            h = surrogate(_tensor(potential), _tensor(_own(threshold)))
        return _memory(h) if isinstance(h, Tensor) else np.asarray(h)

    return evaluate


class _DifferentiatedOnce(torch.autograd.Function):
    """Makes a second derivative an error."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, grad: Tensor) -> Tensor:
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError("the gradient of a spiking layer cannot be differentiated twice")


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, current: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        neuron, count = call.neuron, len(call.learnt)
        state = rest[count:] if call.has_state else None
        trace = run_forward(
            neuron,
            _array("current", current),
            call.time_dim,
            None
            if state is None
            else neuron._state(
                *(_array(f"state.{f}", t) for f, t in zip(neuron._state._fields, state, strict=True))
            ),
            learnt=call.learnt,
            axis_name="time_dim",
            threads=_thread_count(),
        )
        results = [trace.potential, *trace.state]
        if trace.spikes is not None:
            results.append(trace.spikes)
        potential, *others = map(_tensor, results)
        ctx.set_materialize_grads(False)
        ctx.call = call
        ctx.saved = _Saved(trace._arrangement, trace._parameters, trace.time_axis, trace._type_name)
        # The current is read by the gradient of the gain alone.
        wanted = [name for name, tensor in zip(call.learnt, rest, strict=False) if tensor.requires_grad]
        ctx.reads_current = neuron._reads_current(wanted)
        ctx.save_for_backward(potential, *((current,) if ctx.reads_current else ()), *(state or ()))
        return (potential, *others)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        results = _Spike._gradients(ctx, grads)
        if not torch.is_grad_enabled():
            return results
        # create_graph=True. torch's once_differentiable would silently leave out what depends on the inputs.
        anchor = torch.zeros((), requires_grad=True)
        return tuple(None if r is None else _DifferentiatedOnce.apply(anchor, r) for r in results)

    @staticmethod
    @torch.no_grad()
    def _gradients(ctx: Any, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        neuron, fields = call.neuron, call.neuron._state._fields
        nothing = (None,) * len(ctx.needs_input_grad)
        if all(grad is None for grad in grads):
            return nothing
        potential, *rest = ctx.saved_tensors
        saved: _Saved = ctx.saved
        current = saved.arrangement.place(_memory(rest.pop(0))) if ctx.reads_current else None
        initial = None
        if call.has_state:
            initial = neuron._state(*map(_memory, rest))
        trace = ArrayTrace(
            None,
            _memory(potential),
            None,
            neuron,
            current,  # type: ignore[arg-type]
            initial,
            saved.time_axis,
            saved.arrangement,
            saved.parameters,
            saved.type_name,
        )
        arrays = [None if grad is None else _memory(grad) for grad in grads]
        grad_potential, grad_state = arrays[0], arrays[1 : 1 + len(fields)]
        wanted = [name for name, needed in zip(call.learnt, ctx.needs_input_grad[2:], strict=False) if needed]
        result = run_backward(
            trace,
            arrays[-1] if neuron._fires else None,
            grad_potential,
            None if all(g is None for g in grad_state) else grad_state,
            call.method,
            _array_surrogate(call.surrogate),
            wanted,
            threads=_thread_count(),
        )
        parameters = [_tensor(result.parameters[name]) if name in wanted else None for name in call.learnt]
        states = map(_tensor, result.state) if call.has_state else ()
        return (None, _tensor(result.current), *parameters, *states)


def spike_learnt(
    current: Tensor,
    neuron: Neuron,
    learnt: Mapping[str, Tensor],
    surrogate: SurrogateLike,
    method: str,
    time_dim: int | None,
    state: Any,
) -> Trace:
    """What ``spike`` does, with gradients for learnt parameters, whose values the neuron has already."""
    fields = neuron._state._fields
    if state is not None and (not isinstance(state, (tuple, list)) or len(state) != len(fields)):
        raise TypeError(
            f"state must be a tuple of {len(fields)} tensors ({', '.join(fields)}), got {state!r:.80}"
        )
    call = _Call(neuron, tuple(learnt), surrogate, method, time_dim, state is not None)
    potential, *others = _Spike.apply(call, current, *learnt.values(), *(state or ()))
    final = neuron._state(*others[: len(fields)])
    return Trace(others[-1] if neuron._fires else None, potential, final)


def spike(
    current: Tensor,
    neuron: Neuron,
    *,
    surrogate: SurrogateLike = SingleExponential(),  # noqa: B008 (frozen)
    method: str = "exodus",
    time_dim: int | None = 0,
    state: Any = None,
) -> Trace:
    """Run neurons over time, with gradients for the current and the state.

    Parameters
    ----------
    current : Tensor
        Input current a[n], float32 or float64, of any strides; on a GPU, where float16 and bfloat16 are
        taken too, the CUDA kernels run on torch's current stream.
    neuron : Neuron
        A descriptor of ``exodus_core``, such as LIF.
    surrogate : Surrogate or callable, optional
        f'(u): a built-in, or a function ``(potential, threshold) -> tensor``.
    method : {"exodus", "slayer", "bptt"}, optional
        The algorithm of the backward pass.
    time_dim : int or None, optional
        The dimension of time; None runs a single step without one.
    state : named tuple of Tensor, optional
        An earlier ``trace.state``; None starts at rest.

    Returns
    -------
    Trace
        Spikes, potential and final state, each with gradients.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    if not isinstance(neuron, Neuron):
        raise TypeError(f"neuron must be a descriptor such as exodus_core.LIF, got {type(neuron).__name__}")
    check_algorithm(method, surrogate)
    return spike_learnt(current, neuron, {}, surrogate, method, time_dim, state)
