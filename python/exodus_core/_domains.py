"""Facts about parameters, from the kernels' tables: the domain of the values, the role, the default."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from . import _core
from ._values import Number, require_that


class Domain:
    """The set of values that a parameter may have. `text` describes it in messages."""

    def __init__(self, text: str) -> None:
        self.text = text

    def holds(self, value: Any) -> Any:
        """Tell for each value whether it is in the domain. The caller refuses NaN and infinities."""
        if self is DECAY:
            return (np.asarray(value) >= 0) & (np.asarray(value) <= 1)
        return np.asarray(value) > 0 if self is POSITIVE else True


DECAY, POSITIVE, FREE = Domain("in [0, 1]"), Domain("above 0"), Domain("finite")
BELOW_THRESHOLD = Domain("below the threshold")
_BY_NAME = {"decay": DECAY, "positive": POSITIVE, "below_threshold": BELOW_THRESHOLD, "free": FREE}


# For a decay exp(-dt / tau): below tau = dt / 16, alpha is less than the rounding error of float32.
LEAST_TAU = 1.0 / 16.0


class Facts(NamedTuple):
    """A row of a model's table: `exodus::ParameterFacts`."""

    domain: Domain = FREE
    role: str = "none"
    default: float | None = None
    reads_current: bool = False
    least: float = 0.0  # the gradient of smaller values is 0, to rounding


@cache
def model_facts(model: str) -> dict[str, Facts]:
    """Return the table of a model, by the names of its parameters."""
    return {
        name: Facts(_BY_NAME[domain], role, default, reads_current)
        for name, (domain, role, default, reads_current) in _core.parameters[model].items()
    }


def check_values(values: Mapping[str, Number], facts: Mapping[str, Facts], suffix: str = "") -> None:
    """Raise unless each value is in its domain; called within ``ieee``. Messages end with `suffix`."""
    for name, value in values.items():
        domain = facts[name].domain
        expected = FREE.text if domain is BELOW_THRESHOLD else domain.text
        require_that(name, value, domain.holds(value), expected, suffix)
    thresholds = [name for name in values if facts[name].role == "threshold"]
    bounded = [name for name in values if facts[name].domain is BELOW_THRESHOLD]
    for name, threshold in itertools.product(bounded, thresholds):
        _check_below(name, values[name], threshold, values[threshold], suffix)


def _check_below(name: str, value: Number, threshold: str, bound: Number, suffix: str) -> None:
    try:
        below = np.asarray(value) < np.asarray(bound)
    except ValueError:
        raise ValueError(
            f"{name} and {threshold} must broadcast, got shapes {np.shape(value)} and {np.shape(bound)}"
        ) from None
    require_that(name, value, below, f"{BELOW_THRESHOLD.text} {bound!r}", suffix)
