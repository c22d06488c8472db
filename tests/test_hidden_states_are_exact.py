"""CubaLIF, ALIF, SRM and StateSpace: backward recomputes states that are not recorded, and is exact.

Property: forward has the bits of the formula in NumPy. In float64 EXODUS and BPTT give the gradients of
autograd of the unrolled step, to 1e-10 of the lane's largest and to 1e-12 of each other, for every parameter,
state, loss, reset and layout. SLAYER gives those of autograd with spikes detached. Witnesses: `stepwise`, and
the dense Jacobian (S9) contracted by (S16), with the model's two kernels.
"""

import numpy as np
import pytest

import exact
import exodus_core as ec
import oracle
from cases import SURROGATES
from compare import (
    assert_gradient_close,
    assert_gradients_match,
    assert_parameter_close,
    assert_same_bits,
    lane_scale,
)
from drive import METHODS, surrogate_of
from neuron_examples import EXAMPLES

stepwise = pytest.importorskip("stepwise", reason="needs torch")
Model = stepwise.Model

CUBA, ALIF = (Model(name, EXAMPLES[name].keywords) for name in ("CubaLIF", "ALIF"))
FOLLOWS = Model("CubaLIF", CUBA.keywords | {"alpha": 0.6, "gain": "1-alpha"})
COUPLED = Model("StateSpace", EXAMPLES["StateSpace"].keywords)
COUPLED_TO_ZERO = Model("StateSpace", COUPLED.keywords | {"r": np.array([0.1, 0.4]), "reset": "zero"})
KERNELS = {
    "Exponential": {"alpha": 0.85},
    "DoubleExponential": {"alpha": 0.8, "beta": 0.6},
    "Alpha": {"tau": 4.0},
    "FIR": {"taps": np.array([0.9, 0.7, -0.2, 0.4, 0.1, 0.3, -0.1, 0.2, 0.2, 0.05, 0.1, 0.05])},
}


def srm(epsilon, nu):
    """An SRM of two kernels, where a spike lowers the potential."""
    values = {"epsilon": epsilon, "nu": nu, "threshold": 0.8}
    for role, kernel, scale in (("epsilon", epsilon, 1.1), ("nu", nu, -0.7)):
        if kernel == "FIR":
            values[f"{role}.taps"] = scale * KERNELS[kernel]["taps"]
        else:
            values |= {f"{role}.{name}": value for name, value in KERNELS[kernel].items()}
            values[f"{role}.scale"] = scale
    return Model("SRM", values)


SRMS = [srm(epsilon, nu) for epsilon in KERNELS for nu in KERNELS]


def name_of(model):
    kernels = [
        model.keywords[k]
        for k in ("epsilon", "nu", "gain", "reset")
        if isinstance(model.keywords.get(k), str)
    ]
    return "-".join([model.name, *kernels])


EACH = pytest.mark.parametrize("model", [CUBA, FOLLOWS, ALIF, COUPLED, COUPLED_TO_ZERO, *SRMS], ids=name_of)
SOME = pytest.mark.parametrize(
    "model",
    [
        CUBA,
        FOLLOWS,
        ALIF,
        COUPLED,
        COUPLED_TO_ZERO,
        srm("Alpha", "DoubleExponential"),
        srm("FIR", "FIR"),
        srm("FIR", "Alpha"),
        srm("Alpha", "FIR"),
    ],
    ids=name_of,
)
LAYOUTS = [((23, 5), 0), ((23, 300), 0), ((2, 23, 70), 1), ((3, 23, 4), 1), ((4, 23), 1), ((200, 23), 1)]


def neuron_of(model):
    return model.neuron()


def hidden_of(model):
    """The leading axes of each state other than potential and spikes."""
    leading = model.neuron()._values_per_neuron()
    return [leading.get(field, ()) for field in model.neuron()._state._fields[2:]]


def random_data(rng, steps, lanes, dtype=np.float64, model=CUBA):
    """A random current, initial state and seeds."""
    current = rng.normal(0.3, 0.8, (steps, *lanes)).astype(dtype)
    state = [rng.normal(0.1, 0.3, lanes), rng.integers(0, 2, lanes)]
    state += [rng.normal(0.1, 0.3, (*leading, *lanes)) for leading in hidden_of(model)]
    seeds = [rng.normal(size=current.shape), rng.normal(size=current.shape)]
    final = [rng.normal(size=x.shape) for x in state]
    return current, [x.astype(dtype) for x in state], (*seeds, final)


