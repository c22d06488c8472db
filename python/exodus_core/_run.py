"""The two verbs on arrays: ``forward`` and ``backward``, with what they return."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from . import _core
from ._arrays import Arrangement, arrange, require
from ._backends import NUMPY, Array, ieee, is_torch, on_device, require_plain
from ._binding import Binding, all_names, bind
from .kernel import Kernel
from .neurons import Filter, FilterState, Neuron
from .surrogate import SingleExponential, Surrogate

# The types of parameters and states, by that of the data.
ARITHMETIC = {
    "float16": "float32",
    "bfloat16": "float32",
    "float32": "float32",
    "float64": "float64",
}
METHODS = ("exodus", "slayer", "bptt")  # in the order of exodus::Method

SurrogateLike = Surrogate | Callable[[Any, Any], Any]


@dataclass(eq=False)
class Trace:
    """What a neuron did over time.

    Attributes
    ----------
    spikes : array or None
        s[n], in the current's shape, dtype and memory order; None for ExpLeak.
    potential : array
        u[n], before the reset.
    state : named tuple of array
        After the last step; the next call's ``state=``.
    neuron : Neuron
        The descriptor.
    current : array
        The input: a reference, which must not be overwritten before ``backward``.
    initial_state : named tuple of array or None
        A copy of the state passed in; None at rest.
    time_axis : int or None
        As passed to ``forward``, counted from the front.
    recurrent : array or None
        The recurrent weights: a reference, as `current` is.
    """

    spikes: Array | None
    potential: Array
    state: Any
    neuron: Neuron
    current: Array
    initial_state: Any
    time_axis: int | None
    _arrangement: Arrangement
    _parameters: Binding
    _type_name: str  # of current and spikes
    recurrent: Array | None = None


@dataclass(eq=False)
class Gradients:
    """The gradients of a loss.

    Attributes
    ----------
    current : array
        dL/da[n], in the current's shape, dtype and memory order.
    state : named tuple of array
        dL/d(initial state): the earlier chunk's ``grad_state=``.
    parameters : dict of str to array
        dL/d(parameter) for each parameter that the neuron was given, in the parameter's own shape.
    recurrent : array or None
        dL/d(recurrent weights), in their shape and dtype, where there are some and it was wanted.
    """

    current: Array
    state: Any
    parameters: dict[str, Any]
    recurrent: Array | None = None


def _state_arrays(
    name: str, state: Any, neuron: Neuron, arrangement: Arrangement, arithmetic: str, optional: bool
) -> list[Any]:
    """The fields of a state or of its gradient, checked."""
    names, leading = neuron._state._fields, neuron._history()
    if not isinstance(state, (tuple, list)) or len(state) != len(names):
        got = f"{len(state)} fields" if isinstance(state, (tuple, list)) else type(state).__name__
        raise TypeError(f"{name} must be a tuple of {len(names)} arrays ({', '.join(names)}), got {got}")
    return [
        None
        if optional and array is None
        else require(
            f"{name}.{field}",
            array,
            leading.get(field, ()) + arrangement.neuron_shape,
            arrangement,
            arithmetic,
        )
        for field, array in zip(names, state, strict=True)
    ]


def _empty_state(neuron: Neuron, arrangement: Arrangement, arithmetic: str) -> Any:
    """A state, or its gradient, for the kernels to fill."""
    empty, leading = arrangement.empty_neurons, neuron._history()
    return neuron._state(*[empty(arithmetic, leading.get(field, ())) for field in neuron._state._fields])


def _over_time(name: str, array: Any, arrangement: Arrangement, type_name: str) -> Array:
    """An array over time, checked, as the kernels take it."""
    return arrangement.place(require(name, array, arrangement.shape, arrangement, type_name))


def _check_out(name: str, array: Any, type_name: str, arrangement: Arrangement) -> None:
    """Check an array that is to be written into."""
    backend = arrangement.backend
    try:
        fits = backend.type_name(backend.array(name, array)) == type_name and (
            tuple(array.shape) == arrangement.shape
        )
    except TypeError:
        fits = False
    if not fits:
        got = f"{array.dtype} {tuple(array.shape)}" if hasattr(array, "dtype") else repr(array)
        raise ValueError(f"out.{name} must have dtype {type_name} and shape {arrangement.shape}, got {got}")
    if not arrangement.lies_here(array):
        raise ValueError(
            f"out.{name} must lie in memory like current, its axes in the order {arrangement.order}, "
            f"got strides of {backend.strides(array)} bytes"
        )
    if not backend.writeable(array):
        raise ValueError(f"out.{name} must be writeable, got a read-only array")


def _check_apart(backend: Any, results: dict[str, Array | None], others: dict[str, Array | None]) -> None:
    """Raise if a result shares memory with another array."""
    overlap = backend.overlap
    against = [(name, array) for name, array in others.items() if array is not None]
    for name, result in results.items():
        if result is None:
            continue
        for other_name, other in against:
            if overlap(result, other):
                raise ValueError(f"{name} must not overlap {other_name}, got arrays that share memory")
        against.append((name, result))


def _named(prefix: str, fields: tuple[str, ...], arrays: Any) -> dict[str, Array | None]:
    if arrays is None:
        return {}
    return {f"{prefix}.{field}": array for field, array in zip(fields, arrays, strict=True)}


def forward(
    neuron: Neuron,
    current: Array,
    *,
    time_axis: int | None = 0,
    state: Any = None,
    recurrent: Array | None = None,
    out: Trace | None = None,
) -> Trace:
    """Run neurons over time.

    Parameters
    ----------
    neuron : Neuron
        The descriptor, such as LIF.
    current : array
        Input current a[n], float32 or float64, time on `time_axis`: NumPy's, or one on a GPU (torch, CuPy,
        JAX), as then are all arrays of the call and of its result. On a GPU also float16 or bfloat16: so are
        then spikes and their gradients, all else is float32, and so is the arithmetic. Any dense stride
        order runs in place; arrays with gaps, overlaps or negative strides are copied once.
    time_axis : int or None, optional
        None runs a single step on an array without a time axis.
    state : named tuple of array, optional
        State before the first step (an earlier ``trace.state``, or ``neuron.initial_state``), shaped like
        `current` without its time axis. None starts at rest. It is not modified.
    recurrent : array, optional
        Weights W of shape (N, N) between the N neurons along the last axis that is not time, in the dtype of
        states: a[n] + s[n-1] W is the current (docs/mathematics.md, Recurrence). The sum goes over the
        neurons that fired, in order. Not for neurons without spikes.
    out : Trace, optional
        An earlier result of the same shape, dtype and layout, whose `spikes` and `potential` are reused.

    Returns
    -------
    Trace
        Spikes, potential and final state; `out` itself where it was given.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it, what it must be and what it was.
    RuntimeError
        If `current` is on a GPU and the CUDA kernels are not installed or cannot run; the message says which.
    """
    return run_forward(neuron, current, time_axis, state, recurrent, out)


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
) -> Trace:
    """What ``forward`` does.

    Other front ends keep the parameters that they learn in range themselves (and put them in place of those
    of the descriptor `origin`), have their own names for the arguments, bring their own number of threads,
    and do without the potential where nobody reads it.
    """
    if not isinstance(neuron, Neuron):
        raise TypeError(
            f"neuron must be a descriptor such as LIF, got {type(neuron).__name__}: "
            "torch modules are called themselves, or see exodus_core.torch.spike"
        )
    given = current
    current, arrangement = arrange(given_name, given, time_axis, axis_name)
    backend = arrangement.backend
    type_name = backend.type_name(current)
    arithmetic = ARITHMETIC[type_name]
    binding = bind(neuron, arrangement, type_name, arithmetic, learnt, origin)
    fields = neuron._state._fields
    weights = recurrent
    if recurrent is not None:
        weights = _recurrent_weights("recurrent", recurrent, neuron, arrangement, arithmetic)
    initial = None
    if state is not None:
        fields_given = _state_arrays("state", state, neuron, arrangement, arithmetic, optional=False)
        initial = neuron._state(*map(arrangement.copy_neurons, fields_given))
    if out is None:
        spikes = arrangement.empty(type_name) if neuron._fires else None
        potential = arrangement.empty(arithmetic) if with_potential else None
    else:
        if not isinstance(out, Trace):
            raise TypeError(f"out must be a Trace, got {type(out).__name__}")
        spikes, potential = out.spikes, out.potential
        if neuron._fires:
            _check_out("spikes", spikes, type_name, arrangement)
        elif spikes is not None:
            raise ValueError("out.spikes must be None for a neuron without spikes, got an array")
        _check_out("potential", potential, arithmetic, arrangement)
        _check_apart(
            backend,
            {"out.spikes": spikes, "out.potential": potential},
            {"current": given, "recurrent": recurrent, **_named("state", fields, state)},
        )
    final = _empty_state(neuron, arrangement, arithmetic)
    handle = backend.handle
    backend.kernels.forward(
        neuron._model,
        type_name,
        arrangement.sizes,
        binding.arguments(),
        binding.options,
        handle(current),
        None if weights is None else (handle(weights), *arrangement.features),
        tuple(map(handle, initial or ())),
        handle(spikes),
        handle(potential),
        tuple(map(handle, final)),
        backend.where(current, threads),
    )
    backend.finish(current)
    axis = arrangement.time_axis
    trace = Trace(
        spikes, potential, final, neuron, current, initial, axis, arrangement, binding, type_name, weights
    )
    if out is None:
        return trace
    vars(out).update(vars(trace))
    return out


def _recurrent_weights(
    name: str, weights: Any, neuron: Neuron, arrangement: Arrangement, arithmetic: str
) -> Array:
    """Recurrent weights as the kernels take them."""
    if not neuron._fires:
        raise ValueError(
            f"{name} must be None for {type(neuron).__name__}, which has no spikes, got an array"
        )
    if not arrangement.neuron_shape:
        raise ValueError(
            f"{name} needs an axis of neurons besides time, got a current of {arrangement.shape}"
        )
    count, _ = arrangement.features
    backend = arrangement.backend
    return backend.contiguous(require(name, weights, (count, count), arrangement, arithmetic))


def _recorded(trace: Any, *, reads_spikes: bool = False) -> Trace:
    """A trace whose parts fit each other and lie in memory as the kernels take them.

    Traces are copied, pickled, edited, and made of parts of others.
    """
    if not isinstance(trace, Trace):
        raise TypeError(f"trace must be what forward returned, got {type(trace).__name__}")
    binding = trace._parameters
    if not isinstance(binding, Binding):
        raise TypeError(f"trace._parameters must be what forward bound, got {type(binding).__name__}")
    neuron, arrangement, type_name, *_ = binding
    if (
        trace.neuron is not neuron
        or trace.time_axis is not arrangement.time_axis
        or trace._arrangement is not arrangement
        or trace._type_name is not type_name
    ):
        _require_equal(trace, binding)
    arithmetic = ARITHMETIC[type_name]

    potential, current, spikes, recurrent = trace.potential, trace.current, trace.spikes, trace.recurrent
    # Of a neuron that does not fire, front ends may have done without it.
    if potential is not None or neuron._fires:
        potential = _over_time("trace.potential", potential, arrangement, arithmetic)
    if current is not None:
        current = _over_time("trace.current", current, arrangement, type_name)
    if reads_spikes:
        spikes = _over_time("trace.spikes", spikes, arrangement, type_name) if neuron._fires else None
    if recurrent is not None:
        recurrent = _recurrent_weights("trace.recurrent", recurrent, neuron, arrangement, arithmetic)
    initial = trace.initial_state
    if initial is not None:
        fields = _state_arrays("trace.initial_state", initial, neuron, arrangement, arithmetic, False)
        initial = neuron._state(*map(arrangement.place_neurons, fields))
    elif (
        potential is trace.potential
        and current is trace.current
        and spikes is trace.spikes
        and recurrent is trace.recurrent
    ):
        return trace  # as it nearly always is
    axis, final = arrangement.time_axis, trace.state
    return Trace(
        spikes, potential, final, neuron, current, initial, axis, arrangement, binding, type_name, recurrent
    )


def _require_equal(trace: Trace, binding: Binding) -> None:
    """Raise unless parts of a trace that are not those of the forward pass are copies of them."""
    neuron, arrangement, type_name, *_ = binding
    parts = {
        "neuron": (trace.neuron, neuron),
        "time_axis": (trace.time_axis, arrangement.time_axis),
        "_arrangement": (trace._arrangement, arrangement),
        "_type_name": (trace._type_name, type_name),
    }
    for name, (given, bound) in parts.items():
        if type(given) is not type(bound) or given != bound:
            raise ValueError(
                f"trace.{name} must be that of the forward pass, {_short(bound)}, got {_short(given)}"
            )


def _short(value: Any) -> str:
    """A repr for messages: that of a neuron's arrays fills pages."""
    text, most = repr(value), 200
    return text if len(text) <= most else text[:most] + "..."


