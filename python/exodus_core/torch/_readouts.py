"""Readouts: one number for each output neuron and sequence, from its spikes or its potential over time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._folding import check_lengths, mask_padding, time_and_batch
from ._modules import check_time_dim


def valid(x: Tensor, lengths: Any, time_dim: int, value: float = 0.0) -> Tensor:
    """Return x with a value after the sequences' ends, or x itself if there are no lengths."""
    if lengths is not None:
        return mask_padding(x, lengths, time_dim=time_dim, value=value)
    check_time_dim(time_dim)
    time_and_batch("x", x, time_dim)
    return x


def sum_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype for sums over time: float16 and bfloat16 cannot hold counts of long sequences."""
    return torch.promote_types(x.dtype, torch.float32)


def steps_of(x: Tensor, lengths: Any, time_dim: int) -> Tensor:
    """Return the number of steps of each sequence, at least 1, of shape (batch,)."""
    time, batch = time_and_batch("x", x, time_dim)
    if lengths is None:
        if x.shape[time] == 0:
            raise ValueError(f"x must have steps on time_dim={time_dim}, got shape {tuple(x.shape)}")
        return x.new_full((x.shape[batch],), x.shape[time], dtype=sum_dtype(x))
    steps = check_lengths(x, lengths, time, batch)
    if not bool((steps > 0).all()):
        raise ValueError("lengths must be at least 1, since an empty sequence has no readout, got 0")
    return steps.to(x.device, sum_dtype(x))


def check_floating(name: str, x: Tensor) -> None:
    """Check that a tensor has a floating-point dtype, as potentials have."""
    if not x.is_floating_point():
        raise TypeError(f"{name} must have a floating-point dtype, got {x.dtype}")


def spike_count(x: Tensor, lengths: Any = None, *, time_dim: int = 0) -> Tensor:
    """Count the spikes of each neuron in each sequence.

    Parameters
    ----------
    x : Tensor
        Spikes. The batch is the first dimension that is not time.
    lengths : Tensor or sequence of int, optional
        The length of each sequence. Steps after its end do not count. None counts all steps.
    time_dim : int, optional
        The dimension of time.

    Returns
    -------
    Tensor
        The sum over time, in float32 or the dtype of `x` if that is wider, of the shape of `x` without its
        time dimension.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    return valid(x, lengths, time_dim).sum(time_dim, dtype=sum_dtype(x))


def spike_rate(x: Tensor, lengths: Any = None, *, time_dim: int = 0) -> Tensor:
    """Compute the spikes per step of each neuron in each sequence.

    Parameters
    ----------
    x : Tensor
        Spikes. The batch is the first dimension that is not time.
    lengths : Tensor or sequence of int, optional
        The length of each sequence, at least 1. None counts all steps.
    time_dim : int, optional
        The dimension of time.

    Returns
    -------
    Tensor
        The mean over the steps of the sequence, of the dtype and shape of ``spike_count``.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    count = spike_count(x, lengths, time_dim=time_dim)
    steps = steps_of(x, lengths, time_dim)
    return count / steps.reshape(-1, *[1] * (count.dim() - 1))


def max_over_time(x: Tensor, lengths: Any = None, *, time_dim: int = 0) -> Tensor:
    """Return the largest value over time: of the potential of a readout layer such as ``ExpLeak``.

    The gradient goes to the step of the maximum. Steps with the same value share it equally.

    Parameters
    ----------
    x : Tensor
        Potentials. The batch is the first dimension that is not time.
    lengths : Tensor or sequence of int, optional
        The length of each sequence, at least 1. Steps after its end do not count.
    time_dim : int, optional
        The dimension of time.

    Returns
    -------
    Tensor
        The maximum over time, of the shape of `x` without its time dimension.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    steps_of(x, lengths, time_dim)
    check_floating("x", x)
    inside = valid(x, lengths, time_dim, -torch.inf)
    return inside.amax(time_dim)
