"""``backward``: gradients of a loss, computed by EXODUS, SLAYER or BPTT."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import _core
from ._arguments import empty_state, over_time, state_arrays
from ._backends import Array, Operand
from ._binding import all_names
from ._custom_surrogate import SurrogateLike, check_surrogate, evaluated
from ._ieee import ieee
from ._out import check_apart, check_out, named
from ._tape import Tape, Trace, check_trace, tape_of
from .neurons import Neuron
from .surrogate import SingleExponential, Surrogate

METHODS = _core.enumerators["Method"]


@dataclass(eq=False)
class Gradients:
    """The gradients of a loss.

    Attributes
    ----------
    current : array
        dL/da[n], in the current's shape, dtype and memory order.
    state : named tuple of array
        dL/d(initial state). Pass it to ``backward`` of the earlier chunk as ``grad_state=``.
    parameters : dict of str to array
        dL/d(parameter) for each requested parameter that the neuron was given, in the parameter's own shape.
    recurrent : array or None
        dL/d(recurrent weights), in their shape and dtype. None without such weights, or if not requested.
    """

    current: Array
    state: Any
    parameters: dict[str, Any]
    recurrent: Array | None = None


def check_algorithm(method: Any, surrogate: Any) -> None:
    """Check the method and the surrogate of a backward pass."""
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, got {method!r}")
    check_surrogate(surrogate)


def backward(
    trace: Trace,
    grad_spikes: Array | None = None,
    *,
    method: str = "exodus",
    surrogate: SurrogateLike = SingleExponential(),  # noqa: B008 (frozen)
    grad_potential: Array | None = None,
    grad_state: Any = None,
    parameters: Iterable[str] | None = None,
    out: Gradients | None = None,
) -> Gradients:
    """Compute the gradients of a loss from those of the spikes (docs/mathematics.md, Backward; S16, S19).

    Parameters
    ----------
    trace : Trace
        The result of ``forward``.
    grad_spikes : array or None, optional
        e[n] = dL/ds[n], in the shape and dtype of the spikes. None if the loss does not read the spikes, and
        always for ExpLeak.
    method : {"exodus", "slayer", "bptt"}, optional
        The algorithm. "exodus" and "bptt" are exact for the given surrogate. "slayer" ignores that a spike's
        reset changes later potentials, as ``detach_reset=True`` does in other libraries.
    surrogate : Surrogate or callable, optional
        f'(u): a built-in surrogate, or a function ``(potential, threshold) -> array``.
    grad_potential : array, optional
        q[n] = dL/du[n], if the loss also reads the potential.
    grad_state : tuple of (array or None), optional
        dL/d(final state): the ``gradients.state`` of the chunk that follows.
    parameters : collection of str, optional
        The parameters whose gradients are computed, with "recurrent" for recurrent weights. None computes
        all; () computes none, which is fastest.
    out : Gradients, optional
        An earlier result of the same shape, dtype and layout, whose `current` is reused.

    Returns
    -------
    Gradients
        The gradients of the current, the initial state and the parameters; `out` itself if it was given.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit. The message names it, and says what was expected and what it was.
    """
    check_algorithm(method, surrogate)
    check_trace(trace)
    requested = _requested(trace, parameters)
    reuses_beside_spikes = out is not None and trace.spikes is not None
    with trace._binding.layout.backend.current():
        tape = tape_of(trace, reads_spikes=requested.recurrent or reuses_beside_spikes)
        gradients = incoming(tape, grad_spikes, grad_potential, grad_state)
        reused = None if out is None else _reused(out, tape, gradients)
        result = run_backward(tape, gradients, requested, method, surrogate, grad_current=reused)
    if out is None:
        return result
    out.state, out.parameters, out.recurrent = result.state, result.parameters, result.recurrent
    return out


class Incoming(NamedTuple):
    """dL/d(results of the forward pass), checked; None for no gradient."""

    spikes: Operand | None
    potential: Operand | None
    final: list[Operand | None]


class Requested(NamedTuple):
    """The gradients that a backward pass computes in addition to those of the current and the state."""

    parameters: Collection[str]  # by the descriptor's names
    model: Collection[str]  # by the model's names: those that the former are made of
    recurrent: bool


_NOTHING_ELSE = Requested((), (), False)


def incoming(tape: Tape, grad_spikes: Any, grad_potential: Any, grad_state: Any) -> Incoming:
    """Check the gradients of the forward pass's results."""
    neuron, layout, type_name, arithmetic, *_ = tape.binding
    if grad_spikes is not None and not neuron._fires:
        raise ValueError(
            f"grad_spikes must be None for {type(neuron).__name__}, which has no spikes, got an array"
        )
    if grad_spikes is None and grad_potential is None and grad_state is None:
        raise ValueError("at least one of grad_spikes, grad_potential and grad_state must be given, got none")
    if grad_spikes is not None:
        grad_spikes = over_time("grad_spikes", grad_spikes, layout, type_name)
    if grad_potential is not None:
        grad_potential = over_time("grad_potential", grad_potential, layout, arithmetic)
    final: list[Operand | None] = []
    if grad_state is not None:
        final = state_arrays("grad_state", grad_state, tape.binding, optional=True)
    return Incoming(grad_spikes, grad_potential, final)


