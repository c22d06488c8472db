"""Tensors may have any memory layout. Results equal those of the numpy front end, and keep the layout.

Property: for every memory layout of the current, the state and the incoming gradients, and for time on any
dimension, forward has the bits, and backward the values, of the numpy front end on a contiguous copy with
time first. Dense strides are kept. The rules of autograd hold (views, no_grad, inference mode, in-place
changes, double backward). Only tensors that a backward pass reads are saved. Witness: `exodus_core.forward`
and `backward` on contiguous arrays, and torch's own bookkeeping.
"""

import functools

import numpy as np
import pytest

import exodus_core as ec
from compare import assert_gradient_close, assert_same_bits
from drive import METHODS
from exodus_core._layout import Layout
from exodus_core.torch._direct import Place
from neuron_examples import FIRING, SCALARS

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")

DTYPES = [torch.float32, torch.float64]
NEURONS = [
    ec.LIF(alpha=0.9, threshold=0.6, gain=0.8, v_min=-0.5),
    ec.IF(threshold=0.7),
    ec.ExpLeak(alpha=0.9, gain="1-alpha"),
]
LIF = NEURONS[0]


def normal(*shape, dtype=torch.float32, seed=0):
    """Random currents at which most neurons spike now and then."""
    generator = torch.Generator().manual_seed(seed)
    return 0.3 + 0.8 * torch.randn(shape, generator=generator, dtype=dtype)


# By name: (shape, a function of a tensor of that shape, the time dimension). Dense strides are kept.
DENSE = {
    "time first": ((9, 2, 3, 4), lambda x: x, 0),
    "time second": ((2, 9, 3, 4), lambda x: x, 1),
    "time last": ((2, 3, 4, 9), lambda x: x, -1),
    "time before last": ((2, 3, 9, 4), lambda x: x, -2),
    "time first, counted from the end": ((9, 2, 3, 4), lambda x: x, -4),
    "only time": ((9,), lambda x: x, 0),
    "one neuron": ((9, 1, 1, 1), lambda x: x, 0),
    "one step": ((2, 1, 3), lambda x: x, 1),
    "channels last": ((9, 3, 4, 5), lambda x: x.to(memory_format=torch.channels_last), 0),
    "channels last in 3d": ((2, 3, 9, 4, 5), lambda x: x.to(memory_format=torch.channels_last_3d), 2),
    "transposed": ((4, 9), lambda x: x.t(), 0),
    "permuted": ((2, 3, 9, 4), lambda x: x.permute(2, 0, 3, 1), 0),
    "permuted, time inside": ((2, 9, 3, 4), lambda x: x.permute(3, 1, 0, 2), 1),
    "dimensions of size one": ((2, 1, 9, 1, 4), lambda x: x.permute(2, 1, 4, 3, 0), 0),
    "offset in its storage": ((11, 2, 3), lambda x: x[2:], 0),
}
LOOSE = {
    "every second step": ((18, 2, 3), lambda x: x[::2], 0),
    "inner slice": ((9, 4, 7), lambda x: x[..., 1:-2], 0),
    "permuted slice": ((4, 9, 6), lambda x: x[:, :, ::2].permute(1, 2, 0), 0),
    "expanded": ((9, 2, 1, 3), lambda x: x.expand(9, 2, 4, 3), 0),
    "expanded over time": ((2, 1, 3), lambda x: x.expand(2, 9, 3), 1),
    "one number": ((), lambda x: x.expand(9, 3), 0),
    "overlapping windows": ((20,), lambda x: x.unfold(0, 9, 4), 1),
    "diagonal": ((9, 9, 3), lambda x: x.diagonal(), 1),
    "part of a complex number": ((9, 2, 3, 2), lambda x: torch.view_as_complex(x).imag, 0),
}
LAYOUTS = DENSE | LOOSE


def laid_out(name, dtype=torch.float32):
    """The tensor of a layout, the leaf of which it is a view, and the time dimension."""
    shape, change, time_dim = LAYOUTS[name]
    leaf = normal(*shape, dtype=dtype).requires_grad_()
    return change(leaf), leaf, time_dim


