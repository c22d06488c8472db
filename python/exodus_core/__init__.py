"""Exact gradients of spiking neural networks, as compiled kernels.

``forward`` runs a neuron over time and returns a `Trace`; ``backward`` takes the trace and the gradient of
the spikes and returns `Gradients`, by EXODUS, SLAYER or BPTT. For torch see ``exodus_core.torch``.
"""

from . import _core, cuda, kernel, neurons, surrogate
from ._backward import Gradients, backward
from ._delay import Delayed, DelayGradients, delay, delay_adjoint
from ._filter import Filtered, kernel_filter, kernel_filter_adjoint
from ._forward import forward
from ._growth import growth
from ._tape import Trace
from ._threads import get_num_threads, set_num_threads
from ._version import __version__
from .neurons import *  # noqa: F403 (its __all__ is part of ours)

__all__ = [
    "DelayGradients",
    "Delayed",
    "Filtered",
    "Gradients",
    "Trace",
    "__version__",
    "backward",
    "cuda",
    "delay",
    "delay_adjoint",
    "forward",
    "get_num_threads",
    "growth",
    "isa",
    "kernel",
    "kernel_filter",
    "kernel_filter_adjoint",
    "set_num_threads",
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
    """Name the instruction set whose kernels run.

    Returns
    -------
    str
        "avx512", "avx2", "x86-64-v2" or "generic": the best that the processor has, or the one that the
        environment variable EXODUS_ISA named when the package was imported.
    """
    return str(_ISA)