def solve(model, current, state, seeds, method="exodus", *, surrogate=SURROGATES[0], time_axis=0):
    """Run forward and backward. The surrogate is a witness or a function."""
    neuron = neuron_of(model)
    trace = ec.forward(neuron, current, state=neuron._state(*state), time_axis=time_axis)
    spikes, potential, final = seeds
    curve = surrogate_of(surrogate) if hasattr(surrogate, "name") else surrogate
    grads = ec.backward(
        trace, spikes, grad_potential=potential, grad_state=final, method=method, surrogate=curve
    )
    return trace, grads


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@EACH
def test_forward_is_the_formula_in_every_layout(model, dtype):
    for shape, axis in LAYOUTS:
        lanes = shape[:axis] + shape[axis + 1 :]
        current, state, _ = random_data(np.random.default_rng(1), shape[axis], lanes, dtype, model=model)
        neuron = neuron_of(model)
        moved = np.ascontiguousarray(np.moveaxis(current, 0, axis))
        trace = ec.forward(neuron, moved, state=neuron._state(*state), time_axis=axis)
        potential, spikes, final = stepwise.forward(model, current, state)
        assert spikes.any()
        assert_same_bits(np.moveaxis(trace.potential, axis, 0), potential, "potential")
        assert_same_bits(np.moveaxis(trace.spikes, axis, 0), spikes, "spikes")
        for actual, wanted in zip(trace.state, final, strict=True):
            assert_same_bits(actual, wanted, "state")


@pytest.mark.parametrize("varied", [False, True], ids=["scalars", "per neuron"])
@pytest.mark.parametrize("method", METHODS)
@SOME
def test_backward_is_the_same_in_every_layout(model, method, varied):
    for shape, axis in LAYOUTS:
        lanes = shape[:axis] + shape[axis + 1 :]
        if varied:
            # One parameter varies between neurons, another one along the last axis.
            name, rng = next(k for k in model.names() if k != "threshold"), np.random.default_rng(20)
            leading = np.shape(model.keywords[name])[: stepwise.LEADING.get(name, 0)]
            varied_values = rng.uniform(0.3, 0.9, (*leading, *lanes)) * (0.6 if leading else 1.0)
            values = {name: varied_values, "threshold": rng.uniform(0.6, 1.0, lanes[-1:])}
            if model.keywords.get("epsilon") == "FIR":
                values["epsilon.taps"] = rng.uniform(-0.3, 0.9, (11, *lanes))
            if model.keywords.get("nu") == "FIR":
                values["nu.taps"] = rng.uniform(-0.9, 0.2, (20, *lanes[-1:]))
            model = Model(model.name, model.keywords | values)
        current, state, seeds = random_data(np.random.default_rng(2), shape[axis], lanes, model=model)
        _, whole = solve(model, current, state, seeds, method)
        turned = [np.ascontiguousarray(np.moveaxis(x, 0, axis)) for x in (current, *seeds[:2])]
        _, grads = solve(model, turned[0], state, (*turned[1:], seeds[2]), method, time_axis=axis)
        assert_same_bits(np.moveaxis(grads.current, axis, 0), whole.current, "current")
        for actual, wanted in zip(grads.state, whole.state, strict=True):
            assert_same_bits(actual, wanted, "state")
        for name, wanted in whole.parameters.items():
            np.testing.assert_allclose(grads.parameters[name], wanted, rtol=1e-11)


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 9, 63, 64, 65, 200])
@EACH
def test_states_are_recomputed_for_any_number_of_steps(model, steps):
    # States are recomputed in segments of at least eight steps.
    current, state, seeds = random_data(np.random.default_rng(3), steps, (70,), model=model)
    _, grads = solve(model, current, state, seeds)
    expected, magnitude = stepwise.unroll(model, SURROGATES[0], current, state, seeds)
    assert_gradients_match(grads, expected, magnitude, tol=1e-10)


