"""Gradients of a network by each algorithm, and the comparison with those of BPTT."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

import exodus_core.torch as snn

from .training import cosine

METHODS = ("exodus", "slayer", "bptt")


def gradients_of(network: nn.Module, loss: Callable[[], Tensor], method: str) -> dict[str, Tensor]:
    """Compute the gradients of a network's weights by one algorithm.

    Parameters
    ----------
    network : Module
        The network.
    loss : callable
        A function that runs the network and returns the loss.
    method : str
        "exodus", "slayer" or "bptt".

    Returns
    -------
    dict of str to Tensor
        The gradient of each weight matrix, from the input up.
    """
    snn.configure(network, method=method)
    weights = {name: p for name, p in network.named_parameters() if p.dim() > 1}
    found = torch.autograd.grad(loss(), list(weights.values()))
    return dict(zip(weights, found, strict=True))


def against_bptt(
    gradients: Mapping[str, Mapping[str, Tensor]],
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Compare gradients with those of BPTT.

    Parameters
    ----------
    gradients : mapping of str to mapping of str to Tensor
        For each method, the gradient of each weight.

    Returns
    -------
    tuple of dict of str to list of float
        For each method but BPTT, the cosine similarity of each weight's gradient, and the ratio of the norms.
    """
    exact = gradients["bptt"]
    cosines, ratios = {}, {}
    for method, own in gradients.items():
        if method == "bptt":
            continue
        cosines[method] = [cosine(gradient, exact[name]) for name, gradient in own.items()]
        ratios[method] = [float(gradient.norm() / exact[name].norm()) for name, gradient in own.items()]
    return cosines, ratios
