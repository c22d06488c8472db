"""Real data: a spiking classifier of handwritten digits.

The data are 1797 digits of 8 by 8 pixels from scikit-learn. Each pixel becomes a spike train. Two hidden
layers of LIF neurons and a readout of leaky integrators learn to classify the digits.

Both algorithms learn this task. The spike trains are short and the time constants small, so SLAYER's gradient
has nearly the direction of the exact one, and Adam does not depend on its length. ``claim`` shows a case
where the two differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import exodus_core as ec
import exodus_core.torch as snn

from . import style

SIZES = (64, 128, 128, 10)
STEPS = 50  # time steps of 1 ms
BRIGHTEST = 0.3  # spikes per step for a white pixel
TAU, TAU_READOUT = 10.0, 20.0  # ms
LEARNING_RATE = 1e-3
BATCH = 64
METHODS = ("exodus", "slayer")


@dataclass
class Example:
    """A test digit, and the activity that it causes in the network that EXODUS trained.

    Attributes
    ----------
    image : ndarray
        The image, 8 by 8.
    label : int
        The digit.
    spikes : list of ndarray
        Spikes of the input and of the hidden layers, time by neurons.
    readout : ndarray
        Potentials of the readout, time by classes.
    """

    image: np.ndarray
    label: int
    spikes: list[np.ndarray]
    readout: np.ndarray


@dataclass
class Digits:
    """The results of training.

    Attributes
    ----------
    loss, accuracy : dict of str to ndarray
        For each method, the training loss and the test accuracy, splits by epochs.
    examples : list of Example
        Examples from the first split.
    """

    loss: dict[str, np.ndarray]
    accuracy: dict[str, np.ndarray]
    examples: list[Example]


def encode(images: np.ndarray) -> Tensor:
    """Turn images into spikes.

    Each pixel drives an integrate-and-fire neuron with a constant current, so it spikes at regular intervals,
    with a rate proportional to its brightness.

    Parameters
    ----------
    images : ndarray
        Brightness from 0 to 1, images by pixels.

    Returns
    -------
    Tensor
        Spikes, time by images by pixels.
    """
    current = np.repeat(BRIGHTEST * images[np.newaxis], STEPS, axis=0).astype(np.float32)
    return torch.from_numpy(ec.forward(ec.IF(), current).spikes)


def network(method: str, generator: torch.Generator) -> nn.Sequential:
    """Build the classifier.

    Parameters
    ----------
    method : str
        The algorithm of the backward pass.
    generator : torch.Generator
        Random numbers for the initial weights.

    Returns
    -------
    nn.Sequential
        A network from spikes (time, batch, 64) to potentials (time, batch, 10).
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(SIZES):
        linear = nn.Linear(inputs, outputs, bias=False)
        with torch.no_grad():
            linear.weight.copy_(torch.randn(outputs, inputs, generator=generator) / inputs**0.5)
        layers += [linear, snn.LIF(tau=TAU, method=method)]
    layers[-1] = snn.ExpLeak(tau=TAU_READOUT)  # the readout does not fire
    return nn.Sequential(*layers)


def digits(seed: int = 0, epochs: int = 30, splits: int = 3) -> Digits:
    """Train with EXODUS and with SLAYER, from the same weights.

    Parameters
    ----------
    seed : int, optional
        Seed of the first split. Each further split has the next integer.
    epochs, splits : int, optional
        Number of epochs, and number of runs. Each run has its own weights and its own random split of the
        data, three quarters for training and one for the test.

    Returns
    -------
    Digits
        Losses, accuracies, and the activity of the network for a few digits.
    """
    images, labels = load_digits(return_X_y=True)
    images = images / images.max()
    spikes, classes = encode(images), torch.from_numpy(labels)
    loss: dict[str, list[list[float]]] = {method: [] for method in METHODS}
    accuracy: dict[str, list[list[float]]] = {method: [] for method in METHODS}
    examples: list[Example] = []
    for split in range(splits):
        train, test = train_test_split(
            np.arange(len(labels)), test_size=0.25, stratify=labels, random_state=seed + split
        )
        for method in METHODS:
            generator = torch.Generator().manual_seed(seed + split)
            net = network(method, generator)
            history = _train(
                net, spikes, classes, train, test, epochs, generator, f"{style.LABELS[method]} {split + 1}"
            )
            loss[method].append(history[0])
            accuracy[method].append(history[1])
            if not examples and method == "exodus":
                shown = _first_of_each(test, labels)[:3]
                examples = [_example(net, images[k], spikes[:, k], int(labels[k])) for k in shown]
    return Digits(
        {m: np.array(values) for m, values in loss.items()},
        {m: np.array(values) for m, values in accuracy.items()},
        examples,
    )


def _scores(net: nn.Module, spikes: Tensor) -> Tensor:
    """Return the readout's potential, averaged over time."""
    scores: Tensor = net(spikes).mean(dim=0)
    return scores


