"""Table S2: the time of a training step, forward and backward, by each algorithm.

The networks are those of table S1. BPTT is measured twice: that of this library, and a loop in torch, as the
paper's was, which records every step of every layer for autograd. The four take turns in one process. Before
that, the loop's spikes and gradients are compared with this library's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import exodus_core.torch as snn
from exodus_core.demo import style
from exodus_core.surrogate import SingleExponential

from . import table_s1
from .settings import Outcome, Settings, Table
from .table_s1 import Task
from .training import cosine

WIDTH, SCALE = 0.5, 0.5
LOOP = "torch loop"
METHODS = ("exodus", "slayer", "bptt", LOOP)
NAMES = {**style.LABELS, LOOP: "BPTT, torch loop"}
COLOURS = {**style.COLOURS, LOOP: style.GREY}
# Milliseconds on a GTX 1080 Ti, forward and backward: table S2.
PAPER = {
    "DVS Gesture": {"exodus": (147.47, 89.63), "slayer": (246.13, 105.41), LOOP: (970.72, 1485.28)},
    "HSD": {"exodus": (14.84, 26.24), "slayer": (64.48, 21.26), LOOP: (334.74, 238.63)},
    "SSC": {"exodus": (4.60, 9.60), "slayer": (36.54, 11.38), LOOP: (123.29, 166.08)},
}


class _Fires(torch.autograd.Function):
    """1[u >= 1], with the derivative of ``SingleExponential(WIDTH, SCALE)``."""

    @staticmethod
    def forward(ctx: Any, potential: Tensor) -> Tensor:
        ctx.save_for_backward(potential)
        return (potential >= 1.0).to(potential)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (potential,) = ctx.saved_tensors
        return grads[0] * (SCALE / WIDTH) * torch.exp(-(potential - 1.0).abs() / WIDTH)


class LoopedIF(nn.Module):
    """IF neurons as a loop over time in torch: u[n] = u[n-1] + a[n] - s[n-1]."""

    time_dim = 1  # whole sequences, batch first: see ``snn.Sequential``

    def forward(self, current: Tensor) -> Tensor:
        """Run the neurons over time.

        Parameters
        ----------
        current : Tensor
            The input current, of shape (batch, time, ...).

        Returns
        -------
        Tensor
            The spikes, of the same shape.
        """
        potential = spike = torch.zeros_like(current[:, 0])
        spikes = []
        for step in current.unbind(1):
            potential = potential + step - spike
            spike = _Fires.apply(potential)
            spikes.append(spike)
        return torch.stack(spikes, 1)


TASKS: Mapping[str, Task] = {name: table_s1.TASKS[name] for name in PAPER}


def spiking(method: str) -> nn.Module:
    """Make an IF layer.

    Parameters
    ----------
    method : str
        An algorithm of this library, or `LOOP`.

    Returns
    -------
    Module
        The layer.
    """
    if method == LOOP:
        return LoopedIF()
    return snn.IF(surrogate=SingleExponential(WIDTH, SCALE), method=method)


class Stepper:
    """A network by each method, with the same weights, and a batch.

    Parameters
    ----------
    task : Task
        The network and its data.
    batch : int
        The number of samples.
    device : str
        The device for torch.
    """

    def __init__(self, task: Task, batch: int, device: str) -> None:
        self.task, self.device = task, device
        samples = task.stand_in((batch, 1, 1)).train
        self.inputs, self.labels = samples.batch(torch.arange(batch), device)
        torch.manual_seed(0)
        first = task.build(lambda: spiking(METHODS[0])).to(device)
        snn.init_(first, self.inputs, target_rate=0.05)
        self.networks = {}
        for method in METHODS:
            self.networks[method] = task.build(partial(spiking, method)).to(device)
            weights = dict(first.named_parameters())
            with torch.no_grad():
                for name, parameter in self.networks[method].named_parameters():
                    parameter.copy_(weights[name])

    def loss(self, method: str) -> Tensor:
        """Run the network.

        Parameters
        ----------
        method : str
            One of `METHODS`.

        Returns
        -------
        Tensor
            The cross entropy.
        """
        return cross_entropy(self.task.readout(self.networks[method](self.inputs)), self.labels)

    def now(self) -> float:
        """Wait for the device, and read the clock.

        Returns
        -------
        float
            Seconds.
        """
        if self.device != "cpu":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def times(self, method: str) -> tuple[float, float]:
        """Measure a training step.

        Parameters
        ----------
        method : str
            One of `METHODS`.

        Returns
        -------
        tuple of float
            Seconds of the forward and of the backward pass.
        """
        self.networks[method].zero_grad()
        begin = self.now()
        loss = self.loss(method)
        middle = self.now()
        loss.backward()
        return middle - begin, self.now() - middle

    def agreement(self) -> tuple[float, float, float]:
        """Compare the loop with this library's BPTT.

        Returns
        -------
        tuple of float
            The difference of the losses, the least cosine of the weights' gradients, and the ratio of norms
            that is farthest from 1.
        """
        gradients = {}
        losses = {}
        for method in ("bptt", LOOP):
            losses[method] = self.loss(method)
            weights = [p for p in self.networks[method].parameters() if p.dim() > 1]
            gradients[method] = torch.autograd.grad(losses[method], weights)
        pairs = list(zip(gradients["bptt"], gradients[LOOP], strict=True))
        ratios = [float(b.norm() / a.norm()) for a, b in pairs]
        difference = abs(float(losses["bptt"].detach() - losses[LOOP].detach()))
        return difference, min(cosine(a, b) for a, b in pairs), max(ratios, key=lambda r: abs(r - 1))


def run(settings: Settings) -> Outcome:
    """Measure the times."""
    rounds, share = settings.choose((4, 8), (16, 1))
    numbers: dict[str, Any] = {}
    for name, task in TASKS.items():
        stepper = Stepper(task, task.batch // share, settings.device)
        difference, least, ratio = stepper.agreement()
        times: dict[str, list[tuple[float, float]]] = {method: [] for method in METHODS}
        for round_ in tqdm(range(rounds + 1), f"table S2, {name}", unit="round", disable=None, leave=False):
            turn = round_ % len(METHODS)  # the first and the last one change
            for method in (*METHODS[turn:], *METHODS[:turn]):
                measured = stepper.times(method)
                if round_ > 0:  # the first one warms up
                    times[method].append(measured)
        numbers[name] = {
            "batch": task.batch // share,
            "milliseconds": {m: [[1e3 * s for s in pair] for pair in own] for m, own in times.items()},
            "loop": {"loss_difference": difference, "cosine": least, "norm_ratio": ratio},
        }
    checks = "; ".join(
        f"{name}: cosine {one['loop']['cosine']:.6f}, norm ratio {one['loop']['norm_ratio']:.6f}, losses "
        f"apart by {one['loop']['loss_difference']:.0e}"
        for name, one in numbers.items()
    )
    batches = ", ".join(f"{name} {one['batch']}" for name, one in numbers.items())
    text = [
        f"Milliseconds of a training step in float32 on this machine ({settings.device}, "
        f"{torch.get_num_threads()} threads), median of {rounds} rounds in which the methods take turns. "
        f"Batches: {batches}. The inputs are synthetic, of the sets' shapes. Layers fire at 5 % at first. "
        "With all methods the weights visit the spikes only; the paper's are dense products.",
        f"The torch loop against BPTT of this library: {checks}.",
        "Ratios compare with EXODUS's time in the same column. Those of the paper, on a GTX 1080 Ti, are in "
        "brackets.",
    ]
    figures = [plot(numbers, settings.folder("table_s2"))]
    return Outcome("Table S2: time of a training step", text, [_table(numbers)], figures, numbers)


def _median(numbers: Mapping[str, Any], name: str, method: str, pass_: int) -> float:
    return float(statistics.median(pair[pass_] for pair in numbers[name]["milliseconds"][method]))


def _table(numbers: Mapping[str, Any]) -> Table:
    rows = []
    for name in numbers:
        for method in METHODS:
            cells = []
            for k in (0, 1):
                own, exodus = _median(numbers, name, method, k), _median(numbers, name, "exodus", k)
                paper = PAPER[name].get(method)
                theirs = "" if paper is None else f" ({paper[k] / PAPER[name]['exodus'][k]:.2f})"
                spread = [pair[k] for pair in numbers[name]["milliseconds"][method]]
                cells += [f"{own:.1f} [{min(spread):.1f}, {max(spread):.1f}]", f"{own / exodus:.2f}{theirs}"]
            rows.append([f"{name}, {NAMES[method]}", *cells])
    columns = ("network, method", "forward, ms [least, most]", "ratio", "backward, ms [least, most]", "ratio")
    return Table("Time of a training step", columns, rows)


def seconds(settings: Settings) -> float:
    """Estimate how long `run` takes."""
    return float(settings.choose(40.0, 600.0))


def plot(numbers: Mapping[str, Any], folder: Path) -> Path:
    """Draw each method's time over EXODUS's, here and in the paper; return the picture's path."""
    with style.paper():
        fig = style.figure(2.8)
        panels = fig.subplots(1, 2)
        for k, (axes, title) in enumerate(zip(panels, ("Forward", "Backward"), strict=True)):
            for m, method in enumerate(METHODS[1:]):
                places = {name: n + 0.25 * (m - 1) for n, name in enumerate(numbers)}
                own = [_median(numbers, n, method, k) / _median(numbers, n, "exodus", k) for n in numbers]
                axes.bar(list(places.values()), own, 0.22, color=COLOURS[method], label=NAMES[method])
                paper = {
                    n: PAPER[n][method][k] / PAPER[n]["exodus"][k] for n in numbers if method in PAPER[n]
                }
                text = "paper, on a GPU" if m == 0 else None
                axes.plot([places[n] for n in paper], list(paper.values()), "k_", ms=9, label=text)
            axes.axhline(1, color=style.GREY, lw=0.8, ls=":")
            axes.set(xticks=range(len(numbers)), yscale="log", ylabel=f"{title}: time over EXODUS's")
            axes.set_xticklabels(list(numbers))
        fig.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
        style.letter(panels[0], "A")
        style.letter(panels[1], "B")
        return style.save(fig, folder / "table_s2.png")
