"""Figure S3: a network learns to fire at four given times, for several time constants and learning rates.

250 Poisson spike trains of 200 ms drive 25 LIF neurons, and these drive one output neuron. The example with
its raster is that of ``exodus_core.demo.fit``; here it runs for each time constant and learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

import exodus_core.torch as snn
from exodus_core.demo import fit, style

from .jobs import run_jobs
from .settings import Outcome, Settings, Table

TAUS = (5.0, 10.0, 20.0, 50.0, 100.0)  # ms
LEARNING_RATES = (1e-4, 1e-3, 1e-2)
EXAMPLE = (fit.TAU, fit.LEARNING_RATE)
RUNS = 5
METHODS = fit.METHODS


def train(tau: float, learning_rate: float, epochs: int) -> dict[str, Any]:
    """Train the networks of all runs by each method; a job of ``run_jobs``.

    Parameters
    ----------
    tau : float
        The time constant of the neurons, in ms.
    learning_rate : float
        Adam's.
    epochs : int
        The number of epochs.

    Returns
    -------
    dict
        By method: "loss", epochs by runs, the squared error; "raster", for the first run, the epoch and the
        time of each output spike; "target", the times of its target.
    """
    found = fit.fit(
        epochs=epochs,
        runs=RUNS,
        layer=lambda method: snn.LIF(tau=tau, method=method, time_dim=1),
        learning_rate=learning_rate,
    )
    rasters = {method: np.argwhere(raster).tolist() for method, raster in found.raster.items()}
    losses = {method: loss.tolist() for method, loss in found.loss.items()}
    return {"loss": losses, "raster": rasters, "target": found.target.tolist()}


def jobs(settings: Settings) -> dict[str, tuple[Any, ...]]:
    """Return the settings of the sweep, by the name of the job."""
    epochs = settings.choose(300, 3000)
    taus, rates = (TAUS[1:4], LEARNING_RATES[1:]) if settings.quick else (TAUS, LEARNING_RATES)
    return {f"tau-{tau}-rate-{rate}": (tau, rate, epochs) for tau in taus for rate in rates}


def run(settings: Settings) -> Outcome:
    """Train in all settings, and draw figure S3."""
    folder, chosen = settings.folder("figure_s3"), jobs(settings)
    results = run_jobs(train, chosen, folder, settings.workers, "figure S3")
    grid = {arguments[:2]: results[name] for name, arguments in chosen.items()}
    sums = {key: {method: _summed(result, method) for method in METHODS} for key, result in grid.items()}
    lower = sum(one["exodus"] < one["slayer"] for one in sums.values())
    ends = {method: _first_on_target(grid[EXAMPLE], method) for method in METHODS}
    epochs = next(iter(chosen.values()))[2]
    text = [
        f"{RUNS} runs with their own input, target and weights for each of {len(grid)} settings, "
        f"{epochs} epochs. The loss is the squared error, which is the number of missed and extra spikes.",
        "The paper's panel: the loss, averaged over the runs and summed over the epochs, is lower with "
        f"EXODUS in {lower} of {len(grid)} settings.",
        f"In the example (tau {EXAMPLE[0]:g} ms, learning rate {EXAMPLE[1]:g}) the first run is on target at "
        f"epoch {ends['exodus']} with EXODUS, and {ends['slayer']} with SLAYER.",
    ]
    numbers = {f"tau {tau:g} rate {rate:g}": one for (tau, rate), one in sums.items()}
    figures = [plot(grid, sums, folder)]
    return Outcome("Figure S3: fitting a spike train", text, [_table(sums)], figures, numbers)


def _summed(result: Mapping[str, Any], method: str) -> float:
    return float(np.mean(result["loss"][method], axis=1).sum())


def _first_on_target(result: Mapping[str, Any], method: str) -> str:
    hits = np.flatnonzero(np.array(result["loss"][method])[:, 0] == 0)
    return str(hits[0] + 1) if len(hits) else f"none of {len(result['loss'][method])}"


def _table(sums: Mapping[tuple[float, float], Mapping[str, float]]) -> Table:
    rows = []
    for (tau, rate), one in sums.items():
        ratio = one["slayer"] / one["exodus"]
        rows.append([f"{tau:g}", f"{rate:g}", f"{one['exodus']:.0f}", f"{one['slayer']:.0f}", f"{ratio:.2f}"])
    columns = ("tau, ms", "learning rate", "EXODUS", "SLAYER", "SLAYER / EXODUS")
    return Table(f"Loss, mean of {RUNS} runs, summed over the epochs", columns, rows)


def seconds(settings: Settings) -> float:
    """Estimate how long `run` takes."""
    chosen = jobs(settings)
    return float(sum(4.0 + 0.006 * epochs for *_, epochs in chosen.values()) / settings.workers)


def plot(
    grid: Mapping[tuple[float, float], Any],
    sums: Mapping[tuple[float, float], Mapping[str, float]],
    folder: Path,
) -> Path:
    """Draw the example's rasters and losses, and the sums over all settings; return the picture's path."""
    with style.paper():
        fig = style.figure(4.6)
        parts = fig.add_gridspec(2, 3, width_ratios=(1, 1, 1.1))
        example = grid[EXAMPLE]
        for k, method in enumerate(METHODS):
            axes = fig.add_subplot(parts[0, k])
            _draw_raster(axes, example, method)
            style.letter(axes, "AB"[k], style.LABELS[method])
        losses = fig.add_subplot(parts[1, :2])
        _draw_losses(losses, example)
        style.letter(losses, "C", "example: each run (thin) and their mean")
        right = fig.add_subplot(parts[:, 2])
        _draw_sums(right, sums)
        style.letter(right, "D", "summed loss")
        return style.save(fig, folder / "figure_s3.png")


def _draw_raster(axes: Axes, example: Mapping[str, Any], method: str) -> None:
    spikes = np.array(example["raster"][method]).reshape(-1, 2)
    axes.plot(spikes[:, 0] + 1, spikes[:, 1], ".", color=style.COLOURS[method], ms=1.5, mew=0)
    epochs = len(example["loss"][method])
    for time in example["target"]:
        axes.axhline(time, color=style.GREY, lw=0.6, ls=":")
    axes.set(xlim=(0, epochs), ylim=(0, fit.STEPS), xlabel="Epoch", ylabel="Time [ms]")


def _draw_losses(axes: Axes, example: Mapping[str, Any]) -> None:
    for method in METHODS:
        loss = np.array(example["loss"][method])
        width = max(1, len(loss) // 100)
        means = loss[: len(loss) // width * width].reshape(-1, width, loss.shape[1]).mean(axis=1)
        epoch = (np.arange(len(means)) + 0.5) * width
        axes.plot(epoch, means, color=style.COLOURS[method], lw=0.5, alpha=0.4)
        axes.plot(epoch, means.mean(axis=1), color=style.COLOURS[method], label=style.LABELS[method])
    axes.set(xlabel="Epoch", ylabel="Squared error", xlim=(0, len(loss)))
    axes.legend()


def _draw_sums(axes: Axes, sums: Mapping[tuple[float, float], Mapping[str, float]]) -> None:
    names = [f"{tau:g} ms, {rate:g}" for tau, rate in sums]
    places = np.arange(len(names))
    for k, method in enumerate(METHODS):
        values = [one[method] for one in sums.values()]
        axes.barh(places + 0.4 * k, values, 0.38, color=style.COLOURS[method], label=style.LABELS[method])
    axes.set_yticks(places + 0.2, names)
    axes.set(xlabel="Loss, summed over epochs")
    axes.invert_yaxis()
