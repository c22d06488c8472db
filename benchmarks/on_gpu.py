"""The passes on a GPU (bandwidth.py --device cuda), against copies of the same traffic and a loop of torch.

A copy reads and writes as many bytes as the pass, in the same proportion. Both take buffers in turn whose
sum is far beyond the L2 cache, and both are replayed as CUDA graphs, so that Python does not count.
"""

import statistics
from functools import partial

import exodus_core as ec
from exodus_core import cuda

L2_MULTIPLE = 4  # the buffers' size over the cache's
LEAST_SETS = 4


def why_not():
    """Why nothing can be measured here, or None."""
    if not cuda.is_available():
        return cuda._unavailable()
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    return None if torch.cuda.is_available() else "this torch sees no GPU"


def captured(torch, calls):
    """The calls one after another as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return graph


def seconds(torch, graph):
    """The time of a replay."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    graph.replay()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def compare(torch, bound, calls, rounds):
    """The median time of one of the bound's calls over that of one of the others, and the latter."""
    graphs = [captured(torch, bound), captured(torch, calls)]
    times = [[seconds(torch, graph) for graph in graphs] for _ in range(rounds + 3)][3:]
    bound_time, time = map(statistics.median, zip(*times, strict=True))
    return bound_time / time * len(calls) / len(bound), time / len(calls)


class Buffers:
    """Arrays of one call of each pass, and of the copies beside them."""

    def __init__(self, torch, neuron, shape, time_axis, dtype):
        self.torch, self.neuron, self.time_axis = torch, neuron, time_axis
        self.current = torch.randn(shape, device="cuda", dtype=dtype).mul_(0.3).add_(0.05)
        self.grad_spikes = torch.randn(shape, device="cuda", dtype=dtype)
        self.trace = ec.forward(neuron, self.current, time_axis=time_axis)
        self.grads = ec.backward(self.trace, self.grad_spikes, parameters=())
        # Parts of the type read and of four bytes, as spikes and potential are. (bfloat16 has none.)
        readable = torch.float16 if dtype == torch.bfloat16 else dtype
        self.source = torch.randn(shape, device="cuda").to(readable)
        self.parts = torch.frexp(self.source)

    def forward(self):
        ec.forward(self.neuron, self.current, time_axis=self.time_axis, out=self.trace)

    def backward(self, method, parameters):
        ec.backward(self.trace, self.grad_spikes, method=method, parameters=parameters, out=self.grads)

    def copy_forward(self):
        self.torch.frexp(self.source, out=self.parts)

    def copy_backward(self):
        self.torch.add(self.grad_spikes, self.trace.potential, out=self.grads.current)


def torch_loop(torch, alpha):
    """LIF neurons as torch's users write them."""

    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(context, u):
            context.save_for_backward(u)
            return (u >= 1.0).to(u.dtype)

        @staticmethod
        def backward(context, grad):
            (u,) = context.saved_tensors
            return grad * torch.exp(-2.0 * torch.abs(u - 1.0))

    def run(current):
        u, s, spikes = torch.zeros_like(current[0]), torch.zeros_like(current[0]), []
        for a in current:
            u = alpha * u + a - s
            s = Spike.apply(u)
            spikes.append(s)
        return torch.stack(spikes)

    return run


def against_torch(torch, shape, rounds):
    """Forward and backward of a layer, and of a loop that gives the same."""
    current = torch.randn(shape, device="cuda").mul_(0.3).add_(0.05).requires_grad_()
    weights = torch.randn(shape, device="cuda")
    loop = torch_loop(torch, 0.95)

    def ours(a):
        from exodus_core.torch import spike

        return spike(a, ec.LIF(alpha=0.95)).spikes

    def both_passes(layer):
        return lambda: torch.autograd.grad(layer(current), current, weights)

    return compare(torch, [both_passes(loop)], [both_passes(ours)], rounds)


def against_copies(torch, layout, shape, time_axis, dtype, sets, rounds):
    """Print a line for each pass."""
    buffers = [Buffers(torch, ec.LIF(alpha=0.95), shape, time_axis, dtype) for _ in range(sets)]
    bounds = {"forward": [x.copy_forward for x in buffers], "backward": [x.copy_backward for x in buffers]}
    passes = [("forward", "", [x.forward for x in buffers])]
    for method, parameters in (("exodus", ()), ("exodus", None), ("slayer", ()), ("bptt", ())):
        what = method + (" with parameters" if parameters is None else "")
        passes.append(("backward", what, [partial(x.backward, method, parameters) for x in buffers]))
    for kind, what, calls in passes:
        share, time = compare(torch, bounds[kind], calls, rounds)
        name = str(dtype).removeprefix("torch.")
        print(f"{name:9s} {layout:12s} {kind:9s} {what:24s} {share:6.2f} {1e6 * time:9.1f} us")


def main(arguments):
    """Print what can be measured here."""
    reason = why_not()
    if reason is not None:
        print(f"nothing to measure: {reason}")
        return
    import torch

    t, b, n = arguments.steps, arguments.batch, arguments.neurons
    device = torch.cuda.get_device_properties(0)
    print(f"LIF, {t} steps x {b} x {n}, {device.name}; share of the bandwidth of a copy, median time")
    sets = max(LEAST_SETS, -(-L2_MULTIPLE * device.L2_cache_size // (12 * t * b * n)))
    layouts = {"time first": ((t, b, n), 0), "batch first": ((b, t, n), 1), "time last": ((b, n, t), 2)}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for layout, (shape, time_axis) in layouts.items():
            against_copies(torch, layout, shape, time_axis, dtype, sets, arguments.rounds)
    ratio, time = against_torch(torch, (t, b, n), arguments.rounds)
    print(f"forward and backward: {1e6 * time:.1f} us, {ratio:.0f} times as fast as torch's loop")