def run_backward(
    tape: Tape,
    gradients: Incoming,
    requested: Requested,
    method: str,
    surrogate: SurrogateLike,
    *,
    grad_current: Operand | None = None,
    threads: int = 0,
    with_state: bool = True,
) -> Gradients:
    """Run the backward pass for the numpy or the torch front end, which has checked method and surrogate.

    The gradient of the current is written into `grad_current`, if it is given. That of the initial state is
    None unless it is asked for.
    """
    binding, layout = tape.binding, tape.binding.layout
    backend = layout.backend
    if tape.potential is None or tape.current is None:
        _check_needed(tape, requested.parameters)
    if grad_current is None:
        grad_current = layout.empty(binding.type_name)
    h = _kernel_surrogate(surrogate, tape)  # a local variable, which keeps an array alive for the kernels
    grad_initial = empty_state(binding) if with_state else None
    sums = {
        name: backend.computing.empty((binding.parameters[name].size,), (0,), "float64")
        for name in requested.model
    }
    grad_weights = None
    if requested.recurrent and tape.recurrent is not None:
        grad_weights = backend.empty(tape.recurrent.shape, (0, 1), "float64")
    _launch(tape, gradients, method, h, grad_current, grad_initial, sums, grad_weights, threads)
    grads = _parameter_gradients(tape, sums, requested.parameters) if sums else {}
    grad_current, grad_initial, grad_weights = backend.plain(grad_current, grad_initial, grad_weights)
    if grad_weights is not None:
        grad_weights = backend.convert(grad_weights, binding.arithmetic)
    return Gradients(grad_current, grad_initial, grads, grad_weights)


def _launch(
    tape: Tape,
    gradients: Incoming,
    method: str,
    surrogate: Any,
    grad_current: Operand,
    grad_initial: Any,
    sums: Mapping[str, Operand],
    grad_weights: Operand | None,
    threads: int,
) -> None:
    """Call the kernels. They fill the gradients of the current and the initial state, and the sums."""
    binding = tape.binding
    neuron, layout, type_name, *_ = binding
    backend = layout.backend
    handle = backend.handle
    # Local variables, which keep copies alive for the kernels.
    potential, current, spikes = layout.place(tape.potential), layout.place(tape.current), None
    if grad_weights is not None:
        spikes = layout.place(tape.spikes)
    initial = list(map(layout.place_neurons, tape.initial or ()))
    weights = None if tape.recurrent is None else backend.contiguous(tape.recurrent)
    grad_spikes, grad_potential = layout.place(gradients.spikes), layout.place(gradients.potential)
    grad_final = list(map(layout.place_neurons, gradients.final))
    backend.kernels.backward(
        neuron._model,
        type_name,
        layout.sizes,
        binding.arguments(),
        binding.options,
        method,
        surrogate if type(surrogate) is tuple else handle(surrogate),  # a named tuple may be an operand
        handle(potential),
        handle(current),
        None if weights is None else (handle(weights), *layout.features),
        handle(spikes),
        tuple(map(handle, initial)),
        handle(grad_spikes),
        handle(grad_potential),
        tuple(map(handle, grad_final)),
        handle(grad_current),
        tuple(map(handle, grad_initial or ())),
        *_sum_arguments(neuron, sums, handle),
        handle(grad_weights),
        backend.execution(grad_current, threads),
    )
    backend.finish(grad_current)


def _kernel_surrogate(surrogate: SurrogateLike, tape: Tape) -> Any:
    """Return the surrogate for the kernels: a built-in one's numbers, or the values of a custom one."""
    if isinstance(surrogate, Surrogate):
        return surrogate._argument
    if tape.neuron._fires:
        check_potential_is_kept(surrogate, tape.recomputes)
        return evaluated(surrogate, tape)
    return SingleExponential()._argument  # never read: the neuron does not fire


