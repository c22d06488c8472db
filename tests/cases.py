"""Hypothesis strategies: a neuron, its data, the incoming gradients and a surrogate.

Problems are plain numbers and know nothing of the package, so that the witnesses can be tested against each
other. Sizes are small, since the oracle solves a dense system per neuron. Other files test extreme sizes and
layouts.
"""

import itertools
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

import oracle
import reference
from oracle import Seeds
from reference import Model, Surrogate

# Peaks near the stability bound h <= (1 + alpha) / reset: gradients neither vanish nor explode.
SURROGATES = (
    reference.surrogate("SingleExponential"),
    reference.surrogate("SingleExponential", width=0.8, scale=1.2),
    reference.surrogate("PeriodicExponential", width=0.7, scale=0.9),
    reference.surrogate("Boxcar", width=1.3),
    reference.surrogate("Triangle", width=1.1),
    reference.surrogate("Gaussian", mean=0.1, sigma=0.6),
    reference.surrogate("MultiGaussian", sigma=0.5),
    reference.surrogate("FastSigmoid", slope=5.0),
    reference.surrogate("ATan"),
    reference.surrogate("Sigmoid", slope=3.0),
    reference.surrogate("StraightThrough", scale=0.7),
)

RESETS = (
    {"reset": "subtract", "reset_timing": "after_decay"},
    {"reset": "subtract", "reset_timing": "before_decay"},
    {"reset": "zero"},
    {"reset": "none"},
)


def every_model(**fields):
    """One model for each combination of reset, timing, clamp and max_spikes, with scalar parameters."""
    models = []
    for reset, v_min, most in itertools.product(RESETS, (None, -0.2), (1, 3, None)):
        values = {"alpha": 0.9, "threshold": 0.8, **reset, "v_min": v_min, "max_spikes": most}
        models.append(Model(**{**values, **fields}))
    return models


def name_of(model):
    """The test id of a model."""
    words = [model.reset]
    words += ["before_decay"] if model.reset_timing == "before_decay" else []
    words += ["clamp"] if model.v_min is not None else []
    words += [] if model.max_spikes == 1 else [f"max_spikes={model.max_spikes}"]
    return "-".join(words)


class Problem(NamedTuple):
    """A model, its data with time first, the incoming gradients, and a surrogate."""

    model: Model
    current: np.ndarray
    potential: np.ndarray
    spikes: np.ndarray
    seeds: Seeds
    surrogate: Surrogate

    def run(self):
        """Run the reference's forward pass."""
        return reference.forward(self.model, self.current, potential=self.potential, spikes=self.spikes)

    def expected(self, run=None, *, detach_reset=False):
        """The oracle's gradients of a run, and the magnitudes that tolerances are relative to."""
        run = self.run() if run is None else run
        h = surrogate_values(self.surrogate, run)
        return oracle.linear_system(run, h, self.seeds, detach_reset=detach_reset)


def surrogate_values(surrogate, run):
    """h at every step of a run, in float64; zero for a neuron that does not spike."""
    if not run.model.spiking:
        return np.zeros(run.current.shape)
    threshold = reference.rounded(run.model, run.current.dtype).threshold
    return np.broadcast_to(surrogate(run.potential, threshold), run.current.shape)


def random_problem(model, seed=0, *, steps=20, lanes=(3, 2), dtype=np.float64, surrogate=None):
    """A reproducible problem with spikes, and with a gradient for each result."""
    rng = np.random.default_rng(seed)
    shape = (steps, *lanes)
    current = rng.normal(0.3, 0.8, shape).astype(dtype)
    potential = rng.normal(0.2, 0.4, lanes).astype(dtype)
    spikes = rng.integers(0, 2, lanes).astype(dtype)
    state = (rng.normal(size=lanes).astype(dtype), rng.normal(size=lanes).astype(dtype))
    e, q = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    if not model.spiking:
        e, state = None, state[:1]
    seeds = Seeds(e, q, state)
    return Problem(model, current, potential, spikes, seeds, surrogate or SURROGATES[0])


@st.composite
def models(draw, lanes, resets=RESETS, clamped=None):
    """Any LIF or ExpLeak, with parameters that broadcast against `lanes`."""
    values = dict(draw(st.sampled_from(resets)))
    values["alpha"] = draw(_parameter(lanes, 0.0, 1.0))
    values["gain"] = draw(st.one_of(_parameter(lanes, -2.0, 2.0), st.just("1-alpha")))
    if draw(st.integers(0, 9)) == 0:
        return Model(alpha=values["alpha"], gain=values["gain"], spiking=False)
    values["threshold"] = draw(_parameter(lanes, 0.5, 2.0))
    if values["reset"] == "subtract" and draw(st.booleans()):
        values["reset_amount"] = draw(_parameter(lanes, 0.2, 1.5))
    if draw(st.booleans()) if clamped is None else clamped:
        values["v_min"] = draw(_parameter(lanes, -1.0, 0.3))
    values["max_spikes"] = draw(st.sampled_from((1, 2, 3, None)))
    return Model(**values)


@st.composite
def _parameter(draw, lanes, low, high):
    """A number in [low, high], or an array in one of the shapes that broadcast against `lanes`."""
    # Without -0: sums begin with +0, so the sign of a sum of zeros is not that of the step.
    numbers = st.floats(low, high, allow_subnormal=False).map(lambda number: number + 0.0)
    if draw(st.booleans()):
        return draw(numbers)
    ones = draw(st.tuples(*(st.booleans() for _ in lanes)))
    shape = tuple(1 if one else size for one, size in zip(ones, lanes, strict=True))
    shape = shape[draw(st.integers(0, len(lanes))) :]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng.uniform(low, high, shape)


@st.composite
def problems(draw, **fields):
    """A problem with up to 30 steps, few neurons and a non-zero initial state."""
    lanes = draw(st.sampled_from(((1,), (2,), (2, 3), (1, 2, 2))))
    model = draw(models(lanes, **fields))
    steps = draw(st.integers(1, 30))
    made = random_problem(model, draw(st.integers(0, 2**32)), steps=steps, lanes=lanes)
    drive = draw(st.sampled_from((0.3, 1.0, 3.0)))
    seeds = made.seeds
    if model.spiking and draw(st.booleans()):
        seeds = seeds._replace(potential=None)
    if draw(st.booleans()):
        kept = draw(st.tuples(*(st.booleans() for _ in seeds.state)))
        pairs = zip(seeds.state, kept, strict=True)
        seeds = seeds._replace(state=tuple(x if keep else None for x, keep in pairs))
    else:
        seeds = seeds._replace(state=None)
    surrogate = draw(st.sampled_from(SURROGATES))
    return made._replace(current=drive * made.current, seeds=seeds, surrogate=surrogate)
