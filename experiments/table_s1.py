"""Table S1: the four networks of the paper, trained on their data sets.

The networks have integrate-and-fire layers between their weights. The tasks with vision have the cross
entropy of the sum over time, those with sound that of the largest output over time. Adam has a learning rate
of 0.001. A set that --data lacks has a synthetic stand-in of its shape.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from torch import nn

import exodus_core.torch as snn
from exodus_core.demo import style

from . import networks, public_sets, synthetic
from .jobs import run_jobs
from .networks import Readout, Spiking
from .samples import Splits
from .settings import Outcome, Settings, Table
from .training import Plan, Run

TARGET_RATE = 0.1


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
        A function that loads the data set from the folder with all sets.
    folder : str
        The set's folder in it.
    stand_in : callable
        A function that makes a stand-in, of counts of samples for training, validation and test.
    quick : tuple of int
        In a quick run, the counts, the batch and the epochs.
    """

    build: Callable[[Spiking], nn.Module]
    readout: Readout
    batch: int
    epochs: int
    load: Callable[[Path], Splits]
    folder: str
    stand_in: Callable[[tuple[int, int, int]], Splits]
    quick: tuple[int, int, int, int, int]


TASKS: Mapping[str, Task] = {
    "HSD": Task(
        lambda spiking: networks.speech(20, spiking),
        networks.max_over_time,
        128,
        200,
        public_sets.load_hsd,
        "SHD",
        lambda counts: synthetic.speech("HSD", 20, counts),
        (400, 80, 80, 32, 10),
    ),
    "SSC": Task(
        lambda spiking: networks.speech(35, spiking),
        networks.max_over_time,
        128,
        200,
        public_sets.load_ssc,
        "SSC",
        lambda counts: synthetic.speech("SSC", 35, counts),
        (420, 70, 70, 32, 10),
    ),
    "DVS Gesture": Task(
        networks.dvs_gesture,
        networks.sum_over_time,
        32,
        100,
        public_sets.load_dvs_gesture,
        "DvsGesture",
        lambda counts: synthetic.vision("DVS Gesture", 11, counts, 300, 64, rate=0.01),
        (22, 11, 11, 11, 2),
    ),
    "CIFAR10-DVS": Task(
        networks.wide_7b_net,
        networks.sum_over_time,
        16,
        100,
        public_sets.load_cifar10_dvs,
        "CIFAR10DVS",
        lambda counts: synthetic.vision("CIFAR10-DVS", 10, counts, 8, 128, rate=0.05),
        (4, 2, 2, 2, 1),
    ),
}
STAND_IN = (1000, 200, 200)  # samples of a stand-in in a full run


def splits_of(task: Task, quick: bool, data: Path | None) -> Splits:
    """Load a task's data set, or make a stand-in where the folder of recordings lacks it.

    Parameters
    ----------
    task : Task
        The task.
    quick : bool
        Whether the stand-in is small.
    data : Path or None
        The folder with recordings.

    Returns
    -------
    Splits
        The data.
    """
    if data is not None and (data / task.folder).is_dir():
        return task.load(data)
    return task.stand_in(task.quick[:3] if quick else STAND_IN)


