"""The kernels as operators of torch, for everything that traces a program.

``torch.compile``, ``torch.export`` and ``make_fx`` see a layer as one operator with a formula for its
derivative. Eager calls do not take this way: a plain autograd function costs less per call
(`benchmarks/overhead.py`).

The operators take a descriptor as text (`_text.py`), so a program that contains them can be saved and run in
another process. A surrogate that is a Python function has a number in this process instead.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import library as torch_library

from .._backends.tensors import arithmetic_of, type_name_of
from .._binding import bind
from .._custom_surrogate import SurrogateLike
from .._layout import arrange
from .._text import from_text, to_text
from ..neurons import Neuron
from ..surrogate import Surrogate
from ._function import Call, _backend, _memory, launch, launch_backward, refuse_to_differentiate
from ._learnt import with_tensors

_OPERATORS = torch_library.Library("exodus", "DEF")
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)
_DEVICES = ("CPU", "CUDA")


def operator(
    schema: str,
    kernel: Callable[..., Any],
    fake: Callable[..., Any],
    backward: Callable[..., Any] = refuse_to_differentiate,
    setup_context: Callable[..., None] | None = None,
) -> Any:
    """Register an operator of torch. `fake` makes results without values."""
    name = schema.partition("(")[0]
    _OPERATORS.define(schema, tags=_TAGS)
    for device in _DEVICES:
        _OPERATORS.impl(name, kernel, device)
    torch_library.register_fake(f"exodus::{name}", fake, lib=_OPERATORS)
    torch_library.register_autograd(f"exodus::{name}", backward, setup_context=setup_context, lib=_OPERATORS)
    return getattr(torch.ops.exodus, name).default


@dataclass(frozen=True)
class Program:
    """The arguments of the spike operators that are not tensors."""

    neuron: str
    names: Sequence[str]
    surrogate: str
    method: str
    time_dim: int | None

    @property
    def origin(self) -> Neuron:
        """The descriptor."""
        origin: Neuron = from_text(self.neuron)
        return origin

    @property
    def texts(self) -> tuple[Any, ...]:
        """The arguments in the operators' order."""
        return self.neuron, list(self.names), self.surrogate, self.method, self.time_dim

    def call(self, like: Tensor, learnt: Sequence[Tensor]) -> Call:
        """Return the call of an autograd function, with learnt values on the device of a tensor."""
        call = Call(self.origin, tuple(self.names), time_dim=self.time_dim)
        call.neuron = with_tensors(call.origin, like, dict(zip(self.names, learnt, strict=True)), call.remedy)
        return call


# Surrogates that are functions, by number. A function lives as long as somebody else holds it; a bound
# method, which nobody holds, for ever.
_functions: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_methods: dict[int, Any] = {}
_numbers = itertools.count()
FUNCTION = "function:"


def surrogate_text(surrogate: SurrogateLike) -> str:
    """Return a surrogate as the operators take it."""
    if isinstance(surrogate, Surrogate):
        return to_text(surrogate)
    for number, known in (*_functions.items(), *_methods.items()):
        if known is surrogate:
            return f"{FUNCTION}{number}"
    number = next(_numbers)
    try:
        held = _methods if hasattr(surrogate, "__self__") else _functions
        held[number] = surrogate
    except TypeError:  # no weak references
        _methods[number] = surrogate
    return f"{FUNCTION}{number}"


def _surrogate_of(text: str) -> SurrogateLike:
    if not text.startswith(FUNCTION):
        surrogate: Surrogate = from_text(text)
        return surrogate
    number = int(text.removeprefix(FUNCTION))
    found: Callable[..., Any] | None = _functions.get(number, _methods.get(number))
    if found is None:
        raise RuntimeError(
            "the surrogate is a Python function that this process does not have: a program with such a "
            "surrogate runs only in the process that traced it, and as long as the function lives"
        )
    return found


def dense(tensor: Tensor) -> Tensor:
    """Return a tensor itself if its elements fill its memory, else a copy as torch makes it."""
    like = torch.empty_like(tensor, device="meta")
    return tensor if like.stride() == tensor.stride() else tensor.clone()


def fake_neurons(current: Tensor, time_dim: int | None, leading: tuple[int, ...] = ()) -> Tensor:
    """Return a fake tensor with an element per neuron, or with leading axes, in a current's memory order."""
    one = torch.empty_like(current if time_dim is None else current.select(time_dim, 0))
    strides = [one.numel()] * len(leading) + list(one.stride())
    return current.new_empty_strided((*leading, *one.shape), strides, dtype=arithmetic_of(current.dtype))


def _fake_state(program: Program, current: Tensor) -> list[Tensor]:
    lengths, fields = program.origin._values_per_neuron(), program.origin._state._fields
    return [fake_neurons(current, program.time_dim, lengths.get(field, ())) for field in fields]


