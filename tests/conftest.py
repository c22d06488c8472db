"""Settings of the whole suite (waiting threads, hypothesis), and fixtures for threads and the CUDA shim."""

import importlib.util
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Let idle threads of torch (OpenMP) and of NumPy's BLAS sleep at once, here and in processes that tests
# start. By default they spin, and with small arrays that takes most of the suite's time.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", max_examples=40, **_COMMON)
# For a change of the mathematics: pytest --hypothesis-profile=thorough
settings.register_profile("thorough", max_examples=1000, **_COMMON)
settings.load_profile("default")


_NO_SHIM = (
    "EXODUS_SHIM is not set: it names the folder of the CUDA kernels for the CPU, "
    "cpp/tests/cuda of a build with the target cuda_shim_bindings (CONTRIBUTING.md)"
)


def pytest_report_header():
    """Announce in the header that the tests of the CUDA kernels will be skipped."""
    return None if "EXODUS_SHIM" in os.environ else f"CUDA kernels are not tested: {_NO_SHIM}"


@pytest.fixture
def threads():
    """`set_num_threads`. The number of threads is restored after the test."""
    import exodus_core as ec

    before = ec.get_num_threads()
    yield ec.set_num_threads
    ec.set_num_threads(before)


@pytest.fixture
def shim(monkeypatch):
    """The extension with the CUDA kernels, built to run on the CPU, from the folder EXODUS_SHIM."""
    from exodus_core import cuda

    folder = os.environ.get("EXODUS_SHIM")
    if folder is None:
        pytest.skip(_NO_SHIM)
    found = sorted(Path(folder).glob("_cuda*.so"))
    if not found:
        pytest.fail(f"EXODUS_SHIM={folder} has no _cuda*.so: build the target cuda_shim_bindings there")
    spec = importlib.util.spec_from_file_location("_cuda", found[0])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(cuda, "_found", lambda: (module, ""))
    cuda.kernels.cache_clear()
    yield module
    cuda.kernels.cache_clear()
