"""One neuron learns to fire at given times: a first look at the numpy interface.

A hundred Poisson inputs drive an LIF neuron through weights. The loss compares its spike train with a target,
both smoothed by a leaky integrator (the van Rossum distance). One training step is

    current = inputs @ weights               numpy
    spikes  = LIF(current)                   exodus_core.forward
    v       = ExpLeak(spikes - target)       exodus_core.forward,  loss = 1/2 sum of v^2
    dL/d(spikes)                             exodus_core.backward of ExpLeak, from dL/dv = v
    dL/d(current)                            exodus_core.backward of LIF
    dL/d(weights) = inputs.T @ dL/d(current) numpy

The C++ twin is cpp/examples/train_lif.cpp.

    python examples/train_lif.py
"""

from __future__ import annotations

import sys

import numpy as np

import exodus_core as ec

STEPS, INPUTS, EPOCHS = 200, 100, 300
RATE = 5e-5  # the learning rate
TIMES = [30, 75, 110, 160]  # the steps at which the neuron should fire
LEARNT = 1.0  # A silent neuron has a loss of 11. If all spikes are one step off, the loss is 2.


def train_line(train: np.ndarray) -> str:
    """Draw a spike train with a character for every two steps.

    Parameters
    ----------
    train : ndarray
        The spikes of one neuron over time.

    Returns
    -------
    str
        The drawing, with a bar where the neuron fired.
    """
    return "".join("|" if pair.any() else "." for pair in train.reshape(-1, 2))


def main() -> int:
    """Train and print the loss.

    Returns
    -------
    int
        The exit status: 0 if the neuron has learnt.
    """
    rng = np.random.default_rng(1)
    inputs = (rng.random((STEPS, INPUTS)) < 0.05).astype(np.float32)
    weights = (0.03 * rng.random((INPUTS, 1))).astype(np.float32)
    target = np.zeros((STEPS, 1), np.float32)
    target[TIMES] = 1

    # A neuron is only a description. Arrays are (time, neurons): `time_axis` is 0 by default.
    neuron = ec.LIF(tau=20.0)
    smooth = ec.ExpLeak(tau=10.0)

    print(f"{'epoch':>8} {'loss':>10} {'spikes':>8}")
    for epoch in range(EPOCHS + 1):
        trace = ec.forward(neuron, inputs @ weights)
        smoothed = ec.forward(smooth, trace.spikes - target)
        loss = 0.5 * np.sum(smoothed.potential.astype(np.float64) ** 2)
        if epoch % 50 == 0:
            print(f"{epoch:8} {loss:10.4f} {trace.spikes.sum():8.0f}")

        # dL/dv is v. The integrator does not spike, so only the gradient of its potential is passed in.
        grad_spikes = ec.backward(smoothed, grad_potential=smoothed.potential).current
        grad_current = ec.backward(trace, grad_spikes, parameters=()).current
        weights -= RATE * (inputs.T @ grad_current)

    print("target  ", train_line(target))
    print("neuron  ", train_line(trace.spikes))
    print("learnt" if loss < LEARNT else "NOT LEARNT")
    return 0 if loss < LEARNT else 1


if __name__ == "__main__":
    sys.exit(main())
