"""`Value`, the base of descriptors, kernels and surrogates, and the checks of their numbers."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

from ._backends import FLOATS, is_torch, require_plain
from ._ieee import ieee

Number = Any  # a number, or an array of numbers of any library

V = TypeVar("V", bound="Value")


def numeric(name: str, value: Any) -> np.ndarray:
    """Copy a number or an array of numbers into a NumPy array; raise TypeError for anything else."""
    if is_torch(value) and hasattr(value, "detach"):
        value = _of_tensor(name, value)
    if value is None or isinstance(value, (str, bytes, bool, np.bool_)) or is_torch(value):
        raise TypeError(f"{name} must be a number or an array of numbers, got {value!r}")
    require_plain(name, value)
    try:
        array = np.array(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be a number or an array of numbers: {error}") from None
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be a number or an array of numbers, got dtype {array.dtype}")
    return array


@ieee()
def number(name: str, value: Any) -> Number:
    """Check a parameter, and return it as a float or as a read-only copy."""
    if isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_)):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{name} must be finite, got a number beyond float64") from None
    array = numeric(name, value)
    if array.size == 0:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")
    if array.ndim == 0:
        return float(array)
    if array.dtype not in FLOATS:
        array = array.astype(np.float64)
    array.flags.writeable = False
    return array


def _of_tensor(name: str, tensor: Any) -> np.ndarray:
    """Return the values of a torch tensor on the CPU."""
    if tensor.requires_grad:
        raise TypeError(
            f"{name} must be numbers, got a tensor that requires a gradient: pass {name}.detach(), or let "
            f"a torch layer learn it, learn=({name!r},)"
        )
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.device.type != "cpu" or str(tensor.layout) != "torch.strided" or kind.startswith("complex"):
        raise TypeError(
            f"{name} must be numbers: a tensor must be dense, real and on the CPU, "
            f"got {kind}, {tensor.layout} on {tensor.device}"
        )
    own = tensor if hasattr(np, kind) else tensor.double()  # NumPy has no bfloat16
    values: np.ndarray = own.resolve_neg().numpy()
    return values


def choice(name: str, value: Any, choices: tuple[str, ...], alternative: str = "one of ") -> None:
    """Raise ValueError unless a value is one of the strings."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be {alternative}{', '.join(map(repr, choices))}, got {value!r}")


def require_that(name: str, value: Number, holds: Any, expected: str, suffix: str = "") -> None:
    """Raise ValueError unless every value is finite and the condition holds for it."""
    good = np.isfinite(value) & holds
    if not np.all(good):
        bad = np.broadcast_to(value, np.shape(good))[~good].flat[0] if np.ndim(good) else value
        raise ValueError(f"{name} must be {expected}, got {float(bad)!r}{suffix}")


def _evaluable(value: Any) -> str:
    """Return a repr that can be evaluated, for large arrays too."""
    if isinstance(value, np.ndarray):
        return f"np.array({value.tolist()!r}, dtype={value.dtype.name!r})"
    return repr(value)


class Value:
    """Base of frozen dataclasses of numbers, arrays and choices. They compare, hash, copy and print."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(
            np.array_equal(getattr(self, f.name), getattr(other, f.name))
            if isinstance(getattr(self, f.name), np.ndarray) or isinstance(getattr(other, f.name), np.ndarray)
            else getattr(self, f.name) == getattr(other, f.name)
            for f in fields(self)  # type: ignore[arg-type]
        )

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, f.name) for f in fields(self))))  # type: ignore[arg-type]

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False  # An unpickled or copied array is writeable at first.
            object.__setattr__(self, name, value)

    def _given(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults."""
        values = {f.name: (getattr(self, f.name), f.default) for f in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, (value, default) in values.items() if not _same(value, default)}

    def __repr__(self) -> str:
        shown = [f"{name}={_evaluable(value)}" for name, value in self._given().items()]
        return f"{type(self).__name__}({', '.join(shown)})"


def copy_with(value: V, changes: Mapping[str, Any]) -> V:
    """Copy a descriptor with other values for some of the fields that were given, without checks."""
    copy = object.__new__(type(value))
    copy.__dict__.update(vars(value))
    copy.__dict__.update(changes)
    return copy


def plain(value: Any) -> Number:
    """Return a NumPy array without axes as a float, and anything else unchanged."""
    return float(value) if isinstance(value, (np.ndarray, np.generic)) and value.ndim == 0 else value


def in_float64(value: Number) -> Number:
    """Convert a NumPy array to float64, and return anything else unchanged."""
    return value.astype(np.float64, copy=False) if isinstance(value, np.ndarray) else value


def _same(value: Any, default: Any) -> bool:
    return not isinstance(value, np.ndarray) and value == default
