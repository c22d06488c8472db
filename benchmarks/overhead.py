"""Measures the cost of a call beside its arithmetic: a small layer, forward and backward, against ReLU.

python benchmarks/overhead.py [--rounds N]. Prints microseconds, and the ratio to the time of ReLU with its
backward pass and two empty autograd functions, which take turns with the layers in one process.
"""

import argparse
import statistics
import time

import torch

import exodus_core as ec
import exodus_core.torch as snn
from exodus_core._text import to_text
from exodus_core.surrogate import SingleExponential
from exodus_core.torch._operators import spike

SHAPE = (8, 16, 10)
CALLS = 200


class Empty(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return grad


def with_two_functions(x):
    return Empty.apply(Empty.apply(torch.relu(x)))


NEURON = ec.LIF(alpha=0.9)
TEXTS = to_text(NEURON), [], to_text(SingleExponential()), "exodus", 0, True


def by_operator(x):
    spikes, *_ = spike(x, None, [], [], *TEXTS)
    return spikes


def general(x):
    return snn.spike(x, NEURON).spikes


LAYERS = {
    "ReLU and two empty functions": with_two_functions,
    "LIF, fixed": snn.LIF(alpha=0.9),
    "LIF, fixed, the general way": general,
    "LIF, fixed, as an operator": by_operator,
    "LIF, tau learnt": snn.LIF(tau=10.0, learn=("tau",)),
    "LIF, tau and threshold learnt": snn.LIF(tau=10.0, learn=("tau", "threshold")),
    "LIF, a tau per channel learnt": snn.LIF(tau=10.0, learn={"tau": (10,)}),
    "ExpLeak, fixed": snn.ExpLeak(alpha=0.9),
    "CubaLIF, fixed": snn.CubaLIF(alpha=0.9, alpha_syn=0.8),
    "ALIF, fixed": snn.ALIF(0.9, 0.9, 0.1),
}


def seconds(layer, x, grad):
    parameters = list(layer.parameters()) if isinstance(layer, torch.nn.Module) else []
    start = time.perf_counter()
    for _ in range(CALLS):
        torch.autograd.grad(layer(x), (x, *parameters), grad)
    return (time.perf_counter() - start) / CALLS


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    x, grad = torch.randn(SHAPE, requires_grad=True), torch.randn(SHAPE)
    times = {name: [] for name in LAYERS}
    for _ in range(rounds):
        for name, layer in LAYERS.items():
            times[name].append(seconds(layer, x, grad))
    medians = {name: statistics.median(own) for name, own in times.items()}
    base = next(iter(medians.values()))
    print(f"{'forward and backward on ' + str(SHAPE):36} {'us':>7} {'ratio':>6}")
    for name, median in medians.items():
        print(f"{name:36} {median * 1e6:7.1f} {median / base:6.2f}")


if __name__ == "__main__":
    main()
