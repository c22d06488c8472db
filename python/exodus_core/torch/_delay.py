"""``delay`` for tensors, and `Delay`, the layer that learns delays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .._delay import BoundDelay, Delayed, bind_delay, check_delay
from .._layout import arrange
from ._checkpoint import loads_finite
from ._delay_operators import run_operator, values_of
from ._function import _backend, _memory, _tensor, _thread_count, check_tensor, differentiable_once
from ._learnt import assign, keeping_precision
from ._modules import _NO_VALUE, _no_state, _short, check_time_dim
from ._run import is_traced
from ._stateful import Stateful
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
        _, array, layout = arrange("x", _memory(x), call.time_dim, "time_dim", _backend(x))
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
        return differentiable_once(_Delay._gradients, ctx, grads)

    @staticmethod
    def _gradients(ctx: Any, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        _, with_x, with_delay, with_state = ctx.needs_input_grad
        if all(grad is None for grad in grads):
            return (None,) * 4
        bound: BoundDelay = ctx.bound
        grad, grad_final = (None if g is None else _memory(g) for g in grads)
        x = initial = None
        if with_delay:
            saved, state = ctx.saved_tensors
            x = bound.over_time("x", _memory(saved))
            initial = bound.state("state", None if state is None else _memory(state))
        result = bound.run_adjoint(
            bound.over_time("grad", grad),
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
    return values_of(delay), most


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
        float32, float64, float16 or bfloat16, of any strides, with time on `time_dim`.
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


class Delay(Stateful, nn.Module):
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
    stateful : bool or "attached", optional
        Whether a call without a state continues from the call before, as for ``Layer``.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """

    delay: Tensor

    def __init__(
        self,
        delay: Any,
        most: int | None = None,
        learn: bool = True,
        time_dim: int = 0,
        *,
        stateful: bool | str = False,
    ) -> None:
        super().__init__()
        if not isinstance(learn, bool):
            raise TypeError(f"learn must be True or False, got {learn!r}")
        if learn and most is None:
            raise ValueError("most, the longest delay, must be given for a delay that is learnt, got None")
        check_time_dim(time_dim)
        given = delay.detach().cpu() if isinstance(delay, Tensor) else delay
        value, self.most = check_delay(given, most)
        self.time_dim, self.stateful = time_dim, stateful
        kind = torch.get_default_dtype() if learn else torch.float64
        own = torch.as_tensor(np.array(value), dtype=kind)
        if learn:
            self.delay = nn.Parameter(own)
        else:
            self.register_buffer("delay", own)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute. Numbers for the delay are checked, and go into its parameter or buffer."""
        if name == "delay" and not isinstance(value, Tensor):
            assign(self, name, np.array(check_delay(value, self.most)[0]))
        else:
            super().__setattr__(name, value)

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
        if state is not _no_state:
            return self._advance(x, state, self.time_dim)
        if not self.stateful:
            return _run(x, self.delay, self.most, self.time_dim, None, False).output
        return self._continued(x, self.time_dim)[0]

    def _advance(self, x: Tensor, state: Tensor | None, time_dim: int | None) -> tuple[Tensor, Tensor]:
        output, final = _run(x, self.delay, self.most, time_dim, state, True)
        return output, final

    def _continued(self, x: Tensor, time_dim: int | None) -> tuple[Tensor, Tensor]:
        output, final = self._advance(x, self._start(x, time_dim), time_dim)
        self._keep(x, time_dim, final)
        return output, final

    def step(self, frame: Tensor, state: Any = _no_state) -> tuple[Tensor, Tensor]:
        """Delay one step.

        Parameters
        ----------
        frame : Tensor
            The input of the step, without a time dimension.
        state : Tensor, optional
            The state. None starts from zeros. If it is not passed, a stateful layer goes on from the state
            that it has kept.

        Returns
        -------
        tuple of Tensor
            The delayed input, and the state.
        """
        if state is not _no_state:
            return self._advance(frame, state, None)
        return self._continued(frame, None)

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **keywords: Any) -> Any:
        """Move the delay as torch does, but keep its precision, as layers do: float64 if it is not learnt."""
        least = torch.float64 if "delay" in self._buffers else torch.float32
        return super()._apply(keeping_precision(fn, least), *args, **keywords)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        names, errors = [name for name, _ in (*self.named_parameters(), *self.named_buffers())], args[-1]
        if not loads_finite(state_dict, prefix, names, errors):
            return
        value = state_dict.get(prefix + "delay")
        if "delay" in self._buffers and isinstance(value, Tensor) and not value.is_meta:
            good = (value >= 0) & (value <= self.most)  # It is not clamped, as a learnt one is.
            if not bool(good.all()):
                errors.append(f"{prefix}delay must be in [0, {self.most}], got {value[~good][0].item()}")
                return
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Show the delays and the layer's arguments."""
        value = self.delay
        shown = _short(_NO_VALUE if value.is_meta else value.detach().cpu().float().numpy())
        parts = [f"delay={shown}", f"most={self.most}", f"time_dim={self.time_dim}"]
        if not isinstance(self._parameters.get("delay"), nn.Parameter) and "delay" in self._buffers:
            parts.append("learn=False")
        if self.stateful:
            parts.append(f"stateful={self.stateful!r}")
        return ", ".join(parts)
