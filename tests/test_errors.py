"""Wrong arguments raise clear errors before any work is done.

Property: a wrong argument raises a ValueError or TypeError. The message names the argument, and says what was
expected and what it was. Witness: the message.
"""

import dataclasses
import functools
import operator
import re

import numpy as np
import pytest

import exodus_core as ec
from compare import assert_same_bits
from exodus_core import surrogate
from neuron_examples import SCALARS

NEURON = ec.LIF(alpha=0.9)
CURRENT = np.full((6, 3, 4), 0.4, np.float32)


def raises(error, *words):
    """`pytest.raises` for a message that contains all the words, in any order."""
    return pytest.raises(error, match="(?s)" + "".join(f"(?=.*{re.escape(w)})" for w in words))


@pytest.fixture
def trace():
    return ec.forward(NEURON, CURRENT)


NUMBERS = [
    ("alpha", -0.1, ["alpha", "-0.1", "0", "1"]),
    ("alpha", 1.0001, ["alpha", "1.0001"]),
    ("alpha", np.nan, ["alpha", "nan"]),
    ("alpha", np.array([0.5, 1.5]), ["alpha", "1.5"]),
    ("alpha", np.array([0.5, np.nan]), ["alpha", "nan"]),
    ("threshold", 0.0, ["threshold", "0"]),
    ("threshold", -1.0, ["threshold", "-1"]),
    ("threshold", np.nan, ["threshold", "nan"]),
    ("threshold", np.array([1.0, -2.0]), ["threshold", "-2"]),
    ("gain", np.nan, ["gain", "nan"]),
    ("reset_amount", np.nan, ["reset_amount", "nan"]),
    ("v_min", np.nan, ["v_min", "nan"]),
    ("reset", "hard", ["reset", "subtract", "zero", "none", "hard"]),
    ("reset_timing", "never", ["reset_timing", "after_decay", "before_decay", "never"]),
    ("max_spikes", 0, ["max_spikes", "1", "0"]),
    ("max_spikes", -3, ["max_spikes", "-3"]),
]


@pytest.mark.parametrize(("name", "value", "words"), NUMBERS, ids=lambda x: str(x)[:20])
def test_lif_parameter_out_of_range(name, value, words):
    with raises(ValueError, *words):
        ec.LIF(**{"alpha": 0.9, name: value})


@pytest.mark.parametrize("name", ["alpha", "threshold", "gain", "reset_amount", "v_min"])
@pytest.mark.parametrize("value", [1j, [[1, 2], [3]], ..., np.array(["a"])], ids=repr)
def test_parameter_that_is_no_number(name, value):
    with raises((TypeError, ValueError), name):
        ec.LIF(**{"alpha": 0.9, name: value})


@pytest.mark.parametrize("kind", [ec.LIF, ec.ExpLeak])
@pytest.mark.parametrize("name", ["gain", "dt"])
def test_parameter_that_may_not_be_none(kind, name):
    with raises((TypeError, ValueError), name, "None"):
        kind(**{"alpha": 0.9, name: None})


@pytest.mark.parametrize("fields", [{}, {"v_min": -0.5}, {"reset_amount": 1.0}])
def test_threshold_that_is_none(fields):
    with raises((TypeError, ValueError), "threshold", "None"):
        ec.LIF(alpha=0.9, threshold=None, **fields)
    with raises((TypeError, ValueError), "threshold", "None"):
        ec.IF(threshold=None, **fields)


def test_unknown_name_of_a_gain():
    with raises((TypeError, ValueError), "gain", "1-alpha", "1-beta"):
        ec.LIF(alpha=0.9, gain="1-beta")


@pytest.mark.parametrize("value", [1.5, "two", [1, 2]])
def test_max_spikes_that_is_no_count(value):
    with raises((TypeError, ValueError), "max_spikes"):
        ec.LIF(alpha=0.9, max_spikes=value)


@pytest.mark.parametrize("kind", [ec.LIF, ec.ExpLeak])
def test_exactly_one_of_alpha_and_tau(kind):
    with raises((TypeError, ValueError), "alpha", "tau"):
        kind()
    with raises((TypeError, ValueError), "alpha", "tau"):
        kind(alpha=0.9, tau=10.0)


@pytest.mark.parametrize("kind", [ec.LIF, ec.ExpLeak])
@pytest.mark.parametrize("value", [0.0, -5.0, np.nan])
def test_time_constant_and_step_out_of_range(kind, value):
    with raises(ValueError, "tau"):
        kind(tau=value)
    with raises(ValueError, "dt"):
        kind(tau=10.0, dt=value)


