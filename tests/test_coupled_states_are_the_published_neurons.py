"""AdLIF and ResonateAndFire, which run on the state-space kernel, are the published neurons.

Property: in float64, potentials and states are those of the published equations to 1e-12. All gradients are
those of torch's autograd of these equations, to 1e-10 of the largest: for EXODUS and BPTT with the surrogate
as the derivative of every spike, for SLAYER with spikes detached in the dynamics. Witnesses: the equations as
the papers print them, without a matrix; resonate-and-fire in complex numbers.
"""

import itertools

import numpy as np
import pytest

import exodus_core as ec
import neuron_examples
from cases import SURROGATES
from compare import assert_same_bits
from drive import METHODS, surrogate_of

torch = pytest.importorskip("torch")
from unrolled import _Spike as Spike  # noqa: E402

LANES = (2, 3)
SHAPES = {"scalars": [()] * 5, "of several shapes": [(3,), (2, 1), (), (2, 3), (1, 3)]}


ADLIF = {"alpha": 0.8, "alpha_adapt": 0.9, "coupling": 0.6, "adapt_scale": 0.7, "threshold": 0.3}
RESONATE = {"decay": 0.93, "frequency": 0.5, "threshold": 0.9}
CASES = {
    "adaptation first": (ec.AdLIF, ADLIF, {"order": "adaptation_first"}, neuron_examples.ad_lif),
    "symplectic": (ec.AdLIF, ADLIF | {"coupling": 3.0}, {"order": "symplectic"}, neuron_examples.ad_lif),
    "real": (ec.ResonateAndFire, RESONATE, {"fires_on": "real"}, neuron_examples.resonate_and_fire),
    "imaginary": (ec.ResonateAndFire, RESONATE, {"fires_on": "imaginary"}, neuron_examples.resonate_and_fire),
}
TAUS = {"alpha": "tau", "alpha_adapt": "tau_adapt", "decay": "tau"}


class Fire:
    """The spike function with a surrogate derivative. For SLAYER, `in_dynamics` detaches spikes."""

    def __init__(self, threshold, surrogate, detached):
        self.threshold, self.surrogate, self.detached = threshold, surrogate, detached

    def __call__(self, u):
        h = self.surrogate(u.detach().numpy(), self.threshold.detach().numpy())
        h = torch.tensor(np.broadcast_to(h, u.shape).copy())
        return Spike.apply(u, self.threshold.expand(u.shape), h, 1)

    def in_dynamics(self, s):
        return s.detach() if self.detached else s


def values_of(own, shapes, rng, with_tau):
    """Values near the given ones, in several shapes, optionally with time constants in place of decays."""
    values = {}
    for (name, value), shape in zip(own.items(), shapes, strict=False):
        varied = value * rng.uniform(0.95, 1.05, shape)
        if with_tau and name in TAUS:
            values[TAUS[name]] = -1 / np.log(varied)
        else:
            values[name] = varied
    return values


def leaf(value):
    return torch.tensor(np.array(value, np.float64), requires_grad=True)


def gradient(tensor):
    return np.zeros(tensor.shape) if tensor.grad is None else tensor.grad.numpy()


def solve(case, values, current, state, seeds, method, surrogate):
    """(results, gradients) of the package, and of autograd of the equations."""
    kind, own, options, step = case
    neuron = kind(**values, **options)
    trace = ec.forward(neuron, current, state=neuron._state(*state))
    grads = ec.backward(
        trace,
        seeds[0],
        grad_potential=seeds[1],
        grad_state=seeds[2:],
        method=method,
        surrogate=surrogate_of(surrogate),
    )
    leaves = {name: leaf(value) for name, value in values.items()}
    inputs = [leaf(x) for x in (current, *state)]
    p = {name: leaves[name] if name in leaves else torch.exp(-1 / leaves[TAUS[name]]) for name in own}
    fire = Fire(p["threshold"], surrogate, method == "slayer")
    now, steps = inputs[1:], []
    for a in inputs[0]:
        u, s, *others = now
        now = step(torch.where, p, options, (u, fire.in_dynamics(s), *others), a, fire, True)
        steps.append(now)
    found = [torch.stack([x[1] for x in steps]), torch.stack([x[0] for x in steps]), *now]
    sum((torch.tensor(g) * x).sum() for g, x in zip(seeds, found, strict=True)).backward()
    expected = [gradient(x) for x in inputs], {name: gradient(x) for name, x in leaves.items()}
    return (trace, grads), ([x.detach().numpy() for x in found], expected)


