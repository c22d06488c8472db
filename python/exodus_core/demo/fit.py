"""The fit: a small network learns to fire at four given times.

The experiment is that of section 6 and figure S3 of the paper's appendix. 250 Poisson spike trains of 200 ms
drive 25 LIF neurons, and these drive one output neuron, which learns to fire at the times of a random target.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn
from tqdm import tqdm

import exodus_core.torch as snn

from . import style

SIZES = (250, 25, 1)
STEPS = 200  # time steps of 1 ms
TARGET_SPIKES = 4
RATE = 0.02  # input spikes per step: 20 Hz
TAU = 20.0  # ms
LEARNING_RATE = 1e-3
METHODS = ("exodus", "slayer")


@dataclass
class Fit:
    """The results of training.

    Attributes
    ----------
    loss : dict of str to ndarray
        For each method, the squared error summed over time, epochs by runs.
    raster : dict of str to ndarray
        For each method, the output spikes of the first run, boolean, epochs by time.
    target : ndarray
        The spike times of the first run's target, in ms.
    """

    loss: dict[str, np.ndarray]
    raster: dict[str, np.ndarray]
    target: np.ndarray

    def epochs_to_fit(self, method: str) -> list[int | None]:
        """Find the first epoch whose output equals the target.

        Parameters
        ----------
        method : str
            "exodus" or "slayer".

        Returns
        -------
        list of (int or None)
            The epoch of each run, counted from 1, or None if there is none.
        """
        perfect = self.loss[method] == 0
        return [int(run.argmax()) + 1 if run.any() else None for run in perfect.T]


class Runs(nn.Module):
    """Independent networks that train side by side.

    Weights have a leading dimension of runs. Adam updates every weight independently, so each network trains
    as it would without the others.
    """

    def __init__(self, weights: list[Tensor], layer: snn.Layer, scale: float) -> None:
        super().__init__()
        self.weights = nn.ParameterList(weight.clone() for weight in weights)
        self.layer, self.scale = layer, scale

    def forward(self, spikes: Tensor) -> Tensor:
        """Run the networks on spikes of shape (runs, time, inputs)."""
        for weight in self.weights:
            spikes = self.layer(spikes @ (self.scale * weight))
        return spikes


def lif(method: str) -> snn.Layer:
    """Make a layer of the neurons of figure S3.

    Parameters
    ----------
    method : str
        The algorithm of the backward pass.

    Returns
    -------
    Layer
        A layer with time on the second dimension.
    """
    return snn.LIF(tau=TAU, method=method, time_dim=1)


def _problem(seed: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Draw the input, the target and the initial weights of one run."""
    generator = torch.Generator().manual_seed(seed)
    spikes = (torch.rand(STEPS, SIZES[0], generator=generator) < RATE).float()
    target = torch.zeros(STEPS, SIZES[-1])
    target[torch.randperm(STEPS, generator=generator)[:TARGET_SPIKES]] = 1.0
    weights = [
        torch.randn(inputs, outputs, generator=generator) / inputs**0.5 for inputs, outputs in pairwise(SIZES)
    ]
    return spikes, target, weights


def fit(
    seed: int = 0,
    epochs: int = 3000,
    runs: int = 5,
    layer: Callable[[str], snn.Layer] = lif,
    scale: float = 1.0,
    learning_rate: float = LEARNING_RATE,
) -> Fit:
    """Train with EXODUS and with SLAYER, from the same weights.

    Parameters
    ----------
    seed : int, optional
        Seed of the first run. Each further run has the next integer.
    epochs, runs : int, optional
        Number of epochs, and number of runs. Each run has its own input, target and initial weights.
    layer : callable, optional
        A function that makes the layer for a method.
    scale : float, optional
        Factor on all weights, for neurons whose threshold is not 1.
    learning_rate : float, optional
        Adam's.

    Returns
    -------
    Fit
        Losses and output spikes.
    """
    problems = [_problem(seed + run) for run in range(runs)]
    spikes = torch.stack([problem[0] for problem in problems])
    target = torch.stack([problem[1] for problem in problems])
    weights = [torch.stack(layer) for layer in zip(*(problem[2] for problem in problems), strict=True)]
    loss, raster = {}, {}
    for method in METHODS:
        network = Runs(weights, layer(method), scale)
        loss[method], raster[method] = _train(network, spikes, target, epochs, method, learning_rate)
    return Fit(loss, raster, target[0, :, 0].nonzero().flatten().numpy())


