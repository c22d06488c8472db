"""The range of a parameter, which its name tells: of a decay, of a time constant, of a threshold."""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np

# The decays, and their time constants.
DECAYS = {"alpha": "tau", "alpha_syn": "tau_syn", "alpha_adapt": "tau_adapt", "decay": "tau"}

_DECAYS = frozenset({*DECAYS, "beta"})  # that of kernel.DoubleExponential has no time constant
_POSITIVE = frozenset({*DECAYS.values(), "threshold"})


class Domain(Enum):
    """The values that a parameter may have, as messages say it."""

    DECAY = "in [0, 1]"
    POSITIVE = "above 0"
    FREE = "finite"

    def holds(self, value: Any) -> Any:
        """Tell of each value whether it is inside; NaN and infinities are for the caller to refuse."""
        if self is Domain.DECAY:
            return (np.asarray(value) >= 0) & (np.asarray(value) <= 1)
        return np.asarray(value) > 0 if self is Domain.POSITIVE else True


def domain_of(name: str) -> Domain:
    """Return the domain of a parameter, whose name may begin with its owner's ("epsilon.tau")."""
    own = name.rpartition(".")[2]
    if own in _DECAYS:
        return Domain.DECAY
    return Domain.POSITIVE if own in _POSITIVE else Domain.FREE
