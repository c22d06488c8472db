"""Brute-force gradients in float64, by the implicit function theorem with dense matrices.

There are three independent witnesses, and none is a recurrence in the gradient:

* `linear_system` linearises all equations of the neuron and solves them at once:
  dL/dy = (I - G_y)^-T seeds. There is a row for u before the clamp, u and s of each step, and for the
  initial state. It covers all resets, the clamp, losses on potentials and on the final state, and every
  parameter.
* `implicit` computes the paper's Jacobian sigma_m[n] by forward substitution (S9), and contracts it with the
  loss gradient and the response kernel (S16). It covers any pair of kernels, and so the linear resets.
* `zeta` is the closed form of a plain LIF: (S19) with zeta of proposition 3.2.

SLAYER has its own witnesses: the same linear system with the spikes of the reset detached, and `slayer`,
the correlation of h * e with the response kernel.
"""

from typing import NamedTuple

import numpy as np

from reference import rounded


class Seeds(NamedTuple):
    """The incoming gradients: dL/ds, dL/du and those of the final state. None is zero."""

    spikes: np.ndarray | None = None
    potential: np.ndarray | None = None
    state: tuple | None = None

    def whole(self, shape):
        """dL/ds and dL/du over time, with the final state's gradients added at the last step."""
        spikes, potential = (
            np.zeros(shape) if given is None else np.array(given, np.float64)
            for given in (self.spikes, self.potential)
        )
        # The state of an ExpLeak has only the potential.
        for target, final in zip((potential, spikes), self.state or (), strict=False):
            if final is not None:
                target[-1] += final
        return spikes, potential


class Gradients(NamedTuple):
    """The three parts of the result of `backward`, or the magnitudes that tolerances are relative to."""

    current: np.ndarray
    state: tuple
    parameters: dict


class _Lane(NamedTuple):
    """One neuron: its parameters as Python floats, its arrays over time."""

    alpha: float
    threshold: float
    gain: float
    amount: float
    a: np.ndarray
    u: np.ndarray
    s: np.ndarray
    h: np.ndarray
    clipped: np.ndarray


# Rows of the linear system: the initial state, then three unknowns per step.
_U_INIT, _S_INIT = 0, 1


def _rows(n):
    """The rows of step n (u before the clamp, u, s), and those of the u and s that it reads."""
    pre = 2 + 3 * n
    before = (_U_INIT, _S_INIT) if n == 0 else (pre - 2, pre - 1)
    return pre, pre + 1, pre + 2, before


def linear_system(run, h, seeds, *, detach_reset=False):
    """All gradients of a run, and their magnitudes, from the dense system of its equations.

    `h` has the surrogate's value at each step. `detach_reset=True` is SLAYER's definition.
    """
    shape = run.current.shape
    spikes, potential = seeds.whole(shape)
    found = {}
    for index in np.ndindex(shape[1:]):
        lane = _lane(run, h, index)
        at = (slice(None), *index)
        found[index] = _solve_lane(run.model, lane, spikes[at], potential[at], detach_reset)
    return _gather(run, found)


def _lane(run, h, index):
    p = rounded(run.model, run.current.dtype)
    lanes = run.current.shape[1:]
    alpha, threshold, gain, amount = (
        float(np.broadcast_to(value, lanes)[index]) for value in (p.alpha, p.threshold, p.gain, p.amount)
    )
    at = (slice(None), *index)
    a, u, h = (np.asarray(x[at], np.float64) for x in (run.current, run.potential, h))
    clipped = np.zeros(len(a), bool)
    if p.v_min is not None:
        clipped = u == float(np.broadcast_to(p.v_min, lanes)[index])
    u = np.append(np.float64(run.initial_potential[index]), u)
    s = np.append(run.initial_spikes[index], run.spikes[at])
    return _Lane(alpha, threshold, gain, amount, a, u, s, h, clipped)


def _solve_lane(model, lane, grad_spikes, grad_potential, detach_reset):
    """The adjoints of one lane's equations, and for each parameter the terms of its gradient."""
    steps = len(lane.a)
    size = 2 + 3 * steps
    jacobian, seed = np.eye(size), np.zeros(size)
    for n in range(steps):
        pre, u, s, (u_before, s_before) = _rows(n)
        decay, reset = _feedback(model, lane, n)
        jacobian[pre, u_before] -= decay
        jacobian[pre, s_before] -= 0.0 if detach_reset else reset
        jacobian[u, pre] -= 0.0 if lane.clipped[n] else 1.0
        jacobian[s, u] -= lane.h[n]
        seed[u], seed[s] = grad_potential[n], grad_spikes[n]
    adjoint = np.linalg.solve(jacobian.T, seed)
    terms = {name: adjoint * column for name, column in _direct(model, lane).items()}
    return adjoint, np.abs(jacobian.T), terms


def _feedback(model, lane, n):
    """The derivatives of u[n] before the clamp by u[n-1] and s[n-1] (arrays are shifted by one)."""
    u, s = lane.u[n], lane.s[n]
    if not model.spiking or model.reset == "none":
        return lane.alpha, 0.0
    if model.reset == "zero":
        return (0.0 if s > 0 else lane.alpha), -lane.alpha * u
    before = model.reset_timing == "before_decay"
    return lane.alpha, -lane.amount * (lane.alpha if before else 1.0)


