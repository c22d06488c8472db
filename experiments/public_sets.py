"""The four public data sets of table S1, from their files, at the table's time steps and sizes."""

from __future__ import annotations

import csv
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .aedat import read_dvs128, read_packets
from .frames import count_events
from .samples import Samples, Splits

SPOKEN = "https://zenkelab.org/resources/spiking-heidelberg-datasets-shd/"
GESTURES = "https://research.ibm.com/interactive/dvsgesture/"
CIFAR10 = "https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671"

CHANNELS, SPOKEN_STEPS, SPOKEN_SECONDS = 100, 250, 1.4  # HSD and SSC; the longest recordings end before 1.4 s
UNITS = 700
SPOKEN_DIGITS = tuple(f"{word} ({language})" for language in ("English", "German") for word in range(10))
GESTURE_STEPS, GESTURE_WINDOW, GESTURE_SIDE = 300, 20_000, 64  # 6 s
GESTURE_NAMES = (
    *("hand clap", "right hand wave", "left hand wave", "right arm clockwise", "right arm counter clockwise"),
    *("left arm clockwise", "left arm counter clockwise", "arm roll", "air drums", "air guitar", "other"),
)
VALIDATION_USERS = (20, 21, 22, 23)  # of the training users 1 to 23; 24 to 29 are the test set
CIFAR10_STEPS, CIFAR10_SIDE = 8, 128
CIFAR10_NAMES = (*("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),)


def _require(path: Path, source: str) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: get it from {source}")
    return path


def read_spoken(path: Path) -> tuple[Tensor, Tensor, np.ndarray]:
    """Read a file of HSD or SSC.

    Parameters
    ----------
    path : Path
        An HDF5 file with "spikes/times" (s), "spikes/units" and "labels".

    Returns
    -------
    tuple
        Spikes in 250 steps of 5.6 ms and 100 channels of 7 units, as uint8, of shape (sample, time, channel);
        the labels; the speaker of each sample, 0 where the file has none.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing or no such file; the message names it.
    """
    try:
        with h5py.File(_require(path, SPOKEN), "r") as file:
            times, units, labels = file["spikes/times"][:], file["spikes/units"][:], file["labels"][:]
            speakers = file["extra/speaker"][:] if "extra/speaker" in file else np.zeros(len(labels), int)
    except (KeyError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} must be a file of HSD or SSC, got: {error}. Get it from {SPOKEN}") from None
    if not len(times) == len(units) == len(labels):
        raise ValueError(f"{path} must have as many spikes as labels, got {len(times)} and {len(labels)}")
    events = np.zeros((len(labels), SPOKEN_STEPS, CHANNELS), np.uint8)
    for k, (when, unit) in enumerate(zip(times, units, strict=True)):
        if len(unit) and (unit.max() >= UNITS or unit.min() < 0):
            raise ValueError(f"{path} must have units below {UNITS}, got {unit.max()} in sample {k}")
        step = np.floor(np.asarray(when, np.float64) * (SPOKEN_STEPS / SPOKEN_SECONDS)).astype(np.int64)
        inside = (step >= 0) & (step < SPOKEN_STEPS)
        place = step[inside] * CHANNELS + np.asarray(unit, np.int64)[inside] * CHANNELS // UNITS
        counts = np.bincount(place, minlength=SPOKEN_STEPS * CHANNELS)
        events[k] = np.minimum(counts, 255).reshape(SPOKEN_STEPS, CHANNELS)
    return torch.from_numpy(events), torch.from_numpy(labels.astype(np.int64)), np.asarray(speakers)


def load_hsd(data: Path) -> Splits:
    """Load the Heidelberg Spiking Digits. Two of the training set's speakers are for validation.

    Parameters
    ----------
    data : Path
        A folder with SHD/shd_train.h5 and SHD/shd_test.h5.

    Returns
    -------
    Splits
        Spikes of 100 channels and 250 steps.
    """
    events, labels, speakers = read_spoken(data / "SHD" / "shd_train.h5")
    chosen = torch.from_numpy(np.isin(speakers, np.unique(speakers)[-2:]))
    test_events, test_labels, _ = read_spoken(data / "SHD" / "shd_test.h5")
    train, validation = (Samples(events[mask], labels[mask]) for mask in (~chosen, chosen))
    return Splits("HSD", train, validation, Samples(test_events, test_labels), SPOKEN_DIGITS)


def load_ssc(data: Path) -> Splits:
    """Load the Spiking Speech Commands, which have a validation set of their own.

    Parameters
    ----------
    data : Path
        A folder with SSC/ssc_train.h5, SSC/ssc_valid.h5 and SSC/ssc_test.h5.

    Returns
    -------
    Splits
        Spikes of 100 channels and 250 steps.
    """
    files = (data / "SSC" / f"ssc_{name}.h5" for name in ("train", "valid", "test"))
    train, validation, test = (Samples(*read_spoken(file)[:2]) for file in files)
    return Splits("SSC", train, validation, test, tuple(f"word {k}" for k in range(35)))


Frames = list[tuple[np.ndarray, int]]  # of recordings, each with its class


def _splits(name: str, parts: dict[str, Frames], classes: tuple[str, ...]) -> Splits:
    """Make a data set of the frames of its parts."""
    samples = []
    for own in parts.values():
        frames = torch.from_numpy(np.stack([one for one, _ in own]))
        samples.append(Samples(frames, torch.tensor([label for _, label in own])))
    train, validation, test = samples
    return Splits(name, train, validation, test, classes)


def gesture_frames(events: np.ndarray, path: Path) -> np.ndarray:
    """Count the events of a gesture.

    Parameters
    ----------
    events : ndarray
        A structured array of events on 128 x 128 pixels.
    path : Path
        The file that they come from, for errors.

    Returns
    -------
    ndarray
        300 frames of 20 ms, of 2 x 64 x 64 bins, as uint8.
    """
    if len(events) == 0 or max(events["x"].max(), events["y"].max()) >= 128:
        raise ValueError(f"{path} must have events on 128 x 128 pixels. Get it from {GESTURES}")
    return count_events(events, (128, 128), GESTURE_STEPS, GESTURE_WINDOW, GESTURE_SIDE)


def read_gestures(path: Path) -> Frames:
    """Read the gestures of a recording of DVS Gesture.

    Parameters
    ----------
    path : Path
        A file userXX_LIGHT.aedat, beside userXX_LIGHT_labels.csv with the class, from 1, and the begin and
        end of each gesture in microseconds.

    Returns
    -------
    list of (ndarray, int)
        For each gesture its frames and its class, from 0.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or broken; the message names it.
    """
    events = read_packets(_require(path, GESTURES))
    table = _require(path.with_name(f"{path.stem}_labels.csv"), GESTURES)
    found: Frames = []
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            try:
                kind, begin, end = (int(row[name]) for name in ("class", "startTime_usec", "endTime_usec"))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{table} must have classes and times, got {row}: {error}") from None
            inside = (events["t"] >= begin) & (events["t"] < end)
            found.append((gesture_frames(events[inside], path), kind - 1))
    return found


def load_dvs_gesture(data: Path) -> Splits:
    """Load DVS Gesture. The training set's users 20 to 23 are for validation.

    Parameters
    ----------
    data : Path
        A folder with DvsGesture/trials_to_train.txt, trials_to_test.txt and the recordings they name.

    Returns
    -------
    Splits
        300 frames of 2 x 64 x 64 bins.
    """
    folder = data / "DvsGesture"
    parts: dict[str, Frames] = {"train": [], "validation": [], "test": []}
    for name in ("train", "test"):
        names = _require(folder / f"trials_to_{name}.txt", GESTURES).read_text(encoding="utf-8").split()
        for trial in tqdm(names, desc=f"DVS Gesture, {name}", unit="recording", disable=None, leave=False):
            user = int(trial.removeprefix("user")[:2])
            part = "validation" if name == "train" and user in VALIDATION_USERS else name
            parts[part] += read_gestures(folder / trial)
    return _splits("DVS Gesture", parts, GESTURE_NAMES)


def read_cifar10(path: Path) -> np.ndarray:
    """Read a recording of CIFAR10-DVS.

    Parameters
    ----------
    path : Path
        A file in the format AEDAT 2.0.

    Returns
    -------
    ndarray
        8 frames of equal durations, of 2 x 128 x 128 bins, as uint8.
    """
    events = read_dvs128(path)
    if len(events) == 0:
        raise ValueError(f"{path} must have events, got none. Get it from {CIFAR10}")
    duration = int(events["t"].max() - events["t"].min()) + 1
    window = -(-duration // CIFAR10_STEPS)
    return count_events(events, (CIFAR10_SIDE,) * 2, CIFAR10_STEPS, window, CIFAR10_SIDE)


def load_cifar10_dvs(data: Path) -> Splits:
    """Load CIFAR10-DVS, which has no test set.

    In the order of names, the ninth of ten recordings of a class is for validation, the tenth for the test.

    Parameters
    ----------
    data : Path
        A folder with CIFAR10DVS/<class>/*.aedat.

    Returns
    -------
    Splits
        8 frames of 2 x 128 x 128 bins.
    """
    parts: dict[str, Frames] = {"train": [], "validation": [], "test": []}
    for label, name in enumerate(CIFAR10_NAMES):
        folder = _require(data / "CIFAR10DVS" / name, CIFAR10)
        files = sorted(folder.glob("*.aedat"))
        if len(files) < 10:
            raise FileNotFoundError(
                f"{folder} must have 1000 recordings *.aedat, got {len(files)}: {CIFAR10}"
            )
        for k, path in enumerate(tqdm(files, desc=f"CIFAR10-DVS, {name}", disable=None, leave=False)):
            part = {8: "validation", 9: "test"}.get(k % 10, "train")
            parts[part].append((read_cifar10(path), label))
    return _splits("CIFAR10-DVS", parts, CIFAR10_NAMES)
