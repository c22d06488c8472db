"""The package needs only numpy. torch is imported on request, and a clear error tells if it is missing.

Property: `import exodus_core`, `forward` and `backward` work if torch cannot be imported, and never import
it. `import exodus_core.torch` without torch raises an ImportError that says what to install. Witness: a fresh
interpreter.
"""

import subprocess
import sys

BLOCK = "import sys; sys.modules['torch'] = None\n"
USE = (
    "import numpy as np, exodus_core as ec\n"
    "trace = ec.forward(ec.LIF(alpha=0.5), np.full((4, 2), 0.75, np.float32))\n"
    "assert trace.spikes.sum() == 2.0, trace.spikes\n"
    "assert ec.backward(trace, trace.spikes).current.any()\n"
)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_forward_and_backward_work_without_torch():
    done = run(BLOCK + USE)
    assert done.returncode == 0, done.stderr


def test_torch_is_not_imported_unasked():
    done = run("import sys\n" + USE + "assert 'torch' not in sys.modules\n")
    assert done.returncode == 0, done.stderr


def test_missing_torch_is_an_import_error_that_says_what_to_install():
    done = run(BLOCK + "import exodus_core.torch\n")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: exodus_core.torch needs torch")
    assert "pip install 'exodus-snn[torch]'" in last


def test_package_works_on_after_the_import_error():
    attempt = "try:\n    import exodus_core.torch\nexcept ImportError:\n    pass\nelse:\n    sys.exit(3)\n"
    done = run(BLOCK + attempt + USE)
    assert done.returncode == 0, done.stderr


def test_tensor_given_to_the_numpy_front_end_without_importing_the_adapter():
    code = (
        "import types, exodus_core as ec\n"
        "Tensor = type('Tensor', (), {'__module__': 'torch'})\n"
        "try:\n    ec.forward(ec.LIF(alpha=0.5), Tensor())\n"
        "except TypeError as error:\n    assert 'exodus_core.torch.spike' in str(error)\n"
        "else:\n    raise SystemExit(3)\n"
    )
    done = run(BLOCK + code)
    assert done.returncode == 0, done.stderr