@pytest.mark.parametrize("kind", [ec.LIF, ec.ExpLeak])
def test_readouts_are_checked_as_well(kind):
    with raises(ValueError, "alpha", "2"):
        kind(alpha=2.0)
    with raises(ValueError, "gain"):
        kind(alpha=0.9, gain=np.nan)


def test_threshold_not_above_v_min():
    for v_min in (1.0, 2.0, np.array([0.0, 1.0])):
        with raises(ValueError, "threshold", "v_min"):
            ec.LIF(alpha=0.9, threshold=1.0, v_min=v_min)
    ec.LIF(alpha=0.9, threshold=np.array([0.5, 1.0]), v_min=np.array([0.4, 0.9]))


@pytest.mark.parametrize("reset", ["zero", "none"])
def test_reset_amount_without_subtraction(reset):
    with raises(ValueError, "reset_amount", reset):
        ec.LIF(alpha=0.9, reset=reset, reset_amount=1.0)
    # Without subtraction the timing is ignored, so it is no error.
    ec.LIF(alpha=0.9, reset=reset, reset_timing="before_decay")


def test_parameters_that_do_not_broadcast_against_each_other():
    neuron = ec.LIF(alpha=np.full(3, 0.9), threshold=np.ones(2))
    with raises(ValueError, "threshold", "(2,)", "(3,)"):
        ec.forward(neuron, np.zeros((6, 3), np.float32))
    # The descriptor already compares these two.
    with raises(ValueError, "v_min", "threshold", "(3,)", "(2,)"):
        ec.LIF(alpha=0.9, threshold=np.ones(2), v_min=np.zeros(3))


def test_parameter_that_does_not_broadcast_names_the_shape_that_would():
    # The array is (time, batch, 16 channels, height, width): (16,) broadcasts against the width, which is 7.
    current = np.zeros((2, 3, 16, 5, 7), np.float32)
    with raises(ValueError, "alpha", "(16,)", "(16, 1, 1)", "one value per channel"):
        ec.forward(ec.LIF(alpha=np.full(16, 0.9)), current)
    ec.forward(ec.LIF(alpha=np.full((16, 1, 1), 0.9)), current)


def test_parameter_with_more_axes_than_the_array():
    neuron = ec.LIF(alpha=0.9, threshold=np.ones((2, 3, 4)))
    with raises(ValueError, "threshold", "(2, 3, 4)", "(3, 4)"):
        ec.forward(neuron, CURRENT)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"threshold": 1e-50}, "threshold"),
        ({"threshold": np.array([1.0, 1e-50, 1.0, 1.0])}, "threshold"),
        ({"threshold": 1.0, "v_min": 1.0 - 1e-12}, "v_min"),
    ],
    ids=["scalar", "array", "equal after rounding"],
)
def test_values_that_rounding_makes_wrong_are_found_when_used(fields, word):
    neuron = ec.LIF(alpha=0.9, **fields)
    ec.forward(neuron, CURRENT.astype(np.float64))
    with raises(ValueError, word, "float32"):
        ec.forward(neuron, CURRENT)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.bool_, np.complex64])
def test_current_of_another_dtype(dtype):
    with raises(TypeError, "current", "float32", np.dtype(dtype).str):
        ec.forward(NEURON, np.ones((6, 3), dtype))


@pytest.mark.parametrize("current", [None, [0.1, 0.2], "text", 0.5, {}], ids=repr)
def test_current_that_is_no_array(current):
    with raises(TypeError, "current", type(current).__name__):
        ec.forward(NEURON, current)


@pytest.mark.parametrize(("shape", "axis"), [((0, 3), 0), ((0,), 0), ((2, 0, 3), 1), ((0, 0), -1)])
def test_current_without_time(shape, axis):
    with raises(ValueError, "current", "time axis", "zero", str(shape)):
        ec.forward(NEURON, np.zeros(shape, np.float32), time_axis=axis)


def test_current_without_an_axis_for_time():
    with raises(ValueError, "current"):
        ec.forward(NEURON, np.array(0.5, np.float32))


@pytest.mark.parametrize("time_axis", [3, -4, 100])
def test_time_axis_out_of_range(time_axis):
    with raises(ValueError, "time_axis", str(time_axis)):
        ec.forward(NEURON, CURRENT, time_axis=time_axis)


