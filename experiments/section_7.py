"""Section 7: the gradient where the loss reads raw spikes of the output layer, or filtered ones.

A loss of the filtered spikes, epsilon * s, makes e[n] the correlation of epsilon with the loss's gradient. A
loss of the raw spikes makes e[n] = dL/ds[n] itself. Below the output layer nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import exodus_core as ec
import exodus_core.torch as snn
from exodus_core import kernel
from exodus_core.demo import style

from .comparison import METHODS, against_bptt, gradients_of
from .settings import Outcome, Settings, Table

SIZES = (30, 40, 20, 10)
ALPHA = 0.9
RATE = 0.05
TAILS: dict[str, Callable[[Tensor], Tensor]] = {
    "raw spikes": lambda s: s,
    "filtered spikes": lambda s: snn.kernel_filter(kernel.Exponential(ALPHA), s).output,
}


def network(seed: int) -> nn.Sequential:
    """Build a small network whose output layer spikes.

    Parameters
    ----------
    seed : int
        The seed of the weights.

    Returns
    -------
    Sequential
        Linear and LIF layers in turn, in float64, with time first.
    """
    torch.manual_seed(seed)
    modules: list[nn.Module] = []
    for inputs, outputs in pairwise(SIZES):
        modules += [nn.Linear(inputs, outputs, bias=False), snn.LIF(alpha=ALPHA)]
        nn.init.normal_(modules[-2].weight, std=2 / inputs**0.5)  # type: ignore[arg-type]
    return nn.Sequential(*modules).double()


def problem(seed: int, steps: int, batch: int) -> tuple[Tensor, Tensor]:
    """Draw input spikes, and a target for the output.

    Parameters
    ----------
    seed : int
        The seed.
    steps, batch : int
        The number of steps and of samples.

    Returns
    -------
    tuple of Tensor
        Input and target, in float64, with time first.
    """
    generator = torch.Generator().manual_seed(seed)
    spikes = torch.rand(steps, batch, SIZES[0], generator=generator) < RATE
    target = torch.rand(steps, batch, SIZES[-1], generator=generator) < RATE
    return spikes.double(), target.double()


def _loss(net: nn.Module, tail: Callable[[Tensor], Tensor], spikes: Tensor, target: Tensor) -> Tensor:
    return (tail(net(spikes)) - target).square().sum()


def written_out(potential: Tensor, loss_gradient: Tensor, alpha: float) -> Tensor:
    """Compute d[n] = sum_{m>=n} sum_{k>=m} e[k] sigma_m[k] eps[m-n] with (S9), as it stands.

    Parameters
    ----------
    potential, loss_gradient : Tensor
        u[n] and e[n] = dL/ds[n] of an LIF layer with threshold 1, of shape (time, neurons), in float64.
    alpha : float
        The decay of the membrane potential.

    Returns
    -------
    Tensor
        dL/da[n], of the same shape.
    """
    surrogate = ec.surrogate.SingleExponential()
    h = torch.from_numpy(surrogate(potential.numpy(), 1.0))
    steps = len(h)
    found = torch.zeros_like(h)
    for m in range(steps):
        sigma = torch.zeros_like(h)
        sigma[m] = h[m]
        for k in range(m + 1, steps):
            powers = alpha ** torch.arange(k - 1 - m, -1, -1, dtype=h.dtype)
            sigma[k] = -h[k] * (powers[:, None] * sigma[m:k]).sum(dim=0)
        along = (loss_gradient[m:] * sigma[m:]).sum(dim=0)
        found[: m + 1] += alpha ** torch.arange(m, -1, -1, dtype=h.dtype)[:, None] * along
    return found


def output_layer_error(tail: Callable[[Tensor], Tensor], seed: int) -> float:
    """Compare the gradient of an output layer's current with the formula written out.

    Parameters
    ----------
    tail : callable
        The filter between the spikes and the loss.
    seed : int
        The seed of current and target.

    Returns
    -------
    float
        The largest difference, relative to the largest gradient.
    """
    generator = torch.Generator().manual_seed(seed)
    current = torch.randn(60, 5, generator=generator, dtype=torch.float64).add_(0.3).requires_grad_()
    target = (torch.rand(60, 5, generator=generator) < 0.1).double()
    trace = snn.spike(current, ec.LIF(alpha=ALPHA))
    assert trace.spikes is not None  # an LIF fires
    (found,) = torch.autograd.grad((tail(trace.spikes) - target).square().sum(), current)
    spikes = trace.spikes.detach().requires_grad_()
    (loss_gradient,) = torch.autograd.grad((tail(spikes) - target).square().sum(), spikes)
    expected = written_out(trace.potential.detach(), loss_gradient, ALPHA)
    return float((found - expected).abs().max() / expected.abs().max())


def run(settings: Settings) -> Outcome:
    """Compare the gradients of each algorithm for both losses."""
    steps, batch = settings.choose((100, 8), (250, 64))
    rows: list[list[str]] = []
    numbers: dict[str, Any] = {}
    for name, tail in TAILS.items():
        net, (spikes, target) = network(0), problem(0, steps, batch)

        loss = partial(_loss, net, tail, spikes, target)
        cosines, ratios = against_bptt({m: gradients_of(net, loss, m) for m in METHODS})
        error = output_layer_error(tail, 1)
        numbers[name] = {"cosine": cosines, "norm_ratio": ratios, "difference_to_the_formula": error}
        for method in cosines:
            cells = [f"{c:.6f} / {r:.6g}" for c, r in zip(cosines[method], ratios[method], strict=True)]
            rows.append([f"{name}, {method.upper()}", *cells])
    layers = [f"weights {k + 1}" for k in range(len(SIZES) - 1)]
    table = Table(
        "Cosine similarity to BPTT's gradient, and the norm over BPTT's", ("loss, method", *layers), rows
    )
    errors = ", ".join(f"{numbers[name]['difference_to_the_formula']:.0e} for {name}" for name in TAILS)
    text = [
        f"A network of LIF layers, {'-'.join(map(str, SIZES))}, whose output layer spikes: {steps} steps, "
        f"{batch} samples, float64, squared error.",
        "The gradient of the output layer's current was also computed by the appendix's formula with "
        f"sigma_m[k] of (S9) written out. The largest differences, relative to "
        f"the largest gradient: {errors}.",
    ]
    figures = [plot(numbers, settings.folder("section_7"))]
    return Outcome("Section 7: output with and without a filter", text, [table], figures, numbers)


def seconds(settings: Settings) -> float:
    """Estimate how long `run` takes."""
    return 3.0


def plot(numbers: Mapping[str, Any], folder: Path) -> Path:
    """Draw the comparison of each weight's gradient with BPTT's; return the picture's path."""
    with style.paper():
        fig = style.figure(2.6)
        left, right = fig.subplots(1, 2)
        shown = (left, "cosine", "Cosine to BPTT"), (right, "norm_ratio", "Norm over BPTT's")
        for axes, quantity, label in shown:
            for (loss, own), line in zip(numbers.items(), (".-", "x--"), strict=True):
                for method, values in own[quantity].items():
                    colour, text = style.COLOURS[method], f"{style.LABELS[method]}, {loss}"
                    axes.plot(range(1, len(values) + 1), values, line, color=colour, label=text)
            axes.set(xlabel="Weights, from the input", ylabel=label, xticks=range(1, len(SIZES)))
        right.set_yscale("log")
        left.legend()
        style.letter(left, "A")
        style.letter(right, "B")
        return style.save(fig, folder / "section_7.png")
