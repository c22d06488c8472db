"""The spiking layers are torch modules like any other, and run their descriptor.

Property: a layer computes the results of its `neuron`, whether it was made from keywords, by `from_neuron`,
as a copy, from a pickle or a state dict, or changed by an optimizer. Learnt values are parameters, and no
others. States can be passed in and out. A layer runs in `Sequential`, in worker processes, and with torch's
number of threads. Witness: `exodus_core.forward` and `backward` with the descriptor, bit for bit.
"""

import copy
import functools
import inspect
import io
import pickle
import pydoc
import warnings

import numpy as np
import pytest

import exodus_core as ec
from compare import assert_same_bits
from drive import METHODS
from exodus_core import neurons, surrogate
from neuron_examples import SCALARS

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")

CURRENT = 0.3 + 0.8 * torch.randn(12, 2, 3, generator=torch.Generator().manual_seed(0))
PAIRS = [(ec.LIF, snn.LIF), (ec.IF, snn.IF), (ec.ExpLeak, snn.ExpLeak)]
DECAYS = ({"alpha": 0.9}, {"tau": 5.0}, {"tau": [2.0, 3.0, 4.0], "dt": 0.5, "gain": "1-alpha"})
RESETS = (
    {"reset_amount": 0.4, "reset_timing": "before_decay"},
    {"reset": "zero", "v_min": -0.5},
    {"reset": "none"},
    {"max_spikes": None, "threshold": 0.3, "gain": [[1.5], [0.5]]},
    {"threshold": [0.5, 0.7, 0.9], "max_spikes": 2},
)
KEYWORDS = [
    *((snn.LIF, {**DECAYS[0], **reset}) for reset in RESETS),
    *((snn.LIF, decay) for decay in DECAYS),
    *((snn.IF, reset) for reset in ({}, *RESETS)),
    *((snn.ExpLeak, decay) for decay in DECAYS),
]


def assert_runs(layer, neuron, current=CURRENT):
    """Require that the layer's results have the bits of the descriptor's."""
    trace = copy.copy(layer)
    trace.output = "trace"
    found, state = trace(current, None)
    expected = ec.forward(neuron, current.numpy(), time_axis=layer.time_dim)
    assert_same_bits(found.potential.detach(), expected.potential)
    assert (found.spikes is None) == (expected.spikes is None)
    if expected.spikes is not None:
        assert_same_bits(found.spikes.detach(), expected.spikes)
    assert state._fields == expected.state._fields
    for one, other in zip(state, expected.state, strict=True):
        assert_same_bits(one.detach(), other)


@pytest.mark.parametrize(("kind", "keywords"), KEYWORDS, ids=str)
def test_layer_takes_the_keywords_of_its_descriptor(kind, keywords):
    layer = kind(**keywords)
    neuron = dict((layer, neuron) for neuron, layer in PAIRS)[kind](**keywords)
    assert layer.neuron == neuron
    assert_runs(layer, neuron)