@pytest.mark.parametrize("time_axis", ["time", 0.5, (0, 1)])
def test_time_axis_that_is_no_integer(time_axis):
    with raises(TypeError, "time_axis"):
        ec.forward(NEURON, CURRENT, time_axis=time_axis)


@pytest.mark.parametrize("neuron", [None, "LIF", ec.LIF, 0.9], ids=repr)
def test_neuron_that_is_none(neuron):
    with raises(TypeError, "neuron"):
        ec.forward(neuron, CURRENT)


class Quantity(np.ndarray):
    """An array whose values have a unit, as in libraries of physical quantities."""

    unit = "mV"


SUBCLASSES = {
    "masked array": lambda x: np.ma.masked_greater(x, 0.5),
    "unmasked array": np.ma.asarray,
    "matrix": lambda x: np.asmatrix(x) if np.ndim(x) <= 2 else x.view(Quantity),
    "quantity": lambda x: x.view(Quantity),
}


@pytest.mark.parametrize("make", SUBCLASSES.values(), ids=SUBCLASSES)
def test_arrays_with_a_mask_or_a_unit(make):
    x = np.full((6, 4), 0.4)
    trace, kind = ec.forward(NEURON, x), type(make(x)).__name__
    state = trace.state
    with raises(TypeError, "current", kind):
        ec.forward(NEURON, make(x))
    with raises(TypeError, "state.spikes", kind):
        ec.forward(NEURON, x, state=state._replace(spikes=make(state.spikes)))
    for name in ("grad_spikes", "grad_potential"):
        with raises(TypeError, name, kind):
            ec.backward(trace, **{"grad_spikes": x, name: make(x)})
    with raises(TypeError, "grad_state.potential", kind):
        ec.backward(trace, x, grad_state=(make(state.potential), None))
    with raises(TypeError, "trace.potential", kind):
        ec.backward(dataclasses.replace(trace, potential=make(trace.potential)), x)
    with raises(ValueError, "out.potential"):
        ec.forward(NEURON, x, out=dataclasses.replace(trace, potential=make(trace.potential)))
    with raises(TypeError, "surrogate", kind):
        ec.backward(trace, x, surrogate=lambda u, th: make(np.ones_like(u)))
    for name in ("alpha", "threshold", "gain"):
        with raises(TypeError, name, kind):
            ec.LIF(**{"alpha": 0.9, name: make(np.full(4, 0.4))})
    with raises(TypeError, "taps", kind):
        ec.kernel.FIR(make(np.full(4, 0.4)))
    with raises(TypeError, "potential", kind):
        NEURON.initial_state((4,), potential=make(np.full(4, 0.4)))
    for u, th, name in ((make(x), 1.0, "potential"), (x, make(x), "threshold")):
        with raises(TypeError, name, kind):
            surrogate.Boxcar()(u, th)
    with raises(TypeError, "x", kind):
        ec.kernel_filter(ec.kernel.Exponential(0.9), make(x))


def test_arrays_in_files_are_arrays(tmp_path):
    x = np.memmap(tmp_path / "current", np.float32, "w+", shape=(6, 4))
    x[:] = 0.4
    assert_same_bits(ec.forward(NEURON, x).potential, ec.forward(NEURON, np.array(x)).potential)
    ec.LIF(alpha=np.memmap(tmp_path / "current", np.float32, "r", shape=(4,)))


def test_taps_of_a_kernel_are_taken_again():
    fir = ec.kernel.FIR(np.linspace(0.5, 0.1, 4))
    assert ec.kernel.FIR(fir.taps) == fir
    assert ec.forward(ec.LIF(alpha=fir.taps), np.ones((3, 4))).spikes.shape == (3, 4)


def test_torch_tensors_and_modules_are_sent_to_the_torch_function(trace):
    torch = pytest.importorskip("torch")
    for neuron, current in [
        (NEURON, torch.zeros(6, 3)),
        (torch.nn.ReLU(), CURRENT),
        (torch.nn.ReLU(), torch.zeros(6, 3)),
    ]:
        with raises(TypeError, "exodus_core.torch.spike"):
            ec.forward(neuron, current)
    with raises(TypeError, "grad_spikes"):
        ec.backward(trace, torch.ones(6, 3, 4))


def test_state_of_another_shape():
    state = NEURON.initial_state((4, 3), np.float32)
    with raises(ValueError, "state", "(4, 3)", "(3, 4)"):
        ec.forward(NEURON, CURRENT, state=state)
    good = NEURON.initial_state((3, 4), np.float32)
    with raises(ValueError, "spikes", "(3,)", "(3, 4)"):
        ec.forward(NEURON, CURRENT, state=good._replace(spikes=np.zeros(3, np.float32)))


