"""A call depends on nothing but its arguments.

Property: the processor's floating-point mode, NumPy's error state and the number of processors change no
result and break no call. An invalid environment variable makes the import fail. A process can end during a
call, and a sub-interpreter can start, without a hang or an abort. Witness: the same call without the setting.
"""

import ctypes
import ctypes.util
import os
import subprocess
import sys

import numpy as np
import pytest

import exodus_core as ec
from compare import assert_same_bits
from exodus_core import kernel, surrogate
from exodus_core._backends import decay
from exodus_core.neurons import Filter
from neuron_examples import SCALARS

RNG = np.random.default_rng(0)
CURRENT = RNG.normal(0.2, 0.6, (40, 3, 700)).astype(np.float32)
TINY = (CURRENT * np.float32(1e-38)).astype(np.float32)
NEURONS = SCALARS | {
    "LIF": ec.LIF(alpha=0.1, gain=0.3),
    "LIF of arrays": ec.LIF(tau=RNG.uniform(2, 9, 700), threshold=RNG.uniform(0.5, 1, (3, 1)), v_min=-0.3),
    "LIF of a tiny gain": ec.LIF(alpha=0.9, gain=1e-40),
    "CubaLIF": ec.CubaLIF(tau=4.0, alpha_syn=0.1),
    "ALIF": ec.ALIF(tau=4.0, tau_adapt=9.0, adapt_scale=0.2),
    "StateSpace": ec.StateSpace([[0.9, 1e-40], [0.3, 0.8]], [1.0, 1e-40], [-1.0, 0.2]),
    "AdLIF": ec.AdLIF(tau=4.0, tau_adapt=0.1, coupling=0.4, adapt_scale=1e-40),
    "ResonateAndFire": ec.ResonateAndFire(tau=4.0, frequency=RNG.uniform(-3, 3, 700)),
    "SRM": ec.SRM(kernel.Alpha(0.2), kernel.DoubleExponential(0.9, 0.2, scale=-0.4)),
    "SRM of taps": ec.SRM(kernel.FIR([0.5, 1e-39, 0.1]), kernel.Exponential(0.5, scale=-1.0)),
    "ExpLeak": ec.ExpLeak(tau=0.4, gain="1-alpha"),
}


RATIOS = RNG.uniform(0, 745, 500)
ONES, SMALL = np.ones_like(CURRENT), np.full_like(CURRENT, 1e-38)
WIDE, HUGE = CURRENT.astype(np.float64), CURRENT * np.float32(1e30)
CURVES = (
    surrogate.SingleExponential(width=0.01),
    surrogate.Gaussian(),
    surrogate.Sigmoid(scale=1e-39),
)


def everything():
    """Bits of forward, backward, surrogates, decays and taps, with descriptors that are made anew."""
    results = [decay(RATIOS, 1.0), kernel.Exponential(0.1).taps(400), kernel.Alpha(0.3).taps(300)]
    for neuron in NEURONS.values():
        neuron = eval(repr(neuron), {**vars(ec), **vars(kernel), "np": np})
        e = ONES if neuron._fires else None
        for current in (CURRENT, TINY):
            trace = ec.forward(neuron, current)
            results += [trace.potential, *trace.state]
            for method in ("exodus", "bptt"):
                grads = ec.backward(trace, e, method=method, grad_potential=SMALL)
                results += [grads.current, *grads.state, *map(np.asarray, grads.parameters.values())]
    for curve in CURVES:
        results += [curve(TINY), curve(CURRENT, np.float32(1e-38)), curve(WIDE)]
    return [np.array(result) for result in results]


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def count(request, threads):
    threads(request.param)


def assert_unchanged(expected, found):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert_same_bits(one, other)


def test_flushing_to_zero_changes_nothing(count):
    torch = pytest.importorskip("torch")
    expected = everything()
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush to zero")
    try:
        found = everything()
        # The mode is still on after the calls.
        assert np.float32(1e-39) * np.float32(0.5) == 0
    finally:
        torch.set_flush_denormal(False)
    assert np.float32(1e-39) * np.float32(0.5) != 0
    assert_unchanged(expected, found)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers of the modes are x86's")
