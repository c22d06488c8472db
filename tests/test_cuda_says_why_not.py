"""Property: if CUDA kernels are missing or unusable, the package says why, and still works on the CPU.

Witness: fake extensions in the places where the package looks.
"""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import exodus_core as ec
from exodus_core import cuda


@pytest.fixture
def installed(monkeypatch):
    """A function that puts a fake extension at a place, or, for version None, leaves the place empty."""

    def put(place, version, reason=None):
        module = None
        if version is not None:
            module = ModuleType(place)
            module.version = version
            module.unavailable = lambda: reason
            if "." in place and place.split(".")[0] not in sys.modules:
                monkeypatch.setitem(sys.modules, place.split(".")[0], ModuleType(place.split(".")[0]))
        monkeypatch.setitem(sys.modules, place, module)
        cuda._found.cache_clear()

    yield put
    cuda._found.cache_clear()


def test_without_kernels(installed):
    installed("exodus_core._cuda", None)
    installed("exodus_core_cu13._cuda", None)
    assert not cuda.built() and not cuda.is_available()
    assert "exodus-snn-cu13 is not installed" in cuda._unavailable()
    assert ec.forward(ec.LIF(alpha=0.9), np.ones((3, 2), np.float32)).spikes.sum() > 0


@pytest.mark.parametrize("place", ["exodus_core._cuda", "exodus_core_cu13._cuda"])
def test_either_place(installed, place):
    for other in ("exodus_core._cuda", "exodus_core_cu13._cuda"):
        installed(other, None)
    installed(place, ec.__version__)
    assert cuda.built() and cuda.is_available()


def test_without_a_gpu(installed):
    installed("exodus_core._cuda", ec.__version__, "the CUDA driver sees no GPU")
    assert cuda.built() and not cuda.is_available()
    assert cuda._unavailable() == "the CUDA driver sees no GPU"


def test_the_benchmark_says_so_and_stops():
    """This machine lacks a GPU or the kernels."""
    if cuda.is_available():
        pytest.skip("there is a GPU: its numbers take a while")
    script = Path(__file__).parent.parent / "benchmarks" / "bandwidth.py"
    done = subprocess.run([sys.executable, script, "--device", "cuda"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"nothing to measure: {cuda._unavailable()}"


def test_of_another_version(installed):
    installed("exodus_core._cuda", None)
    installed("exodus_core_cu13._cuda", "0.0.0")
    assert not cuda.built() and not cuda.is_available()
    assert "has version 0.0.0, but exodus_core has" in cuda._unavailable()
