"""Whether the CUDA kernels are installed, and whether this machine can run them.

They are an extension of their own, in this package if it was built with ``EXODUS_CUDA=ON``, else in the
distribution ``exodus-snn-cu13``, whose version must be this one's. They are loaded when first asked for.
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
    """The extension, or why there is none."""
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
    """Why calls on a GPU would fail, or None."""
    module, reason = _found()
    return reason if module is None else module.unavailable()


@cache
def kernels() -> ModuleType:
    """The extension, for calls on a GPU; asked for once, then remembered.

    Raises
    ------
    RuntimeError
        If there is none, or it cannot run here; the message says why.
    """
    reason = _unavailable()
    if reason is not None:
        raise RuntimeError(f"arrays on a GPU cannot be taken: {reason}")
    return cast(ModuleType, _found()[0])


def built() -> bool:
    """Tell whether the CUDA kernels are installed, in this package's version.

    Returns
    -------
    bool
        Whether they are; if not, CPU work goes on as ever.
    """
    return _found()[0] is not None


def is_available() -> bool:
    """Tell whether the CUDA kernels can run here: they are installed, and there is a driver and a GPU.

    Returns
    -------
    bool
        Whether they can.
    """
    return _unavailable() is None