def problem(case, shapes, seed, *, steps=60, with_tau=False):
    rng = np.random.default_rng(seed)
    values = values_of(case[1], shapes, rng, with_tau)
    current = rng.normal(0.5, 1.5, (steps, *LANES))
    state = [rng.normal(0.0, 0.3, LANES), rng.integers(0, 2, LANES).astype(float), rng.normal(0, 0.3, LANES)]
    seeds = [rng.normal(size=(steps, *LANES)) for _ in range(2)] + [rng.normal(size=LANES) for _ in range(3)]
    return values, current, state, seeds


def assert_close(actual, expected, tol, name):
    actual = np.asarray(actual)
    assert actual.shape == expected.shape, name
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tol * np.abs(expected).max(), err_msg=name)


@pytest.mark.parametrize("with_tau", [False, True], ids=["decays", "time constants"])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_all_methods_are_autograd_of_the_published_equations(case, method, shapes, with_tau):
    for seed, surrogate in enumerate((SURROGATES[0], SURROGATES[8])):
        data = problem(case, shapes, seed, with_tau=with_tau)
        (trace, grads), (results, (inputs, parameters)) = solve(case, *data, method, surrogate)
        spikes, potential, *final = results
        assert 0.02 < spikes.mean() < 0.6
        np.testing.assert_array_equal(trace.spikes, spikes)
        np.testing.assert_allclose(trace.potential, potential, rtol=0, atol=1e-12)
        for actual, expected in zip(trace.state, final, strict=True):
            np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)
        assert_close(grads.current, inputs[0], 1e-10, "current")
        for actual, expected in zip(grads.state, inputs[1:], strict=True):
            np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-10 * np.abs(inputs[0]).max())
        assert grads.parameters.keys() == parameters.keys()
        for name, expected in parameters.items():
            assert_close(grads.parameters[name], expected, 1e-10, name)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_exodus_is_bptt(case):
    values, current, state, seeds = problem(case, SHAPES["of several shapes"], 7, steps=300)
    results = [solve(case, values, current, state, seeds, m, SURROGATES[0])[0][1] for m in METHODS]
    exodus, _, bptt = results
    assert_close(exodus.current, bptt.current, 1e-12, "current")
    for name, expected in bptt.parameters.items():
        assert_close(exodus.parameters[name], expected, 1e-12, name)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_is_a_state_space_of_numbers(case):
    # The entries are computed in float64 and rounded once, whatever the dtype of the data.
    kind, own, options, _ = case
    neuron = kind(**own, **options)
    p = neuron._parameters()
    same = ec.StateSpace(
        [[p["A00"], p["A01"]], [p["A10"], p["A11"]]],
        [p["b0"], p["b1"]],
        [p["r0"], p["r1"]],
        p["threshold"],
        reset="zero" if options.get("order") == "symplectic" else "subtract",
    )
    assert hash(same) == hash(ec.StateSpace(same.A, same.b, same.r, same.threshold, reset=same.reset))
    for dtype in (np.float32, np.float64):
        current = np.random.default_rng(3).normal(0.5, 1.5, (50, 70)).astype(dtype)
        one, other = ec.forward(neuron, current), ec.forward(same, current)
        assert one.spikes.any()
        assert_same_bits(one.potential, other.potential, "potential")
        assert_same_bits(one.state[2], other.state[2], "second state")


def test_only_the_requested_parameters_are_computed():
    for case, shapes in itertools.product(CASES.values(), SHAPES.values()):
        values, current, state, seeds = problem(case, shapes, 5)
        neuron = case[0](**values, **case[2])
        trace = ec.forward(neuron, current, state=neuron._state(*state))
        every = ec.backward(trace, seeds[0]).parameters
        for name in values:
            some = ec.backward(trace, seeds[0], parameters=(name,)).parameters
            assert some.keys() == {name}
            np.testing.assert_allclose(some[name], every[name], rtol=1e-14, atol=1e-13)


def test_entries_of_the_matrix_broadcast():
    each = np.linspace(0.8, 0.95, 3)
    current = np.random.default_rng(4).normal(0.4, 1.0, (40, 2, 3))
    neuron = ec.StateSpace([[each, -0.2], [0.3, each[:, None][:1]]], [1.0, 0.1], [-1.0, 0.3])
    assert neuron.A.shape == (2, 2, 1, 3)
    whole = ec.forward(neuron, current)
    assert whole.spikes.any()
    for k in range(3):
        one = ec.StateSpace([[each[k], -0.2], [0.3, each[0]]], [1.0, 0.1], [-1.0, 0.3])
        assert_same_bits(whole.potential[..., k], ec.forward(one, current[..., k].copy()).potential, f"{k}")


