"""Compare the algorithms' gradients, fit a spike train and classify handwritten digits."""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

PARTS = {"a": "claim", "b": "fit", "c": "digits", "d": "srm"}
TITLES = {
    "a": "weight gradients of a 100-128-128-35 IF network at its first step (appendix, figure S2)",
    "b": "250-25-1 LIF neurons learn to fire at four given times (appendix, figure S3)",
    "c": "a spiking classifier of scikit-learn's handwritten digits",
    "d": "the fit of (b) with SLAYER's neurons: spike response model, alpha kernels",
}
METHODS = ("exodus", "slayer", "bptt")
Row = tuple[str, dict[str, str]]


def main() -> None:
    """Run the parts that the command line asks for."""
    arguments = _arguments()
    missing = [name for name in ("torch", "matplotlib", "sklearn", "tqdm") if find_spec(name) is None]
    if missing:
        sys.exit(f"The demo needs {', '.join(missing)}: pip install 'exodus-snn[demo]'")

    import torch

    # The matrices are too small for more threads, whose number would also change the last printed digits.
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    pictures, seconds = [], []
    for part in arguments.parts:
        print(f"({part}) {TITLES[part]}", flush=True)
        started = time.perf_counter()
        module = import_module(f"exodus_core.demo.{PARTS[part]}")
        result = getattr(module, PARTS[part])(arguments.seed)
        pictures.append(module.plot(result, arguments.out))
        rows += [(f"({part}) {name}", values) for name, values in module.table(result)]
        seconds.append(f"({part}) {time.perf_counter() - started:.0f}")
    _print_table(rows)
    print("\nSeconds:", *seconds)
    print("Pictures:", *pictures)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m exodus_core.demo",
        description=__doc__,
        epilog="Parts: " + "; ".join(f"{part}: {title}" for part, title in TITLES.items()) + ".",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo-output"), help="folder for the pictures (default: %(default)s)"
    )
    parser.add_argument(
        "--parts", type=_parts, default="abcd", help="which parts to run, as letters (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of everything random (default: %(default)s)"
    )
    return parser.parse_args()


def _parts(text: str) -> str:
    if not text or not set(text) <= set(PARTS):
        raise argparse.ArgumentTypeError(f"must be letters among {''.join(PARTS)}, got {text!r}")
    return "".join(part for part in PARTS if part in text)


def _print_table(rows: list[Row]) -> None:
    """Print aligned columns: the quantity, then a value for each method."""
    lines = [["", "EXODUS", "SLAYER", "BPTT"]]
    lines += [[name, *(values.get(method, "") for method in METHODS)] for name, values in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    print()
    for name, *values in lines:
        cells = [value.rjust(width) for value, width in zip(values, widths[1:], strict=True)]
        print("  ".join([name.ljust(widths[0]), *cells]).rstrip())


if __name__ == "__main__":
    main()