def taps(model, steps):
    """The response and reset kernels of the model as a spike response model, and the gain."""
    n, v = np.arange(steps), model.keywords
    if model.name == "SRM":
        neuron = model.neuron()
        return neuron.epsilon.taps(steps), neuron.nu.taps(steps), 1.0
    decay, gain = v["alpha"] ** n, model.neuron()._parameters()["gain"]
    if model.name == "ALIF":
        return decay, -v["threshold"] * decay - v["adapt_scale"] * v["alpha_adapt"] ** n, gain
    timing = v["alpha"] if v.get("reset_timing") == "before_decay" else 1.0
    return np.convolve(decay, v["alpha_syn"] ** n)[:steps], -timing * v["threshold"] * decay, gain


@pytest.mark.parametrize(
    "model",
    [CUBA, Model("CubaLIF", CUBA.keywords | {"reset_timing": "before_decay"}), ALIF, *SRMS],
    ids=name_of,
)
def test_exodus_is_the_dense_jacobian(model):
    steps = 30
    current, _, seeds = random_data(np.random.default_rng(4), steps, (4,), model=model)
    rest = [np.zeros((*leading, 4)) for leading in ((), (), *hidden_of(model))]
    e = seeds[0]
    trace, grads = solve(model, current, rest, (e, None, None))
    eps, nu, gain = taps(model, steps)
    x = np.stack([np.convolve(gain * a, eps)[:steps] for a in current.T], 1)
    x += np.stack([np.convolve(s, np.append(0.0, nu))[:steps] for s in trace.spikes.T], 1)
    assert ((x >= 0.8) == trace.spikes).all()
    h = SURROGATES[0](x, 0.8)
    for i in range(4):
        expected = gain * oracle.implicit(h[:, i], e[:, i], np.zeros(steps), eps, nu)
        assert_gradient_close(grads.current[:, i], expected, tol=1e-10)


@EACH
def test_chunks_are_the_whole(model):
    current, state, seeds = random_data(np.random.default_rng(5), 40, (3, 50), model=model)
    whole, expected = solve(model, current, state, seeds)
    neuron, pieces = neuron_of(model), (slice(0, 11), slice(11, 12), slice(12, 40))
    traces, carried = [], neuron._state(*state)
    for piece in pieces:
        traces.append(ec.forward(neuron, current[piece], state=carried))
        carried = traces[-1].state
    assert_same_bits(np.concatenate([t.potential for t in traces]), whole.potential, "potential")
    grad_state, found = seeds[2], []
    for piece, trace in zip(reversed(pieces), reversed(traces), strict=True):
        kwargs = {"grad_potential": seeds[1][piece], "grad_state": grad_state}
        grads = ec.backward(trace, seeds[0][piece], surrogate=surrogate_of(SURROGATES[0]), **kwargs)
        grad_state, found = grads.state, [grads.current, *found]
    scale = lane_scale(expected.current)
    assert_gradient_close(np.concatenate(found), expected.current, tol=1e-12, scale=scale)
    for actual, wanted in zip(grad_state, expected.state, strict=True):
        assert_gradient_close(actual, wanted, tol=1e-12, scale=scale[0])


@pytest.mark.parametrize("method", METHODS)
@EACH
def test_float32_is_close_to_float64(model, method):
    # Parameters and data are exact in float32. The float64 pass reads the potentials of the float32 pass.
    rounded = Model(model.name, model.keywords | {k: np.float32(model.keywords[k]) for k in model.names()})
    current, state, seeds = random_data(np.random.default_rng(6), 100, (6, 20), np.float32, model=model)
    *seeds, final = (*(x.astype(np.float32) for x in seeds[:2]), [x.astype(np.float32) for x in seeds[2]])
    neuron = neuron_of(rounded)
    results = []
    for dtype in (np.float32, np.float64):
        trace = ec.forward(
            neuron, current.astype(dtype), state=neuron._state(*(x.astype(dtype) for x in state))
        )
        if results:
            trace.potential[...] = results[0][0].potential
        e, q = (x.astype(dtype) for x in seeds)
        grads = ec.backward(
            trace, e, grad_potential=q, grad_state=[x.astype(dtype) for x in final], method=method
        )
        results.append((trace, grads))
    (_, single), (_, double) = results
    scale = lane_scale(double.current)
    assert_gradient_close(single.current, double.current, tol=1e-5, scale=scale)
    for actual, wanted in zip(single.state, double.state, strict=True):
        assert_gradient_close(actual, wanted, tol=1e-5, scale=scale[0])
    # A parameter's gradient may cancel almost completely, so its error is compared with its terms.
    wide = [[x.astype(np.float64) for x in arrays] for arrays in ([current], state, seeds, final)]
    terms = stepwise.unroll(
        rounded, SURROGATES[0], *wide[0], wide[1], (*wide[2], wide[3]), detach_reset=method == "slayer"
    )[1].parameters
    for name, wanted in double.parameters.items():
        one = single.parameters[name].astype(np.float64)
        assert_parameter_close(one, wanted, tol=2e-7, terms=terms[name], name=name)


