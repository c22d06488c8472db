"""Predicts the time of passes on a GPU from what the compiler made of their kernels. It measures nothing.

    python benchmarks/predictions.py [--gpu H200]

A loop over time takes the longer of two times: that of its bytes at the speed of a copy, and that of its
waits. In each turn it waits once for each group of loads that go out together, for the latency of the memory,
and for copies that started n turns ahead, for an n-th of it; all blocks that fit on the GPU wait side by
side. By Little's law the latency is the number of bytes that must be under way for the full bandwidth, over
that bandwidth. Chunks of a neuron that run side by side wait together. Launches and arithmetic are not
counted, nor is it counted that the L2 cache answers sooner.
"""

import argparse
import math
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).parents[1] / "cpp" / "tests" / "cuda"))
import machine_code
import ptxas_report

COPY = 0.88  # copies reach 84 to 92 % of the data sheet's bandwidth
FEW_NEURONS, CHUNKS_SIDE_BY_SIDE = 8192, 16  # split.hpp
SHAPES = ((250, 128 * 128), (250, 512 * 2048), (250, 2048))  # steps, neurons; arrays of 1 GB; few neurons


class Gpu(NamedTuple):
    """A GPU: the bandwidth of its data sheet, and the bytes that NVIDIA's CCCL has under way on an SM."""

    bandwidth: float
    sms: int
    under_way: int

    @property
    def latency(self):
        return self.sms * self.under_way / self.bandwidth


GPUS = {
    "A100": Gpu(2.0e12, 108, 16 << 10),
    "H100": Gpu(3.35e12, 132, 32 << 10),
    "H200": Gpu(4.8e12, 132, 48 << 10),
    "B200": Gpu(8.0e12, 148, 64 << 10),
}


def gpu_of(name):
    """The GPU with a device's name; None if its figures are not listed."""
    return next((gpu for known, gpu in GPUS.items() if known in name), None)


def seconds(gpu, kernel, steps, neurons):
    """Predict the time of a float32 pass, time first; None if its loops are not listed."""
    if neurons <= FEW_NEURONS and f"{kernel}, few neurons" in machine_code.MAIN:
        kernel += ", few neurons"
    loops = [loop for loop in machine_code.designed_loops() if loop.kernel == kernel]
    if not loops:
        return None
    fit = gpu.sms * ptxas_report.designed_blocks(kernel)
    most_side_by_side = CHUNKS_SIDE_BY_SIDE if "few neurons" in kernel else 1
    side_by_side = min(most_side_by_side, math.ceil(steps / loops[0].steps))
    rounds = math.ceil(side_by_side * neurons / 128 / fit)
    total = 0.0
    for loop in loops:
        moving = steps * neurons * (loop.loaded + loop.stored) / (COPY * gpu.bandwidth)
        turns = math.ceil(steps / loop.steps / side_by_side)
        waits = len(loop.loads) + (1 / loop.ahead if loop.copies else 0)
        waiting = rounds * turns * waits * gpu.latency
        total += max(moving, waiting)
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--gpu", choices=GPUS, default="H200")
    gpu = GPUS[parser.parse_args().gpu]
    print(f"{'prediction, float32, time first':42s}" + "".join(f"{f'{t} x {n}':>16s}" for t, n in SHAPES))
    for kernel in machine_code.MAIN:
        if "few neurons" in kernel:
            continue
        times = [seconds(gpu, kernel, *shape) for shape in SHAPES]
        print(f"{kernel:42s}" + "".join(f"{1e6 * time:13.1f} us" for time in times))


if __name__ == "__main__":
    main()
