"""Losses on readouts, the van Rossum distance, and regularisers of the firing rate."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from ..kernel import Exponential, Kernel
from ._folding import last_step
from ._functional import kernel_filter
from ._readouts import check_floating, max_over_time, spike_count, steps_of, sum_dtype, valid

_REDUCTIONS = ("mean", "sum", "none")


def ce_count_loss(
    spikes: Tensor, target: Tensor, lengths: Any = None, *, time_dim: int = 0, **keywords: Any
) -> Tensor:
    """Cross entropy with the spike counts of the output neurons as logits.

    Parameters
    ----------
    spikes : Tensor
        Spikes of the output layer, with dimensions of time, batch and classes. The batch comes before the
        classes, and time is on `time_dim`.
    target : Tensor
        The class of each sequence, shape (batch,), or probabilities, shape (batch, classes).
    lengths : Tensor or sequence of int, optional
        The length of each sequence. Steps after its end do not count.
    time_dim : int, optional
        The dimension of time.
    **keywords
        `weight`, `ignore_index`, `reduction` and `label_smoothing`, as for
        ``torch.nn.functional.cross_entropy``.

    Returns
    -------
    Tensor
        The loss.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    count = spike_count(spikes, lengths, time_dim=time_dim)
    return _cross_entropy(count, target, time_dim, keywords)


def ce_max_membrane_loss(
    potential: Tensor, target: Tensor, lengths: Any = None, *, time_dim: int = 0, **keywords: Any
) -> Tensor:
    """Cross entropy with the largest potential over time of the output neurons as logits.

    Parameters
    ----------
    potential : Tensor
        Potentials of a readout layer, such as ``ExpLeak``, or a layer with ``output="potential"``.
    target, lengths, time_dim, **keywords
        As for ``ce_count_loss``.

    Returns
    -------
    Tensor
        The loss.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    most = max_over_time(potential, lengths, time_dim=time_dim)
    return _cross_entropy(most, target, time_dim, keywords)


def ce_last_membrane_loss(
    potential: Tensor, target: Tensor, lengths: Any = None, *, time_dim: int = 0, **keywords: Any
) -> Tensor:
    """Cross entropy with the potential of the output neurons at the last step of each sequence as logits.

    Parameters
    ----------
    potential : Tensor
        Potentials of a readout layer, such as ``ExpLeak``, or a layer with ``output="potential"``.
    target, lengths, time_dim, **keywords
        As for ``ce_count_loss``.

    Returns
    -------
    Tensor
        The loss.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    return _cross_entropy(last_step(potential, lengths, time_dim=time_dim), target, time_dim, keywords)


def _cross_entropy(logits: Tensor, target: Any, time_dim: int, keywords: dict[str, Any]) -> Tensor:
    if not isinstance(target, Tensor):
        raise TypeError(f"target must be a torch tensor, got {type(target).__name__}")
    if logits.dim() < 2:
        raise ValueError(
            f"the output must have dimensions of time, batch and classes, with time on time_dim={time_dim}, "
            f"got a shape of {tuple(logits.shape)} without time"
        )
    if target.dim() < 1 or target.shape[0] != logits.shape[0]:
        raise ValueError(
            f"target must have an entry for each of {logits.shape[0]} sequences, got shape "
            f"{tuple(target.shape)}: time was taken to be on time_dim={time_dim}"
        )
    return F.cross_entropy(logits, target, **keywords)


