"""SLAYER's pattern task: a network learns a raster of output spikes that draws a picture.

The task is the example 01_Oxford of slayerPytorch (Shrestha and Orchard 2018): 200 input spike trains of
1900 ms drive a hidden layer and 200 output neurons, whose target raster is a picture. The loss is the van
Rossum distance.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn
from tqdm import tqdm

import exodus_core.torch as snn
from exodus_core.demo import style
from exodus_core.surrogate import SingleExponential

from .files import load as load_file
from .files import save
from .jobs import run_jobs
from .settings import Outcome, Settings, Table

SOURCE = "https://github.com/bamsumit/slayerPytorch/tree/master/example/01_Oxford"
NEURONS, HIDDEN, STEPS = 200, 256, 1900  # steps of 1 ms
POLARITY = 1 << 23  # the highest bit of an event's time is its polarity, which is always set
TAU, TAU_LOSS = 5.0, 10.0  # ms
LEARNING_RATE = 2e-3
METHODS = ("exodus", "slayer")
SNAPSHOTS = 3  # rasters between the first and the last epoch
SAVED = 50  # epochs between checkpoints


def read_spikes(path: Path) -> Tensor:
    """Read a spike train.

    Parameters
    ----------
    path : Path
        A .bs1 file: events of 40 bits, the neuron in 16 bits, the polarity, and the time in 23 bits, in
        microseconds.

    Returns
    -------
    Tensor
        0 or 1 for each step and neuron, of shape (time, neuron).

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, or no such spike train; the message names the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} must be a spike train, got no such file. Get it from {SOURCE}")
    content = np.fromfile(path, np.uint8)
    if len(content) == 0 or len(content) % 5:
        raise ValueError(
            f"{path} must have events of 5 bytes, got {len(content)} bytes. Get it from {SOURCE}"
        )
    high, low, *time = content.reshape(-1, 5).T.astype(np.int64)
    neuron, microseconds = (high << 8) | low, ((time[0] << 16) | (time[1] << 8) | time[2]) % POLARITY
    step = microseconds // 1000
    if neuron.max() >= NEURONS or step.max() >= STEPS:
        raise ValueError(
            f"{path} must have neurons below {NEURONS} and times below {STEPS} ms, got neuron {neuron.max()} "
            f"and {step.max()} ms"
        )
    spikes = torch.zeros(STEPS, NEURONS)
    spikes[torch.from_numpy(step), torch.from_numpy(neuron)] = 1.0
    return spikes


def stand_in() -> tuple[Tensor, Tensor]:
    """Make an input and a picture of the same shape, for runs without data.

    Returns
    -------
    tuple of Tensor
        Random input spikes, one per step, and as the target two rings, of shape (time, neuron).
    """
    generator = torch.Generator().manual_seed(0)
    inputs = torch.zeros(STEPS, NEURONS)
    inputs[torch.arange(STEPS), torch.randint(NEURONS, (STEPS,), generator=generator)] = 1.0
    step, neuron = torch.meshgrid(torch.arange(STEPS), torch.arange(NEURONS), indexing="ij")
    target = torch.zeros(STEPS, NEURONS)
    for centre in (600, 1300):
        distance = torch.hypot((step - centre) / 500.0, (neuron - 100) / 80.0)
        ring = (distance > 0.9) & (distance < 1.0)
        target[ring & ((step + neuron) % 4 == 0)] = 1.0
    return inputs, target


def load(data: Path | None) -> tuple[Tensor, Tensor]:
    """Load input and target.

    Parameters
    ----------
    data : Path or None
        A folder with oxford/input.bs1 and oxford/output.bs1; None for the stand-in.

    Returns
    -------
    tuple of Tensor
        Input and target, of shape (time, neuron).
    """
    if data is None:
        return stand_in()
    return read_spikes(data / "oxford" / "input.bs1"), read_spikes(data / "oxford" / "output.bs1")


def network(method: str, inputs: Tensor, rate: float) -> nn.Module:
    """Build the network, 200-256-200 with LIF neurons.

    Parameters
    ----------
    method : str
        "exodus" or "slayer".
    inputs : Tensor
        The input, with which the weights are scaled.
    rate : float
        The rate of the target, at which all layers fire at first.

    Returns
    -------
    Module
        The network.
    """
    torch.manual_seed(0)

    def spiking() -> nn.Module:
        return snn.LIF(tau=TAU, surrogate=SingleExponential(width=0.5, scale=0.5), method=method)

    layers = nn.Linear(NEURONS, HIDDEN), spiking(), nn.Linear(HIDDEN, NEURONS), spiking()
    net = snn.Sequential(*layers, time_dim=0)
    snn.init_(net, inputs, target_rate=rate)
    return net


