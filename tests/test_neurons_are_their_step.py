"""Every neuron computes its step, written out in plain operators, and its gradients are those of autograd.

Property: forward has the bits of the step in NumPy, or its values to 1e-12 for neurons that compute with a
matrix. In float64 EXODUS and BPTT give the gradients of autograd of the unrolled step, to 1e-10 of the lane's
largest and to 1e-12 of each other, for every parameter, state, loss and reset. SLAYER gives those of autograd
with spikes detached. Witness: `stepwise`, with the steps of `neuron_examples`.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import exodus_core as ec
from cases import SURROGATES, _parameter
from compare import assert_gradients_match, assert_same_bits
from drive import METHODS, surrogate_of
from neuron_examples import EXAMPLES, SCALARS

stepwise = pytest.importorskip("stepwise", reason="needs torch")
Model = stepwise.Model

KERNELS = {
    "Exponential": ("alpha",),
    "DoubleExponential": ("alpha", "beta"),
    "Alpha": ("tau",),
    "FIR": (),
}


@st.composite
def _taps(draw, lanes):
    """One tap or many, even more than steps, shared or per lane. They may make the potential grow."""
    one = draw(_parameter(lanes, -1.5, 1.5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    fading = rng.normal(size=draw(st.integers(1, 60))) * rng.uniform(0.7, 1.05)
    return np.multiply.outer(fading, one)


@st.composite
def _kernel(draw, role, kind, lanes):
    """The parameters of a kernel, with the role in their names."""
    if kind == "FIR":
        return {f"{role}.taps": draw(_taps(lanes))}
    ranges = {name: (0.3, 20.0) if name == "tau" else (0.0, 1.0) for name in KERNELS[kind]}
    return {f"{role}.{k}": draw(_parameter(lanes, *r)) for k, r in (ranges | {"scale": (-1.5, 1.5)}).items()}


@st.composite
def _value(draw, name, lanes, low, high):
    """A parameter. If it has leading axes, its entries differ and have the same shape."""
    if name not in stepwise.LEADING:
        return draw(_parameter(lanes, low, high))
    one = np.asarray(draw(_parameter(lanes, 0.7 * low, 0.7 * high)))
    shape = (2,) * stepwise.LEADING[name]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return np.multiply.outer(rng.uniform(low, high, shape), np.ones_like(one)) + 0.3 * one


@st.composite
def models(draw, lanes, name):
    """An example with random values, which broadcast against `lanes`."""
    example = EXAMPLES[name]
    values = {option: draw(st.sampled_from(choices)) for option, choices in example.options.items()}
    for role in ("epsilon", "nu"):
        if role in values:
            values |= draw(_kernel(role, values[role], lanes))
    optional = dict(example.optional)
    if values.get("reset") != "subtract":
        optional.pop("reset_amount", None)
    chosen = {k: limits for k, limits in optional.items() if draw(st.booleans())}
    for k, (low, high) in (dict(example.ranges) | chosen).items():
        values[k] = draw(_value(k, lanes, low, high))
    if SCALARS[name]._gain_may_follow and draw(st.booleans()):
        values["gain"] = "1-alpha"
    return Model(name, values)


@st.composite
def problems(draw, name):
    """A model, a current, an initial state, seeds, some of which are missing, and a surrogate."""
    lanes = draw(st.sampled_from(((1,), (3,), (2, 3))))
    model = draw(models(lanes, name))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    current = rng.normal(0.3, 0.8, (draw(st.integers(1, 40)), *lanes))
    neuron = model.neuron()
    leading = neuron._values_per_neuron()
    state = [rng.normal(0.1, 0.3, (*leading.get(field, ()), *lanes)) for field in neuron._state._fields]
    if model.fires:
        state[1] = rng.integers(0, 2, lanes).astype(np.float64)
    final = [rng.normal(size=x.shape) if draw(st.booleans()) else None for x in state]
    spikes = rng.normal(size=current.shape) if model.fires else None
    potential = rng.normal(size=current.shape) if not model.fires or draw(st.booleans()) else None
    return model, current, state, (spikes, potential, final), draw(st.sampled_from(SURROGATES))


def assert_forward_is_the_step(model, trace, current, state):
    potential, spikes, final = stepwise.forward(model, current, state)
    pairs = [(trace.potential, potential), *zip(trace.state, final, strict=True)]
    if model.fires:
        assert_same_bits(trace.spikes, spikes, "spikes")
    for found, expected in pairs:
        if EXAMPLES[model.name].bits:
            assert_same_bits(found, expected)
        else:
            scale = np.abs(expected).max(initial=1.0)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("name", EXAMPLES)
@given(data=st.data())
def test_all_methods_are_autograd_of_the_unrolled_step(name, data):
    model, current, state, seeds, surrogate = data.draw(problems(name))
    neuron, (spikes, potential, final) = model.neuron(), seeds
    trace = ec.forward(neuron, current, state=neuron._state(*state))
    assert_forward_is_the_step(model, trace, current, state)
    found = {}
    for method in METHODS:
        found[method] = ec.backward(
            trace,
            spikes,
            grad_potential=potential,
            grad_state=final,
            method=method,
            surrogate=surrogate_of(surrogate),
        )
        expected, magnitude = stepwise.unroll(
            model, surrogate, current, state, seeds, detach_reset=method == "slayer"
        )
        assert_gradients_match(found[method], expected, magnitude, tol=1e-10)
    _, magnitude = stepwise.unroll(model, surrogate, current, state, seeds)
    assert_gradients_match(found["exodus"], found["bptt"], magnitude, tol=1e-12)
