"""The gradients of torch layers are those of the unrolled step function.

Property: for every method, the gradients of a layer and of `spike` are those of torch's own autograd through
the step function in float64, with the spikes of the reset detached for SLAYER. This holds for the current,
the initial state and each learnt parameter, alone or together, in one call or over chained calls. A network
trained on them equals a network trained on the unrolled step. Witnesses: `unrolled`, torch.autograd.gradcheck
where the spikes do not matter, and a small network of plain torch operations.
"""

import dataclasses
import warnings

import numpy as np
import pytest
from hypothesis import given

import exact
import exodus_core as ec
from cases import SURROGATES, every_model, name_of, problems, random_problem
from compare import assert_gradients_match, assert_same_bits
from drive import METHODS, neuron_of, surrogate_of
from oracle import Gradients, Seeds, linear_system
from reference import Model

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")
unrolled = pytest.importorskip("unrolled")

MODELS = [
    *every_model(),
    Model(alpha=0.9, gain="1-alpha", threshold=0.1),
    Model(alpha=np.array([0.5, 0.9]), gain=1.5, threshold=np.array([[0.5], [0.8], [0.9]])),
    Model(alpha=0.9, reset_amount=0.5, reset_timing="before_decay", v_min=-0.3),
    Model(
        alpha=np.array([[0.9], [0.6], [0.8]]), gain=np.array([0.7, 1.4]), reset_amount=np.array([0.4, 0.7])
    ),
    Model(alpha=0.9, gain=0.4, spiking=False),
    Model(alpha=0.9, gain="1-alpha", spiking=False),
]