@SOME
def test_a_callable_gets_the_quantity_that_is_compared_with_the_threshold(model):
    current, state, seeds = random_data(np.random.default_rng(7), 30, (2, 9), model=model)
    built_in = surrogate_of(SURROGATES[0])
    for axis in (0, 2):
        turned = [np.ascontiguousarray(np.moveaxis(x, 0, axis)) for x in (current, *seeds[:2])]
        for method in METHODS:
            args = (turned[0], state, (*turned[1:], seeds[2]), method)
            _, expected = solve(model, *args, time_axis=axis)
            _, grads = solve(model, *args, time_axis=axis, surrogate=lambda x, th: built_in(x, th))
            assert_same_bits(grads.current, expected.current, "current")


def test_a_single_step_has_no_time_axis():
    for model in (CUBA, ALIF):
        current, state, seeds = random_data(np.random.default_rng(8), 1, (4, 5), model=model)
        trace, expected = solve(model, current, state, seeds)
        step, grads = solve(model, current[0], state, (seeds[0][0], seeds[1][0], seeds[2]), time_axis=None)
        assert_same_bits(step.potential, trace.potential[0], "potential")
        assert_same_bits(grads.current, expected.current[0], "current")


@pytest.mark.parametrize("name", ["tau", "tau_syn", "tau_adapt"])
def test_gradients_of_time_constants_are_the_chain_rule(name):
    decay = {"tau": "alpha", "tau_syn": "alpha_syn", "tau_adapt": "alpha_adapt"}[name]
    model = {"tau": FOLLOWS, "tau_syn": CUBA, "tau_adapt": ALIF}[name]
    tau, dt = np.array([3.0, 8.0]), 0.5
    current, state, seeds = random_data(np.random.default_rng(9), 20, (2,))
    plain = Model(model.name, model.keywords | {decay: exact.decay(dt, tau)})
    given = {k: v for k, v in model.keywords.items() if k != decay} | {name: tau, "dt": dt}
    _, expected = solve(plain, current, state, seeds)
    _, grads = solve(Model(model.name, given), current, state, seeds)
    assert name in grads.parameters and decay not in grads.parameters
    chain = exact.decay(dt, tau) * dt / tau**2
    np.testing.assert_allclose(grads.parameters[name], expected.parameters[decay] * chain, 1e-9)


def test_cuba_without_a_synapse_is_the_lif():
    current, state, seeds = random_data(np.random.default_rng(10), 50, (7,))
    cuba = ec.CubaLIF(alpha=0.9, alpha_syn=0.0)
    lif = ec.LIF(alpha=0.9)
    one = ec.forward(cuba, current, state=cuba._state(*state))
    other = ec.forward(lif, current, state=lif._state(*state[:2]))
    assert_same_bits(one.potential, other.potential, "potential")
    pair = [ec.backward(t, seeds[0], grad_potential=seeds[1]) for t in (one, other)]
    np.testing.assert_array_equal(pair[0].current, pair[1].current)


