"""Delays relative to memory bandwidth: the time of a plain stream over the same bytes, over that of a call.

The method is that of bandwidth.py: the bound is the faster of plain and streaming stores, stream and call
take turns in one run, and ratios are of best rounds and of medians. The gradient of only the input (dx) moves
the bytes of the forward pass. With the gradient of the delay (dx, dt) the adjoint also reads the input.

    python benchmarks/delays.py [--threads 2] [--rounds 30] [--steps 250 --batch 128 --neurons 128 --most 25]
"""

import argparse
import ctypes
import statistics
from functools import partial

import numpy as np
from bandwidth import address, shares
from native import build
from turns import times_in_turn

import exodus_core as ec
from exodus_core._delay import bind_delay
from exodus_core._layout import arrange


def calls(x, grad, delay, most, time_axis):
    """Return the kernels' calls by pass, and the array that they write, which is reused."""
    _, array, layout = arrange("x", x, time_axis)
    bound = bind_delay(layout, delay, most, "float32")
    output, sums = layout.empty("float32"), np.empty(bound.steps.size)
    kernels, common = layout.backend.kernels, ("float32", layout.sizes)
    steps = bound.steps.argument(layout.backend)

    def forward():
        kernels.delay(*common, steps, most, array, None, output, None, 0)

    def adjoint(x, grad_steps):
        kernels.delay_adjoint(*common, steps, most, grad, x, None, None, output, None, grad_steps, 0)

    passes = {
        "forward": forward,
        "dx": lambda: adjoint(None, None),
        "dx, dt": lambda: adjoint(array, sums),
    }
    return passes, output


def bounds(library, x, grad, output, name, threads):
    count = ctypes.c_int64(x.size // 8 * 8)
    if name == "dx, dt":
        stream, arrays = library.two_in_one_out, (x, grad, output)
    else:
        stream, arrays = library.one_in_one_out, (x, output)
    addresses = [address(array) for array in arrays]
    return {around: partial(stream, *addresses, count, threads, around) for around in (0, 1)}


def main():
    """Print a line for each layout and pass."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, default in dict(threads=2, rounds=30, steps=250, batch=128, neurons=128, most=25).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    ec.set_num_threads(arguments.threads)
    library, draw = build("stream"), np.random.default_rng(0)
    t, b, n, most = arguments.steps, arguments.batch, arguments.neurons, arguments.most
    each = draw.uniform(0, most, n).astype(np.float32)
    print(f"delays up to {most}, float32, {t} steps x {b} x {n}, {arguments.threads} threads, {ec.isa()}")
    print(f"{'layout':12s} {'delay':12s} {'pass':8s} {'best':>6s} {'median':>7s} {'median':>8s}")
    layouts = {"time first": ((t, b, n), 0), "batch first": ((b, t, n), 1), "time last": ((b, n, t), 2)}
    for layout, (shape, time_axis) in layouts.items():
        x, grad = (draw.normal(size=shape).astype(np.float32) for _ in range(2))
        kinds = {"one": most * 0.3, "whole, one": most // 2, "each": each, "whole, each": np.floor(each)}
        for kind, delay in kinds.items():
            passes, output = calls(x, grad, delay, most, time_axis)
            for name, call in passes.items():
                limits = bounds(library, x, grad, output, name, arguments.threads)
                *streams, own = times_in_turn(limits | {"call": call}, arguments.rounds).values()
                best, median = shares(streams, own)
                milliseconds = 1e3 * statistics.median(own)
                print(f"{layout:12s} {kind:12s} {name:8s} {best:6.2f} {median:7.2f} {milliseconds:8.2f} ms")


if __name__ == "__main__":
    main()
