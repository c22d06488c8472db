"""LIF and IF. Their equations are in `exodus/lif.hpp`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

from .._backends import Array
from .._maps import Map, same
from .._values import Number
from ._decays import Leaky
from ._protocol import State
from ._reset import Resetting


class _Spiking(NamedTuple):
    potential: Array
    spikes: Array


class LIFState(State, _Spiking):
    """State of LIF and IF after a step, one value per neuron: the potential before the reset, and spikes."""

    __module__ = "exodus_core.neurons"
    __slots__ = ()


@dataclass(frozen=True, eq=False, repr=False)
class LIF(Leaky, Resetting):
    """The leaky integrate-and-fire neuron (docs/mathematics.md, LIF).

    u[n] = alpha u[n-1] + gain a[n] - reset of s[n-1];  s[n] = 1 where u[n] >= threshold.

    Parameters
    ----------
    alpha : float or array_like, optional
        Decay of the membrane per step, in [0, 1]. Exactly one of `alpha` and `tau` must be given.
    threshold : float or array_like, optional
        Above 0.
    tau : float or array_like, optional
        Time constant in the unit of `dt`: alpha = exp(-dt / tau).
    dt : float, optional
        Length of a step.
    gain : float, array_like or "1-alpha", optional
        Factor on the input current. "1-alpha" is sinabs' norm_input and SpikingJelly's decay_input; the
        gradient of alpha then includes that of the gain.
    reset : {"subtract", "zero", "none"}, optional
        Effect of a spike on the potential.
    reset_amount : float or array_like, optional
        Amount that "subtract" subtracts per spike. None is the threshold, whose gradient then includes that
        of the reset.
    reset_timing : {"after_decay", "before_decay"}, optional
        When "subtract" subtracts: after the decay as in the paper, or before it as in sinabs.
    v_min : float or array_like, optional
        Lower bound of the potential, below the threshold. A step with u == v_min counts as clipped.
    max_spikes : int or None, optional
        Largest number of spikes in a step; None sets no bound. Unless it is 1,
        s = min(floor(u / threshold), max_spikes).

    Raises
    ------
    ValueError, TypeError
        If a value is out of its range or not a number.
    """

    alpha: Number = None
    threshold: Number = 1.0
    _: KW_ONLY
    tau: Number = None
    dt: float = 1.0
    gain: Number = 1.0
    reset: str = "subtract"
    reset_amount: Number = None
    reset_timing: str = "after_decay"
    v_min: Number = None
    max_spikes: int | None = 1

    _model = "Lif"
    _state = LIFState
    _gain_may_follow = True
    _value_fields = ("alpha", "threshold", "tau", "gain", "reset_amount", "v_min")

    def __post_init__(self) -> None:
        self._set_values()
        self._check_decay()
        self._check_reset()
        self._check_values()

    def _maps(self) -> tuple[Map, ...]:
        return self._decay_and_gain() + self._threshold_and_reset()

    def _options(self) -> dict[str, int | str]:
        return self._gain_options() | self._reset_options()


@dataclass(frozen=True, eq=False, repr=False)
class IF(Resetting):
    """The integrate-and-fire neuron: LIF with alpha = 1.

    Parameters
    ----------
    threshold, gain, reset, reset_amount, reset_timing, v_min, max_spikes
        As for LIF; `gain` is a number or an array.
    """

    threshold: Number = 1.0
    _: KW_ONLY
    gain: Number = 1.0
    reset: str = "subtract"
    reset_amount: Number = None
    reset_timing: str = "after_decay"
    v_min: Number = None
    max_spikes: int | None = 1

    _model = "Lif"
    _state = LIFState
    _value_fields = ("threshold", "gain", "reset_amount", "v_min")

    def __post_init__(self) -> None:
        self._set_values()
        self._check_reset()
        self._check_values()

    def _maps(self) -> tuple[Map, ...]:
        return same("gain") + self._threshold_and_reset()

    def _options(self) -> dict[str, int | str]:
        return self._reset_options()
