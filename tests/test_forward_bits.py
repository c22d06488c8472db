"""Forward has the same bits for every layout, memory order, thread count, chunking and instruction set.

Property: spikes, potentials and final states have the bits of the documented formula, evaluated step by step
in the dtype of the data. Witness: the NumPy forward of `reference.py`.
"""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

import exodus_core as ec
import reference
from cases import every_model, name_of, random_problem
from compare import assert_gradient_close, assert_same_bits
from drive import METHODS, backward, forward, neuron_of, state_of
from reference import Model

DTYPES = [np.float32, np.float64]
PLAIN = Model(alpha=0.95, threshold=0.8)
FULL = Model(alpha=0.9, threshold=0.7, gain=1.3, reset_amount=0.6, v_min=-0.2, max_spikes=3)


def assert_equals_reference(model, current, time_axis=0, name="", *, at_rest=False):
    """Compare forward with the reference, with time on any axis, from a non-zero state or from rest."""
    time_first = np.moveaxis(current, time_axis, 0)
    rng = np.random.default_rng(0)
    potential = rng.normal(0.2, 0.4, time_first.shape[1:]).astype(current.dtype)
    spikes = rng.integers(0, 2, time_first.shape[1:]).astype(current.dtype)
    if at_rest:
        potential, spikes = np.zeros_like(potential), np.zeros_like(spikes)
    neuron = neuron_of(model)
    state = state_of(neuron, potential, spikes, current.dtype)
    trace = ec.forward(neuron, current, time_axis=time_axis, state=state)
    run = reference.forward(model, time_first, potential=potential, spikes=spikes)
    assert_same_bits(np.moveaxis(trace.potential, time_axis, 0), run.potential, name + "potential")
    assert_same_bits(trace.state.potential, run.potential[-1], name + "final potential")
    if model.spiking:
        assert_same_bits(np.moveaxis(trace.spikes, time_axis, 0), run.spikes, name + "spikes")
        assert_same_bits(trace.state.spikes, run.spikes[-1], name + "final spikes")
    return trace