def _train(
    net: nn.Module,
    spikes: Tensor,
    classes: Tensor,
    train: np.ndarray,
    test: np.ndarray,
    epochs: int,
    generator: torch.Generator,
    name: str,
) -> tuple[list[float], list[float]]:
    """Return the training loss and the test accuracy of each epoch."""
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    losses, accuracies = [], []
    for _ in tqdm(range(epochs), desc=f"digits, {name}", unit="epoch"):
        total = 0.0
        for batch in torch.from_numpy(train)[torch.randperm(len(train), generator=generator)].split(BATCH):
            loss = cross_entropy(_scores(net, spikes[:, batch]), classes[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        losses.append(total / len(train))
        with torch.no_grad():
            right = _scores(net, spikes[:, test]).argmax(dim=1) == classes[test]
        accuracies.append(right.double().mean().item())
    return losses, accuracies


def _first_of_each(test: np.ndarray, labels: np.ndarray) -> list[int]:
    """Return the index of the first test image of each digit."""
    first: dict[int, int] = {}
    for k in test:
        first.setdefault(int(labels[k]), int(k))
    return list(first.values())


def _example(net: nn.Sequential, image: np.ndarray, spikes: Tensor, label: int) -> Example:
    activity = [spikes]
    with torch.no_grad():
        for layer in net:
            spikes = layer(spikes)
            if isinstance(layer, snn.LIF):
                activity.append(spikes)
    return Example(image.reshape(8, 8), label, [s.numpy() for s in activity], spikes.numpy())


def table(result: Digits) -> list[tuple[str, dict[str, str]]]:
    """Return the rows of the summary.

    Parameters
    ----------
    result : Digits
        The result of ``digits``.

    Returns
    -------
    list of (str, dict of str to str)
        A quantity, and its value for each method.
    """
    last = {m: 100 * result.accuracy[m][:, -1] for m in METHODS}
    return [
        ("test accuracy, mean [%]", {m: f"{last[m].mean():.1f}" for m in METHODS}),
        ("  of each split [%]", {m: " ".join(f"{a:.1f}" for a in last[m]) for m in METHODS}),
        ("training loss, last epoch", {m: f"{result.loss[m][:, -1].mean():.4f}" for m in METHODS}),
    ]


def plot(result: Digits, folder: Path) -> Path:
    """Draw the learning curves, and the activity of the network for a few digits.

    Parameters
    ----------
    result : Digits
        The result of ``digits``.
    folder : Path
        The folder for ``digits.png``.

    Returns
    -------
    Path
        The path of the picture.
    """
    with style.paper():
        fig = style.figure(5.2)
        [[left, right]] = fig.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.75))
        upper, lower = left.subplots(2, 1)
        _draw_curves(upper, {m: 100 * accuracy for m, accuracy in result.accuracy.items()})
        upper.set(ylabel="Test accuracy [%]")
        upper.set_ylim(top=100)
        upper.legend(loc="lower right")
        _draw_curves(lower, result.loss)
        lower.set(ylabel="Training loss (cross-entropy)", yscale="log")
        style.letter(upper, "A", f"{len(result.loss['exodus'])} splits (thin) and their mean")
        style.letter(lower, "B")
        _draw_examples(right, result.examples)
        return style.save(fig, folder / "digits.png")


def _draw_curves(axes: Axes, curves: dict[str, np.ndarray]) -> None:
    """Draw the mean over splits, and each split as a pale line."""
    for method, values in curves.items():
        epoch = np.arange(values.shape[1]) + 1
        axes.plot(epoch, values.T, color=style.COLOURS[method], lw=0.5, alpha=0.4)
        axes.plot(epoch, values.mean(axis=0), color=style.COLOURS[method], label=style.LABELS[method])
    axes.set(xlabel="Epoch", xlim=(0, len(epoch)))


def _draw_examples(fig: SubFigure, examples: list[Example]) -> None:
    """Draw a column for each digit: the image, the spikes of each layer and the readout."""
    names = ["Pixel", "Hidden 1,\nneuron", "Hidden 2,\nneuron"]
    heights = (0.9, 1, 1.3, 1.3, 1.1)
    rows = fig.subplots(len(heights), len(examples), squeeze=False, sharey="row", height_ratios=heights)
    for column, example in zip(rows.T, examples, strict=True):
        image, *layers, readout = column
        image.imshow(example.image, cmap="gray_r")
        image.set_axis_off()
        for axes, spikes in zip(layers, example.spikes, strict=True):
            time, neuron = spikes.nonzero()
            axes.plot(time, neuron, "|", color=style.INK, ms=1.5, mew=0.5)
            axes.set(xlim=(0, STEPS), xticklabels=[], ylim=(-1, spikes.shape[1]))
        readout.plot(example.readout, color=style.GREY, lw=0.6)
        readout.plot(example.readout[:, example.label], color=style.COLOURS["exodus"])
        readout.set(xlim=(0, STEPS), xlabel="Time [ms]")
        readout.margins(y=0.25)
    for axes, name in zip(rows[1:-1, 0], names, strict=True):
        axes.set_ylabel(name)
    first = rows[-1, 0]
    first.set_ylabel("Readout,\npotential")
    first.text(0.04, 0.96, "right class", color=style.COLOURS["exodus"], va="top", transform=first.transAxes)
    first.text(0.04, 0.04, "other classes", color="#707070", va="bottom", transform=first.transAxes)
    fig.align_ylabels(rows[:, 0])
    fig.text(0.0, 0.995, "C", fontweight="bold", fontsize=9, va="top")
