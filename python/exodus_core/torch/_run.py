"""``run``: one call of a layer, by an autograd function, or by an operator where a program is traced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .._text import to_text
from ._direct import place_of
from ._function import Call, Trace, _Spike, _SpikeDirect
from ._handing import give, take_recipe
from ._learnt import with_tensors
from ._operators import FUNCTION, Program, spike, surrogate_text
from ._transforms import SpikeFunction
from ._uncompiled import uncompiled

_PLAIN = (Tensor, torch.nn.Parameter)


def is_traced(current: Tensor) -> bool:
    """Tell whether a call has to be an operator: something records or transforms the program."""
    return (
        torch.compiler.is_compiling()
        or type(current) not in _PLAIN
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
    )


def _run_operator(
    call: Call, current: Tensor, learnt: Mapping[str, Tensor], state: Any, recurrent: Tensor | None
) -> Trace:
    neuron = call.text or to_text(call.origin)
    surrogate = call.surrogate_text or surrogate_text(call.surrogate)
    if surrogate.startswith(FUNCTION) and torch.compiler.is_exporting():
        raise RuntimeError(
            "surrogate must be a built-in one in a program that is exported, since a Python function "
            f"cannot be exported, got {call.surrogate!r}"
        )
    names, values, fields = list(learnt), list(learnt.values()), list(state or ())
    program = Program(neuron, names, surrogate, call.method, call.time_dim)
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        spikes, potential, *final = SpikeFunction.apply(program, current, recurrent, *values, *fields)
    else:
        with_potential = call.with_potential or torch.is_grad_enabled()
        spikes, potential, final = spike(current, recurrent, values, fields, *program.texts, with_potential)
    fires = call.origin._fires
    state = call.origin._state(*final)
    return Trace(spikes if fires else None, potential, state)


def _check_may_be_overwritten(current: Tensor, others: tuple[Tensor | None, ...]) -> None:
    """Raise where the memory holds other numbers, or autograd cannot follow that they are overwritten."""
    if current.is_neg():
        raise ValueError("current must not be a negated view with inplace=True, got one: use resolve_neg()")
    if not torch.is_grad_enabled():
        return
    if current.requires_grad and current.is_leaf:
        raise ValueError("current must not be a leaf that requires a gradient, with inplace=True, got one")
    differentiable = current.requires_grad or any([x is not None and x.requires_grad for x in others])
    if differentiable and current._is_view():
        raise ValueError(
            f"current must not be a view of another tensor with inplace=True, got one of shape "
            f"{tuple(current.shape)}: snn.Sequential gives its layers none, where time or the batch is first"
        )


def run(
    call: Call, current: Tensor, learnt: Mapping[str, Tensor], state: Any, recurrent: Tensor | None = None
) -> Trace:
    """Run neurons over time, with gradients for current, state, recurrent weights and learnt parameters.

    `learnt` has the tensors that take the place of the descriptor's values.
    """
    kind = call.origin._state
    if state is not None and (not isinstance(state, (tuple, list)) or len(state) != len(kind._fields)):
        raise TypeError(
            f"state must be a tuple of {len(kind._fields)} tensors ({', '.join(kind._fields)}), "
            f"got {state!r:.80}"
        )
    if is_traced(current):
        if call.memory != "full" or call.inplace:
            raise RuntimeError(
                "memory and inplace must have their defaults in a program that is compiled, exported or "
                f"transformed, got memory={call.memory!r}, inplace={call.inplace}: call "
                "exodus_core.torch.configure(net, memory='full', inplace=False) before"
            )
        if torch.compiler.is_compiling() and not call.text:
            trace: Trace = _run_uncompiled(call, current, learnt, state, recurrent)
            return trace
        return _run_operator(call, current, learnt, state, recurrent)
    call.differentiates = torch.is_grad_enabled()
    if call.memory == "lean":
        call.recipe = take_recipe(current)
    if call.inplace:
        _check_may_be_overwritten(current, (recurrent, *learnt.values(), *(state or ())))
    if state is None and recurrent is None and not call.with_state and not _is_refused(call, current):
        place = place_of(call.origin, current, call.time_dim, learnt)
        if place is not None:
            spikes, potential = _SpikeDirect.apply(call, place, current, *learnt.values())
            if call.handed is not None:
                give(spikes, call.handed)
            return Trace(spikes, potential, None)
    call.neuron = with_tensors(call.origin, current, learnt, call.remedy)
    spikes, potential, *final = _Spike.apply(call, current, recurrent, *learnt.values(), *(state or ()))
    return Trace(spikes, potential, kind(*final) if final else None, call.tape)


def _is_refused(call: Call, current: Tensor) -> bool:
    """Tell whether the general way has an error for what a call on a GPU asks for."""
    is_half = current.dtype.itemsize < 4
    return current.is_cuda and (call.memory == "lean" or (call.inplace and is_half))


_run_uncompiled = uncompiled(
    run, reason="a compiled program takes layers, not functions: use exodus_core.torch.from_neuron"
)
