"""Wrong arguments of torch users raise clear errors before any work is done.

Property: a wrong argument of a layer or of `spike` raises a ValueError or TypeError. The message names the
argument as in torch, and says what was expected and what it was. Witness: the message.
"""

import re
from types import SimpleNamespace

import numpy as np
import pytest

import exodus_core as ec

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")

CURRENT = torch.full((6, 3, 4), 0.4)
NEURON = ec.LIF(alpha=0.9)
DTYPES = [torch.int32, torch.int64, torch.bool, torch.complex64]


def raises(error, *words):
    """`pytest.raises` for a message that contains all the words, in any order."""
    return pytest.raises(error, match="(?s)" + "".join(f"(?=.*{re.escape(w)})" for w in words))


CALLS = {
    "layer": lambda current: snn.LIF(0.9)(current),
    "layer that learns": lambda current: snn.LIF(0.9, learn=("alpha", "gain"))(current),
    "step": lambda current: snn.LIF(0.9).step(current),
    "spike": lambda current: snn.spike(current, NEURON),
    "readout": lambda current: snn.ExpLeak(0.9)(current),
}
call = pytest.mark.parametrize("run", CALLS.values(), ids=CALLS)


@call
def test_array_instead_of_a_tensor(run):
    with raises(TypeError, "current", "tensor", "ndarray", "exodus_core.forward"):
        run(CURRENT.numpy())


@call
@pytest.mark.parametrize("value", [None, [0.1, 0.2], 1.0, NEURON], ids=lambda v: type(v).__name__)
def test_something_else_instead_of_a_tensor(run, value):
    with raises(TypeError, "current", "tensor", type(value).__name__):
        run(value)


@call
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtype_of_the_current(run, dtype):
    with raises(TypeError, "current", "float32", "float64", str(dtype)):
        run(CURRENT.to(dtype))


@call
def test_tensor_on_another_device(run):
    with raises(TypeError, "current", "CPU", "meta"):
        run(CURRENT.to("meta"))


def test_layer_and_current_without_data():
    layer = snn.LIF(0.9, learn=("alpha",)).to("meta")
    with raises(TypeError, "current", "CPU", "meta"):
        layer(CURRENT.to("meta"))


def test_layer_without_data():
    layer = snn.LIF(0.9, learn=("alpha",)).to("meta")
    with raises((TypeError, ValueError), "alpha", "meta"):
        layer(CURRENT)


SPARSE = {
    "coo": lambda x: x.to_sparse(),
    "csr": lambda x: x[0].to_sparse_csr(),
    "mkldnn": lambda x: x.to_mkldnn(),
}


@call
@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("change", SPARSE.values(), ids=SPARSE)
def test_tensor_that_is_not_dense(run, change):
    with raises(TypeError, "current", "dense"):
        run(change(CURRENT))


@pytest.mark.parametrize(("shape", "time_dim"), [((0, 3), 0), ((6, 0), 1), ((6, 0, 2), -2)])
def test_current_without_time(shape, time_dim):
    with raises(ValueError, "current", "zero", str(shape)):
        snn.LIF(0.9, time_dim=time_dim)(torch.zeros(shape))


@pytest.mark.parametrize("time_dim", [3, 7, -4])
def test_time_dim_that_the_current_lacks(time_dim):
    for run in (
        lambda: snn.LIF(0.9, time_dim=time_dim)(CURRENT),
        lambda: snn.spike(CURRENT, NEURON, time_dim=time_dim),
    ):
        with raises(ValueError, "time_dim", "current", "(6, 3, 4)", str(time_dim)):
            run()


def test_current_without_dimensions():
    with raises(ValueError, "time_dim", "current", "()"):
        snn.LIF(0.9)(torch.tensor(1.0))


@pytest.mark.parametrize("time_dim", [1.0, "0", True, (0,), None], ids=repr)
def test_time_dim_that_is_no_integer(time_dim):
    with raises(TypeError, "time_dim", "integer", repr(time_dim)):
        snn.LIF(0.9, time_dim=time_dim)
    if time_dim is not None:
        with raises(TypeError, "time_dim", "integer", repr(time_dim)):
            snn.spike(CURRENT, NEURON, time_dim=time_dim)


@pytest.mark.parametrize("name", ["beta", "tau", "reset", "v_min", "reset_amount", "surrogate", ""])
@pytest.mark.parametrize("kind", [tuple, dict.fromkeys], ids=["tuple", "mapping"])
def test_unknown_name_to_learn(kind, name):
    names = kind(["alpha", name])
    if isinstance(names, dict):
        names = dict.fromkeys(names, (3, 4))
    with raises(ValueError, "learn", repr(name), "alpha", "threshold", "gain"):
        snn.LIF(0.9, learn=names)


