"""The examples of docs/networks.md run as written, and the network of table S1 has at most 12 lines."""

import re
import subprocess
import sys

import pytest

from readme import example

pytest.importorskip("torch", reason="needs torch")


def losses(name, folder):
    (folder / "example.py").write_text(example(name, "docs/networks.md"))
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return [float(line.split()[1]) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("name", "count"), [("gesture", 10), ("stateful", 3)])
def test_example_learns(name, count, tmp_path):
    found = losses(name, tmp_path)
    assert len(found) == count and found[-1] < 0.9 * found[0]


def test_the_gesture_network_has_at_most_12_lines():
    (network,) = re.findall(
        r"^net = .*?^\)", example("gesture", "docs/networks.md"), re.DOTALL | re.MULTILINE
    )
    assert len(network.splitlines()) <= 12
    widths = re.findall(r"nn\.Conv2d\(\d+, (\d+), 3", network)
    assert widths == ["2", "4", "8", "16"] and network.count("snn.IF()") == 4 and "16 * 8 * 8, 11)" in network
