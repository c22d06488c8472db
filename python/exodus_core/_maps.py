"""Maps from a neuron's own parameters to the kernel's; their transposes take gradients back.

A time constant stands for a decay, decays and couplings for the matrix of coupled states. Each such relation
is one object, a map and its transpose: `apply` makes the kernels' values, in float64 and with the same bits
for NumPy and for arrays on a GPU, and `transpose` is the chain rule. A neuron is a list of maps.
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

Gradient = Array | None  # None where nobody asked for it


@dataclass(eq=False, repr=False)
class Map:
    """Some parameters of a neuron, by its own names, and the kernel's parameters that are made of them."""

    own: tuple[str, ...]
    kernel: tuple[str, ...]

    def apply(self, own: Sequence[Number]) -> Sequence[Number]:
        """Return the kernel's values, not yet rounded."""
        raise NotImplementedError

    def transpose(self, own: Sequence[Number], grads: Sequence[Gradient]) -> Sequence[Gradient]:
        """Return the own values' gradients, None where a source is missing; called within ``ieee``."""
        raise NotImplementedError

    def sources(self, name: str) -> Iterable[str]:
        """Return the kernel's names whose gradients make up that of an own value."""
        return self.kernel

    def facts(self, kernel: Mapping[str, Facts]) -> Sequence[Facts]:
        """Return what is known of each own value, by the table of the kernel's parameters."""
        return [Facts()] * len(self.own)

    def named(self, own: str, kernel: str) -> Map:
        """Return this map for parameters whose names begin with these prefixes."""
        return replace(
            self,
            own=tuple(own + name for name in self.own),
            kernel=tuple(kernel + name for name in self.kernel),
        )


@dataclass(eq=False, repr=False)
class Same(Map):
    """The kernel takes the values as they are."""

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
    """A constant of the kernel that depends on no parameter."""

    value: float = 0.0

    def apply(self, own: Sequence[Number]) -> Sequence[Number]:
        return (self.value,)

    def transpose(self, own: Sequence[Number], grads: Sequence[Gradient]) -> Sequence[Gradient]:
        return ()


class Formula(Map):
    """A map by formulas on arrays in float64 that broadcast; a subclass has them as two functions."""

    domains: ClassVar[tuple[Domain, ...]]  # of the own values

    def values(self, xp: Any, *own: Array) -> Sequence[Array]:
        """The kernel's values."""
        raise NotImplementedError

    def chain(self, xp: Any, own: Sequence[Array], grads: Sequence[Array]) -> Sequence[tuple[Array, ...]]:
        """Return the terms of each own value's gradient, one for each kernel value that depends on it.

        Each has the shape of that parameter of the kernel, which was broadcast from some of the own values.
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
    """A composition: `last` takes the results of the maps of `first`, in order."""

    first: tuple[Map, ...]
    last: Map

    @classmethod
    def of(cls, first: tuple[Map, ...], last: Map) -> Chain:
        """Compose them; the own names are those of the maps that come first."""
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
    """Return a map for each of some parameters that the kernel takes by the same name."""
    return tuple(Same((name,), (name,)) for name in names)


def kernel_values(maps: Iterable[Map], own: Mapping[str, Number]) -> dict[str, Number]:
    """Return the kernel's parameters by name."""
    return {
        name: value
        for part in maps
        for name, value in zip(part.kernel, part.apply([own[n] for n in part.own]), strict=True)
    }


def own_gradients(
    maps: Iterable[Map], own: Mapping[str, Number], grads: Mapping[str, Array]
) -> dict[str, Array]:
    """Return gradients by the own names; maps to which no gradient is given are left out."""
    found: dict[str, Array] = {}
    for part in maps:
        given = [grads.get(name) for name in part.kernel]
        if all(grad is None for grad in given):
            continue
        results = zip(part.own, part.transpose([own[n] for n in part.own], given), strict=True)
        found.update({name: grad for name, grad in results if grad is not None})
    return found


@lru_cache(maxsize=256)
def own_facts(maps: tuple[Map, ...], model: str) -> dict[str, Facts]:
    """Return what is known of the own values, by name, of a neuron that a model of the kernels runs."""
    kernel = kernel_facts(model)
    return {name: one for part in maps for name, one in zip(part.own, part.facts(kernel), strict=True)}


def sources(maps: Iterable[Map], names: set[str]) -> set[str]:
    """Return the kernel's names whose gradients those of the own names need."""
    return {source for part in maps for name in part.own if name in names for source in part.sources(name)}


def _sum_to(xp: Any, array: Array, shape: tuple[int, ...]) -> Array:
    """Undo the broadcasting of a gradient."""
    if tuple(array.shape) == shape:
        return array
    array = xp.sum(array, axis=tuple(range(array.ndim - len(shape))))
    return xp.sum(array, axis=tuple(k for k, size in enumerate(shape) if size == 1), keepdims=True)
