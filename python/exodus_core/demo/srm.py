"""The fit again, with SLAYER's own neurons: the spike response model with alpha kernels.

Inputs, targets and training are those of the fit with LIF neurons. The effects of an input spike and of a
reset are smooth, and reach their peak after five steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import exodus_core.torch as snn
from exodus_core import SRM

from . import fit
from .fit import Fit, table

__all__ = ["plot", "srm", "table"]

# SLAYER's description of the neuron. Times are in ms, and a step lasts 1 ms. The surrogate peaks at 1/theta.
NEURON: dict[str, Any] = {
    "tauSr": 5.0,
    "tauRef": 5.0,
    "scaleRef": 1.0,
    "theta": 10.0,
    "tauRho": 0.5,
    "scaleRho": 0.5,
}


def layer(method: str) -> snn.Layer:
    """Make a layer of SLAYER's neurons.

    Parameters
    ----------
    method : str
        The algorithm of the backward pass.

    Returns
    -------
    Layer
        A layer with time on the second dimension.
    """
    neuron, surrogate = SRM.from_slayer(**NEURON)
    return snn.from_neuron(neuron, surrogate=surrogate, method=method, time_dim=1)


def srm(seed: int = 0, epochs: int = 3000, runs: int = 5) -> Fit:
    """Train with EXODUS and with SLAYER, from the same weights.

    Parameters
    ----------
    seed, epochs, runs : int, optional
        As for ``fit``.

    Returns
    -------
    Fit
        Losses and output spikes.
    """
    return fit.fit(seed, epochs, runs, layer, scale=NEURON["theta"])


def plot(result: Fit, folder: Path) -> Path:
    """Draw the output spikes of the first run over the epochs, and the losses of all runs.

    Parameters
    ----------
    result : Fit
        The result of ``srm``.
    folder : Path
        The folder for ``srm.png``.

    Returns
    -------
    Path
        The path of the picture.
    """
    return fit.plot(result, folder, "srm.png")
