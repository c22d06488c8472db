"""A descriptor is a value, and results own their arrays.

Property: descriptors are frozen, and can be compared, hashed, printed and replaced like numbers. Results have
the documented fields, shapes and dtypes. `out=` is reused, but states never are. Witness: Python's equality,
and a second descriptor or call that must agree.
"""

import copy
import dataclasses
import gc
import pickle
import subprocess
import sys

import numpy as np
import pytest

import exact
import exodus_core as ec
import neuron_examples
from compare import assert_same_bits
from drive import METHODS
from exodus_core import _binding

SCALARS = [
    ec.LIF(alpha=0.9),
    ec.LIF(0.9, 0.7),
    ec.LIF(tau=20.0, dt=0.5, threshold=0.8, gain="1-alpha"),
    ec.LIF(alpha=0.9, reset="zero", v_min=-0.5, max_spikes=None),
    ec.LIF(alpha=0.9, reset_amount=0.5, reset_timing="before_decay", max_spikes=4, gain=2.0),
    ec.IF(),
    ec.IF(threshold=0.5, reset="none"),
    ec.ExpLeak(alpha=0.9),
    ec.ExpLeak(tau=10.0, gain="1-alpha"),
    ec.CubaLIF(tau=5.0, alpha_syn=0.7, gain="1-alpha"),
    ec.ALIF(alpha=0.9, tau_adapt=50.0, adapt_scale=0.1),
    ec.StateSpace([[0.9, -0.1], [0.2, 0.8]], [1.0, 0.0], [-1.0, 0.3]),
    ec.StateSpace(np.array([[0.9, -0.1], [0.2, 0.8]]), (1.0, 0.0), [-1.0, 0.3], 0.5, reset="zero"),
    ec.AdLIF(0.9, 0.95, 0.3, 0.2),
    ec.AdLIF(tau=5.0, tau_adapt=50.0, dt=0.5, coupling=0.3, adapt_scale=0.2, order="symplectic"),
    ec.ResonateAndFire(0.95, 0.4),
    ec.ResonateAndFire(tau=20.0, frequency=0.4, fires_on="imaginary"),
    *neuron_examples.SCALARS.values(),
]
ARRAYS = [
    ec.LIF(alpha=np.array([0.5, 0.9])),
    ec.LIF(tau=np.array([[5.0], [9.0]]), threshold=np.array([0.5, 1.0]), v_min=np.array([-1, 0.1])),
    ec.IF(threshold=np.linspace(0.5, 1, 3), gain=np.float32([1, 2, 3])),
    ec.ExpLeak(alpha=np.array([0.25, 1.0])),
    ec.StateSpace([[0.9, np.array([-0.1, -0.2, 0.0])], [0.2, 0.8]], [1.0, 0.0], np.ones((2, 2, 1))),
    ec.AdLIF(np.array([0.9, 0.8, 0.7]), 0.95, 0.3, np.float32([[0.2], [0.1]])),
    *(neuron_examples.per_neuron(name, (2, 3)) for name in neuron_examples.SCALARS),
]
EACH = pytest.mark.parametrize("neuron", [*SCALARS, *ARRAYS], ids=repr)
CURRENT = np.random.default_rng(0).normal(0.3, 0.7, (9, 2, 3)).astype(np.float32)


def typed_back(neuron):
    """Evaluate the `repr` of a neuron, with the names of the package and NumPy."""
    return eval(
        repr(neuron), {**vars(ec), **vars(ec.kernel), "array": np.array, "np": np, "float32": np.float32}
    )


@pytest.mark.parametrize("neuron", SCALARS, ids=repr)
def test_scalars_are_equal_hashable_and_typed_back(neuron):
    again = typed_back(neuron)
    assert again == neuron
    assert hash(again) == hash(neuron)
    assert {again: 1}[neuron] == 1
    assert [n == neuron for n in SCALARS].count(True) == 1


@pytest.mark.parametrize("neuron", ARRAYS, ids=repr)
def test_arrays_are_equal_and_typed_back(neuron):
    again = typed_back(neuron)
    assert again == neuron
    assert neuron != SCALARS[0]
    assert [n == neuron for n in ARRAYS].count(True) == 1


