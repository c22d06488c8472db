"""Worker processes run layers and functions, with as many threads as torch's settings allow.

Property: workers of a DataLoader, forked or spawned, compute what their parent does, while it computes too.
Layers use the number of threads of `torch.set_num_threads`, of OMP_NUM_THREADS and of a worker (one), unless
exodus_core's own was chosen. They are torch's own threads, so a layer starts no others. A forked process,
which does not have these, computes on others. Witness: the same calls in the parent, bit for bit, and the
system's list of a process's threads.
"""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import exodus_core as ec
from compare import assert_same_bits

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")

STARTS = [m for m in ("fork", "spawn") if m in torch.multiprocessing.get_all_start_methods()]
SHAPE = (10, 20_000)  # enough neurons to give several threads work


def current_of(index):
    return np.random.default_rng(index).normal(0.3, 1.0, SHAPE).astype(np.float32)


class Layers(torch.utils.data.Dataset):
    """Runs a network for each item, forward and backward."""

    def __init__(self):
        self.net = torch.nn.Sequential(snn.LIF(0.9, threshold=0.6, learn=("alpha",)), snn.ExpLeak(0.8))

    def __len__(self):
        return 6

    def results(self, index):
        current = torch.from_numpy(current_of(index)).requires_grad_()
        result = self.net(current)
        (gradient,) = torch.autograd.grad(result, (current,), torch.from_numpy(np.ones(SHAPE, np.float32)))
        return result.detach(), gradient

    def __getitem__(self, index):
        return torch.stack(self.results(index))


class Arrays(Layers):
    """Runs the functions on arrays for each item."""

    def __getitem__(self, index):
        trace = ec.forward(ec.LIF(alpha=0.9, threshold=0.6), current_of(index))
        gradient = ec.backward(trace, np.ones(SHAPE, np.float32)).current
        return np.stack((trace.spikes, gradient))


class ThreadCounts(Layers):
    """The number of torch's threads, and those that the kernels are called with: forward and backward.

    It calls no large function of torch: GNU's OpenMP hangs in a forked child that uses several threads, with
    or without layers.
    """

    def __getitem__(self, index):
        from exodus_core import _core

        def watched(kernel):
            return lambda *arguments: (seen.append(arguments[-1]), kernel(*arguments))[1]

        seen = []
        with pytest.MonkeyPatch.context() as patch:
            for owner in (_core, _core.BoundNeuron):
                for name in ("forward", "backward"):
                    patch.setattr(owner, name, watched(getattr(owner, name)))
            self.results(index)
        return [torch.get_num_threads(), *seen]


def two_threads(worker):
    torch.set_num_threads(2)


def loaded(data, start, workers=2, **keywords):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The test forks a process with threads, of which Python warns.
        loader = torch.utils.data.DataLoader(
            data,
            batch_size=None,
            num_workers=workers,
            multiprocessing_context=start,
            timeout=120,
            **keywords,
        )
        yield from loader


@pytest.fixture
def follows_torch(monkeypatch):
    """As in a process where nobody has chosen exodus_core's number of threads."""
    monkeypatch.setattr("exodus_core._threads._chosen", False)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("kind", [Layers, Arrays])
def test_workers_compute_what_their_parent_does(kind, start, follows_torch):
    data = kind()
    expected = [data[index] for index in range(len(data))]
    assert all(np.any(np.asarray(item)) for item in expected)
    count = 0
    for found, item in zip(loaded(data, start), expected, strict=True):
        assert_same_bits(found, item)
        assert_same_bits(data[count], item)  # the parent computes while its workers do
        count += 1
    assert count == len(data)


@pytest.mark.parametrize("start", STARTS)
def test_persistent_workers_compute_epoch_after_epoch(start, follows_torch):
    data = Layers()
    loader = torch.utils.data.DataLoader(
        data, None, num_workers=1, multiprocessing_context=start, timeout=120, persistent_workers=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, second = list(loader), list(loader)
    for one, other, index in zip(first, second, range(len(data)), strict=True):
        assert_same_bits(one, other)
        assert_same_bits(one, data[index])


@pytest.mark.parametrize("start", STARTS)
def test_a_worker_uses_one_thread_as_torch_does(start, follows_torch):
    for torchs, *kernels in loaded(ThreadCounts(), start, workers=1):
        assert torchs == 1
        assert kernels == [1] * 4


@pytest.mark.parametrize("start", STARTS)
def test_a_worker_that_sets_torchs_threads_uses_them(start, follows_torch):
    for torchs, *kernels in loaded(ThreadCounts(), start, workers=1, worker_init_fn=two_threads):
        assert torchs == 2
        assert kernels == [2] * 4


COUNT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import numpy as np, torch, exodus_core.torch as snn
from test_torch_citizen_workers import ThreadCounts, current_of, threads_of_process

counts = ThreadCounts()[0]
kernels = threads_of_process()
print(json.dumps([*counts, kernels]))
"""


def threads_of_process():
    return len(os.listdir("/proc/self/task"))


def counted(code, **environment):
    """What `code` prints in another process, whose environment sets numbers of threads as given."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "EXODUS_NUM_THREADS")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**clean, **environment},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("count", [1, 2])
def test_the_environments_number_is_used(count):
    torchs, *kernels, _ = counted(COUNT, OMP_NUM_THREADS=str(count))
    assert torchs == count
    assert kernels == [count] * 4


def test_the_packages_own_number_has_precedence():
    torchs, *kernels, _ = counted(COUNT, OMP_NUM_THREADS="1", EXODUS_NUM_THREADS="2")
    assert torchs == 1
    assert kernels == [0] * 4  # the package's own number


LAYER = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import torch, exodus_core.torch as snn
from test_torch_citizen_workers import current_of, threads_of_process

layer = snn.LIF(0.9, threshold=0.6, learn=("alpha",))
current, grad = torch.from_numpy(current_of(0)).requires_grad_(), torch.from_numpy(current_of(1))

def results():
    spikes = layer(current)
    return spikes.detach(), *torch.autograd.grad(spikes, (current, layer.alpha), grad)
"""

COUNTED = f"""{LAYER}
before = threads_of_process()
first, *gradients = results()
layers = threads_of_process()
torch.sin(current.detach())
assert all(gradient.any() for gradient in gradients)
print(json.dumps([layers - before, threads_of_process() - before]))
"""

FORKED = f"""{LAYER}
expected = [result.numpy().tobytes() for result in results()]
child = os.fork()
# Not by torch's functions: those that use several threads hang in the child.
same = [result.numpy().tobytes() for result in results()] == expected
if child == 0:
    os._exit(0 if same else 1)
print(json.dumps([same, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]))
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs Linux's list of threads")
@pytest.mark.parametrize("count", [1, 2])
def test_layers_and_torch_have_the_same_threads(count):
    # The caller works too. A second pool would start as many threads again.
    assert counted(COUNTED, OMP_NUM_THREADS=str(count)) == [count - 1, count - 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_process_does_without_its_parents_threads():
    assert counted(FORKED, OMP_NUM_THREADS="2") == [True, 0]
