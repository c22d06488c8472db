"""Exact gradients of spiking neural networks, computed by compiled kernels.

``forward`` runs neurons over time and returns a `Trace`. ``backward`` takes the trace and the gradient of the
spikes, and returns the `Gradients` that EXODUS, SLAYER or BPTT computes. ``exodus_core.torch`` has layers.
"""

from . import _core, cuda, kernel, neurons, surrogate
from ._backends import empty_cache, get_cache_limit, set_cache_limit
from ._backward import Gradients, backward
from ._delay import Delayed, DelayGradients, delay, delay_adjoint
from ._filter import Filtered, kernel_filter, kernel_filter_adjoint
from ._forward import forward
from ._growth import growth
from ._products import SpikeMatmulGradients, spike_matmul, spike_matmul_backward
from ._tape import Trace
from ._threads import get_num_threads, set_num_threads
from ._version import __version__
from .neurons import *  # noqa: F403 (its __all__ is part of ours)

__all__ = [
    "DelayGradients",
    "Delayed",
    "Filtered",
    "Gradients",
    "SpikeMatmulGradients",
    "Trace",
    "__version__",
    "backward",
    "cuda",
    "delay",
    "delay_adjoint",
    "empty_cache",
    "forward",
    "get_cache_limit",
    "get_num_threads",
    "growth",
    "isa",
    "kernel",
    "kernel_filter",
    "kernel_filter_adjoint",
    "set_cache_limit",
    "set_num_threads",
    "spike_matmul",
    "spike_matmul_backward",
    "surrogate",
]
__all__ += neurons.__all__

_ISA = _core.isa()
if _ISA is None:
    import os

    raise ImportError(
        "EXODUS_ISA must name an instruction set that this processor has (avx512, avx2, x86-64-v2), "
        f"got {os.environ.get('EXODUS_ISA')!r}"
    )


def isa() -> str:
    """Return the name of the instruction set that the kernels use.

    Returns
    -------
    str
        "avx512", "avx2", "x86-64-v2" or "generic". It is the best that the processor has, unless the
        environment variable EXODUS_ISA named another one when the package was imported.
    """
    return str(_ISA)
