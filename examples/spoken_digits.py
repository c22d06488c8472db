"""Spoken digits: recurrent and adaptive spiking networks, compared with feed-forward networks of equal sizes.

The Free Spoken Digit Dataset has 3000 recordings of ten digits by six speakers, sampled at 8 kHz
(https://github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0). For each speaker and digit,
recordings 0 to 4 are the test set, as its authors propose. Here recordings 5 to 9 are the validation set,
which chooses the epoch, and the rest is the training set. The test set is used once for each network, at the
end.

A recording becomes 80 frames of 40 mel bands, one frame every 10 ms. They drive two spiking layers, which
leaky integrators read out. The networks take turns at each batch, so that their times can be compared.

    git clone https://github.com/Jakobovski/free-spoken-digit-dataset
    python examples/spoken_digits.py --data free-spoken-digit-dataset [--quick] [--threads 2]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
import wave
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import exodus_core as ec
import exodus_core.torch as snn

RATE = 8000  # samples per second
WINDOW, HOP, FFT = 200, 80, 256  # samples: windows of 25 ms, every 10 ms
FRAMES, BANDS, CLASSES = 80, 40, 10
BATCH, LEARNING_RATE = 64, 5e-3
LARGEST_GRADIENT = 1.0  # the norm to which gradients are clipped
TEST, VALIDATION = range(0, 5), range(5, 10)  # indices of recordings of each speaker and digit


def mel_filters() -> np.ndarray:
    """Make triangular filters of equal width on the mel scale, up to half the sampling rate.

    Returns
    -------
    ndarray
        Weights, frequencies by bands.
    """
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    frequency = np.fft.rfftfreq(FFT, 1 / RATE)[:, np.newaxis]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    return np.maximum(0, np.minimum((frequency - low) / (middle - low), (high - frequency) / (high - middle)))


def bands(path: Path, filters: np.ndarray) -> np.ndarray:
    """Compute a recording's log energies in mel bands.

    Parameters
    ----------
    path : Path
        A wav file of 8 kHz, with one channel of 16 bits.
    filters : ndarray
        The result of ``mel_filters``.

    Returns
    -------
    ndarray
        Log energies, frames by bands, with at most `FRAMES` frames.
    """
    with wave.open(str(path)) as file:
        kind = file.getframerate(), file.getnchannels(), file.getsampwidth()
        if kind != (RATE, 1, 2):
            raise ValueError(f"{path} must be 8 kHz, mono, 16 bits, got (rate, channels, bytes) = {kind}")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64)
    samples = np.pad(samples / max(1.0, np.abs(samples).max()), (0, WINDOW))
    windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP][:FRAMES]
    power = np.abs(np.fft.rfft(windows * np.hanning(WINDOW), FFT)) ** 2
    return np.log(power @ filters + 1e-4)


@dataclass
class Split:
    """The training, validation or test set.

    Attributes
    ----------
    inputs : Tensor
        Log energies, time by recordings by bands.
    labels : Tensor
        The digits.
    """

    inputs: Tensor
    labels: Tensor


def load(folder: Path) -> dict[str, Split]:
    """Read the recordings.

    Each band is normalised by its mean and standard deviation in the training set. After the end of a
    recording it is 0.

    Parameters
    ----------
    folder : Path
        The folder with ``{digit}_{speaker}_{index}.wav``.

    Returns
    -------
    dict of str to Split
        "train", "validation" and "test".
    """
    found: dict[str, list[tuple[int, np.ndarray]]] = {"train": [], "validation": [], "test": []}
    filters = mel_filters()
    for path in sorted(folder.glob("*_*_*.wav")):
        digit, _, index = path.stem.split("_")
        name = "test" if int(index) in TEST else "validation" if int(index) in VALIDATION else "train"
        found[name].append((int(digit), bands(path, filters)))
    if not all(found.values()):
        raise FileNotFoundError(
            f"{folder} must have the dataset's recordings, got {sum(map(len, found.values()))}"
        )
    frames = np.concatenate([recording for _, recording in found["train"]])
    mean, deviation = frames.mean(axis=0), frames.std(axis=0)
    splits = {}
    for name, recordings in found.items():
        inputs = np.zeros((FRAMES, len(recordings), BANDS), np.float32)
        for k, (_, recording) in enumerate(recordings):
            inputs[: len(recording), k] = (recording - mean) / deviation
        splits[name] = Split(torch.from_numpy(inputs), torch.tensor([digit for digit, _ in recordings]))
    return splits


def cuba(neurons: int) -> nn.Module:
    """Make LIF neurons with a synaptic current. Each learns its own time constants.

    Parameters
    ----------
    neurons : int
        The number of neurons.

    Returns
    -------
    nn.Module
        The layer.
    """
    learn = {"tau": (neurons,), "tau_syn": (neurons,)}
    return snn.CubaLIF(tau=10.0, tau_syn=3.0, threshold=0.3, gain="1-alpha", learn=learn)


def adaptive(neurons: int) -> nn.Module:
    """Make adaptive LIF neurons. Each learns its own parameters.

    Parameters
    ----------
    neurons : int
        The number of neurons.

    Returns
    -------
    nn.Module
        The layer.
    """
    learn = {name: (neurons,) for name in ("tau", "tau_adapt", "coupling", "adapt_scale")}
    return snn.AdLIF(tau=5.0, tau_adapt=20.0, coupling=0.3, adapt_scale=0.2, threshold=0.2, learn=learn)


LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "CubaLIF": cuba,
    "CubaLIF, recurrent": lambda neurons: snn.Recurrent(cuba(neurons), neurons),
    "AdLIF": adaptive,
    "AdLIF, recurrent": lambda neurons: snn.Recurrent(adaptive(neurons), neurons),
}


def network(layer: Callable[[int], nn.Module], hidden: int) -> nn.Sequential:
    """Build a classifier.

    Parameters
    ----------
    layer : callable
        A function that makes a spiking layer of a number of neurons.
    hidden : int
        The number of neurons of each of the two layers.

    Returns
    -------
    nn.Sequential
        A network from (time, batch, bands) to potentials (time, batch, classes).
    """
    return nn.Sequential(
        nn.Linear(BANDS, hidden),
        layer(hidden),
        nn.Linear(hidden, hidden),
        layer(hidden),
        nn.Linear(hidden, CLASSES),
        snn.ExpLeak(tau=20.0, gain="1-alpha"),
    )


@dataclass
class Run:
    """A network in training.

    Attributes
    ----------
    net : nn.Sequential
        The network.
    optimiser : torch.optim.Optimizer
        The optimiser.
    schedule : torch.optim.lr_scheduler.LRScheduler
        The schedule of the learning rate, which falls to 0 by a cosine.
    seconds : list of float
        The time of each training step.
    best : float
        The highest accuracy on the validation set so far.
    best_state : dict
        The parameters that reached this accuracy.
    """

    net: nn.Sequential
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    seconds: list[float] = field(default_factory=list)
    best: float = -1.0
    best_state: dict[str, Tensor] = field(default_factory=dict)

    def step(self, inputs: Tensor, labels: Tensor) -> None:
        """Run a training step.

        Parameters
        ----------
        inputs : Tensor
            The inputs of a batch.
        labels : Tensor
            The digits of the batch.
        """
        begin = time.perf_counter()
        loss = cross_entropy(self.net(inputs).mean(dim=0), labels)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), LARGEST_GRADIENT)
        self.optimiser.step()
        self.seconds.append(time.perf_counter() - begin)
        self.schedule.step()

    def validate(self, split: Split) -> None:
        """Keep the parameters if they are the best on the validation set so far.

        Parameters
        ----------
        split : Split
            The validation set.
        """
        reached = accuracy(self.net, split)
        if reached > self.best:
            self.best, self.best_state = reached, copy.deepcopy(self.net.state_dict())


@torch.no_grad()
def accuracy(net: nn.Module, split: Split) -> float:
    """Measure the accuracy of a network.

    Parameters
    ----------
    net : nn.Module
        The network.
    split : Split
        The recordings.

    Returns
    -------
    float
        The accuracy, from 0 to 1.
    """
    return (net(split.inputs).mean(dim=0).argmax(dim=1) == split.labels).float().mean().item()


def train(splits: dict[str, Split], hidden: int, epochs: int, seed: int) -> dict[str, Run]:
    """Train a network of each kind.

    Parameters
    ----------
    splits : dict of str to Split
        The data.
    hidden : int
        The number of neurons of each layer.
    epochs : int
        The number of epochs.
    seed : int
        The seed of the initial weights and of the order of batches.

    Returns
    -------
    dict of str to Run
        The networks, with the parameters that were best on the validation set.
    """
    data = splits["train"]
    steps = epochs * -(-len(data.labels) // BATCH)
    runs = {}
    for name, layer in LAYERS.items():
        torch.manual_seed(seed)
        net = network(layer, hidden)
        optimiser = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        runs[name] = Run(net, optimiser, schedule)
    generator = torch.Generator().manual_seed(seed)
    for _ in tqdm(range(epochs), desc=f"seed {seed}", unit="epoch", disable=None):
        for chosen in torch.randperm(len(data.labels), generator=generator).split(BATCH):
            inputs, labels = data.inputs[:, chosen], data.labels[chosen]
            for run in runs.values():
                run.step(inputs, labels)
        for run in runs.values():
            run.validate(splits["validation"])
    for run in runs.values():
        run.net.load_state_dict(run.best_state)
    return runs


def report(results: list[dict[str, Run]], test: Split) -> None:
    """Print the accuracies, and the time of a training step.

    Parameters
    ----------
    results : list of dict of str to Run
        The results of ``train``, one for each seed.
    test : Split
        The test set.
    """
    print(
        f"{'':20s}{'weights':>9s}{'validation':>12s}{'test':>8s}{'each seed':>18s}{'step':>11s}{'ratio':>7s}"
    )
    reference = 0.0
    for name in LAYERS:
        runs = [result[name] for result in results]
        reached = [accuracy(run.net, test) for run in runs]
        weights = sum(p.numel() for p in runs[0].net.parameters())
        seconds = statistics.median(s for run in runs for s in run.seconds)
        reference = reference or seconds
        chosen = statistics.mean(run.best for run in runs)
        print(
            f"{name:20s}{weights:9d}{100 * chosen:10.1f} %{100 * statistics.mean(reached):6.1f} %"
            f"{' '.join(f'{100 * r:.1f}' for r in reached):>18s}"
            f"{1e3 * seconds:8.1f} ms{seconds / reference:7.2f}"
        )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="the dataset: a folder with recordings/*.wav"
    )
    parser.add_argument("--quick", action="store_true", help="one seed, fewer neurons and epochs")
    parser.add_argument("--hidden", type=int, help="number of neurons of each layer (128; quick: 64)")
    parser.add_argument("--epochs", type=int, help="number of epochs (30; quick: 6)")
    parser.add_argument("--seeds", type=int, help="number of seeds (3; quick: 1)")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if not list((arguments.data / "recordings").glob("*.wav")):
        parser.error(f"--data must be a folder with recordings/*.wav, got {arguments.data}")
    hidden, epochs, seeds = (64, 6, 1) if arguments.quick else (128, 30, 3)
    hidden, epochs, seeds = arguments.hidden or hidden, arguments.epochs or epochs, arguments.seeds or seeds
    ec.set_num_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)
    splits = load(arguments.data / "recordings")
    sizes = ", ".join(f"{len(split.labels)} {name}" for name, split in splits.items())
    print(
        f"{sizes}; 2 x {hidden} neurons, {FRAMES} steps, batches of {BATCH}, {epochs} epochs, {seeds} seeds"
    )
    report([train(splits, hidden, epochs, seed) for seed in range(seeds)], splits["test"])


if __name__ == "__main__":
    main()
