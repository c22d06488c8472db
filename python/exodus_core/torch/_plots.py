"""Plots of spikes and potentials. Only they need matplotlib."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install matplotlib") from error
    return plt.subplots(figsize=(7, 3), layout="constrained")[1]


def plot_raster(spikes: Tensor, title: str, ax: Any = None) -> Any:
    """Plot spikes of shape (time, neurons) as points, larger where a neuron fires more than once a step."""
    ax = _axes(ax)
    steps, neurons = spikes.nonzero(as_tuple=True)
    counts = spikes[steps, neurons]
    size = min(20.0, max(1.0, 1500.0 / max(spikes.shape[1], 1)))
    ax.scatter(
        steps.numpy(), neurons.numpy(), s=(size * counts).numpy(), marker="|", color="black", linewidths=1
    )
    ax.set(title=title, xlabel="time (steps)", ylabel="neuron")
    ax.set_xlim(-0.5, spikes.shape[0] - 0.5)
    ax.set_ylim(-0.5, spikes.shape[1] - 0.5)
    ax.yaxis.get_major_locator().set_params(integer=True)
    return ax


def plot_trace(potential: Tensor, spikes: Tensor | None, neurons: Any, title: str, ax: Any = None) -> Any:
    """Plot potentials of shape (time, neurons) as lines, with a mark above them for each spike."""
    count = potential.shape[1]
    chosen = list(range(min(neurons, count))) if isinstance(neurons, int) else [int(k) for k in neurons]
    for neuron in chosen:
        if not 0 <= neuron < count:
            raise ValueError(f"neurons must be from 0 to {count - 1}, got {neuron}")
    ax = _axes(ax)
    values = potential[:, chosen].float()
    top = float(values.max()) if values.numel() else 0.0
    span = (top - float(values.min())) or 1.0 if values.numel() else 1.0
    for k, neuron in enumerate(chosen):
        (line,) = ax.plot(values[:, k].numpy(), linewidth=1, label=f"neuron {neuron}")
        if spikes is not None:
            fired = spikes[:, neuron].nonzero()[:, 0].numpy()
            heights = [top + (0.06 + 0.05 * k) * span] * len(fired)
            ax.scatter(fired, heights, marker="|", s=20, color=line.get_color())
    ax.set(title=title, xlabel="time (steps)", ylabel="potential before the reset")
    ax.set_xlim(-0.5, max(potential.shape[0] - 0.5, 0.5))
    if chosen:
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return ax