def draw(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(0.2, 0.7, shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", every_model(), ids=name_of)
def test_every_kind_of_neuron(model, dtype):
    trace = assert_equals_reference(model, draw((40, 2, 67), dtype))
    assert trace.spikes.any()
    assert trace.spikes.dtype == trace.potential.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "model",
    [
        Model(alpha=0.97, gain="1-alpha"),
        Model(alpha=np.linspace(0.0, 1.0, 67), gain="1-alpha", threshold=0.1),
        Model(alpha=0.999, gain=np.linspace(-2, 2, 67)),
        Model(alpha=0.0),
        Model(alpha=1.0, threshold=0.3, reset_amount=0.7),
        Model(alpha=0.9, gain=0.3, spiking=False),
        Model(alpha=np.linspace(0.0, 1.0, 67), gain="1-alpha", spiking=False),
    ],
    ids=["norm", "norm-each", "gain-each", "no-memory", "amount", "readout", "readout-norm"],
)
def test_gains_decays_and_readouts(model, dtype):
    assert_equals_reference(model, draw((40, 2, 67), dtype))


@pytest.mark.parametrize("inner", [1, 3, 8, 35, 64, 65, 1000])
@pytest.mark.parametrize("outer", [1, 3, 40])
@pytest.mark.parametrize("model", [PLAIN, FULL], ids=["plain", "full"])
def test_time_on_any_axis(model, outer, inner):
    for dtype in DTYPES:
        current = draw((outer, 21, inner), dtype)
        assert_equals_reference(model, current, 1, "middle ")
        assert_equals_reference(model, current, -2, "middle, counted from the end ")
        assert_equals_reference(model, current.transpose(1, 0, 2).copy(), 0, "first ")
        assert_equals_reference(model, current.transpose(0, 2, 1).copy(), 2, "last ")


@pytest.mark.parametrize("time_axis", range(4))
def test_every_memory_order_runs_and_keeps_its_strides(time_axis):
    for order in itertools.permutations(range(4)):
        current = in_memory_order(draw((5, 3, 7, 6)), order)
        trace = assert_equals_reference(FULL, current, time_axis, f"order {order} ")
        assert trace.spikes.strides == current.strides
        assert trace.potential.strides == current.strides


def in_memory_order(array, order):
    """The same array with its axes in another order in memory, outermost first."""
    return array.transpose(order).copy().transpose(np.argsort(order))


@pytest.mark.parametrize("time_axis", [0, 1])
def test_channels_last_with_a_parameter_per_channel(time_axis):
    # Channels vary fastest in memory, as in the result of a channels-last convolution in torch.
    current = in_memory_order(draw((4, 5, 6, 3, 7)), (0, 1, 3, 4, 2))
    model = Model(alpha=np.linspace(0.5, 1, 6)[:, None, None], threshold=0.7)
    trace = assert_equals_reference(model, current, time_axis)
    assert trace.spikes.strides == current.strides


BASE = draw((24, 20, 70))
AWKWARD = {
    "gap in time": BASE[::2],
    "gap between lanes": BASE[:, :, ::2],
    "gap at the end of a row": BASE[:, :, :65],
    "backwards in time": BASE[::-1],
    "backwards over lanes": BASE[:, ::-1, ::-1],
    "Fortran": np.asfortranarray(BASE),
    "transposed": BASE.T,
    "broadcast over lanes": np.broadcast_to(BASE[:, :1], BASE.shape),
    "broadcast over time": np.broadcast_to(BASE[:1], BASE.shape),
    "one value": np.broadcast_to(np.float32(0.3), BASE.shape),
    "sliding window": np.lib.stride_tricks.sliding_window_view(BASE[:, 0, 0], 9),
    "read-only": BASE.copy(),
    "not aligned": np.frombuffer(b"x" + BASE.tobytes(), np.float32, BASE.size, 1).reshape(BASE.shape),
}
AWKWARD["read-only"].flags.writeable = False


@pytest.mark.parametrize("current", AWKWARD.values(), ids=AWKWARD)
def test_arrays_of_any_strides_give_the_same_bits(current):
    before = current.copy()
    for time_axis in range(current.ndim):
        assert_equals_reference(FULL, current, time_axis, f"time axis {time_axis} ")
    assert_same_bits(current, before, "input")


@pytest.mark.parametrize(
    ("shape", "time_axis"),
    [((25, 70_001), 0), ((25, 300, 257), 0), ((333, 25, 200), 1), ((70_001, 25), 1)],
    ids=["one row", "time first", "time in the middle", "time last"],
)
def test_every_thread_count(threads, shape, time_axis):
    current = draw(shape)
    for count in (1, 2, 3, 4):
        threads(count)
        assert_equals_reference(FULL, current, time_axis, f"{count} threads ")


@pytest.mark.parametrize("model", every_model(), ids=name_of)
def test_chunks_and_single_steps_are_the_whole(model):
    problem = random_problem(model, steps=19, lanes=(5, 13), dtype=np.float32)
    whole, neuron = forward(problem), neuron_of(model)
    for cuts in ([], [1, 2], [8, 16], range(1, 19)):
        state = state_of(neuron, problem.potential, problem.spikes, np.float32)
        for part, spikes in zip(np.split(problem.current, cuts), np.split(whole.spikes, cuts), strict=True):
            trace = ec.forward(neuron, part, state=state)
            state = trace.state
            assert_same_bits(trace.spikes, spikes)
        assert_same_bits(state.potential, whole.state.potential)
    state = state_of(neuron, problem.potential, problem.spikes, np.float32)
    for n, frame in enumerate(problem.current):
        trace = ec.forward(neuron, frame, time_axis=None, state=state)
        state = trace.state
        assert trace.spikes.shape == frame.shape
        assert_same_bits(trace.spikes, whole.spikes[n])
        assert_same_bits(trace.potential, whole.potential[n])


SHAPES = [
    tuple(size if full else 1 for size, full in zip((2, 3, 4, 5), axes, strict=True))[drop:]
    for drop in range(5)
    for axes in itertools.product((False, True), repeat=4)
    if not any(axes[:drop])
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_parameters_of_every_shape_that_broadcasts(shape):
    # The array is (batch, time, channel, height, width); without time its shape is (2, 3, 4, 5).
    rng = np.random.default_rng(1)
    model = Model(
        alpha=rng.uniform(0.5, 1, shape),
        threshold=rng.uniform(0.5, 1, shape),
        gain=rng.uniform(0.5, 2, shape),
        reset_amount=rng.uniform(0.3, 1, shape),
        v_min=rng.uniform(-0.5, 0, shape),
        max_spikes=2,
    )
    for dtype in DTYPES:
        assert_equals_reference(model, draw((2, 6, 3, 4, 5), dtype), 1)


def test_parameters_of_different_shapes_in_one_neuron():
    model = Model(
        alpha=np.linspace(0.5, 1, 3)[:, None, None],
        threshold=np.linspace(0.5, 1, 5),
        gain=np.linspace(0.5, 2, 2)[:, None, None, None],
        v_min=np.linspace(-1, -0.1, 4)[:, None],
    )
    for order in itertools.permutations(range(5)):
        assert_equals_reference(model, in_memory_order(draw((2, 6, 3, 4, 5)), order), 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", every_model(), ids=name_of)
def test_special_values_follow_ieee_arithmetic(model, dtype):
    info = np.finfo(dtype)
    special = [np.nan, np.inf, -np.inf, info.max, -info.max, info.tiny, -0.0, 0.0, 0.8, 1.6]
    special += [info.smallest_subnormal, np.nextafter(dtype(0.8), dtype(0)), 2.4, 1e9, -0.2]
    rng = np.random.default_rng(3)
    current = rng.choice(np.array(special, dtype), (12, 200))
    assert_equals_reference(model, current)
    assert_equals_reference(model, current, at_rest=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model", every_model(), ids=name_of)
def test_a_potential_at_the_threshold_fires(model, dtype):
    # From rest the first potential is the current: one, two and three thresholds, and the neighbouring
    # floating-point numbers.
    threshold = dtype(0.8)
    at = np.array([1, 2, 3], dtype) * threshold
    current = np.concatenate([at, np.nextafter(at, dtype(0)), np.nextafter(at, dtype(9))])[None]
    trace = assert_equals_reference(model, current, at_rest=True)
    assert_same_bits(trace.potential, current)
    most = {1: [1, 1, 1], 3: [1, 2, 3], None: [1, 2, 3]}[model.max_spikes]
    np.testing.assert_array_equal(trace.spikes[0, :3], most)
    assert trace.spikes[0, 3] == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_leak_keeps_subnormal_numbers(dtype):
    # NumPy does not flush them to zero, so the kernels must not.
    current = np.zeros((1200, 67), dtype)
    current[0] = np.linspace(-0.4, 0.4, 67)
    trace = assert_equals_reference(Model(alpha=0.4), current)
    tiny = np.finfo(dtype).tiny
    assert ((trace.potential != 0) & (np.abs(trace.potential) < tiny)).any()


def test_exact_multiples_of_the_threshold_count_by_division():
    # At multiples of theta, floor(u / theta) and `//` differ in about half of all cases.
    threshold = np.float32(0.1)
    current = (np.arange(1, 4000).astype(np.float32) * threshold)[None]
    model = Model(alpha=0.9, threshold=0.1, max_spikes=None)
    trace = assert_equals_reference(model, current, at_rest=True)
    assert_same_bits(trace.potential, current)
    assert np.mean(trace.spikes != current // threshold) > 0.1


ISAS = ("x86-64-v2", "avx2", "avx512")


@pytest.fixture(scope="module")
def by_isa(tmp_path_factory):
    """The results of `record` in a process for each instruction set of this machine."""
    folder = tmp_path_factory.mktemp("isa")
    results = {}
    for isa in ISAS:
        path = folder / f"{isa}.npz"
        code = f"import test_forward_bits as t; t.record({str(path)!r})"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=os.path.dirname(__file__),
            env={**os.environ, "EXODUS_ISA": isa},
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode == 0:
            results[isa] = dict(np.load(path))
        else:
            assert "ImportError" in done.stderr, done.stderr
            assert "EXODUS_ISA" in done.stderr, done.stderr
    return results


def record(path):
    """Write forward and backward results of many neurons to a file. This runs in a child process."""
    results = {"isa": np.array(ec.isa())}
    for model, dtype in itertools.product(every_model(), DTYPES):
        for lanes in ((67,), (3, 5)):
            problem = random_problem(model, steps=30, lanes=lanes, dtype=dtype)
            trace = forward(problem)
            key = f"{name_of(model)} {np.dtype(dtype)} {lanes} "
            results[key + "forward"] = np.stack([trace.spikes, trace.potential])
            for method in METHODS:
                grads = backward(trace, problem, method)
                results[key + method] = grads.current
    np.savez(path, **results)


@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set_gives_the_same_forward(by_isa, isa):
    if isa not in by_isa:
        pytest.skip(f"this machine, or the build (EXODUS_ISAS), lacks {isa}")
    if "x86-64-v2" not in by_isa:
        pytest.skip("the build (EXODUS_ISAS) lacks x86-64-v2, with which the others are compared")
    here = {key: x for key, x in by_isa[isa].items() if key.endswith("forward")}
    assert here
    assert str(by_isa[isa]["isa"]) == isa
    for key, value in here.items():
        assert_same_bits(value, by_isa[ISAS[0]][key], key)


@pytest.mark.parametrize("isa", ISAS[1:])
def test_every_instruction_set_gives_the_same_gradient_to_rounding(by_isa, isa):
    if isa not in by_isa:
        pytest.skip(f"this machine, or the build (EXODUS_ISAS), lacks {isa}")
    if "x86-64-v2" not in by_isa:
        pytest.skip("the build (EXODUS_ISAS) lacks x86-64-v2, with which the others are compared")
    for key in (key for key in by_isa[isa] if key.endswith(METHODS)):
        value, other = by_isa[isa][key], by_isa[ISAS[0]][key]
        assert_gradient_close(value, other, tol=1e-5, name=key)


def test_an_unknown_instruction_set_is_an_import_error_that_names_the_variable():
    done = subprocess.run(
        [sys.executable, "-c", "import exodus_core"],
        env={**os.environ, "EXODUS_ISA": "z80"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert "ImportError" in done.stderr
    assert "EXODUS_ISA" in done.stderr
    assert "z80" in done.stderr