def train(name: str, seed: int, quick: bool, plan: Plan, data: Path | None, folder: Path) -> dict[str, Any]:
    """Train a network; a job of ``run_jobs``.

    Parameters
    ----------
    name : str
        The name of the task.
    seed : int
        The seed of weights and order, the plan's.
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
    splits = splits_of(task, quick, data)
    checkpoint = folder / f"{name.replace(' ', '-')}-{seed}.pt"
    run = Run(lambda: task.build(snn.IF), task.readout, splits, plan, checkpoint)
    numbers = run.train(name).numbers()
    weights = sum(parameter.numel() for parameter in run.network.parameters())
    return {**numbers, "synthetic": splits.synthetic, "sizes": dict(splits.sizes()), "weights": weights}


def jobs(settings: Settings) -> dict[str, tuple[Any, ...]]:
    """Return the runs, by the name of the job."""
    found = {}
    for name, task in TASKS.items():
        *_, batch, epochs = task.quick if settings.quick else (task.batch, task.epochs)
        for seed in range(settings.choose(1, 3)):
            plan = Plan(
                settings.epochs or epochs,
                batch,
                seed=seed,
                device=settings.device,
                target_rate=TARGET_RATE,
            )
            arguments = name, seed, settings.quick, plan, settings.data, settings.folder("table_s1")
            found[f"{name.replace(' ', '-')}-{seed}"] = arguments
    return found


def run(settings: Settings) -> Outcome:
    """Train the four networks."""
    folder = settings.folder("table_s1")
    results = run_jobs(train, jobs(settings), folder, settings.workers, "table S1")
    groups: dict[str, list[Any]] = {name: [] for name in TASKS}
    for job, arguments in jobs(settings).items():
        groups[arguments[0]].append(results[job])
    stand_ins = [name for name, own in groups.items() if own[0]["synthetic"]]
    text = [
        "The networks of table S1 with IF layers, trained with EXODUS and Adam at a learning rate of 0.001. "
        f"Initial weights are scaled so that layers fire at {TARGET_RATE} spikes per step. The validation "
        "set chooses the epoch, and the test set is used once. The appendix gives no accuracies.",
    ]
    if stand_ins:
        text.append(
            f"SYNTHETIC STAND-INS, not recordings: {', '.join(stand_ins)}. Their accuracies say only that "
            "the networks train."
        )
    figures = [plot(groups, folder)]
    return Outcome("Table S1: four networks", text, [_table(groups)], figures, results)


def _table(groups: Mapping[str, list[Any]]) -> Table:
    rows = []
    for name, own in groups.items():
        accuracies = [100 * result["test_accuracy"] for result in own]
        spread = f" +- {statistics.stdev(accuracies):.1f}" if len(own) > 1 else ""
        sizes = " / ".join(str(count) for count in own[0]["sizes"].values())
        kind = "synthetic" if own[0]["synthetic"] else "recordings"
        losses = f"{own[0]['loss'][0]:.2f} to {own[0]['loss'][-1]:.2f}"
        cells = str(own[0]["weights"]), f"{sizes}, {kind}", str(len(own[0]["loss"])), losses
        rows.append([name, *cells, f"{statistics.mean(accuracies):.1f}{spread} %"])
    columns = (
        "data set",
        "parameters",
        "training / validation / test",
        "epochs",
        "training loss",
        "test accuracy",
    )
    return Table("The networks, and what they reached here", columns, rows)


def seconds(settings: Settings) -> float:
    """Estimate how long `run` takes."""
    # Measured for a sample of each network, forward and backward on one thread.
    each = {"HSD": 0.001, "SSC": 0.001, "DVS Gesture": 0.17, "CIFAR10-DVS": 2.0}
    total = 0.0
    for name, _, quick, plan, *_ in jobs(settings).values():
        count = TASKS[name].quick[0] if quick else STAND_IN[0]
        total += 3.0 + plan.epochs * count * each[name]
    return total / settings.workers


def plot(groups: Mapping[str, list[Any]], folder: Path) -> Path:
    """Draw learning curves, and the confusion matrix of the first seed.

    Parameters
    ----------
    groups : mapping of str to list
        The results of each task's seeds.
    folder : Path
        The folder for the picture.

    Returns
    -------
    Path
        The path of the picture.
    """
    with style.paper():
        fig = style.figure(6.2)
        panels = fig.subplots(3, len(groups))
        for column, (name, own) in zip(panels.T, groups.items(), strict=True):
            for result in own:
                epochs = range(1, len(result["loss"]) + 1)
                column[0].plot(epochs, result["loss"], ".-", color=style.COLOURS["exodus"], lw=0.9)
                column[0].plot(epochs, result["validation_loss"], ".--", color=style.GREY, lw=0.9)
                column[1].plot(
                    epochs, result["validation_accuracy"], ".-", color=style.COLOURS["exodus"], lw=0.9
                )
            column[0].set_title(name)
            column[1].set(xlabel="Epoch", ylim=(0, 1))
            _draw_confusion(column[2], own[0]["confusion"])
        panels[0, 0].set_ylabel("Loss: training,\nvalidation (dashed)")
        panels[1, 0].set_ylabel("Validation accuracy")
        panels[2, 0].set_ylabel("True class")
        return style.save(fig, folder / "table_s1.png")


def _draw_confusion(axes: Axes, confusion: list[list[int]]) -> None:
    counts = np.array(confusion)
    axes.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="Predicted class", xticks=[], yticks=[])
