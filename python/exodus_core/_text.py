"""Descriptors, kernels and surrogates as text, with every bit of their values, for any process to read."""

from __future__ import annotations

import base64
import dataclasses
import json
from functools import lru_cache
from typing import Any

import numpy as np

from . import kernel, neurons, surrogate
from .neurons import Filter, Neuron
from .surrogate import Surrogate

_PUBLIC: list[Any] = [getattr(module, name) for module in (kernel, surrogate) for name in module.__all__]
_PUBLIC += [*neurons.DESCRIPTORS, Filter]
_KINDS: dict[str, Any] = {kind.__name__: kind for kind in _PUBLIC if hasattr(kind, "__dataclass_fields__")}


def to_text(value: Neuron | Surrogate) -> str:
    """Return a descriptor or a built-in surrogate as text."""
    return json.dumps(value, default=_encoded, separators=(",", ":"))


@lru_cache(maxsize=4096)
def from_text(text: str) -> Any:
    """Return the value of a text; the same object for the same text, so that caches find it."""
    return _decoded(json.loads(text))


def _encoded(value: Any) -> Any:
    """Encode a value of a kind that JSON lacks."""
    if isinstance(value, np.ndarray):
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"array": data, "dtype": value.dtype.str, "shape": value.shape}
    if isinstance(value, np.generic):
        return value.item()
    if type(value).__name__ not in _KINDS:
        raise TypeError(f"a value must be a descriptor, a kernel or a surrogate, got {type(value).__name__}")
    given = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return {"kind": type(value).__name__, "given": given}


def _decoded(part: Any) -> Any:
    if isinstance(part, list):
        return tuple(map(_decoded, part))
    if not isinstance(part, dict):
        return part
    if "array" in part:
        flat = np.frombuffer(base64.b64decode(part["array"]), dtype=part["dtype"])
        return flat.reshape(part["shape"])
    return _KINDS[part["kind"]](**{name: _decoded(value) for name, value in part["given"].items()})
