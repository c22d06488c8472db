"""The study of gradient scales: the norm of the gradient and the final loss, over surrogate scales and tau.

The network is that of table S1 for HSD with LIF layers. The paper's finding is that the norm of SLAYER's
gradient depends on both settings by orders of magnitude, so that they need tuning, and that of EXODUS hardly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import nn
from torch.nn.functional import cross_entropy

import exodus_core.torch as snn
from exodus_core.demo import style
from exodus_core.surrogate import SingleExponential

from . import digits, networks
from .jobs import run_jobs
from .settings import Outcome, Settings, Table
from .training import Plan, Run

WIDTH = 0.5  # of the surrogate
SCALES = (0.01, 0.1, 1.0, 2.0)
TAUS = (20.0, 50.0, 200.0, 1e5)
METHODS = ("exodus", "slayer")
TARGET_RATE = 0.1


def measure(
    method: str, scale: float, tau: float, epochs: int, data: Path | None, folder: Path
) -> dict[str, Any]:
    """Measure the gradient of the first step, and train; a job of ``run_jobs``.

    Parameters
    ----------
    method : str
        "exodus" or "slayer".
    scale, tau : float
        The scale of the surrogate, and the time constant of the neurons in steps.
    epochs : int
        The number of epochs.
    data : Path or None
        The folder with recordings.
    folder : Path
        The folder for spikes and checkpoints.

    Returns
    -------
    dict
        "norm" of the gradient of all weights, and "loss" of the last epoch.
    """

    def make() -> nn.Module:
        surrogate = SingleExponential(width=WIDTH, scale=scale)
        return networks.speech(10, lambda: snn.LIF(tau=tau, surrogate=surrogate, method=method))

    plan = Plan(epochs, 128, target_rate=TARGET_RATE)
    splits = digits.load_or_stand_in(data, folder)
    norm = _first_norm(Run(make, networks.max_over_time, splits, plan))
    run = Run(make, networks.max_over_time, splits, plan, folder / f"{method}-{scale}-{tau}.pt")
    return {"norm": norm, "loss": run.train().loss[-1]}


def _first_norm(run: Run) -> float:
    inputs, labels = run.splits.train.batch(torch.arange(0, len(run.splits.train), 16), run.plan.device)
    loss = cross_entropy(run.readout(run.network(inputs)), labels)
    gradients = torch.autograd.grad(loss, list(run.network.parameters()))
    return float(torch.cat([gradient.flatten() for gradient in gradients]).norm())


def jobs(settings: Settings) -> dict[str, tuple[Any, ...]]:
    """Return the runs, by the name of the job."""
    epochs = settings.epochs or settings.choose(1, 30)
    scales, taus = (SCALES[::2], TAUS[::3]) if settings.quick else (SCALES, TAUS)
    common = epochs, settings.data, settings.folder("gradient_scale")
    return {
        f"{method}-{scale}-{tau}": (method, scale, tau, *common)
        for method in METHODS
        for scale in scales
        for tau in taus
    }


def run(settings: Settings) -> Outcome:
    """Measure and train in all settings."""
    folder, chosen = settings.folder("gradient_scale"), jobs(settings)
    digits.load_or_stand_in(settings.data, folder)  # once, before the processes
    results = run_jobs(measure, chosen, folder, settings.workers, "gradient scale")
    grid = {(job[0], job[1], job[2]): results[name] for name, job in chosen.items()}
    spans = {quantity: {m: _span(grid, m, quantity) for m in METHODS} for quantity in ("norm", "loss")}
    lower = sum(
        result["loss"] < grid["slayer", scale, tau]["loss"]
        for (method, scale, tau), result in grid.items()
        if method == "exodus"
    )
    epochs = next(iter(chosen.values()))[3]
    unstable = [f"scale {s:g} with tau {t:g}" for m, s, t in grid if m == "exodus" and grows(s, t)]
    text = [
        f"{'Spoken digits' if settings.data else 'A synthetic stand-in for speech'}, the network "
        f"100-128l-128l-10l with LIF layers, surrogate of width {WIDTH}, initial rates of {TARGET_RATE}, "
        f"epochs of Adam with learning rate 0.001: {epochs}.",
        "Where the peak of the surrogate is above (1 + alpha) / theta, exact gradients can grow from step to "
        f"step: here {', '.join(unstable) or 'in no setting'}. The spans leave these out.",
        f"Over the settings the norm of the first gradient spans a factor of {spans['norm']['exodus']:.3g} "
        f"with EXODUS, and of {spans['norm']['slayer']:.3g} with SLAYER. The final training losses span "
        f"factors of {spans['loss']['exodus']:.2f} and {spans['loss']['slayer']:.2f}. EXODUS ends at the "
        f"lower loss in {lower} of {len(grid) // 2} settings.",
    ]
    return Outcome("Gradient scales", text, [_table(grid)], [plot(grid, folder)], results)


def grows(scale: float, tau: float) -> bool:
    """Tell whether the exact gradient can grow from step to step: h > (1 + alpha) / theta at the threshold 1.

    Parameters
    ----------
    scale, tau : float
        The scale of the surrogate, and the time constant in steps.

    Returns
    -------
    bool
        Whether it can.
    """
    return scale / WIDTH > 1 + math.exp(-1 / tau)


def _span(grid: Mapping[tuple[str, float, float], Any], method: str, quantity: str) -> float:
    values = [r[quantity] for (own, scale, tau), r in grid.items() if own == method and not grows(scale, tau)]
    return float(max(values) / min(values))


def _table(grid: Mapping[tuple[str, float, float], Any]) -> Table:
    rows = []
    for (method, scale, tau), exodus in grid.items():
        if method == "exodus":
            slayer = grid["slayer", scale, tau]
            norms = f"{exodus['norm']:.3g}", f"{slayer['norm']:.3g}"
            rows.append([f"{scale:g}", f"{tau:g}", *norms, f"{exodus['loss']:.3f}", f"{slayer['loss']:.3f}"])
    columns = ("scale", "tau", "norm, EXODUS", "norm, SLAYER", "loss, EXODUS", "loss, SLAYER")
    return Table("Norm of the first gradient, and training loss of the last epoch", columns, rows)


def seconds(settings: Settings) -> float:
    """Estimate how long `run` takes."""
    chosen = jobs(settings)
    each = 6.0 + 2.5 * next(iter(chosen.values()))[3]
    return float(len(chosen) * each / settings.workers)


def plot(grid: Mapping[tuple[str, float, float], Any], folder: Path) -> Path:
    """Draw norms and losses over the scale of the surrogate, for each tau; return the picture's path."""
    with style.paper():
        fig = style.figure(2.6)
        left, right = fig.subplots(1, 2)
        _draw(left, grid, "norm", "Norm of the first gradient")
        _draw(right, grid, "loss", "Final training loss")
        left.legend()
        style.letter(left, "A")
        style.letter(right, "B", "the larger tau, the thicker the line")
        return style.save(fig, folder / "gradient_scale.png")


def _draw(axes: Axes, grid: Mapping[tuple[str, float, float], Any], quantity: str, title: str) -> None:
    scales, taus = (sorted({key[k] for key in grid}) for k in (1, 2))
    for method in METHODS:
        for k, tau in enumerate(taus):
            values = [grid[method, scale, tau][quantity] for scale in scales]  # type: ignore[index]
            label = style.LABELS[method] if k == 0 else None
            axes.plot(scales, values, ".-", color=style.COLOURS[method], lw=0.6 + 0.5 * k, label=label)
    axes.set(xscale="log", yscale="log", xlabel="Scale of the surrogate", ylabel=title)
