"""Compares layers and networks with other libraries for spiking networks: a table, a picture and JSON.

All have LIF neurons with alpha 0.95, threshold 1, a reset by subtraction, and the surrogate 1 / (1 + 2 |x|)^2
(norse's has no slope: it is 1 / (1 + |x|)^2).
Before any timing, spikes and gradients are compared with those of this library: the table shows the share
of equal spikes, and the cosine and the norm ratio of the gradients. Implementations take turns in one
process; the times are medians, with quartiles in the JSON. Memory is the peak above what the process had.

The recurrent layer has all-to-all weights W, whose gradient is computed and compared as well. norse is not in
that protocol: its recurrent neurons set the potential to a value when they fire, and cannot subtract.

    pip install -c constraints.txt loguru requests SciencePlots nir nirtorch pbr jax equinox optax jaxtyping
    pip install --no-deps spikingjelly==2.0.0 sinabs==3.1.3 snntorch==1.0.0 norse==1.1.0 jaxpike==0.1.4
    python benchmarks/peers.py [--out benchmarks-output] [--threads 2] [--rounds 5] [--only NAME ...]

The second command installs no dependencies, since torchvision and torchaudio, which nothing here needs, would
bring another torch. A peer that is not installed is left out, and named.
"""

import argparse
import json
import math
import os
import re
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from footprint import peak_memory
from torch import nn

import exodus_core as ec
import exodus_core.torch as snn
from exodus_core.demo import style
from exodus_core.surrogate import FastSigmoid

ALPHA, SLOPE = 0.95, 2.0
TAU = -1 / math.log(ALPHA)
SURROGATE = FastSigmoid(SLOPE)
PAUSE = 0.02  # seconds before each turn: threads of the one before spin for a while
SHORT = 200  # ms; shorter calls are repeated before they are timed, since after a pause the processor is cold
WARMING = 4  # the repetitions
LEAST_EQUAL = 0.999  # of the spikes; libraries round differently


class Problem(NamedTuple):
    """A layer's current, the gradient of its spikes, and its recurrent weights W, if it has any.

    A spike of neuron j adds row j of W to the current of the next step.
    """

    current: torch.Tensor
    grad: torch.Tensor
    weight: torch.Tensor | None = None

    def of(self, peer):
        """Return the problem in a peer's layout; where its gain is 1 - alpha, with larger inputs and W."""
        scale = 1 / (1 - ALPHA) if peer.twin.gain == "1-alpha" else 1.0
        weight = None if self.weight is None else scale * self.weight
        return Problem(oriented(scale * self.current, peer), oriented(self.grad, peer), weight)


class Peer:
    """A library: its name, and layers of neurons.

    Layers map a current to spikes, from rest in every call. `batch_first` tells whether time comes second.
    `twin` and `surrogate` are the same neuron of this library. Where its gain is 1 - alpha, the layer gets a
    larger current. `not_recurrent` says why a library has no such neuron with recurrent weights.
    """

    batch_first, not_recurrent = False, None
    twin, surrogate = ec.LIF(ALPHA, reset_timing="before_decay"), SURROGATE

    def __init__(self):
        """Import the library."""

    @property
    def reference(self):
        """The name of this library's entry that gets the same input."""
        return OursBatchFirst.name if self.batch_first else Ours.name

    def layer(self):
        raise NotImplementedError

    def recurrent(self, features):
        """Return a recurrent layer and the parameter that holds its weights."""
        raise NotImplementedError

    def weights(self, parameter):
        """Return W as a view of that parameter, or of its gradient: an ``nn.Linear`` holds the transpose."""
        return parameter.T

    def calls(self, problem):
        """Prepare the calls of one layer. Backward returns the gradients of the current and of W."""
        current = problem.current.clone().requires_grad_()
        layer, parameter = self._layer_with(problem.weight)

        def backward(spikes):
            for leaf in (current, parameter):
                if leaf is not None:
                    leaf.grad = None
            spikes.backward(problem.grad)
            return current.grad, None if parameter is None else self.weights(parameter.grad)

        return Calls(lambda: layer(current), backward)

    def _layer_with(self, weight):
        if weight is None:
            return self.layer(), None
        layer, parameter = self.recurrent(len(weight))
        with torch.no_grad():
            self.weights(parameter).copy_(weight)
        return layer, parameter