def _train(
    network: Runs, spikes: Tensor, target: Tensor, epochs: int, method: str, learning_rate: float
) -> tuple[np.ndarray, np.ndarray]:
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    losses, rasters = [], []
    for _ in tqdm(range(epochs), desc=f"fit, {style.LABELS[method]}", unit="epoch"):
        output = network(spikes)
        loss = (output - target).square().sum(dim=(1, 2))
        optimizer.zero_grad()
        loss.sum().backward()  # The runs share no weights, so each run gets the gradient of its own loss.
        optimizer.step()
        losses.append(loss.detach().numpy())
        rasters.append(output[0, :, 0].detach().numpy() > 0)
    return np.array(losses), np.array(rasters)


def table(result: Fit) -> list[tuple[str, dict[str, str]]]:
    """Return the rows of the summary.

    Parameters
    ----------
    result : Fit
        The result of ``fit``.

    Returns
    -------
    list of (str, dict of str to str)
        A quantity, and its value for each method.
    """
    epochs = {m: result.epochs_to_fit(m) for m in METHODS}
    last = max(1, len(result.loss["exodus"]) // 30)
    late = {m: result.loss[m][-last:] for m in METHODS}
    return [
        ("first epoch on target, each run", {m: " ".join(str(e or "-") for e in epochs[m]) for m in METHODS}),
        (
            f"runs on target in all of the last {last}",
            {m: f"{(late[m] == 0).all(axis=0).sum()} of {late[m].shape[1]}" for m in METHODS},
        ),
        (f"squared error, mean of the last {last}", {m: f"{late[m].mean():.2f}" for m in METHODS}),
    ]


def plot(result: Fit, folder: Path, file: str = "fit.png") -> Path:
    """Draw the output spikes of the first run over the epochs, and the losses of all runs.

    Parameters
    ----------
    result : Fit
        The result of ``fit``.
    folder : Path
        The folder for the picture.
    file : str, optional
        The file name of the picture.

    Returns
    -------
    Path
        The path of the picture.
    """
    with style.paper():
        fig = style.figure(4.6)
        grid = fig.add_gridspec(2, 2, height_ratios=(1.25, 1))
        left = fig.add_subplot(grid[0, 0])
        right = fig.add_subplot(grid[0, 1], sharey=left)
        below = fig.add_subplot(grid[1, :])
        for axes, method, name in ((left, "exodus", "A"), (right, "slayer", "B")):
            _draw_raster(axes, result.raster[method], result.target, style.COLOURS[method])
            style.letter(axes, name, style.LABELS[method])
        left.set_ylabel("Time [ms]")
        left.legend(loc="lower left", handletextpad=0)
        _draw_losses(below, result)
        style.letter(
            below,
            "C",
            f"{result.loss['exodus'].shape[1]} runs (thin) and their mean, in logarithmic bins of epochs",
        )
        return style.save(fig, folder / file)


def _draw_raster(axes: Axes, raster: np.ndarray, target: np.ndarray, colour: str) -> None:
    epoch, time = raster.nonzero()
    axes.plot(epoch + 1, time, ".", color=colour, ms=1.5, mew=0)
    mark: dict[str, Any] = {"color": style.INK, "ms": 5, "mew": 0, "clip_on": False, "label": "target"}
    axes.plot(np.full(len(target), 1.02), target, "<", transform=axes.get_yaxis_transform(), **mark)
    axes.set(xscale="log", xlim=(1, len(raster)), ylim=(0, STEPS), xlabel="Epoch")


def _draw_losses(axes: Axes, result: Fit) -> None:
    for method in METHODS:
        loss, colour = result.loss[method], style.COLOURS[method]
        epoch, smooth = _smooth(loss)
        axes.plot(epoch, smooth, color=colour, lw=0.5, alpha=0.4)
        axes.plot(epoch, smooth.mean(axis=1), color=colour, label=style.LABELS[method])
    axes.set(
        xscale="log", xlim=(1, len(loss)), xlabel="Epoch", ylabel="Squared error\n(missed + extra spikes)"
    )
    axes.legend(loc="lower left")


def _smooth(loss: np.ndarray, bins: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Average over bins of epochs that have equal widths on a logarithmic axis."""
    edges = np.unique(np.geomspace(1, len(loss) + 1, bins + 1).astype(int))
    means = [loss[start - 1 : stop - 1].mean(axis=0) for start, stop in pairwise(edges)]
    return np.sqrt(edges[:-1] * (edges[1:] - 1)), np.array(means)
