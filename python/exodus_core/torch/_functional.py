"""The functional forms: ``spike``, ``kernel_filter`` and ``growth`` for tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .._backward import check_algorithm
from .._custom_surrogate import SurrogateLike, check_surrogate
from .._filter import Filtered
from .._growth import growth_on
from .._tape import record
from ..kernel import Kernel
from ..neurons import Filter, Neuron
from ..surrogate import SingleExponential
from ._function import Call, Trace, _memory, array_surrogate, check_tensor
from ._learnt import check_parameters
from ._run import run


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
        Input current a[n], float32, float64, float16 or bfloat16, of any strides. On a GPU the CUDA kernels
        run on torch's current stream.
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
        threshold to above 0, a time constant to at least 1/16 of a step, and the gradient is passed straight
        through. On the CPU a value that is not finite raises a ValueError.
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
    check_tensor("current", current)
    given = {} if parameters is None else check_parameters(neuron, parameters)
    call = Call(neuron, tuple(given), surrogate, method, time_dim)
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
        float32, float64, float16 or bfloat16, with time on `time_dim`: spikes for a van
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
    check_tensor("x", x, "for arrays use exodus_core.kernel_filter")
    call = Call(neuron, time_dim=time_dim, given_name="x")
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
    return growth_on(tape, array_surrogate(surrogate))