class Ours(Peer):
    name = "exodus_core"
    twin = ec.LIF(ALPHA)

    def layer(self):
        return snn.LIF(ALPHA, surrogate=SURROGATE, time_dim=int(self.batch_first))

    def recurrent(self, features):
        layer = snn.Recurrent(self.layer(), features)
        return layer, layer.weight

    def weights(self, parameter):
        return parameter


class OursBatchFirst(Ours):
    name, batch_first = "exodus_core, batch first", True


class _Fires(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x >= 0).to(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad / (SLOPE * x.abs() + 1) ** 2


class TorchLoop(Peer):
    name = "torch loop"
    twin = ec.LIF(ALPHA)

    class Layer(nn.Module):
        def __init__(self, features=None):
            super().__init__()
            self.weight = None if features is None else nn.Parameter(torch.empty(features, features))

        def forward(self, current):
            potential = spike = torch.zeros_like(current[0])
            spikes = []
            for step in current.unbind():
                total = step if self.weight is None else torch.addmm(step, spike, self.weight)
                potential = ALPHA * potential + total - spike
                spike = _Fires.apply(potential - 1)
                spikes.append(spike)
            return torch.stack(spikes)

    def layer(self):
        return self.Layer()

    def recurrent(self, features):
        layer = self.Layer(features)
        return layer, layer.weight

    def weights(self, parameter):
        return parameter


class FromRest(nn.Module):
    """Neurons that keep their state between calls, which start from rest here."""

    def __init__(self, neurons, reset):
        super().__init__()
        self.neurons, self._reset = neurons, reset

    def forward(self, current):
        self._reset(self.neurons)
        return self.neurons(current)


class SpikingJelly(Peer):
    name = "spikingjelly"

    def __init__(self):
        from spikingjelly.activation_based import functional, layer, neuron, surrogate

        def neurons(step_mode):
            return neuron.LIFNode(
                1 / (1 - ALPHA), False, 1.0, None, surrogate.SoftSign(SLOPE), step_mode=step_mode
            )

        def recurrent(features):
            container = layer.LinearRecurrentContainer(neurons("s"), features, features, False, "m")
            with torch.no_grad():  # one product has the current beside the spikes; the current shall stay
                container.rc.weight[:, :features] = torch.eye(features)
            return FromRest(container, functional.reset_net), container.rc.weight

        self.layer = lambda: FromRest(neurons("m"), functional.reset_net)
        self.recurrent = recurrent

    def weights(self, parameter):
        return parameter[:, len(parameter) :].T


class Sinabs(Peer):
    name, batch_first = "sinabs", True

    def __init__(self):
        from sinabs import activation, layers

        keywords = {
            "spike_fn": activation.SingleSpike,
            "surrogate_grad_fn": lambda v, threshold: (1 + SLOPE * (v - threshold).abs()) ** -2,
            "norm_input": False,
        }

        def recurrent(features):
            connections = nn.Linear(features, features, bias=False)
            neurons = layers.LIFRecurrent(TAU, connections, **keywords)
            return FromRest(neurons, layers.LIF.reset_states), connections.weight

        self.layer = lambda: FromRest(layers.LIF(TAU, **keywords), layers.LIF.reset_states)
        self.recurrent = recurrent


class SnnTorch(Peer):
    name = "snntorch"
    twin = ec.LIF(ALPHA)

    def __init__(self):
        import snntorch
        from snntorch import surrogate

        keywords = {"beta": ALPHA, "spike_grad": surrogate.fast_sigmoid(SLOPE)}

        class Layer(nn.Module):
            def __init__(self, neurons):
                super().__init__()
                self.neurons = neurons

            def forward(self, current):
                state, spikes = self.neurons.reset_mem(), []
                # With recurrent weights the state is the spikes and the potential, else only the latter.
                state = state if isinstance(state, tuple) else (state,)
                for step in current:
                    results = self.neurons(step, *state)
                    state = results[-len(state) :]
                    spikes.append(results[0])
                return torch.stack(spikes)

        def recurrent(features):
            neurons = snntorch.RLeaky(linear_features=features, **keywords)
            neurons.recurrent = nn.Linear(features, features, bias=False)  # its own has a bias
            return Layer(neurons), neurons.recurrent.weight

        self.layer = lambda: Layer(snntorch.Leaky(**keywords))
        self.recurrent = recurrent


class Norse(Peer):
    name = "norse"
    not_recurrent = "whose recurrent neurons cannot reset by subtraction"
    twin, surrogate = ec.LIF(ALPHA, gain="1-alpha", reset_timing="before_decay"), FastSigmoid(1.0)

    def __init__(self):
        from norse.torch.functional import lif_box, reset

        one = torch.tensor(1.0)
        constants = lif_box.LIFBoxParameters(
            one * (1 - ALPHA), 0 * one, one, 0 * one, "super", SLOPE * one, reset.reset_subtract
        )

        class Layer(nn.Module):
            def forward(self, current):
                state = lif_box.LIFBoxFeedForwardState(torch.zeros_like(current[0]))
                spikes = []
                for step in current:
                    spike, state = lif_box.lif_box_feed_forward_step(step, state, constants, dt=1.0)
                    spikes.append(spike)
                return torch.stack(spikes)

        self.layer = Layer


class Jaxpike(Peer):
    """jaxpike, whose loops XLA compiles. Its arrays are JAX's, and a gradient runs forward as well."""

    name = "jaxpike (XLA)"
    twin, surrogate = ec.LIF(ALPHA, gain="1-alpha", reset_timing="before_decay"), SURROGATE

    def __init__(self):
        import equinox
        import jax
        import jaxpike

        neurons = jaxpike.LIF(TAU, surrogate=jaxpike.FastSigmoid(SLOPE))

        def network(weight):
            if weight is None:
                return neurons
            initial = jaxpike.Dense(*weight.shape, key=jax.random.PRNGKey(0), use_bias=False)
            dense = equinox.tree_at(lambda dense: dense.weight, initial, weight.T)
            edges = ("input", "neurons"), ("neurons", "dense"), ("dense", "neurons")
            return jaxpike.Graph({"neurons": neurons, "dense": dense}, edges, "neurons")

        def spikes(x, weight):
            return jaxpike.unroll(network(weight), x)[0]

        self._forward = jax.jit(spikes)
        self._both = jax.jit(lambda x, weight, grad: jax.vjp(spikes, x, weight)[1](grad))
        self._array = lambda tensor: None if tensor is None else jax.numpy.asarray(tensor.numpy())
        self._finished = jax.block_until_ready

    def calls(self, problem):
        x, grad, weight = map(self._array, problem)
        return Calls(
            lambda: self._finished(self._forward(x, weight)),
            None,
            lambda: self._finished(self._both(x, weight, grad)),
        )


class Calls:
    """The calls of an implementation: forward, backward after it, or both at once."""

    def __init__(self, forward, backward, both=None):
        self.forward, self.backward, self.both = forward, backward, both

    def times(self):
        """Return milliseconds of forward, backward and both."""
        begin = time.perf_counter()
        result = self.forward()
        middle = time.perf_counter()
        if self.both is None:
            self.backward(result)
            end = time.perf_counter()
            return 1e3 * (middle - begin), 1e3 * (end - middle), 1e3 * (end - begin)
        del result
        self.both()
        both = time.perf_counter() - middle
        return 1e3 * (middle - begin), None, 1e3 * both


PEERS = (Ours, OursBatchFirst, TorchLoop, SpikingJelly, Sinabs, SnnTorch, Norse, Jaxpike)


def installed():
    """Return the peers that can be imported."""
    found = []
    for kind in PEERS:
        try:
            found.append(kind())
        except ImportError as error:
            print(f"left out: {kind.__name__}, {error}", file=sys.stderr)
    return found


def oriented(tensor, peer):
    return tensor.transpose(0, 1).contiguous() if peer.batch_first else tensor


def agreement(peer, calls, problem):
    """Return the share of spikes that are those of this library, and cosine and norm ratio of gradients."""
    current, grad, weight = (None if tensor is None else tensor.numpy() for tensor in problem)
    trace = ec.forward(peer.twin, current, time_axis=int(peer.batch_first), recurrent=weight)
    wanted = () if weight is None else ("recurrent",)
    exact = ec.backward(trace, grad, surrogate=peer.surrogate, parameters=wanted)
    spikes = calls.forward()
    found = calls.backward(spikes) if calls.both is None else calls.both()
    equal = float((_numpy(spikes) == trace.spikes).mean())
    if equal < LEAST_EQUAL:
        raise RuntimeError(f"{peer.name} must have this library's spikes, got {equal:.4f} of them")
    result = {"equal spikes": equal} | closeness(found[0], exact.current)
    if weight is not None:
        result |= {f"{name}, weights": value for name, value in closeness(found[1], exact.recurrent).items()}
    return result


def closeness(found, exact):
    """Return cosine and norm ratio of a gradient to the exact one."""
    found, exact = (torch.from_numpy(_numpy(a)).double() for a in (found, exact))
    norms = found.norm(), exact.norm()
    return {
        "cosine": float((found * exact).sum() / (norms[0] * norms[1])),
        "norm ratio": float(norms[0] / norms[1]),
    }


def _numpy(array):
    import numpy as np

    return array.detach().numpy() if isinstance(array, torch.Tensor) else np.array(array)


# time, batch, neurons
LAYERS = {
    "HSD": (250, 128, 128),
    "DVS": (300, 4, 8192),
    "long": (2000, 16, 128),
    "very long": (10000, 1, 128),
    "big": (100, 64, 2048),
    "tiny": (10, 8, 16),
}
RECURRENT = (250, 128, 128)


def quartiles(times):
    """Return the quartiles of some rounds; "inclusive", since those of few would lie beyond the rounds."""
    return [round(q, 4) for q in statistics.quantiles(times, n=4, method="inclusive")]


def compare(title, calls, rounds):
    """Time the calls of peers in turn; return, by name, medians and quartiles, memory, and the reference."""
    times, order = {peer: [] for peer in calls}, list(calls)
    for k in range(rounds + 1):
        first = k % len(order)
        for peer in order[first:] + order[:first]:
            time.sleep(PAUSE)
            found = calls[peer].times()
            for _ in range(WARMING if found[-1] < SHORT else 0):
                found = calls[peer].times()
            if k > 0:
                times[peer].append(found)
    results = {}
    for peer, own in times.items():
        columns = dict(zip(("forward", "backward", "both"), zip(*own, strict=True), strict=True))
        results[peer.name] = {
            kind: None if None in column else quartiles(column) for kind, column in columns.items()
        }
        results[peer.name] |= {"memory": peak_memory(calls[peer].times), "reference": peer.reference}
        print(f"  {title}: {peer.name} done", file=sys.stderr, flush=True)
    return results


def compare_layers(title, problem, peers, rounds):
    """Compare one layer of each peer, after its agreement with this library."""
    calls, agreements = {}, {}
    for peer in peers:
        own = problem.of(peer)
        calls[peer] = peer.calls(own)
        agreements[peer.name] = agreement(peer, calls[peer], own)
    found = compare(title, calls, rounds)
    return {name: found[name] | agreements[name] for name in found}


def one_layer(shape, peers, rounds):
    """Compare one layer of neurons."""
    torch.manual_seed(0)
    problem = Problem(0.1 + 0.3 * torch.randn(shape), torch.randn(shape))
    return compare_layers(str(shape), problem, peers, rounds)


def recurrent_layer(shape, peers, rounds):
    """Compare one layer with recurrent weights, whose gradient is computed as well.

    Currents and weights are multiples of 1/1024, so that their sums are exact in any order. Libraries add
    them in different orders, and a spike that rounding flips would change all later ones of its batch entry.
    """
    for peer in peers:
        if peer.not_recurrent:
            print(f"left out of recurrent layers: {peer.name}, {peer.not_recurrent}", file=sys.stderr)
    able = [peer for peer in peers if not peer.not_recurrent]
    torch.manual_seed(0)
    neurons = shape[-1]
    inputs = 0.06 + 0.3 * torch.randn(shape), 0.5 / neurons**0.5 * torch.randn(neurons, neurons)
    current, weight = (torch.round(1024 * x) / 1024 for x in inputs)
    return compare_layers(f"recurrent {shape}", Problem(current, torch.randn(shape), weight), able, rounds)


class Network(nn.Module):
    """Linear layers, each but the last with a peer's neurons behind it, over time."""

    def __init__(self, peer, sizes, linear):
        super().__init__()
        self.linears = nn.ModuleList(linear(*pair) for pair in pairwise(sizes))
        self.layers = nn.ModuleList(peer.layer() for _ in sizes[2:])

    def forward(self, x):
        for linear, layer in zip(self.linears, self.layers, strict=False):
            x = layer(linear(x))
        return self.linears[-1](x) if len(self.linears) > len(self.layers) else x


class Rectifier(Peer):
    name = "ReLU in place of neurons"

    def layer(self):
        return nn.ReLU()


def training_step(sizes, peers, shape, rounds):
    """Compare a step of training: the loss of the output summed over time, and Adam."""
    peers = [*(peer for peer in peers if not isinstance(peer, Jaxpike)), Rectifier()]
    x, labels = (torch.rand((*shape, sizes[0])) < 0.05).float(), torch.arange(shape[1]) % sizes[-1]
    first, calls = None, {}
    for peer in peers:
        torch.manual_seed(0)
        net = Network(peer, sizes, snn.Linear if isinstance(peer, Ours) else nn.Linear)
        if first is None:
            snn.init_(
                snn.Sequential(*(m for pair in zip(net.linears, net.layers, strict=False) for m in pair)), x
            )
            first = net.linears.state_dict()
        net.linears.load_state_dict(first)
        calls[peer] = _step_calls(net, oriented(x, peer), labels, int(peer.batch_first))
    return compare(f"step {sizes}", calls, rounds)


def _step_calls(net, x, labels, time_dim):
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)

    def forward():
        return nn.functional.cross_entropy(net(x).sum(time_dim), labels)

    def backward(loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return Calls(forward, backward)


def open_neuromorphic(size, peers, rounds):
    """Compare ``Linear(n, n)`` and a layer: batch 16, 500 steps, random numbers, the loss is the sum."""
    x, calls = torch.randn(500, 16, size), {}
    for peer in peers:
        if isinstance(peer, Jaxpike):
            continue
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(size, size), peer.layer())
        own = oriented(x, peer)
        calls[peer] = Calls(lambda net=net, own=own: net(own), lambda y: y.sum().backward())
    return compare(f"n = {size}", calls, rounds)