def test_name_that_other_neurons_have():
    with raises(ValueError, "learn", "'alpha'", "tau"):
        snn.LIF(tau=2.0, learn=("alpha",))
    with raises(ValueError, "learn", "'gain'", "alpha"):
        snn.LIF(0.9, gain="1-alpha", learn=("gain",))
    with raises(ValueError, "learn", "'threshold'"):
        snn.ExpLeak(0.9, learn=("threshold",))
    with raises(ValueError, "learn", "'alpha'"):
        snn.IF(learn=("alpha",))


def test_string_to_learn():
    with raises(TypeError, "learn", "names", "'alpha'"):
        snn.LIF(0.9, learn="alpha")


@pytest.mark.parametrize("learn", [None, True, 3, 0.5], ids=repr)
def test_no_collection_to_learn(learn):
    with raises(TypeError, "learn", repr(learn)):
        snn.LIF(0.9, learn=learn)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (-1,), (2.5,), "3", None, ("a",)], ids=repr)
def test_learnt_shape_that_is_none(shape):
    with raises((TypeError, ValueError), "learn['alpha']", "shape", repr(shape)):
        snn.LIF(0.9, learn={"alpha": shape})


@pytest.mark.parametrize("shape", [(), (3,), (2, 1), (3, 2, 1)], ids=str)
def test_learnt_shape_that_the_value_does_not_broadcast_to(shape):
    with raises(ValueError, "learn['alpha']", "broadcast", "(2,)", str(shape)):
        snn.LIF([0.5, 0.9], learn={"alpha": shape})


@pytest.mark.parametrize(("shape", "right"), [((5,), "(5, 1, 1)"), ((7,), "(7, 1)")])
def test_learnt_shape_that_does_not_broadcast_against_the_data(shape, right):
    layer = snn.LIF(0.9, learn={"alpha": shape}, time_dim=1)
    with raises(ValueError, "alpha", "broadcast", "(2, 5, 7, 4)", str(shape), right):
        layer(torch.zeros(2, 6, 5, 7, 4))


def test_value_that_vanishes_in_the_precision_of_the_data():
    # A learnt value is clamped instead. A value that is not learnt is always checked.
    for learn in ((), ("alpha",)):
        layer = snn.LIF(0.9, threshold=1e-50, learn=learn)
        assert layer(CURRENT.double()).sum() > 0
        with raises(ValueError, "threshold", "above 0", "float32"):
            layer(CURRENT)


def state_with(potential=None, spikes=None):
    fields = SimpleNamespace(potential=torch.zeros(3, 4), spikes=torch.zeros(3, 4))
    return (
        fields.potential if potential is None else potential,
        fields.spikes if spikes is None else spikes,
    )


STATEFUL = {
    "layer": lambda state: snn.LIF(0.9)(CURRENT, state),
    "step": lambda state: snn.LIF(0.9).step(CURRENT[0], state),
    "spike": lambda state: snn.spike(CURRENT, NEURON, state=state),
}
stateful = pytest.mark.parametrize("run", STATEFUL.values(), ids=STATEFUL)
ZEROS = torch.zeros(3, 4)


@stateful
@pytest.mark.parametrize(
    "state", [(), (ZEROS,), (ZEROS,) * 3, ZEROS, CURRENT[:2], {"potential": ZEROS}, "state", 3]
)
def test_state_that_has_not_two_fields(run, state):
    with raises(TypeError, "state", "2", "potential", "spikes"):
        run(state)


def test_state_of_another_neuron():
    _, state = snn.ExpLeak(0.9)(CURRENT, None)
    with raises(TypeError, "state", "potential", "spikes"):
        snn.LIF(0.9)(CURRENT, state)


@stateful
@pytest.mark.parametrize("field", ["potential", "spikes"])
@pytest.mark.parametrize("shape", [(4,), (4, 3), (1, 4), (6, 3, 4), ()], ids=str)
def test_state_of_another_shape(run, shape, field):
    with raises(ValueError, f"state.{field}", "(3, 4)", str(shape)):
        run(state_with(**{field: torch.zeros(shape)}))


@stateful
@pytest.mark.parametrize("field", ["potential", "spikes"])
@pytest.mark.parametrize("dtype", [torch.float64, *DTYPES], ids=str)
def test_state_of_another_dtype(run, dtype, field):
    with raises(TypeError, f"state.{field}", "float32", str(dtype).split(".")[1]):
        run(state_with(**{field: ZEROS.to(dtype)}))


