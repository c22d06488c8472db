"""The oldest torch that the package's metadata admits is the one with which the tests run.

Property: the lower bound in pyproject.toml is the version that constraints.txt pins, which CI installs; the
README names it. Witness: the three files, and the torch that is installed.
"""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def numbers(version):
    """The release of a version, as in "2.13.0+cpu", without zeros at the end."""
    found = list(map(int, re.match(r"\d+(\.\d+)*", version)[0].split(".")))
    while found[-1] == 0:
        found.pop()
    return found


def bound():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (requirement,) = extras["torch"]
    return requirement.removeprefix("torch>=")


def pinned():
    return re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]


def test_the_bound_is_the_version_that_ci_installs():
    assert numbers(bound()) == numbers(pinned())


def test_the_readme_names_the_bound():
    assert f"torch, which must be {bound()} or newer" in (ROOT / "README.md").read_text()


def test_the_installed_torch_is_not_older():
    torch = pytest.importorskip("torch", reason="needs torch")
    assert numbers(torch.__version__) >= numbers(bound())
