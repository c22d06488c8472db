"""The descriptor of a kernel without spikes, which ``kernel_filter`` runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .._backends import Array
from .._maps import Map
from .._values import Number
from ..kernel import FILTER_MODEL, Kernel
from ._protocol import Neuron, State


class _Filtering(NamedTuple):
    potential: Array
    x: Array
    y: Array


class FilterState(State, _Filtering):
    """State of a filter after a step: its output, and the x and y of its kernel (see SRMState)."""

    __module__ = "exodus_core.neurons"
    __slots__ = ()


@dataclass(frozen=True, eq=False, repr=False)
class Filter(Neuron):
    """A kernel as a neuron that does not fire, which ``kernel_filter`` runs."""

    kernel: Kernel

    _model = FILTER_MODEL
    _state = FilterState
    _fires = False
    _value_fields = ()

    def __post_init__(self) -> None:
        if not isinstance(self.kernel, Kernel):
            raise TypeError(f"kernel must be a kernel such as kernel.Alpha, got {self.kernel!r}")

    def _decay_values(self) -> dict[str, Number]:
        return self.kernel._decay_values()

    def _maps(self) -> tuple[Map, ...]:
        return self.kernel._maps

    def _value_of(self, name: str) -> Number:
        return getattr(self.kernel, name)

    def _leading_lengths(self, name: str) -> tuple[int | None, ...]:
        return (None,) if name == "taps" else ()

    def _options(self) -> dict[str, int | str]:
        return {"kernel": self.kernel._timing}

    def _values_per_neuron(self) -> dict[str, tuple[int]]:
        return self.kernel._values_per_neuron()
