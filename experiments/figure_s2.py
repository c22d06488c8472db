"""Figure S2: the gradients of EXODUS and SLAYER against those of BPTT, layer by layer, at the first step.

The network is that of table S1 for SSC, with integrate-and-fire layers and the loss of the largest output
over time. Where a setting lets exact gradients grow from step to step, float64 keeps their digits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import exodus_core.torch as snn
from exodus_core.demo import style
from exodus_core.surrogate import SingleExponential

from . import digits, networks
from .comparison import METHODS, against_bptt, gradients_of
from .jobs import run_jobs
from .settings import Outcome, Settings, Table

HIDDEN = 128
WIDTH, SCALE = 0.5, 1.0  # of the surrogate: the paper's
SCALES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.03, 0.02, 0.015, 0.01)
WIDTHS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0)
TAUS = (5.0, 20.0, 100.0, None)  # None: an IF
RATES = (0.02, 0.05, 0.1, 0.2)  # spikes per step of hidden layers, by scaled weights
DEPTHS = (2, 3, 4, 5, 6, 7, 8)
PAPER = 0.88  # the cosine of SLAYER at the input layer
PAIRS = ("exodus", "slayer")


@dataclass(frozen=True)
class Case:
    """A setting of the network.

    Attributes
    ----------
    tau : float or None
        The time constant of LIF layers in steps; None for IF layers.
    width, scale : float
        The surrogate's.
    weights : float
        A factor on torch's initial weights.
    rate : float or None
        The rate to which `init_` scales the weights instead.
    layers : int
        The number of hidden layers.
    seed : int
        The seed of weights and of the choice of samples.
    """

    tau: float | None = None
    width: float = WIDTH
    scale: float = SCALE
    weights: float = 2.0
    rate: float | None = None
    layers: int = 2
    seed: int = 0

    def grows(self) -> bool:
        """Tell whether the exact gradient can grow: h > (1 + alpha) / theta at the threshold, theta = 1.

        Returns
        -------
        bool
            Whether it can.
        """
        alpha = 1.0 if self.tau is None else math.exp(-1 / self.tau)
        return self.scale / self.width > 1 + alpha

    def layer(self) -> nn.Module:
        """Make a spiking layer.

        Returns
        -------
        Module
            An IF or an LIF.
        """
        surrogate = SingleExponential(width=self.width, scale=self.scale)
        return snn.IF(surrogate=surrogate) if self.tau is None else snn.LIF(tau=self.tau, surrogate=surrogate)

    def network(self, inputs: Tensor, outputs: int) -> nn.Module:
        """Build the network.

        Parameters
        ----------
        inputs : Tensor
            A batch, which `init_` measures if the case has a rate.
        outputs : int
            The number of classes.

        Returns
        -------
        Module
            The network, in float64.
        """
        torch.manual_seed(self.seed)
        network = networks.speech(outputs, self.layer, (inputs.shape[-1], *[HIDDEN] * self.layers))
        network = network.double()
        if self.rate is None:
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.mul_(self.weights)
        else:
            snn.init_(network, inputs, target_rate=self.rate)
        return network


def compare(case: Case, data: Path | None, cache: Path, batch: int) -> dict[str, Any]:
    """Compare the gradients of the first training step; a job of ``run_jobs``.

    Parameters
    ----------
    case : Case
        The setting.
    data : Path or None
        The folder with recordings.
    cache : Path
        A folder for their spikes.
    batch : int
        The number of samples.

    Returns
    -------
    dict
        "cosine" and "norm_ratio", by method, a value for each weight matrix; "norm" of BPTT's gradients;
        "rates" of the hidden layers.
    """
    train = digits.load_or_stand_in(data, cache).train
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(case.seed))
    inputs, labels = train.batch(order[:batch], "cpu")
    inputs = inputs.double()
    network = case.network(inputs, 10)

    def loss() -> Tensor:
        return cross_entropy(networks.max_over_time(network(inputs)), labels)

    with snn.Monitor(network, warn=False, growth=False) as monitor, torch.no_grad():
        network(inputs)
    gradients = {method: gradients_of(network, loss, method) for method in METHODS}
    cosines, ratios = against_bptt(gradients)
    norms = [float(gradient.norm()) for gradient in gradients["bptt"].values()]
    rates = [layer.rate for layer in monitor.layers.values()]
    return {"cosine": cosines, "norm_ratio": ratios, "norm": norms, "rates": rates}


def cases(settings: Settings) -> dict[str, Case]:
    """Return the settings of all panels, by the name of the job."""
    every = settings.choose(2, 1)
    panels: dict[str, tuple[str, Sequence[Any]]] = {
        "scale": ("scale", SCALES[::every]),
        "width": ("width", WIDTHS[::every]),
        "tau": ("tau", TAUS),
        "rate": ("rate", RATES[::every]),
        "depth": ("layers", DEPTHS[::every]),
    }
    found = {f"paper, seed {seed}": Case(seed=seed) for seed in range(settings.choose(2, 5))}
    for seed in range(settings.choose(1, 3)):
        for panel, (field, values) in panels.items():
            for value in values:
                found[f"{panel} {value}, seed {seed}"] = replace(Case(seed=seed), **{field: value})
    return found


def run(settings: Settings) -> Outcome:
    """Compare the gradients in all settings, and draw figure S2."""
    folder, batch = settings.folder("figure_s2"), settings.choose(32, 128)
    digits.load_or_stand_in(settings.data, folder)  # once, before the processes
    chosen = cases(settings)
    jobs = {name: (case, settings.data, folder, batch) for name, case in chosen.items()}
    results = run_jobs(compare, jobs, folder, settings.workers, "figure S2")
    closest = min(results, key=lambda name: abs(_input_cosine(results[name]) - PAPER))
    worst = max(abs(c - 1) for result in results.values() for c in result["cosine"]["exodus"])
    seeds = [result for name, result in results.items() if name.startswith("paper")]
    growing = sorted({name.partition(",")[0] for name, case in chosen.items() if case.grows()})
    text = [
        f"{'Real speech' if settings.data else 'A synthetic stand-in for speech'}, 100 channels, 250 steps, "
        f"{batch} samples, float64, one training step. The output layer has no spikes, as in table S1. "
        f"Unless a panel says otherwise: IF, surrogate of width {WIDTH} and scale {SCALE}, torch's initial "
        "weights times 2.",
        f"EXODUS has the gradients of BPTT: over {len(results)} settings and seeds, and all layers, the "
        f"cosine differs from 1 by at most {worst:.0e}. SLAYER's cosine is, from the input to the output, "
        f"{_layers(seeds, 'cosine', '.2f')} for the seeds, and its norm over BPTT's "
        f"{_layers(seeds, 'norm_ratio', '.3g')}.",
        f"The paper reports a cosine of {PAPER} at the input layer. The nearest of these settings is "
        f"{closest!r} with {_input_cosine(results[closest]):.2f}: {chosen[closest]}.",
        "Exact gradients can grow from step to step where the peak of the surrogate, scale / width, is above "
        f"(1 + alpha) / theta: {', '.join(growing) or 'in no setting'}. Where BPTT's norm has grown, a ratio "
        "to it tells little of SLAYER.",
    ]
    figures = [plot(results, chosen, folder)]
    return Outcome("Figure S2: similarity to BPTT", text, [_table(results)], figures, results)


def _layers(results: list[Any], quantity: str, form: str) -> str:
    """Show SLAYER's values of each layer, seed by seed."""
    return "; ".join(", ".join(format(x, form) for x in result[quantity]["slayer"]) for result in results)


