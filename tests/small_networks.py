"""A small network with modules of every kind, and its input, for tests of containers."""

import torch
from torch import nn

import exodus_core.torch as snn

STEPS, BATCH = 7, 3


def events(*shape, time_dim=0, dtype=torch.float32):
    """Random spikes, which have time on the given dimension."""
    x = (torch.rand(STEPS, BATCH, *shape) < 0.4).to(dtype)
    return x.movedim(0, time_dim)


def exact(net):
    """Round the weights to multiples of 1/16: sums of them have no rounding error, in whatever order."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_((parameter * 32).round() / 16)
    return net


def convolutional(time_dim=0, **keywords):
    return snn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        snn.LIF(alpha=0.9, threshold=0.5, learn=("alpha",)),
        nn.MaxPool2d(2),
        snn.Residual(nn.Conv2d(4, 4, 3, padding=1, bias=False), snn.IF(threshold=0.5)),
        nn.Flatten(),
        nn.Linear(16, 6),
        snn.Recurrent(snn.CubaLIF(alpha=0.75, alpha_syn=0.5, threshold=0.5), 6),
        snn.Sequential(snn.Delay([0.5, 1.0, 2.0, 0.0, 1.5, 3.0], most=3), nn.Linear(6, 5), nn.ReLU()),
        snn.ExpLeak(alpha=0.9),
        time_dim=time_dim,
        **keywords,
    )


def tensors(state):
    """The tensors of a nested state."""
    if isinstance(state, torch.Tensor):
        return [state]
    return [] if state is None else [t for part in state for t in tensors(part)]


def assert_same(found, expected, **tolerance):
    found, expected = tensors(found), tensors(expected)
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **(tolerance or {"rtol": 0, "atol": 0}))
