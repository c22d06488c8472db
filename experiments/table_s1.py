"""Table S1: the four networks of the paper, trained on their data sets.

The networks have integrate-and-fire layers between their weights. The tasks with vision have the cross
entropy of the sum over time, those with sound that of the largest output over time. Adam has a learning rate
of 0.001. A set that --data lacks has a synthetic stand-in of its shape. A full run trains by EXODUS, SLAYER
and BPTT.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from torch import nn

import exodus_core.torch as snn
from exodus_core.demo import style

from . import networks, public_sets, synthetic
from .comparison import METHODS
from .jobs import run_jobs
from .networks import Readout, Spiking
from .samples import Splits
from .settings import Outcome, Settings, Table
from .training import Plan, Run

TARGET_RATE = 0.1  # of the networks without batch normalisation
MEASURED = 32  # samples, at most, for the initial weights
# For a sample of each network on one thread: seconds of a training step, and of a forward pass.
SECONDS = {
    "HSD": (0.0005, 0.0001),
    "SSC": (0.0005, 0.0001),
    "DVS Gesture": (0.05, 0.018),
    "CIFAR10-DVS": (1.1, 0.33),
}
INITIAL_PASSES = 60  # forward passes of ``init_``
STARTING = 3.0  # seconds of a process


@dataclass(frozen=True)
class Task:
    """A column of table S1.

    Attributes
    ----------
    build : callable
        A function that builds the network from one that makes a spiking layer.
    readout : callable
        A function that makes logits of the network's output.
    batch, epochs : int
        The number of samples in a batch, and of epochs.
    load : callable
        A function that loads the data set. Its arguments are the folder with all sets, and one for the
        converted set.
    folders : tuple of str
        The names that the set's folder may have.
    sizes : tuple of int
        The numbers of samples for training and validation of the data set.
    stand_in : callable
        A function that makes a stand-in, of counts of samples for training, validation and test.
    quick : tuple of int
        In a quick run, the counts, the batch and the epochs.
    """

    build: Callable[[Spiking], nn.Module]
    readout: Readout
    batch: int
    epochs: int
    load: Callable[[Path, Path], Splits]
    folders: tuple[str, ...]
    sizes: tuple[int, int]
    stand_in: Callable[[tuple[int, int, int]], Splits]
    quick: tuple[int, int, int, int, int]


TASKS: Mapping[str, Task] = {
    "HSD": Task(
        lambda spiking: networks.speech(20, spiking),
        networks.max_over_time,
        128,
        200,
        public_sets.load_hsd,
        ("SHD",),
        (6500, 1656),
        lambda counts: synthetic.speech("HSD", 20, counts),
        (400, 80, 80, 32, 30),
    ),
    "SSC": Task(
        lambda spiking: networks.speech(35, spiking),
        networks.max_over_time,
        128,
        200,
        public_sets.load_ssc,
        ("SSC",),
        (75466, 9981),
        lambda counts: synthetic.speech("SSC", 35, counts),
        (420, 70, 70, 32, 30),
    ),
    "DVS Gesture": Task(
        networks.dvs_gesture,
        networks.sum_over_time,
        32,
        100,
        public_sets.load_dvs_gesture,
        ("DvsGesture", "DVSGesture"),
        (976, 200),
        lambda counts: synthetic.vision("DVS Gesture", 11, counts, 300, 64, rate=0.01),
        (55, 11, 11, 11, 6),
    ),
    "CIFAR10-DVS": Task(
        networks.wide_7b_net,
        networks.sum_over_time,
        16,
        100,
        public_sets.load_cifar10_dvs,
        ("CIFAR10DVS",),
        (8000, 1000),
        lambda counts: synthetic.vision("CIFAR10-DVS", 10, counts, 8, 128, rate=0.05),
        (10, 5, 5, 5, 3),
    ),
}
STAND_IN = (1000, 200, 200)  # samples of a stand-in in a full run


def is_at_hand(task: Task, data: Path | None) -> bool:
    """Tell whether the folder of recordings has a task's data set.

    Parameters
    ----------
    task : Task
        The task.
    data : Path or None
        The folder with recordings.

    Returns
    -------
    bool
        Whether it has.
    """
    return data is not None and any((data / folder).is_dir() for folder in task.folders)


def splits_of(task: Task, quick: bool, data: Path | None, cache: Path) -> Splits:
    """Load a task's data set, or make a stand-in where the folder of recordings lacks it.

    Parameters
    ----------
    task : Task
        The task.
    quick : bool
        Whether the stand-in is small.
    data : Path or None
        The folder with recordings.
    cache : Path
        A folder for converted recordings.

    Returns
    -------
    Splits
        The data.
    """
    if data is not None and is_at_hand(task, data):
        return task.load(data, cache)
    return task.stand_in(task.quick[:3] if quick else STAND_IN)


def train(name: str, method: str, quick: bool, plan: Plan, data: Path | None, folder: Path) -> dict[str, Any]:
    """Train a network; a job of ``run_jobs``.

    Parameters
    ----------
    name : str
        The name of the task.
    method : str
        "exodus", "slayer" or "bptt".
    quick : bool
        Whether a stand-in is small.
    plan : Plan
        The settings.
    data : Path or None
        The folder with recordings.
    folder : Path
        The folder for checkpoints.

    Returns
    -------
    dict
        `History.numbers`, "synthetic", "sizes" and "weights", the number of parameters.
    """
    task = TASKS[name]
    splits = splits_of(task, quick, data, folder)
    checkpoint = folder / f"{name.replace(' ', '-')}-{method}-{plan.seed}.pt"
    run = Run(lambda: task.build(partial(snn.IF, method=method)), task.readout, splits, plan, checkpoint)
    numbers = run.train(name).numbers()
    weights = sum(parameter.numel() for parameter in run.network.parameters())
    return {**numbers, "synthetic": splits.synthetic, "sizes": dict(splits.sizes()), "weights": weights}


def jobs(settings: Settings) -> dict[str, tuple[Any, ...]]:
    """Return the runs, by the name of the job."""
    found = {}
    methods, seeds = settings.choose((METHODS[:1], 1), (METHODS, 3))
    for name, task in TASKS.items():
        *_, batch, epochs = task.quick if settings.quick else (task.batch, task.epochs)
        for method, seed in product(methods, range(seeds)):
            plan = Plan(
                settings.epochs or epochs,
                batch,
                seed=seed,
                device=settings.device,
                target_rate=None if name == "CIFAR10-DVS" else TARGET_RATE,
                measured=min(batch, MEASURED),
            )
            arguments = name, method, settings.quick, plan, settings.data, settings.folder("table_s1")
            found[f"{name.replace(' ', '-')}-{method}-{seed}"] = arguments
    return found


def run(settings: Settings) -> Outcome:
    """Train the four networks."""
    folder = settings.folder("table_s1")
    for task in TASKS.values():
        if is_at_hand(task, settings.data):
            splits_of(task, settings.quick, settings.data, folder)  # converted once, before the processes
    results = run_jobs(train, jobs(settings), folder, settings.workers, "table S1")
    groups: dict[tuple[str, str], list[Any]] = {}
    for job, (name, method, *_) in jobs(settings).items():
        groups.setdefault((name, method), []).append(results[job])
    stand_ins = list(dict.fromkeys(name for (name, _), own in groups.items() if own[0]["synthetic"]))
    text = [
        "The networks of table S1 with IF layers, trained with Adam at a learning rate of 0.001. "
        f"Initial weights are scaled so that layers fire at {TARGET_RATE} spikes per step, but those of "
        "Wide-7B-Net are not, because its currents are normalised. The validation set chooses the epoch, and "
        "the test set is used once. The appendix gives no accuracies.",
    ]
    if stand_ins:
        text.append(
            f"SYNTHETIC STAND-INS, not recordings: {', '.join(stand_ins)}. Their accuracies say nothing "
            "about the data sets."
        )
    figures = [plot(groups, folder)]
    return Outcome("Table S1: four networks", text, [_table(groups)], figures, results)


def _table(groups: Mapping[tuple[str, str], list[Any]]) -> Table:
    rows = []
    for (name, method), own in groups.items():
        accuracies = [100 * result["test_accuracy"] for result in own]
        spread = f" +- {statistics.stdev(accuracies):.1f}" if len(own) > 1 else ""
        sizes = " / ".join(str(count) for count in own[0]["sizes"].values())
        kind = "synthetic" if own[0]["synthetic"] else "recordings"
        losses = f"{own[0]['loss'][0]:.2f} to {own[0]['loss'][-1]:.2f}"
        cells = str(own[0]["weights"]), f"{sizes}, {kind}", str(len(own[0]["loss"])), losses
        rows.append(
            [f"{name}, {style.LABELS[method]}", *cells, f"{statistics.mean(accuracies):.1f}{spread} %"]
        )
    columns = (
        "data set, method",
        "parameters",
        "training / validation / test",
        "epochs",
        "training loss",
        "test accuracy",
    )
    return Table("The networks, and what they reached here", columns, rows)


def seconds(settings: Settings) -> float:
    """Estimate how long `run` takes."""
    total = 0.0
    for name, _, quick, plan, data, _ in jobs(settings).values():
        task = TASKS[name]
        stand_in = task.quick if quick else STAND_IN
        training, validation = task.sizes if is_at_hand(task, data) else stand_in[:2]
        steps, forward = SECONDS[name]
        total += STARTING + plan.epochs * (training * steps + validation * forward)
        total += 0.0 if plan.target_rate is None else INITIAL_PASSES * plan.measured * forward
    return total / settings.workers


def plot(groups: Mapping[tuple[str, str], list[Any]], folder: Path) -> Path:
    """Draw learning curves, and the confusion matrix of EXODUS's first seed; return the picture's path."""
    names = list(dict.fromkeys(name for name, _ in groups))
    with style.paper():
        fig = style.figure(6.2)
        panels = dict(zip(names, fig.subplots(3, len(names)).T, strict=True))
        for (name, method), own in groups.items():
            for k, result in enumerate(own):
                _draw_course(panels[name], result, method, style.LABELS[method] if k == 0 else None)
        for name, column in panels.items():
            column[0].set_title(name)
            column[1].set(ylim=(0, 1))
            image = _draw_confusion(column[2], groups[name, METHODS[0]][0]["confusion"])
        first, last = panels[names[0]], panels[names[-1]]
        first[0].set_ylabel("Loss: training,\nvalidation (dashed)")
        first[1].set_ylabel("Validation accuracy")
        first[1].legend()
        first[2].set_ylabel("True class")
        fig.colorbar(image, ax=last[2], label="Share of the true class")
        return style.save(fig, folder / "table_s1.png")


def _draw_course(column: Sequence[Axes], result: Mapping[str, Any], method: str, label: str | None) -> None:
    epochs = range(1, len(result["loss"]) + 1)
    colour = style.COLOURS[method]
    column[0].plot(epochs, result["loss"], ".-", color=colour, lw=0.9)
    column[0].plot(epochs, result["validation_loss"], ".--", color=colour, lw=0.9, alpha=0.5)
    column[1].plot(epochs, result["validation_accuracy"], ".-", color=colour, lw=0.9, label=label)
    for axes in column[:2]:
        axes.set(xlabel="Epoch")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))


def _draw_confusion(axes: Axes, confusion: list[list[int]]) -> AxesImage:
    counts = np.array(confusion)
    axes.set(xlabel="Predicted class", xticks=[], yticks=[])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