def values(tensor):
    """A contiguous copy."""
    return np.array(tensor.detach().resolve_neg().numpy(), order="C")


def array(tensor, time_dim=0):
    """A contiguous copy with time first."""
    return values(tensor.movedim(time_dim, 0))


def reordered(tensor, order):
    """The same tensor with its dimensions in another order in memory, outermost first."""
    return tensor.permute(order).contiguous().permute(np.argsort(order).tolist())


def in_memory_order(tensor):
    """The strides of the dimensions of more than one element."""
    return [s for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("neuron", NEURONS, ids=lambda n: type(n).__name__)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_forward_has_the_bits_of_the_numpy_front_end(layout, neuron, dtype):
    current, _, time_dim = laid_out(layout, dtype)
    trace = snn.spike(current, neuron, time_dim=time_dim)
    expected = ec.forward(neuron, array(current, time_dim))
    assert_same_bits(array(trace.potential, time_dim), expected.potential)
    if neuron._fires:
        assert_same_bits(array(trace.spikes, time_dim), expected.spikes)
    for one, other in zip(trace.state, expected.state, strict=True):
        assert_same_bits(values(one), other)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("neuron", NEURONS, ids=lambda n: type(n).__name__)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_backward_is_that_of_the_numpy_front_end(layout, neuron, method):
    current, _, time_dim = laid_out(layout, torch.float64)
    trace = snn.spike(current, neuron, time_dim=time_dim, method=method)
    found = torch.autograd.grad(trace.potential.sum(), current, retain_graph=True)[0]
    seed = np.ones(array(current, time_dim).shape)
    run = ec.forward(neuron, array(current, time_dim))
    expected = ec.backward(run, method=method, grad_potential=seed).current
    assert_gradient_close(array(found, time_dim), expected, tol=1e-13)
    if neuron._fires:
        found = torch.autograd.grad(trace.spikes.sum(), current)[0]
        expected = ec.backward(run, seed, method=method).current
        assert_gradient_close(array(found, time_dim), expected, tol=1e-13)


@pytest.mark.parametrize("layout", DENSE)
def test_results_lie_like_a_dense_input(layout):
    current, _, time_dim = laid_out(layout)
    trace = snn.spike(current, LIF, time_dim=time_dim)
    grad = torch.autograd.grad(trace.spikes.sum(), current)[0]
    for result in (trace.spikes, trace.potential, grad):
        assert result.shape == current.shape
        assert in_memory_order(result) == in_memory_order(current)


@pytest.mark.parametrize("layout", ["channels last", "channels last in 3d"])
def test_memory_format_survives(layout):
    current, _, time_dim = laid_out(layout)
    order = torch.channels_last if current.ndim == 4 else torch.channels_last_3d
    spikes = snn.LIF(0.9, time_dim=time_dim)(current)
    assert spikes.is_contiguous(memory_format=order)
    assert not spikes.is_contiguous()


@pytest.mark.parametrize("layout", LOOSE)
def test_results_of_a_loose_input_are_dense(layout):
    current, _, time_dim = laid_out(layout)
    trace = snn.spike(current, LIF, time_dim=time_dim)
    for result in (trace.spikes, trace.potential):
        assert result.shape == current.shape
        assert result.untyped_storage().nbytes() == 4 * result.numel()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_input_is_left_alone(layout):
    current, leaf, time_dim = laid_out(layout)
    before = leaf.detach().clone()
    snn.spike(current, LIF, time_dim=time_dim).spikes.sum().backward()
    assert_same_bits(leaf.detach(), before)
    assert current._version == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradient_reaches_the_tensor_behind_a_view(layout):
    current, leaf, time_dim = laid_out(layout, torch.float64)
    snn.spike(current, LIF, time_dim=time_dim).spikes.sum().backward()
    run = ec.forward(LIF, array(current, time_dim))
    expected = torch.from_numpy(ec.backward(run, np.ones_like(run.spikes)).current).movedim(0, time_dim)
    again, other_leaf, _ = laid_out(layout, torch.float64)
    again.backward(expected)
    torch.testing.assert_close(leaf.grad, other_leaf.grad, rtol=1e-12, atol=1e-13)


# Memory layouts of a gradient of shape (9, 4, 6).
GRADIENTS = {
    "contiguous": lambda x: x,
    "expanded": lambda x: x[:1, :, :1].expand_as(x),
    "one number": lambda x: x[0, 0, 0].expand_as(x),
    "permuted": lambda x: x.permute(2, 0, 1).contiguous().permute(1, 2, 0),
    "slice": lambda x: x.repeat(1, 1, 2)[..., ::2],
    "flipped": lambda x: x.flip(0, 2),
}


@pytest.mark.parametrize("layout", GRADIENTS)
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0)], ids=str)
def test_incoming_gradient_may_lie_in_any_way(order, layout):
    current = reordered(normal(9, 4, 6, dtype=torch.float64), order)
    current.requires_grad_()
    seeds = [GRADIENTS[layout](normal(9, 4, 6, dtype=torch.float64, seed=seed)) for seed in (1, 2)]
    trace = snn.spike(current, LIF)
    found = torch.autograd.grad((trace.spikes, trace.potential), current, seeds)[0]
    e, q = map(array, seeds)
    expected = ec.backward(ec.forward(LIF, array(current)), e, grad_potential=q).current
    assert_gradient_close(array(found), expected, tol=1e-13)


