"""Checks of ``out=``: its arrays must fit the result, and share no memory with other arrays of the call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._backends import Array, Backend
from ._layout import Layout


def check_out(name: str, array: Any, type_name: str, layout: Layout) -> None:
    """Check that a result fits into an array."""
    backend = layout.backend
    try:
        fits = backend.type_name(backend.array(name, array)) == type_name and (
            tuple(array.shape) == layout.shape
        )
    except TypeError:
        fits = False
    if not fits:
        got = f"{array.dtype} {tuple(array.shape)}" if hasattr(array, "dtype") else repr(array)
        raise ValueError(f"out.{name} must have dtype {type_name} and shape {layout.shape}, got {got}")
    if not layout.has_same_order(array):
        raise ValueError(
            f"out.{name} must have the memory order of current, with the axes in the order {layout.order}, "
            f"got strides of {backend.strides(array)} bytes"
        )
    if not backend.writeable(array):
        raise ValueError(f"out.{name} must be writeable, got a read-only array")


def check_apart(
    backend: Backend, results: Mapping[str, Array | None], others: Mapping[str, Array | None]
) -> None:
    """Raise if a result shares memory with another result or with one of the other arrays."""
    overlap = backend.overlap
    against = [(name, array) for name, array in others.items() if array is not None]
    for name, result in results.items():
        if result is None:
            continue
        for other_name, other in against:
            if overlap(result, other):
                raise ValueError(f"{name} must not overlap {other_name}, got arrays that share memory")
        against.append((name, result))


def named(prefix: str, fields: tuple[str, ...], arrays: Any) -> dict[str, Array | None]:
    """Return the arrays of a state by the names that error messages use."""
    if arrays is None:
        return {}
    return {f"{prefix}.{field}": array for field, array in zip(fields, arrays, strict=True)}
