"""Measures what Python takes of a call: small arrays on a simulated GPU, against the CPU's own calls.

EXODUS_SHIM=build/dev/cpp/tests/cuda python benchmarks/overhead_on_a_gpu.py [--rounds N]

Needs no GPU: the arrays are those of the tests (`tests/device_arrays.py`), and the kernels of both engines do
nothing. A library takes some of the time of a call itself, to allocate results and to tell where arrays lie;
its share is measured apart. Prints microseconds of processor time, and the ratio to NumPy's call with the
library's share and without. A layer of torch is compared with itself: its tensors are on the CPU, and the
way for tensors on a GPU takes them. All take turns in one process.
"""

import argparse
import importlib.util
import os
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

import exodus_core as ec
import exodus_core.torch as snn
from exodus_core import cuda
from exodus_core._backends.numpy import NumpyBackend
from exodus_core.torch import _direct

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from device_arrays import DEVICE, LIBRARY, Device, DeviceArray, DlpackArray

SHAPE = (2, 1, 3)
CALLS = 50
KINDS = {"NumPy": lambda array: array, "interface": DeviceArray, "DLPack": DlpackArray}
NEURONS = {
    "LIF": ec.LIF(alpha=0.9),
    "CubaLIF": ec.CubaLIF(alpha=0.9, alpha_syn=0.8),
    "LIF per channel": ec.LIF(alpha=np.linspace(0.5, 0.9, 3)),
}


class BoundToNothing:
    """A bound neuron whose passes do nothing."""

    def __init__(self, *arguments):
        pass

    def forward(self, *arguments):
        return 0, 0

    def backward(self, *arguments):
        *_, wanted, _, _ = arguments
        return (0.0,) * len(wanted)


def without_kernels(folder):
    """Let calls of both engines do everything but run a kernel."""
    spec = importlib.util.spec_from_file_location("_cuda", next(Path(folder).glob("_cuda*.so")))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    nothing = {
        "forward": lambda *arguments: None,
        "backward": lambda *arguments: None,
        "wait": lambda *arguments: None,
        "learnt_numbers": lambda *arguments: None,
        "learnt_gradients": lambda *arguments: None,
        "BoundNeuron": BoundToNothing,
    }
    NumpyBackend.kernels = _direct.OnCpu.kernels = SimpleNamespace(**nothing)
    cuda._found = lambda: (SimpleNamespace(**vars(module) | nothing), "")
    cuda.kernels.cache_clear()


def calls(neuron, kind):
    """Functions that make the calls to be measured with arrays of a kind."""
    current = kind(np.random.default_rng(0).normal(0.2, 0.5, SHAPE).astype(np.float32))
    grad, trace = kind(np.ones(SHAPE, np.float32)), ec.forward(neuron, current)
    return {
        "forward": lambda: ec.forward(neuron, current),
        "backward": lambda: ec.backward(trace, grad, parameters=()),
        "backward with parameters": lambda: ec.backward(trace, grad),
    }


def layers():
    """Functions that call layers of torch with tensors on the CPU, and the way of those on a GPU."""
    torch.cuda.current_stream = lambda device: SimpleNamespace(cuda_stream=1)
    engines = {
        "torch, CPU": _direct.OnCpu(),
        "torch, GPU": _direct.OnGpu(torch.device("cpu")),
    }
    current, grad = torch.ones(SHAPE, requires_grad=True), torch.ones(SHAPE)

    def apart(layer):
        with torch.no_grad():
            layer(current)

    found = {}
    for kind, engine in engines.items():
        _direct._CPU = engine
        for learn in ((), ("tau",)):
            layer = snn.LIF(tau=9.0, learn=learn)
            layer(current)  # its place is remembered
            name = "LIF, learnt tau" if learn else "LIF"
            found[name, "forward, torch.no_grad", kind] = partial(apart, layer)
            found[name, "forward and backward", kind] = lambda layer=layer: layer(current).backward(grad)
    return found


def microseconds(call):
    start = time.thread_time()
    for _ in range(CALLS):
        call()
    return (time.thread_time() - start) / CALLS * 1e6


def fastest(named_calls, rounds):
    """The microseconds of each call, the least of some rounds."""
    least = dict.fromkeys(named_calls, np.inf)
    for _ in range(rounds):
        for key, call in named_calls.items():
            least[key] = min(least[key], microseconds(call))
    return least


class Counter:
    """Counts how often an attribute of a class is used while it is active."""

    def __init__(self, kind, name):
        self.kind, self.name, self.own, self.count = kind, name, vars(kind)[name], 0

    def __enter__(self):
        def used(instance):
            self.count += 1
            return self.own.__get__(instance)

        setattr(self.kind, self.name, property(used))
        return self

    def __exit__(self, *error):
        setattr(self.kind, self.name, self.own)


def enter():
    with Device(0):
        pass


ARRAY, FOREIGN = (kind(np.ones(SHAPE, np.float32)) for kind in (DeviceArray, DlpackArray))
NUMBER = DeviceArray(np.ones(1))
# What a library does in a call: it makes a device the current one, makes empty arrays, tells where arrays
# lie, and (`__getattr__`) has functions of arrays, of which conversions to another type are the most.
USES = {
    (Device, "__enter__"): enter,
    (type(LIBRARY), "empty"): lambda: LIBRARY.empty(SHAPE, dtype=LIBRARY.float32, device=DEVICE),
    (DeviceArray, "__cuda_array_interface__"): lambda: ARRAY.__cuda_array_interface__,
    (DlpackArray, "__dlpack__"): lambda: FOREIGN.__dlpack__(stream=1),
    (type(LIBRARY), "__getattr__"): lambda: LIBRARY.astype(NUMBER, LIBRARY.float32, copy=False),
    (DeviceArray, "reshape"): lambda: NUMBER.reshape(()),
    (DeviceArray, "__getitem__"): lambda: NUMBER[()],
}


def uses(call):
    """How often a call makes each of the uses."""
    found = []
    for use in USES:
        with Counter(*use) as counter:
            call()
        found.append(counter.count)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    if "EXODUS_SHIM" not in os.environ:
        sys.exit("EXODUS_SHIM must name the folder of the CUDA kernels for the CPU (CONTRIBUTING.md)")
    without_kernels(os.environ["EXODUS_SHIM"])
    print(f"{'':42} {'us':>6} {'library':>8} {'ratio':>6} {'without library':>16}")
    for name, neuron in NEURONS.items():
        own = {(kind, what): call for kind in KINDS for what, call in calls(neuron, KINDS[kind]).items()}
        with DEVICE:
            least = fastest(own | USES, rounds)
        for (kind, what), call in own.items():
            base, whole = least["NumPy", what], least[kind, what]
            share = sum(count * least[use] for count, use in zip(uses(call), USES, strict=True))
            ratios = f"{whole / base:6.2f} {(whole - share) / base:16.2f}"
            print(f"{name:15} {what:25} {kind:10} {whole:6.1f} {share:8.1f} {ratios}")
    least = fastest(layers(), rounds)
    for (name, what, kind), whole in least.items():
        ratio = whole / least[name, what, "torch, CPU"]
        print(f"{name:15} {what:25} {kind:10} {whole:6.1f} {'':8} {ratio:6.2f}")


if __name__ == "__main__":
    main()
