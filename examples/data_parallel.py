"""Data-parallel training: two processes with half a batch each learn as one process with the whole batch.

Each class is a pattern of input spikes at fixed times, with jitter, and the network says which one it sees.
Weights and time constants are learnt, the hidden ones per neuron. Layers are plain torch modules, so
`DistributedDataParallel` averages all gradients as for any other network. The loss curve is the same for any
number of processes that divides the batch, to rounding. In float32 a rounding difference may move a
potential across its threshold, and then the curves part. This example trains in float64.

    python examples/data_parallel.py
    torchrun --standalone --nproc-per-node=2 examples/data_parallel.py
"""

from __future__ import annotations

import os
import sys
import time

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import exodus_core.torch as snn

STEPS, CHANNELS, HIDDEN, CLASSES = 30, 16, 32, 4
SAMPLES, BATCH, EPOCHS, JITTER = 128, 32, 8, 2


class Network(nn.Module):
    """A hidden layer of LIF neurons, and a leaky readout whose largest potential is the score of a class."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(CHANNELS, HIDDEN),
            snn.LIF(tau=6.0, threshold=0.3, learn={"tau": (HIDDEN,)}),
            nn.Linear(HIDDEN, CLASSES),
            snn.ExpLeak(tau=10.0, learn=("tau",)),
        )

    def forward(self, current: Tensor) -> Tensor:
        """Return the scores, (batch, classes), of input spikes, (batch, time, channels)."""
        potential: Tensor = self.body(current.transpose(0, 1))
        return potential.amax(0)


def patterns() -> TensorDataset:
    """Make the data: spikes, (samples, time, channels), and the class of each sample.

    Returns
    -------
    TensorDataset
        The same in every process.
    """
    generator = torch.Generator().manual_seed(0)
    times = torch.randint(JITTER, STEPS - JITTER, (CLASSES, CHANNELS), generator=generator)
    labels = torch.arange(SAMPLES) % CLASSES
    moved = times[labels] + torch.randint(-JITTER, JITTER + 1, (SAMPLES, CHANNELS), generator=generator)
    return TensorDataset(nn.functional.one_hot(moved, STEPS).transpose(1, 2).double(), labels)


def train(network: nn.Module, processes: int, rank: int) -> list[float]:
    """Train on this process's part of each batch.

    Parameters
    ----------
    network : Module
        The network, wrapped in DistributedDataParallel if there are several processes.
    processes, rank : int
        The number of processes, and which of them this is.

    Returns
    -------
    list of float
        For each epoch, the mean loss over all samples.
    """
    # The sampler deals a batch out to the processes, so the samples of a batch are the same for any number.
    data = patterns()
    sampler = DistributedSampler(data, processes, rank, seed=0)
    loader = DataLoader(data, BATCH // processes, sampler=sampler)
    # Time constants are of the order of ten steps, so they need larger moves than weights.
    taus = [value for name, value in network.named_parameters() if name.endswith("tau")]
    weights = [value for name, value in network.named_parameters() if not name.endswith("tau")]
    optimizer = torch.optim.Adam([{"params": weights}, {"params": taus, "lr": 0.2}], lr=0.01)
    curve = []
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        total = torch.zeros((), dtype=torch.float64)
        for spikes, labels in loader:
            loss = nn.functional.cross_entropy(network(spikes), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        if processes > 1:
            dist.all_reduce(total)
        curve.append(total.item() / (len(loader) * processes))
    return curve


def main() -> int:
    """Train in each process, and print the loss curve and the learnt time constants in the first one.

    Returns
    -------
    int
        The exit status: 0 if the network has learnt.
    """
    processes, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    torch.manual_seed(0)
    network = Network().double()
    wrapped: nn.Module = network
    if processes > 1:
        dist.init_process_group("gloo")
        wrapped = DistributedDataParallel(network)
    curve = train(wrapped, processes, rank)
    if processes > 1:
        # A thread of gloo frees the last sum, which needs the interpreter, and aborts the process if that has
        # ended (torch 2.13). Nothing tells when it has done so.
        time.sleep(0.2)
        dist.destroy_process_group()
    learnt = curve[-1] < 0.5 * curve[0]
    if rank == 0:
        print(f"processes: {processes}, threads in each: {torch.get_num_threads()}")
        for epoch, loss in enumerate(curve):
            print(f"epoch {epoch}  loss {loss:.10f}")
        for layer in (network.body[1], network.body[3]):
            taus = layer.tau.detach().reshape(-1)
            print(f"tau {taus.mean():.10f} of {len(taus)}, from {taus.min():.10f} to {taus.max():.10f}")
        print("learnt" if learnt else "NOT LEARNT")
    return 0 if learnt else 1


if __name__ == "__main__":
    sys.exit(main())
