"""Data sets that need not fit into memory: converted once into files, which are mapped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from .files import load, replace, save
from .samples import Samples

Recordings = Iterator[tuple[np.ndarray, int]]  # one after the other: spikes per step as uint8, and the class


def fingerprint(files: Iterable[Path], *settings: Any) -> str:
    """Identify the result of a conversion of files.

    Parameters
    ----------
    files : iterable of Path
        The files, which exist.
    *settings : object
        The other values on which the result depends, with a ``repr``.

    Returns
    -------
    str
        A text that changes with the files' names and sizes, and with the settings.
    """
    facts = [(str(file), file.stat().st_size) for file in files]
    return hashlib.sha256(repr((facts, settings)).encode()).hexdigest()


def convert(path: Path, key: str, recordings: Recordings, classes: int) -> Samples:
    """Read recordings one by one into a file, if that is not done, and map the file.

    Parameters
    ----------
    path : Path
        The path of the file, to which the key and an ending are added.
    key : str
        The ``fingerprint`` of the recordings.
    recordings : iterator of (ndarray, int)
        The recordings, of equal shape. They are read only if there is no file for the key.
    classes : int
        The number of classes.

    Returns
    -------
    Samples
        The recordings. Their spikes lie in the file.

    Raises
    ------
    ValueError
        If a class is out of range, or there are no recordings; the message names the path.
    """
    base = path.with_name(f"{path.name}-{key[:16]}")
    frames, facts = base.with_suffix(".frames"), base.with_suffix(".pt")
    if not facts.exists():  # it is written last
        first = next(recordings, None)
        if first is None:
            raise ValueError(f"{path.name} must have recordings, got none")
        labels: list[int] = []
        replace(frames, lambda draft: labels.extend(_write(draft, chain([first], recordings), path.name)))
        wrong = [label for label in labels if not 0 <= label < classes]
        if wrong:
            raise ValueError(f"{path.name} must have classes from 0 to {classes - 1}, got {wrong[0]}")
        save(facts, {"shape": list(first[0].shape), "labels": torch.tensor(labels)})
    content = load(facts)
    shape, labels_ = content["shape"], content["labels"]
    size = len(labels_) * int(np.prod(shape))
    if not frames.exists() or frames.stat().st_size != size:
        raise ValueError(f"{frames} must have {size} bytes: delete {facts}, so that it is made again")
    events = torch.from_file(str(frames), shared=False, size=size, dtype=torch.uint8)
    return Samples(events.reshape(-1, *shape), labels_)


def _write(draft: Path, recordings: Iterable[tuple[np.ndarray, int]], label: str) -> list[int]:
    """Write the spikes of all recordings, and return the classes."""
    labels = []
    with draft.open("wb") as file:
        for spikes, kind in tqdm(recordings, label, unit="recording", disable=None, leave=False):
            file.write(np.ascontiguousarray(spikes, np.uint8).tobytes())
            labels.append(kind)
    return labels
