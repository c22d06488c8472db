"""Property: a call asks an array's library once where the array lies, however often the call needs it.

An answer takes a library microseconds, an export by DLPack most of all. Witness: the arrays, which count the
questions. Here the CUDA kernels run on the CPU, under the shim of the C++ tests (see conftest).
"""

from collections import Counter

import numpy as np
import pytest

import exodus_core as ec
from device_arrays import DeviceArray, DlpackArray, StreamlessArray
from device_problems import NEURONS, data, weights
from exodus_core import _backends, kernel

pytest.importorskip("array_api_compat")


@pytest.fixture
def asked(shim, monkeypatch):
    """A list to which an array is added whenever it tells where it lies."""
    found = []
    interface = vars(DeviceArray)["__cuda_array_interface__"].fget

    def told(array):
        found.append(array)
        return interface(array)

    monkeypatch.setattr(DeviceArray, "__cuda_array_interface__", property(told))
    count_exports(DlpackArray, found, monkeypatch)
    return found


def count_exports(kind, found, monkeypatch):
    export = kind.__dlpack__

    def counted(array, stream=None):
        found.append(array)
        return export(array, stream=stream)

    monkeypatch.setattr(kind, "__dlpack__", counted)


def check(asked, given, call):
    """Make a call, and check that it has described the given arrays and its own results once each."""
    del asked[:]
    result = call()
    counts = Counter(map(id, asked))
    assert set(counts.values()) == {1}
    assert [counts[id(array)] for array in given] == [1] * len(given)
    return result


def arrays(*values):
    """The arrays among some values, which may be named tuples of arrays."""
    parts = [part for value in values for part in (value if isinstance(value, tuple) else (value,))]
    return [part for part in parts if part is not None]


def check_calls(asked, kind, name):
    """Check a forward and a backward pass with all arrays that they can take, and all that they return."""
    neuron, current = NEURONS[name], kind(data(np.float64, "time first"))
    fires = neuron._fires
    recurrent = kind(weights(np.float64)) if fires else None
    state = ec.forward(neuron, current).state  # binds the parameters, whose copies are described as well
    given = arrays(current, recurrent, state)
    trace = check(asked, given, lambda: ec.forward(neuron, current, state=state, recurrent=recurrent))
    results = arrays(trace.spikes, trace.potential, trace.state)
    assert {id(array) for array in results} <= {id(array) for array in asked}

    e, q = (kind(data(np.float64, "time first")[::step].copy()) for step in (1, -1))
    e = e if fires else None
    given = arrays(e, q, trace.state, trace.initial_state, trace.potential, trace.current, recurrent)
    grads = check(asked, given, lambda: ec.backward(trace, e, grad_potential=q, grad_state=trace.state))
    assert {id(array) for array in arrays(grads.current, grads.state)} <= {id(array) for array in asked}
    return trace, grads


@pytest.mark.parametrize("kind", [DeviceArray, DlpackArray, StreamlessArray])
@pytest.mark.parametrize("name", NEURONS)
def test_forward_and_backward(name, kind, asked):
    check_calls(asked, kind, name)


def test_arrays_that_are_written_over(asked):
    neuron, current = NEURONS["LIF per channel"], DeviceArray(data(np.float32, "time first"))
    trace, e = ec.forward(neuron, current), DeviceArray(data(np.float32, "time first"))
    state, reused = trace.state, arrays(trace.spikes, trace.potential)
    given = arrays(current, state, *reused)
    trace = check(asked, given, lambda: ec.forward(neuron, current, state=state, out=trace))
    grads = ec.backward(trace, e)
    given = arrays(e, grads.current, *reused, trace.initial_state, current)
    check(asked, given, lambda: ec.backward(trace, e, out=grads))


def test_arrays_that_are_copied(asked):
    gaps = DeviceArray(data(np.float32, "time first", time=40)[::2])
    trace = check(asked, [gaps], lambda: ec.forward(ec.LIF(alpha=0.9), gaps))
    turned = DeviceArray(np.asfortranarray(data(np.float32, "time first", time=20)))
    check(asked, [turned, trace.current], lambda: ec.backward(trace, turned))


def test_a_custom_surrogate(asked):
    current, e = (DeviceArray(data(np.float32, "time first")) for _ in range(2))
    trace, own = ec.forward(NEURONS["LIF per channel"], current), []

    def custom(u, threshold):
        own.append(1.0 / ((u - threshold) * (u - threshold) + 1.0))
        return own[0]

    check(asked, [current, e, trace.potential], lambda: ec.backward(trace, e, surrogate=custom))


@pytest.mark.parametrize("kind", [DeviceArray, DlpackArray, StreamlessArray])
def test_delays_and_filters(kind, asked):
    x, grad = (kind(data(np.float64, "time first")) for _ in range(2))
    steps = kind(np.array([0.5, 1.0, 2.0]))
    ec.delay(x, steps, most=2)
    delayed = check(asked, [x], lambda: ec.delay(x, steps, most=2))
    check(
        asked,
        [x, grad, delayed.state],
        lambda: ec.delay_adjoint(grad, x, steps, most=2, state=delayed.state),
    )
    one = kernel.Alpha(3.0)
    filtered = check(asked, [x], lambda: ec.kernel_filter(one, x))
    check(asked, [x], lambda: ec.kernel_filter_adjoint(one, x, state=filtered.state))


def test_jax(asked, monkeypatch):
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    kind, cpu = type(jnp.zeros(1)), int(jnp.zeros(1).__dlpack_device__()[0])
    share = kind.__dlpack__
    monkeypatch.setattr(_backends, "_CUDA_DEVICES", (*_backends._CUDA_DEVICES, cpu))
    monkeypatch.setattr(kind, "__dlpack__", lambda self, stream=None: share(self))
    count_exports(kind, asked, monkeypatch)
    with jax.enable_x64(True):
        for name in ("LIF", "CubaLIF per neuron", "ALIF"):
            check_calls(asked, jnp.asarray, name)