def _surrogate_values(surrogate: SurrogateLike, trace: Trace) -> Array:
    """The surrogate of a checked trace, by a function that may be the user's: it must not write into it."""
    read_only = trace._arrangement.backend.read_only
    with ieee():
        drive, threshold = read_only(trace.neuron._drive(trace)), read_only(_threshold(trace))
    return surrogate(drive, threshold)


def _evaluated(surrogate: SurrogateLike, trace: Trace) -> Array:
    """The values of a custom surrogate, in the potential's memory order."""
    arrangement, backend = trace._arrangement, trace._arrangement.backend
    h = _surrogate_values(surrogate, trace)
    require_plain("what surrogate returns", h)
    h = h if on_device(h) else np.asarray(h)
    if tuple(h.shape) != arrangement.shape:
        raise ValueError(
            "surrogate must return an array of the potential's shape "
            f"{arrangement.shape}, got {tuple(h.shape)}"
        )
    if isinstance(h, np.ndarray) and h.dtype.kind != "f":
        raise TypeError(f"surrogate must return floating-point numbers, got dtype {h.dtype}")
    arithmetic = ARITHMETIC[trace._type_name]
    if isinstance(h, np.ndarray) and h.dtype == arithmetic:
        return arrangement.place(h)
    with ieee():
        return arrangement.place(backend.convert(h, arithmetic))


