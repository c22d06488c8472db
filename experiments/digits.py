"""Spoken digits as spikes of 100 channels: the Free Spoken Digit Dataset through a model of the cochlea.

1. A first difference raises the high frequencies, as the outer and the middle ear do.
2. Gammatone filters (Patterson et al. 1987) stand for the basilar membrane. Their centre frequencies have
   equal distances on the ERB scale (Glasberg and Moore 1990).
3. The hair cells rectify, and average over steps of 4 ms: the envelope of each channel.
4. The logarithm compresses the envelope, and the range of 30 dB below the loudest point of the recording
   becomes a current.
5. An adaptive leaky integrate-and-fire neuron of this library makes spikes of it in each channel. Onsets make
   more spikes than steady sounds, as in the auditory nerve.

A recording begins at step 0, and is cut after the last one.
"""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.signal import gammatone, lfilter
from tqdm import tqdm

import exodus_core as ec

from . import synthetic
from .files import load as load_file
from .files import save
from .mapped import fingerprint
from .samples import Samples, Splits

SOURCE = "https://github.com/Jakobovski/free-spoken-digit-dataset"
RATE = 8000  # samples per second
CHANNELS, STEPS = 100, 250
STEP = 32  # samples: 4 ms
LOWEST, HIGHEST = 80.0, 3600.0  # Hz
EMPHASIS = 0.97  # of the first difference x[n] - 0.97 x[n-1]
FLOOR = 30.0  # dB below the loudest point
GAIN = 3.0  # the current at the loudest point
NERVE = ec.ALIF(alpha=0.8, alpha_adapt=0.97, adapt_scale=1.0, threshold=1.0)
CLASSES = tuple(str(digit) for digit in range(10))
TEST, VALIDATION = range(0, 5), range(5, 10)  # indices of recordings of each speaker and digit


@dataclass(frozen=True)
class Recordings:
    """All recordings as spikes.

    Attributes
    ----------
    events : Tensor
        Spikes per step, of shape (recording, time, channel), as uint8.
    digits, indices : Tensor
        For each recording, the digit, and its number among those of the speaker and digit.
    speakers : tuple of str
        For each recording, the name of the speaker.
    """

    events: torch.Tensor
    digits: torch.Tensor
    indices: torch.Tensor
    speakers: tuple[str, ...]

    def chosen(self, mask: torch.Tensor) -> Samples:
        """Return some recordings.

        Parameters
        ----------
        mask : Tensor
            True for the recordings to return.

        Returns
        -------
        Samples
            The recordings, in order.
        """
        return Samples(self.events[mask], self.digits[mask])


def centre_frequencies() -> np.ndarray:
    """Return the centre frequencies of the channels.

    Returns
    -------
    ndarray
        Frequencies in Hz, rising, with equal distances on the ERB scale, 21.4 log10(1 + 0.00437 f).
    """
    low, high = (21.4 * np.log10(1 + 0.00437 * f) for f in (LOWEST, HIGHEST))
    return (10 ** (np.linspace(low, high, CHANNELS) / 21.4) - 1) / 0.00437


def read_wav(path: Path) -> np.ndarray:
    """Read a recording.

    Parameters
    ----------
    path : Path
        A wav file of 8 kHz, with one channel of 16 bits.

    Returns
    -------
    ndarray
        The samples, with a root mean square of 1.

    Raises
    ------
    ValueError
        If the file is no such recording, or silent.
    """
    try:
        with wave.open(str(path)) as file:
            kind = file.getframerate(), file.getnchannels(), file.getsampwidth()
            content = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path} must be a wav file, got: {error}. Get it from {SOURCE}") from None
    if kind != (RATE, 1, 2):
        raise ValueError(f"{path} must be 8 kHz, mono, 16 bits, got (rate, channels, bytes) = {kind}")
    samples = np.frombuffer(content, "<i2").astype(np.float64)
    level = np.sqrt(np.mean(samples**2)) if len(samples) else 0.0
    if level == 0.0:
        raise ValueError(f"{path} must have sound, got {len(samples)} samples of silence")
    return samples / level


