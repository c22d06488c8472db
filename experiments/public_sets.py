"""The four public data sets of table S1, from their files, at the table's time steps and sizes."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import h5py
import numpy as np
from tonic.io import make_structured_array

from .aedat import read_dvs128, read_packets, read_streams
from .frames import count_events
from .mapped import Recordings, convert, fingerprint
from .samples import Splits

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
GESTURE_FOLDERS = {"train": "ibmGestureTrain", "test": "ibmGestureTest"}  # of the set as tonic offers it
CIFAR10_STEPS, CIFAR10_SIDE = 8, 128
CIFAR10_NAMES = (*("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),)


def _require(path: Path, source: str) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: get it from {source}")
    return path


def _splits(
    name: str,
    cache: Path,
    classes: tuple[str, ...],
    parts: Mapping[str, tuple[Sequence[Path], Recordings]],
    *settings: object,
) -> Splits:
    """Make a data set of the files and the recordings of its parts."""
    samples = [
        convert(
            cache / f"{name.replace(' ', '-')}-{part}",
            fingerprint(files, part, *settings),
            recordings,
            len(classes),
        )
        for part, (files, recordings) in parts.items()
    ]
    train, validation, test = samples
    return Splits(name, train, validation, test, classes)


@contextmanager
def _spoken(path: Path) -> Iterator[h5py.File]:
    """Open a file of HSD or SSC."""
    try:
        with h5py.File(_require(path, SPOKEN), "r") as file:
            yield file
    except (KeyError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} must be a file of HSD or SSC, got: {error}. Get it from {SPOKEN}") from None


def _speakers(path: Path) -> np.ndarray:
    with _spoken(path) as file:
        return np.asarray(file["extra/speaker"][:])


def _words(path: Path) -> tuple[str, ...] | None:
    """Return the names of the classes, where the file has them."""
    with _spoken(path) as file:
        return tuple(file["extra/keys"].asstr()[:]) if "extra/keys" in file else None


def read_spoken(path: Path, chosen: Collection[int] | None = None) -> Recordings:
    """Read a file of HSD or SSC.

    Parameters
    ----------
    path : Path
        An HDF5 file with "spikes/times" (s), "spikes/units" and "labels".
    chosen : collection of int, optional
        The numbers of the samples to read; all if left out.

    Yields
    ------
    tuple of (ndarray, int)
        For each sample its spikes in 250 steps of 5.6 ms and 100 channels of 7 units, and its class.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing or no such file; the message names it.
    """
    with _spoken(path) as file:
        times, units, labels = (file[name] for name in ("spikes/times", "spikes/units", "labels"))
        if not len(times) == len(units) == len(labels):
            raise ValueError(f"{path} must have as many spikes as labels, got {len(times)} and {len(labels)}")
        for k, label in enumerate(labels[:]):
            if chosen is not None and k not in chosen:
                continue
            when, unit = np.asarray(times[k], np.float64), np.asarray(units[k], np.int64)
            if len(when) != len(unit):
                raise ValueError(
                    f"{path} must have a unit for each time, got {len(unit)} for {len(when)} in sample {k}"
                )
            if len(unit) and (unit.max() >= UNITS or unit.min() < 0):
                raise ValueError(f"{path} must have units below {UNITS}, got {unit.max()} in sample {k}")
            yield _count_spikes(when, unit), int(label)


def _count_spikes(when: np.ndarray, unit: np.ndarray) -> np.ndarray:
    step = np.floor(when * (SPOKEN_STEPS / SPOKEN_SECONDS)).astype(np.int64)
    inside = (step >= 0) & (step < SPOKEN_STEPS)
    place = step[inside] * CHANNELS + unit[inside] * CHANNELS // UNITS
    counts = np.bincount(place, minlength=SPOKEN_STEPS * CHANNELS)
    return np.minimum(counts, 255).astype(np.uint8).reshape(SPOKEN_STEPS, CHANNELS)


def load_hsd(data: Path, cache: Path) -> Splits:
    """Load the Heidelberg Spiking Digits. Two of the training set's speakers are for validation.

    Parameters
    ----------
    data : Path
        A folder with SHD/shd_train.h5 and SHD/shd_test.h5.
    cache : Path
        A folder for the binned spikes, which later calls map.

    Returns
    -------
    Splits
        Spikes of 100 channels and 250 steps.
    """
    training, test = data / "SHD" / "shd_train.h5", data / "SHD" / "shd_test.h5"
    speakers = _speakers(training)
    held_out = np.isin(speakers, np.unique(speakers)[-2:])
    kept, validation = (set(np.flatnonzero(mask).tolist()) for mask in (~held_out, held_out))
    parts = {
        "train": ([training], read_spoken(training, kept)),
        "validation": ([training], read_spoken(training, validation)),
        "test": ([_require(test, SPOKEN)], read_spoken(test)),
    }
    return _splits("HSD", cache, SPOKEN_DIGITS, parts, SPOKEN_STEPS, SPOKEN_SECONDS, CHANNELS)


def load_ssc(data: Path, cache: Path) -> Splits:
    """Load the Spiking Speech Commands, which have a validation set of their own.

    Parameters
    ----------
    data : Path
        A folder with SSC/ssc_train.h5, SSC/ssc_valid.h5 and SSC/ssc_test.h5.
    cache : Path
        A folder for the binned spikes, which later calls map.

    Returns
    -------
    Splits
        Spikes of 100 channels and 250 steps.
    """
    names = {"train": "train", "validation": "valid", "test": "test"}
    files = {part: _require(data / "SSC" / f"ssc_{name}.h5", SPOKEN) for part, name in names.items()}
    parts = {part: ([file], read_spoken(file)) for part, file in files.items()}
    words = _words(files["train"]) or tuple(f"word {k}" for k in range(35))
    return _splits("SSC", cache, words, parts, SPOKEN_STEPS, SPOKEN_SECONDS, CHANNELS)


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


def read_gestures(path: Path) -> Recordings:
    """Read the gestures of a recording of DVS Gesture.

    Parameters
    ----------
    path : Path
        A file userXX_LIGHT.aedat, beside userXX_LIGHT_labels.csv with the class, from 1, and the begin and
        end of each gesture in microseconds.

    Yields
    ------
    tuple of (ndarray, int)
        For each gesture its frames and its class, from 0.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or broken; the message names it.
    """
    events = read_packets(_require(path, GESTURES))
    table = _gesture_table(path)
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            try:
                kind, begin, end = (int(row[name]) for name in ("class", "startTime_usec", "endTime_usec"))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{table} must have classes and times, got {row}: {error}") from None
            inside = (events["t"] >= begin) & (events["t"] < end)
            yield gesture_frames(events[inside], path), kind - 1


def _gesture_table(path: Path) -> Path:
    return _require(path.with_name(f"{path.stem}_labels.csv"), GESTURES)


def read_gesture(path: Path) -> tuple[np.ndarray, int]:
    """Read a gesture of DVS Gesture as tonic offers it.

    Parameters
    ----------
    path : Path
        A file <class>.npy, with rows of x, y, polarity and time in milliseconds.

    Returns
    -------
    tuple of (ndarray, int)
        Its frames and its class, from 0.

    Raises
    ------
    ValueError
        If the file is broken; the message names it.
    """
    try:
        x, y, polarity, milliseconds = np.load(path).T
        events = make_structured_array(x, y, 1000 * milliseconds.astype(np.int64), polarity)
        return gesture_frames(events, path), int(path.stem)
    except (ValueError, TypeError, EOFError) as error:
        raise ValueError(f"{path} must have rows of x, y, polarity, time, got: {error}") from None


def load_dvs_gesture(data: Path, cache: Path) -> Splits:
    """Load DVS Gesture. The training set's users 20 to 23 are for validation.

    Parameters
    ----------
    data : Path
        A folder with DvsGesture/trials_to_train.txt, trials_to_test.txt and the recordings they name; or, as
        tonic saves the set, with DVSGesture/ibmGestureTrain/userXX_LIGHT/<class>.npy and the same in
        ibmGestureTest.
    cache : Path
        A folder for the frames, which later calls map.

    Returns
    -------
    Splits
        300 frames of 2 x 64 x 64 bins.
    """
    cut = data / "DVSGesture"
    parts = _cut_gestures(cut) if cut.is_dir() else _gesture_trials(data / "DvsGesture")
    settings = GESTURE_STEPS, GESTURE_WINDOW, GESTURE_SIDE
    return _splits("DVS Gesture", cache, GESTURE_NAMES, parts, *settings)


def _gesture_part(split: str, user: str) -> str:
    """Return the part of a recording of a split, from a name that begins with the user's."""
    number = user.removeprefix("user")[:2]
    return "validation" if split == "train" and int(number) in VALIDATION_USERS else split