def _threshold(trace: Trace) -> Array:
    """The threshold, shaped to broadcast against the potential with its time axis."""
    backend, bound = trace._arrangement.backend, trace._parameters.parameters["threshold"]
    threshold = bound.value if bound.values is None else trace.neuron._parameters()["threshold"]
    return trace._arrangement.with_time(backend.convert(threshold, ARITHMETIC[trace._type_name]))


def check_algorithm(method: Any, surrogate: Any) -> None:
    """Check the choice of a backward pass."""
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, got {method!r}")
    check_surrogate(surrogate)


def check_surrogate(surrogate: Any) -> None:
    """Check a surrogate; a class is callable too, but makes a surrogate rather than being one."""
    if isinstance(surrogate, Surrogate) or (isinstance(surrogate, FunctionType) and _takes_two(surrogate)):
        return
    if not callable(surrogate) or isinstance(surrogate, type):
        raise TypeError(f"surrogate must be a Surrogate such as Boxcar(), or a callable, got {surrogate!r}")
    signature = _signature(surrogate)
    if signature is None:
        return
    try:
        signature.bind(None, None)
    except TypeError:
        raise TypeError(
            f"surrogate must take two arguments, (potential, threshold), got {surrogate!r} with {signature}"
        ) from None


def _takes_two(function: FunctionType) -> bool:
    """Whether a function takes two arguments, where that is soon known; a signature takes a while."""
    code = function.__code__
    return code.co_argcount == 2 and code.co_kwonlyargcount == 0


