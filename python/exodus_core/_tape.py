"""`Trace`, the result of ``forward``, and `Tape`, the checked arrays that a backward pass reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from . import _core
from ._arguments import over_time, recurrent_weights, state_arrays
from ._backends import Array, Operand
from ._binding import Binding
from ._layout import Layout
from .neurons import Neuron

_MEMORY = ("full", "lean")


@dataclass(eq=False)
class Trace:
    """The result of running neurons over time.

    Attributes
    ----------
    spikes : array or None
        s[n], in the current's shape, dtype and memory order; None for ExpLeak.
    potential : array or None
        u[n], before the reset; None with ``memory="lean"``.
    state : named tuple of array
        The state after the last step. Pass it to the next call as ``state=``.
    neuron : Neuron
        The descriptor.
    current : array
        The input itself, not a copy: it must not be overwritten before ``backward``.
    initial_state : named tuple of array or None
        A copy of the initial state; None if the call started at rest.
    time_axis : int or None
        The `time_axis` of the call, counted from the front.
    recurrent : array or None
        The recurrent weights themselves, not a copy.
    memory : {"full", "lean"}
        The `memory` of the call.
    """

    spikes: Array | None
    potential: Array  # None only with memory="lean"
    state: Any
    neuron: Neuron
    current: Array
    initial_state: Any
    time_axis: int | None
    _binding: Binding
    recurrent: Array | None = None
    memory: str = "full"


class Tape(NamedTuple):
    """The arrays and facts of a forward pass that a backward pass reads.

    The binding holds the layout, the dtype and the parameters. The arrays have been checked, but may have
    another memory order than the layout. An array that no gradient reads is None, and so is the potential
    where the kernels shall recompute it from the current.
    """

    binding: Binding
    potential: Operand | None = None
    current: Operand | None = None
    spikes: Operand | None = None
    initial: Any = None
    recurrent: Operand | None = None
    recomputes: bool = False  # whether the potential is not kept

    @property
    def neuron(self) -> Neuron:
        """The descriptor."""
        return self.binding.neuron

    @property
    def layout(self) -> Layout:
        """The layout of the arrays."""
        return self.binding.layout

    @property
    def arithmetic(self) -> str:
        """The dtype of the potential."""
        return self.binding.arithmetic

    def computable(self) -> Tape:
        """Return the tape with arrays that Python code computes with, without current and weights.

        They are in the layout's memory order.
        """
        layout, computed = self.layout, self.layout.backend.to_computing
        binding = self.binding._replace(layout=replace(layout, backend=layout.backend.computing))
        potential, spikes = (
            None if operand is None else computed(layout.place(operand))
            for operand in (self.potential, self.spikes)
        )
        initial = None
        if self.initial is not None:
            initial = self.neuron._state(*(computed(layout.place_neurons(x)) for x in self.initial))
        return Tape(binding, potential, spikes=spikes, initial=initial)


def record(
    binding: Binding,
    potential: Any = None,
    current: Any = None,
    spikes: Any = None,
    initial: Any = None,
    recurrent: Any = None,
    recomputes: bool = False,
) -> Tape:
    """Check the arrays of a forward pass, and make a tape of them.

    They are checked again here because they may have changed: users copy, pickle and edit traces, and hooks
    of torch's autograd pack saved tensors.
    """
    neuron, layout, type_name, arithmetic, *_ = binding
    if potential is not None:
        potential = over_time("trace.potential", potential, layout, arithmetic)
    if current is not None:
        current = over_time("trace.current", current, layout, type_name)
    if spikes is not None:
        spikes = over_time("trace.spikes", spikes, layout, type_name)
    if recurrent is not None:
        recurrent = recurrent_weights("trace.recurrent", recurrent, binding)
    if initial is not None:
        initial = neuron._state(*state_arrays("trace.initial_state", initial, binding))
    return Tape(binding, potential, current, spikes, initial, recurrent, recomputes)


def check_memory(name: str, memory: Any) -> None:
    """Check what a forward pass keeps for the backward pass."""
    if not isinstance(memory, str) or memory not in _MEMORY:
        raise ValueError(f"{name} must be {' or '.join(map(repr, _MEMORY))}, got {memory!r}")


def check_recomputable(binding: Binding) -> None:
    """Raise unless a backward pass can recompute the potential."""
    if binding.layout.backend.kernels is not _core:
        raise ValueError("memory must be 'full' for arrays on a GPU, got 'lean'")
    taps = [name for name in _core.models[binding.neuron._model][2] if name in binding.parameters]
    if taps:
        raise ValueError(
            f"memory must be 'full' for kernels that are given by their taps, got 'lean' with {taps}"
        )


def check_trace(trace: Any) -> None:
    """Raise unless the argument is a trace with the neuron and the time axis of its forward pass."""
    if not isinstance(trace, Trace):
        raise TypeError(f"trace must be the result of forward, got {type(trace).__name__}")
    binding = trace._binding
    if not isinstance(binding, Binding):
        raise TypeError(f"trace._binding must be a Binding made by forward, got {type(binding).__name__}")
    if trace.neuron is not binding.neuron or trace.time_axis is not binding.layout.time_axis:
        _require_equal("neuron", trace.neuron, binding.neuron)  # copies are equal
        _require_equal("time_axis", trace.time_axis, binding.layout.time_axis)
    check_memory("trace.memory", trace.memory)
    if trace.memory == "lean":
        check_recomputable(binding)


def tape_of(trace: Trace, *, reads_spikes: bool = False) -> Tape:
    """Make the tape of a trace, which ``check_trace`` has checked. Only some calls read its spikes."""
    binding, spikes, recomputes = trace._binding, None, trace.memory == "lean"
    potential = None if recomputes else trace.potential
    if binding.neuron._fires:
        spikes = trace.spikes if reads_spikes else None
        if potential is None and not recomputes:  # raises the TypeError for an argument that is no array
            over_time("trace.potential", potential, binding.layout, binding.arithmetic)
        if reads_spikes and spikes is None:
            over_time("trace.spikes", spikes, binding.layout, binding.type_name)
    return record(binding, potential, trace.current, spikes, trace.initial_state, trace.recurrent, recomputes)


def _require_equal(name: str, given: Any, bound: Any) -> None:
    if type(given) is not type(bound) or given != bound:
        raise ValueError(
            f"trace.{name} must be that of the forward pass, {_short(bound)}, got {_short(given)}"
        )


def _short(value: Any) -> str:
    """Return a repr for messages, cut: the repr of a neuron with arrays can be very long."""
    text, most = repr(value), 200
    return text if len(text) <= most else text[:most] + "..."
