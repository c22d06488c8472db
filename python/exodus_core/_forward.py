"""``forward``: run neurons over time."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from ._arguments import empty_state, recurrent_weights, state_arrays
from ._backends import Array, Backend, Operand, backend_of
from ._binding import Binding, bind
from ._layout import arrange
from ._out import check_apart, check_out, named
from ._tape import Trace, check_memory, check_recomputable
from .neurons import Neuron


def forward(
    neuron: Neuron,
    current: Array,
    *,
    time_axis: int | None = 0,
    state: Any = None,
    recurrent: Array | None = None,
    out: Trace | None = None,
    memory: str = "full",
) -> Trace:
    """Run neurons over time.

    Parameters
    ----------
    neuron : Neuron
        The descriptor, such as LIF.
    current : array
        Input current a[n], with time on `time_axis`. A NumPy array of float16, float32 or float64, or an
        array on a GPU (torch, CuPy, JAX), which may also be bfloat16. All other arrays of the call, and the
        results, are of the same library and on the same device. If the current is float16 or bfloat16, so are
        the spikes and their gradients; everything else, and the arithmetic, is float32. A dense array of any
        stride order is read in place; one with gaps, overlaps or negative strides is copied once.
    time_axis : int or None, optional
        None runs a single step on an array without a time axis.
    state : named tuple of array, optional
        State before the first step: an earlier ``trace.state``, or the result of ``neuron.initial_state``,
        shaped like `current` without its time axis. None starts at rest. It is not modified.
    recurrent : array, optional
        Weights W of shape (N, N) between the N neurons along the last axis that is not time, in the dtype of
        states. The neurons get the current a[n] + s[n-1] W (docs/mathematics.md, Recurrence), where the sum
        goes over the neurons that fired, in order. The neuron must spike.
    out : Trace, optional
        An earlier result of the same shape, dtype and layout, whose `spikes` and `potential` are reused.
    memory : {"full", "lean"}, optional
        "lean" keeps no potential. ``backward`` then recomputes it from the current, segment by segment of
        about the square root of the steps, and gives the same gradients, bit for bit. It is for arrays on the
        CPU, for built-in surrogates, and not for kernels that are given by their taps.

    Returns
    -------
    Trace
        Spikes, potential (None with ``memory="lean"``) and final state; `out` itself if it was given.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit. The message names it, and says what was expected and what it was.
    RuntimeError
        If `current` is on a GPU and the CUDA kernels are not installed or cannot run; the message says which.
    """
    check_memory("memory", memory)
    backend = backend_of(current)
    with backend.current():
        return run_forward(
            neuron,
            current,
            time_axis,
            state,
            recurrent,
            out,
            with_potential=memory == "full",
            memory=memory,
            backend=backend,
        )


def run_forward(
    neuron: Neuron,
    current: Any,
    time_axis: int | None,
    state: Any,
    recurrent: Any = None,
    out: Trace | None = None,
    *,
    learnt: Collection[str] = (),
    origin: Neuron | None = None,
    axis_name: str = "time_axis",
    given_name: str = "current",
    threads: int = 0,
    with_potential: bool = True,
    with_state: bool = True,
    memory: str = "full",
    inplace: bool = False,
    backend: Backend | None = None,
) -> Trace:
    """Run ``forward`` for the numpy or the torch front end.

    The last arguments are for torch. It keeps the parameters that it learns in their domains, puts them in
    place of those of the descriptor `origin`, and names them in `learnt`. It has its own names for arguments
    and its own number of threads. It needs no potential unless it is returned or a backward pass reads it,
    and no final state unless it is returned. With `inplace` the potential is written over the current.
    """
    if not isinstance(neuron, Neuron):
        raise TypeError(
            f"neuron must be a descriptor such as LIF, got {type(neuron).__name__}: "
            "call a torch module directly, or see exodus_core.torch.spike"
        )
    given, read, layout = arrange(given_name, current, time_axis, axis_name, backend)
    backend = layout.backend
    binding = bind(neuron, layout, backend.type_name(read), learnt, origin)
    given_weights = None if recurrent is None else recurrent_weights("recurrent", recurrent, binding)
    weights = None if given_weights is None else backend.contiguous(given_weights)
    if memory == "lean":
        check_recomputable(binding)
    if inplace:
        _check_overwritable(given_name, current, given, read, binding)
    given_state = [] if state is None else state_arrays("state", state, binding)
    initial = neuron._state(*map(layout.copy_neurons, given_state)) if given_state else None
    if out is None:
        spikes = layout.empty(binding.type_name) if neuron._fires else None
        potential = read if inplace else layout.empty(binding.arithmetic) if with_potential else None
    else:
        fields = named("state", neuron._state._fields, given_state)
        sources = {"current": given, "recurrent": given_weights, **fields}
        spikes, potential = _reused(out, binding, sources, with_potential)
    final = empty_state(binding) if with_state else None
    _launch(binding, read, weights, initial, spikes, potential, final, threads)
    spikes, potential, final, kept, initial, weights = backend.plain(
        spikes, potential, final, read, initial, weights
    )
    trace = Trace(spikes, potential, final, neuron, kept, initial, layout.time_axis, binding, weights, memory)
    return trace if out is None else _moved(trace, out)


def _moved(trace: Trace, out: Trace) -> Trace:
    """Return `out` with the fields of a trace; its arrays stay those that the user put there."""
    arrays = {
        name: getattr(out, name) for name in ("spikes", "potential") if getattr(trace, name) is not None
    }
    vars(out).update(vars(trace) | arrays)
    return out


def _check_overwritable(name: str, current: Array, given: Operand, read: Operand, binding: Binding) -> None:
    """Raise unless the potential can be written over the current: the kernels read it where it lies."""
    if binding.type_name != binding.arithmetic:
        raise ValueError(
            f"inplace must be False for {name} of {binding.type_name}, since the potential is "
            f"{binding.arithmetic}, got True"
        )
    backend = binding.layout.backend
    if math.prod(read.shape) > 0 and backend.plain(read)[0] is not current:
        raise ValueError(
            f"{name} must be dense to be overwritten with inplace=True, got strides of "
            f"{backend.strides(given)} bytes for shape {tuple(given.shape)}"
        )


def _reused(
    out: Any, binding: Binding, sources: Mapping[str, Operand | None], with_potential: bool
) -> tuple[Operand | None, Operand | None]:
    """Check `out`, and that it shares no memory with the sources; return its spikes and potential."""
    if not isinstance(out, Trace):
        raise TypeError(f"out must be a Trace, got {type(out).__name__}")
    layout, spikes, potential = binding.layout, None, None
    if binding.neuron._fires:
        spikes = check_out("spikes", out.spikes, binding.type_name, layout)
    elif out.spikes is not None:
        raise ValueError("out.spikes must be None for a neuron without spikes, got an array")
    if with_potential:
        potential = check_out("potential", out.potential, binding.arithmetic, layout)
    check_apart(layout.backend, {"out.spikes": spikes, "out.potential": potential}, sources)
    return spikes, potential


def _launch(
    binding: Binding,
    current: Operand,
    recurrent: Operand | None,
    initial: Any,
    spikes: Operand | None,
    potential: Operand | None,
    final: Any,
    threads: int,
) -> None:
    """Call the kernels. They fill the spikes, the potential and the final state."""
    layout, backend = binding.layout, binding.layout.backend
    handle = backend.handle
    backend.kernels.forward(
        binding.neuron._model,
        binding.type_name,
        layout.sizes,
        binding.arguments(),
        binding.options,
        handle(current),
        None if recurrent is None else (handle(recurrent), *layout.features),
        tuple(map(handle, initial or ())),
        handle(spikes),
        handle(potential),
        tuple(map(handle, final or ())),
        backend.execution(current, threads),
    )
    backend.finish(current)
