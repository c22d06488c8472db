"""Measures the cost of new arrays: a pass into its own arrays, and one into those of an earlier call.

The first write to each page of new memory is a fault of the system's. So large results take over the memory
of earlier ones that nobody has any more, and otherwise ask for huge pages, of which there are 512 times fewer
(exodus_core/_backends/_memory.py). NumPy's arrays and torch's tensors, with this and without it
(`set_cache_limit(0)`), take turns in one process after a call into the arrays of an earlier one (`out=`).

    python benchmarks/fresh.py [--rounds 15] [--threads 2]
"""

import argparse

import numpy as np
import torch
from turns import medians

import exodus_core as ec
import exodus_core.torch as snn

LIMIT = 1 << 31  # bytes, for the largest shape
SHAPES = (
    (100, 32, 128),
    (250, 32, 128),
    (250, 128, 128),
    (500, 256, 256),
    (1000, 512, 256),
)  # time, batch, neurons


def main():
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    ec.set_num_threads(given.threads)
    neuron, layer = ec.LIF(alpha=0.95), snn.LIF(alpha=0.95)
    print(f"forward passes of an LIF, {ec.isa()}, {given.threads} threads, float32, ms")
    columns = "".join(f"{name:>9}{'ratio':>7}" for name in ("numpy", "torch", "no cache:", "torch"))
    print(f"{'shape':>20}{'MB':>6}{'reused':>9}{columns}")
    for shape in SHAPES:
        current = np.random.default_rng(0).normal(0.1, 0.3, shape).astype(np.float32)
        tensor = torch.from_numpy(current).requires_grad_()  # so that the potential is kept, as in numpy
        trace = ec.forward(neuron, current)
        calls = {
            "numpy": lambda current=current: ec.forward(neuron, current),
            "torch": lambda tensor=tensor: layer(tensor),
        }
        found = {}
        for limit in (LIMIT, 0):
            ec.set_cache_limit(limit)
            reused = {"reused": lambda current=current, trace=trace: ec.forward(neuron, current, out=trace)}
            found[limit] = medians(reused | calls, given.rounds)
        cells = "".join(
            f"{own[k]:9.2f}{own[k] / own['reused']:7.2f}" for own in found.values() for k in calls
        )
        print(f"{shape!s:>20}{current.nbytes / 1e6:6.0f}{found[LIMIT]['reused']:9.2f}{cells}", flush=True)


if __name__ == "__main__":
    main()
