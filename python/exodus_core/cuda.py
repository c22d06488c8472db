"""Tell whether the CUDA kernels are installed, and whether this machine can run them.

The kernels are a separate extension module. It is part of this package if that was built with
``EXODUS_CUDA=ON``; otherwise it comes with the distribution ``exodus-snn-cu13``, which must have the same
version as this package. It is loaded on first use.
"""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType
from typing import cast

from ._version import __version__

__all__ = ["built", "is_available"]

_PLACES = ("exodus_core._cuda", "exodus_core_cu13._cuda")


@cache
def _found() -> tuple[ModuleType | None, str]:
    """Return the extension module, or None and the reason why there is none."""
    reason = "exodus_core was built without CUDA kernels, and exodus-snn-cu13 is not installed"
    for place in _PLACES:
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError:
            continue
        except ImportError as error:
            reason = f"{place} cannot be loaded: {error}"
            continue
        if module.version == __version__:
            return module, ""
        reason = (
            f"{place} has version {module.version}, but exodus_core has {__version__}: they must be equal"
        )
    return None, reason


def _unavailable() -> str | None:
    """Return the reason why calls on a GPU would fail, or None."""
    module, reason = _found()
    return reason if module is None else module.unavailable()


@cache
def kernels() -> ModuleType:
    """Return the extension module, for calls on a GPU.

    Raises
    ------
    RuntimeError
        If it is not installed or cannot run here; the message says why.
    """
    reason = _unavailable()
    if reason is not None:
        raise RuntimeError(f"arrays on a GPU cannot be used: {reason}")
    return cast(ModuleType, _found()[0])


def built() -> bool:
    """Tell whether the CUDA kernels are installed, in this package's version.

    Returns
    -------
    bool
        True if they are. The CPU kernels work in either case.
    """
    return _found()[0] is not None


def is_available() -> bool:
    """Tell whether the CUDA kernels can run: they are installed, and this machine has a driver and a GPU.

    Returns
    -------
    bool
        True if they can.
    """
    return _unavailable() is None
