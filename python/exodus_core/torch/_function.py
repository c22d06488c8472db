"""Autograd through the kernels. They get tensors by address, so that no build is tied to a torch version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _threads
from .._backends import Array
from .._backward import check_algorithm, incoming, request, run_backward
from .._custom_surrogate import SurrogateLike, check_surrogate
from .._filter import Filtered
from .._forward import run_forward
from .._growth import growth_on
from .._tape import Tape, record
from ..kernel import Kernel
from ..neurons import Filter, Neuron
from ..surrogate import SingleExponential, Surrogate
from ._learnt import check_parameters, with_tensors


@dataclass(eq=False)
class Trace:
    """The result of running neurons over time, as tensors.

    Attributes
    ----------
    spikes : Tensor or None
        s[n], in the current's shape, dtype and memory order; None for ExpLeak.
    potential : Tensor
        u[n], before the reset.
    state : named tuple of Tensor
        The state after the last step. Pass it to the next call as ``state=``.
    """

    spikes: Tensor | None
    potential: Tensor
    state: Any
    _tape: Tape | None = field(default=None, repr=False)  # holds only the binding and the initial state


@dataclass
class Call:
    """The arguments of a call that autograd does not track."""

    neuron: Neuron  # with the learnt values in it
    origin: Neuron  # the descriptor in which the learnt values were replaced
    learnt: tuple[str, ...] = ()
    surrogate: SurrogateLike = SingleExponential()  # noqa: RUF009 (frozen)
    method: str = "exodus"
    time_dim: int | None = 0
    given_name: str = "current"
    with_potential: bool = True  # whether the caller needs the potential
    array_function: str = "exodus_core.forward"  # the function for arrays, for error messages


def check_tensor(name: str, tensor: Any, instead: str = "for arrays use exodus_core.forward") -> None:
    """Check that the kernels can take a tensor. `instead` is a hint in the message for other types."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(tensor).__name__}: {instead}")
    if not tensor.is_cuda and tensor.device.type != "cpu":
        raise TypeError(f"{name} must be on the CPU or a CUDA device, got a tensor on {tensor.device}")
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got {tensor.layout}")
    if not tensor.is_cuda and tensor.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name} must have dtype float32 or float64, got {tensor.dtype}")


def _state_memory(neuron: Neuron, state: Any) -> Any:
    """Check the tensors of a state, and return their memory as arrays."""
    if state is None:
        return None
    for name, tensor in zip(neuron._state._fields, state, strict=True):
        check_tensor(f"state.{name}", tensor, "a layer's initial_state gives tensors")
    return neuron._state(*map(_memory, state))


def _memory(tensor: Tensor) -> Array:
    """Return a tensor's memory as an array: a NumPy array, or on a GPU a detached tensor."""
    plain = tensor.detach().resolve_neg()
    return plain if plain.is_cuda else plain.numpy()


def _tensor(array: Array) -> Tensor:
    """Return an array's memory as a tensor: the inverse of ``_memory``."""
    return array if isinstance(array, Tensor) else torch.from_numpy(np.asarray(array))


def _own(array: Array) -> Array:
    """Return a writeable copy of a NumPy array: a surrogate gets read-only ones, which torch warns of."""
    return np.array(array) if isinstance(array, np.ndarray) else array


def _thread_count() -> int:
    return 0 if _threads.was_chosen() else torch.get_num_threads()


def _array_surrogate(surrogate: SurrogateLike) -> SurrogateLike:
    """Wrap a custom surrogate, which takes and returns tensors, as a function of arrays."""
    if isinstance(surrogate, Surrogate):
        return surrogate

    def evaluate(potential: Array, threshold: Array) -> Array:
        with torch.no_grad():
            h = surrogate(_tensor(_own(potential)), _tensor(_own(threshold)))
        return _memory(h) if isinstance(h, Tensor) else np.asarray(h)

    return evaluate


