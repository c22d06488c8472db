"""Calls run on the threads of torch's OpenMP.

After a matrix product these threads spin for milliseconds, in order to be quick at the next one. Threads of
another pool would have to share the processors with them (`benchmarks/interleaved.py`).
"""

from __future__ import annotations

import ctypes

import torch

from .. import _core


def join_torchs_threads() -> None:
    """Let the kernels use torch's threads, if torch is built with an OpenMP that has GNU's interface."""
    # Symbols are looked up in torch's own dependencies, since a process may hold several runtimes.
    try:
        runtime = ctypes.CDLL(torch._C.__file__)
        functions = runtime.GOMP_parallel, runtime.omp_get_max_threads
    except (OSError, AttributeError):
        return
    parallel, max_threads = (ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions)
    _core.use_openmp(parallel, max_threads)
