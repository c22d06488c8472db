"""The range of a parameter, which its name tells: of a decay, of a time constant, of a threshold."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

# The decays, and their time constants.
DECAYS = {"alpha": "tau", "alpha_syn": "tau_syn", "alpha_adapt": "tau_adapt", "decay": "tau"}

_DECAYS = frozenset({*DECAYS, "beta"})  # that of kernel.DoubleExponential has no time constant
_POSITIVE = frozenset({*DECAYS.values(), "threshold"})


class Domain:
    """The values that a parameter may have; `text` is for messages."""

    def __init__(self, text: str) -> None:
        self.text = text

    def holds(self, value: Any) -> Any:
        """Tell of each value whether it is inside; NaN and infinities are for the caller to refuse."""
        if self is DECAY:
            return (np.asarray(value) >= 0) & (np.asarray(value) <= 1)
        return np.asarray(value) > 0 if self is POSITIVE else True


DECAY, POSITIVE, FREE = Domain("in [0, 1]"), Domain("above 0"), Domain("finite")


@lru_cache(maxsize=1024)
def domain_of(name: str) -> Domain:
    """Return the domain of a parameter, whose name may begin with its owner's ("epsilon.tau")."""
    own = name.rpartition(".")[2]
    if own in _DECAYS:
        return DECAY
    return POSITIVE if own in _POSITIVE else FREE