def _spike(
    current: Tensor,
    recurrent: Tensor | None,
    learnt: Sequence[Tensor],
    state: Sequence[Tensor],
    *arguments: Any,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    *texts, with_potential = arguments
    call = Program(*texts).call(current, learnt)
    spikes, potential, *final = launch(call, dense(current), recurrent, (*learnt, *state), with_potential)
    return (
        current.new_empty(0) if spikes is None else spikes,
        current.new_empty(0) if potential is None else potential,
        [field for field in final if field is not None],
    )


def _fake_spike(
    current: Tensor,
    recurrent: Tensor | None,
    learnt: Sequence[Tensor],
    state: Sequence[Tensor],
    *arguments: Any,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    *texts, with_potential = arguments
    program, dtype = Program(*texts), arithmetic_of(current.dtype)
    spikes = torch.empty_like(current) if program.origin._fires else current.new_empty(0)
    potential = torch.empty_like(current, dtype=dtype) if with_potential else current.new_empty(0)
    return spikes, potential, _fake_state(program, current)


def _spike_backward(
    grad_spikes: Tensor | None,
    grad_potential: Tensor | None,
    grad_state: Sequence[Tensor | None],
    potential: Tensor,
    current: Tensor | None,
    spikes: Tensor | None,
    recurrent: Tensor | None,
    learnt: Sequence[Tensor],
    state: Sequence[Tensor],
    *arguments: Any,
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    *texts, dtype, needs_recurrent, needs_learnt = arguments
    program = Program(*texts)
    call = program.call(potential, learnt)
    call.surrogate, call.method = _surrogate_of(program.surrogate), program.method
    _, _, layout = arrange("potential", _memory(potential), call.time_dim, "time_dim", _backend(potential))
    binding = bind(call.neuron, layout, type_name_of(dtype), call.learnt, call.origin)
    saved: dict[str, Tensor | None] = {f"state {k}": field for k, field in enumerate(state)}
    saved |= {"potential": potential, "current": current, "spikes": spikes, "recurrent": recurrent}
    needs = (False, True, needs_recurrent, *needs_learnt, *[True] * len(state))
    grads = (grad_spikes if call.origin._fires else None, grad_potential, *grad_state)
    if all(grad is None for grad in grads):
        grads = (None, torch.zeros_like(potential), *grad_state)
    grad_current, grad_recurrent, *rest = launch_backward(
        call, binding, {name: tensor for name, tensor in saved.items() if tensor is not None}, grads, needs
    )
    assert grad_current is not None
    parameters = [
        potential.new_empty(0) if grad is None else grad.to(value.dtype)
        for grad, value in zip(rest[: len(learnt)], learnt, strict=True)
    ]
    return (
        grad_current,
        potential.new_empty(0) if grad_recurrent is None else grad_recurrent,
        parameters,
        [field for field in rest[len(learnt) :] if field is not None],
    )


def _fake_spike_backward(
    grad_spikes: Tensor | None,
    grad_potential: Tensor | None,
    grad_state: Sequence[Tensor | None],
    potential: Tensor,
    current: Tensor | None,
    spikes: Tensor | None,
    recurrent: Tensor | None,
    learnt: Sequence[Tensor],
    state: Sequence[Tensor],
    *arguments: Any,
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    *texts, dtype, needs_recurrent, needs_learnt = arguments
    return (
        torch.empty_like(potential, dtype=dtype),
        potential.new_empty(0) if recurrent is None or not needs_recurrent else torch.empty_like(recurrent),
        [
            torch.empty_like(value) if needed else potential.new_empty(0)
            for value, needed in zip(learnt, needs_learnt, strict=True)
        ],
        _fake_state(Program(*texts), potential) if state else [],
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    current, recurrent, learnt, state, *texts, _ = inputs
    spikes, potential, _ = output
    program = Program(*texts)
    _, needs_recurrent, *needs = ctx.needs_input_grad  # flat here, nested as the inputs in _backward
    wanted = [name for name, needed in zip(program.names, needs, strict=False) if needed]
    ctx.dtype, ctx.count, ctx.program = current.dtype, len(learnt), program
    ctx.save_for_backward(
        potential,
        current if wanted and program.origin._reads_current(wanted) else None,
        spikes if needs_recurrent else None,
        recurrent,
        *learnt,
        *state,
    )


def _backward(ctx: Any, grad_spikes: Tensor, grad_potential: Tensor, grad_state: list[Tensor]) -> Any:
    potential, current, spikes, recurrent, *rest = ctx.saved_tensors
    count, program = ctx.count, ctx.program
    _, needs_recurrent, needs_learnt, *_ = ctx.needs_input_grad
    needs_learnt = list(needs_learnt) if count else []
    grad_current, grad_recurrent, grad_learnt, grad_initial = spike_backward(
        grad_spikes,
        grad_potential,
        grad_state,
        potential,
        current,
        spikes,
        recurrent,
        rest[:count],
        rest[count:],
        *program.texts,
        ctx.dtype,
        needs_recurrent,
        needs_learnt,
    )
    return (
        grad_current,
        grad_recurrent if needs_recurrent else None,
        [grad if needed else None for grad, needed in zip(grad_learnt, needs_learnt, strict=True)],
        list(grad_initial),
        None,
        None if program.names else [],  # torch takes an empty list of names for one of tensors
        *[None] * 4,
    )


spike = operator(
    "spike(Tensor current, Tensor? recurrent, Tensor[] learnt, Tensor[] state, str neuron, str[] names, "
    "str surrogate, str method, int? time_dim, bool with_potential) -> (Tensor, Tensor, Tensor[])",
    _spike,
    _fake_spike,
    _backward,
    _setup_context,
)
spike_backward = operator(
    "spike_backward(Tensor? grad_spikes, Tensor? grad_potential, Tensor?[] grad_state, Tensor potential, "
    "Tensor? current, Tensor? spikes, Tensor? recurrent, Tensor[] learnt, Tensor[] state, str neuron, "
    "str[] names, str surrogate, str method, int? time_dim, ScalarType dtype, bool needs_recurrent, "
    "bool[] needs_learnt) -> (Tensor, Tensor, Tensor[], Tensor[])",
    _spike_backward,
    _fake_spike_backward,
)