@pytest.mark.parametrize(("descriptor", "kind"), PAIRS)
def test_leading_arguments_are_those_of_the_descriptor(descriptor, kind):
    leading = [
        name
        for name, p in inspect.signature(descriptor).parameters.items()
        if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    arguments = [0.5, 0.75][: len(leading)]
    assert kind(*arguments).neuron == descriptor(*arguments)


@pytest.mark.parametrize(("kind", "keywords"), KEYWORDS, ids=str)
def test_from_neuron_restores_the_layer(kind, keywords):
    neuron = kind(**keywords).neuron
    layer = snn.from_neuron(neuron)
    assert type(layer) is kind
    assert layer.neuron == neuron
    assert_runs(layer, neuron)


def test_from_neuron_takes_the_keywords_of_a_layer():
    layer = snn.from_neuron(
        ec.LIF(alpha=0.9),
        surrogate=surrogate.ATan(),
        method="bptt",
        time_dim=1,
        learn={"alpha": (3,)},
        output="potential",
    )
    expected = (surrogate.ATan(), "bptt", 1, (3,), "potential")
    assert (layer.surrogate, layer.method, layer.time_dim, layer.alpha.shape, layer.output) == expected


def test_defaults():
    layer = snn.LIF(alpha=0.9)
    expected = (surrogate.SingleExponential(), "exodus", 0, "spikes")
    assert (layer.surrogate, layer.method, layer.time_dim, layer.output) == expected
    assert list(layer.parameters()) == []
    assert list(layer.state_dict()) == ["_extra_state"]
    assert snn.ExpLeak(alpha=0.9).output == "potential"


LEARNT = [
    ({"alpha": 0.9}, ("alpha", "threshold", "gain")),
    ({"tau": 5.0}, ["tau"]),
    ({"alpha": 0.9, "gain": "1-alpha"}, {"alpha"}),
    ({"alpha": 0.9, "reset_amount": 0.5, "v_min": -1.0}, ("reset_amount", "v_min")),
]


@pytest.mark.parametrize(("keywords", "learn"), LEARNT, ids=str)
def test_learnt_names_are_parameters_of_the_shape_given(keywords, learn):
    keywords = {**keywords, "threshold": [[1.0], [1.5]]}
    layer = snn.LIF(**keywords, learn=learn)
    assert {name for name, _ in layer.named_parameters()} == set(learn)
    for name, p in layer.named_parameters():
        given = np.asarray(getattr(ec.LIF(**keywords), name))
        assert isinstance(p, torch.nn.Parameter)
        assert getattr(layer, name) is p
        assert p.dtype == torch.get_default_dtype()
        assert_same_bits(p.detach(), given.astype(np.float32))


def test_values_that_are_not_learnt_read_the_same_way():
    layer = snn.LIF(alpha=0.9, threshold=[1.0, 2.0, 3.0], learn=("alpha",))
    np.testing.assert_array_equal(layer.threshold, [1.0, 2.0, 3.0])
    assert (layer.gain, layer.tau, layer.reset, layer.max_spikes) == (1.0, None, "subtract", 1)
    with pytest.raises(AttributeError, match="beta"):
        layer.beta  # noqa: B018


@pytest.mark.parametrize("shape", [(), (3,), (2, 1), (2, 3)], ids=str)
def test_mapping_gives_a_shape(shape):
    layer = snn.LIF(alpha=0.9, learn={"alpha": shape})
    assert_same_bits(layer.alpha.detach(), np.full(shape, 0.9, np.float32))
    assert_runs(layer, layer.neuron)
    assert layer.alpha.untyped_storage().nbytes() == 4 * layer.alpha.numel()


def test_mapping_expands_an_array():
    layer = snn.LIF(alpha=[[0.5], [0.9]], learn={"alpha": (2, 3)})
    assert_same_bits(layer.alpha.detach(), np.float32([[0.5] * 3, [0.9] * 3]))


def test_parameters_have_the_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        assert snn.LIF(alpha=0.9, learn=("alpha",)).alpha.dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_setting_a_value_that_is_not_learnt_is_not_lost():
    layer = snn.LIF(alpha=0.9)
    layer.alpha = 0.5
    assert layer.alpha == layer.neuron.alpha == 0.5
    assert_runs(layer, ec.LIF(alpha=0.5))
    for wrong in (1.5, None, "0.5"):
        with pytest.raises((TypeError, ValueError), match="alpha"):
            layer.alpha = wrong
    assert layer.neuron == ec.LIF(alpha=0.5)


TENSORS = {
    "a number": torch.tensor(0.75),
    "in double": torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64),
    "in half precision": torch.tensor([0.25, 0.5, 0.75], dtype=torch.bfloat16),
    "integers": torch.tensor([[1], [1]]),
    "not in a row": torch.tensor([[0.25, 0.0], [0.5, 0.0], [0.75, 0.0]])[:, 0],
    "detached": torch.tensor([0.25, 0.5, 0.75], requires_grad=True).detach(),
}


@pytest.mark.parametrize("value", TENSORS.values(), ids=TENSORS)
def test_tensors_are_values(value):
    array = value.double().numpy().copy()
    neuron = ec.LIF(tau=array, threshold=array, gain=array, v_min=-array)
    found = snn.LIF(tau=value, threshold=value, gain=value, v_min=-value)
    assert_same_bits(found.neuron.tau, ec.LIF(tau=value).tau)
    assert_same_bits(np.asarray(found.neuron.tau, np.float64), array)
    assert type(found.neuron.tau) is (float if value.ndim == 0 else np.ndarray)
    assert_runs(found, neuron)
    value.mul_(3)  # does not change the neuron, which has a copy
    assert_same_bits(np.asarray(found.neuron.tau, np.float64), array)
    value.copy_(torch.from_numpy(array))


