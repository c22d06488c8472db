"""Decays, each given per step or as a time constant: alpha = exp(-dt / tau), and its chain rule."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from .._backends import decay, in_double, is_torch, on_device
from .._domains import LEAST_TAU, POSITIVE, Facts
from .._ieee import ieee
from .._maps import Gradient, Map, Same, same
from .._values import Number, number, plain, require_that
from ._protocol import Neuron

_MOST = 1e3  # e^-1000 is 0; the bound on dt / tau avoids 0 times infinity


@dataclass(eq=False, repr=False)
class FromTau(Map):
    """The map from a time constant to a decay: alpha = exp(-dt / tau)."""

    dt: float = 1.0

    def native(self) -> Mapping[str, tuple[str, float]]:
        return {self.own[0]: (self.model[0], self.dt)}

    def apply(self, own: Sequence[Number]) -> Sequence[Number]:
        return (plain(decay(self.dt, own[0])),)

    def transpose(self, own: Sequence[Number], grads: Sequence[Gradient]) -> Sequence[Gradient]:
        if grads[0] is None:
            return grads
        tau, grad = own[0], grads[0]
        if type(tau) is float and not on_device(grad):
            ratio = min(self.dt / tau, _MOST)
        else:
            xp, grad, tau = in_double(grad, tau)
            ratio = xp.clip(self.dt / tau, 0.0, _MOST)
        return (grad * (decay(self.dt, tau) * ratio / tau),)  # d alpha / d tau = alpha dt / tau^2

    def facts(self, model: Mapping[str, Facts]) -> Sequence[Facts]:
        return (Facts(POSITIVE, least=self.dt * LEAST_TAU),)


@lru_cache(maxsize=256)
def to_decays(names: tuple[str, ...], given: tuple[str, ...], dt: float) -> tuple[Map, ...]:
    """Return the maps to decays; `given` has, for each decay, its own name or that of its time constant."""
    return tuple(
        Same((own,), (name,)) if own == name else FromTau((own,), (name,), float(dt))
        for name, own in zip(names, given, strict=True)
    )


class Decaying(Neuron):
    """Base of the neurons with decays, each given directly or as a time constant."""

    _decays: ClassVar[Mapping[str, str]] = {"alpha": "tau"}  # by decay, the name of its time constant

    dt: float

    @ieee()
    def _check_decay(self) -> None:
        for alpha, tau in self._decays.items():
            values = getattr(self, alpha), getattr(self, tau)
            if (values[0] is None) == (values[1] is None):
                given = "neither" if values[0] is None else f"{alpha}={values[0]!r} and {tau}={values[1]!r}"
                raise ValueError(f"exactly one of {alpha} and {tau} must be given, got {given}")
        if is_torch(self.dt):
            object.__setattr__(self, "dt", number("dt", self.dt))
        if isinstance(self.dt, bool) or not isinstance(self.dt, numbers.Real):
            raise TypeError(f"dt must be a number, got {self.dt!r}")
        require_that("dt", self.dt, self.dt > 0, "above 0")

    def _decay_maps(self) -> tuple[Map, ...]:
        """Return the maps to the decays, from the values that were given."""
        return to_decays(tuple(self._decays), tuple([self._own_name(name) for name in self._decays]), self.dt)

    def _decay_values(self) -> dict[str, Number]:
        maps = self._decay_maps()
        own = self._values(maps)
        return {
            name: value
            for part in maps
            for name, value in zip(part.model, part.apply([own[n] for n in part.own]), strict=True)
        }

    def _own_name(self, name: str) -> str:
        """Return the name under which a decay was given: its own, or that of its time constant."""
        return self._decays[name] if getattr(self, name) is None else name


class Leaky(Decaying):
    """Base of the neurons with decays and a gain."""

    gain: Number

    def _decay_and_gain(self) -> tuple[Map, ...]:
        return self._decay_maps() + (() if isinstance(self.gain, str) else same("gain"))

    def _model_values(self, own: Mapping[str, Number]) -> dict[str, Number]:
        values = super()._model_values(own)
        if isinstance(self.gain, str):  # "1-alpha"; the model adds the gain's gradient to that of alpha
            _, alpha = in_double(values["alpha"])
            with ieee():
                values["gain"] = plain(1.0 - alpha)
        return values

    def _native(self, names: Iterable[str]) -> list[tuple[str, float]] | None:
        return None if isinstance(self.gain, str) else super()._native(names)

    def _reads_current(self, names: Iterable[str]) -> bool:
        follows = isinstance(self.gain, str) and self._own_name("alpha") in names
        return follows or super()._reads_current(names)

    def _gain_options(self) -> dict[str, int | str]:
        return {"gain_follows_alpha": isinstance(self.gain, str)}