COPIES = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "old pickle": lambda value: pickle.loads(pickle.dumps(value, protocol=0)),
}
KERNELS = [
    ec.kernel.Alpha(tau=3.0),
    ec.kernel.Exponential(np.array([0.5, 0.9])),
    ec.kernel.FIR(np.linspace(1, 0, 5)),
    ec.SRM(ec.kernel.Alpha(tau=np.array([3.0, 4.0])), ec.kernel.FIR([[-1.0], [-0.5]])),
]


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("value", [*SCALARS, *ARRAYS, *KERNELS], ids=repr)
def test_use_leaves_no_trace_in_a_value(value, make):
    fields = {f.name for f in dataclasses.fields(value)}
    if isinstance(value, ec.Neuron) and value in SCALARS:
        trace = ec.forward(value, CURRENT)
        ec.backward(trace, grad_potential=np.ones_like(CURRENT))
        hash(value)
    assert vars(value).keys() <= fields
    again = make(value)
    assert again == value
    assert vars(again).keys() <= fields
    for name in fields:
        if isinstance(getattr(again, name), np.ndarray):
            assert type(getattr(again, name)) is type(getattr(value, name))
            with pytest.raises(ValueError, match="read-only"):
                getattr(again, name)[...] = 0


def test_caches_forget_a_deleted_neuron():
    gc.collect()
    before = len(_binding._known)
    neuron = ec.LIF(alpha=0.123)
    for _ in range(3):
        ec.forward(neuron, CURRENT)
    assert len(_binding._known) == before + 1
    del neuron
    gc.collect()
    assert len(_binding._known) == before


DECAYS = [
    (ec.LIF(alpha=0.9), {"alpha": 0.9}),
    (ec.LIF(tau=20.0, dt=0.5), {"alpha": exact.decay(0.5, 20.0)}),
    (ec.LIF(tau=[2.0, 4.0]), {"alpha": exact.decay(1.0, [2.0, 4.0])}),
    (ec.LIF(alpha=np.float32([0.5, 0.9])), {"alpha": np.float64(np.float32([0.5, 0.9]))}),
    (ec.IF(), {}),
    (ec.ExpLeak(tau=4.0), {"alpha": exact.decay(1.0, 4.0)}),
    (ec.StateSpace([[0.9, -0.1], [0.2, 0.8]], [1, 0], [-1, 0]), {}),
    (
        ec.AdLIF(alpha=0.9, tau_adapt=20.0, coupling=0, adapt_scale=0),
        {"alpha": 0.9, "alpha_adapt": exact.decay(1.0, 20.0)},
    ),
    (ec.ResonateAndFire(tau=20.0, dt=0.5, frequency=1), {"decay": exact.decay(0.5, 20.0)}),
    (ec.CubaLIF(tau=4.0, alpha_syn=0.5), {"alpha": exact.decay(1.0, 4.0), "alpha_syn": 0.5}),
    (
        ec.ALIF(alpha=0.9, tau_adapt=[8.0], adapt_scale=0.1),
        {"alpha": 0.9, "alpha_adapt": exact.decay(1.0, [8.0])},
    ),
    (
        ec.SRM(ec.kernel.Alpha(tau=4.0), ec.kernel.DoubleExponential(0.5, 0.25)),
        {"epsilon.alpha": exact.decay(1.0, 4.0), "nu.alpha": 0.5, "nu.beta": 0.25},
    ),
    (ec.SRM(ec.kernel.FIR([1.0, 0.5]), ec.kernel.Exponential(0.5)), {"nu.alpha": 0.5}),
]


@pytest.mark.parametrize(("neuron", "expected"), DECAYS, ids=lambda x: repr(x)[:30])
def test_decays_are_those_in_use(neuron, expected):
    found = neuron.decays
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert type(found[name]) is (np.ndarray if np.ndim(value) else float)
        np.testing.assert_allclose(found[name], value, rtol=1e-15, strict=np.ndim(value) > 0)


