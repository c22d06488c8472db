"""The examples of docs/training.md and docs/tutorial.md run, learn, and print what the documents show."""

import re
import subprocess
import sys

import pytest

from readme import ROOT, example

pytest.importorskip("torch", reason="needs torch")

DOCUMENT = "docs/training.md"


def words(text):
    """The words of tables, with numbers to one digit: sums depend on the processor in their last bits."""
    return [f"{float(w):.1g}" if re.fullmatch(r"-?\d+(\.\d+)?", w) else w for w in text.split()]


def test_example_prints_what_the_document_shows(tmp_path):
    code = example("training", DOCUMENT)
    (tmp_path / "example.py").write_text(code + "print(loss.item())\n")
    done = subprocess.run(
        [sys.executable, "-W", "error", "example.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    printed, _, loss = done.stdout.strip().rpartition("\n")
    (shown,) = re.findall(r"\n```\n(layer .*?)```", (ROOT / DOCUMENT).read_text(), re.DOTALL)
    assert [line.split()[0] for line in printed.splitlines() if line] == [
        line.split()[0] for line in shown.splitlines() if line
    ]
    same = [one == other for one, other in zip(words(printed), words(shown), strict=True)]
    assert sum(same) >= 0.9 * len(same)
    assert float(loss) < 2.0


def test_tutorial_reads_digits_in_less_than_30_lines(tmp_path):
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    code = example("tutorial", "docs/tutorial.md")
    assert len([line for line in code.splitlines() if line]) < 30
    assert all(name in code for name in ("snn.Sequential", "snn.Monitor", "snn.init_"))
    (tmp_path / "example.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "example.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    *_, last = done.stdout.strip().splitlines()
    name, accuracy = last.split()
    assert name == "accuracy:" and float(accuracy) > 0.87
    (shown,) = re.findall(r"\n```\n(layer .*?)```", (ROOT / "docs/tutorial.md").read_text(), re.DOTALL)
    rows = [line.split()[:7] for line in done.stdout.splitlines() if re.match(r"\d +(LIF|ExpLeak)", line)]
    assert rows == [line.split()[:7] for line in shown.splitlines()[2:]]


@pytest.mark.parametrize("name", re.findall(r"`(?:snn|monitor)\.(\w+)", (ROOT / DOCUMENT).read_text()))
def test_names_in_the_document_exist(name):
    snn = pytest.importorskip("exodus_core.torch")
    monitor = snn.Monitor(snn.LIF(0.9))
    assert hasattr(snn, name) or hasattr(monitor, name)