def _signature(function: Any) -> inspect.Signature | None:
    """A callable's signature, if it has one that can be known."""
    owner = next((kind for kind in type(function).__mro__ if "__call__" in vars(kind)), object)
    # Torch's own __call__, of a module, passes anything on to `forward`.
    passes_on = owner.__module__.startswith("torch.") and hasattr(function, "forward")
    try:
        return inspect.signature(function.forward if passes_on else function)
    except (TypeError, ValueError):
        return None


def _wanted_names(
    neuron: Neuron, parameters: Iterable[str] | None, beside: tuple[str, ...] = ()
) -> tuple[frozenset[str], Collection[str]]:
    """The parameters whose gradients are wanted, and the kernel's names behind them.

    `beside` are those that may be wanted, too, but are not the neuron's.
    """
    if isinstance(parameters, str):
        raise TypeError(f"parameters must be a collection of names, got the string {parameters!r}")
    if parameters is None:
        return all_names(neuron)
    wanted = frozenset(parameters)
    if not wanted:
        return wanted, wanted
    names = neuron._names()
    if not wanted.issubset(names):
        listed = ", ".join(sorted(map(repr, wanted.difference(names))))
        raise ValueError(f"parameters must be among {[*names, *beside]}, got {listed}")
    return wanted, neuron._wanted(set(wanted))


