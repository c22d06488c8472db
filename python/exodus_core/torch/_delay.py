"""``delay`` for tensors, and `Delay`, the layer that learns delays."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .._delay import BoundDelay, Delayed, bind_delay, check_delay
from .._layout import arrange
from ._delay_operators import run_operator
from ._function import _backend, _memory, _tensor, _thread_count, check_tensor, differentiable_once
from ._learnt import _tensor_value
from ._modules import _no_state, _short, check_time_dim, loads_finite
from ._run import is_traced
from ._uncompiled import uncompiled


class _Call(NamedTuple):
    """The arguments of a call that autograd does not track."""

    value: Any  # the delay, as an array or a number
    most: int
    time_dim: int | None
    with_state: bool


class _Delay(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, call: _Call, x: Tensor, delay: Tensor | None, state: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        array, layout = arrange("x", _memory(x), call.time_dim, "time_dim", _backend(x))
        bound = bind_delay(layout, call.value, call.most, layout.backend.type_name(array))
        initial = bound.state("state", None if state is None else _memory(state))
        output, final = bound.run(array, initial, _thread_count(), with_state=call.with_state)
        ctx.set_materialize_grads(False)
        ctx.bound = bound
        # A delay is linear in its input, so only the gradient of the delay reads x and the state.
        learns = delay is not None and delay.requires_grad
        ctx.save_for_backward(*((x, state) if learns else ()))
        ctx.dtype = None if delay is None else delay.dtype
        return _tensor(output), None if final is None else _tensor(final)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return differentiable_once(_Delay._gradients(ctx, grads))

    @staticmethod
    @torch.no_grad()
    def _gradients(ctx: Any, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        _, with_x, with_delay, with_state = ctx.needs_input_grad
        if all(grad is None for grad in grads):
            return (None,) * 4
        bound: BoundDelay = ctx.bound
        grad, grad_final = (None if g is None else _memory(g) for g in grads)
        x = initial = None
        if with_delay:
            saved, state = ctx.saved_tensors
            x = bound.layout.place(_memory(saved))
            initial = bound.state("state", None if state is None else _memory(state))
        result = bound.run_adjoint(
            None if grad is None else bound.layout.place(grad),
            x,
            initial,
            bound.state("grad_state", grad_final),
            _thread_count(),
            with_x=with_x,
            with_delay=with_delay,
            with_state=with_state,
        )
        found = [None if array is None else _tensor(array) for array in result]
        if found[1] is not None:
            found[1] = found[1].to(ctx.dtype)
        return (None, *found)


def _value_for(x: Tensor, delay: Any, most: Any) -> tuple[Any, int]:
    """Return the values of a delay for the kernels. Those of a tensor are not checked: they are clamped."""
    if not isinstance(delay, Tensor):
        return check_delay(delay, most)
    if most is None:
        raise ValueError("most must be given with a delay that is a tensor, got None")
    _, most = check_delay(0.0, most)
    if delay.device != x.device and not delay.is_meta:
        raise TypeError(
            f"delay must be on the device of x, {x.device}, got {delay.device}: move it with .to()"
        )
    value = _tensor_value("delay", delay)
    return value if value.is_cuda else value.numpy(), most


def delay(
    x: Tensor,
    delay: Any,
    *,
    most: int | None = None,
    time_dim: int | None = 0,
    state: Tensor | None = None,
) -> Delayed:
    """Delay every neuron's input by a number of steps, which may be fractional: ``exodus_core.delay``.

    Gradients flow to `x`, to the state, and to the delay if it is a tensor. The output has a kink at an
    integer delay; the gradient of the delay there is the derivative from the right.

    Parameters
    ----------
    x : Tensor
        float32 or float64 (on a GPU also float16 or bfloat16), of any strides, with time on `time_dim`.
    delay : float, array or Tensor
        The delay in steps. It broadcasts against `x` without its time dimension. A tensor may come from any
        computation; it is clamped into [0, most], and the gradient is passed straight through. A number or an
        array must be in this range.
    most : int, optional
        The longest delay, which sets the size of the state. It must be given with a state, and if the delay
        is a tensor.
    time_dim : int or None, optional
        None delays a single step without a time dimension.
    state : Tensor, optional
        The `state` of an earlier call, to continue it. None starts from zeros.

    Returns
    -------
    Delayed
        The output and the final state, as tensors.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    return _run(x, delay, most, time_dim, state, True)


