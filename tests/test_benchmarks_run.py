"""The benchmarks run, and print the rows that the documents quote.

Property: with small arrays and one round each script ends without an error and names what it measures. The
times mean nothing here.
"""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMALL = ("--rounds", "1", "--steps", "20")


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        (("bandwidth.py", *SMALL, "--batch", "4", "--neurons", "30"), ("time first", "all parameters")),
        (("delays.py", *SMALL, "--batch", "4", "--neurons", "30", "--most", "5"), ("time last", "dx, dt")),
        (("models.py", *SMALL, "--neurons", "64", "--taps", "4"), ("ALIF", "CubaLIF")),
        (("overhead.py", "--rounds", "1"), ("forward",)),
    ],
    ids=lambda value: value[0] if value[0].endswith(".py") else "",
)
def test_it_runs(arguments, rows):
    script, *others = arguments
    command = [sys.executable, str(BENCHMARKS / script), *others]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert all(row in done.stdout for row in rows)
