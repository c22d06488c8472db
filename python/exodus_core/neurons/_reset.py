"""Threshold, reset and spike count, for the neurons that have those of LIF."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _core
from .._backends import Array
from .._integers import integer
from .._maps import Map, same
from .._values import Number, choice
from ._protocol import Neuron, Recording

_RESETS = _core.enumerators["Reset"]
_TIMINGS = _core.enumerators["ResetTiming"]


def check_max_spikes(value: Any) -> None:
    """Check the largest number of spikes in a step."""
    if value is None:
        return
    if not 1 <= integer("max_spikes", value, other=" or None") < 2**63:
        raise ValueError(f"max_spikes must be at least 1, or None for any number, got {value}")


class Resetting(Neuron):
    """Base of the neurons with the threshold and the resets of LIF."""

    threshold: Number
    reset: str
    reset_amount: Number
    reset_timing: str
    v_min: Number
    max_spikes: int | None

    def _check_reset(self) -> None:
        choice("reset", self.reset, _RESETS)
        choice("reset_timing", self.reset_timing, _TIMINGS)
        if self.reset_amount is not None and self.reset != "subtract":
            raise ValueError(
                f'reset_amount must be None with reset={self.reset!r}: only "subtract" has an amount, '
                f"got {self.reset_amount!r}"
            )
        check_max_spikes(self.max_spikes)

    def _threshold_and_reset(self) -> tuple[Map, ...]:
        names = "threshold", "reset_amount", "v_min"
        return same(*(name for name in names if getattr(self, name) is not None))

    def _carry_factor(self, h: np.ndarray, recording: Recording) -> Array:
        """Return the exact gradient's factor d[n] / d[n+1] (`exodus/lif.hpp`)."""
        values = {
            name: recording.layout.with_time(np.asarray(value, np.float64))
            for name, value in self._parameters().items()
        }
        alpha = values.get("alpha", np.float64(1.0))
        if self.reset == "none":
            return alpha + 0.0 * h
        if self.reset == "zero":
            silent = recording.spikes == 0
            return alpha * silent - h * alpha * recording.potential
        rho = values.get("reset_amount", values["threshold"])
        if self.reset_timing == "before_decay":
            rho = alpha * rho
        return alpha - rho * h

    def _reset_options(self) -> dict[str, int | str]:
        return {
            "reset": self.reset,
            "reset_timing": self.reset_timing,
            "max_spikes": 0 if self.max_spikes is None else int(self.max_spikes),
        }
