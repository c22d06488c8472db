"""The style of the pictures, with one colour for each algorithm."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

LABELS = {"exodus": "EXODUS", "slayer": "SLAYER", "bptt": "BPTT"}
# Colours of the palette of Okabe and Ito, which colour-blind readers can distinguish.
COLOURS = {"exodus": "#0072B2", "slayer": "#D55E00", "bptt": "#000000"}
INK, GREY = "#000000", "#9A9A9A"

WIDTH = 7.1  # inches, the width of a page with two columns: fonts are printed in the sizes below


def paper() -> AbstractContextManager[Any]:
    """Set the style of pictures that are drawn in a ``with`` block.

    Returns
    -------
    context manager
        It restores the earlier settings.
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

    It does not use pyplot, so there is no global state and no window. ``savefig`` draws with Agg.

    Parameters
    ----------
    height : float
        The height in inches.

    Returns
    -------
    Figure
        The empty figure.
    """
    return Figure(figsize=(WIDTH, height))


def letter(axes: Axes, name: str, title: str = "") -> None:
    """Label a panel with a letter and a title.

    Parameters
    ----------
    axes : Axes
        The panel.
    name : str
        The letter, drawn in bold left of the upper corner.
    title : str, optional
        The title, drawn above the panel.
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
        A path that ends in .png. Its folder must exist.

    Returns
    -------
    Path
        The same path.
    """
    fig.savefig(path)
    return path
