"""Facts about this installation, for build systems: ``python -m exodus_core --cmake-dir``."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import __version__, _core, isa


def main() -> None:
    """Print the requested fact."""
    parser = argparse.ArgumentParser(prog="python -m exodus_core", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "--cmake-dir",
        action="store_true",
        help="print the folder for -Dexodus_core_DIR or CMAKE_PREFIX_PATH",
    )
    parser.add_argument("--isa", action="store_true", help="print the instruction set that the kernels use")
    arguments = parser.parse_args()
    if arguments.cmake_dir:
        print(Path(_core.__file__).parent / "lib" / "cmake" / "exodus_core")
    elif arguments.isa:
        print(isa())
    else:
        parser.print_help()


if __name__ == "__main__":
    main()
