"""A neuron's parameters as the kernels take them: rounded, broadcast, and remembered from call to call.

Descriptors are values; what is computed from them, and what of them lies on a device, is remembered here.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

from . import _core
from ._arrays import Arrangement, BoundParameter, bind_parameter, require_broadcast
from ._backends import NUMPY, ieee, on_device
from ._cache import IdentityCache
from .neurons import Neuron, check_rounded

Bound = dict[str, BoundParameter]

_MOST_UPLOADS = 64  # shapes of data

# Of a neuron: by type the parameters if all are numbers, else None; its options and names.
_known = IdentityCache()
_uploads = IdentityCache()  # of a neuron: by arrangement and type those that a device has already


class Binding(NamedTuple):
    """A call's parameters, and that for which they were bound: they fit nothing else."""

    neuron: Neuron
    arrangement: Arrangement
    type_name: str  # of current and spikes
    parameters: dict[str, BoundParameter]
    options: dict[str, int]  # the neuron's, by the kernel's names

    def arguments(self) -> dict[str, Any]:
        """What the extension takes."""
        backend = self.arrangement.backend
        return {
            name: bound.value if bound.values is None else bound.argument(backend)
            for name, bound in self.parameters.items()
        }


def bind(
    neuron: Neuron,
    arrangement: Arrangement,
    type_name: str,
    arithmetic: str,
    learnt: Collection[str] = (),
    origin: Neuron | None = None,
) -> Binding:
    """The parameters for the kernels, rounded to the arithmetic dtype first.

    `origin` is the descriptor from which `neuron` was made by putting in learnt values, which lie on the
    device of the data: all other values are the same from call to call.
    """
    if learnt:
        bound, options = _bind_arrays(neuron, arrangement, arithmetic, learnt, origin), neuron._options()
        return Binding(neuron, arrangement, type_name, bound, options)
    known = _known.of(neuron)
    if arithmetic not in known:
        with ieee():
            known[arithmetic] = _bind_scalars(neuron._parameters(), arithmetic)
        known["options"] = neuron._options()
    scalars: Bound | None = known[arithmetic]
    bound = _bind_arrays(neuron, arrangement, arithmetic) if scalars is None else scalars
    return Binding(neuron, arrangement, type_name, bound, known["options"])


def all_names(neuron: Neuron) -> tuple[frozenset[str], frozenset[str]]:
    """The parameters that a neuron was given, and the kernel's names behind them."""
    known = _known.of(neuron)
    if "names" not in known:
        names = frozenset(neuron._names())
        known["names"] = names, frozenset(neuron._wanted(set(names)))
    result: tuple[frozenset[str], frozenset[str]] = known["names"]
    return result


def _bind_arrays(
    neuron: Neuron,
    arrangement: Arrangement,
    arithmetic: str,
    learnt: Collection[str] = (),
    origin: Neuron | None = None,
) -> Bound:
    for name in neuron._names():  # as the user knows them; the kernel's are made of them
        value = neuron._value_of(name)
        if not isinstance(value, (float, tuple)):
            require_broadcast(name, tuple(value.shape), arrangement, len(neuron._leading(name)))
    with ieee():
        given = neuron._parameters()
        here = {name: value for name, value in given.items() if not on_device(value)}
        rounded = {name: NUMPY.convert(value, arithmetic) for name, value in here.items()}
        unchecked = neuron._wanted(set(learnt)) if learnt else ()
        check_rounded({k: v for k, v in rounded.items() if k not in unchecked}, arithmetic)
    uploads = _uploads_of(neuron if origin is None else origin, arrangement, arithmetic)
    taps = _core.models[neuron._model][2]
    bound = {
        name: (uploads.get(name) if name in here else None)
        or bind_parameter(name, rounded.get(name, value), arrangement, arithmetic, taps=name in taps)
        for name, value in given.items()
    }
    uploads.update({name: bound[name] for name in here})
    return bound


def _bind_scalars(values: dict[str, object], arithmetic: str) -> Bound | None:
    if not all(isinstance(value, float) for value in values.values()):
        return None
    rounded = {name: np.dtype(arithmetic).type(value) for name, value in values.items()}
    check_rounded(rounded, arithmetic)
    return {name: BoundParameter.scalar(float(value)) for name, value in rounded.items()}


def _uploads_of(neuron: Neuron, arrangement: Arrangement, arithmetic: str) -> Bound:
    """Parameters that a device has already: a copy to it would wait, and cannot be in a CUDA graph."""
    if arrangement.backend is NUMPY:
        return {}
    known = _uploads.of(neuron)
    if len(known) >= _MOST_UPLOADS:
        known.clear()
    result: Bound = known.setdefault((arrangement, arithmetic), {})
    return result
