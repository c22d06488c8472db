"""Maps from a descriptor's parameters to the model's, and the chain rule back.

A descriptor may have a time constant where the model has a decay, or decays and couplings where the model
has a matrix. Each such relation is one object. `apply` computes the model's values, in float64 and with the
same bits for NumPy and for arrays on a GPU. `transpose` is the chain rule: it takes gradients back. A
descriptor's parameters are described by a list of maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

from ._backends import Array, in_double
from ._domains import Domain, Facts, model_facts
from ._ieee import ieee
from ._values import Number, plain

Gradient = Array | None  # None if it was not requested


@dataclass(eq=False, repr=False)
class Map:
    """A map from some of a descriptor's parameters, `own`, to parameters of the model."""

    own: tuple[str, ...]
    model: tuple[str, ...]

    def apply(self, own: Sequence[Number]) -> Sequence[Number]:
        """Return the model's values, not yet rounded."""
        raise NotImplementedError

    def transpose(self, own: Sequence[Number], grads: Sequence[Gradient]) -> Sequence[Gradient]:
        """Return the gradients of the own values, from those of the model's; called within ``ieee``.

        A gradient is None if one of its sources is.
        """
        raise NotImplementedError

    def sources(self, name: str) -> Iterable[str]:
        """Return the model's parameters whose gradients contribute to that of an own value."""
        return self.model

    def facts(self, model: Mapping[str, Facts]) -> Sequence[Facts]:
        """Return the facts about each own value, given those about the model's parameters."""
        return [Facts()] * len(self.own)

    def native(self) -> Mapping[str, tuple[str, float]]:
        """Return own numbers that the extension can turn into the model's.

        By the own name, that of the model, and dt if the number is the time constant of a decay, else 0.
        """
        return {}

    def named(self, own: str, model: str) -> Map:
        """Return this map with prefixes before the names on both sides."""
        return replace(
            self,
            own=tuple(own + name for name in self.own),
            model=tuple(model + name for name in self.model),
        )


@dataclass(eq=False, repr=False)
class Same(Map):
    """The identity: the model takes the values as they are."""

    @property
    def pairs(self) -> Iterable[tuple[str, str]]:
        """Each own value's name with the model's."""
        return zip(self.own, self.model, strict=True)

    def native(self) -> Mapping[str, tuple[str, float]]:
        return {own: (name, 0.0) for own, name in self.pairs}

    def apply(self, own: Sequence[Number]) -> Sequence[Number]:
        return own

    def transpose(self, own: Sequence[Number], grads: Sequence[Gradient]) -> Sequence[Gradient]:
        return grads

    def sources(self, name: str) -> Iterable[str]:
        return (self.model[self.own.index(name)],)

    def facts(self, model: Mapping[str, Facts]) -> Sequence[Facts]:
        return [model[name] for name in self.model]


@dataclass(eq=False, repr=False)
class Constant(Map):
    """A constant value of a model parameter, which depends on no parameter of the descriptor."""

    value: float = 0.0

    def apply(self, own: Sequence[Number]) -> Sequence[Number]:
        return (self.value,)

    def transpose(self, own: Sequence[Number], grads: Sequence[Gradient]) -> Sequence[Gradient]:
        return ()


class Formula(Map):
    """A map by formulas on float64 arrays that broadcast. A subclass defines `values` and `chain`."""

    domains: ClassVar[tuple[Domain, ...]]  # the domains of the own values

    def values(self, xp: Any, *own: Array) -> Sequence[Array]:
        """Return the model's values."""
        raise NotImplementedError

    def chain(self, xp: Any, own: Sequence[Array], grads: Sequence[Array]) -> Sequence[tuple[Array, ...]]:
        """Return the terms of each own value's gradient, one for each model value that depends on it.

        A term has the shape of that model value. `transpose` sums it to the shape of the own value.
        """
        raise NotImplementedError

    def apply(self, own: Sequence[Number]) -> Sequence[Number]:
        xp, *arrays = in_double(*own)
        with ieee():
            return tuple(map(plain, self.values(xp, *arrays)))

    def transpose(self, own: Sequence[Number], grads: Sequence[Gradient]) -> Sequence[Gradient]:
        given = [0.0 if grad is None else grad for grad in grads]
        xp, *arrays = in_double(*own, *given)
        values, gradients = arrays[: len(own)], arrays[len(own) :]
        present = {name for name, grad in zip(self.model, grads, strict=True) if grad is not None}
        chained = zip(self.own, values, self.chain(xp, values, gradients), strict=True)
        return tuple(
            sum(_sum_to(xp, term, tuple(value.shape)) for term in terms)
            if present.issuperset(self.sources(name))
            else None
            for name, value, terms in chained
        )

    def facts(self, model: Mapping[str, Facts]) -> Sequence[Facts]:
        return [Facts(domain) for domain in self.domains]