@pytest.mark.parametrize("rounding", [0x400, 0x800, 0xC00], ids=["down", "up", "to zero"])
def test_another_rounding_changes_nothing(rounding, count):
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    expected = everything()
    assert libm.fesetround(rounding) == 0
    try:
        found = everything()
        assert libm.fegetround() == rounding
    finally:
        libm.fesetround(0)
    assert_unchanged(expected, found)


def test_numpys_errors_are_not_raised(count):
    expected = everything()
    with np.errstate(all="raise"):
        found = everything()
    assert_unchanged(expected, found)


EXTREMES = {
    "a decay that underflows": lambda: ec.LIF(tau=1e-3),
    "decays that underflow": lambda: ec.LIF(tau=np.array([1e-3, 1e-4, 5.0])),
    "a gain that underflows": lambda: ec.forward(ec.LIF(alpha=0.9, gain=1e-50), CURRENT),
    "taps that underflow": lambda: kernel.Exponential(0.9).taps(10_000),
    "taps of a double exponential": lambda: kernel.DoubleExponential(0.5, 0.9, scale=1e-300).taps(5000),
    "taps of an alpha kernel": lambda: kernel.Alpha(5.0).taps(5000),
    "entries of a matrix that underflow": lambda: ec.AdLIF(
        1 - 1e-16, 0.9, 1e-300, 1e-300, order="symplectic"
    ),
    "gradients of a matrix": lambda: ec.backward(
        ec.forward(
            ec.AdLIF(tau=1e-3, tau_adapt=np.full(700, 1e-3), coupling=1e-300, adapt_scale=1e30), CURRENT
        ),
        np.ones_like(CURRENT),
    ),
    "an alpha kernel's parameters": lambda: Filter(kernel.Alpha(1e-3))._parameters(),
    "a refractory kernel that underflows": lambda: ec.SRM.from_slayer(
        tauSr=10.0, tauRef=1e-3, scaleRef=2.0, theta=10.0, tauRho=1.0, scaleRho=1.0
    ),
    "gradients beyond float32": lambda: ec.backward(
        ec.forward(ec.LIF(tau=5.0, gain=0.1), HUGE),
        np.full_like(CURRENT, 1e30),
        surrogate=surrogate.StraightThrough(scale=1e5),
        method="slayer",
    ),
    "gradients of time constants": lambda: ec.backward(
        ec.forward(ec.CubaLIF(tau=np.full(700, 1e-3), tau_syn=1e-4), CURRENT), np.ones_like(CURRENT)
    ),
    "gradients of an alpha kernel": lambda: ec.backward(
        ec.forward(ec.SRM(kernel.Alpha(1e-3), kernel.Alpha(1e-3)), CURRENT), np.ones_like(CURRENT)
    ),
    "growth of huge numbers": lambda: ec.growth(ec.forward(ec.ALIF(0.9, 0.9, 1e30), HUGE)),
    "growth of coupled states": lambda: ec.growth(ec.forward(ec.AdLIF(0.9, 0.9, 1e15, 1e15), HUGE)),
    "growth of tiny numbers": lambda: ec.growth(ec.forward(ec.LIF(0.9, reset="zero"), TINY)),
    "data that are NaN": lambda: ec.backward(
        ec.forward(ec.ALIF(0.9, 0.9, 0.1), np.full_like(CURRENT, np.nan)), CURRENT
    ),
    "an initial state": lambda: ec.LIF(0.9).initial_state((3,), np.float32, potential=1e-60),
    "a surrogate of float32": lambda: surrogate.Boxcar()(CURRENT, 1e-42),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_numpys_errors_are_not_raised_by_extreme_values(name):
    with np.errstate(all="raise"):
        EXTREMES[name]()


def test_a_users_function_keeps_numpys_errors():
    trace = ec.forward(ec.LIF(0.9), CURRENT)

    def divides_by_zero(u, threshold):
        return 1.0 / (0.0 * u)

    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        ec.backward(trace, CURRENT, surrogate=divides_by_zero)


def run(code, settings=None, seconds=120):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **(settings or {})},
        capture_output=True,
        text=True,
        timeout=seconds,
    )