def test_tensors_are_values_of_kernels_surrogates_and_steps():
    half = torch.tensor(0.5)
    assert ec.kernel.Exponential(half, scale=half) == ec.kernel.Exponential(0.5, scale=0.5)
    assert ec.kernel.FIR(torch.tensor([1.0, 0.5])) == ec.kernel.FIR(np.float32([1.0, 0.5]))
    assert surrogate.Boxcar(width=half) == surrogate.Boxcar(width=0.5)
    assert ec.LIF(tau=2.0, dt=half) == ec.LIF(tau=2.0, dt=0.5)
    assert ec.LIF([half, half]) == ec.LIF([0.5, 0.5])
    state = ec.LIF(0.9).initial_state((2, 3), potential=torch.tensor([1.0, 2.0, 3.0]))
    assert_same_bits(state.potential, np.float32([[1, 2, 3]] * 2))


LAYERS = [getattr(snn, kind.__name__) for kind in neurons.DESCRIPTORS]
OF_EACH_LAYER = {
    "surrogate": surrogate.SingleExponential(),
    "method": "exodus",
    "time_dim": 0,
    "learn": (),
    "output": None,
    "stateful": False,
    "memory": "full",
    "inplace": False,
}


@pytest.mark.parametrize("kind", LAYERS)
def test_signature_names_every_keyword(kind):
    descriptor = dict(inspect.signature(getattr(ec, kind.__name__)).parameters)
    found = dict(inspect.signature(kind).parameters)
    assert list(found) == [*descriptor, *OF_EACH_LAYER]
    for name, parameter in descriptor.items():
        assert (found[name].default, found[name].kind) == (parameter.default, parameter.kind)
    for name, default in OF_EACH_LAYER.items():
        assert (found[name].default, found[name].kind) == (default, inspect.Parameter.KEYWORD_ONLY)
    assert "max_spikes" in pydoc.render_doc(snn.LIF)
    assert list(inspect.signature(snn.from_neuron).parameters) == ["neuron", *OF_EACH_LAYER]


def test_base_is_the_layer_of_any_descriptor():
    assert list(inspect.signature(snn.Layer).parameters) == ["neuron", *OF_EACH_LAYER]
    for neuron in (ec.LIF(0.5), ec.ExpLeak(0.5)):
        assert_runs(snn.Layer(neuron, time_dim=0), neuron)


def test_signature_of_a_subclass_is_its_own():
    class Mine(snn.LIF):
        def __init__(self, decay):
            super().__init__(alpha=decay, learn=("alpha",))

    assert list(inspect.signature(Mine).parameters) == ["decay"]
    assert_runs(Mine(0.5), ec.LIF(0.5))
    assert_same_layer(copy.deepcopy(Mine(0.5)), Mine(0.5))


def learning(**keywords):
    """A layer with values of each kind that are not the defaults."""
    layer = snn.LIF(alpha=0.9, threshold=[0.5, 0.6, 0.7], learn=("alpha", "threshold"), **keywords)
    with torch.no_grad():
        layer.alpha.sub_(0.2)
        layer.threshold.mul_(1.1)
    return layer


def assert_same_layer(one, other):
    assert type(one) is type(other)
    assert one.neuron == other.neuron
    assert (one.method, one.surrogate, one.time_dim, one.output) == (
        other.method,
        other.surrogate,
        other.time_dim,
        other.output,
    )
    assert_runs(one, other.neuron)


def saved_and_loaded(layer):
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
    "torch.save": saved_and_loaded,
}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_copy_is_the_layer_and_independent_of_it(make):
    layer = learning(method="slayer", surrogate=surrogate.ATan(slope=3.0), time_dim=0, output="potential")
    twin = make(layer)
    assert_same_layer(twin, layer)
    before = layer.neuron
    with torch.no_grad():
        twin.alpha.fill_(0.1)
    assert layer.neuron == before
    assert twin.neuron != before
    twin(CURRENT).sum().backward()
    assert layer.alpha.grad is None


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_copy_of_a_layer_that_learns_nothing(make):
    layer = snn.IF(threshold=[0.5, 0.6, 0.7], v_min=-1.0)
    assert_same_layer(make(layer), layer)


