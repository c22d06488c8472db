"""An example of each neuron. The lists of neurons in tests and benchmarks are made of these.

A new neuron needs an entry in EXAMPLES: its values, one step in plain operators, and ranges for random
parameters. The tests then compare it with its unrolled step, in every layout, as a torch layer and on a GPU.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import exodus_core as ec
from exodus_core import kernel


@dataclass(frozen=True)
class Example:
    """A neuron with typical parameters. It fires now and then at inputs around 0.3."""

    keywords: Mapping[str, Any]
    # step(where, p, options, state, a, fire, equal_clips) returns the state after a step, of arrays or
    # tensors. `p` has the parameters; `equal_clips` says whether a potential equal to v_min is clipped.
    step: Callable[..., tuple[Any, ...]]
    # Random parameters come from [low, high]. Those in `optional` are not always given.
    ranges: Mapping[str, tuple[float, float]]
    optional: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    options: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)  # the values of each option
    taus: Mapping[str, Any] = field(default_factory=dict)  # time constants, in place of `without`
    without: tuple[str, ...] = ()
    bits: bool = True  # whether forward has the bits of the step

    def of_taus(self):
        """The keywords, with time constants in place of decays."""
        return {k: v for k, v in self.keywords.items() if k not in self.without} | dict(self.taus)


def _is_tensor(x):
    return hasattr(x, "detach")


def _membrane(p, options, u, s, x):
    amount = p.get("reset_amount", p["threshold"])
    alpha, reset = p.get("alpha", 1), options.get("reset", "subtract")
    if reset == "none":
        return (alpha * u) + x
    if reset == "zero":
        if _is_tensor(s):  # 1[s = 0] forward, and the derivative of 1 - s
            kept = u * ((s == 0) * 1.0 - (s - s.detach()))
        else:
            kept = np.where(s == 0, u, u.dtype.type(0))
        return (alpha * kept) + x
    if options.get("reset_timing") == "before_decay":
        return (alpha * (u - (amount * s))) + x
    return ((alpha * u) + x) - (amount * s)


def _clamp(where, p, u, equal_clips):
    # Written so that NaN passes. Backward, a step at the clamp counts as clipped.
    if "v_min" not in p:
        return u
    return where(u <= p["v_min"] if equal_clips else u < p["v_min"], p["v_min"], u)


def lif(where, p, options, state, a, fire, equal_clips):
    """LIF, and IF, where alpha is 1."""
    u, s = state
    u = _clamp(where, p, _membrane(p, options, u, s, p["gain"] * a), equal_clips)
    return u, fire(u)


def exp_leak(where, p, options, state, a, fire, equal_clips):
    """ExpLeak."""
    (v,) = state
    return ((p["alpha"] * v) + (p["gain"] * a),)


def cuba(where, p, options, state, a, fire, equal_clips):
    """CubaLIF."""
    u, s, i = state
    i = (p["alpha_syn"] * i) + (p["gain"] * a)
    u = _clamp(where, p, _membrane(p, options, u, s, i), equal_clips)
    return u, fire(u), i


def alif(where, p, options, state, a, fire, equal_clips):
    """ALIF."""
    u, s, b = state
    b = (p["alpha_adapt"] * b) + (p["adapt_scale"] * s)
    u = ((p["alpha"] * u) + (p["gain"] * a)) - (p["threshold"] * s)
    u = _clamp(where, p, u, equal_clips)
    return u, fire(u - b), b


def _advance(kind, p, role, x, y, given):
    """The state of a kernel after a step, and its output."""
    own = {k.removeprefix(f"{role}."): v for k, v in p.items() if k.startswith(f"{role}.")}
    if kind == "Exponential":
        x = (own["alpha"] * x) + given
        return x, x, own["scale"] * x
    if kind == "DoubleExponential":
        x = (own["alpha"] * x) + given
        y = (own["beta"] * y) + x
        return x, y, own["scale"] * y
    if kind == "FIR":
        inputs = [given, *x]  # x has the earlier ones, newest first
        terms = list(zip(own["taps"], inputs, strict=True))
        total = given - given  # +0; 0 * given may be -0
        for tap, one in terms if role == "epsilon" else terms[::-1]:  # `nu` adds the oldest spike first
            total = total + (tap * one)
        return (x if len(x) == 0 else _stack(inputs[:-1])), y, total
    y, x = (own["a"] * y) + x, (own["a"] * x) + given
    return x, y, own["w"] * y


def _stack(arrays):
    if not _is_tensor(arrays[0]):
        return np.stack(arrays)
    import torch

    return torch.stack(arrays)


def srm(where, p, options, state, a, fire, equal_clips):
    """SRM. The parameters of its kernels have the role in their names."""
    _, s, ex, ey, nx, ny = state
    ex, ey, z = _advance(options["epsilon"], p, "epsilon", ex, ey, a)
    nx, ny, r = _advance(options["nu"], p, "nu", nx, ny, s)
    u = z + r
    return u, fire(u), ex, ey, nx, ny


def state_space(where, p, options, state, a, fire, equal_clips):
    """StateSpace."""
    u, s, v = state
    (A00, A01), (A10, A11) = p["A"]
    (b0, b1), (r0, r1) = p["b"], p["r"]
    if options.get("reset") == "zero":
        u = u * (1 - s) if _is_tensor(s) else np.where(s > 0, u.dtype.type(0), u)
    x0 = (((A00 * u) + (A01 * v)) + (b0 * a)) + (r0 * s)
    x1 = (((A10 * u) + (A11 * v)) + (b1 * a)) + (r1 * s)
    return x0, fire(x0), x1


def ad_lif(where, p, options, state, a, fire, equal_clips):
    """AdLIF, as the papers print it.

    The adaptation comes first in Bittar and Garner 2022, (2) to (4), as sparch computes them. In SE-adLIF
    (Baronig et al. 2025) it follows the new potential, after the reset.
    """
    u, s, w = state
    alpha, beta = p["alpha"], p["alpha_adapt"]
    if options.get("order") == "symplectic":
        u = u * (1 - s)
        w = beta * w + (1 - beta) * (p["coupling"] * u + p["adapt_scale"] * s)
        u = alpha * u + (1 - alpha) * (a - w)
        return u, fire(u), w
    w = beta * w + p["coupling"] * u + p["adapt_scale"] * s
    u = alpha * (u - p["threshold"] * s) + (1 - alpha) * (a - w)
    return u, fire(u), w


def resonate_and_fire(where, p, options, state, a, fire, equal_clips):
    """ResonateAndFire (Izhikevich 2001) in discrete time: a damped rotation, the input, and the reset."""
    firing, s, other = state
    on_real = options.get("fires_on", "real") == "real"
    z = firing + 1j * other if on_real else other + 1j * firing
    rotation = 1j * p["frequency"]
    turned = p["decay"] * (rotation.exp() if _is_tensor(rotation) else np.exp(rotation)) * z
    z = turned + a - (1.0 if on_real else 1j) * p["threshold"] * s
    u, other = (z.real, z.imag) if on_real else (z.imag, z.real)
    return u, fire(u), other


_DECAY, _THRESHOLD, _GAIN = (0.0, 1.0), (0.5, 2.0), (-2.0, 2.0)
_RESETS = {"reset": ("subtract", "zero", "none"), "reset_timing": ("after_decay", "before_decay")}
_SPIKES = {"max_spikes": (1, 2, None)}
_CLAMP = {"v_min": (-1.0, 0.3)}
_CLAMP_AND_AMOUNT = _CLAMP | {"reset_amount": (0.2, 1.5)}  # reset_amount only with reset="subtract"
_KERNELS = ("Alpha", "DoubleExponential", "Exponential", "FIR")

EXAMPLES = {
    "LIF": Example(
        {"alpha": 0.9, "threshold": 0.8, "gain": 1.2},
        lif,
        ranges={"alpha": _DECAY, "threshold": _THRESHOLD, "gain": _GAIN},
        optional=_CLAMP_AND_AMOUNT,
        options=_RESETS | _SPIKES,
        taus={"tau": 9.0},
        without=("alpha",),
    ),
    "IF": Example(
        {"threshold": 0.9, "gain": 0.7},
        lif,
        ranges={"threshold": _THRESHOLD, "gain": _GAIN},
        optional=_CLAMP_AND_AMOUNT,
        options=_RESETS | _SPIKES,
    ),
    "CubaLIF": Example(
        {"alpha": 0.9, "alpha_syn": 0.7, "threshold": 0.8, "gain": 1.2},
        cuba,
        ranges={"alpha": _DECAY, "alpha_syn": _DECAY, "threshold": _THRESHOLD, "gain": _GAIN},
        optional=_CLAMP_AND_AMOUNT,
        options=_RESETS | _SPIKES,
        taus={"tau": 9.0, "tau_syn": 4.0},
        without=("alpha", "alpha_syn"),
    ),
    "ALIF": Example(
        {"alpha": 0.9, "alpha_adapt": 0.95, "adapt_scale": 0.3, "threshold": 0.8, "gain": 0.9},
        alif,
        ranges={
            **{"alpha": _DECAY, "alpha_adapt": _DECAY, "adapt_scale": (-0.2, 1.0)},
            **{"threshold": _THRESHOLD, "gain": _GAIN},
        },
        optional=_CLAMP,
        taus={"tau": 9.0, "tau_adapt": 20.0},
        without=("alpha", "alpha_adapt"),
    ),
    "SRM": Example(
        {
            "epsilon": kernel.Alpha(tau=4.0, scale=1.1),
            "nu": kernel.DoubleExponential(0.8, 0.6, scale=-0.7),
            "threshold": 0.8,
        },
        srm,
        ranges={"threshold": _THRESHOLD},
        options={"epsilon": _KERNELS, "nu": _KERNELS} | _SPIKES,
    ),
    "ExpLeak": Example(
        {"alpha": 0.9, "gain": 1.2},
        exp_leak,
        ranges={"alpha": _DECAY, "gain": _GAIN},
        taus={"tau": 9.0},
        without=("alpha",),
    ),
    "StateSpace": Example(
        {"A": [[0.9, -0.3], [0.25, 0.85]], "b": [0.8, 0.3], "r": [-0.7, 0.4], "threshold": 0.8},
        state_space,
        ranges={"A": (-1.0, 1.0), "b": (-1.0, 1.0), "r": (-1.0, 1.0), "threshold": _THRESHOLD},
        options={"reset": ("subtract", "zero")},
    ),
    "AdLIF": Example(
        {"alpha": 0.8, "alpha_adapt": 0.9, "coupling": 0.6, "adapt_scale": 0.7, "threshold": 0.1},
        ad_lif,
        ranges={
            **{"alpha": _DECAY, "alpha_adapt": _DECAY, "coupling": (0.0, 1.0), "adapt_scale": (0.0, 1.0)},
            "threshold": (0.1, 0.5),
        },
        options={"order": ("adaptation_first", "symplectic")},
        taus={"tau": 5.0, "tau_adapt": 9.0},
        without=("alpha", "alpha_adapt"),
        bits=False,  # The kernel computes with a matrix instead.
    ),
    "ResonateAndFire": Example(
        {"decay": 0.93, "frequency": 0.5, "threshold": 0.5},
        resonate_and_fire,
        ranges={"decay": _DECAY, "frequency": (-3.0, 3.0), "threshold": _THRESHOLD},
        options={"fires_on": ("real", "imaginary")},
        taus={"tau": 9.0},
        without=("decay",),
        bits=False,
    ),
}

# Neurons with scalar parameters, and neurons with time constants.
SCALARS = {name: getattr(ec, name)(**example.keywords) for name, example in EXAMPLES.items()}
TAUS = {f"{name} of taus": getattr(ec, name)(**e.of_taus()) for name, e in EXAMPLES.items() if e.taus}
FIRING = [name for name, neuron in SCALARS.items() if neuron._fires]


def per_neuron(name, lanes, seed=0):
    """An example with arrays near its values: one value per neuron, or per neuron of the last axis."""
    neuron, draw = SCALARS[name], np.random.default_rng(seed)
    values = {}
    for k, own in enumerate(neuron._parameter_names()):
        value = np.array(neuron._value_of(own), np.float64)
        leading = value.shape[: len(neuron._leading_lengths(own))]
        shape = lanes if k % 2 == 0 else lanes[-1:]
        ones = (1,) * len(shape)
        values[own] = value.reshape(*leading, *ones) * draw.uniform(0.9, 1.05, (*leading, *shape))
    return neuron._with(values)
