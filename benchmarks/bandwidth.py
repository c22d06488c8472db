"""Speed relative to memory bandwidth: the time of a plain stream over the same bytes, over that of a call.

A ratio of 1 means that a call takes as long as reading the inputs and writing the results, with the faster of
plain and streaming stores. Ratios above 1 are possible, since several rows stream faster than one long array.
Streams and calls of a layout take turns in one run, so that the ratios hold on other machines. The best
rounds exclude other load on the machine, and the medians include it. The last column is a call's median
relative to that of the pass into reused arrays, without gradients of parameters.

    python benchmarks/bandwidth.py [--threads 2] [--rounds 30] [--steps 250 --batch 128 --neurons 128]

On a GPU, the bound is a copy of the same traffic there (on_gpu.py):

    python benchmarks/bandwidth.py --device cuda
"""

import argparse
import ctypes
import statistics
from functools import partial

import numpy as np
import on_gpu
from native import build
from turns import times_in_turn

import exodus_core as ec

STORES = ("plain stores", "streaming stores")


def address(array):
    return ctypes.c_void_p(array.ctypes.data)


def stream_calls(library, trace, grads, grad_spikes, threads):
    """For each pass, the calls that stream over the same arrays, with plain and with streaming stores."""
    a, s, u, d = trace.current, trace.spikes, trace.potential, grads.current
    count = ctypes.c_int64(a.size // 8 * 8)

    def forward(around):
        library.one_in_two_out(address(a), address(s), address(u), count, threads, around)

    def backward(around):
        library.two_in_one_out(address(grad_spikes), address(u), address(d), count, threads, around)

    passes = {"forward": forward, "backward": backward}
    return {
        (kind, stores): partial(call, k) for kind, call in passes.items() for k, stores in enumerate(STORES)
    }


def shares(bounds, own):
    """Return the faster bound's time over a call's, of best rounds and of medians."""
    return [min(map(how, bounds)) / how(own) for how in (min, statistics.median)]


def measure(library, layout, shape, time_axis, threads, rounds):
    rng = np.random.default_rng(0)
    neuron = ec.LIF(alpha=0.95)
    current = rng.normal(0.05, 0.3, shape).astype(np.float32)
    grad_spikes = rng.normal(0, 1, shape).astype(np.float32)
    trace = ec.forward(neuron, current, time_axis=time_axis)
    grads = ec.backward(trace, grad_spikes, parameters=())

    def back(method, **keywords):
        keywords = {"parameters": (), "out": grads} | keywords
        return lambda: ec.backward(trace, grad_spikes, method=method, **keywords)

    def run(**keywords):
        return lambda: ec.forward(neuron, current, time_axis=time_axis, **keywords)

    streams = stream_calls(library, trace, grads, grad_spikes, threads)
    calls = {
        ("forward", "reused"): run(out=trace),
        ("forward", "fresh"): run(),
        ("backward", "reused"): back("exodus"),
        ("backward", "fresh"): back("exodus", out=None),
        ("backward", "alpha"): back("exodus", parameters=("alpha",)),
        ("backward", "alpha, threshold"): back("exodus", parameters=("alpha", "threshold")),
        ("backward", "all parameters"): back("exodus", parameters=None),
        ("backward", "slayer"): back("slayer"),
        ("backward", "bptt"): back("bptt"),
    }
    times = times_in_turn(streams | calls, rounds)
    for kind, variant in calls:
        own = times[kind, variant]
        best, median = shares([times[kind, stores] for stores in STORES], own)
        seconds = statistics.median(own)
        relative = seconds / statistics.median(times[kind, "reused"])
        numbers = f"{best:6.2f} {median:7.2f} {1e3 * seconds:8.2f} ms {relative:6.2f}"
        print(f"{layout:12s} {kind:9s} {variant:24s} {numbers}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--neurons", type=int, default=128)
    arguments = parser.parse_args()
    if arguments.device == "cuda":
        on_gpu.main(arguments)
        return
    ec.set_num_threads(arguments.threads)
    library = build("stream")
    t, b, n = arguments.steps, arguments.batch, arguments.neurons
    print(f"LIF, float32, {t} steps x {b} x {n}, {arguments.threads} threads, {ec.isa()}")
    print(f"{'':48s} {'share of the bandwidth':s}")
    print(f"{'layout':12s} {'pass':9s} {'':24s} {'best':>6s} {'median':>7s} {'median':>11s} {'reused':>6s}")
    layouts = {
        "time first": ((t, b, n), 0),
        "batch first": ((b, t, n), 1),
        "ten neurons": ((b * n // 10, t, 10), 1),
        "time last": ((b, n, t), 2),
    }
    for layout, (shape, time_axis) in layouts.items():
        measure(library, layout, shape, time_axis, arguments.threads, arguments.rounds)


if __name__ == "__main__":
    main()