# Memory layouts of a state of shape (4, 6).
STATES = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.t().contiguous().t(),
    "expanded": lambda x: x[:, :1].expand_as(x),
    "slice": lambda x: x.repeat(2, 2)[::2, ::2],
}


@pytest.mark.parametrize("layout", STATES)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)], ids=str)
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_state_and_its_gradient_may_lie_in_any_way(reset, order, layout):
    current = reordered(normal(9, 4, 6, dtype=torch.float64), order)
    change = STATES[layout]
    state = [change(normal(4, 6, dtype=torch.float64, seed=seed)).requires_grad_() for seed in (1, 2)]
    seeds = [change(normal(4, 6, dtype=torch.float64, seed=seed)) for seed in (3, 4)]
    layer = snn.LIF(0.9, 0.6, reset=reset, learn=("alpha", "threshold"), output="trace").double()
    trace, final = layer(current, tuple(state))
    found = torch.autograd.grad(final, (*state, *layer.parameters()), seeds)
    neuron = layer.neuron
    run = ec.forward(neuron, array(current), state=neuron._state(*map(values, state)))
    assert_same_bits(values(trace.spikes), run.spikes)
    expected = ec.backward(run, grad_state=tuple(map(values, seeds)))
    parameters = [expected.parameters[name] for name in ("alpha", "threshold")]
    for one, other in zip(found, (*expected.state, *parameters), strict=True):
        np.testing.assert_allclose(values(one), other, rtol=1e-12, atol=1e-14)


def lazily_negated(tensor):
    """The same values, as a tensor with the negative bit: memory holds the negated values."""
    return torch.view_as_complex(torch.stack([tensor, -tensor], -1)).conj().imag


@pytest.mark.parametrize("which", ["current", "state", "gradient"])
def test_lazily_negated_tensor(which):
    found = []
    for change in (lambda x: x, lazily_negated):
        tensors = {"current": normal(9, 4), "state": normal(4, seed=1), "gradient": normal(9, 4, seed=2)}
        tensors[which] = change(tensors[which])
        current = tensors["current"].requires_grad_()
        trace = snn.spike(current, LIF, state=(tensors["state"], torch.zeros(4)))
        found.append(torch.autograd.grad(trace.spikes, current, tensors["gradient"])[0])
    assert_same_bits(*map(values, found))