def test_state_of_another_dtype():
    with raises(TypeError, "state", "float64", "float32"):
        ec.forward(NEURON, CURRENT, state=NEURON.initial_state((3, 4), np.float64))


def test_state_of_another_neuron():
    with raises((TypeError, ValueError), "state"):
        ec.forward(NEURON, CURRENT, state=ec.ExpLeak(alpha=0.9).initial_state((3, 4), np.float32))


@pytest.mark.parametrize("state", [0.0, "rest", np.zeros((3, 4), np.float32), (None, None)])
def test_state_that_is_none(state):
    with raises((TypeError, ValueError), "state"):
        ec.forward(NEURON, CURRENT, state=state)


def test_initial_state_of_a_wrong_shape_or_dtype():
    with raises((TypeError, ValueError), "dtype"):
        NEURON.initial_state((3,), np.int32)
    with raises(ValueError, "potential", "(5,)"):
        NEURON.initial_state((3,), np.float32, potential=np.zeros(5))


SRMS = [
    ec.SRM(ec.kernel.Alpha(4.0), ec.kernel.Exponential(0.8, scale=-1.0)),
    ec.SRM(ec.kernel.FIR([0.5, 0.2]), ec.kernel.FIR([-0.5])),
]


@pytest.mark.parametrize("neuron", SRMS)
@pytest.mark.parametrize("potential", [0.9, np.nan, [0.0, 0.0, 1e-300], np.float32(-1)], ids=str)
def test_initial_potential_that_would_have_no_effect(neuron, potential):
    with raises(ValueError, "potential", "0 for an SRM"):
        neuron.initial_state((3,), np.float64, potential=potential)
    for zero in (0.0, 0, -0.0, np.zeros(3)):
        neuron.initial_state((3,), np.float64, potential=zero)


EACH = [neuron for name, neuron in SCALARS.items() if name != "SRM"]


@pytest.mark.parametrize("neuron", EACH, ids=lambda neuron: type(neuron).__name__)
def test_initial_potential_has_an_effect(neuron):
    rest, other = (neuron.initial_state((3,), np.float64, potential=value) for value in (0.0, 0.4))
    current = np.zeros((2, 3))
    potentials = [ec.forward(neuron, current, state=state).potential for state in (rest, other)]
    assert (potentials[0] != potentials[1]).all()


@pytest.mark.parametrize("potential", [None, "high", [1j], ...], ids=repr)
def test_initial_potential_that_is_no_number(potential):
    with raises(TypeError, "potential"):
        NEURON.initial_state((3,), potential=potential)


def test_unknown_method(trace):
    with raises(ValueError, "method", "exodus", "slayer", "bptt", "backprop"):
        ec.backward(trace, np.ones_like(CURRENT), method="backprop")
    with raises((TypeError, ValueError), "method"):
        ec.backward(trace, np.ones_like(CURRENT), method=None)


def test_parameters_that_the_neuron_was_not_given(trace):
    for names, words in ((["tau"], ["tau", "alpha"]), (["alpha", "beta"], ["beta"]), ("alpha", [])):
        with raises((TypeError, ValueError), "parameters", *words):
            ec.backward(trace, np.ones_like(CURRENT), parameters=names)


def test_recurrent_is_a_parameter_where_there_are_weights(trace):
    with raises(ValueError, "parameters", "['alpha', 'gain', 'threshold'], got 'recurrent'"):
        ec.backward(trace, np.ones_like(CURRENT), parameters=("recurrent",))
    recurrent = ec.forward(NEURON, CURRENT, recurrent=np.zeros((4, 4), np.float32))
    for names in (("nonsense",), {"recurrent", "nonsense"}):
        with raises(ValueError, "parameters", "'alpha'", "'threshold', 'recurrent'], got 'nonsense'"):
            ec.backward(recurrent, np.ones_like(CURRENT), parameters=names)


@pytest.mark.parametrize("name", ["grad_spikes", "grad_potential"])
def test_gradient_of_another_shape_or_dtype(trace, name):
    given = {"grad_spikes": np.ones_like(CURRENT)}
    for shape in ((6, 3), (6, 4, 3), (5, 3, 4), ()):
        with raises(ValueError, name, str(shape), "(6, 3, 4)"):
            ec.backward(trace, **{**given, name: np.ones(shape, np.float32)})
    for dtype, words in {np.float64: "float64", np.int32: "<i4", np.complex64: "<c8"}.items():
        with raises(TypeError, name, words, "float32"):
            ec.backward(trace, **{**given, name: np.ones(CURRENT.shape, dtype)})
    with raises(TypeError, name, "list"):
        ec.backward(trace, **{**given, name: [1.0, 2.0]})


