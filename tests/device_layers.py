"""Helpers of the tests of layers on a GPU: layers, their inputs, and the comparison with the CPU."""

import numpy as np
import torch

import exodus_core.torch as snn
from exodus_core import kernel
from neuron_examples import FIRING, SCALARS, TAUS

TIME, BATCH, CHANNELS, WIDTH = 19, 2, 3, 5


def learning(neuron):
    """A layer that learns all parameters of a neuron."""
    return lambda: snn.from_neuron(neuron, learn=neuron._parameter_names())


LAYERS = {name: learning(neuron) for name, neuron in (SCALARS | TAUS).items()} | {
    "LIF of tau": lambda: snn.LIF(tau=5.0, gain="1-alpha", learn={"tau": (CHANNELS, 1)}, method="bptt"),
    "LIF with fixed arrays": lambda: snn.LIF(alpha=np.linspace(0.5, 0.9, WIDTH), gain=0.7, learn=("gain",)),
    "IF of many spikes": lambda: snn.IF(threshold=0.8, max_spikes=None),
    "ExpLeak that learns nothing": lambda: snn.ExpLeak(tau=4.0),
    "CubaLIF of a gain that follows": lambda: snn.CubaLIF(
        tau=[4.0, 5.0, 6.0, 7.0, 8.0], tau_syn=3.0, gain="1-alpha", learn=("tau", "tau_syn")
    ),
    "StateSpace of shapes": lambda: snn.StateSpace(
        [[0.9, -0.2], [0.3, 0.8]],
        [0.9, 0.1],
        [-0.8, np.linspace(0.1, 0.3, WIDTH)],
        learn={"A": (2, 2, CHANNELS, 1), "b": (2,), "threshold": ()},
    ),
    "AdLIF of arrays": lambda: snn.AdLIF(
        tau=5.0,
        alpha_adapt=np.linspace(0.8, 0.95, WIDTH),
        coupling=0.4,
        adapt_scale=0.2,
        threshold=0.2,
        learn=("tau", "coupling", "threshold"),
    ),
    "AdLIF, symplectic": lambda: snn.AdLIF(
        0.9, 0.9, 3.0, 0.2, threshold=0.2, order="symplectic", learn={"alpha_adapt": (WIDTH,)}
    ),
    "ResonateAndFire of shapes": lambda: snn.ResonateAndFire(
        tau=9.0,
        frequency=0.8,
        fires_on="imaginary",
        threshold=0.4,
        learn={"tau": (), "frequency": (CHANNELS, 1)},
    ),
    "SRM of shapes": lambda: snn.SRM(
        kernel.Alpha(tau=4.0),
        kernel.Exponential(0.8, scale=np.linspace(-1.0, -0.5, WIDTH)),
        learn={"epsilon.tau": (CHANNELS, 1), "epsilon.scale": (WIDTH,), "nu.scale": (WIDTH,)},
    ),
    "SRM of a learnt scale": lambda: snn.SRM(
        kernel.Alpha(tau=4.0), kernel.Exponential(0.8, scale=-1.0), learn=("epsilon.scale",)
    ),
    "SRM of a learnt scale beside an array": lambda: snn.SRM(
        kernel.Alpha(tau=np.linspace(3.0, 6.0, WIDTH)),
        kernel.Exponential(0.8, scale=-1.0),
        learn={"epsilon.scale": (WIDTH,)},
    ),
    "SRM of taps": lambda: snn.SRM(
        kernel.FIR(np.linspace(0.6, 0.1, 6)),
        kernel.FIR(np.linspace(-0.9, -0.1, 4)[:, None] * np.linspace(0.5, 1.0, WIDTH)),
        learn=("epsilon.taps", "nu.taps", "threshold"),
    ),
}
# Some of the layers with recurrent weights between the neurons of the last axis.
RECURRENT_LAYERS = {
    f"recurrent {name}": lambda name=name: snn.Recurrent(LAYERS[name](), WIDTH, mask=1 - np.eye(WIDTH))
    for name in (*FIRING, "SRM of taps")
}


def make(name):
    """Make a layer by its name, with the same weights each time."""
    torch.manual_seed(2)
    return (LAYERS | RECURRENT_LAYERS)[name]()


def inputs(name, dtype):
    torch.manual_seed(3)
    current = torch.randn(TIME, BATCH, CHANNELS, WIDTH, dtype=dtype).mul_(0.5).add_(0.3)
    weights = torch.randn(TIME, BATCH, CHANNELS, WIDTH, dtype=dtype)
    return current.requires_grad_(), weights


def results(name, dtype, with_state, device="cpu"):
    """Output, final state, and the gradients of the current, the state and the learnt values."""
    layer = make(name).to(dtype).to(device)
    neurons = getattr(layer, "layer", layer)
    current, weights = (tensor.detach().to(device) for tensor in inputs(name, dtype))
    current.requires_grad_()
    state = None
    if with_state:
        rest = neurons.neuron.initial_state(weights.shape[1:], np.float64)
        values = (torch.full(part.shape, 0.1 * k, dtype=dtype, device=device) for k, part in enumerate(rest))
        state = neurons._given._state(*(value.requires_grad_() for value in values))
    output, final = layer(current, state)
    loss = (output * weights).sum() + sum((part * part).sum() for part in final)
    loss.backward()
    learnt = {key: parameter.grad for key, parameter in layer.named_parameters()}
    of_state = [] if state is None else [part.grad for part in state]
    return output.detach(), [part.detach() for part in final], current.grad, of_state, learnt


def check_layer(device, cpu, dtype):
    """Compare results with those on the CPU. Forward must have the same bits, also for learnt values."""
    device = [_on_cpu(part) for part in device]
    output, final, of_current, of_state, learnt = cpu
    assert torch.equal(device[0], output)
    assert all(torch.equal(own, other) for own, other in zip(device[1], final, strict=True))
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-11, "atol": 1e-12}
    torch.testing.assert_close(device[2], of_current, **tolerance)
    torch.testing.assert_close(device[3], of_state, **tolerance)
    assert device[4].keys() == learnt.keys()
    for key, gradient in learnt.items():
        assert device[4][key].shape == gradient.shape
        torch.testing.assert_close(device[4][key], gradient, **tolerance)


def _on_cpu(value):
    if isinstance(value, dict):
        return {key: _on_cpu(part) for key, part in value.items()}
    return [_on_cpu(part) for part in value] if isinstance(value, list) else value.cpu()
