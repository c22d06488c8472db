"""The claim: EXODUS computes the gradients of BPTT, and SLAYER does not.

The experiment is that of section 5 and figure S2 of the paper's appendix. It compares the gradients of a
100-128-128-35 network of integrate-and-fire neurons at its first training step.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import exodus_core.torch as snn

from . import style

SIZES = (100, 128, 128, 35)
METHODS = ("exodus", "slayer", "bptt")
RATE = 0.03  # spikes per input and step: 30 Hz with steps of a millisecond


@dataclass
class Claim:
    """The gradients of the three algorithms.

    Attributes
    ----------
    gradients : dict of str to list of ndarray
        For each method, the gradient of each weight matrix, from the input up, in float64.
    cosine, norm_ratio : dict of str to list of float
        For each weight matrix, the cosine similarity to the gradient of BPTT, and the ratio of the norms.
    loss : float
        The cross-entropy, the same for all three.
    """

    gradients: dict[str, list[np.ndarray]]
    cosine: dict[str, list[float]]
    norm_ratio: dict[str, list[float]]
    loss: float


def _loss(weights: list[Tensor], spikes: Tensor, labels: Tensor, method: str) -> Tensor:
    """Run the network, with time on the first dimension, and return the loss."""
    for weight in weights[:-1]:
        # The default surrogate peaks at 1. Exact gradients of IF neurons grow only above a peak of 2.
        spikes = snn.IF(method=method)(spikes @ weight)
    return cross_entropy((spikes @ weights[-1]).amax(dim=0), labels)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))


def _norm_ratio(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a) / np.linalg.norm(b))


def claim(seed: int = 0, steps: int = 250, batch: int = 128) -> Claim:
    """Compute the weight gradients of one training step by EXODUS, SLAYER and BPTT.

    All arithmetic is float64, so that rounding shows only around the 15th digit.

    Parameters
    ----------
    seed : int, optional
        Seed of weights, input and labels.
    steps, batch : int, optional
        Number of time steps, and of samples.

    Returns
    -------
    Claim
        The gradients, compared with those of BPTT.
    """
    generator = torch.Generator().manual_seed(seed)
    start = [
        torch.randn(inputs, outputs, generator=generator, dtype=torch.float64) / inputs**0.5
        for inputs, outputs in pairwise(SIZES)
    ]
    spikes = (torch.rand(steps, batch, SIZES[0], generator=generator) < RATE).double()
    labels = torch.randint(SIZES[-1], (batch,), generator=generator)
    gradients = {}
    for method in tqdm(METHODS, desc="claim", unit="method"):
        weights = [weight.clone().requires_grad_() for weight in start]
        loss = _loss(weights, spikes, labels, method)
        gradients[method] = [gradient.numpy() for gradient in torch.autograd.grad(loss, weights)]
    exact = gradients["bptt"]
    cosine = {m: list(map(_cosine, gradients[m], exact)) for m in METHODS}
    norm_ratio = {m: list(map(_norm_ratio, gradients[m], exact)) for m in METHODS}
    return Claim(gradients, cosine, norm_ratio, float(loss.detach()))


def table(result: Claim) -> list[tuple[str, dict[str, str]]]:
    """Return the rows of the summary.

    Parameters
    ----------
    result : Claim
        The result of ``claim``.

    Returns
    -------
    list of (str, dict of str to str)
        A quantity, and its value for each method.
    """
    layers = range(len(SIZES) - 1)
    cosines = [
        (f"cosine to BPTT, weights {k + 1}", {m: f"{result.cosine[m][k]:.6f}" for m in METHODS})
        for k in layers
    ]
    norms = [
        (f"norm over BPTT's, weights {k + 1}", {m: f"{result.norm_ratio[m][k]:.6g}" for m in METHODS})
        for k in layers
    ]
    return cosines + norms


def plot(result: Claim, folder: Path) -> Path:
    """Draw the similarities, and each gradient against that of BPTT.

    Parameters
    ----------
    result : Claim
        The result of ``claim``.
    folder : Path
        The folder for ``claim.png``.

    Returns
    -------
    Path
        The path of the picture.
    """
    with style.paper():
        fig = style.figure(4.7)
        [upper], [lower] = fig.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.12))
        left, right = upper.subplots(1, 2)
        _draw_layers(left, result.cosine)
        left.set(ylabel="Cosine similarity to BPTT", ylim=(min(0, *result.cosine["slayer"]), 1.08))
        left.legend(loc="lower right")
        _draw_layers(right, result.norm_ratio)
        right.set(ylabel="Norm / norm of BPTT", yscale="log")
        right.set_ylim(0.5, 2 * max(result.norm_ratio["slayer"]))
        style.letter(left, "A", "Direction of the weight gradient")
        style.letter(right, "B", "Length of the weight gradient")
        for k, axes in enumerate(lower.subplots(1, 3)):
            _draw_gradients(axes, {method: result.gradients[method][k] for method in METHODS})
            style.letter(axes, "CDE"[k], f"Weights {k + 1} ({SIZES[k]} to {SIZES[k + 1]})")
        lower.axes[0].set_ylabel("Gradient (unit norm, ×10⁻²)")
        return style.save(fig, folder / "claim.png")


def _draw_layers(axes: Axes, values: dict[str, list[float]]) -> None:
    # Larger marks are drawn first, so that all are visible where they coincide.
    marks: dict[str, dict[str, Any]] = {
        "exodus": {"marker": "o", "ms": 3.5, "zorder": 4},
        "slayer": {"marker": "s", "ms": 5.5, "zorder": 3},
        "bptt": {"marker": "o", "ms": 10, "mfc": "none", "mew": 0.8, "ls": "none"},
    }
    for method, mark in marks.items():
        axes.plot(values[method], color=style.COLOURS[method], label=style.LABELS[method], **mark)
    names = ["1 (input)", "2", "3 (output)"]
    axes.set(xticks=range(len(names)), xticklabels=names, xlabel="Weights", xlim=(-0.3, len(names) - 0.7))


def _draw_gradients(axes: Axes, gradients: dict[str, np.ndarray]) -> None:
    """Draw a point for each weight: its gradient against that of BPTT, both vectors scaled to norm 100."""
    scaled = {method: 100 * g.ravel() / np.linalg.norm(g) for method, g in gradients.items()}
    axes.plot(scaled["bptt"], scaled["slayer"], ".", color=style.COLOURS["slayer"], ms=2.5, mew=0, alpha=0.5)
    axes.plot(scaled["bptt"], scaled["exodus"], ".", color=style.COLOURS["exodus"], ms=1.2, mew=0)
    limit = 1.05 * max(np.abs(g).max() for g in scaled.values())
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xlabel="BPTT (unit norm, ×10⁻²)")
    axes.locator_params(nbins=5)
