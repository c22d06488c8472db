"""Measures whether matrix products of torch slow down a layer between them.

A layer runs alone, and between products, forward and backward, in turn in one process. Only the layer's own
calls are timed. The benchmark prints medians and their ratio, in three processes:

- With torch's defaults. The threads of its OpenMP spin for milliseconds after a product. The layer runs on
  the same threads: those of another pool would share the processors with them.
- With OMP_WAIT_POLICY=passive, with which they sleep at once.
- With one thread. What is left is that a product fills the caches with its own data.

    python benchmarks/interleaved.py [--rounds 100]
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

import torch

import exodus_core.torch as snn

SHAPES = {"small": (20, 16, 64), "middle": (100, 32, 128), "large": (200, 64, 256)}  # time, batch, neurons
CALLS, SPINNING = 4, 0.02  # calls in a row, the first of which warms up; seconds in which threads fall asleep
SETTINGS = {
    "torch's defaults": {},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def seconds(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def passes(layer, current, grad, between):
    """The times of a layer's forward and backward passes. `between` runs before each of them, and last."""
    times = []
    for _ in range(CALLS):
        between()
        spikes, forward = seconds(layer, current)
        between()
        _, backward = seconds(torch.autograd.grad, spikes, (current, *layer.parameters()), grad)
        between()
        times.append(forward + backward)
    return times[1:]


def measure(shape, rounds):
    """Return the medians of the layer's time alone and between products, and of a product's."""
    layer = snn.LIF(tau=10.0, learn=("tau",))
    current, grad = torch.randn(shape).add_(0.3).requires_grad_(), torch.randn(shape)
    rows, weight = torch.randn(shape).flatten(0, 1), torch.randn(shape[-1], shape[-1])
    alone, between, products = [], [], []
    for _ in range(rounds):
        time.sleep(SPINNING)
        alone += passes(layer, current, grad, lambda: None)
        between += passes(layer, current, grad, lambda: products.append(seconds(torch.mm, rows, weight)[1]))
    return [statistics.median(times) for times in (alone, between, products)]


def table(rounds):
    """Measure and print a row for each shape, in a process that has its settings."""
    print(f"{'microseconds':24}{'alone':>10}{'between':>10}{'ratio':>8}{'a product':>12}", flush=True)
    for name, shape in SHAPES.items():
        alone, between, product = measure(shape, rounds)
        cells = f"{1e6 * alone:10.0f}{1e6 * between:10.0f}{between / alone:8.2f}{1e6 * product:12.0f}"
        print(f"{name + ' ' + str(shape):24}{cells}", flush=True)


def main():
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument(
        "--one", action="store_true", help="only one table, with the settings of this process"
    )
    arguments = parser.parse_args()
    if arguments.one:
        table(arguments.rounds)
        return
    others = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS")
    own = {name: value for name, value in os.environ.items() if name not in others}
    for text, setting in SETTINGS.items():
        print(f"\n{text}", flush=True)
        subprocess.run([sys.executable, *sys.argv, "--one"], env={**own, **setting}, check=True)


if __name__ == "__main__":
    main()