def test_state_dict_round_trip():
    layer = learning()
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    fresh = snn.LIF(alpha=0.9, threshold=[0.5, 0.6, 0.7], learn=("alpha", "threshold"))
    assert fresh.neuron != layer.neuron
    result = fresh.load_state_dict(torch.load(file, weights_only=True))
    assert result.missing_keys == result.unexpected_keys == []
    assert_same_layer(fresh, layer)


def test_state_dict_of_a_network():
    nets = [torch.nn.Sequential(torch.nn.Linear(3, 3), learning()) for _ in range(2)]
    with torch.no_grad():
        nets[0][1].alpha.fill_(0.4)
    own = {"1.alpha", "1.threshold", "1._extra_state"}
    assert set(nets[0].state_dict()) == {"0.weight", "0.bias", *own}
    nets[1].load_state_dict(nets[0].state_dict())
    assert_same_bits(nets[1](CURRENT).detach(), nets[0](CURRENT).detach())


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["alpha", "threshold"])
def test_loading_what_is_not_finite_is_an_error(name, bad, assign):
    net = torch.nn.Sequential(torch.nn.Identity(), learning())
    before, state = net[1].neuron, copy.deepcopy(net.state_dict())
    state[f"1.{name}"].view(-1)[-1] = bad
    with pytest.raises(RuntimeError, match=rf"(?s)1\.{name}.*finite.*{bad}"):
        net.load_state_dict(state, assign=assign)
    assert net[1].neuron == before


def test_loading_another_shape_or_too_little_is_an_error():
    layer, state = learning(), learning().state_dict()
    with pytest.raises(RuntimeError, match="threshold"):
        layer.load_state_dict({**state, "threshold": torch.ones(2)})
    with pytest.raises(RuntimeError, match="alpha"):
        layer.load_state_dict({key: value for key, value in state.items() if key != "alpha"})


def test_double_and_back():
    layer = learning().double()
    assert {p.dtype for p in layer.parameters()} == {torch.float64}
    assert layer(CURRENT.double()).dtype == torch.float64
    assert_runs(layer, layer.neuron, CURRENT.double())
    layer.to(torch.float32)
    assert {p.dtype for p in layer.parameters()} == {torch.float32}
    assert_same_layer(layer, learning())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_layer_in_half_precision_can_be_shown(dtype):
    assert "alpha=" in repr(snn.LIF(alpha=0.5, learn=("alpha",)).to(dtype))


def test_layer_without_data_can_be_shown():
    # Large models are often printed, and built, before their weights are loaded.
    assert "learn=" in repr(snn.LIF(alpha=0.5, learn=("alpha",)).to("meta"))


def test_layer_built_on_the_meta_device_and_loaded():
    with torch.device("meta"):
        layer = snn.LIF(alpha=0.9, threshold=[0.5, 0.6, 0.7], learn=("alpha", "threshold"))
    layer.to_empty(device="cpu")
    layer.load_state_dict(learning().state_dict())
    assert_same_layer(layer, learning())


def test_a_layer_that_learns_raises_no_warning():
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            layer = snn.LIF(alpha=0.9, threshold=[0.5, 0.6, 0.7], learn=("alpha", "threshold", "gain"))
            run_both_ways(layer)
            assert "alpha=0.8999" in repr(layer.neuron)
            assert "alpha=0.8999" in repr(layer)
    finally:
        torch.set_warn_always(False)


def test_neuron_has_the_present_values():
    layer = snn.LIF(alpha=0.5, threshold=1.0, gain=[1.0, 2.0, 3.0], learn=("alpha",))
    before = layer.neuron
    with torch.no_grad():
        layer.alpha.fill_(0.75)
    assert before == ec.LIF(alpha=0.5, threshold=1.0, gain=[1.0, 2.0, 3.0])
    assert layer.neuron == ec.LIF(alpha=0.75, threshold=1.0, gain=[1.0, 2.0, 3.0])