@stateful
@pytest.mark.parametrize("field", ["potential", "spikes"])
@pytest.mark.parametrize("value", [ZEROS.numpy(), 0.0, [0.0]], ids=lambda v: type(v).__name__)
def test_state_of_another_kind(run, value, field):
    with raises(TypeError, f"state.{field}", "tensor", type(value).__name__):
        run(state_with(**{field: value}))


@stateful
@pytest.mark.parametrize("field", ["potential", "spikes"])
def test_state_on_another_device_or_sparse(run, field):
    with raises(TypeError, f"state.{field}", "CPU", "meta"):
        run(state_with(**{field: ZEROS.to("meta")}))
    with raises(TypeError, f"state.{field}", "dense"):
        run(state_with(**{field: ZEROS.to_sparse()}))


@pytest.mark.parametrize("method", ["EXODUS", "backprop", None, 1], ids=repr)
def test_unknown_method(method):
    layer = snn.LIF(0.9)
    for run in (
        lambda: snn.LIF(0.9, method=method),
        lambda: snn.spike(CURRENT, NEURON, method=method),
        lambda: setattr(layer, "method", method),
    ):
        with raises(ValueError, "method", "exodus", "slayer", "bptt", repr(method)):
            run()
    assert layer.method == "exodus"


@pytest.mark.parametrize("surrogate", [None, "ATan", 0.5], ids=repr)
def test_surrogate_that_cannot_be_called(surrogate):
    layer = snn.LIF(0.9)
    before = layer.surrogate
    for run in (
        lambda: snn.LIF(0.9, surrogate=surrogate),
        lambda: snn.spike(CURRENT, NEURON, surrogate=surrogate),
        lambda: setattr(layer, "surrogate", surrogate),
    ):
        with raises(TypeError, "surrogate", repr(surrogate)):
            run()
    assert layer.surrogate is before


ANSWERS = {
    "shape": (lambda u, th: u.sum(), ValueError, ["(6, 3, 4)", "()"]),
    "dtype": (lambda u, th: u > th, TypeError, ["bool"]),
    "nothing": (lambda u, th: None, (TypeError, ValueError), []),
}


@pytest.mark.parametrize(("surrogate", "error", "words"), ANSWERS.values(), ids=ANSWERS)
def test_surrogate_that_answers_with_something_else(surrogate, error, words):
    spikes = snn.LIF(0.9, surrogate=surrogate)(CURRENT.clone().requires_grad_())
    with raises(error, "surrogate", *words):
        spikes.sum().backward()


@pytest.mark.parametrize("output", ["spike", "", 3], ids=repr)
def test_unknown_output(output):
    with raises(ValueError, "output", "spikes", "potential", "trace", repr(output)):
        snn.LIF(0.9, output=output)


def test_spikes_of_a_readout():
    with raises(ValueError, "output", "'potential'", "'trace'", "got 'spikes'"):
        snn.ExpLeak(0.9, output="spikes")
    with raises(ValueError, "output", "got 'spikes'"):
        snn.from_neuron(ec.ExpLeak(0.9), output="spikes")


@pytest.mark.parametrize("kind", [snn.LIF, snn.ExpLeak])
def test_values_are_checked_at_construction(kind):
    with raises(ValueError, "alpha", "[0, 1]", "1.5"):
        kind(1.5, learn=("alpha",))
    with raises(ValueError, "alpha", "nan"):
        kind(float("nan"))
    with raises(ValueError, "exactly one of alpha and tau"):
        kind()


VALUES = {
    "alpha": lambda value: snn.LIF(alpha=value),
    "tau": lambda value: ec.LIF(tau=value),
    "dt": lambda value: ec.LIF(tau=2.0, dt=value),
    "gain": lambda value: setattr(snn.LIF(0.9), "gain", value),
    "threshold": lambda value: ec.SRM(*[ec.kernel.Alpha(2.0)] * 2, threshold=value),
    "taps": lambda value: ec.kernel.FIR(value.expand(3)),
    "scale": lambda value: ec.kernel.Alpha(2.0, scale=value),
    "width": lambda value: ec.surrogate.Boxcar(width=value),
    "potential": lambda value: ec.LIF(0.9).initial_state((3,), potential=value),
    "tauSr": lambda value: ec.SRM.from_slayer(
        tauSr=value, tauRef=1.0, scaleRef=2.0, theta=10.0, tauRho=1.0, scaleRho=1.0
    ),
}
OF_VALUES = pytest.mark.parametrize(("name", "use"), VALUES.items(), ids=VALUES)