@pytest.mark.parametrize("time_axis", [0, 1])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_growth_is_the_norm_of_products_of_jacobians(reset, time_axis):
    # The witness is the Jacobian of each window's steps by autograd, with surrogate derivatives of spikes.
    A, b, r, threshold = [[0.8, -0.4], [0.3, 0.75]], [1.0, 0.2], [-0.9, 0.5], 0.5
    curve = ec.surrogate.SingleExponential(width=0.1, scale=0.8)
    neuron = ec.StateSpace(A, b, r, threshold, reset=reset)
    current = np.random.default_rng(6).normal(0.2, 0.7, (40, 3))
    given = np.ascontiguousarray(np.moveaxis(current, 0, time_axis))
    trace = ec.forward(neuron, given, time_axis=time_axis)
    u, s = (torch.tensor(np.moveaxis(x, time_axis, 0).copy()) for x in (trace.potential, trace.spikes))
    radius = np.abs(np.linalg.eigvals(A)).max()
    window = int(np.ceil(4 / (1 - radius)))
    assert 5 < window < 35

    def step(state, n, lane):
        reached = state[0]
        h = torch.tensor(curve(u[n, lane].numpy(), threshold))
        fired = s[n, lane] + h * (reached - reached.detach())
        kept = torch.stack([reached * (1 - fired) if reset == "zero" else reached, state[1]])
        return torch.tensor(A, dtype=torch.float64) @ kept + torch.tensor(r, dtype=torch.float64) * fired

    growing = []
    for lane, first in itertools.product(range(3), range(40 - window + 1)):
        product = torch.eye(2, dtype=torch.float64)
        for n in range(first, first + window):
            at = torch.stack([u[n, lane], torch.zeros_like(u[n, lane])])
            product = torch.autograd.functional.jacobian(lambda x, n=n, k=lane: step(x, n, k), at) @ product
        growing.append(float(torch.linalg.matrix_norm(product, 2)) > 1)
    found = ec.growth(trace, curve)
    assert found == pytest.approx(np.mean(growing), abs=1e-12)
    assert 0 < found < 1


def test_useful_parameters_have_no_growth_although_single_steps_stretch():
    rng = np.random.default_rng(8)
    neuron = ec.AdLIF(*rng.uniform([0.8], [0.97], 200)[None], 0.98, rng.uniform(0.0, 0.5, 200), 0.2)
    p = neuron._parameters()
    matrices = np.stack([[p["A00"], p["A01"]], [p["A10"], np.full(200, p["A11"])]])
    assert (np.linalg.norm(np.moveaxis(matrices, -1, 0), 2, axis=(1, 2)) > 1).mean() > 0.5
    trace = ec.forward(neuron, np.zeros((400, 200)))
    assert ec.growth(trace) == 0.0