def test_neuron_is_not_changed_by_later_steps():
    layer = snn.LIF(alpha=0.9, gain=[1.0, 2.0, 3.0], learn=("gain",))
    before = layer.neuron
    with torch.no_grad():
        layer.gain.mul_(2.0)
    np.testing.assert_array_equal(before.gain, [1.0, 2.0, 3.0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("chosen", [surrogate.ATan(), surrogate.Boxcar(width=2.0)], ids=repr)
def test_surrogate_and_method_can_be_set(chosen, method):
    layer = snn.LIF(alpha=0.9, threshold=0.6)
    layer.surrogate, layer.method = chosen, method
    assert (layer.surrogate, layer.method) == (chosen, method)
    current = CURRENT.clone().requires_grad_()
    layer(current).sum().backward()
    trace = ec.forward(layer.neuron, CURRENT.numpy())
    expected = ec.backward(trace, np.ones_like(trace.spikes), surrogate=chosen, method=method)
    assert_same_bits(current.grad, expected.current)


def test_method_is_that_of_the_call():
    grads = []
    for late in ("slayer", "exodus"):
        layer = snn.LIF(alpha=0.9, threshold=0.6, method="exodus")
        current = CURRENT.clone().requires_grad_()
        spikes = layer(current)
        layer.method = late
        spikes.sum().backward()
        grads.append(current.grad)
    assert_same_bits(*grads)


def test_repr_says_what_was_chosen():
    text = repr(
        snn.LIF(alpha=0.5, threshold=2.0, time_dim=-3, method="bptt", surrogate=surrogate.ATan(slope=3.0))
    )
    for part in ("LIF(", "alpha=0.5", "threshold=2.0", "time_dim=-3", "bptt", "ATan(slope=3.0"):
        assert part in text
    assert "learn" not in text
    assert "time_dim=2" in repr(torch.nn.Sequential(snn.ExpLeak(alpha=0.5, time_dim=2)))


def test_repr_shows_learnt_values_and_the_output():
    layer = snn.LIF(alpha=0.5, learn={"alpha": (2,), "threshold": (64, 1, 1)}, output="trace")
    with torch.no_grad():
        layer.alpha.fill_(0.25)
    text = repr(layer)
    for part in ("0.25", "(64, 1, 1)", "learn=('alpha', 'threshold')", "output='trace'"):
        assert part in text
    assert len(text) < 400


def test_output_chooses_what_is_returned():
    found = {name: snn.LIF(alpha=0.9, output=name)(CURRENT) for name in ("spikes", "potential", "trace")}
    expected = ec.forward(ec.LIF(alpha=0.9), CURRENT.numpy())
    assert isinstance(found["trace"], snn.Trace)
    assert_same_bits(found["spikes"], expected.spikes)
    assert_same_bits(found["potential"], expected.potential)
    assert_same_bits(found["trace"].spikes, expected.spikes)
    readout = ec.forward(ec.ExpLeak(alpha=0.9), CURRENT.numpy())
    assert_same_bits(snn.ExpLeak(alpha=0.9)(CURRENT), readout.potential)
    assert snn.ExpLeak(alpha=0.9, output="trace")(CURRENT).spikes is None


@pytest.mark.parametrize("output", ["spikes", "potential", "trace"])
def test_a_layer_returns_a_state_if_one_is_passed(output):
    layer = snn.LIF(alpha=0.9, output=output)
    kind = snn.Trace if output == "trace" else torch.Tensor
    assert isinstance(layer(CURRENT), kind)
    result, state = layer(CURRENT, None)
    assert isinstance(result, kind)
    result, later = layer(CURRENT, state=tuple(state))
    assert isinstance(result, kind)
    assert state._fields == later._fields == ("potential", "spikes")
    assert not torch.equal(state.potential, later.potential)


@pytest.mark.parametrize("time_dim", [0, 1, -1])
@pytest.mark.parametrize(("kind", "keywords"), KEYWORDS, ids=str)
def test_steps_have_the_bits_of_the_whole(kind, keywords, time_dim):
    layer = kind(**keywords, time_dim=time_dim)
    current = CURRENT.movedim(0, time_dim)
    whole, last = layer(current, None)
    state, found = None, []
    for frame in current.unbind(time_dim):
        one, state = layer.step(frame, state)
        found.append(one)
    assert_same_bits(torch.stack(found, time_dim), whole)
    for one, other in zip(state, last, strict=True):
        assert_same_bits(one, other)


def test_state_given_is_not_modified():
    layer = snn.LIF(alpha=0.9)
    _, state = layer(CURRENT, None)
    before = [x.clone() for x in state]
    layer(CURRENT, state)
    layer.step(CURRENT[0], state)
    for one, other in zip(state, before, strict=True):
        assert_same_bits(one, other)


STATEFUL = {name: functools.partial(snn.from_neuron, neuron) for name, neuron in SCALARS.items()}
STATEFUL["SRM of taps"] = lambda: snn.SRM(ec.kernel.FIR([0.5, 0.4]), ec.kernel.Exponential(0.9, scale=-1.0))
EACH_STATEFUL = pytest.mark.parametrize("name", STATEFUL)


@EACH_STATEFUL
def test_initial_state_is_rest_or_the_potential_given(name):
    layer = STATEFUL[name]()
    state = layer.initial_state((2, 3))
    assert type(state) is layer.neuron._state
    assert {part.dtype for part in state} == {torch.float32}
    for one, other in zip(layer(CURRENT, state)[1], layer(CURRENT, None)[1], strict=True):
        assert_same_bits(one, other)
    potential = (
        [0.0] * 3 if name.startswith("SRM") else [0.25, 0.5, 0.75]
    )  # An SRM computes its potential from the states of its kernels.
    state = layer.initial_state((2, 3), torch.tensor(potential), dtype=torch.float64)
    expected = layer.neuron.initial_state((2, 3), np.float64, potential)
    for one, other in zip(state, expected, strict=True):
        assert_same_bits(one, other)
    layer(CURRENT.double(), state)
    assert layer.initial_state((2,), dtype=torch.bfloat16).potential.dtype == torch.float32
    assert layer.initial_state(3, device="meta").potential.is_meta


@EACH_STATEFUL
def test_state_is_detached_and_moved_as_a_tensor(name):
    layer = STATEFUL[name]()
    current = CURRENT.clone().requires_grad_()
    _, state = layer(current, None)
    assert state.potential.requires_grad
    detached, double = state.detach(), state.to(torch.float64)
    for moved in (detached, double):
        assert type(moved) is type(state)
    for part, cut, wide in zip(state, detached, double, strict=True):
        assert not cut.requires_grad
        assert_same_bits(cut, part.detach())
        assert wide.dtype == torch.float64
    assert state.to("meta").potential.is_meta
    layer(CURRENT.double(), double)
    double.potential.sum().backward()
    assert current.grad is not None


@EACH_STATEFUL
def test_saved_state_is_loaded_by_the_default(name):
    _, state = STATEFUL[name]()(CURRENT, None)
    file = io.BytesIO()
    torch.save({"epoch": 3, "states": [state]}, file)
    file.seek(0)
    (loaded,) = torch.load(file)["states"]
    assert type(loaded) is type(state)
    for one, other in zip(loaded, state, strict=True):
        assert_same_bits(one, other)


def test_state_comes_from_the_descriptor_as_well():
    neuron = ec.LIF(alpha=0.9, threshold=0.6)
    initial = neuron.initial_state((2, 3), np.float32, potential=0.5)
    spikes, _ = snn.from_neuron(neuron)(CURRENT, tuple(map(torch.from_numpy, initial)))
    assert_same_bits(spikes, ec.forward(neuron, CURRENT.numpy(), state=initial).spikes)


def test_layers_in_a_row():
    torch.manual_seed(1)
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 5), snn.LIF(0.9, 0.5), torch.nn.Linear(5, 2), snn.ExpLeak(0.9)
    )
    found = net(CURRENT)
    x = net[0](CURRENT).detach()
    x = torch.from_numpy(ec.forward(ec.LIF(0.9, 0.5), x.numpy()).spikes)
    x = net[2](x).detach()
    assert_same_bits(found.detach(), ec.forward(ec.ExpLeak(0.9), x.numpy()).potential)
    found.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("name", ["alpha", "threshold", "gain"])