def test_alif_without_adaptation_is_the_lif():
    current, state, seeds = random_data(np.random.default_rng(11), 50, (7,))
    state[2][:] = 0
    alif, lif = ec.ALIF(alpha=0.9, alpha_adapt=0.9, adapt_scale=0.0), ec.LIF(alpha=0.9)
    one = ec.forward(alif, current, state=alif._state(*state))
    other = ec.forward(lif, current, state=lif._state(*state[:2]))
    assert_same_bits(one.potential, other.potential, "potential")
    pair = [ec.backward(t, seeds[0], grad_potential=seeds[1]) for t in (one, other)]
    np.testing.assert_allclose(pair[0].current, pair[1].current, rtol=1e-12, atol=1e-14)


def test_growth_uses_the_adapted_potential():
    # Where b is large, u - b is far below the threshold: h is small, and the gradient does not grow.
    steep = ec.surrogate.SingleExponential(width=0.1)
    neuron = ec.ALIF(alpha=0.5, alpha_adapt=1.0, adapt_scale=50.0)
    trace = ec.forward(neuron, np.full((40, 1), 0.6))
    plain = ec.forward(ec.LIF(alpha=0.5), np.full((40, 1), 0.6))
    assert ec.growth(trace, steep) < ec.growth(plain, steep)


@pytest.mark.parametrize("kernel", KERNELS)
def test_taps_are_the_response_to_one_input(kernel):
    values = KERNELS[kernel] | ({} if kernel == "FIR" else {"scale": 1.3})
    taps = getattr(ec.kernel, kernel)(**values).taps(30)
    silent = ec.SRM(
        getattr(ec.kernel, kernel)(**values), ec.kernel.Exponential(0.5, scale=0.0), threshold=1e9
    )
    trace = ec.forward(silent, np.eye(30)[:, :1])
    np.testing.assert_allclose(trace.potential[:, 0], taps, rtol=1e-13, atol=1e-16)


def test_alpha_kernel_peaks_at_its_scale_after_tau_steps():
    taps = ec.kernel.Alpha(tau=5.0, scale=2.0).taps(40)
    assert taps[0] == 0 and np.argmax(taps) == 5
    assert taps[5] == pytest.approx(2.0, rel=1e-15)


def test_srm_of_two_exponentials_is_the_lif():
    rng = np.random.default_rng(12)
    current, e, q = rng.normal(0.2, 0.6, (300, 50)), rng.normal(size=(300, 50)), rng.normal(size=(300, 50))
    srm_neuron = ec.SRM(ec.kernel.Exponential(0.9), ec.kernel.Exponential(0.9, scale=-0.8), threshold=0.8)
    one = ec.forward(srm_neuron, current)
    other = ec.forward(ec.LIF(alpha=0.9, threshold=0.8), current)
    assert other.spikes.any()
    assert_same_bits(one.spikes, other.spikes, "spikes")
    np.testing.assert_allclose(one.potential, other.potential, rtol=0, atol=1e-12)
    for method in METHODS:
        pair = [ec.backward(t, e, grad_potential=q, method=method).current for t in (one, other)]
        assert_gradient_close(pair[0], pair[1], tol=1e-11)


@pytest.mark.parametrize("name", ["tau", "scale"])
def test_alpha_kernels_parameters_against_finite_differences(name):
    # A loss on the potential is smooth, as long as no spike acts on it.
    rng = np.random.default_rng(13)
    current, q = rng.normal(size=(25, 3)), rng.normal(size=(25, 3))
    values = {"tau": np.array([2.0, 5.0, 11.0]), "scale": 0.7}

    def loss(values):
        neuron = ec.SRM(ec.kernel.Alpha(**values), ec.kernel.Exponential(0.5, scale=0.0), threshold=1e9)
        return ec.forward(neuron, current)

    trace = loss(values)
    found = ec.backward(trace, grad_potential=q).parameters[f"epsilon.{name}"]
    step = 1e-6
    sides = []
    for sign in (1, -1):
        moved = loss(values | {name: values[name] + sign * step}).potential
        sides.append((q * moved).sum(0) if name == "tau" else (q * moved).sum())
    np.testing.assert_allclose(found, (sides[0] - sides[1]) / (2 * step), rtol=1e-6)