def test_gradient_of_the_state_of_another_shape_or_dtype(trace):
    ones, zeros = np.ones_like(CURRENT), np.zeros((3, 4), np.float32)
    with raises(ValueError, "grad_state", "(4, 3)", "(3, 4)"):
        ec.backward(trace, ones, grad_state=(zeros.T, None))
    with raises(TypeError, "grad_state", "float64", "float32"):
        ec.backward(trace, ones, grad_state=(None, zeros.astype(np.float64)))
    with raises((TypeError, ValueError), "grad_state", "2"):
        ec.backward(trace, ones, grad_state=(zeros, zeros, zeros))
    with raises((TypeError, ValueError), "grad_state"):
        ec.backward(trace, ones, grad_state=0.5)


def test_no_gradient_at_all(trace):
    with raises(ValueError, "grad_spikes"):
        ec.backward(trace, None)


def test_readout_has_no_spikes_to_have_a_gradient():
    readout = ec.forward(ec.ExpLeak(alpha=0.9), CURRENT)
    with raises((TypeError, ValueError), "grad_spikes"):
        ec.backward(readout, np.ones_like(CURRENT), grad_potential=np.ones_like(CURRENT))


@pytest.mark.parametrize("trace", [None, CURRENT, NEURON], ids=["None", "array", "neuron"])
def test_trace_that_is_none(trace):
    with raises(TypeError, "trace"):
        ec.backward(trace, np.ones_like(CURRENT))


@pytest.mark.parametrize("wrong", [None, "Boxcar", 0.5, surrogate.Boxcar], ids=repr)
def test_surrogate_that_is_none(trace, wrong):
    with raises(TypeError, "surrogate"):
        ec.backward(trace, np.ones_like(CURRENT), surrogate=wrong)


class OneArgument:
    def __call__(self, x):
        return x


ONE_ARGUMENT = [
    lambda x: x,
    lambda: 1.0,
    lambda u, th, slope: u,
    lambda u, *, threshold: u,
    OneArgument(),
    OneArgument().__call__,
    functools.partial(lambda u, th: u, 0.5),
    functools.partial(lambda u, th, slope: u, slope=1.0, th=0.5),
]
TWO_ARGUMENTS = [
    lambda u, th: u * 0.0,
    lambda *both: both[0] * 0.0,
    lambda u, th, slope=1.0: u * 0.0,
    lambda u, th, /, **options: u * 0.0,
    functools.partial(lambda u, th, slope: u * slope, slope=0.0),
    np.subtract,  # a ufunc, which has no signature
    operator.sub,
]


@pytest.mark.parametrize("curve", ONE_ARGUMENT)
def test_surrogate_that_takes_other_arguments(trace, curve):
    for call in (
        lambda: ec.backward(trace, np.ones_like(CURRENT), surrogate=curve),
        lambda: ec.growth(trace, curve),
    ):
        with raises(TypeError, "surrogate", "two arguments", "potential", "threshold"):
            call()


@pytest.mark.parametrize("curve", TWO_ARGUMENTS)
def test_surrogate_that_takes_two_arguments(trace, curve):
    assert np.isfinite(ec.backward(trace, np.ones_like(CURRENT), surrogate=curve).current).all()


def test_surrogate_callable_with_a_wrong_result(trace):
    with raises(ValueError, "surrogate", "(6,)", "(6, 3, 4)"):
        ec.backward(trace, np.ones_like(CURRENT), surrogate=lambda u, th: np.ones(6, np.float32))
    with raises((TypeError, ValueError), "surrogate", "(6, 3, 4)"):
        ec.backward(trace, np.ones_like(CURRENT), surrogate=lambda u, th: None)
    with raises(TypeError, "surrogate", "int64"):
        ec.backward(trace, np.ones_like(CURRENT), surrogate=lambda u, th: np.ones(u.shape, int))


def test_error_in_a_surrogate_callable_reaches_the_user(trace):
    def broken(potential, threshold):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        ec.backward(trace, np.ones_like(CURRENT), surrogate=broken)