def test_optimizer_step_changes_what_the_layer_computes(name):
    layer = snn.LIF(alpha=0.8, threshold=0.6, learn=("alpha", "threshold", "gain"))
    optimizer = torch.optim.SGD([layer.get_parameter(name)], lr=1e-3)
    before = layer.neuron
    layer(CURRENT).sum().backward()
    slope = layer.get_parameter(name).grad.item()
    optimizer.step()
    expected = {name: np.float32(getattr(before, name)) - np.float32(1e-3 * slope)}
    assert getattr(layer.neuron, name) == pytest.approx(expected[name], rel=1e-6)
    assert getattr(layer.neuron, name) != getattr(before, name)
    assert_runs(layer, layer.neuron)


def test_training_finds_the_decay():
    torch.manual_seed(2)
    current = torch.rand(30, 20)
    target = snn.ExpLeak(alpha=0.8)(current)
    layer = snn.ExpLeak(alpha=0.5, learn=("alpha",))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        (layer(current) - target).square().mean().backward()
        optimizer.step()
    assert layer.neuron.alpha == pytest.approx(0.8, abs=1e-3)


@pytest.fixture
def thread_counts(monkeypatch):
    """The thread counts with which the kernels are called; 0 is the package's own number."""
    seen = []

    def watched(kernel):
        def call(*arguments):
            seen.append(arguments[-1])
            return kernel(*arguments)

        return call

    from exodus_core import _core

    for owner in (_core, _core.BoundNeuron):
        monkeypatch.setattr(owner, "forward", watched(owner.forward))
        monkeypatch.setattr(owner, "backward", watched(owner.backward))
    return seen


