"""Checks of ``out=``: its arrays must fit the result, and share no memory with other arrays of the call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._backends import Backend, Operand
from ._layout import Layout


def check_out(name: str, array: Any, type_name: str, layout: Layout) -> Operand:
    """Check that a result fits into an array."""
    backend = layout.backend
    try:
        operand = backend.array(name, array)
        fits = backend.type_name(operand) == type_name and tuple(operand.shape) == layout.shape
    except TypeError:
        fits = False
    if not fits:
        got = f"{array.dtype} {tuple(array.shape)}" if hasattr(array, "dtype") else repr(array)
        raise ValueError(f"out.{name} must have dtype {type_name} and shape {layout.shape}, got {got}")
    if not layout.has_same_order(operand):
        raise ValueError(
            f"out.{name} must have the memory order of current, with the axes in the order {layout.order}, "
            f"got strides of {backend.strides(operand)} bytes"
        )
    if not backend.writeable(operand):
        raise ValueError(f"out.{name} must be writeable, got a read-only array")
    return operand


def check_apart(
    backend: Backend, results: Mapping[str, Operand | None], others: Mapping[str, Operand | None]
) -> None:
    """Raise if a result shares memory with another result or with one of the other arrays."""
    overlap = backend.overlap
    against = [(name, operand) for name, operand in others.items() if operand is not None]
    for name, result in results.items():
        if result is None:
            continue
        for other_name, other in against:
            if overlap(result, other):
                raise ValueError(f"{name} must not overlap {other_name}, got arrays that share memory")
        against.append((name, result))


def named(prefix: str, fields: tuple[str, ...], operands: Any) -> dict[str, Operand | None]:
    """Return the arrays of a state, of which there may be none, by the names that error messages use."""
    if not operands:
        return {}
    return {f"{prefix}.{field}": operand for field, operand in zip(fields, operands, strict=True)}
