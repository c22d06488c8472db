"""The lower bound v_min and its gradient.

Property: a step with u == v_min counts as clipped, even if the bound did not change it. It passes no gradient
to earlier steps; v_min gets the gradient instead. NaN passes the clamp, never fires and stays in its neuron.
Witnesses: the dense linear system of the equations, the NumPy forward, and cases by hand.
"""

import numpy as np
import pytest
from hypothesis import given

import exodus_core as ec
from cases import RESETS, problems, random_problem
from compare import assert_gradient_close, assert_gradients_match, assert_same_bits
from drive import METHODS, forward, run_of, solve
from reference import Model

CLAMPED = Model(alpha=0.9, threshold=0.5, v_min=-0.25)


def assert_exact(problem, method):
    trace, grads = solve(problem, method)
    run = run_of(problem, trace)
    expected, magnitude = problem.expected(run, detach_reset=method == "slayer")
    assert_gradients_match(grads, expected, magnitude, tol=1e-10)
    return trace, grads


@pytest.mark.parametrize("method", METHODS)
@given(problem=problems(clamped=True))
def test_clamped_gradients_are_exact(method, problem):
    assert_exact(problem, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reset", RESETS)
def test_clip_at_the_first_step_cuts_the_initial_state_off(method, reset):
    model = Model(**{**vars(CLAMPED), **reset})
    problem = random_problem(model, seed=8)
    problem.current[0] = -5.0
    trace, grads = assert_exact(problem, method)
    assert (trace.potential[0] == model.v_min).all()
    assert problem.potential.all()
    for gradient in grads.state:
        assert not gradient.any()
    assert not grads.current[0].any()
    assert grads.current[1:].any()


@pytest.mark.parametrize("method", METHODS)
def test_clips_and_spikes_in_one_window(method):
    problem = random_problem(CLAMPED, seed=9, lanes=(4,))
    problem.current[::4] = -2.0
    problem.current[2::4] = 1.5
    trace, grads = assert_exact(problem, method)
    assert trace.spikes.any(axis=0).all()
    assert (trace.potential == CLAMPED.v_min).any(axis=0).all()
    assert grads.parameters["v_min"] != 0


@pytest.mark.parametrize("method", METHODS)
def test_equality_is_a_clip(method):
    # u = 0.5 * 0.5 - 0.5 = -0.25 exactly: it equals v_min without the clamp.
    neuron = ec.LIF(alpha=0.5, v_min=-0.25)
    state = neuron.initial_state((1,), np.float64, potential=0.5)
    trace = ec.forward(neuron, np.array([[-0.5]]), state=state)
    ones = np.ones((1, 1))
    grads = ec.backward(trace, None, method=method, grad_potential=ones)
    assert trace.potential[0, 0] == -0.25
    assert grads.current[0, 0] == 0
    assert grads.state.potential[0] == 0
    assert grads.parameters["v_min"] == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_bound_that_is_never_reached_changes_nothing(method):
    problem = random_problem(Model(alpha=0.9, threshold=0.5), seed=10)
    bounded = problem._replace(model=Model(alpha=0.9, threshold=0.5, v_min=-1e6))
    (free_trace, free), (trace, grads) = solve(problem, method), solve(bounded, method)
    assert_same_bits(trace.potential, free_trace.potential)
    assert_gradient_close(grads.current, free.current, tol=1e-14)
    assert grads.parameters["v_min"] == 0
    assert "v_min" not in free.parameters


@pytest.mark.parametrize("method", METHODS)
def test_gradient_of_a_bound_per_neuron_stays_with_its_neuron(method):
    model = Model(alpha=0.9, threshold=0.5, v_min=np.array([-0.1, -0.25, -1e6]))
    problem = random_problem(model, seed=11, lanes=(2, 3))
    _, grads = assert_exact(problem, method)
    assert grads.parameters["v_min"].shape == (3,)
    assert grads.parameters["v_min"][:2].all()
    assert grads.parameters["v_min"][2] == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("max_spikes", [1, 3, None])
@pytest.mark.parametrize("reset", RESETS)
def test_nan_passes_the_clamp_never_fires_and_stays_in_its_neuron(reset, max_spikes, dtype):
    model = Model(**{**vars(CLAMPED), **reset, "max_spikes": max_spikes})
    problem = random_problem(model, seed=12, lanes=(70,), dtype=dtype)
    problem.current[3, 5] = np.nan
    trace, run = forward(problem), problem.run()
    assert np.isnan(trace.potential[3:, 5]).all()
    assert not trace.spikes[3:, 5].any()
    assert np.isfinite(np.delete(trace.potential, 5, axis=1)).all()
    assert_same_bits(trace.potential, run.potential)
    assert_same_bits(trace.spikes, run.spikes)


@pytest.mark.parametrize("method", METHODS)
def test_gradient_of_nan_stays_in_its_neuron(method):
    problem = random_problem(CLAMPED, seed=13, lanes=(70,))
    _, clean = solve(problem, method)
    problem.current[3, 5] = np.nan
    _, grads = solve(problem, method)
    assert np.isnan(grads.current[:, 5]).any()
    others = np.delete(np.arange(70), 5)
    assert_same_bits(grads.current[:, others], clean.current[:, others])
    assert_same_bits(grads.state.potential[others], clean.state.potential[others])