@pytest.mark.parametrize("value", ["abc", "0", "000", "-3", "+3", "1e1", "4,2", "2.0", " ", "3 ", "٣", "0x4"])
def test_an_invalid_number_of_threads_makes_the_import_fail(value):
    done = run("import exodus_core", {"EXODUS_NUM_THREADS": value})
    assert done.returncode != 0
    assert "ImportError: EXODUS_NUM_THREADS must be a number of threads, 1 or more" in done.stderr
    assert repr(value) in done.stderr or not value.isascii()


COUNT = "import exodus_core as ec; print(ec.get_num_threads(), ec._threads.was_chosen())"


@pytest.mark.parametrize(("value", "count"), [("3", 3), ("007", 7), ("99999999999999999999", None)])
def test_a_number_of_threads_is_used(value, count):
    found, chosen = run(COUNT, {"EXODUS_NUM_THREADS": value}).stdout.split()
    assert int(found) == count if count is not None else 100 < int(found) < 100_000
    assert chosen == "True"


def test_an_empty_number_of_threads_is_ignored():
    plain = {name: value for name, value in os.environ.items() if name != "EXODUS_NUM_THREADS"}
    without = subprocess.run(
        [sys.executable, "-c", COUNT], env=plain, capture_output=True, text=True, timeout=120
    )
    assert run(COUNT, {"EXODUS_NUM_THREADS": ""}).stdout == without.stdout
    assert without.stdout.split()[1] == "False"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs os.sched_setaffinity")
def test_the_default_number_of_threads_is_that_of_usable_processors():
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{one}}}); {COUNT}"
    assert run(code, {"EXODUS_NUM_THREADS": ""}).stdout.split()[0] == "1"
    assert run(COUNT, {"EXODUS_NUM_THREADS": ""}).stdout.split()[0] == str(len(os.sched_getaffinity(0)))


WORK_FOR_EVER = {
    "forward": "while True: ec.forward(ec.IF(), x)",
    "backward": "while True: ec.backward(trace, x, parameters=())",
    "all parameters": "while True: ec.backward(trace, x)",
    "a surrogate on an array": "while True: ec.surrogate.Gaussian()(x)",
}


@pytest.mark.parametrize("name", WORK_FOR_EVER)
def test_the_process_ends_while_a_daemon_thread_is_in_a_call(name):
    code = f"""
import threading, time, numpy as np, exodus_core as ec
x = np.ones((60, 100_000), np.float32)
trace = ec.forward(ec.IF(), x)
def work():
    {WORK_FOR_EVER[name]}
for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
"""
    for _ in range(3):
        done = run(code)
        assert (done.returncode, done.stderr) == (0, "")


IN_A_SUB_INTERPRETER = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
run = getattr(interpreters, "run_string", None) or interpreters.exec
text = f'''
import sys
sys.path[:] = {sys.path!r}
try:
    import MODULE
except ImportError as error:
    print("refused:", error)
else:
    print("works")
'''
run(interpreters.create(), text)
"""


def import_in_a_sub_interpreter(statement):
    done = run(IN_A_SUB_INTERPRETER.replace("import MODULE", statement), seconds=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_sub_interpreter_is_refused_at_once():
    found = import_in_a_sub_interpreter("import exodus_core")
    assert "refused: exodus_core cannot be loaded into a sub-interpreter" in found


def test_the_cuda_kernels_refuse_a_sub_interpreter_at_once(shim):
    found = import_in_a_sub_interpreter(
        f"sys.path.insert(0, {os.path.dirname(shim.__file__)!r}); import _cuda"
    )
    assert "refused: exodus_core's CUDA kernels cannot be loaded into a sub-interpreter" in found