@EACH
def test_is_a_frozen_dataclass(neuron):
    names = [field.name for field in dataclasses.fields(neuron)]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(neuron, names[0], 0.5)
    assert dataclasses.replace(neuron) == neuron
    assert pickle.loads(pickle.dumps(neuron)) == neuron


@EACH
def test_replace_changes_one_field_and_checks_it(neuron):
    name = "gain" if hasattr(neuron, "gain") else "threshold"
    louder = dataclasses.replace(neuron, **{name: 3.5})
    assert type(louder) is type(neuron)
    assert getattr(louder, name) == 3.5
    assert louder != neuron
    assert dataclasses.replace(louder, **{name: getattr(neuron, name)}) == neuron
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(neuron, **{name: np.nan})


def test_a_parameter_array_is_the_neurons_own():
    alpha = np.array([0.5, 0.9, 0.7])
    neuron = ec.LIF(alpha=alpha)
    before = ec.forward(neuron, CURRENT)
    alpha[:] = 0.0
    assert_same_bits(ec.forward(neuron, CURRENT).potential, before.potential)
    with pytest.raises(ValueError, match="read-only"):
        neuron.alpha[0] = 0.1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tau_is_a_decay_computed_in_double(dtype):
    current = CURRENT.astype(dtype)
    by_tau = ec.forward(ec.LIF(tau=20.0, dt=2.0), current)
    by_alpha = ec.forward(ec.LIF(alpha=exact.decay(2.0, 20.0)), current)
    if dtype == np.float32:
        assert_same_bits(by_tau.potential, by_alpha.potential)
    np.testing.assert_allclose(by_tau.potential, by_alpha.potential, rtol=1e-13, atol=1e-15)


KEYS = [
    (ec.LIF(alpha=0.9), {"alpha", "threshold", "gain"}),
    (ec.LIF(tau=9.0), {"tau", "threshold", "gain"}),
    (ec.LIF(alpha=0.9, gain="1-alpha"), {"alpha", "threshold"}),
    (ec.LIF(tau=9.0, gain="1-alpha"), {"tau", "threshold"}),
    (
        ec.LIF(alpha=0.9, reset_amount=0.5, v_min=-1.0),
        {"alpha", "threshold", "gain", "reset_amount", "v_min"},
    ),
    (ec.IF(), {"threshold", "gain"}),
    (ec.IF(v_min=-1.0), {"threshold", "gain", "v_min"}),
    (ec.ExpLeak(alpha=0.9), {"alpha", "gain"}),
    (ec.ExpLeak(tau=9.0, gain="1-alpha"), {"tau"}),
]


@pytest.mark.parametrize(("neuron", "keys"), KEYS, ids=lambda x: "" if isinstance(x, set) else repr(x))
@pytest.mark.parametrize("method", METHODS)
def test_gradients_have_a_key_for_each_parameter_given(neuron, keys, method):
    trace = ec.forward(neuron, CURRENT)
    grads = ec.backward(trace, None, method=method, grad_potential=np.ones_like(CURRENT))
    assert set(grads.parameters) == keys
    for value in grads.parameters.values():
        assert np.shape(value) == ()
        assert np.isfinite(value)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_of_some_parameters_are_those_of_all(method):
    trace, ones = ec.forward(ec.LIF(tau=9.0, v_min=-1.0), CURRENT), np.ones_like(CURRENT)
    every = ec.backward(trace, ones, method=method)
    for names in ((), ("tau",), ["v_min", "gain"], {"threshold"}):
        some = ec.backward(trace, ones, method=method, parameters=names)
        assert set(some.parameters) == set(names)
        assert_same_bits(some.current, every.current)
        for name in names:
            assert_same_bits(some.parameters[name], every.parameters[name])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1), (2, 3), (1, 1)])
def test_gradients_have_the_parameters_own_shape(shape, dtype):
    values = {"threshold": 0.8, "gain": 1.5, "reset_amount": 0.6, "v_min": -0.4}
    neuron = ec.LIF(alpha=np.full(shape, 0.9), **{k: np.full(shape, v) for k, v in values.items()})
    trace = ec.forward(neuron, CURRENT.astype(dtype))
    grads = ec.backward(trace, np.ones(CURRENT.shape, dtype))
    assert set(grads.parameters) == {"alpha", *values}
    for name, value in grads.parameters.items():
        assert value.shape == shape, name
        assert value.dtype.kind == "f", name
        assert value.dtype.itemsize >= 4, name
    for gradient in (grads.current, *grads.state):
        assert gradient.dtype == dtype


