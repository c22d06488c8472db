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
from typing import Any

import torch
from torch import Tensor

from .._backends import ARITHMETIC
from .._binding import bind
from .._custom_surrogate import SurrogateLike
from .._layout import arrange
from .._text import from_text, to_text
from ..neurons import Neuron
from ..surrogate import Surrogate
from ._function import Call, _backend, _memory, launch, launch_backward
from ._learnt import with_tensors

_SPIKE = (
    "spike(Tensor current, Tensor? recurrent, Tensor[] learnt, Tensor[] state, str neuron, str[] names, "
    "str surrogate, str method, int? time_dim, bool with_potential) -> (Tensor, Tensor, Tensor[])"
)
_BACKWARD = (
    "spike_backward(Tensor? grad_spikes, Tensor? grad_potential, Tensor?[] grad_state, Tensor potential, "
    "Tensor? current, Tensor? spikes, Tensor? recurrent, Tensor[] learnt, Tensor[] state, str neuron, "
    "str[] names, str surrogate, str method, int? time_dim, ScalarType dtype, bool needs_recurrent, "
    "bool[] needs_learnt) -> (Tensor, Tensor, Tensor[], Tensor[])"
)

library = torch.library.Library("exodus", "DEF")
for _schema in (_SPIKE, _BACKWARD):
    library.define(_schema, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order))

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


def _dense(tensor: Tensor) -> Tensor:
    """Return a tensor itself if its elements fill its memory, else a copy as torch makes it."""
    like = torch.empty_like(tensor, device="meta")
    return tensor if like.stride() == tensor.stride() else tensor.clone()


