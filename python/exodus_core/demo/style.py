"""The look of the pictures: one style and one colour for each algorithm, in all of them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

LABELS = {"exodus": "EXODUS", "slayer": "SLAYER", "bptt": "BPTT"}
# From Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = {"exodus": "#0072B2", "slayer": "#D55E00", "bptt": "#000000"}
INK, GREY = "#000000", "#9A9A9A"

WIDTH = 7.1  # inches: a page of two columns, so that the fonts below are the printed ones


def paper() -> AbstractContextManager[Any]:
    """Set the style for what is drawn inside a ``with`` block.

    Returns
    -------
    context manager
        It puts the earlier settings back.
    """
    return matplotlib.rc_context(
        {
            "axes.labelsize": 8,
            "axes.linewidth": 0.6,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlesize": 8,
            "figure.constrained_layout.use": True,
            "font.size": 8,
            "legend.fontsize": 8,
            "legend.frameon": False,
            "legend.handlelength": 1.4,
            "lines.linewidth": 1.2,
            "savefig.dpi": 300,
            "xtick.labelsize": 8,
            "xtick.major.width": 0.6,
            "xtick.minor.width": 0.4,
            "ytick.labelsize": 8,
            "ytick.major.width": 0.6,
            "ytick.minor.width": 0.4,
        }
    )


def figure(height: float) -> Figure:
    """Make an empty figure of the page's width.

    Without pyplot, and so without its global state and without windows: ``savefig`` draws with Agg.

    Parameters
    ----------
    height : float
        In inches.

    Returns
    -------
    Figure
        To be filled by ``subplots`` and the like.
    """
    return Figure(figsize=(WIDTH, height))


def letter(axes: Axes, name: str, title: str = "") -> None:
    """Name a panel.

    Parameters
    ----------
    axes : Axes
        The panel.
    name : str
        Its letter, set in bold left of the upper corner.
    title : str, optional
        What the panel shows, set above it.
    """
    axes.annotate(
        name,
        (0, 1),
        xycoords="axes fraction",
        xytext=(-24, 5),
        textcoords="offset points",
        fontweight="bold",
        fontsize=9,
    )
    axes.set_title(title)


def save(fig: Figure, path: Path) -> Path:
    """Write a picture.

    Parameters
    ----------
    fig : Figure
        The picture.
    path : Path
        A name that ends in .png; its folder exists.

    Returns
    -------
    Path
        The same path.
    """
    fig.savefig(path)
    return path