def test_out_of_another_shape_dtype_or_layout(trace):
    with raises(ValueError, "out", "(6, 3, 4)", "(5, 3, 4)"):
        ec.forward(NEURON, CURRENT[:5], out=trace)
    with raises((TypeError, ValueError), "out", "float32", "float64"):
        ec.forward(NEURON, CURRENT.astype(np.float64), out=trace)
    with raises(ValueError, "out", "strides"):
        ec.forward(NEURON, np.asfortranarray(CURRENT), out=trace)
    with raises(TypeError, "out"):
        ec.forward(NEURON, CURRENT, out=np.empty_like(CURRENT))


def test_out_of_another_kind_of_neuron(trace):
    with raises((TypeError, ValueError), "out"):
        ec.forward(ec.ExpLeak(alpha=0.9), CURRENT, out=trace)


def test_out_that_is_read_only(trace):
    trace.potential.flags.writeable = False
    with raises(ValueError, "out", "read-only"):
        ec.forward(NEURON, CURRENT, out=trace)


def test_out_that_overlaps_the_input(trace):
    # The spikes of a layer are the current of the next one, which must not overwrite them.
    with raises(ValueError, "out", "current", "overlap"):
        ec.forward(NEURON, trace.spikes, out=trace)
    with raises(ValueError, "out", "current", "overlap"):
        ec.forward(NEURON, trace.potential, out=trace)


def test_out_that_overlaps_an_input_with_gaps(trace):
    # Such an input is copied, so the result would be right, but the trace's current would be overwritten.
    backwards = trace.spikes[::-1]
    with raises(ValueError, "out", "current", "overlap"):
        ec.forward(NEURON, backwards, out=trace)
    grads = ec.backward(trace, np.ones_like(CURRENT))
    with raises(ValueError, "out", "grad_spikes", "overlap"):
        ec.backward(trace, grads.current[::-1], out=grads)


def test_out_that_overlaps_an_argument_that_is_copied(trace):
    # The copy makes the result right, but the user's array would be overwritten.
    weights = trace.potential[:4, 0].T
    with raises(ValueError, "out", "recurrent", "overlap"):
        ec.forward(NEURON, CURRENT, recurrent=weights, out=trace)
    grads = ec.backward(trace, np.ones_like(CURRENT))
    for name in ("spikes", "potential", "current"):
        backwards = dataclasses.replace(trace, **{name: grads.current[::-1]})
        with raises(ValueError, "out", name, "overlap"):
            ec.backward(backwards, np.ones_like(CURRENT), out=grads)


def test_out_that_overlaps_the_state(trace):
    state = trace.state._replace(potential=trace.potential[-1])
    with raises(ValueError, "out", "state", "overlap"):
        ec.forward(NEURON, CURRENT, state=state, out=trace)


def test_backward_out_of_another_shape_or_layout(trace):
    grads = ec.backward(trace, np.ones_like(CURRENT))
    other = ec.forward(NEURON, CURRENT[:5])
    with raises(ValueError, "out", "(6, 3, 4)", "(5, 3, 4)"):
        ec.backward(other, np.ones_like(CURRENT[:5]), out=grads)
    fortran = ec.forward(NEURON, np.asfortranarray(CURRENT))
    with raises(ValueError, "out", "strides"):
        ec.backward(fortran, np.ones_like(fortran.spikes), out=grads)
    with raises(TypeError, "out"):
        ec.backward(trace, np.ones_like(CURRENT), out=trace)


def test_backward_out_that_overlaps_or_is_read_only(trace):
    grads = ec.backward(trace, np.ones_like(CURRENT))
    with raises(ValueError, "out", "grad_spikes", "overlap"):
        ec.backward(trace, grads.current, out=grads)
    with raises(ValueError, "out", "grad_potential", "overlap"):
        ec.backward(trace, None, grad_potential=grads.current, out=grads)
    grads.current.flags.writeable = False
    with raises(ValueError, "out", "read-only"):
        ec.backward(trace, np.ones_like(CURRENT), out=grads)


@pytest.mark.parametrize("wrong", [None, CURRENT], ids=["None", "array"])
def test_growth_of_no_trace(wrong):
    with raises(TypeError, "trace"):
        ec.growth(wrong, surrogate.Boxcar())


def test_a_failed_call_leaves_its_out_alone(trace):
    before = trace.potential.copy()
    with raises(ValueError, "time_axis"):
        ec.forward(NEURON, CURRENT, time_axis=9, out=trace)
    np.testing.assert_array_equal(trace.potential, before)
