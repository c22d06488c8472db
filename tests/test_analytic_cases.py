"""Cases with a known answer: numbers of the paper, a leak, a constant input.

Property: the package gives the closed form. Witness: the closed form itself.
"""

import math

import numpy as np
import pytest

import exodus_core as ec
from compare import assert_gradient_close, assert_same_bits
from drive import METHODS
from exodus_core import surrogate

# An IF that spikes at every step, with a constant surrogate 1 / theta and a reset of 8/9 theta: going back,
# each step has 1 - 8/9 of the gradient of the next one.
LAST_SPIKE_GRADIENT = [0.00017, 0.00152, 0.01372, 0.12346, 1.11111]
CONSTANT = {
    "callable": lambda potential, threshold: np.ones_like(potential) / threshold,
    "built-in": surrogate.StraightThrough(scale=1 / 0.9),
}


@pytest.mark.parametrize("constant", CONSTANT.values(), ids=CONSTANT)
@pytest.mark.parametrize("method", ["exodus", "bptt"])
def test_gradient_of_the_last_spike_falls_by_one_minus_reset_over_threshold(method, constant):
    neuron = ec.IF(threshold=0.9, reset_amount=0.8)
    trace = ec.forward(neuron, np.ones((5, 1)))
    grad_spikes = np.array([[0.0], [0.0], [0.0], [0.0], [1.0]])
    grads = ec.backward(trace, grad_spikes, method=method, surrogate=constant)
    np.testing.assert_allclose(grads.current[:, 0], LAST_SPIKE_GRADIENT, atol=5e-6)
    exact = [(1 / 9) ** (4 - n) / 0.9 for n in range(5)]
    np.testing.assert_allclose(grads.current[:, 0], exact, rtol=1e-13)


def test_slayer_gives_every_earlier_step_the_same_gradient():
    # Without the derivative of the reset, the gradient of an IF does not decrease: the error of SLAYER.
    trace = ec.forward(ec.IF(threshold=0.9, reset_amount=0.8), np.ones((5, 1)))
    last = np.array([[0.0], [0.0], [0.0], [0.0], [1.0]])
    grads = ec.backward(trace, last, method="slayer", surrogate=CONSTANT["built-in"])
    np.testing.assert_allclose(grads.current, np.full((5, 1), 1 / 0.9), rtol=1e-15)


@pytest.mark.parametrize("neuron", [ec.LIF(alpha=0.9), ec.ExpLeak(alpha=0.9)], ids=repr)
def test_potential_leaks_by_alpha_each_step(neuron):
    state = neuron.initial_state((1,), np.float64, potential=0.75)
    trace = ec.forward(neuron, np.zeros((30, 1)), state=state)
    leak = [0.75]
    for _ in range(30):
        leak.append(0.9 * leak[-1])
    assert_same_bits(trace.potential[:, 0], np.array(leak[1:]))
    np.testing.assert_allclose(leak, 0.75 * 0.9 ** np.arange(31), rtol=1e-14)


def test_constant_input_below_threshold_is_the_geometric_sum():
    # The response kernel alpha^n, (S10), summed: a (1 - alpha^(n+1)) / (1 - alpha).
    trace = ec.forward(ec.LIF(alpha=0.8), np.full((50, 1), 0.1))
    expected = 0.1 * (1 - 0.8 ** np.arange(1, 51)) / (1 - 0.8)
    assert not trace.spikes.any()
    np.testing.assert_allclose(trace.potential[:, 0], expected, rtol=1e-13)


def test_an_if_counts_its_input():
    # 0.25 is exact in binary, so there is a spike at every fourth step, and no charge is lost.
    trace = ec.forward(ec.IF(), np.full((400, 1), 0.25))
    assert trace.spikes.sum() == 100
    assert set(np.flatnonzero(trace.spikes[:, 0]) % 4) == {3}
    many = ec.forward(ec.IF(max_spikes=None), np.full((10, 1), 2.75))
    charge = many.state.potential - many.state.spikes
    assert many.spikes.sum() + charge == 27.5


@pytest.mark.parametrize("method", METHODS)
def test_gradient_without_spikes_or_reset_is_the_response_kernel(method):
    # With a loss on the last potential: d u[T-1] / d a[n] = alpha^(T-1-n), the kernel.
    trace = ec.forward(ec.LIF(alpha=0.7, reset="none"), np.full((12, 1), 0.1))
    last = np.zeros((12, 1))
    last[-1] = 1.0
    grads = ec.backward(trace, None, method=method, grad_potential=last)
    assert_gradient_close(grads.current[:, 0], 0.7 ** np.arange(11, -1, -1), tol=1e-15)


def test_one_step_by_hand():
    # u = alpha u0 + a - theta s0 = 0.5 * 0.6 + 1.1 - 1 * 1 = 0.4; h = exp(-0.6 / 0.5).
    neuron = ec.LIF(alpha=0.5)
    state = neuron.initial_state((1,), np.float64, potential=0.6)._replace(spikes=np.ones(1))
    trace = ec.forward(neuron, np.array([[1.1]]), state=state)
    grads = ec.backward(trace, np.ones((1, 1)))
    h = math.exp(-(1 - 0.4) / 0.5)
    assert trace.potential[0, 0] == pytest.approx(0.4)
    assert grads.current[0, 0] == pytest.approx(h)
    assert grads.state.potential[0] == pytest.approx(0.5 * h)
    assert grads.state.spikes[0] == pytest.approx(-h)
    assert grads.parameters["alpha"] == pytest.approx(0.6 * h)
    # The threshold has two roles: firing (-h), and the amount that the earlier spike subtracted (-s0 h).
    assert grads.parameters["threshold"] == pytest.approx(-h - h)


def partial(function, point, dependent, independent):
    """d x_dependent / d x_independent on a level set of the function, by the implicit function theorem."""
    step = 1e-6

    def slope(axis):
        shift = step * np.eye(3)[axis]
        return (function(point + shift) - function(point - shift)) / (2 * step)

    return -slope(independent) / slope(dependent)


@pytest.mark.parametrize(
    "function",
    [lambda x: x @ x - 1, lambda x: x @ [2.0, -3.0, 0.5] - 1, lambda x: x[0] * x[1] - x[2] ** 3],
    ids=["sphere", "plane", "cubic"],
)
def test_chain_rule_around_a_loop_gives_minus_one(function):
    """A loopy graph needs the implicit function theorem (section 1, (S1) to (S4)).

    Cancelling the fractions of dx1/dx2 * dx2/dx3 * dx3/dx1 suggests 1, but the product is -1. Spikes and
    potentials of a neuron with reset form such a loop.
    """
    point = np.array([0.48, 0.6, 0.64])
    around = [(0, 1), (1, 2), (2, 0)]
    assert math.prod(partial(function, point, *pair) for pair in around) == pytest.approx(-1)