def test_a_resonator_responds_to_its_own_frequency():
    # Inputs a period apart add up, and inputs half a period apart cancel (Izhikevich 2001).
    period = 16
    neuron = ec.ResonateAndFire(0.97, 2 * np.pi / period, threshold=2.0)
    current = np.zeros((100, 2))
    current[::period, 0] = current[:: period // 2, 1] = 1.0
    spikes = ec.forward(neuron, current).spikes
    assert spikes[:, 0].sum() > 0 and spikes[:, 1].sum() == 0


@pytest.mark.parametrize("order", ["adaptation_first", "symplectic"])
def test_an_adaptation_that_follows_the_potential_oscillates(order):
    coupling = 1.0 if order == "adaptation_first" else 60.0
    neuron = ec.AdLIF(0.95, 0.98, coupling, 0.0, threshold=1e9, order=order)
    current = np.zeros((200, 1))
    current[0] = 1.0
    potential = ec.forward(neuron, current).potential[:, 0]
    assert (np.diff(np.sign(potential)) != 0).sum() > 3


EYE = [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: ec.StateSpace(0.9, [1, 0], [-1, 0]), ValueError, ("A ", "(2, 2)", "()")),
        (lambda: ec.StateSpace(np.ones((2, 3)), [1, 0], [-1, 0]), ValueError, ("A ", "(2, 2)", "(2, 3)")),
        (lambda: ec.StateSpace([[1, 0], [0, 1], [0, 0]], [1, 0], [-1, 0]), ValueError, ("A ", "(3, 2)")),
        (lambda: ec.StateSpace(EYE, 1.0, [-1, 0]), ValueError, ("b ", "(2,)", "()")),
        (lambda: ec.StateSpace(EYE, [1, 0], [1, 2, 3]), ValueError, ("r ", "(2,)", "(3,)")),
        (lambda: ec.StateSpace([[1, np.nan], [0, 1]], [1, 0], [-1, 0]), ValueError, ("A ", "finite", "nan")),
        (lambda: ec.StateSpace(EYE, [1, "x"], [-1, 0]), TypeError, ("b ", "number", "'x'")),
        (lambda: ec.StateSpace(EYE, [1, True], [-1, 0]), TypeError, ("b ", "number", "True")),
        (lambda: ec.StateSpace(EYE, [1, None], [-1, 0]), TypeError, ("b ", "number", "None")),
        (lambda: ec.StateSpace(None, [1, 0], [-1, 0]), TypeError, ("A ", "number", "None")),
        (lambda: ec.StateSpace(EYE, [1, np.ones(3)], [-1, np.ones((2, 0))]), ValueError, ("r ", "empty")),
        (
            lambda: ec.StateSpace([[np.ones(3), np.ones(4)], [0, 1]], [1, 0], [-1, 0]),
            ValueError,
            ("A ", "broadcast", "(3,)", "(4,)"),
        ),
        (lambda: ec.StateSpace(EYE, [1, 0], [-1, 0], 0.0), ValueError, ("threshold", "above 0", "0.0")),
        (lambda: ec.StateSpace(EYE, [1, 0], [-1, 0], reset="none"), ValueError, ("reset", "'none'")),
        (lambda: ec.AdLIF(0.9, 0.9), TypeError, ("coupling", "number", "None")),
        (lambda: ec.AdLIF(0.9, 0.9, 0.1), TypeError, ("adapt_scale", "number", "None")),
        (lambda: ec.AdLIF(coupling=1, adapt_scale=1, tau=3), ValueError, ("alpha_adapt", "tau_adapt")),
        (lambda: ec.AdLIF(1.1, 0.9, 0.1, 0.1), ValueError, ("alpha", "[0, 1]", "1.1")),
        (lambda: ec.AdLIF(0.9, -0.1, 0.1, 0.1), ValueError, ("alpha_adapt", "[0, 1]", "-0.1")),
        (lambda: ec.AdLIF(0.9, 0.9, np.inf, 0.1), ValueError, ("coupling", "finite", "inf")),
        (lambda: ec.AdLIF(0.9, 0.9, 0.1, 0.1, -1), ValueError, ("threshold", "above 0", "-1.0")),
        (lambda: ec.AdLIF(0.9, 0.9, 0.1, 0.1, order="late"), ValueError, ("order", "'symplectic'", "'late'")),
        (
            lambda: ec.AdLIF(np.full(3, 0.9), 0.9, np.ones(4), 0.1),
            ValueError,
            ("alpha and coupling", "broadcast", "(3,)", "(4,)"),
        ),
        (
            lambda: ec.AdLIF(tau=-3.0, alpha_adapt=0.9, coupling=1, adapt_scale=1),
            ValueError,
            ("tau", "above 0"),
        ),
        (lambda: ec.ResonateAndFire(0.9), TypeError, ("frequency", "number", "None")),
        (lambda: ec.ResonateAndFire(frequency=1.0), ValueError, ("decay", "tau", "neither")),
        (lambda: ec.ResonateAndFire(0.9, 1.0, tau=3.0), ValueError, ("decay=0.9", "tau=3.0")),
        (lambda: ec.ResonateAndFire(1.5, 1.0), ValueError, ("decay", "[0, 1]", "1.5")),
        (lambda: ec.ResonateAndFire(0.9, np.inf), ValueError, ("frequency", "finite", "inf")),
        (lambda: ec.ResonateAndFire(0.9, 1.0, fires_on="both"), ValueError, ("fires_on", "'real'", "'both'")),
    ],
)
def test_values_out_of_range_are_named(make, error, words):
    with pytest.raises(error) as caught:
        make()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("neuron", "words"),
    [
        (ec.StateSpace([[np.ones(4), 0], [0, 1]], [1, 0], [-1, 0]), ("A ", "(4,)", "first 2 axes")),
        (ec.StateSpace(EYE, np.ones((2, 4)), [-1, 0]), ("b ", "(4,)", "first axis")),
        (ec.AdLIF(0.9, 0.9, np.ones(4), 0.1), ("coupling", "(4,)")),
        (ec.AdLIF(tau=np.full(4, 3.0), alpha_adapt=0.9, coupling=1, adapt_scale=0.1), ("tau", "(4,)")),
        (ec.ResonateAndFire(0.9, np.ones(2)), ("frequency", "(2,)", "(2, 1)")),
    ],
)
def test_parameters_that_do_not_fit_the_data_are_named(neuron, words):
    with pytest.raises(ValueError, match="broadcast against the neurons") as caught:
        ec.forward(neuron, np.zeros((7, *LANES)))
    for word in words:
        assert word in str(caught.value)
