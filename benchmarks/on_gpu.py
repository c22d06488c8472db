"""Speed on a GPU (bandwidth.py --device cuda), relative to copies of the same bytes and to loops in torch.

A copy reads and writes as many bytes as the pass, in the same proportion. Copy and pass alternate between
several buffers, which together are much larger than the L2 cache. Both are replayed as CUDA graphs, so that
Python's time does not count. Beside what is measured stands what predictions.py predicts, where it does.
"""

import statistics
from functools import partial

import numpy as np
import predictions

import exodus_core as ec
from exodus_core import cuda

L2_MULTIPLE = 4  # the total size of the buffers, in L2 caches
LEAST_SETS = 4
ARRAYS = 9  # of a set of Buffers, and one while they are made
DECAY = np.exp(-np.arange(64) / 20)  # a kernel by its taps
NEURONS = {
    "Lif": ec.LIF(alpha=0.95),
    "CubaLif": ec.CubaLIF(alpha=0.95, alpha_syn=0.9),
    "Alif": ec.ALIF(alpha=0.95, alpha_adapt=0.98, adapt_scale=0.1),
    "64 taps": ec.SRM(ec.kernel.FIR(0.9 * DECAY), ec.kernel.FIR(-DECAY)),
}


def why_not():
    """Return the reason why nothing can be measured here, or None."""
    if not cuda.is_available():
        return cuda._unavailable()
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    return None if torch.cuda.is_available() else "this torch sees no GPU"


def captured(torch, calls):
    """Capture the calls, one after another, as a CUDA graph."""
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
    """Return the time of a replay."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    graph.replay()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def medians(torch, lists, rounds):
    """Return, for each list of calls, the median time of one call. The lists take turns."""
    graphs = [captured(torch, calls) for calls in lists]
    times = [[seconds(torch, graph) for graph in graphs] for _ in range(rounds + 3)][3:]
    totals = map(statistics.median, zip(*times, strict=True))
    return [total / len(calls) for total, calls in zip(totals, lists, strict=True)]


def compare(torch, bound, calls, rounds):
    """Return the median time of a bound's call over that of a call, and the latter."""
    bound_time, time = medians(torch, [bound, calls], rounds)
    return bound_time / time, time