@OF_VALUES
def test_value_that_requires_a_gradient(name, use):
    with raises(TypeError, name, "gradient", "detach", "learn="):
        use(torch.tensor(0.5, requires_grad=True))


@OF_VALUES
@pytest.mark.parametrize("kind", ["meta", "complex64"])
def test_tensor_that_has_no_values(name, use, kind):
    value = torch.tensor(0.5)
    with raises(TypeError, name, "CPU", kind):
        use(value.to("meta") if kind == "meta" else value.to(torch.complex64))


def test_tensor_on_a_gpu_as_a_value(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "device", property(lambda self: torch.device("cuda:0")))
    with raises(TypeError, "alpha", "CPU", "cuda:0"):
        snn.LIF(torch.tensor(0.9))


def test_what_is_no_value():
    for value in (torch.nn.Linear(1, 1), torch.float32, torch.tensor([True])):
        with raises(TypeError, "alpha", "number"):
            snn.LIF(value)
    with raises(TypeError, "alpha", "number"):
        snn.LIF([torch.tensor(0.5, requires_grad=True)])


LEARNT = snn.LIF(0.9, learn=("alpha",))


@pytest.mark.parametrize("value", [None, "0.5", True, [0.5, None], 1j, object], ids=repr)
def test_no_number_in_the_place_of_a_learnt_value(value):
    with raises(TypeError, "alpha", "number"):
        LEARNT.alpha = value
    assert_unchanged()


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan"), float("inf"), np.array(2)], ids=repr)
def test_number_out_of_the_range_of_a_learnt_value(value):
    with raises(ValueError, "alpha", "in [0, 1]", str(float(value))):
        LEARNT.alpha = value
    assert_unchanged()


def test_numbers_that_a_learnt_value_has_no_room_for():
    with raises(ValueError, "alpha", "broadcast", "()", "(2,)"):
        LEARNT.alpha = [0.5, 0.6]
    assert_unchanged()


def assert_unchanged():
    assert isinstance(LEARNT.alpha, torch.nn.Parameter)
    assert LEARNT.alpha == torch.tensor(0.9)


def test_plain_tensor_in_the_place_of_a_learnt_value():
    with raises(TypeError, "alpha", "Parameter"):  # torch's own
        LEARNT.alpha = torch.tensor(0.5)


def test_kernel_that_lacks_what_is_learnt():
    layer = snn.SRM(ec.kernel.Alpha(3.0), ec.kernel.Alpha(2.0), learn=("epsilon.tau",))
    with raises(ValueError, "epsilon", "epsilon.tau", "Exponential"):
        layer.epsilon = ec.kernel.Exponential(0.9)
    layer.epsilon = ec.kernel.Alpha(4.0, scale=0.5)
    assert layer.neuron.epsilon == ec.kernel.Alpha(3.0, scale=0.5)


def test_learnt_value_that_is_no_floating_point_number():
    layer = snn.LIF(0.9, learn=("alpha",))
    layer.alpha = torch.nn.Parameter(torch.tensor(1), requires_grad=False)
    with raises(TypeError, "alpha", "floating-point", "int64"):
        layer(CURRENT)


def test_unknown_keyword():
    with raises(TypeError, "LIF()", "beta"):
        snn.LIF(0.9, beta=0.5)
    with raises(TypeError, "LIF()", "positional"):
        snn.LIF(0.9, 1.0, 20.0)
    with raises(TypeError, "SRM()", "epsilon"):
        snn.SRM(threshold=1.0)
    with raises(TypeError, "from_neuron()", "beta"):
        snn.from_neuron(NEURON, beta=0.5)


@pytest.mark.parametrize("neuron", [snn.LIF(0.9), 0.9, ec.LIF, None], ids=lambda n: type(n).__name__)
def test_something_else_instead_of_a_descriptor(neuron):
    for run in (
        lambda: snn.spike(CURRENT, neuron),
        lambda: snn.from_neuron(neuron),
        lambda: snn.Layer(neuron),
    ):
        with raises(TypeError, "neuron", "exodus_core.LIF", type(neuron).__name__):
            run()


def test_arguments_the_wrong_way_round():
    with raises(TypeError, "neuron", "Tensor"):
        snn.spike(NEURON, CURRENT)


