"""The witnesses of the gradient agree with each other. The package is not involved.

Property: the dense linear system, the paper's Jacobian (S9) contracted by (S16), the zeta form (S19) and
torch autograd of the unrolled step give the same gradient. So do the two definitions of SLAYER. Witnesses:
each other. Without this test, a mistake in a witness would look like a mistake in the package.
"""

import numpy as np
import pytest
from hypothesis import given

import exact
import oracle
from cases import RESETS, SURROGATES, Problem, problems, random_problem, surrogate_values
from compare import assert_gradient_close, assert_gradients_match, assert_same_bits
from oracle import Gradients, Seeds
from reference import Model, rounded

LINEAR = tuple(reset for reset in RESETS if reset["reset"] != "zero")


def per_lane(problem: Problem, witness):
    """Call `witness(h, e, q, alpha, amount)` for every lane, and return dL/da without the gain."""
    run = problem.run()
    h = surrogate_values(problem.surrogate, run)
    e, q = problem.seeds.whole(run.current.shape)
    p = rounded(run.model, np.float64)
    lanes = run.current.shape[1:]
    alpha, amount = np.broadcast_to(p.alpha, lanes), np.broadcast_to(p.amount, lanes)
    drive = np.empty(run.current.shape)
    for i in np.ndindex(lanes):
        at = (slice(None), *i)
        drive[at] = witness(h[at], e[at], q[at], alpha[i], amount[i])
    return p.gain * drive


@given(problems(resets=LINEAR, clamped=False))
def test_linear_system_is_the_contracted_jacobian(problem):
    model = problem.model if problem.model.spiking else Model(reset="none")
    expected, magnitude = problem.expected()

    def witness(h, e, q, alpha, amount):
        eps, nu = oracle.kernels(model, len(h), alpha, amount)
        return oracle.implicit(h, e, q, eps, nu)

    actual = per_lane(problem, witness)
    assert_gradient_close(actual, expected.current, tol=1e-12, scale=magnitude.current)


@given(problems(resets=LINEAR, clamped=False))
def test_detached_linear_system_is_slayers_correlation(problem):
    expected, magnitude = problem.expected(detach_reset=True)

    def witness(h, e, q, alpha, amount):
        return oracle.slayer(h, e, q, alpha ** np.arange(len(h)))

    actual = per_lane(problem, witness)
    assert_gradient_close(actual, expected.current, tol=1e-12, scale=magnitude.current)


@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda s: s.name)
def test_zeta_form_is_the_contracted_jacobian(surrogate):
    model = Model(alpha=np.array([0.5, 0.9, 1.0]), threshold=np.array([0.7, 1.0, 1.4]))
    problem = random_problem(model, lanes=(3,), surrogate=surrogate)
    problem = problem._replace(seeds=Seeds(spikes=problem.seeds.spikes))
    actual = per_lane(problem, lambda h, e, q, alpha, theta: oracle.zeta(h, e, alpha, theta))
    expected, magnitude = problem.expected()
    assert_gradient_close(actual, expected.current, tol=1e-12, scale=magnitude.current)


@pytest.mark.parametrize("detach_reset", [False, True], ids=["exact", "slayer"])
@given(problem=problems())
def test_linear_system_is_autograd_of_the_unrolled_step(detach_reset, problem):
    unrolled = pytest.importorskip("unrolled", reason="needs torch")
    actual = unrolled.gradients(
        problem.model,
        problem.surrogate,
        problem.current,
        (problem.potential, problem.spikes),
        problem.seeds,
        detach_reset=detach_reset,
    )
    expected, magnitude = problem.expected(detach_reset=detach_reset)
    assert_gradients_match(actual, expected, magnitude, tol=1e-12)


def test_tau_is_the_chain_rule_through_the_decay():
    unrolled = pytest.importorskip("unrolled", reason="needs torch")
    tau = np.array([3.0, 8.0])
    problem = random_problem(Model(alpha=exact.decay(1.0, tau)), lanes=(2,))
    initial = (problem.potential, problem.spikes)
    actual = unrolled.gradients(
        problem.model, problem.surrogate, problem.current, initial, problem.seeds, tau=tau
    )
    expected, magnitude = problem.expected()
    chain = exact.decay(1.0, tau) / tau**2
    actual.parameters["alpha"] = actual.parameters.pop("tau") / chain
    assert_gradients_match(actual, expected, magnitude, tol=1e-12)


def test_comparison_is_relative_to_the_lane():
    gradient = np.array([[1.0, 1e-3], [2.0, 3e-3]])
    off = np.array([[0.0, 0.0], [0.0, 1e-7]])
    assert_gradient_close(gradient, gradient, tol=0.0)
    # 1e-7 exceeds the tolerance of the second lane, whose largest gradient is 3e-3, but not of the other.
    with pytest.raises(AssertionError, match=r"1 of 4.*\(1, 1\)"):
        assert_gradient_close(gradient + off, gradient, tol=1e-5)
    assert_gradient_close(gradient + off[:, ::-1], gradient, tol=1e-5)


def test_comparison_notices_one_wrong_bit():
    values = np.array([1.0, np.nan, -0.0])
    assert_same_bits(values, values.copy())
    for wrong in ([np.nextafter(1.0, 2.0), np.nan, -0.0], [1.0, 2.0, -0.0], [1.0, np.nan, 0.0]):
        with pytest.raises(AssertionError, match="1 of 3 bits differ"):
            assert_same_bits(np.array(wrong), values)
    with pytest.raises(AssertionError, match="dtype"):
        assert_same_bits(values.astype(np.float32), values)


def test_comparison_notices_a_missing_parameter():
    empty = Gradients(np.zeros((2, 1)), (), {})
    with pytest.raises(AssertionError):
        assert_gradients_match(empty, empty._replace(parameters={"alpha": 1.0}), empty, tol=1.0)
