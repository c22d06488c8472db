"""CubaLIF, the LIF with a synaptic current. Its equations are in `exodus/cuba_lif.hpp`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, NamedTuple

from .._backends import Array
from .._maps import Map
from .._values import Number
from ._decays import Leaky
from ._protocol import State
from ._reset import Resetting


class _Synaptic(NamedTuple):
    potential: Array
    spikes: Array
    current: Array


class CubaLIFState(State, _Synaptic):
    """State of CubaLIF after a step, one value per neuron: `current` is the synaptic current."""

    __module__ = "exodus_core.neurons"
    __slots__ = ()


@dataclass(frozen=True, eq=False, repr=False)
class CubaLIF(Leaky, Resetting):
    """The current-based LIF: a synaptic current, with its own decay, drives the membrane.

    i[n] = alpha_syn i[n-1] + gain a[n];  u[n] and s[n] are those of an LIF with input i[n]. (snnTorch's
    Synaptic names the two decays the other way round.)

    Parameters
    ----------
    alpha, alpha_syn : float or array_like, optional
        Decays of the membrane and of the synaptic current per step, in [0, 1].
    threshold : float or array_like, optional
        Above 0.
    tau, tau_syn : float or array_like, optional
        Time constants in the unit of `dt`, each in place of its decay.
    gain : float, array_like or "1-alpha", optional
        Factor on the input current. "1-alpha" is 1 minus the decay of the membrane, whose gradient then
        includes that of the gain.
    dt, reset, reset_amount, reset_timing, v_min, max_spikes
        As for LIF.

    Raises
    ------
    ValueError, TypeError
        If a value is out of its range or not a number.
    """

    alpha: Number = None
    alpha_syn: Number = None
    threshold: Number = 1.0
    _: KW_ONLY
    tau: Number = None
    tau_syn: Number = None
    dt: float = 1.0
    gain: Number = 1.0
    reset: str = "subtract"
    reset_amount: Number = None
    reset_timing: str = "after_decay"
    v_min: Number = None
    max_spikes: int | None = 1

    _model = "CubaLif"
    _state = CubaLIFState
    _gain_may_follow = True
    _decays: ClassVar[Mapping[str, str]] = {"alpha": "tau", "alpha_syn": "tau_syn"}
    _value_fields = ("alpha", "alpha_syn", "threshold", "tau", "tau_syn", "gain", "reset_amount", "v_min")

    def __post_init__(self) -> None:
        self._set_values()
        self._check_decay()
        self._check_reset()
        self._check_values()

    def _maps(self) -> tuple[Map, ...]:
        return self._decay_and_gain() + self._threshold_and_reset()

    def _options(self) -> dict[str, int | str]:
        return self._gain_options() | self._reset_options()