def test_module_or_tensor_given_to_the_numpy_front_end():
    with raises(TypeError, "exodus_core.torch.spike"):
        ec.forward(snn.LIF(0.9), CURRENT.numpy())
    with raises(TypeError, "current", "exodus_core.torch.spike"):
        ec.forward(NEURON, CURRENT)
    with raises(TypeError, "x", "Tensor", "exodus_core.torch.kernel_filter"):
        ec.kernel_filter(ec.kernel.Alpha(2.0), CURRENT)
    with raises(TypeError, "grad", "exodus_core.torch.kernel_filter", "adjoint"):
        ec.kernel_filter_adjoint(ec.kernel.Alpha(2.0), CURRENT)
    with raises(TypeError, "trace", "exodus_core.torch.growth"):
        ec.growth(snn.spike(CURRENT, NEURON))


def test_arguments_of_the_filter():
    alpha = ec.kernel.Alpha(2.0)
    with raises(TypeError, "x", "ndarray", "exodus_core.kernel_filter"):
        snn.kernel_filter(alpha, CURRENT.numpy())
    with raises(TypeError, "x", "float32", "int64"):
        snn.kernel_filter(alpha, CURRENT.long())
    with raises(TypeError, "kernel", "2.0"):
        snn.kernel_filter(2.0, CURRENT)
    with raises(ValueError, "time_dim", "x", "3"):
        snn.kernel_filter(alpha, CURRENT, time_dim=3)
    with raises(TypeError, "state", "3 tensors", "potential, x, y"):
        snn.kernel_filter(alpha, CURRENT, state=(CURRENT[0],))


def test_arguments_of_growth():
    for trace in (CURRENT, ec.forward(NEURON, CURRENT.numpy()), snn.Trace(None, CURRENT, None)):
        with raises(TypeError, "trace", "exodus_core.torch.spike", type(trace).__name__):
            snn.growth(trace)
    with raises(TypeError, "surrogate", "ATan"):
        snn.growth(snn.spike(CURRENT, NEURON), ec.surrogate.ATan)


def test_arguments_of_an_initial_state():
    layer = snn.LIF(0.9)
    with raises(ValueError, "potential", "(3, 4)", "(5,)"):
        layer.initial_state((3, 4), potential=torch.zeros(5))
    with raises(TypeError, "dtype", "float32", "int64"):
        layer.initial_state((3, 4), dtype=torch.int64)
    for shape in ("three", (2.5,), None):
        with raises(TypeError, "shape", "integers", repr(shape)):
            layer.initial_state(shape)
    with raises(TypeError, "state.potential", "ndarray", "initial_state", "tensor"):
        layer(CURRENT, layer.neuron.initial_state((3, 4)))


@pytest.mark.parametrize("method", ["detach", "to"])
def test_state_of_numpy_arrays_is_not_moved(method):
    state = NEURON.initial_state((3, 4))
    with raises(TypeError, method, "potential", "tensor", "ndarray"):
        getattr(state, method)(*["cpu"][: method == "to"])


def test_nothing_is_written_where_an_argument_is_wrong():
    current, state = CURRENT.clone(), state_with(spikes=torch.ones(2, 2))
    with raises(ValueError, "state.spikes"):
        snn.spike(current, NEURON, state=state)
    np.testing.assert_array_equal(current, CURRENT)
    assert [x._version for x in (current, *state)] == [0, 0, 0]


class OneArgument(torch.nn.Module):
    def forward(self, x):
        return x


class TwoArguments(torch.nn.Module):
    def forward(self, potential, threshold):
        return torch.ones_like(potential)


class OwnCall(OneArgument):
    def __call__(self, potential, threshold):
        return torch.ones_like(potential)


def atan(x):
    return 1 / (1 + x * x)


@pytest.mark.parametrize(
    "curve", [atan, OneArgument(), torch.nn.Sigmoid(), torch.nn.Sequential(OneArgument())]
)
def test_surrogate_that_takes_other_arguments_where_it_is_given(curve):
    layer = snn.LIF(0.9)
    for give in (
        lambda: snn.LIF(0.9, surrogate=curve),
        lambda: snn.from_neuron(ec.LIF(0.9), surrogate=curve),
        lambda: snn.spike(CURRENT, ec.LIF(0.9), surrogate=curve),
        lambda: type(layer).surrogate.fset(layer, curve),
    ):
        with raises(TypeError, "surrogate", "potential", "threshold"):
            give()


@pytest.mark.parametrize("curve", [TwoArguments(), OwnCall(), torch.sub, lambda u, th: u * 0])
def test_surrogate_that_takes_two_arguments(curve):
    current = CURRENT.clone().requires_grad_()
    snn.spike(current, ec.LIF(0.9), surrogate=curve).spikes.sum().backward()
    assert torch.isfinite(current.grad).all()
