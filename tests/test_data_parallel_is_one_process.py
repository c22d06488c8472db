"""Several processes that share a batch learn as one process with the whole batch.

Property: under DistributedDataParallel, two processes with half the batch each have the gradients of one with
all of it, to rounding, for every neuron and every learnt value. The example gives the same loss curve and the
same learnt time constants under torchrun as alone. Witness: one process.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from neuron_examples import FIRING, SCALARS

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")
dist = pytest.importorskip("torch.distributed")

if not (dist.is_available() and dist.is_gloo_available()):
    pytest.skip("torch has no gloo", allow_module_level=True)

EXAMPLE = Path(__file__).parent.parent / "examples" / "data_parallel.py"
PROCESSES, BATCH = 2, 6


def run(*command):
    """The output of the example, which may choose its number of threads."""
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "RANK", "WORLD_SIZE")}
    whole = [sys.executable, *command, str(EXAMPLE)]
    done = subprocess.run(whole, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_has_the_same_loss_curve_under_torchrun():
    alone = run()
    shared = run("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}")
    assert alone.startswith("processes: 1") and shared.startswith(f"processes: {PROCESSES}")
    assert shared.splitlines()[-1] == alone.splitlines()[-1] == "learnt"
    losses, others = (re.findall(r"loss (\S+)", text) for text in (alone, shared))
    assert len(losses) == 8
    assert list(map(float, others)) == pytest.approx(list(map(float, losses)), rel=1e-8)
    taus, others = (re.findall(r"(?:tau|from|to) ([\d.]+)", text) for text in (alone, shared))
    assert len(taus) == 6
    assert list(map(float, others)) == pytest.approx(list(map(float, taus)), rel=1e-8)
    assert float(taus[1]) < 5.5 and float(taus[2]) > 6.5  # They began at 6.


def networks():
    """Networks that learn every value of a neuron, some with delays or recurrent weights."""
    torch.manual_seed(0)

    def layer(name):
        neuron = SCALARS[name]
        return snn.from_neuron(neuron, learn=neuron._parameter_names())

    found = {name: torch.nn.Sequential(torch.nn.Linear(3, 4), layer(name)) for name in SCALARS}
    for name in FIRING:
        found[f"{name}, recurrent"] = torch.nn.Sequential(
            torch.nn.Linear(3, 4), snn.Recurrent(layer(name), 4)
        )
    found["delays"] = torch.nn.Sequential(snn.Delay([0.25, 1.5, 2.0], most=3), layer("LIF"))
    return {name: network.double() for name, network in found.items()}


def gradients(network, current):
    network(current).square().mean().backward()
    return [parameter.grad.clone() for parameter in network.parameters()]


def batch():
    generator = torch.Generator().manual_seed(1)
    return 0.4 + torch.randn(20, BATCH, 3, generator=generator, dtype=torch.float64)


def share(rank, folder):
    """In one of the processes: the gradients for its part of the batch, averaged by DDP."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=PROCESSES)
    current = batch()[:, rank::PROCESSES]
    wrap = torch.nn.parallel.DistributedDataParallel
    found = {name: gradients(wrap(network), current) for name, network in networks().items()}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_gradients_are_those_of_the_whole_batch(tmp_path):
    torch.multiprocessing.spawn(share, (str(tmp_path),), nprocs=PROCESSES)
    shares = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(PROCESSES)]
    for name, network in networks().items():
        expected = gradients(network, batch())
        assert all(bool(gradient.any()) for gradient in expected[:2]), name
        for found in shares:
            for one, other in zip(found[name], expected, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