def _input_cosine(result: Mapping[str, Any]) -> float:
    return float(result["cosine"]["slayer"][0])


def _table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = []
    for name, result in results.items():
        cells = [f"{_input_cosine(result):.3f}", f"{result['norm_ratio']['slayer'][0]:.3g}"]
        exact = f"{result['cosine']['exodus'][0]:.6f}"
        rows.append([name, *cells, exact, f"{result['norm'][0]:.2g}", f"{result['rates'][0]:.3f}"])
    columns = ("setting", "cosine", "norm ratio", "EXODUS's cosine", "BPTT's norm", "rate")
    return Table("Weights of the input layer: SLAYER and EXODUS against BPTT", columns, rows)


def seconds(settings: Settings) -> float:
    """Estimate how long `run` takes."""
    reading = 50.0 if settings.data else 5.0
    each = settings.choose(3.0, 10.0)
    return float(reading + len(cases(settings)) * each / settings.workers)


def plot(results: Mapping[str, Any], chosen: Mapping[str, Case], folder: Path) -> Path:
    """Draw the comparison; return the picture's path."""
    with style.paper():
        fig = style.figure(5.2)
        panels = fig.subplots(2, 3)
        seeds = [result for name, result in results.items() if name.startswith("paper")]
        _draw_layers(panels[0, 0], seeds, "cosine", "Cosine to BPTT")
        panels[0, 0].axhline(PAPER, color=style.GREY, lw=0.8, ls=":", label="paper, input layer")
        panels[0, 0].legend(loc="lower right")
        _draw_layers(panels[0, 1], seeds, "norm_ratio", "Norm over BPTT's")
        panels[0, 1].set_yscale("log")
        _draw_depths(panels[0, 2], results, chosen)
        _draw_over(panels[1, 0], results, chosen, "scale")
        _draw_over(panels[1, 1], results, chosen, "rate")
        _draw_widths(panels[1, 2], results, chosen)
        for axes, name in zip(panels.flat, "ABCDEF", strict=True):
            style.letter(axes, name)
        return style.save(fig, folder / "figure_s2.png")


