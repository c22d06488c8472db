"""A recurrent layer of LIF neurons compared with a loop over steps in torch.

The benchmark times the forward pass, the backward pass and the weight gradient. Both programs get the same
current and weights, and take turns in one process. The loop has few operations per step: the matrix of the
product includes the reset, an addition includes the decay, and the spike is one autograd function whose
backward pass works in place. First both run in float64, where rounding hardly ever flips a spike, and must
give the same spikes and gradients. The times are those of float32.

    python benchmarks/recurrence.py [--threads 2] [--rounds 10] [--steps 250 --batch 128 --neurons 256]
"""

import argparse
import statistics
import time

import torch
from tqdm import tqdm

import exodus_core as ec
import exodus_core.torch as snn
from exodus_core import surrogate

NEURON = ec.LIF(alpha=0.95, threshold=1.0)
SURROGATE = surrogate.SingleExponential(width=0.5, scale=0.5)


class Spike(torch.autograd.Function):
    """The spike function forward; backward, the surrogate."""

    @staticmethod
    def forward(ctx, potential):
        ctx.save_for_backward(potential)
        return torch.ge(potential, NEURON.threshold, out=torch.empty_like(potential))

    @staticmethod
    def backward(ctx, grad):
        (potential,) = ctx.saved_tensors
        width = SURROGATE.width * NEURON.threshold
        h = potential.sub(NEURON.threshold).abs_().mul_(-1 / width).exp_()
        return h.mul_(SURROGATE.scale / width).mul_(grad)


def loop(current, weight):
    """Spikes of recurrent LIF neurons, step by step, in torch."""
    potential = spikes = torch.zeros_like(current[0])
    # s W - threshold s is one product.
    with_reset = weight - NEURON.threshold * torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
    trains = []
    for a in current.unbind():
        potential = torch.add(torch.addmm(a, spikes, with_reset), potential, alpha=NEURON.alpha)
        spikes = Spike.apply(potential)
        trains.append(spikes)
    return torch.stack(trains)


def ours(current, weight):
    return snn.spike(current, NEURON, surrogate=SURROGATE, recurrent=weight).spikes


SIDES = (ours, loop)
PARTS = ("forward", "backward", "weight gradient", "all")


def problem(steps, batch, neurons, dtype):
    """Return the current, the weights and the gradient of the spikes."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    current = 0.06 + 0.3 * normal(steps, batch, neurons)
    weight = 0.5 * normal(neurons, neurons) / neurons**0.5
    return tuple(x.to(dtype) for x in (current, weight, normal(steps, batch, neurons)))


def run(layer, current, weight, grad_spikes, learn_weight=True):
    """Run one training step, and return spikes, gradients and the times of the two passes."""
    current, weight = current.detach().requires_grad_(), weight.detach().requires_grad_(learn_weight)
    begin = time.perf_counter()
    spikes = layer(current, weight)
    middle = time.perf_counter()
    spikes.backward(grad_spikes)
    return (spikes.detach(), current.grad, weight.grad), (middle - begin, time.perf_counter() - middle)


def check(shape):
    """Stop unless both programs give the same results, and print the rate of spikes."""
    inputs = problem(*shape, torch.float64)
    (spikes, *grads), _ = run(ours, *inputs)
    (expected, *expected_grads), _ = run(loop, *inputs)
    if not torch.equal(spikes, expected):
        raise SystemExit(f"float64: {(spikes != expected).sum()} spikes differ from the loop's")
    apart = 0.0
    for name, grad, other in zip(("current", "weights"), grads, expected_grads, strict=True):
        apart = max(apart, float((grad - other).abs().max() / other.abs().max()))
        if not apart < 1e-9:
            raise SystemExit(
                f"float64: the gradient of the {name} is {apart:.1e} of its largest off the loop's"
            )
    print(
        f"float64: the same spikes ({100 * spikes.mean():.1f} %), gradients {apart:.0e} of the largest apart"
    )


def measure(inputs, rounds):
    """Return, for each side, the times of each part over the rounds. "all" includes the weight gradient."""
    times = {layer: {part: [] for part in PARTS} for layer in SIDES}
    for k in tqdm(range(rounds + 1), desc="rounds", leave=False, disable=None):
        for layer in SIDES:
            _, (forward, learning) = run(layer, *inputs)
            _, (_, backward) = run(layer, *inputs, learn_weight=False)
            if k > 0:  # the first round warms up
                seconds = (forward, backward, learning - backward, forward + learning)
                for part, second in zip(PARTS, seconds, strict=True):
                    times[layer][part].append(second)
    return times


def report(times):
    """Print the median of each part, its share of that side's total, and the loop's time over ours."""
    middle = {
        layer: {part: statistics.median(seconds) for part, seconds in times[layer].items()} for layer in SIDES
    }
    print(f"{'median':16s}{'ours':>13s}{'share':>8s}{'loop':>13s}{'share':>8s}{'ratio':>8s}")
    for part in PARTS:
        cells = ""
        for layer in SIDES:
            seconds, share = middle[layer][part], middle[layer][part] / middle[layer]["all"]
            cells += f"{1e3 * seconds:10.1f} ms{100 * share:6.0f} %"
        print(f"{part:16s}{cells}{middle[loop][part] / middle[ours][part]:8.2f}")
    mine, other = (times[layer]["all"] for layer in SIDES)
    best = min(other) / min(mine)
    median = statistics.median(b / a for a, b in zip(mine, other, strict=True))
    print(f"the loop's time over ours: best rounds {best:.2f}, median of the rounds {median:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--neurons", type=int, default=256)
    arguments = parser.parse_args()
    ec.set_num_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)
    shape = arguments.steps, arguments.batch, arguments.neurons
    steps, batch, neurons = shape
    print(f"{steps} steps x {batch} entries x {neurons} neurons, {arguments.threads} threads, {ec.isa()}")
    check(shape)
    print("float32:")
    report(measure(problem(*shape, torch.float32), arguments.rounds))


if __name__ == "__main__":
    main()
