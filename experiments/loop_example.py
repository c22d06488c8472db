"""Section 1: the chain rule around a loop (example 2), and the implicit function theorem (figure S1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from scipy.optimize import brentq

from exodus_core.demo import style

from .settings import Outcome, Settings, Table

Phi = Callable[[Sequence[torch.Tensor]], torch.Tensor]
STEP = 1e-5  # of the finite differences


@dataclass(frozen=True)
class Loop:
    """A function phi of three variables, and a point near its zero set.

    Attributes
    ----------
    formula : str
        The function as text.
    phi : callable
        The function of three tensors.
    near : tuple of float
        The point. Its third coordinate moves to the zero set.
    """

    formula: str
    phi: Phi
    near: tuple[float, float, float]


LOOPS = (
    Loop("x1^2 + x2^2 + x3^2 - 3", lambda x: x[0] ** 2 + x[1] ** 2 + x[2] ** 2 - 3, (0.8, 1.2, 0.9)),
    Loop("x1 x2 x3 - 1", lambda x: x[0] * x[1] * x[2] - 1, (0.5, 1.5, 1.2)),
    Loop(
        "e^x1 + sin x2 + x3^3 - 2",
        lambda x: torch.exp(x[0]) + torch.sin(x[1]) + x[2] ** 3 - 2,
        (-0.3, 0.7, 0.8),
    ),
)


def value(phi: Phi, point: Sequence[float]) -> float:
    """Evaluate phi.

    Parameters
    ----------
    phi : callable
        The function.
    point : sequence of float
        Its three variables.

    Returns
    -------
    float
        The value, in float64.
    """
    return float(phi([torch.tensor(x, dtype=torch.float64) for x in point]))


def solve(phi: Phi, point: Sequence[float], dependent: int) -> float:
    """Solve phi = 0 for one variable.

    Parameters
    ----------
    phi : callable
        The function.
    point : sequence of float
        The variables, with a first guess for the dependent one.
    dependent : int
        The index of the variable to solve for.

    Returns
    -------
    float
        The solution next to the guess.
    """

    def along(x: float) -> float:
        moved = [*point]
        moved[dependent] = x
        return value(phi, moved)

    guess = point[dependent]
    return float(brentq(along, guess - 0.3, guess + 0.3, xtol=1e-14))


def implicit_partials(phi: Phi, point: Sequence[float]) -> list[float]:
    """Compute the partial derivatives around the loop by the implicit function theorem.

    Parameters
    ----------
    phi : callable
        The function.
    point : sequence of float
        A point of the zero set.

    Returns
    -------
    list of float
        dx1/dx2, dx2/dx3 and dx3/dx1, each -phi_j / phi_i (S3).
    """
    variables = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in point]
    slopes = torch.autograd.grad(phi(variables), variables)
    return [float(-slopes[(k + 1) % 3] / slopes[k]) for k in range(3)]


def solved_partials(phi: Phi, point: Sequence[float]) -> list[float]:
    """Compute the same derivatives by solving phi = 0 beside the point.

    Parameters
    ----------
    phi : callable
        The function.
    point : sequence of float
        A point of the zero set.

    Returns
    -------
    list of float
        Central differences of the solutions.
    """
    found = []
    for dependent in range(3):
        independent = (dependent + 1) % 3
        ends = []
        for step in (STEP, -STEP):
            moved = [*point]
            moved[independent] += step
            ends.append(solve(phi, moved, dependent))
        found.append((ends[0] - ends[1]) / (2 * STEP))
    return found


# Figure S1: the zero set of phi = max(f, g), a parabola and a chord of it. The gradient of phi is that of the
# larger function, and there is none where both are 0.
PARABOLA = "x1 + x2^2 / 2 - 2"
CHORD = "x2 - 5/2 x1 - 2"
POINTS = {"A": (1.5, 1.0), "B": (2.0, 0.0), "C": (0.0, 2.0), "D": (-1.92, -2.8)}
NEIGHBOURHOOD, OFFSET = 0.3, 0.02  # of a point; along one axis, the place of the points beside it


def figure_phi(x1: np.ndarray, x2: np.ndarray) -> np.ndarray:
    """Evaluate phi of figure S1.

    Parameters
    ----------
    x1, x2 : ndarray
        The variables.

    Returns
    -------
    ndarray
        max(x1 + x2^2 / 2 - 2, x2 - 5/2 x1 - 2).
    """
    return np.maximum(x1 + x2**2 / 2 - 2, x2 - 2.5 * x1 - 2)


def figure_gradient(x1: float, x2: float) -> tuple[float, float] | None:
    """Compute the gradient of phi of figure S1 on its zero set.

    Parameters
    ----------
    x1, x2 : float
        A point of the zero set.

    Returns
    -------
    tuple of float or None
        The partial derivatives, or None where phi is not differentiable.
    """
    parabola, chord = x1 + x2**2 / 2 - 2, x2 - 2.5 * x1 - 2
    if abs(parabola - chord) < 1e-9:
        return None
    return (1.0, x2) if parabola > chord else (-2.5, 1.0)


def is_function(place: tuple[float, float], dependent: int) -> bool:
    """Tell whether phi = 0 has exactly one solution for a variable, on both sides of a point.

    Parameters
    ----------
    place : tuple of float
        A point of the zero set.
    dependent : int
        The index of the variable to solve for.

    Returns
    -------
    bool
        Whether this variable is a function of the other in a neighbourhood of the point.
    """
    centre, other = place[dependent], place[1 - dependent]
    line = centre + np.linspace(-NEIGHBOURHOOD, NEIGHBOURHOOD, 4001)
    for offset in (-OFFSET, OFFSET):
        fixed = np.full_like(line, other + offset)
        values = figure_phi(*((line, fixed) if dependent == 0 else (fixed, line)))
        if np.count_nonzero(np.diff(values < 0)) != 1:
            return False
    return True


def _verdict(place: tuple[float, float]) -> str:
    how = "" if figure_gradient(*place) else ", not differentiable"
    found = [f"x{k + 1} of x{2 - k}{how}" for k in (0, 1) if is_function(place, k)]
    return "; ".join(found) or "neither"


def run(settings: Settings) -> Outcome:
    """Check the product around the loop, and draw figure S1."""
    rows: list[list[str]] = []
    numbers: dict[str, Any] = {}
    for loop in LOOPS:
        point = (*loop.near[:2], solve(loop.phi, loop.near, 2))
        implicit, solved = implicit_partials(loop.phi, point), solved_partials(loop.phi, point)
        products = float(np.prod(implicit)), float(np.prod(solved))
        error = max(abs(a - b) for a, b in zip(implicit, solved, strict=True))
        rows.append([loop.formula, *(f"{x:.4f}" for x in implicit), f"{products[0]:.12f}", f"{error:.0e}"])
        numbers[loop.formula] = {"point": point, "implicit": implicit, "solved": solved, "products": products}
    gradients = {name: figure_gradient(*place) for name, place in POINTS.items()}
    verdicts = {name: _verdict(place) for name, place in POINTS.items()}
    numbers["figure"] = {"gradients": gradients, "functions": verdicts}
    columns = ("phi", "dx1/dx2", "dx2/dx3", "dx3/dx1", "product", "largest difference")
    around = Table(
        "Derivatives around the loop by (S3). The last column compares them with central differences of the "
        "solutions of phi = 0.",
        columns,
        rows,
    )
    shown = {name: "none" if g is None else f"({g[0]:g}, {g[1]:g})" for name, g in gradients.items()}
    functions = Table(
        "The points of figure S1: the gradient of phi, and the variable that is a function of the other "
        "nearby, found by solving phi = 0 beside the point.",
        ("point", "gradient", "function"),
        [[name, shown[name], verdicts[name]] for name in POINTS],
    )
    text = [
        "Example 2: along x1 -> x2 -> x3 -> x1 on the zero set of phi, the product of the three partial "
        "derivatives is -1. An ad-hoc chain rule would give 1 (S1).",
        f"Figure S1: the zero set of phi = max({PARABOLA}, {CHORD}), with the gradients of phi. The curve is "
        "this project's own, since the paper gives no formula. It has points of the four kinds.",
    ]
    picture = plot(settings.folder("loop_example"))
    return Outcome("Section 1, figure S1: implicit functions", text, [around, functions], [picture], numbers)


def seconds(settings: Settings) -> float:
    """Estimate how long `run` takes."""
    return 2.0


def plot(folder: Path) -> Path:
    """Draw figure S1; return the picture's path."""
    with style.paper():
        fig = style.figure(3.2)
        _draw(fig.add_subplot())
        return style.save(fig, folder / "figure_s1.png")


def _draw(axes: Axes) -> None:
    x1, x2 = np.meshgrid(np.linspace(-3, 4.5, 700), np.linspace(-3.6, 3, 700))
    axes.contour(x1, x2, figure_phi(x1, x2), [0.0], colors=style.COLOURS["exodus"])
    for name, place in POINTS.items():
        axes.plot(*place, "o", color=style.INK, ms=4)
        gradient = figure_gradient(*place)
        if gradient is not None:
            arrow = {"arrowstyle": "->", "color": style.COLOURS["slayer"], "shrinkA": 2, "shrinkB": 0}
            end = place[0] + 0.8 * gradient[0], place[1] + 0.8 * gradient[1]
            axes.annotate("", end, place, arrowprops=arrow)
        left = place[0] < 1
        axes.annotate(
            f"{name}: {_verdict(place)}",
            place,
            xytext=(-8 if left else 34, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
        )
    axes.set(xlabel="$x_1$", ylabel="$x_2$", xlim=(-5.2, 4.6), ylim=(-3.6, 2.8), aspect="equal")