def _by_seed(chosen: Mapping[str, Case], panel: str) -> list[list[str]]:
    """Return the names of a panel's settings, seed by seed."""
    own = [name for name in chosen if name.startswith(panel)]
    seeds = sorted({chosen[name].seed for name in own})
    return [[name for name in own if chosen[name].seed == seed] for seed in seeds]


def _draw_layers(axes: Axes, results: list[Any], quantity: str, label: str) -> None:
    for method in PAIRS:
        for k, result in enumerate(results):
            values = result[quantity][method]
            text = style.LABELS[method] if k == 0 else None
            axes.plot(range(1, len(values) + 1), values, ".-", color=style.COLOURS[method], label=text)
    axes.set(xlabel="Weights, from the input", ylabel=label, xticks=range(1, len(values) + 1))


def _draw_depths(axes: Axes, results: Mapping[str, Any], chosen: Mapping[str, Case]) -> None:
    for seed, names in enumerate(_by_seed(chosen, "depth")):
        for name in names:
            values = results[name]["norm_ratio"]["slayer"]
            axes.plot(range(len(values), 0, -1), values, ".-", color=style.COLOURS["slayer"])
            if seed == 0:
                at = len(values), values[0]
                axes.annotate(f"{chosen[name].layers}", at, (3, 2), textcoords="offset points")
    axes.set(xlabel="Weights, from the output", ylabel="SLAYER's norm over BPTT's", yscale="log")
    axes.set_title("hidden layers", loc="right")


def _draw_over(axes: Axes, results: Mapping[str, Any], chosen: Mapping[str, Case], field: str) -> None:
    for names in _by_seed(chosen, field):
        values = [getattr(chosen[name], field) for name in names]
        cosines = [_input_cosine(results[name]) for name in names]
        axes.plot(values, cosines, ".-", color=style.COLOURS["slayer"])
    axes.axhline(PAPER, color=style.GREY, lw=0.8, ls=":")
    at = max(values), PAPER
    axes.annotate("paper", at, (0, 2), textcoords="offset points", ha="right", color=style.GREY)
    texts = {"scale": "Scale of the surrogate", "rate": "Initial rate of hidden layers"}
    axes.set(xscale="log", xlabel=texts[field], ylabel="SLAYER's cosine, input layer")
    ticks = values[:: math.ceil(len(values) / 4)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _draw_widths(axes: Axes, results: Mapping[str, Any], chosen: Mapping[str, Case]) -> None:
    for names in _by_seed(chosen, "width"):
        widths = [chosen[name].width for name in names]
        axes.plot(widths, [results[name]["norm"][0] for name in names], ".-", color=style.COLOURS["bptt"])
    # The peak of h, scale / width, may be (1 + alpha) / theta at most, which is 2 for an IF.
    axes.axvline(SCALE / 2, color=style.GREY, lw=0.8, ls=":")
    axes.annotate("bound", (SCALE / 2, 1), (3, -8), ("data", "axes fraction"), "offset points")
    axes.set(xscale="log", yscale="log", xlabel="Width of the surrogate", ylabel="BPTT's norm, input layer")
