"""Classifiers on recordings that are at hand: spoken digits and N-MNIST, by EXODUS, SLAYER and BPTT.

Spoken digits train the network of table S1 for HSD, once with the data set's own test split, and once for
each speaker who is left out. N-MNIST trains the network for DVS Gesture on frames of 32 x 32. All algorithms
start from the same weights, and see the samples in the same order. Recurrent and adaptive layers on the same
digits show what today's networks add.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import nn

import exodus_core.torch as snn
from exodus_core.demo import style
from exodus_core.surrogate import SingleExponential

from . import digits, networks, nmnist, synthetic
from .comparison import METHODS
from .jobs import run_jobs
from .networks import Readout
from .samples import Splits
from .settings import Outcome, Settings, Table
from .training import Plan, Run

# Chosen on the validation set of the spoken digits.
SURROGATE = SingleExponential(width=0.5, scale=0.3)
TARGET_RATE = 0.2
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
HIDDEN = 128
BASELINES: Mapping[str, Callable[[], nn.Module]] = {
    "LIF": lambda: snn.LIF(tau=20.0, surrogate=SURROGATE),
    "LIF, recurrent": lambda: snn.Recurrent(snn.LIF(tau=20.0, surrogate=SURROGATE), HIDDEN),
    "AdLIF": lambda: snn.AdLIF(tau=20.0, tau_adapt=100.0, coupling=0.1, adapt_scale=0.1, surrogate=SURROGATE),
}


def spiking(layer: str, method: str) -> Callable[[], nn.Module]:
    """Return a function that makes a spiking layer.

    Parameters
    ----------
    layer : str
        "IF", or the name of a baseline.
    method : str
        "exodus", "slayer" or "bptt".

    Returns
    -------
    callable
        A function that makes the layer.
    """

    def make() -> nn.Module:
        module = snn.IF(surrogate=SURROGATE) if layer == "IF" else BASELINES[layer]()
        snn.configure(module, method=method)
        return module

    return make


def load(task: str, data: Path | None, cache: Path) -> Splits:
    """Load the data of a task, or a stand-in without a data folder.

    Parameters
    ----------
    task : str
        "digits", "nmnist", or the name of a speaker who is left out.
    data : Path or None
        The folder with recordings.
    cache : Path
        A folder for spikes of spoken digits.

    Returns
    -------
    Splits
        The data.
    """
    if task == "digits":
        return digits.load_or_stand_in(data, cache)
    if data is None:
        return synthetic.vision("N-MNIST", 10, (200, 50, 50), nmnist.STEPS, nmnist.SIDE)
    return nmnist.load(data) if task == "nmnist" else digits.leave_out(task, data, cache)


def train(
    task: str, layer: str, method: str, seed: int, epochs: int, data: Path | None, folder: Path
) -> dict[str, Any]:
    """Train a classifier; a job of ``run_jobs``.

    Parameters
    ----------
    task, layer, method : str
        See ``load`` and ``spiking``.
    seed, epochs : int
        The seed, and the number of epochs.
    data : Path or None
        The folder with recordings.
    folder : Path
        The folder for checkpoints.

    Returns
    -------
    dict
        The course of the run: `History.numbers`.
    """
    splits, make_layer = load(task, data, folder), spiking(layer, method)
    vision = task == "nmnist"

    def network() -> nn.Module:
        if vision:
            return networks.dvs_gesture(make_layer, 10, nmnist.SIDE)
        return networks.speech(10, make_layer, (100, HIDDEN, HIDDEN))

    readout: Readout = networks.sum_over_time if vision else networks.max_over_time
    plan = Plan(epochs, 32 if vision else 128, seed=seed, target_rate=TARGET_RATE)
    checkpoint = folder / f"{task}-{layer}-{method}-{seed}.pt".replace(", ", "-")
    return Run(network, readout, splits, plan, checkpoint).train().numbers()


def jobs(settings: Settings) -> dict[str, tuple[Any, ...]]:
    """Return the runs, by the name of the job."""
    seeds = range(settings.choose(1, 3))
    epochs = settings.epochs or settings.choose(4, 200)
    vision_epochs = settings.epochs or settings.choose(2, 100)
    common = settings.data, settings.folder("recordings")
    found: dict[str, tuple[Any, ...]] = {}
    for seed in seeds:
        for method in METHODS:
            found[f"digits-{method}-{seed}"] = ("digits", "IF", method, seed, epochs, *common)
            found[f"nmnist-{method}-{seed}"] = ("nmnist", "IF", method, seed, vision_epochs, *common)
        for layer in BASELINES:
            name = f"{layer.replace(', ', '-')}-{seed}"
            found[name] = ("digits", layer, "exodus", seed, epochs, *common)
    if settings.data is not None:
        for speaker in SPEAKERS[:1] if settings.quick else SPEAKERS:
            found[f"without-{speaker}"] = (speaker, "IF", "exodus", 0, epochs, *common)
    return found


def run(settings: Settings) -> Outcome:
    """Train all classifiers."""
    folder, chosen = settings.folder("recordings"), jobs(settings)
    load("digits", settings.data, folder)  # once, before the processes
    results = run_jobs(train, chosen, folder, settings.workers, "recordings")
    groups = {
        "digits": {method: _group(results, f"digits-{method}-") for method in METHODS},
        "nmnist": {method: _group(results, f"nmnist-{method}-") for method in METHODS},
    }
    epochs = {task: len(runs["exodus"][0]["loss"]) for task, runs in groups.items()}
    seeds = len(groups["digits"]["exodus"])
    text = [
        ("Real recordings" if settings.data else "Synthetic stand-ins for the recordings")
        + f": {epochs['digits']} epochs for digits, {epochs['nmnist']} for N-MNIST, seeds: {seeds}, Adam "
        f"with learning rate 0.001. Initial weights are scaled so that hidden layers fire at {TARGET_RATE} "
        f"spikes per step. The surrogate has width {SURROGATE.width} and scale {SURROGATE.scale}. The "
        "validation set chooses the epoch, and the test set is used once.",
        *(_finding(task, runs) for task, runs in groups.items()),
    ]
    tables = [_methods_table(task, runs) for task, runs in groups.items()] + [_layers_table(results)]
    if settings.data is not None:
        tables.append(_speakers_table(results))
    figures = [plot(groups, folder)]
    return Outcome("Table S1's networks on recordings at hand", text, tables, figures, results)


def _group(results: Mapping[str, Any], prefix: str) -> list[Any]:
    """Return the results of all seeds."""
    return [result for name, result in results.items() if re.fullmatch(re.escape(prefix) + r"\d+", name)]


def _percent(values: list[float]) -> str:
    spread = f" +- {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread} %"


def _accuracies(runs: list[Any]) -> list[float]:
    return [run["test_accuracy"] for run in runs]


NAMES = {"digits": "spoken digits", "nmnist": "N-MNIST"}


def _finding(task: str, runs: Mapping[str, list[Any]]) -> str:
    shown = {method: _percent(_accuracies(own)) for method, own in runs.items()}
    difference = statistics.mean(_accuracies(runs["exodus"])) - statistics.mean(_accuracies(runs["slayer"]))
    spreads = [statistics.stdev(_accuracies(own)) for own in runs.values() if len(own) > 1]
    return (
        f"On {NAMES[task]} the test accuracy is {shown['exodus']} with EXODUS, {shown['slayer']} with SLAYER "
        f"and {shown['bptt']} with BPTT: between EXODUS and SLAYER {_verdict(difference, spreads)}."
    )


def _verdict(difference: float, spreads: list[float]) -> str:
    """Compare the accuracies of EXODUS and SLAYER with the spreads over the seeds."""
    if not spreads:
        return "one seed does not tell them apart"
    if abs(difference) <= max(spreads):
        return "the difference is within the spread of the seeds: SLAYER keeps up"
    return f"{'EXODUS' if difference > 0 else 'SLAYER'} is ahead by more than the spread of the seeds"


def _methods_table(task: str, runs: Mapping[str, list[Any]]) -> Table:
    rows = []
    for method, own in runs.items():
        best = [max(run["validation_accuracy"]) for run in own]
        seconds = statistics.median([s for run in own for s in run["seconds"]])
        loss = statistics.mean([run["loss"][-1] for run in own])
        cells = _percent(best), _percent(_accuracies(own)), f"{loss:.3f}", f"{seconds:.2f}"
        rows.append([style.LABELS[method], *cells])
    columns = ("method", "validation", "test", "final loss", "s per epoch")
    return Table(f"{NAMES[task]}: accuracy, training loss, and the median time of an epoch", columns, rows)


def _layers_table(results: Mapping[str, Any]) -> Table:
    found = {"IF": _group(results, "digits-exodus-")}
    found |= {layer: _group(results, f"{layer.replace(', ', '-')}-") for layer in BASELINES}
    rows = []
    for layer, own in found.items():
        seconds = statistics.median([s for run in own for s in run["seconds"]])
        rows.append([layer, _percent(_accuracies(own)), f"{seconds:.2f}"])
    return Table("spoken digits by EXODUS: other spiking layers", ("layer", "test", "s per epoch"), rows)


def _speakers_table(results: Mapping[str, Any]) -> Table:
    found = {name: result for name, result in results.items() if name.startswith("without-")}
    rows = [[name.removeprefix("without-"), _percent(_accuracies([own]))] for name, own in found.items()]
    rows.append(["mean", _percent(_accuracies(list(found.values())))])
    return Table(
        "spoken digits by EXODUS: a speaker who is not in the training set", ("speaker", "test"), rows
    )


def seconds(settings: Settings) -> float:
    """Estimate how long `run` takes."""
    epochs = {True: 5.0, False: 2.5}  # seconds of an epoch on one thread, vision or not
    total = sum(arguments[4] * epochs[arguments[0] == "nmnist"] for arguments in jobs(settings).values())
    return float(total / settings.workers)


def plot(groups: Mapping[str, Mapping[str, list[Any]]], folder: Path) -> Path:
    """Draw losses, validation accuracies and gradient norms over the epochs; return the picture's path."""
    with style.paper():
        fig = style.figure(4.8)
        panels = fig.subplots(2, 3)
        for row, (task, runs) in zip(panels, groups.items(), strict=True):
            _draw(row[0], runs, "loss", f"{NAMES[task]}\nTraining loss")
            _draw(row[1], runs, "validation_accuracy", "Validation accuracy")
            _draw_norms(row[2], runs)
        panels[0, 0].legend()
        for axes, name in zip(panels.flat, "ABCDEF", strict=True):
            style.letter(axes, name)
        return style.save(fig, folder / "recordings.png")


def _draw(axes: Axes, runs: Mapping[str, list[Any]], quantity: str, label: str) -> None:
    for method, own in runs.items():
        for k, course in enumerate(own):
            text = style.LABELS[method] if k == 0 else None
            line = "--" if method == "bptt" else "-"
            values = course[quantity]
            axes.plot(
                range(1, len(values) + 1), values, line, color=style.COLOURS[method], lw=0.9, label=text
            )
    axes.set(xlabel="Epoch", ylabel=label)


def _draw_norms(axes: Axes, runs: Mapping[str, list[Any]]) -> None:
    """Draw the mean gradient norm of each weight, from the input (thick) to the output (thin)."""
    for method, own in runs.items():
        norms = own[0]["gradient_norms"]
        widths = torch.linspace(1.8, 0.5, len(norms)).tolist()
        for width, values in zip(widths, norms.values(), strict=True):
            line = "--" if method == "bptt" else "-"
            axes.plot(range(1, len(values) + 1), values, line, color=style.COLOURS[method], lw=width)
    axes.set(xlabel="Epoch", ylabel="Norm of each weight's gradient", yscale="log")
    axes.set_title("input thick, output thin", loc="right")
