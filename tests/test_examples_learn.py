"""The examples of one neuron and of one recurrent layer learn their tasks.

Property: each script says that it has learnt, and ends with status 0. Witness: its last line, and the spikes
that it draws. (test_spoken_digits_example_learns.py tests the other example.)
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def lines_of(name):
    command = [sys.executable, str(EXAMPLES / name)]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # The arrays are too small for more.
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=one_thread)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_a_neuron_learns_to_fire_at_given_times():
    *_, target, neuron, last = lines_of("train_lif.py")
    assert last == "learnt"
    times, wanted = ([found.start() for found in re.finditer(r"\|", line)] for line in (neuron, target))
    assert len(times) == len(wanted) == 4
    assert max(abs(a - b) for a, b in zip(times, wanted, strict=True)) <= 1


def test_a_recurrent_layer_learns_to_remember():
    pytest.importorskip("torch", reason="needs torch")
    lines = lines_of("train_recurrent.py")
    assert lines[-1].startswith("learnt: ")
    trains = [line.split("  ")[-1] for line in lines if line.startswith("cue ")]
    assert len(trains) == 8
    # After the cue, the neurons of its half keep firing, and the others are silent.
    cued = [True, True, False, False, False, False, True, True]
    assert ["|" in train[10:20] for train in trains] == cued