@pytest.fixture(autouse=True, scope="module")
def float64_parameters():
    """Make learnt parameters float64, the precision of the witness."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def layer_of(problem, method="exodus", **keywords):
    """A layer that learns all parameters and returns a trace."""
    neuron = neuron_of(problem.model)
    given = {
        "learn": neuron._parameter_names(),
        "surrogate": surrogate_of(problem.surrogate),
        "output": "trace",
    }
    return snn.from_neuron(neuron, method=method, **{**given, **keywords})


def leaves_of(problem):
    """The current and the initial state as tensors that require gradients."""
    state = (problem.potential, problem.spikes)[: 2 if problem.model.spiking else 1]
    return tuple(torch.tensor(x, requires_grad=True) for x in (problem.current, *state))


def loss_of(trace, seeds):
    """sum(seeds * results), over the given seeds."""
    pairs = [(seeds.spikes, trace.spikes), (seeds.potential, trace.potential)]
    pairs += zip(seeds.state or (), trace.state, strict=False)
    return sum(torch.sum(torch.tensor(g) * x) for g, x in pairs if g is not None)


def gradients_of(current, state, parameters=None):
    found = {name: p.grad.numpy() for name, p in dict(parameters or {}).items()}
    return Gradients(current.grad.numpy(), tuple(x.grad.numpy() for x in state), found)


def solve(problem, layer):
    """All gradients of the problem, computed by the layer."""
    current, *state = leaves_of(problem)
    trace, _ = layer(current, tuple(state))
    loss_of(trace, problem.seeds).backward()
    return gradients_of(current, state, layer.named_parameters())


def witness(problem, method, **keywords):
    initial = (problem.potential, problem.spikes)
    detach = method == "slayer"
    data = (problem.model, problem.surrogate, problem.current, initial, problem.seeds)
    return unrolled.gradients(*data, detach_reset=detach, **keywords)


def magnitude_of(problem, method):
    """The magnitudes that tolerances are relative to."""
    return problem.expected(detach_reset=method == "slayer")[1]


def only(gradients, names):
    """The gradients, with only the named parameters."""
    return gradients._replace(parameters={name: gradients.parameters[name] for name in names})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_layer_is_autograd_of_the_unrolled_step(model, method):
    problem = random_problem(model, seed=1)
    found = solve(problem, layer_of(problem, method))
    assert_gradients_match(found, witness(problem, method), magnitude_of(problem, method), tol=1e-12)


@given(problems())
def test_any_layer_is_autograd_of_the_unrolled_step(problem):
    for method in METHODS:
        found = solve(problem, layer_of(problem, method))
        assert_gradients_match(found, witness(problem, method), magnitude_of(problem, method), tol=1e-10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS[::5], ids=name_of)
def test_function_is_autograd_of_the_unrolled_step(model, method):
    problem = random_problem(model, seed=2)
    current, *state = leaves_of(problem)
    surrogate = surrogate_of(problem.surrogate)
    trace = snn.spike(current, neuron_of(model), surrogate=surrogate, method=method, state=tuple(state))
    loss_of(trace, problem.seeds).backward()
    expected, magnitude = witness(problem, method), magnitude_of(problem, method)
    found = gradients_of(current, state)
    assert_gradients_match(found, only(expected, ()), only(magnitude, ()), tol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spiking", [True, False])
def test_learnt_tau(spiking, method):
    tau = np.array([3.0, 8.0])
    problem = random_problem(Model(alpha=exact.decay(1.0, tau), gain="1-alpha", spiking=spiking), lanes=(2,))
    kind = ec.LIF if spiking else ec.ExpLeak
    layer = snn.from_neuron(kind(tau=tau, gain="1-alpha"), learn=("tau",), method=method, output="trace")
    found = solve(problem, layer).parameters["tau"]
    expected = witness(problem, method, tau=tau).parameters["tau"]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fields", [{}, {"reset_amount": 0.4}, {"v_min": -0.2}, {"reset": "zero"}])
def test_integrate_and_fire_layer_is_a_lif_layer_without_leak(fields, method):
    problem = random_problem(Model(alpha=1.0, threshold=0.8, gain=0.6, **fields), seed=3)
    neuron = ec.IF(threshold=0.8, gain=0.6, **fields)
    layer = snn.from_neuron(neuron, learn=neuron._parameter_names(), method=method, output="trace")
    found = solve(problem, layer)
    expected, magnitude = witness(problem, method), magnitude_of(problem, method)
    names = neuron._parameter_names()
    assert_gradients_match(found, only(expected, names), only(magnitude, names), tol=1e-12)


PARTS = {
    "spikes": ("spikes",),
    "potential": ("potential",),
    "final potential": ("u",),
    "final spikes": ("s",),
    "final state": ("u", "s"),
    "spikes and final potential": ("spikes", "u"),
    "potential and final spikes": ("potential", "s"),
}


def part_of(seeds, names):
    """Only the named seeds."""
    u, s = seeds.state
    state = tuple(x if name in names else None for name, x in (("u", u), ("s", s)))
    spikes = seeds.spikes if "spikes" in names else None
    potential = seeds.potential if "potential" in names else None
    return Seeds(spikes, potential, state)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("names", PARTS.values(), ids=PARTS)
def test_loss_on_some_of_the_results(names, method):
    problem = random_problem(Model(alpha=0.9, threshold=0.8, v_min=-0.5), seed=4)
    problem = problem._replace(seeds=part_of(problem.seeds, names))
    found = solve(problem, layer_of(problem, method))
    assert_gradients_match(found, witness(problem, method), magnitude_of(problem, method), tol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("output", ["spikes", "potential"])
def test_output_chooses_the_input_of_the_loss(output, method):
    problem = random_problem(Model(alpha=0.9, threshold=0.8), seed=5)
    seed = getattr(problem.seeds, output)
    problem = problem._replace(seeds=Seeds(**{output: seed}))
    layer = layer_of(problem, method, output=output)
    current, *state = leaves_of(problem)
    result, _ = layer(current, tuple(state))
    (torch.tensor(seed) * result).sum().backward()
    found = gradients_of(current, state, layer.named_parameters())
    assert_gradients_match(found, witness(problem, method), magnitude_of(problem, method), tol=1e-12)


def in_chunks(layer, current, state):
    """Run three calls, each from the state of the one before, and return the trace of the whole."""
    traces = []
    for part in current.split((7, 8, 8)):
        trace, state = layer(part, state)
        traces.append(trace)
    spikes = None if traces[0].spikes is None else torch.cat([t.spikes for t in traces])
    return snn.Trace(spikes, torch.cat([t.potential for t in traces]), state)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS[::3], ids=name_of)
def test_gradients_flow_through_the_carried_state(model, method):
    problem = random_problem(model, seed=6, steps=23)
    layer = layer_of(problem, method)
    current, *state = leaves_of(problem)
    loss_of(in_chunks(layer, current, tuple(state)), problem.seeds).backward()
    found = gradients_of(current, state, layer.named_parameters())
    assert_gradients_match(found, witness(problem, method), magnitude_of(problem, method), tol=1e-12)


def test_detached_state_stops_the_gradient():
    layer = snn.LIF(0.9, threshold=0.5)
    first, second = (torch.randn(5, 4, requires_grad=True) for _ in range(2))
    _, state = layer(first, None)
    spikes, _ = layer(second, tuple(x.detach() for x in state))
    spikes.sum().backward()
    assert first.grad is None
    assert second.grad.abs().sum() > 0


NAMES = ("alpha", "threshold", "gain", "reset_amount", "v_min")
FULL = Model(alpha=0.9, threshold=0.8, gain=0.7, reset_amount=0.6, v_min=-0.3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NAMES)
def test_each_parameter_learnt_alone(name, method):
    problem = random_problem(FULL, seed=7)
    found = solve(problem, layer_of(problem, method, learn=(name,)))
    expected = only(witness(problem, method), (name,))
    magnitude = only(magnitude_of(problem, method), (name,))
    assert_gradients_match(found, expected, magnitude, tol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_parameter_needs_no_gradient_of_the_current(name):
    problem = random_problem(FULL, seed=8)
    layer = layer_of(problem)
    layer.requires_grad_(False)
    layer.get_parameter(name).requires_grad_(True)
    current, *state = (x.detach() for x in leaves_of(problem))
    loss_of(layer(current, tuple(state))[0], problem.seeds).backward()
    expected = witness(problem, "exodus").parameters[name]
    np.testing.assert_allclose(layer.get_parameter(name).grad, expected, rtol=1e-11)
    assert [n for n, p in layer.named_parameters() if p.grad is not None] == [name]
    assert current.grad is None


# Shapes that broadcast to (batch, channels, height, width). The data are (batch, time, channels, height,
# width).
SHAPES = [(), (3, 1, 1), (4,), (2, 1), (2, 1, 1, 1), (1, 3, 1, 1), (3, 1, 4), (2, 3, 2, 4)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_learnt_shape(shape):
    lanes = (2, 3, 2, 4)
    rng = np.random.default_rng(9)
    ends = {"alpha": (0.5, 0.95), "threshold": (0.6, 1.0), "gain": (0.5, 1.5), "v_min": (-0.6, -0.2)}
    values = {name: rng.uniform(*end, shape) for name, end in ends.items()}
    problem = random_problem(Model(**values), seed=9, lanes=lanes)
    layer = layer_of(problem, time_dim=1)
    current, *state = leaves_of(problem)
    trace, _ = layer(current.movedim(0, 1), tuple(state))
    trace.spikes, trace.potential = (x.movedim(1, 0) for x in (trace.spikes, trace.potential))
    loss_of(trace, problem.seeds).backward()
    found = gradients_of(current, state, layer.named_parameters())
    assert {p.shape for p in layer.parameters()} == {shape}
    assert_gradients_match(found, witness(problem, "exodus"), magnitude_of(problem, "exodus"), tol=1e-12)


def test_mapping_gives_each_channel_its_own_value():
    lanes = (2, 3, 2, 2)
    shared = random_problem(Model(alpha=0.9, threshold=0.8), seed=10, lanes=lanes)
    layer = layer_of(shared, learn={"alpha": (3, 1, 1), "threshold": (3, 1, 1)})
    own = {"alpha": np.full((3, 1, 1), 0.9), "threshold": np.full((3, 1, 1), 0.8)}
    problem = shared._replace(model=Model(**own))
    names = tuple(own)
    expected, magnitude = witness(problem, "exodus"), magnitude_of(problem, "exodus")
    found = solve(shared, layer)
    assert_gradients_match(found, only(expected, names), only(magnitude, names), tol=1e-12)


CLAMPED = [("alpha", 1.3), ("alpha", -0.2), ("threshold", -0.5), ("threshold", 0.0)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("name", "value"), CLAMPED)
def test_value_out_of_range_is_clamped_and_the_gradient_passes_straight_through(name, value, method):
    atan = SURROGATES[8]  # Its width does not depend on the threshold, which may be tiny here.
    problem = random_problem(Model(alpha=0.9, threshold=0.8), seed=11, surrogate=atan)
    layer = layer_of(problem, method)
    with torch.no_grad():
        layer.get_parameter(name).fill_(value)
    used = getattr(layer.neuron, name)
    assert used == min(max(value, 0.0), 1.0) if name == "alpha" else 0.0 < used < 1e-6
    problem = problem._replace(model=dataclasses.replace(problem.model, **{name: used}))
    found = solve(problem, layer)
    assert_gradients_match(found, witness(problem, method), magnitude_of(problem, method), tol=1e-12)


def test_value_out_of_range_can_come_back():
    layer = snn.LIF(1.0, threshold=0.8, learn=("alpha",), output="potential")
    with torch.no_grad():
        layer.alpha.fill_(1.2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    layer(torch.full((6, 2), 0.1)).sum().backward()
    optimizer.step()
    assert layer.neuron.alpha < 1.0


def test_learnt_tau_below_zero_forgets_everything_but_has_a_gradient():
    layer = snn.ExpLeak(tau=2.0, learn=("tau",))
    with torch.no_grad():
        layer.tau.fill_(-1.0)
    current = torch.randn(6, 3)
    result = layer(current)
    result.sum().backward()
    torch.testing.assert_close(result, current, rtol=0, atol=1e-6)
    assert layer.tau.grad != 0.0


@pytest.mark.parametrize("max_spikes", [1, None])
@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda s: s.name)
def test_callable_on_tensors_is_the_built_in(surrogate, max_spikes):
    model = Model(alpha=0.9, threshold=np.array([[0.7], [0.9], [1.1]]), max_spikes=max_spikes)
    problem = random_problem(model, seed=12, surrogate=surrogate)

    def formula(potential, threshold):
        assert isinstance(potential, torch.Tensor)
        return torch.from_numpy(surrogate(potential.numpy(), threshold.numpy()))

    magnitude = magnitude_of(problem, "exodus")
    built_in = solve(problem, layer_of(problem))
    assert_gradients_match(
        solve(problem, layer_of(problem, surrogate=formula)), built_in, magnitude, tol=1e-12
    )


@pytest.mark.parametrize("method", METHODS)
def test_callable_gets_the_layout_of_the_data(method):
    seen = []

    def exponential(potential, threshold):
        seen.append((potential.shape, threshold.shape))
        return 0.5 * torch.exp(-(potential - threshold).abs() / (0.5 * threshold)) / (0.5 * threshold)

    current = torch.randn(2, 3, 9, 4)
    threshold = np.array([[0.5], [0.7], [0.9]])
    layer = snn.LIF(0.9, threshold=threshold, time_dim=2, method=method)
    found = [gradient_of_sum(layer, current)]
    layer.surrogate = exponential
    found.append(gradient_of_sum(layer, current))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-14)
    assert seen == [((2, 3, 9, 4), (1, 3, 1, 1))]


def test_callable_costs_no_warning():
    layer = snn.LIF(0.9, threshold=np.array([0.5, 0.7]), surrogate=lambda u, threshold: (u > threshold) * 0.5)
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            gradient_of_sum(layer, torch.randn(5, 2))
    finally:
        torch.set_warn_always(False)


def gradient_of_sum(layer, current):
    current = current.clone().requires_grad_()
    layer(current).sum().backward()
    return current.grad


def test_graph_can_be_walked_twice():
    problem = random_problem(FULL, seed=13)
    layer = layer_of(problem)
    current, *state = leaves_of(problem)
    loss = loss_of(layer(current, tuple(state))[0], problem.seeds)
    leaves = (current, *state, *layer.parameters())
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    second = torch.autograd.grad(loss, leaves)
    for one, other in zip(first, second, strict=True):
        assert_same_bits(one, other)


def test_layer_used_twice_adds_up():
    layer = snn.LIF(0.9, threshold=0.5, learn=("alpha", "gain"))
    inputs = torch.randn(2, 8, 3)
    apart = []
    for one in inputs:
        layer.zero_grad()
        layer(one).sum().backward()
        apart.append((layer.alpha.grad, layer.gain.grad))
    layer.zero_grad()
    (layer(inputs[0]).sum() + layer(inputs[1]).sum()).backward()
    torch.testing.assert_close(layer.alpha.grad, apart[0][0] + apart[1][0])
    torch.testing.assert_close(layer.gain.grad, apart[0][1] + apart[1][1])


def test_recomputed_activations_give_the_same_gradients():
    checkpoint = pytest.importorskip("torch.utils.checkpoint").checkpoint
    layer = snn.LIF(0.9, threshold=0.5, learn=("alpha", "gain"))
    found = []
    for run in (layer, lambda x: checkpoint(layer, x, use_reentrant=False)):
        current = torch.randn(9, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
        leaves = (current, *layer.parameters())
        found.append(torch.autograd.grad(run(current).sum(), leaves))
    for one, other in zip(*found, strict=True):
        assert_same_bits(one, other)


@pytest.mark.parametrize("change", [10.0, -1.0])
@pytest.mark.parametrize("name", NAMES)
def test_parameter_changed_before_backward_does_not_change_the_gradient(name, change):
    # torch's own layers raise an error. Here the old value is used; a mixture of both would be wrong.
    values = {n: np.full(3, getattr(FULL, n)) for n in NAMES}
    layer = snn.LIF(**values, learn=NAMES)
    current = torch.randn(8, 3, generator=torch.Generator().manual_seed(2)).requires_grad_()
    expected = torch.autograd.grad(layer(current).sum(), (current, *layer.parameters()))
    spikes = layer(current)
    with torch.no_grad():
        layer.get_parameter(name).mul_(change)
    try:
        found = torch.autograd.grad(spikes.sum(), (current, *layer.parameters()))
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)
        return
    for one, other in zip(found, expected, strict=True):
        assert_same_bits(one, other)


def smooth(kind, method="exodus", **keywords):
    """A function of the current, the state and the parameters, for gradcheck, and their values."""
    layer = kind(**keywords, method=method, output="trace")
    names = [name for name, _ in layer.named_parameters()]

    def function(current, *rest):
        state, values = rest[: -len(names)], rest[-len(names) :]
        arguments = (current, tuple(state))
        trace, final = torch.func.functional_call(layer, dict(zip(names, values, strict=True)), arguments)
        return trace.potential, final.potential

    fields = len(layer.neuron._state._fields)
    inputs = [0.3 * torch.randn(n, generator=torch.Generator().manual_seed(3)) for n in [(7, 2, 3)]]
    inputs += [torch.full((2, 3), 0.2), torch.zeros(2, 3)][:fields]
    inputs += [p.detach().clone() for p in layer.parameters()]
    return function, [x.requires_grad_() for x in inputs]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "keywords",
    [
        {"alpha": 0.8, "gain": 0.7, "learn": ("alpha", "gain")},
        {"tau": 3.0, "dt": 0.5, "gain": 0.7, "learn": ("tau", "gain")},
        {"alpha": 0.8, "gain": "1-alpha", "learn": ("alpha",)},
        {"tau": 3.0, "gain": "1-alpha", "learn": ("tau",)},
        {"alpha": [0.5, 0.8, 0.9], "gain": [[0.7], [1.2]], "learn": ("alpha", "gain")},
    ],
    ids=str,
)
def test_readout_has_the_numerical_gradient(keywords, method):
    function, inputs = smooth(snn.ExpLeak, method, **keywords)
    assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reset", [{"reset": "none", "threshold": 0.1}, {"threshold": 50.0}], ids=str)
def test_potential_without_reset_has_the_numerical_gradient(reset, method):
    keywords = {"alpha": 0.8, "gain": 0.7, "learn": ("alpha", "gain"), **reset}
    function, inputs = smooth(snn.LIF, method, surrogate=ec.surrogate.Boxcar(), **keywords)
    inputs[2].requires_grad_(method != "slayer")  # SLAYER omits the reset by the initial spikes
    assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize("fields", [{}, {"v_min": -0.4}, {"reset": "zero"}], ids=str)
def test_potential_between_spikes_has_the_numerical_gradient(fields):
    # With h = 0 the spikes are constants, as they are under small changes that flip no spike.
    learn = ("alpha", "gain", "v_min") if "v_min" in fields else ("alpha", "gain")
    learn += ("reset_amount",) if "reset" not in fields else ()
    amount = {"reset_amount": 0.4} if "reset" not in fields else {}
    keywords = {"alpha": 0.8, "gain": 2.0, "threshold": 0.5, **amount, **fields, "learn": learn}
    function, inputs = smooth(snn.LIF, surrogate=ec.surrogate.StraightThrough(scale=0.0), **keywords)
    inputs[2].requires_grad_(False)  # the initial spikes
    assert torch.autograd.gradcheck(function, inputs)


class Spike(torch.autograd.Function):
    """The spike function; backward, a single exponential of width 1/2 and scale 1/2."""

    @staticmethod
    def forward(ctx, potential, threshold):
        ctx.save_for_backward(potential, threshold)
        return (potential >= threshold).to(potential.dtype)

    @staticmethod
    def backward(ctx, grad):
        potential, threshold = ctx.saved_tensors
        width = 0.5 * threshold
        h = 0.5 * torch.exp(-(potential - threshold).abs() / width) / width
        return grad * h, (-grad * h).sum_to_size(threshold.shape)


class UnrolledLIF(torch.nn.Module):
    """The leaky integrate-and-fire neuron in plain torch operations, step by step."""

    def __init__(self, alpha, threshold, shape, detach):
        super().__init__()
        self.alpha = torch.nn.Parameter(torch.full(shape, alpha))
        self.threshold = torch.nn.Parameter(torch.full(shape, threshold))
        self.detach = detach

    def forward(self, current):
        u = s = torch.zeros_like(current[0])
        spikes = []
        for x in current:
            reset = s.detach() if self.detach else s
            u = ((self.alpha * u) + x) - (self.threshold * reset)
            s = Spike.apply(u, self.threshold)
            spikes.append(s)
        return torch.stack(spikes)


def network(seed, hidden, output):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(6, 10), hidden, torch.nn.Linear(10, 3), output)


def trained(net, steps=8):
    """Losses and final parameters after some steps of Adam."""
    generator = torch.Generator().manual_seed(4)
    data = 2.0 * torch.rand(20, 5, 6, generator=generator)
    target = torch.randint(3, (5,), generator=generator)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(data).sum(0), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses), torch.nn.utils.parameters_to_vector(net.parameters()).detach()


@pytest.mark.parametrize("method", METHODS)
def test_trained_network_is_the_network_of_unrolled_steps(method):
    learn = {"alpha": (10,), "threshold": (10,)}
    layers = (
        snn.LIF(0.8, threshold=0.7, learn=learn, method=method),
        snn.LIF(0.9, threshold=0.5, learn=("alpha", "threshold"), method=method),
    )
    detach = method == "slayer"
    steps = (UnrolledLIF(0.8, 0.7, (10,), detach), UnrolledLIF(0.9, 0.5, (), detach))
    losses, parameters = trained(network(5, *layers))
    expected_losses, expected = trained(network(5, *steps))
    assert losses.unique().numel() > 4, "nothing was learnt"
    torch.testing.assert_close(losses, expected_losses, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(parameters, expected, rtol=1e-9, atol=1e-9)


def test_oracle_agrees_on_a_layer():
    # This witness does not use torch's autograd, unlike those above.
    problem = random_problem(FULL, seed=14)
    run = problem.run()
    h = problem.surrogate(run.potential, FULL.threshold)
    expected, magnitude = linear_system(run, h, problem.seeds)
    assert_gradients_match(solve(problem, layer_of(problem)), expected, magnitude, tol=1e-12)


def test_a_custom_surrogate_cannot_change_its_arguments():
    def tidy(u, threshold):
        return torch.exp(-(u - threshold).abs())

    def in_place(u, threshold):
        return u.sub_(threshold).abs_().neg_().exp_()

    torch.manual_seed(0)
    current = torch.randn(30, 4, 3)
    for neuron in (
        ec.LIF(alpha=0.9, v_min=-0.3),
        ec.LIF(0.9, threshold=np.linspace(0.5, 1, 3)),
        ec.ALIF(0.9, 0.8, 0.2),
    ):
        found = []
        for curve in (tidy, in_place):
            x = current.clone().requires_grad_()
            trace = snn.spike(x, neuron, surrogate=curve)
            before = trace.potential.detach().clone()
            (trace.spikes.sum() + trace.potential.sum()).backward()
            assert torch.equal(trace.potential.detach(), before)
            found.append(x.grad)
        assert torch.equal(*found)
