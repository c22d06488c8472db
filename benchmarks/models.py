"""What the other models cost: the time of each over the time of the LIF, on the same arrays in one run.

python benchmarks/models.py [--threads 2] [--rounds 30] [--steps 250 --neurons 16384]
"""

import argparse
import statistics
import time

import numpy as np

import exodus_core as ec
from exodus_core import kernel

FALL = kernel.Alpha(5.0, scale=-1.0)
NEURONS = {
    "LIF": ec.LIF(alpha=0.95),
    "CubaLIF": ec.CubaLIF(alpha=0.95, alpha_syn=0.8),
    "ALIF": ec.ALIF(alpha=0.95, alpha_adapt=0.98, adapt_scale=0.1),
    "SRM, exponential kernels": ec.SRM(kernel.Exponential(0.95), kernel.Exponential(0.95, scale=-1.0)),
    "SRM, double exponentials": ec.SRM(
        kernel.DoubleExponential(0.9, 0.8), kernel.DoubleExponential(0.9, 0.8, scale=-0.3)
    ),
    "SRM, alpha kernels": ec.SRM(kernel.Alpha(5.0), FALL),
}


def timed(call):
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def passes(neuron, current, grad_spikes):
    """A model's calls into reused arrays, by the pass's name."""
    trace = ec.forward(neuron, current)
    grads = ec.backward(trace, grad_spikes, parameters=())
    return {
        "forward": lambda: ec.forward(neuron, current, out=trace),
        "backward": lambda: ec.backward(trace, grad_spikes, parameters=(), out=grads),
        "with parameters": lambda: ec.backward(trace, grad_spikes, out=grads),
        "bptt": lambda: ec.backward(trace, grad_spikes, method="bptt", parameters=(), out=grads),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--neurons", type=int, default=16384)
    arguments = parser.parse_args()
    ec.set_num_threads(arguments.threads)
    rng = np.random.default_rng(0)
    shape = arguments.steps, arguments.neurons
    current = rng.normal(0.05, 0.3, shape).astype(np.float32)
    grad_spikes = rng.normal(0, 1, shape).astype(np.float32)
    calls = {name: passes(neuron, current, grad_spikes) for name, neuron in NEURONS.items()}
    times = {(name, what): [] for name in calls for what in calls[name]}
    for _ in range(arguments.rounds):
        for name, what in times:  # in turn, so that what else the machine does hits all alike
            times[name, what].append(timed(calls[name][what]))
    steps, neurons = shape
    print(f"float32, {steps} steps x {neurons} neurons, {arguments.threads} threads, {ec.isa()}")
    print("median time over the LIF's, same pass")
    print(f"{'':26s}" + "".join(f"{what:>17s}" for what in calls["LIF"]))
    middle = {key: statistics.median(values) for key, values in times.items()}
    for name in calls:
        ratios = (middle[name, what] / middle["LIF", what] for what in calls[name])
        print(f"{name:26s}" + "".join(f"{ratio:17.2f}" for ratio in ratios))


if __name__ == "__main__":
    main()
