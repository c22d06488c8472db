"""Autograd through the kernels. They get tensors by address, so that no build is tied to a torch version."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from .. import _threads
from .._backends import Array, Backend
from .._backends.tensors import TENSORS
from .._backward import incoming, request, run_backward
from .._binding import Binding, bind
from .._custom_surrogate import SurrogateLike
from .._forward import run_forward
from .._tape import Tape, record
from ..neurons import Neuron
from ..surrogate import SingleExponential, Surrogate
from ._direct import Numbers, Place
from ._handing import Handed, Recipe

_TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_TYPE_NAMES = "float32, float64, float16 or bfloat16"
_DENSE = torch.strided
_NO_NUMBERS = Numbers()


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

    origin: Neuron  # the descriptor, in which the learnt values are replaced
    learnt: tuple[str, ...] = ()
    surrogate: SurrogateLike = SingleExponential()  # noqa: RUF009 (frozen)
    method: str = "exodus"
    time_dim: int | None = 0
    given_name: str = "current"
    with_potential: bool = True  # whether the caller needs the potential
    with_state: bool = True  # whether the caller needs the final state
    memory: str = "full"
    inplace: bool = False
    remedy: str = "move it with .to()"  # for errors about learnt tensors on another device
    text: str = ""  # the descriptor and the surrogate as text, if they are known
    surrogate_text: str = ""
    neuron: Any = None  # with the learnt values in it
    differentiates: bool = True  # whether autograd records the call
    tape: Any = None  # of the forward pass, without the tensors over time
    handed: Handed | None = None  # bits, if a container has asked for them
    recipe: Recipe | None = None  # of the current, which then need not be kept


def check_tensor(name: str, tensor: Any, instead: str = "for arrays use exodus_core.forward") -> None:
    """Check that the kernels can take a tensor. `instead` is a hint in the message for other types."""
    if (
        type(tensor) is Tensor
        and not tensor.is_cuda
        and tensor.is_cpu
        and tensor.dtype in _TYPES
        and tensor.layout is _DENSE
    ):
        return
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(tensor).__name__}: {instead}")
    if not tensor.is_cuda and tensor.device.type != "cpu":
        raise TypeError(f"{name} must be on the CPU or a CUDA device, got a tensor on {tensor.device}")
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got {tensor.layout}")
    if not tensor.is_cuda and tensor.dtype not in _TYPES:
        raise TypeError(f"{name} must have dtype {_TYPE_NAMES}, got {tensor.dtype}")


def _state_memory(neuron: Neuron, state: Any) -> Any:
    """Check the tensors of a state, and return them as arrays."""
    if state is None:
        return None
    for name, tensor in zip(neuron._state._fields, state, strict=True):
        check_tensor(f"state.{name}", tensor, "a layer's initial_state gives tensors")
    return neuron._state(*map(_memory, state))


def _memory(tensor: Tensor) -> Array:
    """Return a tensor as an array of its backend: itself, or on a GPU a detached tensor."""
    return tensor.detach().resolve_neg() if tensor.is_cuda else tensor


def _tensor(array: Array) -> Tensor:
    """Return an array's memory as a tensor: the inverse of ``_memory``."""
    return array if isinstance(array, Tensor) else torch.from_numpy(np.asarray(array))


def _own(array: Array) -> Array:
    """Return a writeable copy of a NumPy array: a surrogate gets read-only ones, which torch warns of."""
    return np.array(array) if isinstance(array, np.ndarray) else array


def _backend(tensor: Tensor) -> Backend | None:
    return None if tensor.is_cuda else TENSORS


def _thread_count() -> int:
    return 0 if _threads.was_chosen() else torch.get_num_threads()


def array_surrogate(surrogate: SurrogateLike) -> SurrogateLike:
    """Wrap a custom surrogate, which takes and returns tensors, as a function of arrays."""
    if isinstance(surrogate, Surrogate):
        return surrogate

    def evaluate(potential: Array, threshold: Array) -> Array:
        with torch.no_grad():
            h = surrogate(_tensor(_own(potential)), _tensor(_own(threshold)))
        if not isinstance(h, Tensor):
            return np.asarray(h)
        return h.detach() if h.is_cuda else h.detach().resolve_neg().numpy()

    return evaluate


def refuse_to_differentiate(ctx: Any, *grads: Any) -> Any:
    """Raise the error of a second derivative."""
    raise RuntimeError("the gradient of a spiking layer cannot be differentiated twice")