def van_rossum_distance(
    spikes: Tensor,
    target: Tensor,
    tau: float | Kernel,
    lengths: Any = None,
    *,
    dt: float = 1.0,
    time_dim: int = 0,
    reduction: str = "mean",
) -> Tensor:
    """Compute the squared van Rossum distance of spike trains.

    Both are filtered with e^(-t/tau), and the squared difference is summed up to the last step:

        D^2 = dt / tau sum_n (sum_{k<=n} e^(-(n-k) dt/tau) (s[k] - target[k]))^2.

    Source: M. C. W. van Rossum, "A novel spike distance", Neural Computation 13 (2001), Eq. 2.4. A spike that
    has no partner and is not near the end counts 1/2, as there, for dt much shorter than tau.

    Parameters
    ----------
    spikes, target : Tensor
        Spikes of the same shape. The batch is the first dimension that is not time.
    tau : float or Kernel
        The time constant. A kernel of ``exodus_core.kernel`` takes the place of the exponential, and the
        factor is then dt.
    lengths : Tensor or sequence of int, optional
        The length of each sequence. Steps after its end do not count.
    dt : float, optional
        The time of a step, in the unit of `tau`.
    time_dim : int, optional
        The dimension of time.
    reduction : {"mean", "sum", "none"}, optional
        The mean or the sum over sequences and neurons, or the distance of each.

    Returns
    -------
    Tensor
        The squared distance: a scalar, or of the shape of `spikes` without time.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    _check_same_shape(spikes, target)
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(map(repr, _REDUCTIONS))}, got {reduction!r}")
    _check_positive("dt", dt)
    if isinstance(tau, Kernel):
        kernel, factor = tau, dt
    else:
        _check_positive("tau", tau)
        kernel, factor = Exponential(math.exp(-dt / tau)), dt / tau
    difference = valid(spikes - target, lengths, time_dim)
    filtered = kernel_filter(kernel, difference, time_dim=time_dim).output
    squared = factor * valid(filtered, lengths, time_dim).square().sum(time_dim, dtype=sum_dtype(filtered))
    if reduction == "none":
        return squared
    return squared.mean() if reduction == "mean" else squared.sum()


def _check_same_shape(spikes: Any, target: Any) -> None:
    for name, value in (("spikes", spikes), ("target", target)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a torch tensor, got {type(value).__name__}")
        check_floating(name, value)
    if spikes.shape != target.shape:
        raise ValueError(
            f"target must have the shape of spikes, {tuple(spikes.shape)}, got {tuple(target.shape)}"
        )


def _check_positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number, got {value!r}")


def _rates(spikes: Tensor, lengths: Any, time_dim: int) -> Tensor:
    """Return the rate of each neuron over all steps of all sequences."""
    count = spike_count(spikes, lengths, time_dim=time_dim)
    return count.sum(0) / steps_of(spikes, lengths, time_dim).sum()


def rate_regularizer(spikes: Tensor, target_rate: float, lengths: Any = None, *, time_dim: int = 0) -> Tensor:
    """Compute the mean over neurons of (r_j - target_rate)^2, a loss that holds firing rates at a target.

    r_j is the number of spikes of neuron j per step, over all steps of all sequences.

    Parameters
    ----------
    spikes : Tensor
        Spikes of a layer. The batch is the first dimension that is not time.
    target_rate : float
        Spikes per neuron and step.
    lengths : Tensor or sequence of int, optional
        The length of each sequence, at least 1. Steps after its end do not count.
    time_dim : int, optional
        The dimension of time.

    Returns
    -------
    Tensor
        The loss, a scalar.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    _check_rate("target_rate", target_rate)
    return (_rates(spikes, lengths, time_dim) - target_rate).square().mean()


def lower_activity_regularizer(
    spikes: Tensor, bound: float, lengths: Any = None, *, time_dim: int = 0
) -> Tensor:
    """Compute the mean over neurons of max(0, bound - r_j)^2, a loss that wakes silent neurons.

    r_j is the number of spikes of neuron j per step, over all steps of all sequences. The gradient of a
    silent neuron comes from the surrogate. The squared hinge losses follow F. Zenke and T. P. Vogels, "The
    remarkable robustness of surrogate gradient learning ...", Neural Computation 33 (2021).

    Parameters
    ----------
    spikes : Tensor
        Spikes of a layer. The batch is the first dimension that is not time.
    bound : float
        The rate below which a neuron is pushed up, in spikes per step.
    lengths, time_dim
        As for ``rate_regularizer``.

    Returns
    -------
    Tensor
        The loss, a scalar.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    _check_rate("bound", bound)
    return (bound - _rates(spikes, lengths, time_dim)).relu().square().mean()


def upper_activity_regularizer(
    spikes: Tensor, bound: float, lengths: Any = None, *, time_dim: int = 0
) -> Tensor:
    """Compute the mean over neurons of max(0, r_j - bound)^2, a loss that keeps firing sparse.

    r_j is the number of spikes of neuron j per step, over all steps of all sequences.

    Parameters
    ----------
    spikes : Tensor
        Spikes of a layer. The batch is the first dimension that is not time.
    bound : float
        The rate above which a neuron is pushed down, in spikes per step.
    lengths, time_dim
        As for ``rate_regularizer``.

    Returns
    -------
    Tensor
        The loss, a scalar.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit; the message names it.
    """
    _check_rate("bound", bound)
    return (_rates(spikes, lengths, time_dim) - bound).relu().square().mean()


def _check_rate(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a rate of at least 0, in spikes per step, got {value!r}")
