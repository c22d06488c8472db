"""ExpLeak, the leaky integrator. Its equation is in `exodus/exp_leak.hpp`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

from .._backends import Array
from .._maps import Map
from .._values import Number
from ._decays import Leaky
from ._protocol import State


class _Potential(NamedTuple):
    potential: Array


class ExpLeakState(State, _Potential):
    """State of ExpLeak after a step."""

    __module__ = "exodus_core.neurons"
    __slots__ = ()


@dataclass(frozen=True, eq=False, repr=False)
class ExpLeak(Leaky):
    """The leaky integrator without spikes, the usual LI readout.

    v[n] = alpha v[n-1] + gain a[n].

    Parameters
    ----------
    alpha, tau, dt, gain
        As for LIF.
    """

    alpha: Number = None
    _: KW_ONLY
    tau: Number = None
    dt: float = 1.0
    gain: Number = 1.0

    _model = "ExpLeak"
    _state = ExpLeakState
    _fires = False
    _gain_may_follow = True
    _value_fields = ("alpha", "tau", "gain")

    def __post_init__(self) -> None:
        self._set_values()
        self._check_decay()
        self._check_values()

    def _maps(self) -> tuple[Map, ...]:
        return self._decay_and_gain()

    def _options(self) -> dict[str, int | str]:
        return self._gain_options()
