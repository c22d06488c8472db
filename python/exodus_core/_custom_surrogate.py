"""Custom surrogates: the check of a user's function, and its evaluation on a forward pass."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np

from ._backends import Array, Operand, on_device, require_plain
from ._ieee import ieee
from ._tape import Tape
from .surrogate import Surrogate

SurrogateLike = Surrogate | Callable[[Any, Any], Any]


def check_surrogate(surrogate: Any) -> None:
    """Check a surrogate. A class, such as Boxcar without parentheses, is callable but no surrogate."""
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
    """Tell whether a plain function takes exactly two arguments, without building its signature."""
    code = function.__code__
    return code.co_argcount == 2 and code.co_kwonlyargcount == 0


def _signature(function: Any) -> inspect.Signature | None:
    """Return a callable's signature, or None if Python cannot tell."""
    owner = next((kind for kind in type(function).__mro__ if "__call__" in vars(kind)), object)
    # nn.Module.__call__ takes any arguments and passes them on to `forward`.
    passes_on = owner.__module__.startswith("torch.") and hasattr(function, "forward")
    try:
        return inspect.signature(function.forward if passes_on else function)
    except (TypeError, ValueError):
        return None


def evaluated(surrogate: SurrogateLike, tape: Tape) -> Operand:
    """Evaluate a custom surrogate on a forward pass, and return its values in the layout's memory order."""
    tape = tape.computable()
    layout, arithmetic = tape.layout, tape.binding.arithmetic
    h = _surrogate_values(surrogate, tape)
    require_plain("the result of surrogate", h)
    h = h if on_device(h) else np.asarray(h)
    if tuple(h.shape) != layout.shape:
        raise ValueError(
            f"surrogate must return an array of the potential's shape {layout.shape}, got {tuple(h.shape)}"
        )
    if isinstance(h, np.ndarray) and h.dtype.kind != "f":
        raise TypeError(f"surrogate must return floating-point numbers, got dtype {h.dtype}")
    if isinstance(h, np.ndarray) and h.dtype == arithmetic:
        return layout.place(h)
    with ieee():
        return layout.place(layout.backend.operand(layout.backend.convert(h, arithmetic)))


def _surrogate_values(surrogate: SurrogateLike, tape: Tape) -> Array:
    """Call the user's function with arrays through which it cannot change those of the tape."""
    read_only = tape.layout.backend.read_only
    with ieee():
        argument, threshold = read_only(tape.neuron._surrogate_argument(tape)), read_only(_threshold(tape))
    return surrogate(argument, threshold)


def _threshold(tape: Tape) -> Array:
    """Return the threshold, in a shape that broadcasts against the potential."""
    layout, bound = tape.layout, tape.binding.parameters["threshold"]
    threshold = bound.value if bound.values is None else tape.neuron._parameters()["threshold"]
    return layout.with_time(layout.backend.convert(threshold, tape.binding.arithmetic))
