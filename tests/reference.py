"""The witness of the forward pass and of the surrogates: slow NumPy code.

The order of operations is part of the contract, since a spike depends on the last bit. So each line below is
one formula of the documentation, evaluated in the dtype of the data. Parameters are rounded to this dtype
first: a NumPy float64 scalar would promote a float32 array to float64.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


@dataclass(frozen=True)
class Model:
    """A neuron in plain numbers, for the witnesses. The fields are those of `LIF`."""

    alpha: Any = 1.0
    threshold: Any = 1.0
    gain: Any = 1.0
    reset: str = "subtract"
    reset_amount: Any = None
    reset_timing: str = "after_decay"
    v_min: Any = None
    max_spikes: int | None = 1
    spiking: bool = True

    def keywords(self):
        """The keyword arguments that build the same neuron with `LIF` (or `ExpLeak`)."""
        names = ["alpha", "gain"]
        if self.spiking:
            names += ["threshold", "reset", "reset_amount", "reset_timing", "v_min", "max_spikes"]
        return {name: getattr(self, name) for name in names}

    def given(self):
        """The names of the parameters that get a gradient, in the order of `LIF`'s signature."""
        names = ("alpha", "threshold", "gain", "reset_amount", "v_min")
        values = {name: getattr(self, name) for name in names}
        if not self.spiking:
            values.pop("threshold")
        return [name for name, value in values.items() if not isinstance(value, str | None)]


class Rounded(NamedTuple):
    """A model's parameters in the arithmetic dtype. A spike subtracts `amount`."""

    alpha: np.ndarray
    threshold: np.ndarray
    gain: np.ndarray
    amount: np.ndarray
    v_min: np.ndarray | None
    max_spikes: float


class Run(NamedTuple):
    """One forward call: arrays with time first, states without it."""

    model: Model
    current: np.ndarray
    spikes: np.ndarray
    potential: np.ndarray
    initial_potential: np.ndarray
    initial_spikes: np.ndarray


def rounded(model, dtype):
    """Round a model's parameters to a dtype. The gain "1-alpha" is computed in double first."""
    gain = 1.0 - np.float64(model.alpha) if isinstance(model.gain, str) else model.gain
    amount = model.threshold if model.reset_amount is None else model.reset_amount
    v_min = None if model.v_min is None else np.asarray(model.v_min, dtype)
    most = np.inf if model.max_spikes is None else model.max_spikes
    values = (np.asarray(value, dtype) for value in (model.alpha, model.threshold, gain, amount))
    return Rounded(*values, v_min, np.dtype(dtype).type(most))


def forward(model, current, *, potential=0.0, spikes=0.0):
    """Run `model` over `current`, whose first axis is time, from the given initial state."""
    p = rounded(model, current.dtype)
    shape = current.shape[1:]
    u = initial_u = np.broadcast_to(np.asarray(potential, current.dtype), shape)
    s = initial_s = np.broadcast_to(np.asarray(spikes, current.dtype), shape)
    all_u, all_s = np.empty(current.shape, u.dtype), np.empty(current.shape, u.dtype)
    with np.errstate(all="ignore"):
        for n in range(len(current)):
            u = membrane(model, p, u, s, current[n])
            s = fire(p, u) if model.spiking else s
            all_u[n], all_s[n] = u, s
    return Run(model, current, all_s, all_u, initial_u, initial_s)


def membrane(model, p, u, s, a):
    """The potential before its reset, from the potential and the spikes of the step before."""
    x = p.gain * a
    if not model.spiking or model.reset == "none":
        u = (p.alpha * u) + x
    elif model.reset == "zero":
        u = (p.alpha * np.where(s > 0, u.dtype.type(0), u)) + x
    elif model.reset_timing == "before_decay":
        u = (p.alpha * (u - (p.amount * s))) + x
    else:
        u = ((p.alpha * u) + x) - (p.amount * s)
    # Written so that NaN passes: it is not below v_min.
    return u if p.v_min is None else np.where(u < p.v_min, p.v_min, u)


def fire(p, u):
    """The spikes of a step. Several are counted by IEEE division, which `//` does not always equal."""
    fires = u >= p.threshold
    if p.max_spikes == 1:
        return fires.astype(u.dtype)
    count = np.minimum(np.floor(u / p.threshold), p.max_spikes)
    return np.where(fires, count, u.dtype.type(0))


@dataclass(frozen=True)
class Surrogate:
    """The formula of a built-in surrogate, as its documentation gives it."""

    name: str
    keywords: tuple = ()

    def __call__(self, potential, threshold):
        with np.errstate(all="ignore"):
            u, th = np.asarray(potential, np.float64), np.asarray(threshold, np.float64)
            return _FORMULAS[self.name](u, th, **dict(self.keywords))


def surrogate(name, **keywords):
    """The witness of `exodus_core.surrogate.<name>(**keywords)`."""
    return Surrogate(name, tuple(keywords.items()))


def _single_exponential(u, th, width=0.5, scale=0.5):
    return scale * np.exp(-np.abs(u - th) / (width * th)) / (width * th)


def _periodic_exponential(u, th, width=0.5, scale=1.0):
    turns = u / th - 0.5
    y = np.where(u < th, u - th, th * (2 * (turns - np.floor(turns)) - 1))
    return scale * np.exp(-np.abs(y) / width)


def _boxcar(u, th, width=1.0, scale=1.0):
    return scale * np.where(np.abs(u - th) <= width / 2, 1 / width, 0.0)


def _triangle(u, th, width=1.0, scale=1.0):
    return scale * np.maximum(0.0, 1 - np.abs(u - th) / width) / width


def _normal(x, mean, sigma):
    return np.exp(-(((x - mean) / sigma) ** 2) / 2) / (sigma * np.sqrt(2 * np.pi))


def _gaussian(u, th, mean=0.0, sigma=0.5, scale=1.0):
    return scale * _normal(u - th, mean, sigma)


def _multi_gaussian(u, th, sigma=0.5, ratio=0.15, s=6.0, scale=1.0):
    x = u - th
    sides = _normal(x, sigma, s * sigma) + _normal(x, -sigma, s * sigma)
    return scale * ((1 + ratio) * _normal(x, 0.0, sigma) - ratio * sides)


def _fast_sigmoid(u, th, slope=25.0, scale=1.0):
    return scale / (slope * np.abs(u - th) + 1) ** 2


def _atan(u, th, slope=2.0, scale=1.0):
    return scale * (slope / 2) / (1 + (np.pi * slope * (u - th) / 2) ** 2)


def _sigmoid(u, th, slope=4.0, scale=1.0):
    g, rest = (1 / (1 + np.exp(sign * slope * (u - th))) for sign in (-1, 1))  # since 1 - g cancels
    return scale * slope * g * rest


def _straight_through(u, th, scale=1.0):
    return scale * np.ones(np.broadcast_shapes(np.shape(u), np.shape(th)))


_FORMULAS = {
    "SingleExponential": _single_exponential,
    "PeriodicExponential": _periodic_exponential,
    "Boxcar": _boxcar,
    "Triangle": _triangle,
    "Gaussian": _gaussian,
    "MultiGaussian": _multi_gaussian,
    "FastSigmoid": _fast_sigmoid,
    "ATan": _atan,
    "Sigmoid": _sigmoid,
    "StraightThrough": _straight_through,
}
SURROGATE_NAMES = tuple(_FORMULAS)