@dataclass(eq=False, repr=False)
class Chain(Map):
    """A composition of maps: `last` takes the results of the maps in `first`, in order."""

    first: tuple[Map, ...]
    last: Map

    @classmethod
    def of(cls, first: tuple[Map, ...], last: Map) -> Chain:
        """Compose maps. The own values are those of the maps in `first`."""
        return cls(tuple(name for part in first for name in part.own), last.model, first, last)

    def _split(self, own: Sequence[Number]) -> list[Sequence[Number]]:
        rest = iter(own)
        return [[next(rest) for _ in part.own] for part in self.first]

    def _between(self, own: Sequence[Number]) -> list[Number]:
        parts = zip(self.first, self._split(own), strict=True)
        return [value for part, values in parts for value in part.apply(values)]

    def apply(self, own: Sequence[Number]) -> Sequence[Number]:
        return self.last.apply(self._between(own))

    def transpose(self, own: Sequence[Number], grads: Sequence[Gradient]) -> Sequence[Gradient]:
        between = list(self.last.transpose(self._between(own), grads))
        found: list[Gradient] = []
        for part, values in zip(self.first, self._split(own), strict=True):
            found += part.transpose(values, between[: len(part.model)])
            between = between[len(part.model) :]
        return found

    def sources(self, name: str) -> Iterable[str]:
        part = next(part for part in self.first if name in part.own)
        return {source for middle in part.sources(name) for source in self.last.sources(middle)}

    def facts(self, model: Mapping[str, Facts]) -> Sequence[Facts]:
        between = dict(zip(self.last.own, self.last.facts(model), strict=True))
        return [one for part in self.first for one in part.facts(between)]


@lru_cache(maxsize=256)
def same(*names: str) -> tuple[Map, ...]:
    """Return an identity map for each parameter that the model takes by the same name."""
    return tuple(Same((name,), (name,)) for name in names)


class Relations:
    """Facts that follow from the maps of a neuron that runs on a model, whatever the values are.

    Attributes
    ----------
    maps : tuple of Map
        The maps themselves.
    names : tuple of str
        The names of the own values.
    facts : dict of str to Facts
        The facts about the own values, by name.
    native : dict of str to (str, float)
        See `Map.native`.
    """

    def __init__(self, maps: tuple[Map, ...], model: str) -> None:
        table = model_facts(model)
        self.maps = maps
        self.names = tuple([name for part in maps for name in part.own])
        self.facts: dict[str, Facts] = {
            name: one for part in maps for name, one in zip(part.own, part.facts(table), strict=True)
        }
        self.native = {own: found for part in maps for own, found in part.native().items()}
        self._table = table
        self._copied = [(own, name) for part in maps if isinstance(part, Same) for own, name in part.pairs]
        self._computed = [part for part in maps if not isinstance(part, Same)]
        self._sources = {name: frozenset(part.sources(name)) for part in maps for name in part.own}

    def model_values(self, own: Mapping[str, Number]) -> dict[str, Number]:
        """Return the model's parameters by name."""
        values = {name: own[source] for source, name in self._copied}
        for part in self._computed:
            values.update(zip(part.model, part.apply([own[name] for name in part.own]), strict=True))
        return values

    def own_gradients(self, own: Mapping[str, Number], grads: Mapping[str, Array]) -> dict[str, Array]:
        """Return the gradients of the own values by name; called within ``ieee``.

        Those of maps that get no gradient are missing.
        """
        found = {source: grads[name] for source, name in self._copied if name in grads}
        for part in self._computed:
            given = [grads.get(name) for name in part.model]
            if all([grad is None for grad in given]):
                continue
            results = zip(part.own, part.transpose([own[n] for n in part.own], given), strict=True)
            found.update({name: grad for name, grad in results if grad is not None})
        return found

    def sources(self, names: Iterable[str]) -> frozenset[str]:
        """Return the model's parameters whose gradients those of the named own values need."""
        return frozenset().union(*[self._sources[name] for name in names if name in self._sources])

    def reads_current(self, names: Iterable[str]) -> bool:
        """Tell whether the gradients of the named own values need the input current."""
        return any([self._table[source].reads_current for source in self.sources(names)])


@lru_cache(maxsize=256)
def relations(maps: tuple[Map, ...], model: str) -> Relations:
    """Return the relations of some maps."""
    return Relations(maps, model)


def _sum_to(xp: Any, array: Array, shape: tuple[int, ...]) -> Array:
    """Sum a gradient to a shape: the transpose of broadcasting."""
    if tuple(array.shape) == shape:
        return array
    array = xp.sum(array, axis=tuple(range(array.ndim - len(shape))))
    return xp.sum(array, axis=tuple(k for k, size in enumerate(shape) if size == 1), keepdims=True)
