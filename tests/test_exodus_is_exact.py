"""EXODUS is the exact gradient for the given surrogate, and SLAYER follows SLAYER's definition.

Property: in float64 the error of every gradient (current, initial state, each parameter) is at most 1e-10 of
the lane's largest, for any reset, timing, clamp, max_spikes, parameter shape, surrogate and loss. Witness:
the dense linear system of the neuron's equations, and for a plain LIF the closed form (S19). Neither is a
recurrence in the gradient.
"""

import numpy as np
import pytest
from hypothesis import given

import exact
import exodus_core as ec
import oracle
from cases import (
    SURROGATES,
    every_model,
    name_of,
    problems,
    random_problem,
    surrogate_values,
)
from compare import assert_gradient_close, assert_gradients_match
from drive import backward, forward, run_of, solve, surrogate_of
from oracle import Seeds
from reference import Model


@given(problems())
def test_exodus_is_the_dense_gradient(problem):
    trace, grads = solve(problem)
    expected, magnitude = problem.expected(run_of(problem, trace))
    assert_gradients_match(grads, expected, magnitude, tol=1e-10)


@given(problems())
def test_slayer_is_the_dense_gradient_without_the_reset(problem):
    trace, grads = solve(problem, "slayer")
    expected, magnitude = problem.expected(run_of(problem, trace), detach_reset=True)
    assert_gradients_match(grads, expected, magnitude, tol=1e-10)


@pytest.mark.parametrize("model", every_model(), ids=name_of)
@pytest.mark.parametrize("method", ["exodus", "slayer"])
def test_every_kind_of_neuron(model, method):
    # Hypothesis draws random combinations; this test runs each one.
    problem = random_problem(model, seed=1)
    trace, grads = solve(problem, method)
    expected, magnitude = problem.expected(run_of(problem, trace), detach_reset=method == "slayer")
    assert trace.spikes.any()
    assert_gradients_match(grads, expected, magnitude, tol=1e-10)


@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda s: s.name)
def test_plain_lif_is_the_zeta_form(surrogate):
    problem = random_problem(Model(alpha=0.9), lanes=(5,), surrogate=surrogate)
    problem = problem._replace(seeds=Seeds(spikes=problem.seeds.spikes))
    trace, grads = solve(problem)
    h = surrogate_values(surrogate, run_of(problem, trace))
    lanes = [oracle.zeta(h[:, i], problem.seeds.spikes[:, i], 0.9, 1.0) for i in range(5)]
    assert_gradient_close(grads.current, np.stack(lanes, axis=1), tol=1e-12)


def test_if_is_the_lif_without_leak():
    problem = random_problem(Model(alpha=1.0, threshold=0.8), seed=2)
    trace = forward(problem, ec.IF(threshold=0.8))
    grads = backward(trace, problem)
    expected, magnitude = problem.expected(run_of(problem, trace))
    for part in (expected, magnitude):
        del part.parameters["alpha"]
    assert_gradients_match(grads, expected, magnitude, tol=1e-12)


def test_a_loss_on_only_the_potential_needs_no_spike_gradient():
    problem = random_problem(Model(alpha=0.8), seed=3)
    problem = problem._replace(seeds=Seeds(potential=problem.seeds.potential))
    trace, grads = solve(problem)
    expected, magnitude = problem.expected(run_of(problem, trace))
    assert np.abs(expected.current).max() > 0
    assert_gradients_match(grads, expected, magnitude, tol=1e-12)


def test_gradients_of_the_time_constant_are_the_chain_rule():
    # d alpha / d tau = alpha dt / tau^2, since alpha = exp(-dt / tau).
    tau, dt = np.array([3.0, 8.0]), 0.5
    problem = random_problem(Model(alpha=exact.decay(dt, tau), gain="1-alpha"), lanes=(2,))
    _, plain = solve(problem)
    trace = forward(problem, ec.LIF(tau=tau, dt=dt, gain="1-alpha"))
    grads = backward(trace, problem)
    assert set(grads.parameters) == {"tau", "threshold"}
    chain = exact.decay(dt, tau) * dt / tau**2
    np.testing.assert_allclose(grads.parameters["tau"], plain.parameters["alpha"] * chain, 1e-10)


@pytest.mark.parametrize("tau", [1e-300, 1e-5, 1e200])
def test_gradient_of_an_extreme_time_constant_vanishes(tau):
    # alpha dt / tau^2 tends to 0 at both ends, which its evaluation must not turn into NaN.
    with np.errstate(all="raise", under="ignore"):
        trace = ec.forward(ec.LIF(tau=tau), np.ones((4, 2)))
        grads = ec.backward(trace, np.ones((4, 2)))
    assert grads.parameters["tau"] == 0


def test_surrogate_is_evaluated_for_each_neurons_threshold():
    problem = random_problem(Model(threshold=np.array([[0.6], [1.0], [1.7]])), seed=4)
    trace = forward(problem)
    grads = backward(trace, problem, surrogate=surrogate_of(SURROGATES[1]))
    problem = problem._replace(surrogate=SURROGATES[1])
    expected, magnitude = problem.expected(run_of(problem, trace))
    assert_gradients_match(grads, expected, magnitude, tol=1e-12)
