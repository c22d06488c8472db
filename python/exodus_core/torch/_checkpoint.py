"""A layer's neuron as text in a tensor: the part of a ``state_dict`` that torch does not know.

A neuron's values that are not learnt are neither parameters nor buffers, because ``.half()`` or
``.bfloat16()`` would round a buffer. They are in torch's extra state instead. It is a tensor, one number per
byte of text, since many programs expect tensors only: they clone, move, convert, average or store a
``state_dict`` entry by entry. A byte is exact in every floating-point type, and numbers in the text are exact
in float64.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._text import from_text
from .._values import Value
from ..neurons import Neuron

KEY = "_extra_state"  # torch's name
_A_NUMBER = "a number"
_BLOCK = 1024  # bytes: text has the same length with other numbers, since programs load into such tensors


class Record(NamedTuple):
    """A layer's neuron, as it is stored.

    Attributes
    ----------
    neuron : Neuron
        The descriptor, with the initial values of learnt parameters.
    learnt : dict of str to str
        The names of the values that are parameters, each with the name of its parametrisation, or "" if it
        has none of this package.
    """

    neuron: Neuron
    learnt: dict[str, str]


def to_tensor(neuron: str, learnt: Mapping[str, str]) -> Tensor:
    """Return a record, with the descriptor as text, as a tensor. It is on the CPU in any device context."""
    text = f"{json.dumps(learnt)}\n{neuron}".encode()
    padded = text.ljust(-(-len(text) // _BLOCK) * _BLOCK)
    return torch.tensor(list(padded), dtype=torch.float64, device="cpu")


def from_tensor(tensor: Any) -> Record:
    """Return the record that ``to_tensor`` stored."""
    try:
        codes = tensor.detach().cpu().double().round().tolist()
        learnt, neuron = bytes(map(int, codes)).decode().splitlines()
        names = {str(name): str(kind) for name, kind in json.loads(learnt).items()}
    except (AttributeError, NotImplementedError, OverflowError, TypeError, ValueError):
        raise ValueError(
            f"the extra state of a layer must be one that a layer stored, got {tensor!r:.80}"
        ) from None
    try:
        found = from_text(neuron)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"the stored neuron must be one of this version, got {neuron:.80}: {error}"
        ) from None
    if not isinstance(found, Neuron):
        raise ValueError(f"the stored value must be a neuron, got {type(found).__name__}")
    return Record(found, names)


def differences(own: Record, found: Record, attribute: Callable[[str], str]) -> list[str]:
    """Say how a stored neuron differs from a layer's in anything but the values.

    `attribute` returns the name that messages show for that of a value.
    """
    if type(own.neuron) is not type(found.neuron):
        kinds = type(own.neuron).__name__, type(found.neuron).__name__
        return [f"{attribute('neuron')} must be {kinds[0]}, got {kinds[1]}"]
    options, stored = _options(own.neuron), _options(found.neuron)
    said = [
        f"{attribute(name)} must be {_shown(option)}, got {_shown(stored[name])}"
        for name, option in options.items()
        if option != stored[name]
    ]
    if said:
        return said
    for name in own.neuron._parameter_names():
        shape, other = np.shape(own.neuron._value_of(name)), np.shape(found.neuron._value_of(name))
        if name not in own.learnt and name not in found.learnt and shape != other:
            said.append(f"size mismatch for {attribute(name)}: its shape must be {shape}, got {other}")
        kind, stored_kind = own.learnt.get(name), found.learnt.get(name)
        if kind and stored_kind and kind != stored_kind:
            said.append(f"the parametrisation of {attribute(name)} must be {kind!r}, got {stored_kind!r}")
    return said


def _options(neuron: Neuron) -> dict[str, Any]:
    """Return the options of a descriptor, by field: all but numbers, and which fields are numbers."""
    names, options = neuron._parameter_names(), {}
    for field in fields(neuron):  # type: ignore[arg-type]
        value = getattr(neuron, field.name)
        is_number = field.name in names or field.type == "float"  # such as dt, which is no parameter
        options[field.name] = _A_NUMBER if is_number else value
        if isinstance(value, Value):  # a kernel, whose numbers are parameters
            options[field.name] = type(value).__name__
    return options


def _shown(option: Any) -> str:
    return _A_NUMBER if option is _A_NUMBER else repr(option)


def restored(neuron: Neuron, found: Record, learnt: Iterable[str]) -> Neuron:
    """Return the stored descriptor for a layer that learns some of the values.

    The initial values of learnt parameters are restored as well, so that the others are in range of them,
    except for those whose shape the layer has fixed.
    """
    kept = {name: neuron._value_of(name) for name in learnt if neuron._leading_lengths(name)}
    return found.neuron._with(kept) if kept else found.neuron


def loads_finite(state_dict: Any, prefix: str, names: Iterable[str], errors: list[str]) -> bool:
    """Tell whether the values that a layer loads are finite; if not, add an error that names the value."""
    for name in names:
        value = state_dict.get(prefix + name)
        if isinstance(value, Tensor) and not value.is_meta and not bool(torch.isfinite(value).all()):
            errors.append(f"{prefix}{name} must be finite, got {value}")
            return False
    return True
