"""``Settings``, the choices of a run, and ``Outcome``, the result of an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Settings:
    """The choices of a run, which all experiments share.

    Attributes
    ----------
    out : Path
        The folder for pictures, numbers and checkpoints.
    quick : bool
        A small version that takes minutes on two cores, in place of the paper's settings.
    data : Path or None
        The folder with recordings; None runs on synthetic stand-ins where an experiment has them.
    device : str
        The device for torch.
    workers : int
        The number of processes that train side by side.
    epochs : int or None
        The number of epochs of classifiers, in place of that of a quick or a full run.
    """

    out: Path
    quick: bool = True
    data: Path | None = None
    device: str = "cpu"
    workers: int = 2
    epochs: int | None = None

    def choose(self, quick: Any, full: Any) -> Any:
        """Return the value for a quick run, or the one for a full run.

        Parameters
        ----------
        quick, full : object
            The two values.

        Returns
        -------
        object
            One of them.
        """
        return quick if self.quick else full

    def folder(self, name: str) -> Path:
        """Make a folder for the files of an experiment.

        Quick and full runs have folders of their own, so that neither continues the other's checkpoints.

        Parameters
        ----------
        name : str
            The name of the experiment.

        Returns
        -------
        Path
            The folder, which exists.
        """
        path = self.out / ("quick" if self.quick else "full") / name
        path.mkdir(parents=True, exist_ok=True)
        return path


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes
    ----------
    title : str
        The caption.
    columns : sequence of str
        The headings, with that of the rows' names first.
    rows : sequence of sequence of str
        The cells, as they are printed.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass
class Outcome:
    """The result of an experiment.

    Attributes
    ----------
    title : str
        The part of the paper that the experiment reproduces.
    text : sequence of str
        Paragraphs: the scale at which it was run, and the findings beside the paper's.
    tables : list of Table
        The tables.
    figures : list of Path
        The pictures.
    numbers : dict
        The numbers behind them, for JSON.
    """

    title: str
    text: Sequence[str]
    tables: list[Table] = field(default_factory=list)
    figures: list[Path] = field(default_factory=list)
    numbers: Mapping[str, Any] = field(default_factory=dict)


class Experiment(Protocol):
    """A module of an experiment.

    Its docstring's first line is its title on the command line. It keeps its files in the folder that
    `Settings.folder` gives for its name. ``jobs(settings)``, where it has one, returns the arguments of its
    runs by the name of the job, for ``run_jobs``.
    """

    __doc__: str | None

    def run(self, settings: Settings) -> Outcome:
        """Run the experiment, or go on where it was interrupted.

        Parameters
        ----------
        settings : Settings
            The choices of the run.

        Returns
        -------
        Outcome
            What the report shows.
        """

    def seconds(self, settings: Settings) -> float:
        """Estimate how long ``run`` takes.

        Parameters
        ----------
        settings : Settings
            The choices of the run.

        Returns
        -------
        float
            Seconds.
        """
