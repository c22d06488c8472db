"""Binding: a neuron's parameters, rounded and broadcast for the kernels, and cached from call to call.

Descriptors are immutable. The values that the kernels need are computed from them once, and copied to a
device once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from . import _core
from ._backends import ARITHMETIC, NUMPY, Array, Backend, on_device
from ._cache import IdentityCache
from ._domains import check_values, model_facts
from ._ieee import ieee
from ._layout import Layout
from .neurons import Neuron

Bound = dict[str, "BoundParameter"]

_MOST_REMEMBERED = 64  # layouts for each neuron

# For each neuron, its parameters by arithmetic dtype (None unless all are numbers), their count if none is on
# a device, its options and names.
_known = IdentityCache()
_bound = IdentityCache()  # for each neuron, its own values as bound, by layout and arithmetic dtype


class Binding(NamedTuple):
    """A call's parameters, with the neuron, layout and dtype for which they were bound."""

    neuron: Neuron
    layout: Layout
    type_name: str  # the dtype of current and spikes
    arithmetic: str  # the dtype of everything else
    parameters: dict[str, BoundParameter]
    options: dict[str, int | str]  # the neuron's options, by the model's names

    def arguments(self) -> dict[str, Any]:
        """Return the parameters in the form that the extension takes."""
        backend = self.layout.backend
        return {
            name: bound.value if bound.values is None else bound.argument(backend)
            for name, bound in self.parameters.items()
        }


def bind(
    neuron: Neuron,
    layout: Layout,
    type_name: str,
    learnt: Collection[str] = (),
    origin: Neuron | None = None,
) -> Binding:
    """Bind a neuron's parameters, rounded to the arithmetic dtype, to a layout.

    `learnt` names the parameters whose values change from call to call. They lie on the device of the data,
    and `origin` is the descriptor in which they were replaced to make `neuron`.
    """
    arithmetic = ARITHMETIC[type_name]
    known = _known.of(origin or neuron)
    if "options" not in known:
        known["options"] = neuron._options()
    if learnt:
        bound = _bind_learnt(neuron, layout, arithmetic, learnt, origin or neuron)
        return Binding(neuron, layout, type_name, arithmetic, bound, known["options"])
    if arithmetic not in known:
        with ieee():
            known[arithmetic] = _bind_scalars(neuron, arithmetic)
    scalars: Bound | None = known[arithmetic]
    bound = _bind_fixed(neuron, layout, arithmetic) if scalars is None else scalars
    return Binding(neuron, layout, type_name, arithmetic, bound, known["options"])


def all_names(neuron: Neuron) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of a neuron's parameters, and those of the model's parameters made of them."""
    known = _known.of(neuron)
    if "names" not in known:
        names = frozenset(neuron._parameter_names())
        known["names"] = names, neuron._model_names(names)
    result: tuple[frozenset[str], frozenset[str]] = known["names"]
    return result


def _bind_learnt(
    neuron: Neuron, layout: Layout, arithmetic: str, learnt: Collection[str], origin: Neuron
) -> Bound:
    # Learnt NumPy values are new in every call, so there is nothing to cache.
    if layout.backend.computing is not NUMPY:
        return _bind_arrays(neuron, layout, arithmetic, _remembered(origin, layout, arithmetic), learnt)
    with ieee():
        values = neuron._parameters()
    numbers = all([type(value) is float for value in values.values()])
    if not numbers or (arithmetic, *learnt) not in _known.of(origin):
        bound = _bind_arrays(neuron, layout, arithmetic, {}, learnt)
        _known.of(origin)[arithmetic, *learnt] = True
        return bound
    # Those that are not learnt have been checked, and the kernels round numbers themselves.
    return {name: BoundParameter.scalar(value) for name, value in values.items()}


def _bind_fixed(neuron: Neuron, layout: Layout, arithmetic: str) -> Bound:
    known, before = _known.of(neuron), _remembered(neuron, layout, arithmetic)
    if len(before) == known.get("count"):
        return before
    bound = _bind_arrays(neuron, layout, arithmetic, before)
    if len(before) == len(bound):  # no value is on a device, so all are remembered
        known["count"] = len(bound)
    return bound


def _bind_arrays(
    neuron: Neuron,
    layout: Layout,
    arithmetic: str,
    before: Bound,
    learnt: Collection[str] = (),
) -> Bound:
    """Bind the parameters that `before` lacks, and add to it those that are not on a device."""
    for name in neuron._parameter_names():  # Messages use the user's names, not the model's.
        value = neuron._value_of(name)
        if not isinstance(value, (float, tuple)):
            require_broadcast(name, tuple(value.shape), layout, len(neuron._leading_lengths(name)))
    with ieee():
        given = neuron._parameters()
        here = {name: value for name, value in given.items() if not on_device(value)}
        rounded = {name: NUMPY.convert(value, arithmetic) for name, value in here.items()}
        unchecked = neuron._model_names(learnt)
        _check_rounded(neuron, {k: v for k, v in rounded.items() if k not in unchecked}, arithmetic)
    taps = _core.models[neuron._model][2]
    bound = {
        name: (before.get(name) if name in here else None)
        or bind_parameter(name, rounded.get(name, value), layout, arithmetic, taps=name in taps)
        for name, value in given.items()
    }
    before.update({name: bound[name] for name in here})
    return bound


def _bind_scalars(neuron: Neuron, arithmetic: str) -> Bound | None:
    values = neuron._parameters()
    if not all(isinstance(value, float) for value in values.values()):
        return None
    rounded = {name: np.dtype(arithmetic).type(value) for name, value in values.items()}
    _check_rounded(neuron, rounded, arithmetic)
    return {name: BoundParameter.scalar(float(value)) for name, value in rounded.items()}


def _check_rounded(neuron: Neuron, values: Mapping[str, Any], arithmetic: str) -> None:
    """Check the rounded parameters, which have the model's names."""
    check_values(values, model_facts(neuron._model), f" after rounding to {arithmetic}")


