"""``delay`` and its adjoint."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ._arguments import check_not_torch
from ._backends import ARITHMETIC, Array, Backend, Operand, backend_of, on_device
from ._binding import BoundParameter, bind_parameter
from ._ieee import ieee
from ._integers import integer
from ._layout import Layout, arrange, require
from ._values import number, require_that

_MOST_BYTES = 2**62  # the largest state


class Delayed(NamedTuple):
    """A delayed array, and the state for the next call.

    Attributes
    ----------
    output : array
        In the input's shape, dtype and memory order.
    state : array
        The last most + 1 steps of the input, newest first, on a leading axis. Pass it to the next call as
        ``state=``. float64 for float64 data, else float32.
    """

    output: Array
    state: Array


class DelayGradients(NamedTuple):
    """The gradients of a loss that reads a delayed array.

    Attributes
    ----------
    x : array
        dL/dx[m], in the shape, dtype and memory order of x.
    delay : array
        dL/dt, in the delay's own shape.
    state : array
        dL/d(initial state). Pass it to the call for the earlier chunk as ``grad_state=``.
    """

    x: Array
    delay: Any
    state: Array


class BoundDelay(NamedTuple):
    """A call's delays in the form that the kernels take, and the layout for which they were bound."""

    layout: Layout
    type_name: str  # the dtype of the input
    steps: BoundParameter
    most: int

    @property
    def arithmetic(self) -> str:
        """The dtype of delays and states."""
        return ARITHMETIC[self.type_name]

    @property
    def leading(self) -> tuple[int, ...]:
        """The leading axis of a state."""
        return (self.most + 1,)

    def over_time(self, name: str, array: Any) -> Operand | None:
        """Check an array over time, if there is one, and return it in the layout's memory order."""
        if array is None:
            return None
        here = self.layout
        return here.place(require(name, array, here.shape, here, self.type_name))

    def state(self, name: str, state: Any) -> Operand | None:
        """Check a state, or a state's gradient, and return it in the layout's memory order."""
        if state is None:
            return None
        here = self.layout
        shape = self.leading + here.neuron_shape
        return here.place_neurons(require(name, state, shape, here, self.arithmetic))

    def run(self, x: Operand, initial: Operand | None, threads: int, *, with_state: bool = True) -> Delayed:
        """Run the forward pass on an array in the layout's memory order. Without `with_state` it is None."""
        here, backend = self.layout, self.layout.backend
        output = here.empty(self.type_name)
        final = here.empty_neurons(self.arithmetic, self.leading) if with_state else None
        backend.kernels.delay(
            self.type_name,
            here.sizes,
            self.steps.argument(backend),
            self.most,
            *map(backend.handle, (x, initial, output, final)),
            backend.execution(output, threads),
        )
        backend.finish(output)
        return Delayed(*backend.plain(output, final))

    def run_adjoint(
        self,
        grad: Operand | None,
        x: Operand | None,
        initial: Operand | None,
        grad_final: Operand | None,
        threads: int,
        *,
        with_x: bool = True,
        with_delay: bool = True,
        with_state: bool = True,
    ) -> DelayGradients:
        """Run the adjoint on arrays in the layout's memory order.

        Gradients that are not requested are None. Only the delay's gradient reads x and the initial state.
        """
        here, backend = self.layout, self.layout.backend
        grad_x = here.empty(self.type_name) if with_x else None
        grad_initial = here.empty_neurons(self.arithmetic, self.leading) if with_state else None
        sums = backend.computing.empty((self.steps.size,), (0,), "float64") if with_delay else None
        inputs = (x, initial) if with_delay else (None, None)
        some = next(array for array in (grad_x, grad_initial, sums) if array is not None)
        backend.kernels.delay_adjoint(
            self.type_name,
            here.sizes,
            self.steps.argument(backend),
            self.most,
            *map(backend.handle, (grad, *inputs, grad_final, grad_x, grad_initial, sums)),
            backend.execution(some, threads),
        )
        backend.finish(some)
        grad_delay = None
        if sums is not None:
            (flat,) = backend.computing.plain(sums)
            with ieee():
                grad_delay = backend.convert(self.steps.gradient(flat, here), self.arithmetic)[()]
        grad_x, grad_initial = backend.plain(grad_x, grad_initial)
        return DelayGradients(grad_x, grad_delay, grad_initial)


