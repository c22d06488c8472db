"""Compute the paper's tables and figures, and write them into one page, report.html.

Without --only all experiments run. --quick takes minutes on two cores; --full has the paper's settings, and
says beforehand how long it will take. An interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from .files import write_json
from .settings import Experiment, Settings

# In the order of the report.
NAMES = (
    "loop_example",
    "table_s1",
    "recordings",
    "figure_s2",
    "figure_s3",
    "oxford",
    "gradient_scale",
    "section_7",
    "table_s2",
)
NEEDED = ("torch", "matplotlib", "scipy", "sklearn", "tqdm", "tonic", "aedat")


def experiment(name: str) -> Experiment:
    """Import an experiment.

    Parameters
    ----------
    name : str
        The name of its module.

    Returns
    -------
    Experiment
        The module.
    """
    return cast(Experiment, import_module(f"experiments.{name}"))


def main(arguments: list[str] | None = None) -> None:
    """Run the experiments that the command line asks for.

    Parameters
    ----------
    arguments : list of str, optional
        The command line, in place of that of the process.
    """
    given = _parser().parse_args(arguments)
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.exit(f"The experiments need {', '.join(missing)}: pip install 'exodus-snn[experiments]'")
    if given.data is not None and not given.data.is_dir():
        sys.exit(f"--data must be a folder, got {given.data}")
    settings = Settings(given.out, given.quick, given.data, given.device, given.workers, given.epochs)
    chosen = {name: experiment(name) for name in NAMES if not given.only or name in given.only}
    if not settings.quick:
        _announce(chosen, settings)
    from .report import write_report  # after the check of what is installed

    outcomes = {}
    for name, module in chosen.items():
        print(f"{name}: {_title(module)}", flush=True)
        begin = time.perf_counter()
        outcomes[name] = module.run(settings)
        print(f"{name}: {_duration(time.perf_counter() - begin)}", flush=True)
        write_json(settings.folder(name) / "numbers.json", outcomes[name].numbers)
    print(write_report(settings, outcomes))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Experiments: " + ", ".join(NAMES) + ".",
    )
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--quick", action="store_true", help="a small version, for a look and for tests")
    size.add_argument("--full", action="store_true", help="the settings of the paper")
    parser.add_argument("--data", type=Path, help="the folder with recordings (docs/experiments.md)")
    parser.add_argument(
        "--out", type=Path, default=Path("experiments-output"), help="folder for results (%(default)s)"
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help="some experiments only")
    parser.add_argument("--epochs", type=_positive, help="epochs of classifiers, in place of the size's own")
    parser.add_argument("--device", default="cpu", help="device for torch (%(default)s)")
    parser.add_argument(
        "--workers", type=_positive, default=2, help="processes that train side by side (%(default)s)"
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a number, 1 or more, got {text!r}")
    return int(text)


def _title(module: Experiment) -> str:
    return (module.__doc__ or "").splitlines()[0]


def _announce(chosen: dict[str, Experiment], settings: Settings) -> None:
    """Say how long a run will take."""
    seconds = {name: module.seconds(settings) for name, module in chosen.items()}
    for name, one in seconds.items():
        print(f"{name:16} about {_duration(one)}")
    print(f"{'all':16} about {_duration(sum(seconds.values()))}", flush=True)


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


if __name__ == "__main__":
    main()