def train(method: str, epochs: int, data: Path | None, folder: Path) -> dict[str, Any]:
    """Train by one method; a job of ``run_jobs``.

    Parameters
    ----------
    method : str
        "exodus" or "slayer".
    epochs : int
        The number of epochs.
    data : Path or None
        The folder with recordings.
    folder : Path
        The folder for the checkpoint.

    Returns
    -------
    dict
        "loss" of each epoch, and "rasters": by epoch, the step and neuron of each output spike.
    """
    inputs, target = (spikes.unsqueeze(1) for spikes in load(data))
    net = network(method, inputs, float(target.mean()))
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    losses: list[float] = []
    rasters: dict[str, list[list[int]]] = {}
    path = folder / f"{method}-{epochs}.pt"
    if path.exists():
        content = load_file(path)
        net.load_state_dict(content["network"])
        optimizer.load_state_dict(content["optimizer"])
        losses, rasters = content["losses"], content["rasters"]
    shown = _shown(epochs)
    begun = range(len(losses), epochs)
    for epoch in tqdm(begun, method, epochs, initial=len(losses), unit="epoch", disable=None, leave=False):
        output = net(inputs)
        loss = snn.van_rossum_distance(output, target, TAU_LOSS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if epoch in shown:
            rasters[str(epoch)] = output.detach()[:, 0].nonzero().tolist()
        if len(losses) % SAVED == 0:
            states = {"network": net.state_dict(), "optimizer": optimizer.state_dict()}
            content = {**states, "losses": losses, "rasters": rasters}
            save(path, content)
    return {"loss": losses, "rasters": rasters}


def _shown(epochs: int) -> list[int]:
    """Return the epochs whose rasters are drawn, in equal ratios."""
    return sorted({round(epoch) - 1 for epoch in np.geomspace(1, epochs, SNAPSHOTS + 2)[1:]})


def _epochs(settings: Settings) -> int:
    return int(settings.epochs or settings.choose(200, 10000))


def run(settings: Settings) -> Outcome:
    """Train by both methods, and draw the pictures."""
    folder, epochs = settings.folder("oxford"), _epochs(settings)
    jobs = {method: (method, epochs, settings.data, folder) for method in METHODS}
    results = run_jobs(train, jobs, folder, settings.workers, "oxford")
    ends = {method: results[method]["loss"][-1] for method in METHODS}
    first = results["exodus"]["loss"][0]
    text = [
        f"{'The recordings of slayerPytorch' if settings.data else 'A synthetic picture'}: 200-256-200 LIF "
        f"neurons, tau {TAU:g} ms, {epochs} epochs of Adam with learning rate {LEARNING_RATE}. Both methods "
        "begin with the same weights.",
        f"The van Rossum distance (tau {TAU_LOSS:g} ms) falls from {first:.1f} to {ends['exodus']:.1f} with "
        f"EXODUS, and to {ends['slayer']:.1f} with SLAYER.",
    ]
    rows = [
        [style.LABELS[m], f"{first:.1f}", f"{min(results[m]['loss']):.1f}", f"{ends[m]:.1f}"] for m in METHODS
    ]
    table = Table("van Rossum distance", ("method", "first", "least", "last"), rows)
    figure = plot(load(settings.data)[1], results, folder)
    numbers = {method: {"loss": results[method]["loss"]} for method in METHODS}
    return Outcome("SLAYER's pattern task", text, [table], [figure], numbers)


def seconds(settings: Settings) -> float:
    """Estimate how long `run` takes."""
    return float(_epochs(settings) * len(METHODS) * 0.05 / settings.workers)


def plot(target: Tensor, results: Mapping[str, Any], folder: Path) -> Path:
    """Draw the target, the output rasters over the epochs, and the losses; return the picture's path."""
    epochs = list(results["exodus"]["rasters"])
    with style.paper():
        fig = style.figure(1.3 * (len(epochs) + 1))
        panels = fig.subplots(len(epochs) + 1, 2)
        _draw_raster(panels[0, 0], target.nonzero().tolist(), style.INK)
        style.letter(panels[0, 0], "A", "target")
        for method in METHODS:
            loss = results[method]["loss"]
            panels[0, 1].plot(range(1, len(loss) + 1), loss, color=style.COLOURS[method], lw=0.9)
        panels[0, 1].set(xscale="log", xlabel="Epoch", ylabel="Distance")
        style.letter(panels[0, 1], "B")
        for column, method in enumerate(METHODS):
            for row, epoch in enumerate(epochs, 1):
                axes = panels[row, column]
                _draw_raster(axes, results[method]["rasters"][epoch], style.COLOURS[method])
                axes.set_title(f"{style.LABELS[method]}, epoch {int(epoch) + 1}")
        return style.save(fig, folder / "oxford.png")


def _draw_raster(axes: Axes, spikes: list[list[int]], colour: str) -> None:
    places = np.array(spikes).reshape(-1, 2)
    axes.plot(places[:, 0], places[:, 1], ".", color=colour, ms=1, mew=0)
    axes.set(xlim=(0, STEPS), ylim=(0, NEURONS), xlabel="Time [ms]", ylabel="Neuron")
