"""Maps from a descriptor's parameters to the kernel's, and the chain rule back.

A descriptor may have a time constant where the kernel has a decay, or decays and couplings where the kernel
has a matrix. Each such relation is one object. `apply` computes the kernel's values, in float64 and with the
same bits for NumPy and for arrays on a GPU. `transpose` is the chain rule: it takes gradients back. A
descriptor's parameters are described by a list of maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

from ._backends import Array, in_double
from ._domains import Domain, Facts, kernel_facts
from ._ieee import ieee
from ._values import Number, plain

Gradient = Array | None  # None if it was not requested


@dataclass(eq=False, repr=False)
class Map:
    """A map from some of a descriptor's parameters, `own`, to parameters of the kernel."""

    own: tuple[str, ...]
    kernel: tuple[str, ...]

    def apply(self, own: Sequence[Number]) -> Sequence[Number]:
        """Return the kernel's values, not yet rounded."""
        raise NotImplementedError

    def transpose(self, own: Sequence[Number], grads: Sequence[Gradient]) -> Sequence[Gradient]:
        """Return the gradients of the own values, from those of the kernel's; called within ``ieee``.

        A gradient is None if one of its sources is.
        """
        raise NotImplementedError

    def sources(self, name: str) -> Iterable[str]:
        """Return the kernel's parameters whose gradients contribute to that of an own value."""
        return self.kernel

    def facts(self, kernel: Mapping[str, Facts]) -> Sequence[Facts]:
        """Return the facts about each own value, given those about the kernel's parameters."""
        return [Facts()] * len(self.own)

    def named(self, own: str, kernel: str) -> Map:
        """Return this map with prefixes before the names on both sides."""
        return replace(
            self,
            own=tuple(own + name for name in self.own),
            kernel=tuple(kernel + name for name in self.kernel),
        )


@dataclass(eq=False, repr=False)
class Same(Map):
    """The identity: the kernel takes the values as they are."""

    @property
    def pairs(self) -> Iterable[tuple[str, str]]:
        """Each own value's name with the kernel's."""
        return zip(self.own, self.kernel, strict=True)

    def apply(self, own: Sequence[Number]) -> Sequence[Number]:
        return own

    def transpose(self, own: Sequence[Number], grads: Sequence[Gradient]) -> Sequence[Gradient]:
        return grads

    def sources(self, name: str) -> Iterable[str]:
        return (self.kernel[self.own.index(name)],)

    def facts(self, kernel: Mapping[str, Facts]) -> Sequence[Facts]:
        return [kernel[name] for name in self.kernel]


@dataclass(eq=False, repr=False)
class Constant(Map):
    """A constant value of a kernel parameter, which depends on no parameter of the descriptor."""

    value: float = 0.0

    def apply(self, own: Sequence[Number]) -> Sequence[Number]:
        return (self.value,)

    def transpose(self, own: Sequence[Number], grads: Sequence[Gradient]) -> Sequence[Gradient]:
        return ()


class Formula(Map):
    """A map by formulas on float64 arrays that broadcast. A subclass defines `values` and `chain`."""

    domains: ClassVar[tuple[Domain, ...]]  # the domains of the own values

    def values(self, xp: Any, *own: Array) -> Sequence[Array]:
        """Return the kernel's values."""
        raise NotImplementedError

    def chain(self, xp: Any, own: Sequence[Array], grads: Sequence[Array]) -> Sequence[tuple[Array, ...]]:
        """Return the terms of each own value's gradient, one for each kernel value that depends on it.

        A term has the shape of that kernel value. `transpose` sums it to the shape of the own value.
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
        present = {name for name, grad in zip(self.kernel, grads, strict=True) if grad is not None}
        chained = zip(self.own, values, self.chain(xp, values, gradients), strict=True)
        return tuple(
            sum(_sum_to(xp, term, tuple(value.shape)) for term in terms)
            if present.issuperset(self.sources(name))
            else None
            for name, value, terms in chained
        )

    def facts(self, kernel: Mapping[str, Facts]) -> Sequence[Facts]:
        return [Facts(domain) for domain in self.domains]


@dataclass(eq=False, repr=False)
class Chain(Map):
    """A composition of maps: `last` takes the results of the maps in `first`, in order."""

    first: tuple[Map, ...]
    last: Map

    @classmethod
    def of(cls, first: tuple[Map, ...], last: Map) -> Chain:
        """Compose maps. The own values are those of the maps in `first`."""
        return cls(tuple(name for part in first for name in part.own), last.kernel, first, last)

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
            found += part.transpose(values, between[: len(part.kernel)])
            between = between[len(part.kernel) :]
        return found

    def sources(self, name: str) -> Iterable[str]:
        part = next(part for part in self.first if name in part.own)
        return {source for middle in part.sources(name) for source in self.last.sources(middle)}

    def facts(self, kernel: Mapping[str, Facts]) -> Sequence[Facts]:
        between = dict(zip(self.last.own, self.last.facts(kernel), strict=True))
        return [one for part in self.first for one in part.facts(between)]


@lru_cache(maxsize=256)
def same(*names: str) -> tuple[Map, ...]:
    """Return an identity map for each parameter that the kernel takes by the same name."""
    return tuple(Same((name,), (name,)) for name in names)


class Relations:
    """Facts that follow from the maps of a neuron that runs on a kernel model, whatever the values are.

    Attributes
    ----------
    maps : tuple of Map
        The maps themselves.
    names : tuple of str
        The names of the own values.
    facts : dict of str to Facts
        The facts about the own values, by name.
    """

    def __init__(self, maps: tuple[Map, ...], model: str) -> None:
        kernel = kernel_facts(model)
        self.maps = maps
        self.names = tuple([name for part in maps for name in part.own])
        self.facts: dict[str, Facts] = {
            name: one for part in maps for name, one in zip(part.own, part.facts(kernel), strict=True)
        }
        self._kernel = kernel
        self._copied = [(own, name) for part in maps if isinstance(part, Same) for own, name in part.pairs]
        self._computed = [part for part in maps if not isinstance(part, Same)]
        self._sources = {name: frozenset(part.sources(name)) for part in maps for name in part.own}

    def kernel_values(self, own: Mapping[str, Number]) -> dict[str, Number]:
        """Return the kernel's parameters by name."""
        values = {name: own[source] for source, name in self._copied}
        for part in self._computed:
            values.update(zip(part.kernel, part.apply([own[name] for name in part.own]), strict=True))
        return values

    def own_gradients(self, own: Mapping[str, Number], grads: Mapping[str, Array]) -> dict[str, Array]:
        """Return the gradients of the own values by name; called within ``ieee``.

        Those of maps that get no gradient are missing.
        """
        found = {source: grads[name] for source, name in self._copied if name in grads}
        for part in self._computed:
            given = [grads.get(name) for name in part.kernel]
            if all([grad is None for grad in given]):
                continue
            results = zip(part.own, part.transpose([own[n] for n in part.own], given), strict=True)
            found.update({name: grad for name, grad in results if grad is not None})
        return found

    def sources(self, names: Iterable[str]) -> frozenset[str]:
        """Return the kernel's parameters whose gradients those of the named own values need."""
        return frozenset().union(*[self._sources[name] for name in names if name in self._sources])

    def reads_current(self, names: Iterable[str]) -> bool:
        """Tell whether the gradients of the named own values need the input current."""
        return any([self._kernel[source].reads_current for source in self.sources(names)])


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
