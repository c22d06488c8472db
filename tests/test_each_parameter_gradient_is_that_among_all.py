"""The gradient of a parameter does not depend on which others are wanted.

The kernels sum the terms of the wanted parameters only: those of decays alone, those of decays and threshold,
or all. Property: whatever is wanted, each gradient has the bits that it has among all, and so has the
current's. Witness: the pass with all parameters, which other tests compare with dense Jacobians and autograd.
"""

from itertools import combinations

import numpy as np
import pytest

import exodus_core as ec
from neuron_examples import EXAMPLES, SCALARS, TAUS, per_neuron

NEURONS = {
    **SCALARS,
    **TAUS,
    "LIF with a clamp and an amount": ec.LIF(0.9, reset_amount=0.8, v_min=-0.3),
    "LIF with a tied gain": ec.LIF(0.9, gain="1-alpha", reset_timing="before_decay"),
    "LIF reset to zero": ec.LIF(0.9, gain=1.3, reset="zero"),
    "CubaLIF with a clamp": ec.CubaLIF(0.9, 0.8, gain=0.7, v_min=-0.3),
    **{f"{name} of each neuron": per_neuron(name, (3, 70)) for name in EXAMPLES},
}


@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.parametrize("method", ["exodus", "slayer", "bptt"])
@pytest.mark.parametrize("layout", ["time first", "time last"])
def test_wanting_fewer_changes_no_bit(name, method, layout):
    neuron, rng = NEURONS[name], np.random.default_rng(0)
    current, seed = (rng.normal(m, s, (90, 3, 70)).astype(np.float32) for m, s in ((0.2, 0.5), (0, 1)))
    axis = 0
    if layout == "time last":
        current, seed, axis = (*(np.ascontiguousarray(np.moveaxis(a, 0, 2)) for a in (current, seed)), 2)
    trace = ec.forward(neuron, current, time_axis=axis)
    seeds = {"grad_potential": seed} if trace.spikes is None else {"grad_spikes": seed}
    every = ec.backward(trace, method=method, **seeds)
    assert every.parameters
    names = list(every.parameters)
    for wanted in [(), *combinations(names, 1), *combinations(names, 2)]:
        some = ec.backward(trace, method=method, parameters=wanted, **seeds)
        assert set(some.parameters) == set(wanted)
        np.testing.assert_array_equal(some.current, every.current)
        for key in wanted:
            np.testing.assert_array_equal(
                some.parameters[key], every.parameters[key], err_msg=f"{key} of {wanted}"
            )