def _direct(model, lane):
    """The derivatives of all equations with respect to each parameter, in one column per parameter."""
    u, s = lane.u[:-1], lane.s[:-1]
    before = model.reset_timing == "before_decay"
    subtracts = model.spiking and model.reset == "subtract"
    columns = {"gain": _column(lane, pre=lane.a)}
    amount = _column(lane, pre=-s * (lane.alpha if before else 1.0))
    decays = u
    if subtracts and before:
        decays = u - lane.amount * s
    elif model.spiking and model.reset == "zero":
        decays = np.where(s > 0, 0.0, u)
    columns["alpha"] = _column(lane, pre=decays)
    columns["threshold"] = _column(lane, s=-lane.h)
    columns["v_min"] = _column(lane, u=lane.clipped)
    if subtracts:
        columns["reset_amount"] = amount
    return columns


def _column(lane, pre=None, u=None, s=None):
    column = np.zeros(2 + 3 * len(lane.a))
    for offset, values in enumerate((pre, u, s)):
        if values is not None:
            column[2 + offset :: 3] = values
    return column


def _gather(run, found):
    """Put lanes back into arrays, and sum parameter gradients to their own shapes, with magnitudes."""
    shape = run.current.shape
    gain = np.broadcast_to(rounded(run.model, run.current.dtype).gain, shape[1:])
    current, scale = np.zeros(shape), np.zeros((1, *shape[1:]))
    state, state_scale = np.zeros((2, *shape[1:])), np.zeros((2, *shape[1:]))
    for index, (adjoint, coupling, _) in found.items():
        pre = adjoint[2::3]
        largest = np.max(np.abs(pre))
        current[(slice(None), *index)] = float(gain[index]) * pre
        scale[(0, *index)] = abs(float(gain[index])) * largest
        for i, row in enumerate((_U_INIT, _S_INIT)):
            state[(i, *index)] = adjoint[row]
            state_scale[(i, *index)] = largest * np.sum(coupling[row, 2:])
    fields = 2 if run.model.spiking else 1
    parameters, terms = _gather_parameters(run, found)
    values = Gradients(current, tuple(state[:fields]), parameters)
    return values, Gradients(scale, tuple(state_scale[:fields]), terms)


def _gather_parameters(run, found):
    values, magnitudes = {}, {}
    for name in run.model.given():
        total, size = (np.zeros(run.current.shape[1:]) for _ in range(2))
        for index, (_, _, terms) in found.items():
            for sign, source in _sources(run.model, name):
                total[index] += sign * np.sum(terms[source])
                size[index] += np.sum(np.abs(terms[source]))
        shape = np.shape(getattr(run.model, name))
        values[name], magnitudes[name] = sum_to(total, shape), sum_to(size, shape)
    return values, magnitudes


def _sources(model, name):
    """The terms through which a parameter acts: the threshold may also be the reset amount."""
    sources = [(1.0, name)]
    if name == "alpha" and isinstance(model.gain, str):
        sources.append((-1.0, "gain"))
    subtracts = model.spiking and model.reset == "subtract"
    if name == "threshold" and model.reset_amount is None and subtracts:
        sources.append((1.0, "reset_amount"))
    return sources


def sum_to(array, shape):
    """Sum an array over neurons into a parameter's shape, undoing NumPy's broadcasting."""
    extra = array.ndim - len(shape)
    array = array.sum(axis=tuple(range(extra)))
    ones = tuple(i for i, size in enumerate(shape) if size == 1)
    return array.sum(axis=ones, keepdims=True)


def kernels(model, steps, alpha, amount):
    """Response and reset kernels of an LIF with a linear reset, (S10) and (S11), for one lane."""
    power = alpha ** np.arange(steps)
    scale = {"none": 0.0, "subtract": amount}[model.reset]
    if model.reset_timing == "before_decay":
        scale *= alpha
    return power, -scale * power


def jacobian(h, nu):
    """sigma[m, n] = ds[n]/dz[m] by forward substitution, (S9)."""
    steps = len(h)
    sigma = np.zeros((steps, steps))
    for m in range(steps):
        sigma[m, m] = h[m]
        for n in range(m + 1, steps):
            sigma[m, n] = h[n] * sum(nu[n - 1 - k] * sigma[m, k] for k in range(m, n))
    return sigma


def implicit(h, e, q, eps, nu):
    """dL/da of one lane: the dense Jacobian (S9), contracted by (S16).

    A loss on the potential u[k] = z[k] + sum_j nu[k-1-j] s[j] acts directly and through the spikes.
    """
    steps = len(h)
    on_spikes = e + [sum(nu[k - 1 - j] * q[k] for k in range(j + 1, steps)) for j in range(steps)]
    on_z = q + jacobian(h, nu) @ on_spikes
    return correlate(eps, on_z)


def zeta(h, e, alpha, theta):
    """dL/da of one lane of a plain LIF: (S19), where zeta_n[k] is the product of proposition 3.2."""
    steps = len(h)
    factors = alpha - theta * h
    products = [[np.prod(factors[n:k]) for k in range(n, steps)] for n in range(steps)]
    return np.array([np.sum(e[n:] * h[n:] * products[n]) for n in range(steps)])


def slayer(h, e, q, eps):
    """dL/da of one lane by SLAYER's definition: spikes do not change later potentials."""
    return correlate(eps, q + h * e)


def correlate(eps, values):
    """sum over m >= n of eps[m-n] values[m], for every n."""
    steps = len(values)
    return np.array([np.dot(eps[: steps - n], values[n:]) for n in range(steps)])
