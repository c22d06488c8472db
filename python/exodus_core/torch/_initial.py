"""Initial states that a layer learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from .._backends.tensors import arithmetic_of
from ..neurons import Neuron
from ._learnt import require_finite
from ._run import is_traced

PREFIX = "state."


def state_names(neuron: Neuron) -> list[str]:
    """Return the names of the state variables that can be learnt, such as "state.potential".

    Spikes are events, which no optimiser can move, and an SRM computes its potential from the other fields.
    """
    lengths, fields = neuron._values_per_neuron(), neuron._state._fields
    names = [field for field in fields if field != "spikes" and 0 not in lengths.get(field, ())]
    try:
        neuron._check_initial_potential(np.ones(()))
    except ValueError:
        names.remove("potential")
    return [PREFIX + name for name in names]


def lengths_of(neuron: Neuron, name: str) -> tuple[int, ...]:
    """Return the shape of the axes of a state variable in front of the neurons'."""
    return neuron._values_per_neuron().get(name.removeprefix(PREFIX), ())


def at_rest(neuron: Neuron, shape: Sequence[int], current: Tensor) -> Any:
    """Return a state of zeros for neurons of a shape, of the dtype that the kernels want for a current."""
    kind = arithmetic_of(current.dtype)
    lengths, fields = neuron._values_per_neuron(), neuron._state._fields
    parts = [current.new_zeros((*lengths.get(field, ()), *shape), dtype=kind) for field in fields]
    return neuron._state(*parts)


def with_learnt(neuron: Neuron, state: Any, learnt: Mapping[str, Tensor]) -> Any:
    """Add learnt state variables, by name, to a state in which they are 0."""
    parts = dict(zip(state._fields, state, strict=True))
    for name, value in learnt.items():
        field, leading = name.removeprefix(PREFIX), lengths_of(neuron, name)
        parts[field] = parts[field] + _placed(name, value, leading, parts[field])
    return type(state)(**parts)


def _placed(name: str, value: Tensor, leading: tuple[int, ...], like: Tensor) -> Tensor:
    """Check a learnt state variable, and give it the axes of the neurons, to which it broadcasts."""
    own, shape = tuple(value.shape)[len(leading) :], tuple(like.shape)[len(leading) :]
    if len(own) > len(shape) or any(n not in (1, m) for n, m in zip(own[::-1], shape[::-1], strict=False)):
        raise ValueError(f"{name} must broadcast against the neurons' shape {shape}, got shape {own}")
    if value.device != like.device:
        raise TypeError(
            f"{name} must be on the device of current, {like.device}, got {value.device}: "
            "move the layer with .to()"
        )
    if not is_traced(value):
        require_finite(name, value)
    return value.to(like.dtype).reshape((*leading, *(1,) * (len(shape) - len(own)), *own))
