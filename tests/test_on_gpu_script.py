"""Property: on_gpu.sh uses the time on a GPU well: it stops only if nothing can run, and reports every step.

Witness: fakes of the programs that it calls, which record their calls and give prescribed answers. The real
programs on a GPU are not tested here.
"""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "cpp" / "tests" / "cuda"
STAND_IN = """#!/usr/bin/env bash
call="$(basename "$0") $*"
echo "$call" >>"$STAND_INS/calls"
while IFS='|' read -r part code text; do
  if [[ $call == *"$part"* ]]; then
    echo "$text"
    [ "$code" != slow ] || exec sleep 60
    exit "$code"
  fi
done <"$STAND_INS/answers"
"""
PASSED = ("-m pytest", 0, "12 passed, 3 skipped in 4 s")


def pack_what_was_built(folder):
    """Put a built.tar.gz into the carried folder, as build_for_gpu.sh does at /elsewhere."""
    made = folder / "made" / "build"
    (made / "on_gpu").mkdir(parents=True)
    (made / "cuda" / ".cmake").mkdir(parents=True)  # CMake's own, not a list of tests
    (made / "on_gpu" / "root").write_text("/elsewhere\n")
    (made / "cuda" / "tests.cmake").write_text('add_test("t" "/elsewhere/build/cuda/t")')
    (folder / "carried").mkdir()
    packed = shutil.make_archive(folder / "carried" / "built", "gztar", folder / "made")
    assert packed.endswith("built.tar.gz")


@pytest.fixture
def run(tmp_path):
    """A function that runs the script with the given answers, and returns status, output and calls."""
    folder = tmp_path / "cpp" / "tests" / "cuda"
    folder.mkdir(parents=True)
    for name in ("on_gpu.sh", "build.sh"):
        shutil.copy(FOLDER / name, folder)
    for name in ("python3", "nvidia-smi", "cmake", "ctest", "compute-sanitizer"):
        program = tmp_path / name
        program.write_text(STAND_IN)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def run_with(*answers, limits=None, built=False):
        script = folder / "on_gpu.sh"
        if built:
            pack_what_was_built(tmp_path)
        if limits is not None:
            script.write_text(script.read_text().replace(*limits))
        lines = [f"{part}|{code}|{text}\n" for part, code, text in (*answers, ("compute_cap", 0, "9.0"))]
        (tmp_path / "answers").write_text("".join(lines))
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "STAND_INS": str(tmp_path)}
        done = subprocess.run([script], env=environment, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, (tmp_path / "calls").read_text()

    return run_with


def test_every_step_runs(run):
    code, output, calls = run(PASSED)
    assert code == 0
    assert "0 failed: \n0 did not finish: \n" in output
    assert calls.count("--no-index") == 4  # so nothing is downloaded
    assert "EXODUS_CUDA_CODE=sm_90" in calls
    order = ["pip wheel", "_unavailable", "ctest", "-m pytest", "bandwidth.py", "memcheck", "synccheck"]
    assert sorted(order, key=calls.index) == order


def test_what_was_built_elsewhere_is_not_built_again(run, tmp_path):
    code, output, calls = run(PASSED, built=True)
    assert code == 0, output
    assert "pip wheel" not in calls
    order = ["pip install", "_unavailable", "ctest", "-m pytest", "bandwidth.py", "memcheck", "synccheck"]
    assert sorted(order, key=calls.index) == order
    listed = (tmp_path / "build" / "cuda" / "tests.cmake").read_text()
    assert listed == f'add_test("t" "{tmp_path}/build/cuda/t")'


@pytest.mark.parametrize("failing", ["ctest ", "-m pytest", "bandwidth.py", "racecheck"])
def test_a_failed_step_does_not_end_the_script(failing, run):
    code, output, calls = run((failing, 1, "1 passed, 1 failed"), PASSED)
    assert code != 0
    assert "synccheck" in calls
    assert "1 failed: " in output


@pytest.mark.parametrize("failing", ["pip wheel", "pip install", "_unavailable"])
def test_without_kernels_that_can_run_it_stops(failing, run):
    code, output, calls = run((failing, 1, "no GPU here"), PASSED)
    assert code != 0
    assert "ctest" not in calls
    assert " failed: " in output


def test_no_test_run_is_a_failure(run):
    code, output, _ = run(("-m pytest", 0, "14 skipped in 2 s"))
    assert code != 0
    assert "1 failed: pytest ran no test" in output


def test_a_step_out_of_time_did_not_finish(run):
    code, output, calls = run(PASSED, ("racecheck", "slow", ""), limits=("step 120 $tool", "step 1 $tool"))
    assert code != 0
    assert "0 failed: \n1 did not finish: racecheck\n" in output
    assert "synccheck" in calls


def test_nothing_begins_after_the_deadline(run):
    code, output, calls = run(PASSED, ("ctest ", "slow", ""), limits=("deadline=540", "deadline=3"))
    assert code != 0
    assert "did not finish: ctest,pytest,benchmark,memcheck,racecheck,initcheck,synccheck" in output
    assert "-m pytest" not in calls
