"""The benchmark of recurrent layers times two programs that compute the same.

Property: it runs as documented, and stops before it times anything if the spikes or gradients of the two
programs differ. Witness: the script as it is, and with one program altered.
"""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("tqdm", reason="needs tqdm")

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SMALL = (20, 3, 10)


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("recurrence")
    yield module
    sys.modules.pop("recurrence")


def test_it_runs():
    sizes = [f"--{name}={n}" for name, n in zip(("steps", "batch", "neurons"), SMALL, strict=True)]
    command = [sys.executable, str(BENCHMARKS / "recurrence.py"), *sizes, "--rounds=2", "--threads=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "float64: the same spikes" in done.stdout
    assert float(done.stdout.splitlines()[-1].rsplit(" ", 1)[1]) > 0


class Doubled(torch.autograd.Function):
    """The identity forward; backward twice the gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


@pytest.mark.parametrize(
    ("altered", "words"),
    [
        (lambda current, weight: (current, weight.T), "spikes differ"),
        (lambda current, weight: (Doubled.apply(current), weight), "gradient of the current"),
        (lambda current, weight: (current, Doubled.apply(weight)), "gradient of the weights"),
    ],
    ids=["spikes", "current", "weights"],
)
def test_it_stops_if_a_side_is_wrong(benchmark, monkeypatch, altered, words):
    benchmark.check(SMALL)
    right = benchmark.ours
    monkeypatch.setattr(benchmark, "ours", lambda *inputs: right(*altered(*inputs)))
    with pytest.raises(SystemExit, match=words):
        benchmark.check(SMALL)