def _spike(
    current: Tensor,
    recurrent: Tensor | None,
    learnt: Sequence[Tensor],
    state: Sequence[Tensor],
    neuron: str,
    names: Sequence[str],
    surrogate: str,
    method: str,
    time_dim: int | None,
    with_potential: bool,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    call = Call(from_text(neuron), tuple(names), time_dim=time_dim)
    call.neuron = with_tensors(call.origin, current, dict(zip(names, learnt, strict=True)), call.remedy)
    spikes, potential, *final = launch(call, _dense(current), recurrent, (*learnt, *state), with_potential)
    nothing = current.new_empty(0)
    return (
        nothing if spikes is None else spikes,
        nothing.clone() if potential is None else potential,
        [field for field in final if field is not None],
    )


def _neuron_shape(current: Tensor, time_dim: int | None) -> Tensor:
    """Return a fake tensor with one element per neuron, in the memory order of a current."""
    return torch.empty_like(current if time_dim is None else current.select(time_dim, 0))


def _arithmetic(dtype: torch.dtype) -> torch.dtype:
    kind: torch.dtype = getattr(torch, ARITHMETIC[str(dtype).removeprefix("torch.")])
    return kind


def _fake_state(origin: Neuron, current: Tensor, time_dim: int | None) -> list[Tensor]:
    one, dtype, leading = _neuron_shape(current, time_dim), _arithmetic(current.dtype), origin._history()
    fields = []
    for name in origin._state._fields:
        front = leading.get(name, ())
        strides = [one.numel()] * len(front) + list(one.stride())
        fields.append(current.new_empty_strided((*front, *one.shape), strides, dtype=dtype))
    return fields


def _fake_spike(
    current: Tensor,
    recurrent: Tensor | None,
    learnt: Sequence[Tensor],
    state: Sequence[Tensor],
    neuron: str,
    names: Sequence[str],
    surrogate: str,
    method: str,
    time_dim: int | None,
    with_potential: bool,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    origin, dtype = from_text(neuron), _arithmetic(current.dtype)
    spikes = torch.empty_like(current) if origin._fires else current.new_empty(0)
    potential = torch.empty_like(current, dtype=dtype) if with_potential else current.new_empty(0)
    return spikes, potential, _fake_state(origin, current, time_dim)


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
    neuron: str,
    names: Sequence[str],
    surrogate: str,
    method: str,
    time_dim: int | None,
    dtype: torch.dtype,
    needs_recurrent: bool,
    needs_learnt: Sequence[bool],
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    call = Call(from_text(neuron), tuple(names), _surrogate_of(surrogate), method, time_dim)
    call.neuron = with_tensors(call.origin, potential, dict(zip(names, learnt, strict=True)), call.remedy)
    _, layout = arrange("potential", _memory(potential), time_dim, "time_dim", _backend(potential))
    type_name = str(dtype).removeprefix("torch.")
    binding = bind(call.neuron, layout, type_name, call.learnt, call.origin)
    saved: dict[str, Tensor | None] = {f"state {k}": field for k, field in enumerate(state)}
    saved |= {"potential": potential, "current": current, "spikes": spikes, "recurrent": recurrent}
    needs = (False, True, needs_recurrent, *needs_learnt, *[True] * len(state))
    grads = (grad_spikes if call.origin._fires else None, grad_potential, *grad_state)
    nothing = potential.new_empty(0)
    if all(grad is None for grad in grads):
        grads = (None, torch.zeros_like(potential), *grad_state)
    grad_current, grad_recurrent, *rest = launch_backward(
        call, binding, {name: tensor for name, tensor in saved.items() if tensor is not None}, grads, needs
    )
    assert grad_current is not None
    parameters = [
        nothing.clone() if grad is None else grad.to(value.dtype)
        for grad, value in zip(rest[: len(learnt)], learnt, strict=True)
    ]
    return (
        grad_current,
        nothing.clone() if grad_recurrent is None else grad_recurrent,
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
    neuron: str,
    names: Sequence[str],
    surrogate: str,
    method: str,
    time_dim: int | None,
    dtype: torch.dtype,
    needs_recurrent: bool,
    needs_learnt: Sequence[bool],
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    nothing = potential.new_empty(0)
    return (
        torch.empty_like(potential, dtype=dtype),
        torch.empty_like(recurrent) if needs_recurrent and recurrent is not None else nothing,
        [
            torch.empty_like(value) if needed else potential.new_empty(0)
            for value, needed in zip(learnt, needs_learnt, strict=True)
        ],
        _fake_state(from_text(neuron), potential, time_dim) if state else [],
    )


for _device in ("CPU", "CUDA"):
    library.impl("spike", _spike, _device)
    library.impl("spike_backward", _spike_backward, _device)
torch.library.register_fake("exodus::spike", _fake_spike, lib=library)
torch.library.register_fake("exodus::spike_backward", _fake_spike_backward, lib=library)

spike = torch.ops.exodus.spike.default
spike_backward = torch.ops.exodus.spike_backward.default


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    current, recurrent, learnt, state, neuron, names, surrogate, method, time_dim, _ = inputs
    spikes, potential, _ = output
    origin: Neuron = from_text(neuron)
    _, needs_recurrent, *needs = ctx.needs_input_grad  # flat here, nested as the inputs in _backward
    wanted = [name for name, needed in zip(names, needs, strict=False) if needed]
    ctx.dtype, ctx.count = current.dtype, len(learnt)
    ctx.text = neuron, names, surrogate, method, time_dim
    ctx.save_for_backward(
        potential,
        current if wanted and origin._reads_current(wanted) else None,
        spikes if needs_recurrent else None,
        recurrent,
        *learnt,
        *state,
    )


def _backward(ctx: Any, grad_spikes: Tensor, grad_potential: Tensor, grad_state: list[Tensor]) -> Any:
    potential, current, spikes, recurrent, *rest = ctx.saved_tensors
    count, (_, names, *_) = ctx.count, ctx.text
    learnt, state = rest[:count], rest[count:]
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
        learnt,
        state,
        *ctx.text,
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
        None if names else [],  # torch takes an empty list of names for one of tensors
        *[None] * 4,
    )


def _once(ctx: Any, *grads: Any) -> Any:
    raise RuntimeError("the gradient of a spiking layer cannot be differentiated twice")


torch.library.register_autograd("exodus::spike", _backward, setup_context=_setup_context, lib=library)
torch.library.register_autograd("exodus::spike_backward", _once, lib=library)
