"""Compares products with spikes, and pooling, with torch's, and training steps with those of ReLU networks.

For each shape and rate of spikes, both products take turns in one process. The tables have medians in
milliseconds, and how many times faster the events are, packing included. Where "auto" takes the dense
product, its share of torch's time shows the cost of looking at the input. The constants in
exodus_core/_products.py and exodus_core/torch/_convolutions.py come from these tables.

    python benchmarks/products.py [--rounds 7] [--threads 2] [--data DIR]

With --data, a folder of recordings (docs/experiments.md), the steps read spoken digits and the events of a
camera. Without, inputs are random at the same rates. Their memory is the peak above what the process has, and
what autograd keeps from the forward pass to the backward pass.
"""

import argparse
import copy
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from footprint import peak_memory
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy
from turns import medians

import exodus_core as ec
import exodus_core.torch as snn
from exodus_core._products import Sizes
from exodus_core.surrogate import Boxcar, SingleExponential
from exodus_core.torch._products import _input_gradient, packing

ROOT = Path(__file__).resolve().parents[1]
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3)
RATES = (0.01, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)
LINEAR = ((32000, 128, 128), (8000, 512, 512), (32000, 128, 20))  # rows, inputs, outputs
# frames, channels, outputs, side; kernels of 3 x 3
CONVOLUTIONS = ((300, 2, 2, 64), (300, 2, 4, 32), (300, 4, 8, 16), (300, 8, 16, 8), (64, 64, 64, 16))
SURROGATE, BOXCAR = SingleExponential(0.5, 0.5), Boxcar(0.3)


def passes(module, x, grad):
    """Forward, weight gradient and input gradient of a module."""
    y, inputs, frozen = module(x), x.detach().requires_grad_(), copy.deepcopy(module).requires_grad_(False)
    of_input = frozen(inputs)
    return {
        "forward": lambda: module(x),
        "weight": lambda: torch.autograd.grad(y, module.weight, grad, retain_graph=True),
        "input": lambda: torch.autograd.grad(of_input, inputs, grad, retain_graph=True),
    }


def compare(title, kind, arguments, x_shape, grad_shape, rounds):
    """Print a row for each rate."""
    theirs = getattr(nn, kind)(*arguments)
    print(
        f"\n{title}\n{'rate':>6}"
        + "".join(f"{name + ', torch':>16}{'events':>9}{'':8}{'auto':>7}" for name in NAMES)
    )
    for rate in RATES:
        x = (torch.rand(x_shape) < rate).float()
        grad = torch.randn(grad_shape)
        calls = {}
        for name, module in (("torch", theirs), ("events", None), ("auto", None)):
            own = module or getattr(snn, kind)(*arguments, engine=name)
            own.weight, own.bias = theirs.weight, theirs.bias  # whose place in memory moves torch's times
            calls |= {(name, key): call for key, call in passes(own, x, grad).items()}
        found = medians(calls, rounds)
        cells = []
        for key in NAMES:
            torchs, events, auto = (found[engine, key] for engine in ("torch", "events", "auto"))
            cells.append(f"{torchs:16.2f}{events:9.2f}{torchs / events:7.1f}x{auto / torchs:7.2f}")
        print(f"{rate:6}" + "".join(cells), flush=True)


def compare_masked(rounds):
    """Print torch's time of the input's gradient, and how much faster shares of its elements are."""
    print("\nLinear, gradient of the input: torch's time, and how much faster is a part of the elements")
    print(f"{'shape':>20}{'torch':>9}" + "".join(f"{share:8}" for share in SHARES))
    for rows, inputs, outputs in LINEAR:
        sizes = Sizes(rows, inputs, outputs)
        grad, weight = torch.randn(rows, outputs), torch.rand(outputs, inputs)
        calls = {"torch": partial(_input_gradient, sizes, grad, weight, None)}
        for share in SHARES:
            wanted = packing(grad).pack((torch.rand(rows, inputs) < share).float(), "events", None)
            calls[share] = partial(_input_gradient, sizes, grad, weight, wanted.bits)
        found = medians(calls, rounds)
        cells = "".join(f"{found['torch'] / found[share]:7.1f}x" for share in SHARES)
        print(f"{(rows, inputs, outputs)!s:>20}{found['torch']:9.2f}" + cells, flush=True)


def compare_pooling(rounds):
    """Print a row for each shape of average pooling: torch's time, and this library's."""
    heads = "".join(f"{kind + ', torch':>16}{'ours':>9}{'':8}" for kind in ("forward", "backward"))
    print(f"\nAvgPool2d 2 x 2\n{'shape':>20}{heads}")
    for frames, channels, _, side in CONVOLUTIONS:
        x, calls = torch.rand((frames, channels, side, side)).requires_grad_(), {}
        for name, module in (("torch", nn.AvgPool2d(2)), ("ours", snn.AvgPool2d(2))):
            y = module(x)
            calls[name, "forward"] = partial(module, x)
            calls[name, "backward"] = partial(
                torch.autograd.grad, y, x, torch.rand_like(y), retain_graph=True
            )
        found = medians(calls, rounds)
        cells = []
        for key in ("forward", "backward"):
            torchs, ours = found["torch", key], found["ours", key]
            cells.append(f"{torchs:16.2f}{ours:9.2f}{torchs / ours:7.1f}x")
        print(f"{tuple(x.shape)!s:>20}" + "".join(cells), flush=True)