def check_potential_is_kept(surrogate: SurrogateLike, recomputes: bool) -> None:
    """Raise if a surrogate is a function, but there is no potential to call it with."""
    if recomputes and not isinstance(surrogate, Surrogate):
        raise ValueError(
            "surrogate must be a built-in one with memory='lean', which keeps no potential for a function, "
            f"got {surrogate!r}"
        )


def _check_needed(tape: Tape, parameters: Collection[str]) -> None:
    """Raise if an array that a gradient reads is missing on the tape."""
    reads_potential = tape.potential is None and tape.neuron._reads_recording(parameters)
    if reads_potential and not tape.recomputes:
        raise TypeError("trace.potential must be an array, which a parameter's gradient needs, got None")
    if tape.current is None and reads_potential:
        raise ValueError("trace.current must be the input, which memory='lean' needs, got None")
    if tape.current is None and tape.neuron._reads_current(parameters):
        raise ValueError("trace.current must be the input, which a parameter's gradient needs, got None")


def _reused(out: Any, tape: Tape, gradients: Incoming) -> Operand:
    """Check `out`, and that it shares no memory with what the pass reads; return its array to write into."""
    if not isinstance(out, Gradients):
        raise TypeError(f"out must be a Gradients, got {type(out).__name__}")
    binding, fields = tape.binding, tape.neuron._state._fields
    current = check_out("current", out.current, binding.type_name, binding.layout)
    sources = {
        "grad_spikes": gradients.spikes,
        "grad_potential": gradients.potential,
        "current": tape.current,
        "trace.spikes": tape.spikes,
        "trace.potential": tape.potential,
        "trace.recurrent": tape.recurrent,
        **named("trace.initial_state", fields, tape.initial),
        **named("grad_state", fields, gradients.final),
    }
    check_apart(binding.layout.backend, {"out.current": current}, sources)
    return current


def _requested(trace: Trace, parameters: Iterable[str] | None) -> Requested:
    """Check the user's `parameters`, of which None means all."""
    has_weights = trace.recurrent is not None
    if parameters is None:
        own, model = all_names(trace._binding.neuron)
        return Requested(own, model, has_weights)
    if isinstance(parameters, str):
        raise TypeError(f"parameters must be a collection of names, got the string {parameters!r}")
    wanted = frozenset(parameters)
    if not wanted:
        return _NOTHING_ELSE
    recurrent = has_weights and "recurrent" in wanted
    own = wanted - {"recurrent"} if recurrent else wanted
    return request(trace._binding.neuron, own, recurrent, has_weights)


def request(
    neuron: Neuron, wanted: Collection[str], recurrent: bool = False, has_weights: bool = False
) -> Requested:
    """Request the gradients of some of a neuron's parameters, by the descriptor's names."""
    if not wanted:
        return Requested(wanted, wanted, recurrent)
    names = neuron._relations.names
    unknown = [name for name in wanted if name not in names]
    if unknown:
        listed = ", ".join(sorted(map(repr, unknown)))
        among = [*names, "recurrent"] if has_weights else [*names]
        raise ValueError(f"parameters must be among {among}, got {listed}")
    return Requested(wanted, neuron._model_names(wanted), recurrent)


def _sum_arguments(
    neuron: Neuron, sums: Mapping[str, Operand], handle: Callable[[Operand | None], Any]
) -> tuple[tuple[Any, ...], ...]:
    """Return the sums in the order of the extension's arguments: of parameters, then of FIR taps."""
    if not sums:
        return (), ()
    parameters, _, taps = _core.models[neuron._model]
    return tuple([handle(sums.get(k)) for k in parameters]), tuple([handle(sums.get(k)) for k in taps])


def _parameter_gradients(tape: Tape, sums: Mapping[str, Operand], wanted: Collection[str]) -> dict[str, Any]:
    """Map the kernels' sums to gradients of the descriptor's parameters."""
    neuron, layout, _, arithmetic, bound, _ = tape.binding
    convert, flats = layout.backend.convert, layout.backend.computing.plain(*sums.values())
    with ieee():
        grads = {name: bound[name].gradient(flat, layout) for name, flat in zip(sums, flats, strict=True)}
        own = neuron._own_gradients(grads)
        return {name: convert(gradient, arithmetic)[()] for name, gradient in own.items() if name in wanted}