class _DifferentiatedOnce(torch.autograd.Function):
    """The identity, whose derivative raises an error."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, grad: Tensor) -> Tensor:
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError("the gradient of a spiking layer cannot be differentiated twice")


def differentiable_once(results: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Return the results of a backward pass such that differentiating them raises an error."""
    if not torch.is_grad_enabled():
        return results
    # With create_graph=True. torch's once_differentiable would silently omit the dependence on the inputs.
    anchor = torch.zeros((), requires_grad=True)
    return tuple(None if r is None else _DifferentiatedOnce.apply(anchor, r) for r in results)


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, call: Call, tapes: list[Tape], current: Tensor, recurrent: Tensor | None, *rest: Tensor
    ) -> tuple[Tensor | None, ...]:
        neuron, count = call.neuron, len(call.learnt)
        state = rest[count:] or None
        check_tensor(call.given_name, current, f"for arrays use {call.array_function}")
        if recurrent is not None:
            check_tensor("recurrent", recurrent)
        trace = run_forward(
            neuron,
            _memory(current),
            call.time_dim,
            _state_memory(neuron, state),
            None if recurrent is None else _memory(recurrent),
            learnt=call.learnt,
            origin=call.origin,
            axis_name="time_dim",
            given_name=call.given_name,
            threads=_thread_count(),
            with_potential=call.with_potential,
        )
        results = (trace.potential, trace.spikes, *trace.state)
        tensors = tuple(None if result is None else _tensor(result) for result in results)
        tapes.append(Tape(trace._binding, initial=trace.initial_state))
        ctx.set_materialize_grads(False)
        ctx.call, ctx.binding, ctx.has_state = call, trace._binding, state is not None
        # Save only the arrays that a requested gradient reads.
        wanted = [name for name, tensor in zip(call.learnt, rest, strict=False) if tensor.requires_grad]
        ctx.reads_recording = neuron._reads_recording(wanted)
        ctx.reads_current = neuron._reads_current(wanted)
        saved: dict[str, Tensor | None] = {}
        if ctx.reads_recording:
            saved |= {f"state {k}": tensor for k, tensor in enumerate(state or ())}
            saved["potential"] = tensors[0]
        if recurrent is not None:
            saved["recurrent"] = recurrent
            if recurrent.requires_grad:
                saved["spikes"] = tensors[1]
        if ctx.reads_current:
            saved["current"] = current
        ctx.saved_names = tuple(saved)
        ctx.save_for_backward(*saved.values())
        return tensors

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return differentiable_once(_Spike._gradients(ctx, grads))

    @staticmethod
    @torch.no_grad()
    def _gradients(ctx: Any, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        call: Call = ctx.call
        if all(grad is None for grad in grads):
            return (None,) * len(ctx.needs_input_grad)
        grad_potential, grad_spikes, *grad_state = (None if g is None else _memory(g) for g in grads)
        _, _, _, needs_recurrent, *needs = ctx.needs_input_grad
        wanted = [name for name, needed in zip(call.learnt, needs, strict=False) if needed]
        tape = _Spike._recorded(ctx)
        result = run_backward(
            tape,
            incoming(
                tape, grad_spikes, grad_potential, None if all(g is None for g in grad_state) else grad_state
            ),
            request(tape.neuron, wanted, needs_recurrent),
            call.method,
            _array_surrogate(call.surrogate),
            threads=_thread_count(),
        )
        parameters = [_tensor(result.parameters[name]) if name in wanted else None for name in call.learnt]
        states = map(_tensor, result.state) if ctx.has_state else ()
        recurrent = _tensor(result.recurrent) if needs_recurrent else None
        return (None, None, _tensor(result.current), recurrent, *parameters, *states)

    @staticmethod
    def _recorded(ctx: Any) -> Tape:
        """Return the tape of the saved tensors. They are checked: hooks may have packed and unpacked them."""
        saved = dict(zip(ctx.saved_names, map(_memory, ctx.saved_tensors), strict=True))
        state = [array for name, array in saved.items() if name.startswith("state ")]
        return record(
            ctx.binding,
            potential=saved.get("potential"),
            current=saved.get("current"),
            spikes=saved.get("spikes"),
            initial=ctx.binding.neuron._state(*state) if state else None,
            recurrent=saved.get("recurrent"),
        )


def run(
    call: Call, current: Any, learnt: Mapping[str, Tensor], state: Any, recurrent: Tensor | None = None
) -> Trace:
    """Run neurons over time, with gradients for current, state, recurrent weights and learnt parameters.

    `call.neuron` already has the values of the learnt parameters.
    """
    fields = call.neuron._state._fields
    if state is not None and (not isinstance(state, (tuple, list)) or len(state) != len(fields)):
        raise TypeError(
            f"state must be a tuple of {len(fields)} tensors ({', '.join(fields)}), got {state!r:.80}"
        )
    inputs = (current, recurrent, *learnt.values(), *(state or ()))
    if not call.with_potential and torch.is_grad_enabled():  # A backward pass may read the potential.
        call.with_potential = any(isinstance(x, Tensor) and x.requires_grad for x in inputs)
    tapes: list[Tape] = []
    potential, spikes, *final = _Spike.apply(call, tapes, *inputs)
    return Trace(spikes, potential, call.neuron._state(*final), *tapes)


def spike(
    current: Tensor,
    neuron: Neuron,
    *,
    surrogate: SurrogateLike = SingleExponential(),  # noqa: B008 (frozen)
    method: str = "exodus",
    time_dim: int | None = 0,
    state: Any = None,
    parameters: Mapping[str, Tensor] | None = None,
    recurrent: Tensor | None = None,
) -> Trace:
    """Run neurons over time, with gradients for all arguments that are tensors.

    Parameters
    ----------
    current : Tensor
        Input current a[n], float32 or float64, of any strides. On a GPU it may also be float16 or bfloat16,
        and the CUDA kernels run on torch's current stream.
    neuron : Neuron
        A descriptor of ``exodus_core``, such as LIF.
    surrogate : Surrogate or callable, optional
        f'(u): a built-in surrogate, or a function ``(potential, threshold) -> tensor``.
    method : {"exodus", "slayer", "bptt"}, optional
        The algorithm of the backward pass.
    time_dim : int or None, optional
        The dimension of time. None runs a single step without one.
    state : named tuple of Tensor, optional
        State before the first step: an earlier ``trace.state``, for instance. None starts at rest.
    parameters : mapping of str to Tensor, optional
        Values that replace the neuron's, by the names that it was given ("alpha" or "tau", "A",
        "epsilon.alpha"). They may come from any computation, tied, generated or parametrised, and gradients
        flow back into it. Shapes are as for the neuron's own values. A decay is clamped into [0, 1], a
        threshold or time constant to above 0, and the gradient is passed straight through.
    recurrent : Tensor, optional
        Weights W of shape (N, N) between the N neurons along the last dimension that is not time. The neurons
        get the current a[n] + s[n-1] W.

    Returns
    -------
    Trace
        Spikes, potential and final state, all attached to the autograd graph.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    if not isinstance(neuron, Neuron):
        raise TypeError(f"neuron must be a descriptor such as exodus_core.LIF, got {type(neuron).__name__}")
    check_algorithm(method, surrogate)
    given = {} if parameters is None else check_parameters(neuron, parameters)
    if given:
        check_tensor("current", current)
    used = with_tensors(neuron, current, given, "move it with .to()")
    call = Call(used, neuron, tuple(given), surrogate, method, time_dim)
    return run(call, current, given, state, recurrent)


def kernel_filter(kernel: Kernel, x: Tensor, *, time_dim: int | None = 0, state: Any = None) -> Filtered:
    """Filter a tensor with a kernel: output[n] = sum_{k<=n} kernel[n-k] x[k].

    Gradients flow to `x` and to the state. The backward pass is the adjoint of the filter, and needs no saved
    tensors.

    Parameters
    ----------
    kernel : Kernel
        A kernel, such as ``exodus_core.kernel.Alpha(tau)``.
    x : Tensor
        float32 or float64 (on a GPU also float16 or bfloat16), with time on `time_dim`: spikes for a van
        Rossum loss, or a layer's output.
    time_dim : int or None, optional
        None filters a single step without a time dimension.
    state : named tuple of Tensor, optional
        The `state` of an earlier call, to continue it. None starts at rest.

    Returns
    -------
    Filtered
        The output and the final state, as tensors.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    neuron = Filter(kernel)
    call = Call(neuron, neuron, time_dim=time_dim, given_name="x", array_function="exodus_core.kernel_filter")
    trace = run(call, x, {}, state)
    return Filtered(trace.potential, trace.state)


def growth(trace: Trace, surrogate: SurrogateLike = SingleExponential()) -> float:  # noqa: B008 (frozen)
    """Compute the fraction of steps at which the exact gradient grows, as ``exodus_core.growth`` does.

    Parameters
    ----------
    trace : Trace
        The result, on the CPU, of ``spike`` or of a layer with ``output="trace"``.
    surrogate : Surrogate or callable, optional
        As for ``spike``. For a layer, pass `layer.surrogate`.

    Returns
    -------
    float
        The fraction of steps that multiply the gradient by more than 1 in magnitude; for coupled states, the
        fraction of windows that do. It is 0 for the default surrogate if a reset subtracts the threshold.

    Raises
    ------
    TypeError
        If `trace` is no such trace, if it is on a GPU, or if the neuron is an SRM whose refractory kernel is
        not `Exponential`.
    """
    if not isinstance(trace, Trace) or trace._tape is None:
        raise TypeError(f"trace must be the result of exodus_core.torch.spike, got {type(trace).__name__}")
    check_surrogate(surrogate)
    if trace.potential.is_cuda:
        raise TypeError("trace must hold tensors on the CPU, got tensors on a GPU: run the neuron on the CPU")
    spikes = None if trace.spikes is None else _memory(trace.spikes)
    tape = record(
        trace._tape.binding, potential=_memory(trace.potential), spikes=spikes, initial=trace._tape.initial
    )
    return growth_on(tape, _array_surrogate(surrogate))
