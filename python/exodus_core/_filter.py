"""``kernel_filter`` and its adjoint: a kernel's convolution with an array."""

from __future__ import annotations

from typing import Any, NamedTuple

from ._arguments import check_not_torch
from ._backends import ARITHMETIC, Array, backend_of
from ._backward import incoming, request, run_backward
from ._binding import bind
from ._forward import run_forward
from ._layout import arrange
from ._tape import Tape
from .kernel import Kernel
from .neurons.kernel_filter import Filter, FilterState
from .surrogate import SingleExponential


class Filtered(NamedTuple):
    """A filtered array and the state for the next call; from the adjoint, the gradients of input and state.

    Attributes
    ----------
    output : array
        In the input's shape, memory order and dtype, but float32 for float16 and bfloat16.
    state : named tuple of array
        The state after the last step; from the adjoint, the gradient of the state before the first.
    """

    output: Array
    state: FilterState


def kernel_filter(kernel: Kernel, x: Array, *, time_axis: int | None = 0, state: Any = None) -> Filtered:
    """Filter an array with a kernel: output[n] = sum_{k<=n} kernel[n-k] x[k].

    Parameters
    ----------
    kernel : Kernel
        A kernel, such as ``kernel.Alpha(tau)``.
    x : array
        float16, float32 or float64, with time on `time_axis`: spikes for a van Rossum loss, or a layer's
        output.
    time_axis : int or None, optional
        None filters a single step without a time axis.
    state : named tuple of array, optional
        The `state` of an earlier call, to continue it. None starts at rest.

    Returns
    -------
    Filtered
        The output and the final state.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    check_not_torch("x", x, "kernel_filter")
    backend = backend_of(x)
    with backend.current():
        trace = run_forward(Filter(kernel), x, time_axis, state, given_name="x", backend=backend)
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
        dL/d(output of ``kernel_filter``), float32 or float64.
    time_axis : int or None, optional
        As for ``kernel_filter``.
    state : tuple of (array or None), optional
        dL/d(final state): the `state` that this function returned for the chunk that follows.

    Returns
    -------
    Filtered
        dL/dx and dL/d(initial state).
    """
    check_not_torch("grad", grad, "kernel_filter", ", whose backward pass is the adjoint")
    neuron = Filter(kernel)
    backend = backend_of(grad)
    with backend.current():
        _, given, layout = arrange("grad", grad, time_axis, backend=backend)
        type_name = backend.type_name(given)
        if type_name != ARITHMETIC[type_name]:
            raise TypeError(f"grad must have the dtype of the filter's output, float32, got {type_name}")
        # The filter is linear, so its adjoint needs no array of the forward pass.
        tape = Tape(bind(neuron, layout, type_name))
        gradients = incoming(tape, None, given, state)
        grads = run_backward(tape, gradients, request(neuron, ()), "exodus", SingleExponential())
    return Filtered(grads.current, grads.state)
