"""How many threads the kernels use."""

from __future__ import annotations

import numbers
import os

from . import _core

_chosen = "EXODUS_NUM_THREADS" in os.environ


def was_chosen() -> bool:
    """Whether the user chose the number of threads, so that a front end's own setting stands back."""
    return _chosen


def get_num_threads() -> int:
    """Return how many threads a call uses at most.

    Returns
    -------
    int
        What ``set_num_threads`` set, else the environment variable EXODUS_NUM_THREADS, else the number of
        processors.
    """
    return _core.get_num_threads()


def set_num_threads(threads: int) -> None:
    """Set how many threads a call uses at most. Results do not depend on it.

    Parameters
    ----------
    threads : int
        At least 1.

    Raises
    ------
    ValueError, TypeError
        If it is not.
    """
    if isinstance(threads, bool) or not isinstance(threads, numbers.Integral):
        raise TypeError(f"threads must be an integer, got {threads!r}")
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    global _chosen
    _chosen = True
    _core.set_num_threads(min(int(threads), 2**31 - 1))
