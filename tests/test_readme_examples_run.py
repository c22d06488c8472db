"""The README's examples run as written. The C++ example needs only the installed package."""

import subprocess
import sys

import pytest

from readme import example

CMAKE = """cmake_minimum_required(VERSION 3.25)
project(example LANGUAGES CXX)
find_package(exodus_core REQUIRED)
add_executable(example main.cpp)
target_link_libraries(example PRIVATE exodus::core)
"""


def run(command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


PRINTED = {"numpy": 2, "torch": 5, "coupled": 2, "delay": 1, "recurrent": 1, "recurrent-torch": 5}  # lines


@pytest.mark.parametrize("name", PRINTED)
def test_python_example_runs(name, tmp_path):
    (tmp_path / "example.py").write_text(example(name))
    lines = run([sys.executable, "example.py"], tmp_path).splitlines()
    assert len(lines) == PRINTED[name]


def test_example_of_learning_runs(tmp_path):
    (tmp_path / "example.py").write_text(example("learning", "docs/learning.md"))
    (line,) = run([sys.executable, "example.py"], tmp_path).splitlines()
    tau, threshold, alpha = map(float, line.split())
    assert 15 < tau < 25 and 0.5 < threshold < 1.5 and 0.9 < alpha < 1


def test_example_of_mixed_precision_runs(tmp_path):
    code = example("autocast", "docs/torch.md") + "print(output.dtype, net[1].tau.grad is not None)\n"
    (tmp_path / "example.py").write_text(code)
    assert run([sys.executable, "example.py"], tmp_path).split() == ["torch.float32", "True"]


def test_cpp_example_runs_against_the_installed_package(tmp_path):
    cmake_dir = run([sys.executable, "-m", "exodus_core", "--cmake-dir"], tmp_path).strip()
    (tmp_path / "main.cpp").write_text(example("cpp"))
    (tmp_path / "CMakeLists.txt").write_text(CMAKE)
    run(["cmake", "-S", ".", "-B", "build", f"-Dexodus_core_DIR={cmake_dir}"], tmp_path)
    run(["cmake", "--build", "build"], tmp_path)
    assert run([str(tmp_path / "build" / "example")], tmp_path).startswith("ok: dL/da[0] = ")
