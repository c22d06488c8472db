"""Checks of a call's arrays. Each array is checked once, against the layout of the input."""

from __future__ import annotations

from typing import Any

from ._backends import Operand, is_torch, on_device
from ._binding import Binding
from ._layout import Layout, require


def over_time(name: str, array: Any, layout: Layout, type_name: str) -> Operand:
    """Check an array over time."""
    return require(name, array, layout.shape, layout, type_name)


def state_arrays(name: str, state: Any, binding: Binding, *, optional: bool = False) -> list[Operand | None]:
    """Check a state, or a state's gradient, and return its fields. With `optional`, a field may be None."""
    neuron, layout = binding.neuron, binding.layout
    names, leading = neuron._state._fields, neuron._values_per_neuron()
    if not isinstance(state, (tuple, list)) or len(state) != len(names):
        got = f"{len(state)} fields" if isinstance(state, (tuple, list)) else type(state).__name__
        raise TypeError(f"{name} must be a tuple of {len(names)} arrays ({', '.join(names)}), got {got}")
    return [
        None
        if optional and array is None
        else require(
            f"{name}.{field}",
            array,
            leading.get(field, ()) + layout.neuron_shape,
            layout,
            binding.arithmetic,
        )
        for field, array in zip(names, state, strict=True)
    ]


def empty_state(binding: Binding) -> Any:
    """Allocate a state, or a state's gradient, for the kernels to fill."""
    empty, arithmetic = binding.layout.empty_neurons, binding.arithmetic
    kind, leading = binding.neuron._state, binding.neuron._values_per_neuron()
    return kind(*[empty(arithmetic, leading.get(field, ())) for field in kind._fields])


def recurrent_weights(name: str, weights: Any, binding: Binding) -> Operand:
    """Check recurrent weights."""
    neuron, layout = binding.neuron, binding.layout
    if not neuron._fires:
        raise ValueError(
            f"{name} must be None for {type(neuron).__name__}, which has no spikes, got an array"
        )
    if not layout.neuron_shape:
        raise ValueError(
            f"{name} needs a current with an axis of neurons besides time, got shape {layout.shape}"
        )
    count, _ = layout.features
    return require(name, weights, (count, count), layout, binding.arithmetic)


def check_not_torch(name: str, value: Any, function: str, note: str = "") -> None:
    """Refuse a torch value, and name the function that takes it. Tensors on a GPU pass: they are arrays."""
    kind = type(value)
    if not on_device(value) and (is_torch(value) or kind.__module__.startswith("exodus_core.torch")):
        raise TypeError(
            f"{name} must hold numpy arrays, got a torch {kind.__name__}: "
            f"use exodus_core.torch.{function}{note}"
        )
