"""Time and batch of tensors: time folded into the batch, and sequences of different lengths in one batch.

Modules without a state, such as convolutions, treat all steps of all sequences alike. They get them as one
batch of time times batch samples. The order of these samples means nothing to them, so they stand in the
order of memory, and no data is copied.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ._modules import check_time_dim


def time_and_batch(name: str, x: Any, time_dim: int, least: int = 2) -> tuple[int, int]:
    """Return the dimensions of time and of the batch, which is the first one that is not time."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(x).__name__}")
    dims = x.dim()
    if dims < least or not -dims <= time_dim < dims:
        wanted = "time and batch" if least < 3 else "time, batch and features"
        raise ValueError(
            f"{name} must have dimensions of {wanted}, with time on time_dim={time_dim}, got shape "
            f"{tuple(x.shape)}"
        )
    time = time_dim % dims
    return time, 1 if time == 0 else 0


class Fold(NamedTuple):
    """How time is folded into the batch."""

    time_dim: int
    time: int
    batch: int
    time_is_outer: bool  # whether the samples stand by time first, as in memory
    valid: Tensor | None  # the samples within their sequences' lengths; None for all

    def flat(self, x: Tensor) -> Tensor:
        """Return the samples as one batch: a view, unless x has gaps or other dimensions in between."""
        time, batch = time_and_batch("x", x, self.time_dim)
        samples = _moved(x, (time, batch) if self.time_is_outer else (batch, time), (0, 1)).flatten(0, 1)
        return samples if self.valid is None else samples.index_select(0, self.valid)

    def check(self, y: Any, name: str, module: nn.Module) -> None:
        """Check that a module has kept the samples apart."""
        count = self.time * self.batch if self.valid is None else len(self.valid)
        if not isinstance(y, Tensor) or y.dim() < 1 or y.shape[0] != count:
            owner = f"{name} ({type(module).__name__})"
            got = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(
                f"{owner} must return one sample for each step and sequence, shape ({count}, ...), got {got}"
            )

    def whole(self, y: Tensor) -> Tensor:
        """Return samples with time and batch apart, as a view. Samples past the sequences' ends are 0."""
        return self._apart(self._filled(y), torch.Tensor.view)

    def owned(self, y: Tensor) -> Tensor:
        """Return them as ``whole`` does, for a module that overwrites them: not as a view.

        Whatever has kept `y` for its own backward pass notices the change.
        """
        y = self._filled(y)
        x = self._apart(y, torch.ops.aten._unsafe_view)
        if not y.is_inference():
            torch.autograd.graph.increment_version(y)
        return x

    def _filled(self, y: Tensor) -> Tensor:
        """Return the samples of all steps. Those past the sequences' ends are 0."""
        if self.valid is None:
            return y
        return y.new_zeros((self.time * self.batch, *y.shape[1:])).index_copy(0, self.valid, y)

    def _apart(self, y: Tensor, view: Any) -> Tensor:
        sizes = (self.time, self.batch) if self.time_is_outer else (self.batch, self.time)
        apart = view(y, (*sizes, *y.shape[1:]))  # splitting a dimension needs no copy
        if not -apart.dim() <= self.time_dim < apart.dim():
            raise ValueError(
                f"time_dim must be a dimension of each module's output, got time_dim={self.time_dim} for an "
                f"output of {apart.dim()} dimensions: a negative time_dim counts from the last one"
            )
        return _moved(apart, (0 if self.time_is_outer else 1,), (self.time_dim % apart.dim(),))


def _moved(x: Tensor, source: tuple[int, ...], target: tuple[int, ...]) -> Tensor:
    """Return ``x.movedim(source, target)``, but x itself where it is the same: a call costs microseconds."""
    return x if source == target else x.movedim(source, target)


def fold(x: Tensor, time_dim: int, lengths: Any = None) -> Fold:
    """Choose how to fold time into the batch: in the order of memory, so that the samples can be a view."""
    time, batch = time_and_batch("x", x, time_dim, least=3)
    time_is_outer = bool(x.stride(time) >= x.stride(batch))
    valid = None
    if lengths is not None:
        past = _past_the_end(x, lengths, time, batch)
        inside = past.logical_not() if time_is_outer else past.logical_not().T
        valid = inside.flatten().nonzero().squeeze(1).to(x.device)
    return Fold(time_dim, x.shape[time], x.shape[batch], time_is_outer, valid)


def check_lengths(x: Tensor, lengths: Any, time: int, batch: int) -> Tensor:
    """Check the lengths of the sequences in a batch, and return them as a tensor on the CPU."""
    ends = torch.as_tensor(lengths, device="cpu").detach()
    if ends.is_floating_point() or ends.is_complex() or ends.dtype == torch.bool:
        raise TypeError(f"lengths must be integers, got {ends.dtype}")
    if tuple(ends.shape) != (x.shape[batch],):
        raise ValueError(
            f"lengths must have shape ({x.shape[batch]},), one length for each sequence of the batch, got "
            f"shape {tuple(ends.shape)}"
        )
    wrong = ends[(ends < 0) | (ends > x.shape[time])]
    if wrong.numel() > 0:
        raise ValueError(
            f"lengths must be from 0 to {x.shape[time]}, the number of steps, got {wrong[0].item()}"
        )
    return ends.long()


def _past_the_end(x: Tensor, lengths: Any, time: int, batch: int) -> Tensor:
    """Return, of shape (time, batch) and on the CPU, which steps are past the ends of their sequences."""
    return torch.arange(x.shape[time], device="cpu")[:, None] >= check_lengths(x, lengths, time, batch)


def mask_padding(x: Tensor, lengths: Any, *, time_dim: int = 0, value: float = 0.0) -> Tensor:
    """Replace all steps after the ends of their sequences. No gradient flows to them.

    Parameters
    ----------
    x : Tensor
        A batch of sequences. The batch is the first dimension that is not time.
    lengths : Tensor or sequence of int
        The length of each sequence, from 0 to the number of steps. They are read on the CPU.
    time_dim : int, optional
        The dimension of time.
    value : float, optional
        The number after the ends: 0, or -inf before a maximum over time.

    Returns
    -------
    Tensor
        A copy of `x` with `value` after each sequence's end, where not even a NaN remains.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    check_time_dim(time_dim)
    time, batch = time_and_batch("x", x, time_dim)
    past = _past_the_end(x, lengths, time, batch).to(x.device)
    shape = [1] * x.dim()
    shape[time], shape[batch] = x.shape[time], x.shape[batch]
    return x.masked_fill((past if time < batch else past.T).reshape(shape), value)


def last_step(x: Tensor, lengths: Any = None, *, time_dim: int = 0) -> Tensor:
    """Return the last step of each sequence: the readout of an ``ExpLeak`` layer, for instance.

    Parameters
    ----------
    x : Tensor
        A batch of sequences. The batch is the first dimension that is not time.
    lengths : Tensor or sequence of int, optional
        The length of each sequence, from 1 to the number of steps. None takes the last step of all.
    time_dim : int, optional
        The dimension of time.

    Returns
    -------
    Tensor
        Step ``lengths[b] - 1`` of sequence b, of the shape of `x` without its time dimension.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    check_time_dim(time_dim)
    time, batch = time_and_batch("x", x, time_dim)
    if lengths is None:
        return x.select(time, -1)
    ends = check_lengths(x, lengths, time, batch)
    if not bool((ends > 0).all()):
        raise ValueError("lengths must be at least 1, since an empty sequence has no last step, got 0")
    sequences = torch.arange(len(ends), device=x.device)
    return x.movedim((time, batch), (0, 1))[(ends - 1).to(x.device), sequences]
