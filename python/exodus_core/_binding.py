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

_MOST_REMEMBERED = 64  # shapes of data

# Of a neuron: by type the parameters if all are numbers, else None; its options and names.
_known = IdentityCache()
_bound = IdentityCache()  # of a neuron: by arrangement and type its own values as they were bound


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
        # What lies on the host is learnt too: it is another array in each call.
        before = (
            {} if arrangement.backend is NUMPY else _remembered(origin or neuron, arrangement, arithmetic)
        )
        bound, options = _bind_arrays(neuron, arrangement, arithmetic, before, learnt), neuron._options()
        return Binding(neuron, arrangement, type_name, bound, options)
    known = _known.of(neuron)
    if arithmetic not in known:
        with ieee():
            known[arithmetic] = _bind_scalars(neuron._parameters(), arithmetic)
        known["options"] = neuron._options()
    scalars: Bound | None = known[arithmetic]
    bound = _bind_fixed(neuron, arrangement, arithmetic) if scalars is None else scalars
    return Binding(neuron, arrangement, type_name, bound, known["options"])


def all_names(neuron: Neuron) -> tuple[frozenset[str], frozenset[str]]:
    """The parameters that a neuron was given, and the kernel's names behind them."""
    known = _known.of(neuron)
    if "names" not in known:
        names = frozenset(neuron._names())
        known["names"] = names, frozenset(neuron._wanted(set(names)))
    result: tuple[frozenset[str], frozenset[str]] = known["names"]
    return result


def _bind_fixed(neuron: Neuron, arrangement: Arrangement, arithmetic: str) -> Bound:
    before = _remembered(neuron, arrangement, arithmetic)
    if before and arrangement.backend is NUMPY:
        return before
    return _bind_arrays(neuron, arrangement, arithmetic, before)


def _bind_arrays(
    neuron: Neuron,
    arrangement: Arrangement,
    arithmetic: str,
    before: Bound,
    learnt: Collection[str] = (),
) -> Bound:
    """Bind what was not bound `before`, and add it there if it is not on a device."""
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
    taps = _core.models[neuron._model][2]
    bound = {
        name: (before.get(name) if name in here else None)
        or bind_parameter(name, rounded.get(name, value), arrangement, arithmetic, taps=name in taps)
        for name, value in given.items()
    }
    before.update({name: bound[name] for name in here})
    return bound


def _bind_scalars(values: dict[str, object], arithmetic: str) -> Bound | None:
    if not all(isinstance(value, float) for value in values.values()):
        return None
    rounded = {name: np.dtype(arithmetic).type(value) for name, value in values.items()}
    check_rounded(rounded, arithmetic)
    return {name: BoundParameter.scalar(float(value)) for name, value in rounded.items()}


def _remembered(neuron: Neuron, arrangement: Arrangement, arithmetic: str) -> Bound:
    """A neuron's own values as they were bound.

    To bind them anew takes time; a copy to a device would wait for it, and cannot be in a CUDA graph.
    """
    known = _bound.of(neuron)
    if len(known) >= _MOST_REMEMBERED:
        known.clear()
    result: Bound = known.setdefault((arrangement, arithmetic), {})
    return result