def sets_of(torch, elements):
    """Return how many sets of Buffers, of so many elements, are measured by turns."""
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    return max(LEAST_SETS, -(-L2_MULTIPLE * cache // (12 * elements)))


class Buffers:
    """The arrays of one call of each pass, and of the copies that it is compared with."""

    def __init__(self, torch, neuron, shape, time_axis, dtype):
        self.torch, self.neuron, self.time_axis = torch, neuron, time_axis
        self.current = torch.randn(shape, device="cuda", dtype=dtype).mul_(0.3).add_(0.05)
        self.grad_spikes = torch.randn(shape, device="cuda", dtype=dtype)
        self.trace = ec.forward(neuron, self.current, time_axis=time_axis)
        self.grads = ec.backward(self.trace, self.grad_spikes, parameters=())
        # frexp reads one array and writes two, of this dtype and of four bytes, like spikes and potential.
        # It does not take bfloat16.
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

    def copy_backward_with_parameters(self):
        # This pass reads the current too.
        self.torch.addcmul(self.grad_spikes, self.trace.potential, self.current, out=self.grads.current)


def torch_loop(torch, alpha):
    """Make LIF neurons as a loop in torch, as users write it."""

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
    """Compare forward and backward of a layer with those of an equivalent loop."""
    current = torch.randn(shape, device="cuda").mul_(0.3).add_(0.05).requires_grad_()
    weights = torch.randn(shape, device="cuda")
    loop = torch_loop(torch, 0.95)

    def ours(a):
        from exodus_core.torch import spike

        return spike(a, ec.LIF(alpha=0.95)).spikes

    def both_passes(layer):
        return lambda: torch.autograd.grad(layer(current), current, weights)

    return compare(torch, [both_passes(loop)], [both_passes(ours)], rounds)


def against_spikingjelly(torch, steps, rounds):
    """Print a line for each number of neurons: both passes relative to spikingjelly's layer, in Triton."""
    try:
        import peers

        theirs = peers.SpikingJelly()
    except ImportError as error:
        print(f"spikingjelly cannot be measured: {error}")
        return
    ours = peers.snn.LIF(peers.ALPHA, surrogate=peers.SURROGATE, reset_timing=theirs.twin.reset_timing)
    for neurons in (2048, 16384, 65536):
        current = torch.randn((steps, neurons), device="cuda").mul_(0.3).add_(0.05).requires_grad_()
        weights = torch.randn_like(current)
        layers = [theirs.layer(), ours]
        equal = (layers[0](current) == layers[1](current)).float().mean()

        def both_passes(layer, current=current, weights=weights):
            return lambda: torch.autograd.grad(layer(current), current, weights)

        ratio, time = compare(torch, *([both_passes(layer)] for layer in layers), rounds)
        print(
            f"{steps} x {neurons}, both passes: {1e6 * time:8.1f} us, {ratio:.1f} times as fast as "
            f"spikingjelly ({100 * equal:.2f} % of the spikes are equal)"
        )


def predicted(torch, layout, shape, dtype, kernel):
    """Say what predictions.py predicts for a pass, or nothing."""
    gpu = predictions.gpu_of(torch.cuda.get_device_name())
    if gpu is None or layout != "time first" or dtype != torch.float32:
        return ""
    time = predictions.seconds(gpu, kernel, shape[0], shape[1] * shape[2])
    return "" if time is None else f"  prediction {1e6 * time:9.1f} us"


def against_copies(torch, layout, shape, time_axis, dtype, sets, rounds, model="Lif"):
    """Print a line for each pass of a neuron."""
    buffers = [Buffers(torch, NEURONS[model], shape, time_axis, dtype) for _ in range(sets)]
    passes = [("forward", "", "forward", ())]
    for method, parameters in (("exodus", ()), ("exodus", None), ("slayer", ()), ("bptt", ())):
        variant = " with parameters" if parameters is None else ""
        passes.append(("backward" + variant, f" {method}{variant}", "backward", (method, parameters)))
    for bound, variant, call, arguments in passes:
        copies = [getattr(x, f"copy_{bound.replace(' ', '_')}") for x in buffers]
        calls = [partial(getattr(x, call), *arguments) for x in buffers]
        share, time = compare(torch, copies, calls, rounds)
        name = str(dtype).removeprefix("torch.")
        prediction = predicted(torch, layout, shape, dtype, f"{call} {model} 0{variant}")
        time = f"{1e6 * time:9.1f} us{prediction}"
        print(f"{name:9s} {layout:12s} {model:8s} {call + variant:33s} {share:6.2f} {time}")


def other_sizes(torch, rounds):
    """Print lines for arrays of other sizes that are predicted, as far as the GPU's memory holds them."""
    for steps, neurons in predictions.SHAPES[1:]:
        sets = sets_of(torch, steps * neurons)
        if ARRAYS * 4 * steps * neurons * sets > torch.cuda.mem_get_info()[0]:
            print(f"{steps} steps x {neurons}: too large for this GPU")
            continue
        print(f"{steps} steps x {neurons}:")
        against_copies(torch, "time first", (steps, 1, neurons), 0, torch.float32, sets, rounds)


def recurrent(torch, shape, rounds):
    """Print a line for a recurrent layer: the time of each pass, and of both relative to a loop in torch."""
    import recurrence

    current, weight, grad_spikes = (x.cuda() for x in recurrence.problem(*shape, torch.float32))
    trace = ec.forward(recurrence.NEURON, current, recurrent=weight)
    options = dict(surrogate=recurrence.SURROGATE)

    def both_passes(layer):
        inputs = current.requires_grad_(), weight.requires_grad_()
        return lambda: torch.autograd.grad(layer(*inputs), inputs, grad_spikes)

    calls = (
        lambda: ec.forward(recurrence.NEURON, current.detach(), recurrent=weight.detach(), out=trace),
        lambda: ec.backward(trace, grad_spikes, parameters=(), **options),
        lambda: ec.backward(trace, grad_spikes, parameters=("recurrent",), **options),
        both_passes(recurrence.ours),
        both_passes(recurrence.loop),
    )
    *passes, ours, loop = (1e3 * time for time in medians(torch, [[call] for call in calls], rounds))
    forward, backward, learning = (f"{time:7.2f} ms" for time in passes)
    print(
        f"recurrent {'x'.join(map(str, shape)):13s} forward {forward}, backward {backward}, with weights "
        f"{learning}, both {loop / ours:5.1f} times as fast as torch's loop"
    )


def delays(torch, shape, sets, rounds, most=25):
    """Print a line for each kind of delay and layout, relative to copies."""
    t, b, n = shape
    for layout, shape, time_axis in (("time first", (t, b, n), 0), ("time last", (b, n, t), 2)):
        arrays = [torch.randn(shape, device="cuda") for _ in range(sets)]
        copies = [array.clone for array in arrays]
        for kind, delay in (("one", 0.3 * most), ("each", most * torch.rand(n, device="cuda"))):
            calls = [partial(ec.delay, array, delay, most=most, time_axis=time_axis) for array in arrays]
            share, time = compare(torch, copies, calls, rounds)
            print(f"{'float32':9s} {layout:12s} {'delay':9s} {kind:24s} {share:6.2f} {1e6 * time:9.1f} us")


def main(arguments):
    """Run all measurements that this machine allows, and print them."""
    reason = why_not()
    if reason is not None:
        print(f"nothing to measure: {reason}")
        return
    import torch

    t, b, n = arguments.steps, arguments.batch, arguments.neurons
    device = torch.cuda.get_device_properties(0)
    print(f"{t} steps x {b} x {n}, {device.name}; share of the bandwidth of a copy, median time")
    sets = sets_of(torch, t * b * n)
    layouts = {"time first": ((t, b, n), 0), "batch first": ((b, t, n), 1), "time last": ((b, n, t), 2)}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for layout, (shape, time_axis) in layouts.items():
            against_copies(torch, layout, shape, time_axis, dtype, sets, arguments.rounds)
    for model in ("CubaLif", "Alif", "64 taps"):
        against_copies(torch, "time first", (t, b, n), 0, torch.float32, sets, arguments.rounds, model)
    other_sizes(torch, arguments.rounds)
    ratio, time = against_torch(torch, (t, b, n), arguments.rounds)
    print(f"forward and backward: {1e6 * time:.1f} us, {ratio:.0f} times as fast as torch's loop")
    against_spikingjelly(torch, t, arguments.rounds)
    delays(torch, (t, b, n), sets, arguments.rounds)
    for entries, features in ((128, 128), (128, 256), (256, 256), (32, 512), (128, 512), (128, 1024)):
        recurrent(torch, (t, entries, features), arguments.rounds)
