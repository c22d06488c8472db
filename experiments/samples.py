"""Labelled recordings as binned spikes, and their splits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Samples:
    """Labelled recordings of equal length.

    Attributes
    ----------
    events : Tensor
        Spikes per step, of shape (sample, time, channels...), as uint8.
    labels : Tensor
        The classes, as integers.
    """

    events: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, chosen: Tensor, device: str) -> tuple[Tensor, Tensor]:
        """Return some samples for a network.

        Parameters
        ----------
        chosen : Tensor
            Their indices.
        device : str
            The device for the results.

        Returns
        -------
        tuple of Tensor
            The spikes as float32, of shape (batch, time, channels...), and the labels.
        """
        return self.events[chosen].to(device, torch.float32), self.labels[chosen].to(device)

    def batches(self, size: int, device: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Return all samples in order.

        Parameters
        ----------
        size : int
            The number of samples in a batch.
        device : str
            The device for the batches.

        Yields
        ------
        tuple of Tensor
            See ``batch``.
        """
        for chosen in torch.arange(len(self)).split(size):
            yield self.batch(chosen, device)


@dataclass(frozen=True)
class Splits:
    """A data set.

    Attributes
    ----------
    name : str
        The name in tables.
    train, validation, test : Samples
        The splits. The validation set chooses the epoch, and the test set chooses nothing.
    classes : tuple of str
        The names of the classes.
    synthetic : bool
        Whether the samples are a stand-in, not recordings.
    """

    name: str
    train: Samples
    validation: Samples
    test: Samples
    classes: tuple[str, ...]
    synthetic: bool = False

    def sizes(self) -> Mapping[str, int]:
        """Return the number of samples of each split.

        Returns
        -------
        mapping of str to int
            By name: "train", "validation", "test".
        """
        return {name: len(getattr(self, name)) for name in ("train", "validation", "test")}
