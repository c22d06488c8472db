"""Settings of the whole suite: what hypothesis draws; a thread count that tests restore; the CUDA shim."""

import importlib.util
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", max_examples=40, **_COMMON)
# For a change of the mathematics: pytest --hypothesis-profile=thorough
settings.register_profile("thorough", max_examples=1000, **_COMMON)
settings.load_profile("default")


@pytest.fixture
def threads():
    """`set_num_threads`, with the count of before put back after the test."""
    import exodus_core as ec

    before = ec.get_num_threads()
    yield ec.set_num_threads
    ec.set_num_threads(before)


@pytest.fixture
def shim(monkeypatch):
    """The extension with the CUDA kernels, built to run on the CPU: EXODUS_SHIM is the folder that has it."""
    from exodus_core import cuda

    folder = os.environ.get("EXODUS_SHIM")
    if folder is None:
        pytest.skip("EXODUS_SHIM does not say where the extension under the shim is (test.sh builds it)")
    found = sorted(Path(folder).glob("_cuda*.so"))
    spec = importlib.util.spec_from_file_location("_cuda", found[0])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(cuda, "_found", lambda: (module, ""))
    cuda.kernels.cache_clear()
    yield module
    cuda.kernels.cache_clear()
