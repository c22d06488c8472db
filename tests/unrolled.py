"""Torch autograd through the unrolled step function in float64: the witness of the chain rule.

The step is written out in the neuron's own formulas. Only the spike has a custom gradient: the surrogate h
for u, and -h for the threshold. Autograd of this graph is the definition of backpropagation through time.
`detach_reset=True` detaches the spikes of the reset, which is SLAYER.
"""

import numpy as np
import torch

from oracle import Gradients


class _Spike(torch.autograd.Function):
    """The spike function forward; backward the surrogate h, which was evaluated at u before."""

    @staticmethod
    def forward(ctx, u, threshold, h, max_spikes):
        ctx.save_for_backward(h)
        count = torch.clamp(torch.floor(u / threshold), max=max_spikes)
        return torch.where(u >= threshold, count, torch.zeros_like(u))

    @staticmethod
    def backward(ctx, grad):
        (h,) = ctx.saved_tensors
        return grad * h, -grad * h, None, None


def gradients(model, surrogate, current, initial, seeds, *, tau=None, detach_reset=False):
    """Gradients of sum(seeds * results), by autograd.

    `surrogate(potential, threshold)` works on NumPy arrays. With `tau`, alpha = exp(-1 / tau), and the
    gradient has the key "tau".
    """
    leaves = _parameters(model, tau)
    a, *state = (torch.tensor(np.float64(x), requires_grad=True) for x in (current, *initial))
    values = _expanded(model, leaves, a.shape[1:])
    all_u, all_s, final = _run(model, surrogate, values, a, state, detach_reset)
    _loss(all_u, all_s, final, seeds).backward()
    fields = state if model.spiking else state[:1]
    parameters = {name: _gradient(leaf) for name, leaf in leaves.items()}
    return Gradients(_gradient(a), tuple(_gradient(x) for x in fields), parameters)


def _parameters(model, tau):
    names = model.given()
    values = {name: getattr(model, name) for name in names}
    if tau is not None:
        del values["alpha"]
        values["tau"] = tau
    return {k: torch.tensor(np.float64(v), requires_grad=True) for k, v in values.items()}


def _expanded(model, leaves, lanes):
    """The parameters of a step as tensors over lanes, attached to their leaves."""
    values = dict(leaves)
    if "tau" in values:
        values["alpha"] = torch.exp(-1.0 / values["tau"])
    values.setdefault("alpha", torch.tensor(np.float64(model.alpha)))
    if isinstance(model.gain, str):
        values["gain"] = 1.0 - values["alpha"]
    if model.spiking:
        values.setdefault("reset_amount", values["threshold"])
    return {name: value.expand(lanes) for name, value in values.items()}


def _run(model, surrogate, values, a, state, detach_reset):
    u, s = state
    all_u, all_s = [], []
    for x in values["gain"] * a:
        u = _membrane(model, values, u, s.detach() if detach_reset else s, x)
        if "v_min" in values:
            # A step at the clamp, equality included, is clipped: v_min gets its gradient.
            u = torch.where(u <= values["v_min"], values["v_min"], u)
        if model.spiking:
            s = _fire(model, surrogate, values, u)
        all_u.append(u)
        all_s.append(s)
    return torch.stack(all_u), torch.stack(all_s), (u, s)


def _membrane(model, values, u, s, x):
    alpha = values["alpha"]
    if not model.spiking or model.reset == "none":
        return (alpha * u) + x
    if model.reset == "zero":
        # 1[s = 0] forward, with the derivative of 1 - s.
        keep = (s == 0).to(u.dtype) - (s - s.detach())
        return (alpha * (u * keep)) + x
    if model.reset_timing == "before_decay":
        return (alpha * (u - (values["reset_amount"] * s))) + x
    return ((alpha * u) + x) - (values["reset_amount"] * s)


def _fire(model, surrogate, values, u):
    threshold = values["threshold"]
    h = surrogate(u.detach().numpy(), threshold.detach().numpy())
    most = torch.inf if model.max_spikes is None else model.max_spikes
    return _Spike.apply(u, threshold, torch.tensor(h), most)


def _loss(all_u, all_s, final, seeds):
    pairs = [(seeds.spikes, all_s), (seeds.potential, all_u)]
    pairs += zip(seeds.state or (), final, strict=False)
    total = sum(torch.sum(torch.tensor(g) * x) for g, x in pairs if g is not None)
    # Attach all results to the loss, so that gradients are zero rather than missing where there is no seed.
    return total + 0.0 * (all_u.sum() + all_s.sum())


def _gradient(leaf):
    return np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy()
