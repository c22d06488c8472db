"""The number of threads that the kernels use."""

from __future__ import annotations

import os
import re

from . import _core
from ._integers import integer

_VARIABLE = "EXODUS_NUM_THREADS"


def _in_environment() -> bool:
    """Tell whether the environment sets the number of threads. The C++ library reads the value itself."""
    text = os.environ.get(_VARIABLE, "")
    if text and re.fullmatch("0*[1-9][0-9]*", text, re.ASCII) is None:
        raise ImportError(f"{_VARIABLE} must be a number of threads, 1 or more, got {text!r}")
    return text != ""


_chosen = _in_environment()


def was_chosen() -> bool:
    """Tell whether the user set the number of threads, which then overrides torch's."""
    return _chosen


def get_num_threads() -> int:
    """Return the largest number of threads that a call uses.

    Returns
    -------
    int
        The number that ``set_num_threads`` set, else that of the environment variable EXODUS_NUM_THREADS,
        else the number of processors that this process may use.
    """
    return _core.get_num_threads()


def set_num_threads(threads: int) -> None:
    """Set the largest number of threads that a call uses. Results do not depend on it.

    Parameters
    ----------
    threads : int
        At least 1.

    Raises
    ------
    ValueError, TypeError
        If `threads` is not an integer of at least 1.
    """
    threads = integer("threads", threads, 1)
    global _chosen
    _chosen = True
    _core.set_num_threads(min(threads, 2**31 - 1))
