"""Importing the package loads only its own modules, so that it takes little longer than torch or NumPy alone.

Property: beside torch's own import, `exodus_core.torch` adds no module of torch or of another package, and
`exodus_core` none beside NumPy's. The compiler of torch, whose import takes two seconds, is not loaded by
calls either. Witness: `sys.modules` of a fresh interpreter. (Counts do not depend on the machine's load.)
"""

import json
import subprocess
import sys

import pytest

LIST = "import json, sys\nbefore = set(sys.modules)\n{}\nprint(json.dumps(sorted(set(sys.modules) - before)))"


def added_by(code, after):
    """The modules that `code` adds once `after` has been imported, but for those of Python itself."""
    done = subprocess.run(
        [sys.executable, "-c", after + "\n" + LIST.format(code)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    modules = json.loads(done.stdout.splitlines()[-1])
    return {name for name in modules if name.partition(".")[0] not in sys.stdlib_module_names}


def test_the_package_needs_numpy_only():
    added = added_by("import exodus_core", after="import numpy")
    assert "exodus_core._core" in added
    assert {name.partition(".")[0] for name in added} == {"exodus_core"}


def test_the_adapter_adds_nothing_to_torch():
    pytest.importorskip("torch", reason="needs torch")
    added = added_by("import exodus_core.torch", after="import torch")
    assert "exodus_core.torch" in added
    assert {name.partition(".")[0] for name in added} == {"exodus_core"}
    assert len(added) < 100


def test_calls_do_not_load_the_compiler():
    pytest.importorskip("torch", reason="needs torch")
    code = (
        "hidden = snn.Recurrent(snn.LIF(0.9, learn=('alpha',)), 3)\n"
        "net = torch.nn.Sequential(snn.Delay(1.0, learn=False), hidden, snn.IF())\n"
        "x = torch.randn(9, 2, 3, requires_grad=True)\n"
        "snn.kernel_filter(ec.kernel.Alpha(3.0), net(x)).output.sum().backward()\n"
        "assert x.grad is not None"
    )
    setup = "import torch, exodus_core as ec, exodus_core.torch as snn"
    heavy = {"_dynamo", "_inductor", "fx", "export"}
    added = added_by(code, after=setup)
    assert not {name for name in added if name.startswith("torch.") and name.split(".")[1] in heavy}
    assert "sympy" not in added