def _remembered(neuron: Neuron, layout: Layout, arithmetic: str) -> Bound:
    """Return the cache of a neuron's own values, as bound to a layout.

    It saves the time of binding them. A copy to a device would also wait for it, and a CUDA graph cannot
    capture the copy.
    """
    known = _bound.of(neuron)
    if len(known) >= _MOST_REMEMBERED:
        known.clear()
    result: Bound = known.setdefault((layout, arithmetic), {})
    return result


class BoundParameter(NamedTuple):
    """A parameter in the form that the kernels take, for one layout.

    Attributes
    ----------
    value : float
        The value of all neurons, if `values` is None.
    values : array or None
        The values in memory order, with a row for each tap. Neuron j has the value (j / repeat) % count.
    repeat : int
        The number of consecutive neurons that share a value.
    shape : tuple of int
        The shape in which the user gave the parameter.
    padded : tuple of int
        That shape without the axis of taps, with leading ones for the missing axes of neurons.
    order : tuple of int
        The axes of the neurons, outermost in memory first.
    full : bool
        Whether `values` was expanded to one value per neuron.
    """

    value: float
    values: Array | None
    repeat: int
    shape: tuple[int, ...]
    padded: tuple[int, ...]
    order: tuple[int, ...]
    full: bool

    @classmethod
    def scalar(cls, value: float) -> BoundParameter:
        """Bind a number that all neurons share."""
        return cls(value, None, 1, (), (), (), False)

    def argument(self, backend: Backend) -> Any:
        """Return the extension's argument: a number or (values, count, repeat); taps add their number K."""
        if self.values is None:
            return self.value
        return (backend.handle(backend.operand(self.values)), *self.values.shape, self.repeat)

    @property
    def size(self) -> int:
        """The number of values that the kernels get."""
        return 1 if self.values is None else math.prod(self.values.shape)

    def gradient(self, flat: Array, layout: Layout) -> Array:
        """Return the kernels' gradient, a vector of `size` doubles, in the parameter's own shape."""
        if self.values is None:
            return flat.reshape(self.shape)
        backend = layout.backend.computing
        shape = layout.neuron_shape if self.full else self.padded
        # The first axis has length 1, or is that of the taps.
        rows = flat.reshape((-1, *(shape[axis] for axis in self.order)))
        grad = backend.permute(rows, (0, *(self.order.index(k) + 1 for k in range(len(self.order)))))
        if self.full:
            axes = tuple(k + 1 for k, n in enumerate(self.padded) if n == 1)
            grad = backend.xp.sum(grad, axis=axes, keepdims=True)
        return grad.reshape(self.shape)


def bind_parameter(
    name: str, value: Any, layout: Layout, type_name: str, taps: bool = False
) -> BoundParameter:
    """Round a parameter to the arithmetic dtype, and broadcast it, or each tap, against the neurons."""
    backend, here = layout.backend, on_device(value)
    own = backend if here else NUMPY
    array = own.convert(value, type_name)
    given = tuple(array.shape)
    shape, neurons, order = given[taps:], layout.neuron_shape, layout.neuron_order
    require_broadcast(name, given, layout, int(taps))
    padded = (1,) * (len(neurons) - len(shape)) + shape
    if not here and len(given) == 0:
        return BoundParameter.scalar(float(array))
    if not here and array.size == 1 and not taps:
        return BoundParameter(float(array.reshape(())), None, 1, shape, padded, order, False)
    # In memory order, the axes along which the parameter varies must be neighbours: only then does the
    # index (j / repeat) % count describe it. Otherwise it is expanded to one value per neuron.
    sizes = [padded[axis] for axis in order]
    varies = [k for k, axis in enumerate(order) if padded[axis] > 1]
    between = [k for k in range(varies[0], varies[-1] + 1) if neurons[order[k]] > 1] if varies else []
    full = 0 not in neurons and any(sizes[k] == 1 for k in between)
    rows = array.reshape((-1, *padded))
    if full:
        rows = own.xp.broadcast_to(rows, (rows.shape[0], *neurons))
    permuted = own.operand(own.permute(rows, (0, *(axis + 1 for axis in order))))
    (values,) = own.plain(own.contiguous(permuted))
    values = values.reshape((rows.shape[0], -1) if taps else (-1,))
    if not here:
        values = backend.convert(values, type_name)
    behind = range(varies[-1] + 1, len(order)) if varies and not full else ()
    repeat = max(1, math.prod(neurons[order[k]] for k in behind))
    return BoundParameter(0.0, values, repeat, given, padded, order, full)


def require_broadcast(name: str, given: tuple[int, ...], layout: Layout, leading: int) -> None:
    """Raise ValueError unless a parameter's shape, without its leading axes, broadcasts to the neurons'."""
    shape, neurons = given[leading:], layout.neuron_shape
    if len(shape) > len(neurons) or any(
        n not in (1, m) for n, m in zip(shape[::-1], neurons[::-1], strict=False)
    ):
        where = {0: "", 1: " after its first axis"}.get(leading, f" after its first {leading} axes")
        raise ValueError(
            f"{name} must broadcast against the neurons' shape {neurons}, got shape {shape}{where}"
            + _hint(shape, neurons)
        )


def _hint(shape: tuple[int, ...], neurons: tuple[int, ...]) -> str:
    if len(shape) != 1 or shape[0] not in neurons:
        return ""
    behind = len(neurons) - 1 - neurons.index(shape[0])
    return f": for one value per channel pass {(shape[0],) + (1,) * behind}"
