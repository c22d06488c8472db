"""The array libraries: NumPy for the CPU kernels, any library with the array API for the CUDA kernels.

A call's results are arrays of the library that its arguments come from. Outside the kernels, the package
allocates arrays, reorders them in memory and sums parameter gradients. It does so through the methods of a
`Backend`.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from .. import _core, cuda
from ._memory import empty_cache, get_cache_limit, set_cache_limit
from ._protocol import ARITHMETIC, Array, Backend, Operand, Shape, is_torch
from .numpy import FLOATS, NUMPY, register_plain, require_plain

__all__ = [
    "ARITHMETIC",
    "FLOATS",
    "NUMPY",
    "Array",
    "Backend",
    "Operand",
    "Shape",
    "backend_of",
    "decay",
    "empty_cache",
    "get_cache_limit",
    "in_double",
    "is_torch",
    "on_device",
    "register_plain",
    "require_plain",
    "rotation",
    "set_cache_limit",
]

_CUDA_DEVICES = (2, 13)  # DLPack's codes of CUDA memory and of CUDA managed memory


def on_device(value: Any) -> bool:
    """Tell whether a value is an array on a GPU."""
    if isinstance(value, (np.ndarray, np.generic, float, int)):
        return False
    if is_torch(value):
        return bool(getattr(value, "is_cuda", False))
    # A default takes less time than an AttributeError that is raised and caught.
    tell = getattr(value, "__dlpack_device__", None)
    try:
        if tell is not None:
            return tell()[0] in _CUDA_DEVICES
    except (AttributeError, TypeError):
        pass
    return hasattr(type(value), "__cuda_array_interface__")  # not of the value, which would describe it


def backend_of(array: Any) -> Backend:
    """Return the backend of an array.

    A value that is no array gets NumPy's backend, whose `array` refuses it.

    Raises
    ------
    RuntimeError
        If the array is on a GPU and the CUDA kernels are not installed or cannot run; the message says which.
    """
    if not on_device(array):
        return NUMPY
    cuda.kernels()
    backend: Backend = _device().device_backend(array)
    return backend


@cache
def _device() -> ModuleType:
    from . import device  # needs array-api-compat

    return device


def decay(dt: Any, tau: Any) -> Array:
    """Return e^(-dt / tau) in float64, on the device of tau. If tau is on a GPU, dt is a number.

    The exponential is this library's own. Those of NumPy (which chooses one by processor), torch and CUDA
    differ in the last bit, and the last bit can decide whether a neuron spikes.
    """
    if type(tau) is float and type(dt) is float:  # without arrays, since a small layer's call takes this way
        return _core.decay_of(dt, tau)
    return (backend_of(tau) if on_device(tau) else NUMPY).decay(dt, tau)


def rotation(angle: Any) -> tuple[Array, Array]:
    """Return cosine and sine in float64, on the device of the angle, by this library's own functions."""
    cosines, sines = (backend_of(angle) if on_device(angle) else NUMPY).rotation(angle)
    return cosines, sines


def in_double(*values: Any) -> tuple[Any, ...]:
    """Return an array namespace, and the values as its float64 arrays: NumPy's unless one is on a GPU."""
    device = next((value for value in values if on_device(value)), None)
    backend = NUMPY if device is None else backend_of(device)
    return backend.xp, *(
        backend.constant(value) if isinstance(value, np.ndarray) else backend.convert(value, "float64")
        for value in values
    )
