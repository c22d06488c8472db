"""Witnesses for any neuron, made from its step in plain operators (`neuron_examples`).

The step works on NumPy arrays, where its bits are the contract of the forward pass, and on torch tensors in
float64, where autograd of the unrolled graph is the witness of all three methods. With `detach_reset` the
spikes are detached from everything that a later step reads, which is SLAYER. Each gradient comes with its
magnitude, which tolerances are relative to (compare.py).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import exodus_core as ec
from neuron_examples import EXAMPLES, SCALARS
from oracle import Gradients, sum_to
from unrolled import _Spike as Spike

OPTIONS = frozenset(option for example in EXAMPLES.values() for option in example.options)


@dataclass
class Model:
    """A neuron of the package by name, with its keywords. Arrays broadcast against the lanes.

    The keywords of an SRM are flat: {"epsilon": "Alpha", "epsilon.tau": 5.0, ...}.
    """

    name: str
    keywords: dict[str, Any] = field(default_factory=dict)

    def names(self):
        """The parameters that get a gradient. The gain "1-alpha" has none of its own."""
        return [k for k, v in self.keywords.items() if k not in OPTIONS and not isinstance(v, str)]

    @property
    def fires(self):
        """Whether it has spikes."""
        return SCALARS[self.name]._fires

    def neuron(self):
        """The package's descriptor."""
        values = dict(self.keywords)
        for role in ("epsilon", "nu"):
            if role in values:
                own = {k: values.pop(k) for k in list(values) if k.startswith(f"{role}.")}
                kind = getattr(ec.kernel, values[role])
                values[role] = kind(**{k.removeprefix(f"{role}."): v for k, v in own.items()})
        return getattr(ec, self.name)(**values)


STEPS = {name: example.step for name, example in EXAMPLES.items()}
LEADING = {"taps": 1, "A": 2, "b": 1, "r": 1}  # the number of axes in front of the neurons'


def _recursion(model, p, decay):
    """Replace the parameters of alpha kernels by the coefficients of their recursion, using `decay`."""
    p = dict(p)
    for role in ("epsilon", "nu"):
        if f"{role}.tau" in p:
            tau, scale = p.pop(f"{role}.tau"), p.pop(f"{role}.scale")
            p[f"{role}.a"] = decay(1.0, tau)
            p[f"{role}.w"] = scale * (np.e / tau) * p[f"{role}.a"]
    return p


def _with_gain(model, p, default):
    """The parameters with the gain, which may be 1 - alpha. An SRM reads none."""
    follows = isinstance(model.keywords.get("gain"), str)
    return {"gain": default} | p | ({"gain": 1.0 - p["alpha"]} if follows else {})


def _decay_in_use(dt, tau):
    """The package's decay, since bits depend on it. test_decays_have_the_same_bits tests its values."""
    return ec.ExpLeak(tau=tau, dt=dt).decays["alpha"]


def _torch_decay(dt, tau):
    """The decay for gradients, whose tolerances are wider than the last bit."""
    return torch.exp(-dt / tau)


def recurrent_current(spikes, weights):
    """s W in the order of the contract: starting at 0, over the neurons that fired, in ascending order."""
    total = np.zeros_like(spikes)
    for j in np.flatnonzero(spikes.reshape(-1, len(weights)).any(0)):
        count = spikes[..., j, None]
        np.add(total, count * weights[j], out=total, where=count != 0)
    return total


def forward(model, current, state, recurrent=None):
    """(potential, spikes, final state) in the dtype of `current`, with time on the first axis.

    With recurrent weights the neurons are on the last axis.
    """
    dtype = current.dtype
    p = {k: np.asarray(model.keywords[k], np.float64) for k in model.names()}
    p = _with_gain(model, _recursion(model, p, _decay_in_use), 1.0)
    p = {k: np.asarray(v, dtype) for k, v in p.items()}
    most = model.keywords.get("max_spikes", 1)

    def fire(x):
        count = np.floor(x / p["threshold"])
        count = np.minimum(count, np.inf if most is None else most)
        return np.where(x >= p["threshold"], count, 0).astype(dtype)

    potential, spikes = np.empty_like(current), np.empty_like(current)
    with np.errstate(all="ignore"):
        for n, a in enumerate(current):
            if recurrent is not None:
                a = a + recurrent_current(state[1], recurrent)
            state = STEPS[model.name](np.where, p, model.keywords, state, a, fire, False)
            potential[n], spikes[n] = state[0], state[1] if model.fires else 0
    return potential, spikes, state


