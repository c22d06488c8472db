"""The fit once more, with SLAYER's own neurons: the spike response model with alpha kernels.

The same inputs, targets and training as in the fit of LIF neurons; spikes are felt smoothly, rising for
five steps, and so are resets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import exodus_core.torch as snn
from exodus_core import SRM

from . import fit
from .fit import Fit, table

__all__ = ["plot", "srm", "table"]

# As SLAYER describes a neuron; times in ms, a step of 1 ms. The surrogate's peak is 1 / theta.
NEURON: dict[str, Any] = {
    "tauSr": 5.0,
    "tauRef": 5.0,
    "scaleRef": 1.0,
    "theta": 10.0,
    "tauRho": 0.5,
    "scaleRho": 0.5,
}


def layer(method: str) -> snn.Layer:
    """SLAYER's neurons.

    Parameters
    ----------
    method : str
        Of the backward pass.

    Returns
    -------
    Layer
        Over the data's second dimension.
    """
    neuron, surrogate = SRM.from_slayer(**NEURON)
    return snn.from_neuron(neuron, surrogate=surrogate, method=method, time_dim=1)


def srm(seed: int = 0, epochs: int = 3000, runs: int = 5) -> Fit:
    """Train with EXODUS and with SLAYER, from the same weights.

    Parameters
    ----------
    seed, epochs, runs : int, optional
        As for the fit of LIF neurons.

    Returns
    -------
    Fit
        Losses and output spikes.
    """
    return fit.fit(seed, epochs, runs, layer, scale=NEURON["theta"])


def plot(result: Fit, folder: Path) -> Path:
    """Draw the output spikes of the first run over the epochs, and the losses of all.

    Parameters
    ----------
    result : Fit
        What ``srm`` returned.
    folder : Path
        Where ``srm.png`` goes.

    Returns
    -------
    Path
        Of the picture.
    """
    return fit.plot(result, folder, "srm.png")