def check_delay(delay: Any, most: Any) -> tuple[Any, int]:
    """Check a user's delay, and return it with the longest delay for which the state has room."""
    if most is not None:
        most = integer("most", most, 0)
    if on_device(delay):  # The values are not checked: reading them would wait for the device.
        if most is None:
            raise ValueError("most must be given with delays on a device, got None")
        return delay, most
    value = number("delay", delay)
    require_that("delay", value, value >= 0, "at least 0")
    if most is None:
        return value, math.ceil(np.max(value))
    require_that("delay", value, value <= most, f"at most {most}, the longest (most=)")
    return value, most


def bind_delay(layout: Layout, delay: Any, most: int, type_name: str) -> BoundDelay:
    """Bind delays to a layout. ``check_delay`` has checked them."""
    neurons = math.prod(layout.neuron_shape)
    if (most + 1) * max(neurons, 1) * np.dtype(np.float64).itemsize > _MOST_BYTES:
        raise ValueError(f"most must be so small that a state of most + 1 steps fits in memory, got {most}")
    with ieee():
        steps = bind_parameter("delay", delay, layout, ARITHMETIC[type_name])
    return BoundDelay(layout, type_name, steps, most)


def _bound(
    x: Any, delay: Any, most: Any, time_axis: int | None, with_state: bool, backend: Backend
) -> tuple[Operand, BoundDelay]:
    """Check the input and the delays. Return the input, copied if necessary, and the bound delays."""
    if with_state and most is None:
        raise ValueError("most must be given with a state, which has most + 1 steps, got None")
    _, array, layout = arrange("x", x, time_axis, backend=backend)
    value, most = check_delay(delay, most)
    return array, bind_delay(layout, value, most, layout.backend.type_name(array))


def delay(
    x: Array, delay: Any, *, most: int | None = None, time_axis: int | None = 0, state: Any = None
) -> Delayed:
    """Delay every neuron's input by a number of steps, which may be fractional (docs/mathematics.md, Delays).

    For a delay t = k + f with k = floor(t), the output is interpolated linearly between steps:
    output[n] = (1-f) x[n-k] + f x[n-k-1]. An integer delay reads only x[n-k].

    Parameters
    ----------
    x : array
        float16, float32 or float64 (on a GPU also bfloat16), with time on `time_axis`. A dense array of any
        stride order is read in place.
    delay : float or array
        The delay in steps, from 0 to `most`. An array broadcasts against `x` without its time axis: one value
        per channel of (T, B, C, H, W) has shape (C, 1, 1).
    most : int, optional
        The longest delay, which sets the size of the state. The default is the largest value of `delay`,
        rounded up. It must be given with a `state`, and for delays on a GPU.
    time_axis : int or None, optional
        None delays a single step without a time axis.
    state : array, optional
        The `state` of an earlier call, to continue it. None starts from zeros.

    Returns
    -------
    Delayed
        The output and the final state.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    check_not_torch("x", x, "delay")
    backend = backend_of(x)
    with backend.current():
        array, bound = _bound(x, delay, most, time_axis, state is not None, backend)
        return bound.run(array, bound.state("state", state), 0)


def delay_adjoint(
    grad: Array,
    x: Array,
    delay: Any,
    *,
    most: int | None = None,
    time_axis: int | None = 0,
    state: Any = None,
    grad_state: Any = None,
) -> DelayGradients:
    """Compute the gradients of a loss through ``delay`` (docs/mathematics.md, Delays).

    With g = dL/d(output), the gradient of the input is dL/dx[m] = (1-f) g[m+k] + f g[m+k+1]. The gradient of
    the delay is dL/dt = sum_n g[n] (x[n-k-1] - x[n-k]), summed in double precision. The output has a kink at
    an integer delay; the gradient there is the derivative from the right, which also reads x[n-k-1]. At the
    bounds 0 and `most` the gradient is passed straight through.

    Parameters
    ----------
    grad : array
        dL/d(output), in the shape and dtype of `x`.
    x, delay, most, time_axis, state
        As given to ``delay``.
    grad_state : array, optional
        dL/d(final state): the `state` that this function returned for the chunk that follows. It requires
        `most`.

    Returns
    -------
    DelayGradients
        The gradients of the input, the delay and the initial state.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    check_not_torch("x", x, "delay", ", whose backward pass is the adjoint")
    with_state = state is not None or grad_state is not None
    backend = backend_of(x)
    with backend.current():
        array, bound = _bound(x, delay, most, time_axis, with_state, backend)
        placed = bound.over_time("grad", grad)
        return bound.run_adjoint(
            placed, array, bound.state("state", state), bound.state("grad_state", grad_state), 0
        )