class _DifferentiatedOnce(torch.autograd.Function):
    """The identity, whose derivative raises an error."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, grad: Tensor) -> Tensor:
        return grad.view_as(grad)

    backward = staticmethod(refuse_to_differentiate)


def differentiable_once(
    gradients: Callable[..., tuple[Tensor | None, ...]], ctx: Any, grads: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    """Run a backward pass such that differentiating its results raises an error."""
    if not torch.is_grad_enabled():
        return gradients(ctx, grads)
    with torch.no_grad():
        results = gradients(ctx, grads)
    # With create_graph=True. torch's once_differentiable would silently omit the dependence on the inputs.
    anchor = torch.zeros((), device="cpu", requires_grad=True)
    return tuple(None if r is None else _DifferentiatedOnce.apply(anchor, r) for r in results)


class _Spike(torch.autograd.Function):
    """The kernels as a function of the current, recurrent weights, learnt values and a state.

    The results are spikes, potential and the fields of the final state; None for those that are not wanted.
    """

    @staticmethod
    def forward(
        ctx: Any, call: Call, current: Tensor, recurrent: Tensor | None, *rest: Tensor
    ) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad
        differentiates = call.differentiates and any(needs)
        with_potential = call.with_potential or (differentiates and call.memory == "full")
        if call.inplace and differentiates and call.neuron._reads_current(wanted_of(call, needs)):
            refuse_to_overwrite(call.neuron, wanted_of(call, needs))
        spikes, potential, *final = launch(call, current, recurrent, rest, with_potential)
        if call.inplace:
            potential = current
            ctx.mark_dirty(current)
        ctx.set_materialize_grads(False)
        ctx.call, ctx.binding = call, call.tape.binding
        if differentiates:
            read = read_by_backward(call, needs, current, recurrent, rest, spikes, potential)
            ctx.compute_current, of_current = _kept(call, read.pop("current", None))
            ctx.saved_names = tuple(read)
            ctx.save_for_backward(*read.values(), *of_current)
        return (spikes, potential if call.with_potential else None, *final)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return differentiable_once(_Spike._gradients, ctx, grads)

    @staticmethod
    def _gradients(ctx: Any, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        if all([grad is None for grad in grads]):
            return (None,) * len(ctx.needs_input_grad)
        tensors = ctx.saved_tensors  # once: torch.utils.checkpoint refuses to unpack again
        saved = dict(zip(ctx.saved_names, tensors, strict=False))
        current = _restored(ctx.compute_current, tensors[len(saved) :])
        if current is not None:
            saved["current"] = current
        return (None, *launch_backward(ctx.call, ctx.binding, saved, grads, ctx.needs_input_grad))


_Kept = Sequence[Tensor | None]


def _kept(call: Call, current: Tensor | None) -> tuple[Callable[..., Tensor] | None, _Kept]:
    """Return what is kept for the current, which is None if nothing reads it: its recipe, or itself."""
    recipe, call.recipe = call.recipe, None
    return (None, (current,)) if recipe is None or current is None else recipe


def _restored(compute: Callable[..., Tensor] | None, kept: _Kept) -> Tensor | None:
    """Return the current from what `_kept` has returned."""
    return kept[0] if compute is None else compute(*kept)


def launch(
    call: Call,
    current: Tensor,
    recurrent: Tensor | None,
    rest: tuple[Tensor, ...],
    with_potential: bool,
) -> tuple[Tensor | None, ...]:
    """Run the forward pass, and leave in `call` its binding and a copy of the initial state.

    `rest` are the learnt values, which the call's neuron has already, and the fields of the state.
    """
    state = rest[len(call.learnt) :]
    if recurrent is not None:
        check_tensor("recurrent", recurrent)
    trace = run_forward(
        call.neuron,
        _memory(current),
        call.time_dim,
        _state_memory(call.neuron, state or None),
        None if recurrent is None else _memory(recurrent),
        learnt=call.learnt,
        origin=call.origin,
        axis_name="time_dim",
        given_name=call.given_name,
        threads=_thread_count(),
        with_potential=with_potential,
        with_state=call.with_state,
        memory=call.memory,
        inplace=call.inplace,
        backend=_backend(current),
    )
    call.tape = Tape(trace._binding, initial=trace.initial_state)
    results = (trace.spikes, trace.potential, *(trace.state or ()))
    return tuple([None if result is None else _tensor(result) for result in results])


def read_by_backward(
    call: Call,
    needs: Sequence[bool],
    current: Tensor,
    recurrent: Tensor | None,
    rest: tuple[Tensor, ...],
    spikes: Tensor | None,
    potential: Tensor | None,
) -> dict[str, Tensor | None]:
    """Return the tensors that the requested gradients read. `needs` has an entry for each argument."""
    _, _, needs_recurrent, *_ = needs
    wanted = wanted_of(call, needs)
    read: dict[str, Tensor | None] = {}
    reads_recording, lean = call.neuron._reads_recording(wanted), call.memory == "lean"
    if reads_recording:
        read = {f"state {k}": tensor for k, tensor in enumerate(rest[len(call.learnt) :])}
        if not lean:
            read["potential"] = potential
    if recurrent is not None:
        read["recurrent"] = recurrent
        if needs_recurrent:
            read["spikes"] = spikes
    if (lean and reads_recording) or (wanted and call.neuron._reads_current(wanted)):
        read["current"] = current
    return read


def wanted_of(call: Call, needs: Sequence[bool]) -> list[str]:
    """Return the names of the learnt values whose gradients are wanted."""
    return [name for name, needed in zip(call.learnt, needs[3:], strict=False) if needed]


def refuse_to_overwrite(neuron: Neuron, wanted: Sequence[str]) -> NoReturn:
    """Raise the error of wanted gradients that read the current, which would be overwritten."""
    readers = [name for name in wanted if neuron._reads_current([name])]
    raise ValueError(
        "inplace must be False where a gradient reads the current, as that of "
        f"{', '.join(readers)} does, got True"
    )


def launch_backward(
    call: Call,
    binding: Binding,
    saved: Mapping[str, Tensor],
    grads: Sequence[Tensor | None],
    needs: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Run the backward pass; return the gradients of current, recurrent weights, learnt values and state.

    The saved tensors are checked: hooks may have packed and unpacked them.
    """
    _, _, needs_recurrent, *needs_rest = needs
    count = len(call.learnt)
    wanted = wanted_of(call, needs)
    arrays = {name: _memory(tensor) for name, tensor in saved.items()}
    state = [array for name, array in arrays.items() if name.startswith("state ")]
    tape = record(
        binding,
        potential=arrays.get("potential"),
        current=arrays.get("current"),
        spikes=arrays.get("spikes"),
        initial=binding.neuron._state(*state) if state else None,
        recurrent=arrays.get("recurrent"),
        recomputes=call.memory == "lean",
    )
    grad_spikes, grad_potential, *grad_state = [None if g is None else _memory(g) for g in grads]
    has_grad_state = any([g is not None for g in grad_state])
    has_state = len(needs_rest) > count
    result = run_backward(
        tape,
        incoming(tape, grad_spikes, grad_potential, grad_state if has_grad_state else None),
        request(tape.neuron, wanted, needs_recurrent),
        call.method,
        array_surrogate(call.surrogate),
        threads=_thread_count(),
        with_state=has_state,
    )
    parameters = [_tensor(result.parameters[name]) if name in wanted else None for name in call.learnt]
    states = map(_tensor, result.state) if has_state else ()
    recurrent = _tensor(result.recurrent) if needs_recurrent else None
    return (_tensor(result.current), recurrent, *parameters, *states)


