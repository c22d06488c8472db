"""The array libraries: NumPy for the kernels of the CPU, any with the array API for those of a GPU.

An array stays in its own library from a call to its results. Whatever the package does with arrays beside
the kernels (making them, copying them into an order, summing a parameter's gradient) goes through the
methods of a `Backend`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import cuda
from ._protocol import ARITHMETIC, Array, Backend, Shape, is_torch
from .numpy import FLOATS, NUMPY, register_plain, require_plain

__all__ = [
    "ARITHMETIC",
    "FLOATS",
    "NUMPY",
    "Array",
    "Backend",
    "Shape",
    "backend_of",
    "decay",
    "in_double",
    "is_torch",
    "on_device",
    "register_plain",
    "require_plain",
    "rotation",
]

_CUDA_DEVICES = (2, 13)  # of DLPack: CUDA, and its managed memory


def on_device(value: Any) -> bool:
    """Tell whether a value is an array on a GPU."""
    if isinstance(value, (np.ndarray, np.generic, float, int)):
        return False
    if is_torch(value):
        return bool(getattr(value, "is_cuda", False))
    if hasattr(value, "__cuda_array_interface__"):
        return True
    try:
        return value.__dlpack_device__()[0] in _CUDA_DEVICES
    except (AttributeError, TypeError):
        return False


def backend_of(array: Any) -> Backend:
    """Return the backend of an array; of anything else NumPy, whose `array` then refuses it.

    Raises
    ------
    RuntimeError
        If the array is on a GPU and there are no CUDA kernels, or none that can run; the message says why.
    """
    if not on_device(array):
        return NUMPY
    cuda.kernels()
    from .device import device_backend  # needs array-api-compat

    return device_backend(array)


def decay(dt: Any, tau: Any) -> Array:
    """e^(-dt / tau) in float64, where tau lies; dt is a number, or tau and dt are not on a GPU.

    The library's own exponential: those of NumPy (which picks one by processor), torch and CUDA differ in
    the last bit, on which spikes depend.
    """
    return (backend_of(tau) if on_device(tau) else NUMPY).decay(dt, tau)


def rotation(angle: Any) -> tuple[Array, Array]:
    """Cosine and sine in float64, where the angle lies; the library's own, as the decay is."""
    cosines, sines = (backend_of(angle) if on_device(angle) else NUMPY).rotation(angle)
    return cosines, sines


def in_double(*values: Any) -> tuple[Any, ...]:
    """Return the namespace of some values, and them as arrays in float64: NumPy's unless one is on a GPU."""
    device = next((value for value in values if on_device(value)), None)
    backend = NUMPY if device is None else backend_of(device)
    return backend.xp, *(
        backend.constant(value) if isinstance(value, np.ndarray) else backend.convert(value, "float64")
        for value in values
    )
