"""Stand-ins for recordings: spikes with a pattern for each class, of the shape of a data set.

A class has a rate for each channel at some moments, and between them rates are interpolated. A sample is
drawn from its class's rates, after a shift in time.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .samples import Samples, Splits

MOMENTS = 8  # of a pattern, between which the rates are interpolated


def _rates(classes: int, steps: int, cells: int, mean: float, generator: torch.Generator) -> Tensor:
    """Draw the rates of each class, (class, time, cell), with a mean over all of `mean`."""
    moments = torch.rand(classes, cells, min(MOMENTS, steps), generator=generator) ** 3
    rates = interpolate(moments, steps, mode="linear", align_corners=True).transpose(1, 2)
    return rates * (mean / rates.mean())


def _draw(rates: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw samples of the classes in turn: spikes (sample, time, cell), and labels."""
    classes, steps, _ = rates.shape
    labels = torch.arange(count) % classes
    shifts = torch.randint(-(steps // 20), steps // 20 + 1, (count,), generator=generator)
    events = torch.empty(count, *rates.shape[1:], dtype=torch.uint8)
    for one, label, shift in zip(events, labels, shifts.tolist(), strict=True):
        moved = rates[label].roll(shift, 0)
        one.copy_(torch.rand(moved.shape, generator=generator) < moved)
    return events, labels


def _splits(
    name: str, counts: tuple[int, int, int], shape: tuple[int, ...], rates: Tensor, generator: torch.Generator
) -> Splits:
    parts = []
    for count in counts:
        events, labels = _draw(rates, count, generator)
        parts.append(Samples(events.reshape(count, rates.shape[1], *shape), labels))
    train, validation, test = parts
    names = tuple(f"class {k}" for k in range(len(rates)))
    return Splits(f"{name} (synthetic)", train, validation, test, names, synthetic=True)


def speech(
    name: str,
    classes: int,
    counts: tuple[int, int, int],
    steps: int = 250,
    channels: int = 100,
    rate: float = 0.03,
    seed: int = 0,
) -> Splits:
    """Make a stand-in for recordings of words.

    Parameters
    ----------
    name : str
        The name of the data set that it stands for.
    classes : int
        The number of classes.
    counts : tuple of int
        The numbers of samples for training, validation and test.
    steps, channels : int, optional
        The number of time steps, and of channels.
    rate : float, optional
        The mean number of spikes per channel and step.
    seed : int, optional
        The seed of patterns and samples.

    Returns
    -------
    Splits
        The samples, of shape (sample, time, channel).
    """
    generator = torch.Generator().manual_seed(seed)
    rates = _rates(classes, steps, channels, rate, generator)
    return _splits(name, counts, (channels,), rates, generator)


def vision(
    name: str,
    classes: int,
    counts: tuple[int, int, int],
    steps: int,
    side: int,
    rate: float = 0.02,
    seed: int = 0,
) -> Splits:
    """Make a stand-in for recordings of an event camera.

    Parameters
    ----------
    name : str
        The name of the data set that it stands for.
    classes : int
        The number of classes.
    counts : tuple of int
        The numbers of samples for training, validation and test.
    steps, side : int
        The number of time steps, and the width and height of the frames, a multiple of 8.
    rate : float, optional
        The mean number of events per pixel, polarity and step.
    seed : int, optional
        The seed of patterns and samples.

    Returns
    -------
    Splits
        The samples, of shape (sample, time, 2, side, side). Blocks of 8 x 8 pixels have equal rates.
    """
    generator = torch.Generator().manual_seed(seed)
    blocks = side // 8
    rates = _rates(classes, steps, 2 * blocks**2, rate, generator)
    fine = rates.reshape(classes, steps, 2, blocks, blocks).repeat_interleave(8, 3).repeat_interleave(8, 4)
    return _splits(name, counts, (2, side, side), fine.flatten(2), generator)