NAMES = ("forward", "weight", "input")


def speech(linear, activation):
    """The network of the EXODUS paper for HSD."""
    return snn.Sequential(
        linear(100, 128), activation(), linear(128, 128), activation(), linear(128, 20), time_dim=1
    )


def vision(linear, convolution, pooling, activation):
    """The network of the EXODUS paper for DVS Gesture."""
    modules = []
    for channels in ((2, 2), (2, 4), (4, 8), (8, 16)):
        modules += [convolution(*channels, 3, padding=1), activation(), pooling(2)]
    return snn.Sequential(*modules[:-1], nn.Flatten(), linear(1024, 11), time_dim=1)


def step(net, x, labels, readout):
    """Run a training step without the optimizer's part."""
    net.zero_grad()
    cross_entropy(readout(net(x)), labels).backward()


def kept_for_backward(net, call):
    """Return the megabytes that autograd keeps between the passes of a call, beside the parameters."""
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        call()
    return sum(kept.values()) / 2**20


def steps(title, build, x, rate, readout, rounds):
    """Compare a network's step with that of its ReLU twin."""
    labels = torch.arange(len(x)) % 10
    spiking = partial(snn.IF, surrogate=SURROGATE)
    nets = {
        "ReLU": build(False, nn.ReLU),
        "ReLU, in place": build(False, partial(nn.ReLU, inplace=True)),
        "torch's products": build(False, spiking),
        "events": build(True, spiking),
        "events, in place": build(True, partial(spiking, inplace=True)),
        "events, lean": build(True, partial(spiking, memory="lean")),
        "events, boxcar": build(True, partial(snn.IF, surrogate=BOXCAR)),
        "events, boxcar, masked": build(True, partial(snn.IF, surrogate=BOXCAR)),
    }
    for module in nets["events, boxcar, masked"].modules():
        if isinstance(module, snn.Linear):
            module.masked_input_grad = True
    snn.init_(nets["torch's products"], x, target_rate=rate)
    for name, net in nets.items():
        if name.startswith("events"):
            net.load_state_dict(nets["torch's products"].state_dict())
    calls = {name: partial(step, net, x, labels, readout) for name, net in nets.items()}
    found = medians(calls, rounds)
    share = float((x != 0).float().mean())
    print(f"\n{title}: batch {len(x)}, input {share:.3f}, layers {rate} spikes per step")
    for name, one in found.items():
        memory, kept = peak_memory(calls[name]), kept_for_backward(nets[name], calls[name])
        peak = "" if memory is None else f"{memory:8.0f} MB at the peak"
        share = one / found["ReLU"]
        print(
            f"{name:24}{one:10.1f} ms{share:8.2f} of ReLU's{kept:8.1f} MB kept for backward{peak}", flush=True
        )


def spoken_digits(data):
    """A batch of spoken digits."""
    sys.path.insert(0, str(ROOT))
    from experiments import digits

    with tempfile.TemporaryDirectory() as folder:
        return digits.load(data, Path(folder)).train.events[::16][:128].float()


def camera(data):
    """Four recordings of N-MNIST side by side and one after the other, with the frame of DVS Gesture."""
    sys.path.insert(0, str(ROOT))
    from experiments import nmnist

    frames = nmnist.load(data).train.events[:80].float().clamp(max=1)  # (80, 62, 2, 32, 32)
    rows = frames.reshape(4, 5, 2, 2, 62, 2, 32, 32)  # batch, parts of time, rows, columns, time, ...
    whole = rows.permute(0, 1, 4, 5, 2, 6, 3, 7).reshape(4, 310, 2, 64, 64)
    return whole[:, :300].contiguous()


def main():
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", choices=("products", "steps"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    print(f"{ec.isa()}, {given.threads} threads, torch {torch.__version__}; milliseconds")
    if given.only != "steps":
        for rows, inputs, outputs in LINEAR:
            title = f"Linear {inputs} -> {outputs}, {rows} rows"
            compare(title, "Linear", (inputs, outputs), (rows, inputs), (rows, outputs), given.rounds)
        for frames, channels, outputs, side in CONVOLUTIONS:
            title = f"Conv2d {channels} -> {outputs}, 3 x 3, {frames} frames of {side} x {side}"
            shape = frames, channels, side, side
            grad_shape = frames, outputs, side, side
            arguments = channels, outputs, 3, 1, 1
            compare(title, "Conv2d", arguments, shape, grad_shape, given.rounds)
        compare_masked(given.rounds)
        compare_pooling(given.rounds)
    if given.only != "products":
        x = spoken_digits(given.data) if given.data else (torch.rand(128, 250, 100) < 0.03).float()
        kinds = {False: (nn.Linear, nn.Conv2d, nn.AvgPool2d), True: (snn.Linear, snn.Conv2d, snn.AvgPool2d)}
        build = lambda events, activation: speech(kinds[events][0], activation)  # noqa: E731
        steps("HSD network", build, x, 0.035, lambda output: output.amax(1), given.rounds)
        x = camera(given.data) if given.data else (torch.rand(4, 300, 2, 64, 64) < 0.008).float()
        build = lambda events, activation: vision(*kinds[events], activation)  # noqa: E731
        steps("DVS Gesture network", build, x, 0.008, lambda output: output.sum(1), given.rounds)


if __name__ == "__main__":
    main()
