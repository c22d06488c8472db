"""``growth``: at how many steps the exact gradient grows."""

from __future__ import annotations

import numpy as np

from ._arguments import check_not_torch
from ._backends import NUMPY
from ._custom_surrogate import SurrogateLike, check_surrogate, evaluated
from ._ieee import ieee
from ._tape import Tape, Trace, check_trace, tape_of
from .surrogate import SingleExponential


def growth(trace: Trace, surrogate: SurrogateLike = SingleExponential()) -> float:  # noqa: B008
    """Compute the fraction of steps at which the exact gradient grows (docs/mathematics.md, Stability).

    The backward pass of a step multiplies the gradient by alpha - reset h. Where this factor is outside
    [-1, 1], the gradient grows, by EXODUS and by BPTT alike. A surrogate with a lower peak prevents it:
    h <= (1 + alpha) / reset.

    In neurons with coupled states (StateSpace, AdLIF, ResonateAndFire) the factor is a matrix. For most
    useful parameters the matrix of a single step stretches some direction, although products of steps do not
    grow. So for these neurons the norm of the product over a window is measured, and a window starts at every
    step. A window lasts 4 / (1 - decay) steps of the slowest decay, or the whole trace if that is shorter.

    Recurrent weights are not taken into account.

    Parameters
    ----------
    trace : Trace
        The result of ``forward``.
    surrogate : Surrogate or callable, optional
        As for ``backward``.

    Returns
    -------
    float
        The fraction of steps at which abs(alpha - reset h) > 1; for coupled states, the fraction of windows
        whose product has a norm above 1. It is 0 for the default surrogate if a reset subtracts the
        threshold, and for neurons without reset.

    Raises
    ------
    TypeError
        If the neuron is an SRM whose refractory kernel is not `Exponential`, since its gradient has no such
        factor, or if the arrays are on a GPU: copy them to the CPU.
    ValueError
        If the trace has no potential, since its call had ``memory="lean"``.
    """
    check_not_torch("trace", trace, "growth")
    check_surrogate(surrogate)
    check_trace(trace)
    if trace.memory == "lean":
        raise ValueError("trace must have its potential, from a call with memory='full', got 'lean'")
    return growth_on(tape_of(trace, reads_spikes=True), surrogate)


def growth_on(tape: Tape, surrogate: SurrogateLike) -> float:
    """Compute ``growth`` for the numpy or the torch front end, which has checked the surrogate."""
    tape = tape.computable()
    neuron, layout = tape.neuron, tape.layout
    if layout.backend is not NUMPY:
        raise TypeError(f"trace must hold numpy arrays, got arrays of {layout.backend}")
    if not neuron._fires or 0 in layout.shape:
        return 0.0
    h = evaluated(surrogate, tape).astype(np.float64)
    with ieee():
        return float(np.mean(neuron._growing(h, tape)))
