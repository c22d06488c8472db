"""The gradient of a parameter does not depend on which others are wanted, nor on how many values it has.

The kernels sum the terms of the wanted parameters only: those of decays alone, those of decays and threshold,
all but those of v_min, or all. Where all parameters are scalars, other loops sum them.
Properties: whatever is wanted, each gradient has the bits that it has among all, and so has the current's.
The gradient of a scalar is the sum of those of equal values, one for each neuron.
Witnesses: the pass with all parameters, which other tests compare with dense Jacobians and autograd; the
loops for arrays of values.
"""

from itertools import combinations

import numpy as np
import pytest

import exodus_core as ec
from exodus_core import kernel
from neuron_examples import EXAMPLES, SCALARS, TAUS, per_neuron

NEURONS = {
    **SCALARS,
    **TAUS,
    "LIF with a clamp and an amount": ec.LIF(0.9, reset_amount=0.8, v_min=-0.3),
    "LIF with a tied gain": ec.LIF(0.9, gain="1-alpha", reset_timing="before_decay"),
    "LIF reset to zero": ec.LIF(0.9, gain=1.3, reset="zero"),
    "LIF of several spikes": ec.LIF(0.9, threshold=0.4, max_spikes=None),
    "LIF of several spikes reset before the decay": ec.LIF(
        0.9, threshold=0.4, max_spikes=3, reset_timing="before_decay"
    ),
    "LIF of several spikes reset to zero": ec.LIF(0.9, threshold=0.4, max_spikes=3, reset="zero"),
    "CubaLIF with a clamp": ec.CubaLIF(0.9, 0.8, gain=0.7, v_min=-0.3),
    **{f"{name} of each neuron": per_neuron(name, (3, 70)) for name in EXAMPLES},
}


SHAPE = (90, 3, 70)


def arrays(*means_and_deviations):
    rng = np.random.default_rng(0)
    return (rng.normal(mean, deviation, SHAPE).astype(np.float32) for mean, deviation in means_and_deviations)


def backward(trace, seed, **keywords):
    seeds = {"grad_potential": seed} if trace.spikes is None else {"grad_spikes": seed}
    return ec.backward(trace, **seeds, **keywords)


@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.parametrize("method", ["exodus", "slayer", "bptt"])
@pytest.mark.parametrize("layout", ["time first", "time last"])
def test_wanting_fewer_changes_no_bit(name, method, layout):
    neuron, axis = NEURONS[name], 0
    current, seed = arrays((0.2, 0.5), (0, 1))
    if layout == "time last":
        current, seed, axis = (*(np.ascontiguousarray(np.moveaxis(a, 0, 2)) for a in (current, seed)), 2)
    check_fewer(ec.forward(neuron, current, time_axis=axis), seed, method)


RECURRENT = {
    "LIF": ec.LIF(0.9, threshold=0.4),
    "CubaLIF": ec.CubaLIF(0.9, 0.8, threshold=0.4),
    "StateSpace": ec.StateSpace([[0.9, -0.1], [0.1, 0.8]], [1.0, 0.1], [-1.0, 0.1], threshold=0.4),
    "SRM with taps": ec.SRM(kernel.FIR([1.0, 0.5, 0.2]), kernel.Exponential(0.9, scale=-1.0), threshold=0.4),
}


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("method", ["exodus", "slayer", "bptt"])
@pytest.mark.parametrize("features", [20, 70])
def test_wanting_fewer_changes_no_bit_with_recurrent_weights(name, method, features):
    """Twenty features are read through tiles, 70 in place. The call continues an earlier one."""
    current, seed = (a[..., :features] for a in arrays((0.2, 0.5), (0, 1)))
    weights = np.random.default_rng(1).normal(0, 0.1, (features, features)).astype(np.float32)
    first = ec.forward(RECURRENT[name], current, recurrent=weights)
    trace = ec.forward(RECURRENT[name], current, state=first.state, recurrent=weights)
    assert trace.spikes.any()
    check_fewer(trace, seed, method)


def check_fewer(trace, seed, method):
    every = backward(trace, seed, method=method)
    assert every.parameters
    names = list(every.parameters)
    for wanted in [(), *combinations(names, 1), *combinations(names, 2)]:
        some = backward(trace, seed, method=method, parameters=wanted)
        assert set(some.parameters) == set(wanted)
        np.testing.assert_array_equal(some.current, every.current)
        for key in wanted:
            np.testing.assert_array_equal(
                some.parameters[key], every.parameters[key], err_msg=f"{key} of {wanted}"
            )


def of_equal_values(neuron):
    """The neuron with an array of equal values for each of its parameters that is a number."""
    values = {}
    for name in neuron._parameter_names():
        value = neuron._value_of(name)
        if isinstance(value, (int, float)):
            values[name] = np.full(SHAPE[1:], value)
    return neuron._with(values)


@pytest.mark.parametrize("name", [name for name in NEURONS if "of each neuron" not in name])
@pytest.mark.parametrize("method", ["exodus", "slayer", "bptt"])
def test_a_scalar_has_the_sum_of_equal_values(name, method):
    neuron = NEURONS[name]
    equal = of_equal_values(neuron)
    current, seed = arrays((0.2, 0.5), (0, 1))
    scalar, each = (backward(ec.forward(n, current), seed, method=method) for n in (neuron, equal))
    np.testing.assert_array_equal(scalar.current, each.current)
    arrays_of = {key: values for key, values in each.parameters.items() if values.shape == SHAPE[1:]}
    assert arrays_of
    for key, values in arrays_of.items():
        bound = 1e-6 * np.abs(values).sum(dtype=np.float64)
        np.testing.assert_allclose(scalar.parameters[key], values.sum(dtype=np.float64), rtol=0, atol=bound)
