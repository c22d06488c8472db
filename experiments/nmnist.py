"""N-MNIST: digits before a moving event camera, as frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tonic.datasets import NMNIST
from tonic.io import read_mnist_file
from tqdm import tqdm

from .frames import count_events
from .samples import Samples, Splits

SOURCE = "https://www.garrickorchard.com/datasets/n-mnist"
STEPS, WINDOW = 62, 5000  # frames of 5 ms, 310 ms in all
SENSOR, SIDE = (34, 34), 32
CLASSES = tuple(str(digit) for digit in range(10))
VALIDATION = 5  # every fifth recording of a digit


def read(path: Path) -> np.ndarray:
    """Read a recording.

    Parameters
    ----------
    path : Path
        A file of 40-bit events.

    Returns
    -------
    ndarray
        Counts of events, (time, polarity, y, x), as uint8.

    Raises
    ------
    ValueError
        If the file is no such recording.
    """
    size = path.stat().st_size
    if size == 0 or size % 5:
        raise ValueError(f"{path} must have events of 5 bytes, got {size} bytes. Get it from {SOURCE}")
    events = read_mnist_file(str(path), dtype=NMNIST.dtype)
    if len(events) == 0 or events["x"].max() >= SENSOR[0] or events["y"].max() >= SENSOR[1]:
        raise ValueError(f"{path} must have events on {SENSOR[0]} x {SENSOR[1]} pixels. Get it from {SOURCE}")
    return count_events(events, SENSOR, STEPS, WINDOW, SIDE)


def _read_all(files: list[tuple[int, Path]], label: str) -> Samples:
    bar = tqdm(files, desc=f"N-MNIST, {label}", unit="recording", disable=None, leave=False)
    events = torch.from_numpy(np.stack([read(path) for _, path in bar]))
    return Samples(events, torch.tensor([digit for digit, _ in files]))


def _files(folder: Path) -> list[tuple[int, Path]]:
    found = [(digit, path) for digit in range(10) for path in sorted(folder.glob(f"{digit}/*.bin"))]
    if not found:
        state = "none of them" if folder.is_dir() else "no such folder"
        raise FileNotFoundError(f"{folder} must have recordings <digit>/<id>.bin, got {state}: {SOURCE}")
    return found


def load(data: Path) -> Splits:
    """Load the recordings. A fifth of the training set is for validation.

    Parameters
    ----------
    data : Path
        A folder with nmnist/Train and nmnist/Test, the data set's.

    Returns
    -------
    Splits
        Frames of 2 x 32 x 32 bins.

    Raises
    ------
    FileNotFoundError, ValueError
        If recordings are missing or broken; the message names the file.
    """
    files = _files(data / "nmnist" / "Train")
    train = [file for k, file in enumerate(files) if k % VALIDATION]
    test = _read_all(_files(data / "nmnist" / "Test"), "test")
    parts = _read_all(train, "training"), _read_all(files[::VALIDATION], "validation")
    return Splits("N-MNIST", *parts, test, CLASSES)