def from_jaxpike(layers, time_dim):
    """Build jaxpike's network of this library's layers, with the same weights."""
    modules, tau = [], -1 / math.log(float(layers[1].alpha))
    for dense in layers[::2]:
        linear = snn.Linear(*dense.weight.shape[::-1])
        weights = {name: torch.from_numpy(_numpy(getattr(dense, name))) for name in ("weight", "bias")}
        linear.load_state_dict(weights)
        surrogate = FastSigmoid(layers[1].surrogate.slope)
        keywords = {"gain": "1-alpha", "reset_timing": "before_decay", "surrogate": surrogate}
        modules += [linear, snn.LIF(tau=tau, learn=("tau",), **keywords)]
    return snn.Sequential(*modules, time_dim=time_dim)


def jaxpike_scaling(steps, peers, rounds):
    """Compare jaxpike's own protocol: two layers, batch 8, ones as input, the mean of the spikes as loss."""
    import jax
    from equinox import filter_jit, filter_value_and_grad
    from jaxpike import LIF, Dense, Sequential, unroll

    one, two = jax.random.split(jax.random.PRNGKey(0))
    theirs = Sequential(Dense(64, 128, key=one), LIF(20.0), Dense(128, 128, key=two), LIF(20.0))
    loss, ones = (lambda net, x: unroll(net, x)[0].mean()), jax.numpy.ones((steps, 8, 64))
    forward, both = filter_jit(loss), filter_jit(filter_value_and_grad(loss))
    (jaxpike,) = (peer for peer in peers if isinstance(peer, Jaxpike))
    calls = {
        jaxpike: Calls(
            lambda: forward(theirs, ones).block_until_ready(),
            None,
            lambda: jax.block_until_ready(both(theirs, ones)),
        )
    }
    for peer in (peer for peer in peers if isinstance(peer, Ours)):
        net = from_jaxpike(theirs.layers, int(peer.batch_first))
        x = oriented(torch.ones(steps, 8, 64), peer)
        calls[peer] = Calls(lambda net=net, x=x: net(x).mean(), lambda loss: loss.backward())
        found, expected = calls[peer].forward().item(), float(forward(theirs, ones))
        if abs(found - expected) > 0.01 * expected:
            raise RuntimeError(f"jaxpike must have this library's rate, {found}, got {expected}")
    return compare(f"T = {steps}", calls, rounds)