@pytest.mark.parametrize("requires_grad", [True, False])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradient_mode_does_not_change_the_bits(mode, requires_grad):
    current = normal(9, 4).requires_grad_(requires_grad)
    layer = snn.LIF(0.9, threshold=0.6, learn=("alpha", "gain"))
    expected = ec.forward(layer.neuron, array(current))
    with mode():
        spikes, state = layer(current, None)
        spikes, state = torch.cat([spikes, layer(current, state)[0]]), state
    assert_same_bits(spikes.detach()[:9], expected.spikes)
    assert_same_bits(state.potential.detach(), expected.state.potential)
    assert spikes.requires_grad == (mode is torch.enable_grad)
    assert spikes.is_inference() == (mode is torch.inference_mode)


def test_tensor_made_in_inference_mode():
    with torch.inference_mode():
        current = normal(9, 4)
    assert_same_bits(snn.spike(current, LIF).spikes, ec.forward(LIF, array(current)).spikes)


def test_no_graph_where_nothing_needs_a_gradient():
    trace = snn.spike(normal(9, 4), LIF)
    results = (trace.spikes, trace.potential, *trace.state)
    assert not any(x.requires_grad or x.grad_fn is not None for x in results)
    assert not snn.LIF(0.9)(normal(9, 4)).requires_grad


@pytest.mark.parametrize("which", ["current", "state", "parameter"])
def test_graph_where_one_thing_needs_a_gradient(which):
    current, state = normal(9, 4), [normal(4, seed=1), torch.zeros(4)]
    layer = snn.LIF(0.9, learn=("alpha",)).requires_grad_(False)
    leaf = {"current": current, "state": state[0], "parameter": layer.alpha}[which].requires_grad_()
    spikes, final = layer(current, tuple(state))
    (spikes.sum() + final.potential.sum()).backward()
    assert leaf.grad.abs().sum() > 0
    others = [x for x in (current, *state, layer.alpha) if x is not leaf]
    assert all(x.grad is None for x in others)


def test_changing_the_saved_potential_in_place_is_an_error():
    trace = snn.spike(normal(9, 4).requires_grad_(), LIF)
    trace.potential.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        trace.spikes.sum().backward()


def test_changing_the_saved_current_in_place_is_an_error():
    current = normal(9, 4)
    spikes = snn.LIF(0.9, learn=("gain",))(current)
    current.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        spikes.sum().backward()


def test_changing_the_saved_state_in_place_is_an_error():
    state = (normal(4), torch.zeros(4))
    spikes, _ = snn.LIF(0.9, learn=("alpha",))(normal(9, 4), state)
    state[0].add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        spikes.sum().backward()


def test_spikes_may_be_changed_in_place():
    found = []
    for change in (lambda s: s.mul(3.0), lambda s: s.mul_(3.0)):
        current = normal(9, 4).requires_grad_()
        change(snn.spike(current, LIF).spikes).sum().backward()
        found.append(current.grad)
    assert_same_bits(*found)


def test_current_that_is_not_saved_may_be_changed_in_place():
    found = []
    for factor in (1.0, 2.0):
        leaf = normal(9, 4).requires_grad_()
        current = leaf * 1.0
        spikes = snn.LIF(0.9, threshold=0.6, learn=("alpha",))(current)
        current.mul_(factor)
        spikes.sum().backward()
        found.append(leaf.grad)
    assert_same_bits(*found)


def test_a_second_derivative_is_an_error():
    current = normal(9, 4).requires_grad_()
    spikes = snn.spike(current, LIF).spikes
    seed = torch.ones_like(spikes).requires_grad_()
    grad = torch.autograd.grad(spikes, current, seed, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="twice"):
        grad.sum().backward()


@pytest.mark.parametrize("learn", [(), ("alpha",)])
def test_a_gradient_penalty_is_an_error_rather_than_left_out(learn):
    current = normal(9, 4).requires_grad_()
    layer = snn.LIF(0.9, threshold=0.6, learn=learn)
    spikes = layer(current)
    grad = torch.autograd.grad(spikes.sum(), current, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="twice"):
        (spikes.sum() + grad.square().sum()).backward()


