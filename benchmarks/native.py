"""Build the small C++ programs that measure the limits of the machine, when a benchmark needs them."""

import ctypes
import subprocess
import tempfile
from pathlib import Path


def build(name):
    """Compile `name`.cpp of this folder, and load it."""
    source, library = Path(__file__).with_name(f"{name}.cpp"), Path(tempfile.mkdtemp()) / f"{name}.so"
    flags = ["-O3", "-std=c++20", "-march=native", "-ffp-contract=off", "-shared", "-fPIC", "-pthread"]
    subprocess.run(["c++", *flags, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))
