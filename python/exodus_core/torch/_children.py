"""Modules inside a container: which of them see time, and how each kind runs over time or for one step.

A module sees time if it has an attribute `time_dim`, and then gets sequences as they are. If it has a method
``step`` as well, it takes a state: ``forward(x, state)`` returns the output and the final state. The layers,
`Recurrent`, `Delay` and the containers are such modules, and so may be a user's own. torch's recurrent
modules (``nn.RNN``, ``nn.LSTM``, ``nn.GRU``) count as well. All other modules have no state and see single
steps, as one batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ._folding import check_lengths, time_and_batch
from ._function import Trace
from ._modules import _no_state
from ._stateful import Stateful, map_state


def sees_time(module: nn.Module) -> bool:
    """Tell whether a module gets whole sequences."""
    return isinstance(module, nn.RNNBase) or hasattr(module, "time_dim")


def takes_state(module: nn.Module) -> bool:
    """Tell whether a module takes a state and returns one."""
    return isinstance(module, nn.RNNBase) or (hasattr(module, "time_dim") and hasattr(module, "step"))


def described(name: str, module: nn.Module) -> str:
    """Return how error messages call a module: its name in its container, and its class."""
    return f"{name} ({type(module).__name__})"


def check_timeless(name: str, module: Any) -> None:
    """Check that a module can get single steps as one batch: nothing in it may see time."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"{name} must be a torch module, got {type(module).__name__}")
    for inner, part in module.named_modules():
        if sees_time(part):
            where = described(inner, part) if inner else type(part).__name__
            raise ValueError(
                f"{described(name, module)} must not contain a module that sees time, got {where}: "
                "use exodus_core.torch.Sequential or Residual, or give the module a time_dim and a step"
            )


def set_time_dim(name: str, module: nn.Module, time_dim: int) -> None:
    """Give a container's time_dim to a module in it, or check that it need not know about time."""
    if not sees_time(module):
        check_timeless(name, module)
    elif not isinstance(module, nn.RNNBase):
        module.time_dim = time_dim  # type: ignore[assignment]


def check_time_dim_of(name: str, module: nn.Module, time_dim: int) -> None:
    """Check that a module still has the container's time_dim: it may be in two containers, or was set."""
    if not isinstance(module, nn.RNNBase) and module.time_dim != time_dim:
        raise ValueError(
            f"time_dim of {described(name, module)} must be that of its container, {time_dim}, got "
            f"{module.time_dim}: set time_dim of the container"
        )


def passed_on(result: Any) -> Any:
    """Return the input of the next module: the spikes of a trace, or the potential if there are none."""
    if isinstance(result, Trace):
        return result.potential if result.spikes is None else result.spikes
    return result


def check_stateless(name: str, module: nn.Module, state: Any) -> None:
    """Check that no state was passed for a module that takes none."""
    if state is not None and state is not _no_state:
        raise ValueError(
            f"state of {described(name, module)}, which has none, must be None, got {type(state).__name__}"
        )


def run(name: str, module: nn.Module, x: Tensor, state: Any, time_dim: int) -> tuple[Any, Any]:
    """Run a module that sees time. Return its result and its final state, or None."""
    if isinstance(module, nn.RNNBase):
        # torch's recurrent modules have time first, or second with batch_first=True.
        swapped = module.batch_first != (time_and_batch("x", x, time_dim)[0] == 1)
        y, final = module(x.transpose(0, 1) if swapped else x, None if state is _no_state else state)
        return (y.transpose(0, 1) if swapped else y), final
    if takes_state(module) and state is not _no_state:
        result, final = module(x, state)
        return result, final
    check_stateless(name, module, state)
    return module(x), None


def step(name: str, module: nn.Module, frame: Tensor, state: Any) -> tuple[Any, Any]:
    """Run one step of any module. Return its result and its state, or None."""
    if isinstance(module, nn.RNNBase):
        dim = 1 if module.batch_first else 0
        y, final = module(frame.unsqueeze(dim), None if state is _no_state else state)
        return y.squeeze(dim), final
    if takes_state(module):
        result, final = module.step(frame) if state is _no_state else module.step(frame, state)  # type: ignore[operator]
        return result, final
    if sees_time(module):
        raise TypeError(
            f"{described(name, module)} must have a method step(frame, state) to run single steps; it sees "
            "time as a whole"
        )
    check_stateless(name, module, state)
    return module(frame), None


def run_to_ends(
    name: str, module: nn.Module, x: Tensor, state: Any, lengths: Any, time_dim: int
) -> tuple[Any, Any]:
    """Run a module over sequences of different lengths; return its result, and states at each one's own end.

    Time is cut where sequences end. Chunks of time are the same as the whole, bit for bit.
    """
    time, batch = time_and_batch("x", x, time_dim)
    ends = check_lengths(x, lengths, time, batch)
    if state is None and bool((ends == 0).any()):
        raise ValueError("lengths must be at least 1 where no state is given, got 0")
    # Axes of a layer's state before those of the neurons, as of kernels with taps, come before the batch.
    neuron_dims = x.dim() - 1 if isinstance(module, (Stateful, nn.RNNBase)) else None
    start, final, results = 0, state, []
    for stop in sorted({*ends.tolist(), x.shape[time]} - {0}):
        result, state = run(name, module, x.narrow(time, start, stop - start), state, time_dim)
        final = _where(ends >= stop, state, final, neuron_dims)
        results.append(result)
        start = stop
    return _joined(results, time, final), final


def _where(going_on: Tensor, new: Any, old: Any, neuron_dims: int | None) -> Any:
    """Return the new states of the sequences that go on, and the old ones of the others."""

    def chosen(new: Tensor, old: Tensor) -> Tensor:
        axis = 0 if neuron_dims is None else new.dim() - neuron_dims
        if not 0 <= axis < new.dim() or new.shape[axis] != len(going_on):
            raise ValueError(
                f"state must have the batch of {len(going_on)} on dimension {axis} to be taken at each "
                f"sequence's end, got shape {tuple(new.shape)}"
            )
        mask = going_on.to(new.device).reshape((1,) * axis + (-1,) + (1,) * (new.dim() - axis - 1))
        return torch.where(mask, new, old)

    return map_state(chosen, new, old)


def _joined(results: list[Any], time: int, final: Any) -> Any:
    """Join the results of chunks of time."""
    if not isinstance(results[0], Trace):
        return torch.cat(results, time)
    fired = results[0].spikes is not None
    spikes = torch.cat([result.spikes for result in results], time) if fired else None
    return Trace(spikes, torch.cat([result.potential for result in results], time), final)