def unroll(model, surrogate, current, initial, seeds, *, detach_reset=False, recurrent=None):
    """Gradients of sum(seeds * results) by torch autograd in float64, and their magnitudes.

    `seeds` is (dL/ds, dL/du, dL/d final state), with None for zero. `surrogate(x, threshold)` works on NumPy
    arrays. The gradient of recurrent weights is in the parameters, with the name "recurrent".
    """
    # There is a leaf for each parameter (or tap), step and lane. Its gradient is a term of the parameter's.
    a, *state = (_leaf(x) for x in (current, *initial))
    first = list(state)
    lanes = a.shape[1:]
    leaves = {k: _leaf(_spread(k, model.keywords[k], a.shape)) for k in model.names()}
    if recurrent is not None:  # a leaf for each step, batch entry and weight
        entries = (*a.shape[:-1], *recurrent.shape)
        leaves["recurrent"] = _leaf(np.broadcast_to(recurrent, entries))
    # Unbind once: the gradient of each v[n] would be as large as the whole leaf.
    at_step = {k: v.unbind() for k, v in leaves.items()}
    p: dict[str, Any] = {}
    most = model.keywords.get("max_spikes", 1)
    most = torch.inf if most is None else most

    def fire(x):
        h = surrogate(x.detach().numpy(), p["threshold"].detach().numpy())
        return Spike.apply(x, p["threshold"], torch.tensor(np.broadcast_to(h, lanes).copy()), most)

    all_u, all_s = [], []
    numbers: list[dict[str, torch.Tensor]] = []
    for n, x in enumerate(a):
        p.update(_recursion(model, {k: v[n] for k, v in at_step.items()}, _torch_decay))
        numbers.append({k: v for k, v in p.items() if k.endswith((".a", ".w"))})
        for number in numbers[-1].values():
            number.retain_grad()
        p.update(_with_gain(model, p, torch.ones(lanes, dtype=torch.float64)))
        before = [*state]
        if model.fires and detach_reset:
            before[1] = before[1].detach()
        if recurrent is not None:  # outside of detach_reset: a synapse is no reset
            x = x + torch.einsum("...j,...jk->...k", state[1], p.pop("recurrent"))
        state = STEPS[model.name](torch.where, p, model.keywords, before, x, fire, True)
        all_u.append(state[0])
        all_s.append(state[1] if model.fires else torch.zeros(lanes, dtype=torch.float64))
    results = [torch.stack(all_s), torch.stack(all_u), *state]
    wanted = [*seeds[:2], *(seeds[2] or [None] * len(state))]
    loss = sum(torch.sum(torch.tensor(g) * x) for g, x in zip(wanted, results, strict=True) if g is not None)
    (loss + 0.0 * sum(x.sum() for x in results)).backward()
    terms = {k: _grad(v) for k, v in leaves.items()}
    shapes = {k: np.shape(recurrent if k == "recurrent" else model.keywords[k]) for k in leaves}
    expected = Gradients(
        _grad(a), tuple(map(_grad, first)), {k: _gather(k, v.sum(0), shapes[k]) for k, v in terms.items()}
    )
    lane = np.max([_largest(x, lanes) for x in (expected.current, *expected.state)], axis=0)
    # The seeds' terms may cancel. Then their sum has the rounding errors of the terms, some 1e-16 of the
    # seeds. The smallest tolerance, 1e-12 of the lane, must allow for these.
    lane = np.maximum(lane, 1e-3 * np.max([_largest(g, lanes) for g in wanted if g is not None], axis=0))
    sizes = {k: _gather(k, np.abs(v).sum(0), shapes[k]) for k, v in terms.items()}
    if recurrent is not None:  # A term is a spike times the gradient of a current, which may cancel.
        before = np.abs([first[1].detach().numpy(), *(s.detach().numpy() for s in all_s[:-1])])
        spikes = before.sum(0).reshape(-1, len(recurrent))
        sizes["recurrent"] = spikes.T @ lane.reshape(-1, len(recurrent))
    for name in (k for k in leaves if k.endswith(".tau")):
        # tau acts through two coefficients of the recursion, whose contributions may cancel.
        role, tau = name.split(".")[0], np.asarray(model.keywords[name])
        parts = sum(np.abs(_part(step, role, tau)) for step in numbers)
        sizes[name] = sum_to(np.broadcast_to(parts, lanes), shapes[name])
    return expected, Gradients(lane[None], (lane,) * len(first), sizes)


def _part(numbers, role, tau):
    """|dL/dp dp/dtau| + |dL/dw dw/dtau| of a step, with p = e^(-1/tau) and w = scale e/tau."""
    a, w = numbers[f"{role}.a"], numbers[f"{role}.w"]
    through = [_grad(a) * a.detach().numpy() / tau**2, _grad(w) * w.detach().numpy() / tau]
    return np.abs(through[0]) + np.abs(through[1])


def _spread(name, value, shape):
    """Expand a parameter to every step and lane. Taps get the shape (steps, taps, *lanes)."""
    leading, own = _split(name, np.shape(value))
    ones = (1,) * (len(shape) - 1 - len(own))
    return np.broadcast_to(np.reshape(value, (*leading, *ones, *own)), (shape[0], *leading, *shape[1:]))


def _split(name, shape):
    """Split a shape into a parameter's leading axes and those that broadcast against the neurons."""
    count = LEADING.get(name.rpartition(".")[2], 0)
    return shape[:count], shape[count:]


def _gather(name, total, shape):
    """Sum over the lanes into the parameter's shape."""
    leading, own = _split(name, shape)
    ones = (1,) * (total.ndim - len(shape))
    return sum_to(total, (*leading, *ones, *own)).reshape(shape)


def _largest(x, lanes):
    """The largest magnitude of each lane."""
    return np.abs(x).reshape((-1, *lanes)).max(0, initial=0)


def _leaf(value):
    return torch.tensor(np.array(value, np.float64), requires_grad=True)


def _grad(leaf):
    return np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy()
