"""BPTT is the chain rule through the unrolled step, and EXODUS equals it: the paper's claim.

Property: method="bptt" gives the gradients of torch autograd of the unrolled step function. EXODUS gives the
same to rounding. SLAYER differs exactly where a reset changes a later potential. In float32 all three stay
within 1e-5 of the lane's largest gradient. Witnesses: torch autograd in float64, and the dense oracle on the
potentials of the float32 forward pass.
"""

import numpy as np
import pytest
from hypothesis import given

import exact
import exodus_core as ec
from cases import SURROGATES, every_model, name_of, problems, random_problem
from compare import assert_gradient_close, assert_gradients_match, lane_scale
from drive import METHODS, backward, forward, run_of, solve
from reference import Model

unrolled = pytest.importorskip("unrolled", reason="needs torch")


def autograd(problem, **keywords):
    initial = (problem.potential, problem.spikes)
    return unrolled.gradients(
        problem.model, problem.surrogate, problem.current, initial, problem.seeds, **keywords
    )


@given(problems())
def test_bptt_is_autograd_of_the_unrolled_step(problem):
    _, grads = solve(problem, "bptt")
    _, magnitude = problem.expected()
    assert_gradients_match(grads, autograd(problem), magnitude, tol=1e-10)


@given(problems())
def test_exodus_is_bptt_to_rounding(problem):
    trace, grads = solve(problem, "bptt")
    _, magnitude = problem.expected()
    assert_gradients_match(backward(trace, problem, "exodus"), grads, magnitude, tol=1e-12)


@pytest.mark.parametrize("model", every_model(), ids=name_of)
def test_every_kind_of_neuron(model):
    problem = random_problem(model, seed=1)
    trace, bptt = solve(problem, "bptt")
    _, magnitude = problem.expected()
    assert trace.spikes.any()
    assert_gradients_match(bptt, autograd(problem), magnitude, tol=1e-12)
    assert_gradients_match(backward(trace, problem, "exodus"), bptt, magnitude, tol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_gradient_of_tau_is_autograd(method):
    tau = np.array([3.0, 8.0])
    problem = random_problem(Model(alpha=exact.decay(1.0, tau), gain="1-alpha"), lanes=(2,))
    trace = forward(problem, ec.LIF(tau=tau, gain="1-alpha"))
    expected = autograd(problem, tau=tau, detach_reset=method == "slayer")
    grads = backward(trace, problem, method)
    np.testing.assert_allclose(grads.parameters["tau"], expected.parameters["tau"], 1e-10)


@given(problems(resets=({"reset": "none"},)))
def test_slayer_is_exodus_without_a_reset(problem):
    trace, grads = solve(problem, "slayer")
    _, magnitude = problem.expected()
    assert_gradients_match(grads, backward(trace, problem, "exodus"), magnitude, tol=1e-12)


@pytest.mark.parametrize("reset", [{}, {"reset_timing": "before_decay"}, {"reset": "zero"}])
def test_slayer_differs_where_a_reset_has_an_effect(reset):
    problem = random_problem(Model(alpha=0.9, **reset), seed=5, steps=40)
    trace, slayer = solve(problem, "slayer")
    exodus = backward(trace, problem, "exodus")
    assert trace.spikes.any(axis=0).all()
    difference = np.abs(slayer.current - exodus.current)
    assert (difference > 1e-3 * lane_scale(exodus.current)).any(axis=0).all()
    # At the last step there is no later potential, so the methods agree.
    last, scale = exodus.current[-1:], lane_scale(exodus.current)
    assert_gradient_close(slayer.current[-1:], last, tol=1e-14, scale=scale)


@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda s: s.name)
@pytest.mark.parametrize("method", METHODS)
def test_float32_is_float64_to_rounding(method, surrogate):
    # The conditions of the contract: h <= (1 + alpha) / reset, and the potentials of the float32 run.
    model = Model(alpha=0.95, threshold=0.8, gain=0.9, v_min=-0.6)
    problem = random_problem(model, seed=6, steps=100, dtype=np.float32, surrogate=surrogate)
    trace, grads = solve(problem, method)
    assert trace.spikes.any()
    detach = method == "slayer"
    expected, magnitude = problem.expected(run_of(problem, trace), detach_reset=detach)
    assert grads.current.dtype == np.float32
    assert_gradients_match(grads, expected, magnitude, tol=1e-5)


@pytest.mark.parametrize("model", every_model(alpha=0.95), ids=name_of)
@pytest.mark.parametrize("method", METHODS)
def test_float32_is_float64_for_every_kind_of_neuron(method, model):
    problem = random_problem(model, seed=7, steps=40, dtype=np.float32)
    trace, grads = solve(problem, method)
    detach = method == "slayer"
    expected, magnitude = problem.expected(run_of(problem, trace), detach_reset=detach)
    assert_gradients_match(grads, expected, magnitude, tol=1e-5)