def _gesture_trials(folder: Path) -> dict[str, tuple[Sequence[Path], Recordings]]:
    """Return the parts of the set as its authors offer it."""
    found: dict[str, list[Path]] = {"train": [], "validation": [], "test": []}
    for split in ("train", "test"):
        trials = _require(folder / f"trials_to_{split}.txt", GESTURES).read_text(encoding="utf-8").split()
        for trial in trials:
            found[_gesture_part(split, trial)].append(_require(folder / trial, GESTURES))
    return {
        part: (
            [*files, *map(_gesture_table, files)],
            chain.from_iterable(map(read_gestures, files)),
        )
        for part, files in found.items()
    }


def _cut_gestures(folder: Path) -> dict[str, tuple[Sequence[Path], Recordings]]:
    """Return the parts of the set as tonic offers it."""
    found: dict[str, list[Path]] = {"train": [], "validation": [], "test": []}
    for split, name in GESTURE_FOLDERS.items():
        for path in sorted(_require(folder / name, GESTURES).glob("user*/*.npy")):
            found[_gesture_part(split, path.parent.name)].append(path)
    return {part: (files, map(read_gesture, files)) for part, files in found.items()}


def read_cifar10(path: Path) -> np.ndarray:
    """Read a recording of CIFAR10-DVS.

    Parameters
    ----------
    path : Path
        A file in the format AEDAT 2.0, or AEDAT 4.0 if its name ends with .aedat4.

    Returns
    -------
    ndarray
        8 frames of equal durations, of 2 x 128 x 128 bins, as uint8.
    """
    events = (read_streams if path.suffix == ".aedat4" else read_dvs128)(path)
    if len(events) == 0:
        raise ValueError(f"{path} must have events, got none. Get it from {CIFAR10}")
    duration = int(events["t"].max() - events["t"].min()) + 1
    window = -(-duration // CIFAR10_STEPS)
    return count_events(events, (CIFAR10_SIDE,) * 2, CIFAR10_STEPS, window, CIFAR10_SIDE)


def load_cifar10_dvs(data: Path, cache: Path) -> Splits:
    """Load CIFAR10-DVS, which has no test set.

    In the order of names, the ninth of ten recordings of a class is for validation, the tenth for the test.

    Parameters
    ----------
    data : Path
        A folder with CIFAR10DVS/<class>/*.aedat, or *.aedat4, as tonic gets them.
    cache : Path
        A folder for the frames, which later calls map.

    Returns
    -------
    Splits
        8 frames of 2 x 128 x 128 bins.
    """
    found: dict[str, list[tuple[Path, int]]] = {"train": [], "validation": [], "test": []}
    for label, name in enumerate(CIFAR10_NAMES):
        folder = _require(data / "CIFAR10DVS" / name, CIFAR10)
        files = sorted(folder.glob("*.aedat")) or sorted(folder.glob("*.aedat4"))
        if len(files) < 10:
            raise FileNotFoundError(
                f"{folder} must have 1000 recordings *.aedat or *.aedat4, got {len(files)}: {CIFAR10}"
            )
        for k, path in enumerate(files):
            found[{8: "validation", 9: "test"}.get(k % 10, "train")].append((path, label))
    parts = {
        part: ([path for path, _ in own], ((read_cifar10(path), label) for path, label in own))
        for part, own in found.items()
    }
    return _splits("CIFAR10-DVS", cache, CIFAR10_NAMES, parts, CIFAR10_STEPS, CIFAR10_SIDE)