def saved_addresses(run):
    """The addresses of the tensors that a run saves for its backward pass, and the result."""
    kept = set()

    def keep(tensor):
        kept.add(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    return kept, result


KEYWORDS = [
    ({"alpha": 0.9}, False),
    ({"alpha": 0.9, "learn": ("alpha", "threshold")}, False),
    ({"alpha": 0.9, "gain": "1-alpha"}, False),
    ({"alpha": 0.9, "gain": "1-alpha", "learn": ("threshold",)}, False),
    ({"alpha": 0.9, "learn": ("gain",)}, True),
    ({"alpha": 0.9, "gain": "1-alpha", "learn": ("alpha",)}, True),
    ({"tau": 3.0, "gain": "1-alpha", "learn": ("tau",)}, True),
]


@pytest.mark.parametrize(("keywords", "reads_current"), KEYWORDS, ids=str)
def test_current_is_saved_only_for_the_gradient_of_the_gain(keywords, reads_current):
    current = normal(9, 4).requires_grad_()
    layer = snn.LIF(**keywords, output="trace")
    kept, trace = saved_addresses(lambda: layer(current))
    assert (current.data_ptr() in kept) == reads_current
    assert kept - {current.data_ptr()} == {trace.potential.data_ptr()}


READOUTS = [
    ({"alpha": 0.9}, set()),
    ({"tau": 3.0, "gain": "1-alpha"}, set()),
    ({"alpha": 0.9, "learn": ("alpha",)}, {"potential"}),
    ({"tau": 3.0, "learn": ("tau",)}, {"potential"}),
    ({"alpha": 0.9, "gain": "1-alpha", "learn": ("alpha",)}, {"potential", "current"}),
    ({"alpha": 0.9, "learn": ("gain",)}, {"potential", "current"}),
]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("keywords", "names"), READOUTS, ids=lambda x: "" if isinstance(x, set) else str(x))
def test_readout_saves_its_potential_only_for_gradients_of_parameters(keywords, names, frozen):
    current = normal(9, 4).requires_grad_()
    layer = snn.ExpLeak(**keywords)
    layer.requires_grad_(not frozen)
    state = layer.initial_state((4,), 0.5)
    kept, (potential, final) = saved_addresses(lambda: layer(current, state))
    of = {"potential": potential.data_ptr(), "current": current.data_ptr()}
    wanted = set() if frozen else names
    assert kept == {of[name] for name in wanted} | ({state.potential.data_ptr()} if wanted else set())
    (potential.square().sum() + final.potential.sum()).backward()
    trace = ec.forward(layer.neuron, array(current.detach()), state=tuple(map(array, state)))
    grads = ec.backward(
        trace, grad_potential=2 * trace.potential, grad_state=(np.ones(4, np.float32),), parameters=()
    )
    assert_same_bits(current.grad, grads.current)


def test_filter_saves_nothing():
    x = normal(9, 4).requires_grad_()
    for kernel in (ec.kernel.Alpha(3.0), ec.kernel.FIR([0.5, 0.25, 0.125])):
        assert saved_addresses(lambda kernel=kernel: snn.kernel_filter(kernel, x))[0] == set()


@pytest.fixture
def allocations(monkeypatch):
    """The number of arrays over time that are allocated."""
    made = []
    for kind, name in ((Layout, "empty"), (Place, "_empty")):
        empty = getattr(kind, name)

        def counted(self, *args, empty=empty):
            made.append(self.shape)
            return empty(self, *args)

        monkeypatch.setattr(kind, name, counted)
    return made