@pytest.fixture
def torch_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def run_both_ways(layer, current=CURRENT):
    current = current.clone().requires_grad_()
    spikes = layer(current)
    spikes.sum().backward()
    return spikes.detach(), current.grad


@pytest.mark.parametrize("count", [1, 3])
def test_threads_are_those_of_torch(count, monkeypatch, thread_counts, torch_threads):
    monkeypatch.setattr("exodus_core._threads._chosen", False)
    torch_threads(count)
    run_both_ways(snn.LIF(alpha=0.9))
    assert thread_counts == [count, count]


def test_a_chosen_number_of_threads_has_precedence(monkeypatch, thread_counts, torch_threads, threads):
    monkeypatch.setattr("exodus_core._threads._chosen", False)
    torch_threads(3)
    threads(2)
    run_both_ways(snn.LIF(alpha=0.9))
    assert thread_counts == [0, 0]


def test_threads_do_not_change_the_bits(monkeypatch, torch_threads):
    monkeypatch.setattr("exodus_core._threads._chosen", False)
    current = 0.3 + torch.randn(10, 50_000, generator=torch.Generator().manual_seed(3))
    layer, found = snn.LIF(alpha=0.9, learn=("alpha",)), []
    for count in (1, 4):
        torch_threads(count)
        layer.zero_grad()
        found.append((*run_both_ways(layer, current), layer.alpha.grad.clone()))
    for one, other in zip(*found, strict=True):
        assert_same_bits(one, other)


class Spikes(torch.utils.data.Dataset):
    """A data set that runs a layer for each item, forward and backward."""

    def __init__(self):
        self.layer = snn.LIF(alpha=0.9, threshold=0.6)

    def __len__(self):
        return 6

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return torch.stack(run_both_ways(self.layer, 0.3 + torch.randn(10, 20_000, generator=generator)))


@pytest.mark.skipif(
    "fork" not in torch.multiprocessing.get_all_start_methods(), reason="needs processes that fork"
)
@pytest.mark.parametrize("chosen", [True, False])
def test_workers_of_a_loader_run_layers_after_their_parent_did(chosen, monkeypatch, threads):
    threads(3)  # holds in the workers too, where torch's own number is 1
    monkeypatch.setattr("exodus_core._threads._chosen", chosen)
    data = Spikes()
    expected = [data[i] for i in range(len(data))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The test forks a process with threads, of which Python warns.
        loader = torch.utils.data.DataLoader(
            data, batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60
        )
        found = list(loader)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert_same_bits(one, other)
    assert_same_bits(data[0], expected[0])