def protocols(peers, rounds):
    """Return the protocols by name: functions without arguments."""
    found = {
        f"layer, {name} {shape}": (lambda shape=shape: one_layer(shape, peers, rounds))
        for name, shape in LAYERS.items()
    }
    found[f"recurrent layer {RECURRENT}"] = lambda: recurrent_layer(RECURRENT, peers, rounds)
    for size in (512, 2048):
        found[f"Open Neuromorphic, n = {size}"] = lambda size=size: open_neuromorphic(size, peers, rounds)
    if any(isinstance(peer, Jaxpike) for peer in peers):
        for steps in (100, 1000, 5000):
            found[f"jaxpike's scaling, T = {steps}"] = lambda steps=steps: jaxpike_scaling(
                steps, peers, rounds
            )
    found["training step, HSD network"] = lambda: training_step(
        (100, 128, 128, 20), peers, (250, 128), rounds
    )
    found["training step, SHD by Spyx"] = lambda: training_step(
        (128, 128, 128, 20), peers, (256, 256), rounds
    )
    return found


# How a table writes the agreement with this library. Only recurrent layers have weights.
AGREEMENT = {
    "equal spikes": lambda share: f"{100 * share:.3f} %",
    "cosine": "{:.4f}".format,
    "norm ratio": "{:.4g}".format,
    "cosine, weights": "{:.4f}".format,
    "norm ratio, weights": "{:.4g}".format,
}


