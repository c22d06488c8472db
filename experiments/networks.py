"""The networks of table S1, with spiking layers between the weights, and their logits.

All take batches of shape (batch, time, channels...), and return the last weight layer's output over time.
Their weights are modules of torch that visit the spikes of their input only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

from torch import Tensor, nn

import exodus_core.torch as snn

Spiking = Callable[[], nn.Module]  # makes a spiking layer
Readout = Callable[[Tensor], Tensor]  # makes logits of a network's output
sum_over_time: Readout = partial(snn.spike_count, time_dim=1)  # of the tasks with vision
max_over_time: Readout = partial(snn.max_over_time, time_dim=1)  # of the tasks with sound


def speech(outputs: int, spiking: Spiking, sizes: tuple[int, ...] = (100, 128, 128)) -> snn.Sequential:
    """Build the network for HSD (20 outputs) and SSC (35): 100-128l-128l-20l and 100-128l-128l-35l.

    Parameters
    ----------
    outputs : int
        The number of classes.
    spiking : callable
        A function that makes a spiking layer.
    sizes : tuple of int, optional
        The numbers of channels and of neurons in the hidden layers.

    Returns
    -------
    Sequential
        The network.
    """
    hidden = [module for pair in pairwise(sizes) for module in (snn.Linear(*pair), spiking())]
    return snn.Sequential(*hidden, snn.Linear(sizes[-1], outputs), time_dim=1)


def dvs_gesture(spiking: Spiking, outputs: int = 11, side: int = 64) -> snn.Sequential:
    """Build the network for DVS Gesture: 64x64x2-2c3-2p-4c3-2p-8c3-2p-16c3-11l.

    Parameters
    ----------
    spiking : callable
        A function that makes a spiking layer.
    outputs : int, optional
        The number of classes.
    side : int, optional
        The width and the height of the frames, a multiple of 8.

    Returns
    -------
    Sequential
        The network.
    """
    channels = (2, 2, 4, 8, 16)
    modules: list[nn.Module] = []
    for pair in pairwise(channels):
        modules += [snn.Conv2d(*pair, 3, padding=1), spiking(), snn.AvgPool2d(2)]
    flat = channels[-1] * (side // 8) ** 2
    return snn.Sequential(*modules[:-1], nn.Flatten(), snn.Linear(flat, outputs), time_dim=1)


def wide_7b_net(spiking: Spiking, outputs: int = 10, side: int = 128) -> snn.Sequential:
    """Build Wide-7B-Net of Fang et al. (2021), for CIFAR10-DVS.

    Seven stages of 64, 64, 64, 64, 128, 128 and 128 channels. A stage is a spike-element-wise residual block
    of two 3 x 3 convolutions, then a max pooling of 2 x 2. Where the number of channels changes, a 1 x 1
    convolution, batch normalisation and a spiking layer come first.

    Parameters
    ----------
    spiking : callable
        A function that makes a spiking layer.
    outputs : int, optional
        The number of classes.
    side : int, optional
        The width and the height of the frames, a multiple of 128.

    Returns
    -------
    Sequential
        The network.
    """
    stages = (64, 64, 64, 64, 128, 128, 128)
    modules: list[nn.Module] = []
    for before, channels in pairwise((2, *stages)):
        if before != channels:
            modules += [snn.Conv2d(before, channels, 1, bias=False), nn.BatchNorm2d(channels), spiking()]
        modules += [snn.Residual(*_half(channels, spiking), *_half(channels, spiking)), nn.MaxPool2d(2)]
    flat = stages[-1] * (side // 2 ** len(stages)) ** 2
    return snn.Sequential(*modules, nn.Flatten(), snn.Linear(flat, outputs), time_dim=1)


def _half(channels: int, spiking: Spiking) -> tuple[nn.Module, ...]:
    """Half of the body of a residual block."""
    convolution = snn.Conv2d(channels, channels, 3, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(channels), spiking()