def test_readout_needs_no_spike_gradient():
    trace = ec.forward(ec.ExpLeak(alpha=0.5), CURRENT.astype(np.float64))
    assert trace.spikes is None
    last = np.zeros(CURRENT.shape)
    last[-1] = 1.0
    grads = ec.backward(trace, None, grad_potential=last)
    np.testing.assert_array_equal(grads.current[:, 0, 0], 0.5 ** np.arange(8, -1, -1))
    assert grads.state._fields == ("potential",)
    np.testing.assert_array_equal(grads.state.potential, np.full((2, 3), 0.5**9))
    through_state = ec.backward(trace, None, grad_state=(np.ones((2, 3)),))
    assert_same_bits(through_state.current, grads.current)


FIELDS = [
    (ec.LIF(alpha=0.9), ("potential", "spikes")),
    (ec.IF(), ("potential", "spikes")),
    (ec.ExpLeak(alpha=0.9), ("potential",)),
]


@pytest.mark.parametrize(("neuron", "fields"), FIELDS, ids=lambda x: type(x).__name__)
def test_states_are_named_tuples_of_the_last_step(neuron, fields):
    trace = ec.forward(neuron, CURRENT)
    grads = ec.backward(trace, None, grad_potential=np.ones_like(CURRENT))
    initial = neuron.initial_state((2, 3), np.float32)
    for state in (trace.state, grads.state, initial):
        assert isinstance(state, tuple)
        assert state._fields == fields
        assert all(x.shape == (2, 3) and x.dtype == np.float32 for x in state)
    for name in fields:
        assert_same_bits(getattr(trace.state, name), getattr(trace, name)[-1])


@pytest.mark.parametrize("neuron", [ec.LIF(alpha=0.9), ec.ExpLeak(alpha=0.9)], ids=repr)
def test_initial_state_is_rest_or_the_potential_given(neuron):
    rest = neuron.initial_state((2, 3), np.float32)
    assert not any(x.any() for x in rest)
    assert_same_bits(ec.forward(neuron, CURRENT, state=rest).potential, ec.forward(neuron, CURRENT).potential)
    charged = neuron.initial_state((2, 3), np.float64, potential=0.25)
    np.testing.assert_array_equal(charged.potential, np.full((2, 3), 0.25))
    each = neuron.initial_state((2, 3), np.float64, potential=np.arange(3.0))
    np.testing.assert_array_equal(each.potential, [[0, 1, 2], [0, 1, 2]])
    each.potential[0] = 9.0
    assert each.potential[1, 0] == 0


def test_defaults_are_those_of_the_documentation():
    assert ec.LIF(alpha=0.9) == ec.LIF(
        alpha=0.9,
        threshold=1.0,
        tau=None,
        dt=1.0,
        gain=1.0,
        reset="subtract",
        reset_amount=None,
        reset_timing="after_decay",
        v_min=None,
        max_spikes=1,
    )
    trace = ec.forward(ec.LIF(alpha=0.9), CURRENT)
    ones = np.ones_like(CURRENT)
    explicit = ec.backward(
        ec.forward(ec.LIF(alpha=0.9), CURRENT, time_axis=0, state=None),
        ones,
        method="exodus",
        surrogate=ec.surrogate.SingleExponential(width=0.5, scale=0.5),
        grad_potential=None,
        grad_state=None,
    )
    assert_same_bits(ec.backward(trace, ones).current, explicit.current)