def _take_recurrent(parameters: Iterable[str] | None) -> tuple[bool, Iterable[str] | None]:
    """Whether the gradient of recurrent weights is wanted, and the neuron's own parameters."""
    if parameters is None or isinstance(parameters, str):
        return parameters is None, parameters
    names = frozenset(parameters)
    return "recurrent" in names, names - {"recurrent"}


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
        What ``forward`` returned.
    grad_spikes : array or None, optional
        e[n] = dL/ds[n], shape and dtype of the spikes. None where only the potential matters, and always
        for ExpLeak.
    method : {"exodus", "slayer", "bptt"}, optional
        The algorithm. "exodus" and "bptt" are exact for the surrogate; "slayer" ignores that a spike's reset
        changes later potentials (other libraries' ``detach_reset=True``).
    surrogate : Surrogate or callable, optional
        f'(u): a built-in, or a function ``(potential, threshold) -> array``.
    grad_potential : array, optional
        q[n] = dL/du[n], where the loss also reads the potential.
    grad_state : tuple of (array or None), optional
        dL/d(final state): a later chunk's ``gradients.state``.
    parameters : collection of str, optional
        Which parameters' gradients to compute, "recurrent" among them where there are such weights; None is
        all of them, () is none and the fastest.
    out : Gradients, optional
        An earlier result of the same shape, dtype and layout, whose `current` is reused.

    Returns
    -------
    Gradients
        Of the current, the initial state and the parameters; `out` itself where it was given.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it, what it must be and what it was.
    """
    check_algorithm(method, surrogate)
    return run_backward(trace, grad_spikes, grad_potential, grad_state, method, surrogate, parameters, out)


def run_backward(
    trace: Any,
    grad_spikes: Array | None,
    grad_potential: Array | None,
    grad_state: Any,
    method: str,
    surrogate: SurrogateLike,
    parameters: Iterable[str] | None,
    out: Gradients | None = None,
    *,
    threads: int = 0,
) -> Gradients:
    """What ``backward`` does; other front ends bring their threads, and have checked method and surrogate."""
    has_spikes = getattr(trace, "spikes", None) is not None
    wants_recurrent = False
    if getattr(trace, "recurrent", None) is not None:
        wants_recurrent, parameters = _take_recurrent(parameters)
    reads_spikes = wants_recurrent or (out is not None and has_spikes)
    given_trace, trace = trace, _recorded(trace, reads_spikes=reads_spikes)
    neuron, arrangement, type_name, bound, _ = trace._parameters
    backend, arithmetic = arrangement.backend, ARITHMETIC[type_name]
    wanted, own = _wanted_names(neuron, parameters, () if trace.recurrent is None else ("recurrent",))
    if trace.potential is None and neuron._reads_recording(wanted):
        raise TypeError("trace.potential must be an array, which a parameter's gradient needs, got None")
    if trace.current is None and neuron._reads_current(wanted):
        raise ValueError("trace.current must be the input, which a parameter's gradient needs, got None")
    if grad_spikes is not None and not neuron._fires:
        raise ValueError(f"grad_spikes must be None for {type(neuron).__name__}, which has no spikes")
    if grad_spikes is None and grad_potential is None and grad_state is None:
        raise ValueError("one of grad_spikes, grad_potential and grad_state must be given, got none")
    given_spikes, given_potential = grad_spikes, grad_potential
    if grad_spikes is not None:
        grad_spikes = _over_time("grad_spikes", grad_spikes, arrangement, type_name)
    if grad_potential is not None:
        grad_potential = _over_time("grad_potential", grad_potential, arrangement, arithmetic)
    final: list[Array | None] = []
    if grad_state is not None:
        checked = _state_arrays("grad_state", grad_state, neuron, arrangement, arithmetic, optional=True)
        final = [None if g is None else arrangement.place_neurons(g) for g in checked]

    if out is None:
        grad_current = arrangement.empty(type_name)
    else:
        if not isinstance(out, Gradients):
            raise TypeError(f"out must be a Gradients, got {type(out).__name__}")
        grad_current = out.current
        _check_out("current", grad_current, type_name, arrangement)
        fields = neuron._state._fields
        others = {
            "grad_spikes": given_spikes,
            "grad_potential": given_potential,
            "current": given_trace.current,
            "trace.spikes": given_trace.spikes if neuron._fires else None,
            "trace.potential": given_trace.potential,
            "trace.recurrent": given_trace.recurrent,
            **_named("trace.initial_state", fields, given_trace.initial_state),
            **_named("grad_state", fields, grad_state),
        }
        _check_apart(backend, {"out.current": grad_current}, others)

    h = None
    if neuron._fires and not isinstance(surrogate, Surrogate):
        h = _evaluated(surrogate, trace)
    bend = surrogate._argument if isinstance(surrogate, Surrogate) else backend.handle(h)
    if bend is None:  # a callable for a neuron that does not fire
        bend = SingleExponential()._argument
    grad_initial = _empty_state(neuron, arrangement, arithmetic)
    sums = {name: backend.empty((bound[name].count,), (0,), "float64") for name in own}
    weights = trace.recurrent
    grad_weights = backend.empty(weights.shape, (0, 1), "float64") if wants_recurrent else None
    handle = backend.handle
    backend.kernels.backward(
        neuron._model,
        type_name,
        arrangement.sizes,
        trace._parameters.arguments(),
        trace._parameters.options,
        METHODS.index(method),
        bend,
        handle(trace.potential),
        handle(trace.current),
        None if weights is None else (handle(weights), *arrangement.features),
        handle(trace.spikes if wants_recurrent else None),
        tuple(map(handle, trace.initial_state or ())),
        handle(grad_spikes),
        handle(grad_potential),
        tuple(map(handle, final)),
        handle(grad_current),
        tuple(map(handle, grad_initial)),
        *_sum_arguments(neuron, sums, handle),
        handle(grad_weights),
        backend.where(grad_current, threads),
    )
    backend.finish(grad_current)
    grads = _parameter_gradients(trace, sums, wanted) if sums else {}
    if grad_weights is not None:
        grad_weights = backend.convert(grad_weights, arithmetic)
    if out is None:
        return Gradients(grad_current, grad_initial, grads, grad_weights)
    out.state, out.parameters, out.recurrent = grad_initial, grads, grad_weights
    return out


def _sum_arguments(neuron: Neuron, sums: dict[str, Array], handle: Any) -> tuple[tuple[Any, ...], ...]:
    """The kernels' sums in their order: of parameters, and of kernels with taps."""
    if not sums:
        return (), ()
    parameters, _, taps = _core.models[neuron._model]
    return tuple([handle(sums.get(k)) for k in parameters]), tuple([handle(sums.get(k)) for k in taps])


def _parameter_gradients(trace: Trace, sums: dict[str, Array], wanted: frozenset[str]) -> dict[str, Any]:
    """Gradients by the descriptor's names from the kernels' sums."""
    neuron, arrangement, type_name, bound, _ = trace._parameters
    convert, arithmetic = arrangement.backend.convert, ARITHMETIC[type_name]
    with ieee():
        kernel = {name: bound[name].gradient(flat, arrangement) for name, flat in sums.items()}
        own = neuron._own_gradients(kernel)
        return {name: convert(gradient, arithmetic)[()] for name, gradient in own.items() if name in wanted}


def _check_not_torch(name: str, value: Any, function: str, note: str = "") -> None:
    """Point to the function for torch; its tensors on a GPU are arrays like any other library's."""
    kind = type(value)
    if not on_device(value) and (is_torch(value) or kind.__module__.startswith("exodus_core.torch")):
        raise TypeError(
            f"{name} must be of numpy's arrays, got a {kind.__name__} of torch: "
            f"use exodus_core.torch.{function}{note}"
        )


def growth(trace: Trace, surrogate: SurrogateLike = SingleExponential()) -> float:  # noqa: B008
    """Tell how often the exact gradient grows (docs/mathematics.md, Stability).

    A step multiplies the gradient that it carries by alpha - reset h; where that is beyond [-1, 1],
    EXODUS and BPTT alike grow. The remedy is a surrogate with a lower peak: h <= (1 + alpha) / reset.

    A step of coupled states (StateSpace, AdLIF, ResonateAndFire) multiplies it by a matrix, which stretches
    some direction for most useful parameters though products of steps do not grow. Of these neurons the norm
    of the product over a window is measured, 4 / (1 - decay) steps of the slowest decay, a window from every
    step on; of a shorter trace, over all of it. Recurrent weights are not in it.

    Parameters
    ----------
    trace : Trace
        What ``forward`` returned.
    surrogate : Surrogate or callable, optional
        As for ``backward``.

    Returns
    -------
    float
        The share of all steps at which abs(alpha - reset h) > 1, of coupled states that of all windows whose
        product has a norm above 1; 0 for the default surrogate with resets that subtract the threshold, and
        for neurons without reset.

    Raises
    ------
    TypeError
        For an SRM whose refractory kernel is not `Exponential`: its gradient has no such factor. For arrays
        on a GPU: copy them to the CPU.
    """
    _check_not_torch("trace", trace, "growth")
    check_surrogate(surrogate)
    trace = _recorded(trace, reads_spikes=True)
    neuron, arrangement = trace.neuron, trace._arrangement
    if arrangement.backend is not NUMPY:
        raise TypeError(f"trace must be of NumPy's arrays, got arrays of {arrangement.backend}")
    if not neuron._fires or 0 in arrangement.shape:
        return 0.0
    h = _evaluated(surrogate, trace).astype(np.float64)
    with ieee():
        return float(np.mean(neuron._growing(h, trace)))


class Filtered(NamedTuple):
    """What a kernel made of an array, or its adjoint of a gradient.

    Attributes
    ----------
    output : array
        In the array's shape, dtype (float32 of float16 and bfloat16) and memory order.
    state : named tuple of array
        After the last step; of the adjoint, the gradient of the state before the first.
    """

    output: Array
    state: FilterState


def kernel_filter(kernel: Kernel, x: Array, *, time_axis: int | None = 0, state: Any = None) -> Filtered:
    """Filter an array with a kernel: output[n] = sum_{k<=n} kernel[n-k] x[k].

    Parameters
    ----------
    kernel : Kernel
        Such as ``kernel.Alpha(tau)``.
    x : array
        float32 or float64, time on `time_axis`: spikes for a van Rossum loss, or a layer's output.
    time_axis : int or None, optional
        None filters a single step without a time axis.
    state : named tuple of array, optional
        An earlier call's `state`, to go on; None starts at rest.

    Returns
    -------
    Filtered
        Output and final state.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    _check_not_torch("x", x, "kernel_filter")
    trace = run_forward(Filter(kernel), x, time_axis, state, given_name="x")
    return Filtered(trace.potential, trace.state)


def kernel_filter_adjoint(
    kernel: Kernel, grad: Array, *, time_axis: int | None = 0, state: Any = None
) -> Filtered:
    """Apply the transpose of ``kernel_filter``: output[n] = sum_{m>=n} kernel[m-n] grad[m].

    Parameters
    ----------
    kernel : Kernel
        As for ``kernel_filter``.
    grad : array
        dL/d(output of the filter), float32 or float64.
    time_axis : int or None, optional
        As for ``kernel_filter``.
    state : tuple of (array or None), optional
        dL/d(final state): a later chunk's `state` of this function.

    Returns
    -------
    Filtered
        dL/dx, and dL/d(initial state).
    """
    _check_not_torch("grad", grad, "kernel_filter", ", whose backward pass is the adjoint")
    neuron = Filter(kernel)
    given, arrangement = arrange("grad", grad, time_axis)
    type_name = arrangement.backend.type_name(given)
    if type_name != ARITHMETIC[type_name]:
        raise TypeError(f"grad must have the dtype of the filter's output, float32, got {type_name}")
    binding = bind(neuron, arrangement, type_name, type_name)
    # The filter is linear: what went through it forward does not matter.
    trace = Trace(
        None,
        None,
        None,
        neuron,
        None,  # type: ignore[arg-type]
        None,
        arrangement.time_axis,
        arrangement,
        binding,
        type_name,
    )
    grads = run_backward(trace, None, given, state, "exodus", SingleExponential(), ())
    return Filtered(grads.current, grads.state)