def _run(x: Any, delay: Any, most: Any, time_dim: int | None, state: Any, with_state: bool) -> Delayed:
    check_tensor("x", x, "for arrays use exodus_core.delay")
    if state is not None:
        check_tensor("state", state, "a delay's state is a tensor")
        if most is None:
            raise ValueError("most must be given with a state, which has most + 1 steps, got None")
    if is_traced(x):
        return _run_traced(x, delay, most, time_dim, state)
    value, most = _value_for(x, delay, most)
    given = delay if isinstance(delay, Tensor) else None
    return Delayed(*_Delay.apply(_Call(value, most, time_dim, with_state), x, given, state))


def _run_traced(x: Tensor, delay: Any, most: Any, time_dim: int | None, state: Any) -> Delayed:
    if not isinstance(delay, Tensor):
        if torch.compiler.is_compiling():
            result: Delayed = _run_uncompiled(x, delay, most, time_dim, state, True)
            return result
        value, most = check_delay(delay, most)
        delay = torch.as_tensor(np.array(value), device=x.device)
    if most is None:
        raise ValueError("most must be given with a delay that is a tensor, got None")
    return Delayed(*run_operator(x, delay, state, most, time_dim))


_run_uncompiled = uncompiled(
    _run, reason="a compiled program takes delays that are tensors: use exodus_core.torch.Delay"
)


class Delay(nn.Module):
    """A layer that delays the input of each neuron or channel by a number of steps, which may be fractional.

    Parameters
    ----------
    delay : float, array or Tensor
        The delay in steps, from 0 to `most`. An array broadcasts against the input without its time
        dimension: one value per channel of (B, T, C, H, W) has shape (C, 1, 1).
    most : int, optional
        The longest delay that can be learnt, which sets the size of the state. If the delay is not learnt,
        the default is the largest value of `delay`, rounded up.
    learn : bool, optional
        Whether `delay` is an ``nn.Parameter`` or a buffer. A parameter gets a gradient
        (``exodus_core.delay_adjoint``). The layer clamps it into [0, most], and passes the gradient straight
        through.
    time_dim : int, optional
        The dimension of time in the input.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """

    delay: Tensor

    def __init__(self, delay: Any, most: int | None = None, learn: bool = True, time_dim: int = 0) -> None:
        super().__init__()
        if not isinstance(learn, bool):
            raise TypeError(f"learn must be True or False, got {learn!r}")
        if learn and most is None:
            raise ValueError("most, the longest delay, must be given for a delay that is learnt, got None")
        check_time_dim(time_dim)
        given = delay.detach().cpu() if isinstance(delay, Tensor) else delay
        value, self.most = check_delay(given, most)
        self.time_dim = time_dim
        kind = torch.get_default_dtype() if learn else torch.float64
        own = torch.as_tensor(np.array(value), dtype=kind)
        if learn:
            self.delay = nn.Parameter(own)
        else:
            self.register_buffer("delay", own)

    def forward(self, x: Tensor, state: Any = _no_state) -> Any:
        """Delay an input over time.

        Parameters
        ----------
        x : Tensor
            The input, with time on `time_dim`.
        state : Tensor or None, optional
            The initial state. If it is passed, even as None, the final state is returned as well.

        Returns
        -------
        Tensor, or tuple of Tensor
            The delayed input, or the delayed input and the final state.
        """
        if state is _no_state:
            return _run(x, self.delay, self.most, self.time_dim, None, False).output
        return tuple(_run(x, self.delay, self.most, self.time_dim, state, True))

    def step(self, frame: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Delay one step.

        Parameters
        ----------
        frame : Tensor
            The input of the step, without a time dimension.
        state : Tensor, optional
            The state. None starts from zeros.

        Returns
        -------
        tuple of Tensor
            The delayed input, and the state.
        """
        output, last = delay(frame, self.delay, most=self.most, time_dim=None, state=state)
        return output, last

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        names = [name for name, _ in (*self.named_parameters(), *self.named_buffers())]
        if loads_finite(state_dict, prefix, names, args[-1]):
            super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Show the delays and the layer's arguments."""
        value = self.delay
        shown = _short(None if value.is_meta else value.detach().cpu().float().numpy())
        parts = [f"delay={shown}", f"most={self.most}", f"time_dim={self.time_dim}"]
        if not isinstance(self._parameters.get("delay"), nn.Parameter) and "delay" in self._buffers:
            parts.append("learn=False")
        return ", ".join(parts)