@pytest.mark.parametrize("neuron", [ec.LIF(alpha=0.9), ec.ExpLeak(alpha=0.9)], ids=repr)
def test_forward_out_is_the_same_object_with_the_same_arrays(neuron):
    other = ec.forward(neuron, np.ones_like(CURRENT))
    arrays = (other.spikes, other.potential)
    old_state, old_values = other.state, [x.copy() for x in other.state]
    fresh = ec.forward(neuron, CURRENT)
    again = ec.forward(neuron, CURRENT, out=other)
    assert again is other
    assert again.spikes is arrays[0]
    assert again.potential is arrays[1]
    assert_same_bits(again.potential, fresh.potential)
    for new, expected, old, kept in zip(again.state, fresh.state, old_state, old_values, strict=True):
        assert_same_bits(new, expected)
        # States are always new arrays: the earlier one keeps its values.
        assert not np.shares_memory(new, old)
        assert_same_bits(old, kept)
    ones = np.ones_like(CURRENT)
    one, two = (ec.backward(t, None, grad_potential=ones) for t in (again, fresh))
    assert_same_bits(one.current, two.current)
    assert_same_bits(one.parameters["alpha"], two.parameters["alpha"])


def test_backward_out_is_the_same_object_with_the_same_array():
    trace, ones = ec.forward(ec.LIF(alpha=0.9), CURRENT), np.ones_like(CURRENT)
    other = ec.backward(trace, 3 * ones)
    current, state, kept = other.current, other.state, other.state.potential.copy()
    again, fresh = ec.backward(trace, ones, out=other), ec.backward(trace, ones)
    assert again is other
    assert again.current is current
    assert_same_bits(again.current, fresh.current)
    assert_same_bits(again.state.potential, fresh.state.potential)
    assert_same_bits(again.parameters["alpha"], fresh.parameters["alpha"])
    assert not np.shares_memory(again.state.potential, state.potential)
    assert_same_bits(state.potential, kept)


@pytest.mark.parametrize("shape", [(2, 3), (1,), ()])
def test_a_state_is_never_modified_by_the_call_that_takes_it(shape):
    neuron = ec.LIF(alpha=0.9)
    state = neuron.initial_state(shape, np.float64, potential=0.5)
    state = state._replace(spikes=np.ones(shape))
    copy = [x.copy() for x in state]
    trace = ec.forward(neuron, np.full((4, *shape), 0.6), state=state)
    ec.backward(trace, np.ones((4, *shape)), grad_state=trace.state)
    for field, kept, last in zip(state, copy, trace.state, strict=True):
        assert_same_bits(field, kept)
        assert not np.shares_memory(field, last)


@pytest.mark.parametrize("method", METHODS)
def test_a_trace_keeps_its_own_copy_of_the_initial_state(method):
    neuron, current = ec.LIF(alpha=0.9), CURRENT.astype(np.float64)
    state = neuron.initial_state((2, 3), np.float64, potential=0.5)
    trace = ec.forward(neuron, current, state=state)
    before = ec.backward(trace, np.ones_like(current), method=method)
    state.potential[...] = 7.0
    state.spikes[...] = 1.0
    after = ec.backward(trace, np.ones_like(current), method=method)
    assert_same_bits(after.parameters["alpha"], before.parameters["alpha"])
    assert_same_bits(after.current, before.current)


def test_results_own_their_memory():
    trace = ec.forward(ec.LIF(alpha=0.9), CURRENT)
    grads = ec.backward(trace, np.ones_like(CURRENT))
    arrays = [trace.spikes, trace.potential, *trace.state, grads.current, *grads.state]
    arrays += [CURRENT]
    for i, one in enumerate(arrays):
        for other in arrays[:i]:
            assert not np.shares_memory(one, other)


def test_a_trace_refers_to_the_current_without_copying_it():
    trace = ec.forward(ec.LIF(alpha=0.9), CURRENT)
    assert np.shares_memory(trace.current, CURRENT)


@pytest.mark.parametrize("heavy", ["torch", "matplotlib", "scipy", "numba"])
def test_import_needs_nothing_but_numpy(heavy):
    code = f"import sys, exodus_core; sys.exit({heavy!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()


def test_isa_and_version_are_words():
    assert isinstance(ec.isa(), str)
    assert ec.isa()
    assert ec.__version__[0].isdigit()
    for option, word in {"--isa": ec.isa(), "--version": ec.__version__}.items():
        command = [sys.executable, "-m", "exodus_core", option]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == word
