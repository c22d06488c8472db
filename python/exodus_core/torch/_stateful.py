"""States that are kept between calls, ``reset_state``, and ``detach_state``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

STATEFUL = (False, True, "attached")


def detach_state(state: Any) -> Any:
    """Detach a state from the autograd graph, so that no gradient flows into the earlier chunk.

    Parameters
    ----------
    state : Tensor, tuple, list, dict or None
        The state of a layer or of a network: tensors, nested in any way.

    Returns
    -------
    Tensor, tuple, list, dict or None
        The same structure, with detached tensors.
    """
    return map_state(Tensor.detach, state)


def map_state(function: Callable[..., Tensor], state: Any, *others: Any) -> Any:
    """Apply a function to the tensors of a state, or to those of several states of the same structure.

    Where an entry is missing from one of the others, as in the state None, the function is not applied.
    """
    if isinstance(state, Tensor):
        return state if any(other is None for other in others) else function(state, *others)
    if isinstance(state, dict):
        return {k: map_state(function, v, *(o and o[k] for o in others)) for k, v in state.items()}
    if isinstance(state, (tuple, list)):
        parts = [map_state(function, v, *(o and o[k] for o in others)) for k, v in enumerate(state)]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    return state


def _kind_of(x: Tensor, time_dim: int | None) -> tuple[Any, ...]:
    """Return the properties that inputs of one state share: shape without time, dtype and device."""
    shape = tuple(x.shape)
    if time_dim is not None and -len(shape) <= time_dim < len(shape):
        time_dim %= len(shape)
        shape = shape[:time_dim] + shape[time_dim + 1 :]
    return shape, x.dtype, x.device


class _Kept:
    """The state that a module keeps between its calls, and the kind of input that it belongs to."""

    def __init__(self, attached: bool) -> None:
        self.attached = attached
        self.state: Any = None
        self.kind: tuple[Any, ...] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles have the state's values. Tensors in an autograd graph cannot be copied.
        return {**self.__dict__, "state": detach_state(self.state)}


class Stateful:
    """Mixin of modules that may keep their state between calls."""

    _kept: _Kept | None = None

    @property
    def stateful(self) -> bool | str:
        """Whether a call without a state continues from the call before. Setting it forgets the state.

        True detaches the state from the autograd graph (truncated backpropagation through time), "attached"
        leaves it attached, and False starts every call at rest.
        """
        return False if self._kept is None else ("attached" if self._kept.attached else True)

    @stateful.setter
    def stateful(self, stateful: bool | str) -> None:
        if not isinstance(stateful, (bool, str)) or stateful not in STATEFUL:
            raise ValueError(f"stateful must be one of {', '.join(map(repr, STATEFUL))}, got {stateful!r}")
        self.__dict__["_kept"] = _Kept(stateful == "attached") if stateful else None

    def reset_state(self) -> None:
        """Forget the state that this module and the modules in it have kept: the next call starts afresh."""
        assert isinstance(self, nn.Module)
        reset_state(self)

    def _start(self, x: Any, time_dim: int | None) -> Any:
        """Return the state for a call without one: the kept state if there is one, which is checked."""
        kept = self._kept
        if kept is not None and not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            # The state is already that after the call, so the gradient would be that of another call.
            raise RuntimeError(
                f"{type(self).__name__} keeps its state, so it cannot be computed again during backward, as "
                f"torch.utils.checkpoint does: pass the state to the call"
            )
        if kept is None or kept.state is None or not isinstance(x, Tensor):
            return None
        kind = _kind_of(x, time_dim)
        if kind != kept.kind:
            raise ValueError(
                f"{type(self).__name__} has kept the state of an input of {_shown(kept.kind)}, got an input "
                f"of {_shown(kind)}: call reset_state() before an input of another kind"
            )
        return kept.state

    def _keep(self, x: Tensor, time_dim: int | None, state: Any) -> None:
        """Keep the state after a call, if the module is stateful."""
        kept = self._kept
        if kept is not None:
            kept.state = state if kept.attached else detach_state(state)
            kept.kind = _kind_of(x, time_dim)


def _shown(kind: Any) -> str:
    shape, dtype, device = kind
    return f"shape {shape} without time, {dtype} on {device}"


def reset_state(net: nn.Module) -> None:
    """Forget the states that stateful modules have kept, so that the next call starts from initial states.

    Parameters
    ----------
    net : nn.Module
        A layer, or a network of any modules. All layers and containers in it are reset.

    Raises
    ------
    TypeError
        If `net` is not a module.
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"net must be a torch module, got {type(net).__name__}")
    for module in net.modules():
        if isinstance(module, Stateful) and module._kept is not None:
            module._kept.state = module._kept.kind = None
