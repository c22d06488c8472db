"""``growth``: how often the exact gradient grows."""

from __future__ import annotations

import numpy as np

from ._arguments import check_not_torch
from ._backends import NUMPY
from ._custom_surrogate import SurrogateLike, check_surrogate, evaluated
from ._ieee import ieee
from ._tape import Tape, Trace, check_trace, tape_of
from .surrogate import SingleExponential


def growth(trace: Trace, surrogate: SurrogateLike = SingleExponential()) -> float:  # noqa: B008
    """Tell how often the exact gradient grows (docs/mathematics.md, Stability).

    A step multiplies the gradient that it carries by alpha - reset h; where that is beyond [-1, 1],
    EXODUS and BPTT alike grow. The remedy is a surrogate with a lower peak: h <= (1 + alpha) / reset.

    A step of coupled states (StateSpace, AdLIF, ResonateAndFire) multiplies it by a matrix, which stretches
    some direction for most useful parameters though products of steps do not grow. Of these neurons the norm
    of the product over a window is measured, 4 / (1 - decay) steps of the slowest decay, a window from every
    step on; of a shorter trace, over all of it. Recurrent weights are not in it.

    Parameters
    ----------
    trace : Trace
        What ``forward`` returned.
    surrogate : Surrogate or callable, optional
        As for ``backward``.

    Returns
    -------
    float
        The share of all steps at which abs(alpha - reset h) > 1, of coupled states that of all windows whose
        product has a norm above 1; 0 for the default surrogate with resets that subtract the threshold, and
        for neurons without reset.

    Raises
    ------
    TypeError
        For an SRM whose refractory kernel is not `Exponential`: its gradient has no such factor. For arrays
        on a GPU: copy them to the CPU.
    """
    check_not_torch("trace", trace, "growth")
    check_surrogate(surrogate)
    check_trace(trace)
    return growth_on(tape_of(trace, reads_spikes=True), surrogate)


def growth_on(tape: Tape, surrogate: SurrogateLike) -> float:
    """Compute ``growth`` on the tape of any front end, which has checked the surrogate."""
    neuron, layout = tape.neuron, tape.layout
    if layout.backend is not NUMPY:
        raise TypeError(f"trace must be of NumPy's arrays, got arrays of {layout.backend}")
    if not neuron._fires or 0 in layout.shape:
        return 0.0
    h = evaluated(surrogate, tape).astype(np.float64)
    with ieee():
        return float(np.mean(neuron._growing(h, tape)))