class _SpikeDirect(torch.autograd.Function):
    """As `_Spike`, for calls without a state and recurrent weights that have a place."""

    @staticmethod
    def forward(
        ctx: Any, call: Call, place: Place, current: Tensor, *learnt: Tensor
    ) -> tuple[Tensor | None, ...]:
        needs, neuron, numbers = ctx.needs_input_grad, call.origin, _NO_NUMBERS
        wanted: tuple[str, ...] = ()
        if learnt:
            numbers = place.numbers(neuron, learnt)
            wanted = tuple(wanted_of(call, needs))
        differentiates = call.differentiates and (needs[2] or len(wanted) > 0)
        reads = place.reads(neuron, wanted) if differentiates else None
        if call.inplace and reads is not None and reads.current:
            refuse_to_overwrite(neuron, wanted)
        keeps = reads is not None and reads.potential and call.memory == "full"
        spikes, potential, call.handed = place.forward(
            numbers,
            current,
            call.with_potential or keeps,
            call.inplace,
            call.surrogate if differentiates else None,
            _thread_count(),
        )
        if call.inplace:
            ctx.mark_dirty(current)
        ctx.set_materialize_grads(False)
        if reads is not None:
            reads_current = reads.current or (reads.potential and not keeps)
            compute, of_current = _kept(call, current if reads_current else None)
            ctx.save_for_backward(potential if keeps else None, *of_current)
            ctx.context = call, place, numbers, reads, compute
        return spikes, potential if call.with_potential else None

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return differentiable_once(_SpikeDirect._gradients, ctx, grads)

    @staticmethod
    def _gradients(ctx: Any, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        call, place, numbers, reads, compute = ctx.context
        potential, *of_current = ctx.saved_tensors
        saved, method, surrogate = (potential, _restored(compute, of_current)), call.method, call.surrogate
        if not isinstance(surrogate, Surrogate) or not place.has_all(saved, grads):
            return _SpikeDirect._general_gradients(ctx, saved, grads)
        current, learnt = place.backward(numbers, reads, saved, grads, method, surrogate, _thread_count())
        return (None, None, current, *learnt)

    @staticmethod
    def _general_gradients(
        ctx: Any, saved: Sequence[Tensor | None], grads: Sequence[Tensor | None]
    ) -> tuple[Tensor | None, ...]:
        call, place, numbers, *_ = ctx.context
        neuron = call.origin._with_unchecked(place.learnt_values(numbers) if call.learnt else {})
        binding = bind(neuron, place.layout, place.type_name, call.learnt, call.origin)
        by_name = zip(("potential", "current"), saved, strict=True)
        named = {name: tensor for name, tensor in by_name if tensor is not None}
        _, _, needs_current, *needs_rest = ctx.needs_input_grad
        needs = False, needs_current, False, *needs_rest
        current, _, *learnt = launch_backward(call, binding, named, grads, needs)
        return (None, None, current, *learnt)