SPIKING = {name: functools.partial(snn.from_neuron, SCALARS[name]) for name in FIRING}
SPIKING |= {
    f"{name} that learns": functools.partial(
        snn.from_neuron, SCALARS[name], learn=SCALARS[name]._parameter_names()
    )
    for name in FIRING
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", SPIKING)
def test_unused_potential_is_not_allocated(name, mode, allocations):
    current = normal(9, 4)
    expected, last = SPIKING[name](output="trace")(current, None)
    for output, count in (("spikes", 1), ("potential", 2), ("trace", 2)):
        layer = SPIKING[name](output=output)
        allocations.clear()
        with mode():
            found, state = layer(current, None)
            assert len(allocations) == count
            layer.step(current[0])
            assert len(allocations) == 2 * count
        if output == "spikes":
            assert_same_bits(found, expected.spikes.detach())
        for one, other in zip(state, last, strict=True):
            assert_same_bits(one, other.detach())


def test_potential_is_allocated_where_something_needs_a_gradient(allocations):
    for learn in ((), ("alpha",)):
        current = normal(9, 4).requires_grad_(not learn)
        layer = snn.LIF(0.9, learn=learn)
        allocations.clear()
        spikes = layer(current)
        assert len(allocations) == 2
        spikes.sum().backward()
    allocations.clear()
    snn.LIF(0.9)(normal(9, 4))
    assert len(allocations) == 1


def test_current_is_not_saved_for_a_gain_that_is_frozen():
    current = normal(9, 4).requires_grad_()
    layer = snn.LIF(0.9, learn=("gain", "alpha"))
    layer.gain.requires_grad_(False)
    kept, _ = saved_addresses(lambda: layer(current))
    assert current.data_ptr() not in kept


def test_nothing_is_saved_where_nothing_needs_a_gradient():
    layer = snn.LIF(0.9, learn=("gain",)).requires_grad_(False)
    assert saved_addresses(lambda: layer(normal(9, 4)))[0] == set()
    layer.requires_grad_(True)
    with torch.no_grad():
        assert saved_addresses(lambda: layer(normal(9, 4)))[0] == set()


def test_graph_holds_no_memory_but_the_potential():
    references = pytest.importorskip("torch.multiprocessing.reductions")
    leaf = normal(9, 4).requires_grad_()
    current = leaf + 1.0
    trace = snn.spike(current, LIF)
    potential, spikes, given = (
        references.StorageWeakRef(x.untyped_storage()) for x in (trace.potential, trace.spikes, current)
    )
    total = trace.spikes.sum()
    del trace, current
    assert given.expired()
    assert spikes.expired()
    assert not potential.expired()
    total.backward()
    assert potential.expired()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_saved_tensors_may_come_back_in_another_layout(layout):
    # Hooks that move saved tensors to disk or to another device keep their values, but not their strides.
    found = []
    for pack in (lambda x: x, lambda x: x.clone(memory_format=torch.contiguous_format)):
        current, _, time_dim = laid_out(layout)
        layer = snn.LIF(0.9, threshold=0.6, learn=("gain", "alpha"), time_dim=time_dim)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            spikes = layer(current)
        found.append(torch.autograd.grad(spikes.sum(), (current, *layer.parameters())))
    for one, other in zip(*found, strict=True):
        assert_same_bits(one.contiguous(), other.contiguous())


@pytest.mark.parametrize("data", DTYPES, ids=str)
@pytest.mark.parametrize("parameters", DTYPES, ids=str)
def test_parameters_and_data_may_differ_in_precision(parameters, data):
    layer = snn.LIF(0.9, threshold=0.6, learn=("alpha", "gain"), output="trace").to(parameters)
    current = normal(9, 4, dtype=data).requires_grad_()
    trace = layer(current)
    assert_same_bits(trace.spikes.detach(), ec.forward(layer.neuron, array(current)).spikes)
    trace.spikes.sum().backward()
    assert {trace.spikes.dtype, trace.potential.dtype, current.grad.dtype} == {data}
    assert {p.grad.dtype for p in layer.parameters()} == {parameters}


def test_subclass_of_a_tensor():
    parameter = torch.nn.Parameter(normal(9, 4))
    spikes = snn.spike(parameter, LIF).spikes
    spikes.sum().backward()
    assert type(spikes) is torch.Tensor
    assert_same_bits(spikes.detach(), ec.forward(LIF, array(parameter)).spikes)
    assert parameter.grad.abs().sum() > 0
