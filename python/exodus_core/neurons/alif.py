"""ALIF, the LIF with an adaptive threshold. Its equations are in `exodus/alif.hpp`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from .._backends import Array
from .._maps import Map, same
from .._values import Number
from ._decays import Leaky
from ._protocol import Recording, State


class _Adapting(NamedTuple):
    potential: Array
    spikes: Array
    adaptation: Array


class ALIFState(State, _Adapting):
    """State of ALIF after a step, one value per neuron. It fired if potential - `adaptation` >= threshold."""

    __module__ = "exodus_core.neurons"
    __slots__ = ()


@dataclass(frozen=True, eq=False, repr=False)
class ALIF(Leaky):
    """The LIF with an adaptive threshold: every spike raises it by an amount that decays.

    b[n] = alpha_adapt b[n-1] + adapt_scale s[n-1];  u[n] = alpha u[n-1] + gain a[n] - threshold s[n-1];
    s[n] = 1 where u[n] - b[n] >= threshold. The surrogate is evaluated at u - b, with the base threshold.

    Parameters
    ----------
    alpha, alpha_adapt : float or array_like, optional
        Decays of the membrane and of the adaptation per step, in [0, 1].
    adapt_scale : float or array_like, optional
        Amount that a spike adds to the threshold.
    threshold : float or array_like, optional
        The base threshold, above 0, which a spike also subtracts from the potential.
    tau, tau_adapt : float or array_like, optional
        Time constants in the unit of `dt`, each in place of its decay.
    gain : float or array_like, optional
        Factor on the input current.
    dt, v_min
        As for LIF.

    Raises
    ------
    ValueError, TypeError
        If a value is out of its range or not a number.
    """

    alpha: Number = None
    alpha_adapt: Number = None
    adapt_scale: Number = None
    threshold: Number = 1.0
    _: KW_ONLY
    tau: Number = None
    tau_adapt: Number = None
    dt: float = 1.0
    gain: Number = 1.0
    v_min: Number = None

    _model = "Alif"
    _state = ALIFState
    _decays: ClassVar[Mapping[str, str]] = {"alpha": "tau", "alpha_adapt": "tau_adapt"}
    _value_fields = ("alpha", "alpha_adapt", "adapt_scale", "threshold", "tau", "tau_adapt", "gain", "v_min")

    def __post_init__(self) -> None:
        if self.adapt_scale is None:
            raise TypeError("adapt_scale must be a number or an array of numbers, got None")
        self._set_values()
        self._check_decay()
        self._check_values()

    def _maps(self) -> tuple[Map, ...]:
        clamp = () if self.v_min is None else same("v_min")
        return self._decay_and_gain() + same("adapt_scale", "threshold") + clamp

    def _options(self) -> dict[str, int | str]:
        return {}

    def _surrogate_argument(self, recording: Recording) -> Array:
        """Return u - b, with b recomputed from the potential by the kernels' order of operations."""
        axis, potential = recording.layout.time_axis, recording.potential
        backend, xp = recording.layout.backend, recording.layout.backend.xp
        steps = potential[None, ...] if axis is None else xp.moveaxis(potential, axis, 0)
        decay, scale, threshold = (
            backend.convert(self._parameters()[name], recording.arithmetic)
            for name in ("alpha_adapt", "adapt_scale", "threshold")
        )
        zero, one = xp.zeros_like(steps[0, ...]), xp.ones_like(steps[0, ...])
        state = recording.initial
        b, s = (zero, zero) if state is None else (state.adaptation, state.spikes)
        arguments = []
        for n in range(steps.shape[0]):
            b = (decay * b) + (scale * s)
            arguments.append(steps[n, ...] - b)
            s = xp.where(arguments[-1] >= threshold, one, zero)
        return arguments[0] if axis is None else xp.stack(arguments, axis=axis)

    def _carry_factor(self, h: np.ndarray, recording: Recording) -> Array:
        values = self._parameters()
        alpha, threshold = (
            recording.layout.with_time(np.asarray(values[name], np.float64))
            for name in ("alpha", "threshold")
        )
        return alpha - threshold * h
