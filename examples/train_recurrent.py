"""A recurrent layer learns to remember: recurrent weights and learnt time constants with torch.

A cue excites one half of the neurons for three steps. After the cue there is no input, but that half should
go on firing at a steady rate, and the other half should be silent. Only recurrent weights can remember the
cue. The loss compares the neurons' smoothed rates with these targets. The last line of the output compares it
with the loss of a layer without recurrent weights.

The C++ twin is cpp/examples/train_recurrent.cpp.

    python examples/train_recurrent.py
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

import exodus_core.torch as snn

STEPS, BATCH, NEURONS, CUE_STEPS = 40, 8, 32, 3
EPOCHS, WANTED_RATE = 300, 0.4


def cues() -> tuple[Tensor, Tensor]:
    """Make the cues and the target rates.

    Returns
    -------
    current : Tensor
        The cue with noise, followed by zeros: (time, batch, neurons).
    rates : Tensor
        The target rate of each neuron: (batch, neurons).
    """
    half = torch.arange(NEURONS) // (NEURONS // 2)
    cued = half == torch.arange(BATCH)[:, None] % 2
    current = torch.zeros(STEPS, BATCH, NEURONS)
    current[:CUE_STEPS] = torch.rand(CUE_STEPS, BATCH, NEURONS) * torch.where(cued, 2.0, 0.5)
    return current, WANTED_RATE * cued


def main() -> int:
    """Train and print the loss.

    Returns
    -------
    int
        The exit status: 0 if the layer has learnt.
    """
    torch.manual_seed(0)
    current, wanted = cues()
    layer = snn.Recurrent(snn.LIF(tau=5.0, learn=("tau",)), NEURONS)
    readout = snn.ExpLeak(tau=10.0, gain="1-alpha")

    def loss_of(network: nn.Module) -> Tensor:
        return 0.5 * (readout(network(current)) - wanted).square().sum() / BATCH

    without = loss_of(snn.LIF(tau=5.0)).item()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.005)
    print(f"{'epoch':>8} {'loss':>10}")
    for epoch in range(EPOCHS):
        loss = loss_of(layer)
        optimizer.zero_grad()
        loss.backward()
        # Gradients through recurrent weights can grow from step to step.
        nn.utils.clip_grad_norm_(layer.parameters(), 10.0)
        optimizer.step()
        if epoch % 25 == 0:
            print(f"{epoch:8} {loss.item():10.3f}")

    with torch.no_grad():
        loss, spikes = loss_of(layer).item(), layer(current)
    for entry in range(2):
        for neuron in range(0, NEURONS, 8):
            train = "".join("|" if fired else "." for fired in spikes[:, entry, neuron])
            print(f"cue {entry}, neuron {neuron:2}  {train}")
    learnt = loss < without / 3
    print(f"{'learnt' if learnt else 'NOT LEARNT'}: loss {loss:.3f}, without recurrent weights {without:.3f}")
    return 0 if learnt else 1


if __name__ == "__main__":
    sys.exit(main())
