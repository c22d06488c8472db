"""Property: imports in the package form no circle, and no file exceeds 500 lines.

Witness: the import statements in the sources, including those inside functions.
"""

import ast
import graphlib
from pathlib import Path

import pytest

import exodus_core

ROOT = Path(exodus_core.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))


def module_of(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}
EXTENSIONS = ("exodus_core._core",)


def imported(module, path):
    """The modules of the package that an import statement names."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - (node.level - 1)] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            parts = [f"{base}.{alias.name}" for alias in node.names]
            found = {part if part in MODULES else base for part in parts if part not in EXTENSIONS}
            yield from found.intersection(MODULES)


def graph():
    return {module: set(imported(module, path)) for module, path in MODULES.items()}


def test_imports_are_found():
    found = graph()
    assert {"exodus_core._forward", "exodus_core._backward", "exodus_core.neurons"} <= found["exodus_core"]
    assert "exodus_core.neurons._protocol" in found["exodus_core.neurons.lif"]
    assert "exodus_core._backends.device" in found["exodus_core._backends"]  # inside a function
    assert len(found) > 40


def test_imports_form_no_circle():
    try:
        order = list(graphlib.TopologicalSorter(graph()).static_order())
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
    assert set(order) == set(MODULES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_exceeds_500_lines(path):
    assert len(path.read_text().splitlines()) <= 500
