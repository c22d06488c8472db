"""Draw docs/architecture.svg, the picture of architecture.md: python docs/architecture.py."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

HERE = Path(__file__).parent
WIDTH, HEIGHT = 100, 66  # the unit of all positions below
INK, QUIET, EDGE = "#1b1f24", "#57606a", "#8c959f"
PAPER = "#ffffff"  # a white card, which is readable on dark pages too
BAND, ARRAY, OPERATOR, NEURON = "#f3f4f6", "#ffffff", "#cfe6f7", "#ffe1c7"
DOWN, UP = "#0072B2", "#D55E00"


def box(axes, place, size, title, lines=(), colour=ARRAY):
    """Draw a box with its lower left corner at `place`, a title, and smaller lines below the title."""
    (x, y), (width, height) = place, size
    style = "round,pad=0,rounding_size=0.8"
    axes.add_patch(FancyBboxPatch(place, width, height, boxstyle=style, fc=colour, ec=EDGE, lw=0.8))
    rows = [(title, 8.5, INK)] + [(line, 7.2, INK) for line in lines]
    step = 2.55
    top = y + height / 2 + step * (len(rows) - 1) / 2
    for k, (text, points, ink) in enumerate(rows):
        weight = "bold" if k == 0 else "normal"
        at = (x + width / 2, top - k * step)
        axes.text(*at, text, fontsize=points, color=ink, weight=weight, ha="center", va="center")


def band(axes, y, height, title, lines):
    """Draw a layer of the software across the picture, with its name on the left."""
    style = "round,pad=0,rounding_size=0.8"
    axes.add_patch(FancyBboxPatch((1.5, y), 97, height, boxstyle=style, fc=BAND, ec="none"))
    axes.text(3, y + height - 2.2, title, fontsize=8.5, color=INK, weight="bold", va="center")
    for k, line in enumerate(lines):
        axes.text(3, y + height - 4.9 - 2.4 * k, line, fontsize=7.2, color=QUIET, va="center")


def arrow(axes, start, end, colour=INK, bend=0.0, **style):
    """Draw an arrow between two positions, straight or curved."""
    connection = f"arc3,rad={bend}"
    settings = {"arrowstyle": "-|>", "mutation_scale": 9, "lw": 1.4, "shrinkA": 0, "shrinkB": 0, **style}
    axes.add_patch(FancyArrowPatch(start, end, color=colour, connectionstyle=connection, **settings))


def label(axes, place, text, colour=QUIET, **style):
    """Write a short label."""
    axes.text(*place, text, fontsize=7.2, color=colour, **{"ha": "center", "va": "center", **style})


def draw_layers(axes):
    """Draw the three layers of the software, from the user's arrays down to the C++ library."""
    band(axes, 51.5, 8.5, "Your arrays", ("NumPy, torch, DLPack,", "C++ buffers"))
    band(axes, 37.5, 11.5, "Python package", ("checks, layout,", "bound parameters"))
    band(
        axes,
        2,
        33,
        "C++ library",
        ("CPU: rows of neurons,", "in blocks of lanes", "CUDA: a thread for", "each neuron"),
    )


def draw_forward(axes):
    """Draw the forward pass: the current goes down, spikes and potential go up."""
    axes.text(42, 62.8, "forward", fontsize=10, color=INK, weight="bold", ha="center", va="center")
    box(axes, (24, 53), (13, 5.5), "current a")
    box(axes, (40, 53), (20, 5.5), "spikes s, potential u")
    box(axes, (24, 39.5), (36, 7.5), "layout (outer, time, inner)", ("no copy: addresses and sizes go on",))
    arrow(axes, (30.5, 53), (30.5, 47), DOWN)
    arrow(axes, (52.5, 47), (52.5, 53), UP)

    box(axes, (22.5, 17), (17, 9.5), "operators", ("recurrent weights,", "kernels with taps"), OPERATOR)
    box(
        axes,
        (45, 17),
        (15.5, 9.5),
        "neuron: step()",
        ("leak, fire, reset;", "its state stays in cache"),
        NEURON,
    )
    arrow(axes, (30.5, 39.5), (30.5, 26.5), DOWN)
    arrow(axes, (39.5, 21.7), (45, 21.7))
    arrow(axes, (52.5, 26.5), (52.5, 39.5), UP)
    arrow(axes, (52.5, 17), (31, 17), bend=-0.32)
    label(axes, (41.7, 11.2), "spikes of earlier steps")
    label(axes, (41.5, 30.5), "n = 0, 1, ..., T - 1", INK)


def draw_backward(axes):
    """Draw the backward pass: the gradient of the loss goes down, that of the current goes up."""
    axes.text(80.5, 62.8, "backward", fontsize=10, color=INK, weight="bold", ha="center", va="center")
    box(axes, (64, 53), (17.5, 5.5), "dL/ds, dL/du, u")
    box(axes, (84, 53), (13, 5.5), "dL/da")
    box(axes, (64, 39.5), (33, 7.5), "the same layout", ("gradients of parameters, summed in double",))
    arrow(axes, (72.5, 53), (72.5, 47), DOWN)
    arrow(axes, (93, 47), (93, 53), UP)

    box(axes, (63.5, 27.5), (18, 4.5), "surrogate: h = f'(u)", colour=NEURON)
    box(axes, (63.5, 6.5), (23, 17.5), "", colour=NEURON)
    axes.text(75, 22, "neuron: adjoint()", fontsize=8.5, color=INK, weight="bold", ha="center", va="center")
    methods = ("EXODUS: exact, one recurrence", "SLAYER: without the reset", "BPTT: the step, reversed")
    for k, method in enumerate(methods):
        box(axes, (64.5, 16 - 4.2 * k), (21, 3.6), "")
        label(axes, (75, 17.8 - 4.2 * k), method, INK)
    box(axes, (85, 26.5), (12.5, 6), "operators", ("transposed",), OPERATOR)
    arrow(axes, (72.5, 39.5), (72.5, 32), DOWN)
    arrow(axes, (72.5, 27.5), (72.5, 24))
    arrow(axes, (86.5, 19.5), (90, 26.5), bend=0.25)
    arrow(axes, (93, 32.5), (93, 39.5), UP)
    arrow(axes, (95, 26.5), (86.5, 11.5), bend=-0.4)
    label(axes, (92.2, 8.6), "to earlier steps")
    label(axes, (75, 4.2), "n = T - 1, ..., 1, 0", INK)


def draw():
    """Draw the way of an array: down once and up once, in each of the two calls."""
    settings = {"svg.hashsalt": "architecture", "font.family": "DejaVu Sans"}
    with matplotlib.rc_context(settings):
        fig = Figure(figsize=(10, 6.6), facecolor="none")
        axes = fig.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
        axes.axis("off")
        card = FancyBboxPatch(
            (0.3, 0.3), 99.4, 65.4, boxstyle="round,pad=0,rounding_size=1.5", fc=PAPER, ec=EDGE
        )
        axes.add_patch(card)
        draw_layers(axes)
        draw_forward(axes)
        draw_backward(axes)
        file = HERE / "architecture.svg"
        fig.savefig(file, metadata={"Date": None})
        return file, fig


if __name__ == "__main__":
    print(draw()[0])