def envelopes(samples: np.ndarray) -> np.ndarray:
    """Compute the envelope of each channel.

    Parameters
    ----------
    samples : ndarray
        A recording.

    Returns
    -------
    ndarray
        The mean rectified response, `STEPS` by `CHANNELS`; 0 after the end of the recording.
    """
    samples = lfilter([1.0, -EMPHASIS], [1.0], samples[: STEPS * STEP])
    samples = np.pad(samples, (0, -len(samples) % STEP))
    found = np.zeros((STEPS, CHANNELS))
    for channel, frequency in enumerate(centre_frequencies()):
        response = np.maximum(lfilter(*gammatone(frequency, "iir", fs=RATE), samples), 0.0)
        found[: len(samples) // STEP, channel] = response.reshape(-1, STEP).mean(axis=1)
    return found


def spikes(envelope: np.ndarray) -> np.ndarray:
    """Turn the envelopes of a recording into spikes.

    Parameters
    ----------
    envelope : ndarray
        The result of ``envelopes``.

    Returns
    -------
    ndarray
        Spikes per step, of the same shape, as uint8.
    """
    largest = envelope.max()
    level = 20 * np.log10(np.maximum(envelope, 1e-9 * largest) / largest)
    current = np.clip(1 + level / FLOOR, 0.0, 1.0) * GAIN
    found: np.ndarray = np.asarray(ec.forward(NERVE, current.astype(np.float32)).spikes, np.uint8)
    return found


def _files(data: Path) -> list[Path]:
    folder = data / "fsdd" / "recordings"
    files = sorted(folder.glob("*_*_*.wav"))
    if not files:
        raise FileNotFoundError(
            f"{folder} must have the recordings {{digit}}_{{speaker}}_{{index}}.wav, got "
            f"{'none of them' if folder.is_dir() else 'no such folder'}. Get them from {SOURCE}"
        )
    return files


def recordings(data: Path, cache: Path) -> Recordings:
    """Read all recordings, and turn them into spikes, which takes half a minute the first time.

    Parameters
    ----------
    data : Path
        A folder with fsdd/recordings, the data set's.
    cache : Path
        A folder for the spikes, which later calls read.

    Returns
    -------
    Recordings
        The recordings, in the order of their names.

    Raises
    ------
    FileNotFoundError, ValueError
        If recordings are missing or broken; the message names the file.
    """
    files = _files(data)
    front_end = RATE, CHANNELS, STEPS, STEP, LOWEST, HIGHEST, EMPHASIS, FLOOR, GAIN, NERVE
    key, path = fingerprint(files, *front_end), cache / "digits.pt"
    if path.exists():
        content = load_file(path)
        if content["key"] == key:
            return Recordings(**{name: value for name, value in content.items() if name != "key"})
    names = [file.stem.split("_") for file in files]
    trains = [
        spikes(envelopes(read_wav(file)))
        for file in tqdm(files, desc="spoken digits", unit="recording", disable=None, leave=False)
    ]
    content = {
        "key": key,
        "events": torch.from_numpy(np.stack(trains)),
        "digits": torch.tensor([int(digit) for digit, _, _ in names]),
        "indices": torch.tensor([int(index) for _, _, index in names]),
        "speakers": tuple(speaker for _, speaker, _ in names),
    }
    save(path, content)
    return Recordings(**{name: value for name, value in content.items() if name != "key"})


def load(data: Path, cache: Path) -> Splits:
    """Load the data set with its own test split, recordings 0 to 4; 5 to 9 are the validation set.

    Parameters
    ----------
    data, cache : Path
        See ``recordings``.

    Returns
    -------
    Splits
        The data set.
    """
    found = recordings(data, cache)
    test = torch.isin(found.indices, torch.tensor(TEST))
    validation = torch.isin(found.indices, torch.tensor(VALIDATION))
    return _splits("spoken digits", found, validation, test)


def load_or_stand_in(data: Path | None, cache: Path) -> Splits:
    """Load the data set, or make a stand-in without a folder of recordings.

    Parameters
    ----------
    data : Path or None
        The folder with recordings.
    cache : Path
        See ``recordings``.

    Returns
    -------
    Splits
        The data set.
    """
    if data is None:
        return synthetic.speech("spoken digits", len(CLASSES), (600, 100, 100))
    return load(data, cache)


def leave_out(speaker: str, data: Path, cache: Path) -> Splits:
    """Load the data set with one speaker as the test set. Recordings 0 to 4 of the others are for validation.

    Parameters
    ----------
    speaker : str
        The speaker who is left out.
    data, cache : Path
        See ``recordings``.

    Returns
    -------
    Splits
        The data set.
    """
    found = recordings(data, cache)
    test = torch.tensor([name == speaker for name in found.speakers])
    if not test.any():
        raise ValueError(f"speaker must be one of {sorted(set(found.speakers))}, got {speaker!r}")
    validation = ~test & torch.isin(found.indices, torch.tensor(TEST))
    return _splits(f"spoken digits without {speaker}", found, validation, test)


def _splits(name: str, found: Recordings, validation: torch.Tensor, test: torch.Tensor) -> Splits:
    train = found.chosen(~test & ~validation)
    return Splits(name, train, found.chosen(validation), found.chosen(test), CLASSES)