def table(title, results):
    """Return the lines of a table of Markdown."""
    agreed = [column for column in AGREEMENT if column in results[Ours.name]]
    columns = ["", "forward, ms", "backward, ms", "both, ms", "both / ours", "memory, MB", *agreed]
    lines = [f"### {title}", "", f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    for name, own in results.items():
        medians = (
            "" if own[kind] is None else f"{own[kind][1]:.3g}" for kind in ("forward", "backward", "both")
        )
        ratio = own["both"][1] / results[own["reference"]]["both"][1]
        memory = "" if own["memory"] is None else f"{own['memory']:.0f}"
        cells = [name, *medians, f"{ratio:.3g}", memory, *(AGREEMENT[key](own[key]) for key in agreed)]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def plot(results, path):
    """Draw how much longer each implementation takes, for all protocols."""
    names = list(dict.fromkeys(name for own in results.values() for name in own))
    colours = dict(
        zip(
            names,
            [
                "#0072B2",
                "#56B4E9",
                "#000000",
                "#D55E00",
                "#009E73",
                "#CC79A7",
                "#E69F00",
                "#9A9A9A",
                "#F0E442",
            ],
            strict=False,
        )
    )
    with style.paper():
        fig = style.figure(0.35 * len(results) + 1.2)
        axes = fig.subplots()
        for row, own in enumerate(results.values()):
            for name, one in own.items():
                ratio = one["both"][1] / own["exodus_core"]["both"][1]
                axes.plot(ratio, -row, "o", ms=4, color=colours[name], label=name)
        handles = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
        axes.legend(handles.values(), handles.keys(), loc="upper left", bbox_to_anchor=(1, 1))
        axes.axvline(1, color=style.GREY, lw=0.8)
        axes.set(xscale="log", xlabel="Time of forward and backward over that of exodus_core")
        axes.set_yticks([-row for row in range(len(results))], list(results))
        style.save(fig, path)


def processor():
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.*)", info.read_text()) if info.exists() else None
    return found[1] if found else "unknown processor"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks-output"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="protocols whose names contain one of these")
    given = parser.parse_args()
    if given.threads == 1:  # before JAX is imported
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    title = f"{processor()}, {ec.isa()}, {given.threads} threads, torch {torch.__version__}"
    results, lines = {}, ["# Comparison with other libraries", "", title, ""]
    for name, run in protocols(installed(), given.rounds).items():
        if not given.only or any(part in name for part in given.only):
            results[name] = run()
            lines += table(name, results[name])
            print("\n".join(table(name, results[name])), flush=True)
    content = {"machine": title, "quartiles in ms, memory in MB": results}
    base = given.out / "peers"
    base.with_suffix(".json").write_text(json.dumps(content, indent=1))
    base.with_suffix(".md").write_text("\n".join(lines))
    plot(results, base.with_suffix(".png"))


if __name__ == "__main__":
    main()