@pytest.mark.parametrize("wanted", [("epsilon.tau",), ("nu.scale", "threshold"), ()])
def test_srm_computes_the_requested_gradients(wanted):
    model = srm("Alpha", "DoubleExponential")
    current, state, seeds = random_data(np.random.default_rng(14), 30, (4,), model=model)
    neuron = neuron_of(model)
    trace = ec.forward(neuron, current, state=neuron._state(*state))
    every = ec.backward(trace, seeds[0]).parameters
    some = ec.backward(trace, seeds[0], parameters=wanted).parameters
    assert set(some) == set(wanted) and set(every) == set(neuron._parameter_names())
    for name in wanted:
        assert_same_bits(some[name], every[name], name)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: ec.SRM(0.9, ec.kernel.Alpha(3.0)), TypeError, ("epsilon", "kernel", "0.9")),
        (lambda: ec.SRM(ec.kernel.Alpha(3.0), None), TypeError, ("nu", "kernel", "None")),
        (lambda: ec.SRM(*[ec.kernel.Alpha(3.0)] * 2, threshold=0), ValueError, ("threshold", "above 0")),
        (lambda: ec.SRM(*[ec.kernel.Alpha(3.0)] * 2, max_spikes=0), ValueError, ("max_spikes", "1", "0")),
        (lambda: ec.kernel.Alpha(tau=0), ValueError, ("tau", "above 0", "0.0")),
        (lambda: ec.kernel.Alpha(tau="3"), TypeError, ("tau", "number", "'3'")),
        (lambda: ec.kernel.Exponential(1.5), ValueError, ("alpha", "[0, 1]", "1.5")),
        (lambda: ec.kernel.DoubleExponential(0.5, -0.1), ValueError, ("beta", "[0, 1]", "-0.1")),
        (lambda: ec.kernel.Exponential(0.5, scale=np.inf), ValueError, ("scale", "finite", "inf")),
        (lambda: ec.ALIF(0.9, 0.9), TypeError, ("adapt_scale", "number", "None")),
        (lambda: ec.ALIF(0.9, adapt_scale=1.0), ValueError, ("alpha_adapt", "tau_adapt", "neither")),
        (lambda: ec.CubaLIF(0.9), ValueError, ("alpha_syn", "tau_syn", "neither")),
        (lambda: ec.CubaLIF(0.9, 0.5, tau_syn=3.0), ValueError, ("alpha_syn", "tau_syn", "0.5", "3.0")),
        (lambda: ec.CubaLIF(0.9, 1.5), ValueError, ("alpha_syn", "[0, 1]", "1.5")),
        (lambda: ec.CubaLIF(0.9, 0.5, gain="1-beta"), ValueError, ("gain", "'1-alpha'", "'1-beta'")),
        (
            lambda: ec.ALIF(0.9, 0.5, adapt_scale=0.1, gain="1-alpha"),
            TypeError,
            ("gain", "number", "1-alpha"),
        ),
    ],
)
def test_values_out_of_range_are_named(make, error, words):
    with pytest.raises(error) as caught:
        make()
    for word in words:
        assert word in str(caught.value)


def test_descriptors_are_values():
    kernel = ec.kernel.Alpha(tau=5.0, scale=0.5)
    one, other = (ec.SRM(kernel, ec.kernel.Exponential(0.9, scale=-1.0)) for _ in range(2))
    assert one == other and hash(one) == hash(other)
    assert one != ec.SRM(kernel, ec.kernel.Exponential(0.8, scale=-1.0))
    namespace = {"SRM": ec.SRM, **vars(ec.kernel)}
    assert eval(repr(one), namespace) == one


def test_growth_of_an_srm_is_that_of_its_reset():
    current = np.random.default_rng(15).normal(0.2, 0.6, (100, 20))
    steep = ec.surrogate.SingleExponential(width=0.1)
    srm_neuron = ec.SRM(ec.kernel.Exponential(0.9), ec.kernel.Exponential(0.9, scale=-1.0))
    shares = [ec.growth(ec.forward(n, current), steep) for n in (srm_neuron, ec.LIF(alpha=0.9))]
    assert 0 < shares[0] == shares[1]
    other = ec.SRM(ec.kernel.Exponential(0.9), ec.kernel.Alpha(3.0, scale=-1.0))
    with pytest.raises(TypeError, match=r"growth.*Exponential.*Alpha"):
        ec.growth(ec.forward(other, current))
