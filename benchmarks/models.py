"""Cost of the models: the time of each over that of the LIF, on the same arrays in one run.

FIR kernels are compared with the machine's peak instead, which is measured before each call. Their work is
the number of multiply-adds in the two sums: a term for every tap, neuron and step. Terms of silent neurons
count forward, although they cost nothing. Terms of gradients before the first step count backward.

python benchmarks/models.py [--threads 2] [--rounds 30] [--steps 250 --neurons 16384] [--taps 64]
"""

import argparse
import ctypes
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from native import build

import exodus_core as ec
from exodus_core import kernel

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from neuron_examples import SCALARS

FALL = kernel.Alpha(5.0, scale=-1.0)
NEURONS = SCALARS | {
    "LIF": ec.LIF(alpha=0.95),
    "CubaLIF": ec.CubaLIF(alpha=0.95, alpha_syn=0.8),
    "ALIF": ec.ALIF(alpha=0.95, alpha_adapt=0.98, adapt_scale=0.1),
    "StateSpace": ec.StateSpace([[0.95, -0.1], [0.1, 0.9]], [1.0, 0.1], [-1.0, 0.1]),
    "AdLIF": ec.AdLIF(alpha=0.95, alpha_adapt=0.98, coupling=0.3, adapt_scale=0.5, threshold=0.1),
    "ResonateAndFire": ec.ResonateAndFire(decay=0.95, frequency=0.3),
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
    """Return a model's calls by the name of the pass. They reuse their arrays."""
    trace = ec.forward(neuron, current)
    given = {"grad_spikes": grad_spikes} if neuron._fires else {"grad_potential": grad_spikes}
    grads = ec.backward(trace, **given, parameters=())
    return {
        "forward": lambda: ec.forward(neuron, current, out=trace),
        "backward": lambda: ec.backward(trace, **given, parameters=(), out=grads),
        "with parameters": lambda: ec.backward(trace, **given, out=grads),
        "bptt": lambda: ec.backward(trace, **given, method="bptt", parameters=(), out=grads),
    }


def alternate(calls, rounds):
    """Return the median time of each call. Calls take turns, so that other load affects all alike."""
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(timed(call))
    return {name: statistics.median(values) for name, values in times.items()}


def against_the_lif(current, grad_spikes, rounds):
    """Print the time of each model over the LIF's."""
    calls = {name: passes(neuron, current, grad_spikes) for name, neuron in NEURONS.items()}
    kinds = list(calls["LIF"])
    middle = alternate({(name, kind): calls[name][kind] for name in calls for kind in kinds}, rounds)
    print("median time over the LIF's, same pass")
    print(f"{'':26s}" + "".join(f"{kind:>17s}" for kind in kinds))
    for name in calls:
        ratios = (middle[name, kind] / middle["LIF", kind] for kind in kinds)
        print(f"{name:26s}" + "".join(f"{ratio:17.2f}" for ratio in ratios))


def against_the_peak(current, grad_spikes, taps, threads, rounds):
    """Print the fraction of the machine's peak in multiply-adds that FIR kernels reach."""
    peak = build("peak").multiply_adds
    peak.restype = ctypes.c_double
    n = np.arange(taps)
    neuron = ec.SRM(kernel.FIR(0.95**n), kernel.FIR(-(0.95**n)))
    rate = ec.forward(neuron, current).spikes.mean()
    steps, neurons = current.shape
    terms_per_step = np.minimum(np.arange(steps) + 1, taps)  # forward has no inputs before the first step
    terms = {"forward": 2 * neurons * terms_per_step.sum(), "backward": 2 * neurons * steps * taps}
    calls = passes(neuron, current, grad_spikes)
    rates = {kind: [] for kind in terms}
    shares = {kind: [] for kind in terms}
    for _ in range(rounds):
        for kind, fused in (("forward", 0), ("backward", 1)):
            best = peak(threads, fused)
            rates[kind].append(best)
            shares[kind].append(terms[kind] / best / timed(calls[kind]))
    print(f"SRM, {taps} taps each, {100 * rate:.1f} % spikes")
    for kind, share in shares.items():
        middle = statistics.median(share)
        print(
            f"  {kind:9s} {terms[kind] / 1e6:.0f} million multiply-adds, "
            f"{statistics.median(rates[kind]) / 1e9:.0f} billion a second at most: "
            f"{100 * middle:.0f} % of peak, {1 / middle:.2f} of the bound"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--neurons", type=int, default=16384)
    parser.add_argument("--taps", type=int, default=64)
    arguments = parser.parse_args()
    ec.set_num_threads(arguments.threads)
    rng = np.random.default_rng(0)
    shape = arguments.steps, arguments.neurons
    current = rng.normal(0.05, 0.3, shape).astype(np.float32)
    grad_spikes = rng.normal(0, 1, shape).astype(np.float32)
    steps, neurons = shape
    print(f"float32, {steps} steps x {neurons} neurons, {arguments.threads} threads, {ec.isa()}")
    against_the_lif(current, grad_spikes, arguments.rounds)
    against_the_peak(current, grad_spikes, arguments.taps, arguments.threads, arguments.rounds)


if __name__ == "__main__":
    main()
