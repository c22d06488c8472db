"""Training of a classifier. An interrupted run goes on from its checkpoint, bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import exodus_core.torch as snn

from .files import load, save
from .networks import Readout
from .samples import Samples, Splits

EVALUATION_BATCH = 128


@dataclass(frozen=True)
class Plan:
    """The settings of a training run.

    Attributes
    ----------
    epochs, batch : int
        The number of epochs, and of samples in a batch.
    learning_rate : float
        Adam's.
    seed : int
        The seed of the initial weights and of the order of the samples.
    device : str
        The device for torch.
    target_rate : float or None
        The rate, in spikes per step, to which ``init_`` scales the initial weights; None leaves them.
    measured : int
        The number of training samples for it.
    """

    epochs: int
    batch: int
    learning_rate: float = 1e-3
    seed: int = 0
    device: str = "cpu"
    target_rate: float | None = None
    measured: int = 128


@dataclass
class History:
    """The course of a training run, as numbers for JSON.

    Attributes
    ----------
    loss, validation_loss, validation_accuracy, seconds : list of float
        For each epoch. The time is that of the training steps.
    gradient_norms : dict of str to list of float
        For each weight and epoch, the mean over the steps of the norm of its gradient.
    best_epoch : int
        The first epoch with the highest accuracy on the validation set, from 0; -1 before the first one.
    test_accuracy : float or None
        The accuracy on the test set with the parameters of the best epoch; None until the end.
    confusion : list of list of int
        On the test set, for each class the number of samples that were taken for each class.
    """

    loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    gradient_norms: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int = -1
    test_accuracy: float | None = None
    confusion: list[list[int]] = field(default_factory=list)

    def numbers(self) -> dict[str, Any]:
        """Return the course as values for JSON.

        Returns
        -------
        dict
            The attributes by name.
        """
        return asdict(self)


class Run:
    """A network in training.

    Parameters
    ----------
    make : callable
        A function that makes the network. It is called with torch's generator at the plan's seed.
    readout : callable
        A function that makes logits of the network's output.
    splits : Splits
        The data.
    plan : Plan
        The settings.
    checkpoint : Path, optional
        The file from which the run goes on if it exists, and which it replaces after each epoch.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        readout: Readout,
        splits: Splits,
        plan: Plan,
        checkpoint: Path | None = None,
    ) -> None:
        torch.manual_seed(plan.seed)
        self.network = make().to(plan.device)
        self.readout, self.splits, self.plan, self.checkpoint = readout, splits, plan, checkpoint
        if plan.target_rate is not None:
            chosen = torch.arange(0, len(splits.train), max(1, len(splits.train) // plan.measured))
            inputs, _ = splits.train.batch(chosen[: plan.measured], plan.device)
            snn.init_(self.network, inputs, target_rate=plan.target_rate)
        # Everything that decides the course of the run. A layer's repr shows the learnt values of the moment.
        self.identity = f"{plan}\n{splits.name} {dict(splits.sizes())}\n{self.network}"
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=plan.learning_rate)
        self.order = torch.Generator().manual_seed(plan.seed)
        self.history = History()
        self.best: dict[str, Any] = {}
        if checkpoint is not None and checkpoint.exists():
            self._load(checkpoint)

    def train(self, label: str = "training") -> History:
        """Train the epochs that are left, then measure the best ones on the test set.

        Parameters
        ----------
        label : str, optional
            The name of the run beside its progress bar.

        Returns
        -------
        History
            The course of all epochs.
        """
        done = len(self.history.loss)
        epochs = range(done, self.plan.epochs)
        for _ in tqdm(epochs, label, self.plan.epochs, initial=done, unit="epoch", disable=None, leave=False):
            self._epoch()
            self._validate()
            self._save()
        if self.history.test_accuracy is None:
            self._test()
            self._save()
        return self.history

    def _epoch(self) -> None:
        self.network.train()
        weights = {name: p for name, p in self.network.named_parameters() if p.dim() > 1}
        norms = {name: 0.0 for name in weights}
        total, begin = 0.0, time.perf_counter()
        train, plan = self.splits.train, self.plan
        batches = torch.randperm(len(train), generator=self.order).split(plan.batch)
        for chosen in batches:
            inputs, labels = train.batch(chosen, plan.device)
            loss = cross_entropy(self.readout(self.network(inputs)), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.item() * len(labels)
            for name, weight in weights.items():
                norms[name] += 0.0 if weight.grad is None else weight.grad.norm().item()
        history = self.history
        history.seconds.append(time.perf_counter() - begin)
        history.loss.append(total / len(train))
        for name, norm in norms.items():
            history.gradient_norms.setdefault(name, []).append(norm / len(batches))

    def _validate(self) -> None:
        loss, accuracy, _ = self._measure(self.splits.validation)
        history = self.history
        history.validation_loss.append(loss)
        history.validation_accuracy.append(accuracy)
        if accuracy > max(history.validation_accuracy[:-1], default=-1.0):
            history.best_epoch = len(history.loss) - 1
            self.best = {name: value.clone() for name, value in self.network.state_dict().items()}

    def _test(self) -> None:
        last = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.best)
        _, self.history.test_accuracy, self.history.confusion = self._measure(self.splits.test)
        self.network.load_state_dict(last)

    @torch.no_grad()
    def _measure(self, samples: Samples) -> tuple[float, float, list[list[int]]]:
        """Return the loss, the accuracy and the confusion matrix."""
        self.network.eval()
        classes = len(self.splits.classes)
        confusion = torch.zeros(classes, classes, dtype=torch.int64)
        total = 0.0
        for inputs, labels in samples.batches(EVALUATION_BATCH, self.plan.device):
            logits = self.readout(self.network(inputs))
            total += cross_entropy(logits, labels, reduction="sum").item()
            pairs = torch.stack((labels, logits.argmax(dim=1))).cpu()
            confusion.index_put_(tuple(pairs), torch.ones(len(labels), dtype=torch.int64), accumulate=True)
        return total / len(samples), confusion.trace().item() / len(samples), confusion.tolist()

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        content = {
            "identity": self.identity,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": self.order.get_state(),
            "random": torch.get_rng_state(),
            "history": self.history.numbers(),
            "best": self.best,
        }
        save(self.checkpoint, content)

    def _load(self, path: Path) -> None:
        content = load(path, self.plan.device)
        identity = content.get("identity") if isinstance(content, dict) else None
        if identity != self.identity:
            raise ValueError(
                f"{path} must be a checkpoint of this run, got one of another: delete it, or choose another "
                f"folder.\nThis run:\n{self.identity}\nThe checkpoint's:\n{identity}"
            )
        self.network.load_state_dict(content["network"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.order.set_state(content["order"].cpu())
        torch.set_rng_state(content["random"].cpu())
        self.history, self.best = History(**content["history"]), content["best"]


def cosine(one: Tensor, other: Tensor) -> float:
    """Compute the cosine of the angle between two gradients.

    Parameters
    ----------
    one, other : Tensor
        The gradients, of equal shape.

    Returns
    -------
    float
        From -1 to 1; NaN if one of them is 0.
    """
    a, b = one.flatten().double(), other.flatten().double()
    return float((a @ b) / (a.norm() * b.norm()))
