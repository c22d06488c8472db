"""Property: arrays on a GPU give the results of NumPy arrays, as arrays of their own library.

Witness: the CPU kernels. Here the CUDA kernels run on the CPU too, under the shim of the C++ tests (see
conftest), so they take addresses of host memory.
"""

import copy
import dataclasses
import threading

import numpy as np
import pytest

import exodus_core as ec
from device_arrays import Device, DeviceArray, DlpackArray, StreamlessArray, host
from device_problems import LAYOUTS, NEURONS, RECURRENT, check_forward_and_backward, comparison, data, weights
from exodus_core import cuda, kernel

pytest.importorskip("array_api_compat")


@pytest.fixture(autouse=True)
def _kernels(shim):
    """Use the shim in every test."""


assert_same = comparison(DeviceArray, host)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", NEURONS)
def test_forward_and_backward(name, layout, dtype):
    device, cpu = check_forward_and_backward(name, layout, dtype, DeviceArray, assert_same)
    assert host(device.potential).strides == cpu.potential.strides


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_weights(name, layout, dtype):
    device, cpu = check_forward_and_backward(name, layout, dtype, DeviceArray, assert_same, 2, weights(dtype))
    assert cpu.spikes.any()
    assert device.recurrent.shape == (3, 3)


@pytest.mark.parametrize(
    ("dtype", "count", "tolerance"),
    [(np.float64, count, 1e-12) for count in (40, 480, 481)]
    + [(np.float32, count, 1e-4) for count in (512, 513, 1024, 1025)],
)
def test_recurrent_weights_of_wide_entries(dtype, count, tolerance):
    """Entries of several warps, the widest that one block takes backward and forward, and wider ones."""
    rng = np.random.default_rng(6)
    current, w = rng.normal(0.3, 0.8, (4, 2, count)).astype(dtype), weights(dtype, count)
    neuron = ec.CubaLIF(alpha=0.9, alpha_syn=0.7, threshold=0.6)
    cpu = ec.forward(neuron, current, recurrent=w)
    device = ec.forward(neuron, DeviceArray(current), recurrent=DeviceArray(w))
    assert_same(device.potential, cpu.potential)
    expected, got = ec.backward(cpu, current), ec.backward(device, DeviceArray(current))
    assert_same(got.current, expected.current, tolerance)
    assert_same(got.recurrent, expected.recurrent, tolerance)
    assert_same(got.parameters["alpha_syn"], expected.parameters["alpha_syn"], tolerance)


def test_recurrent_weights_of_halves():
    """Weights and their gradient are float32, like states."""
    rng = np.random.default_rng(7)
    current, w = rng.normal(0.3, 0.8, (20, 3, 6)).astype(np.float16), weights(np.float32, 6)
    cpu = ec.forward(ec.LIF(alpha=0.9), current.astype(np.float32), recurrent=w)
    device = ec.forward(ec.LIF(alpha=0.9), DeviceArray(current), recurrent=DeviceArray(w))
    assert cpu.spikes.any()
    assert_same(device.potential, cpu.potential)
    expected = ec.backward(cpu, current.astype(np.float32))
    got = ec.backward(device, DeviceArray(current))
    assert host(got.recurrent).dtype == np.float32
    np.testing.assert_allclose(host(got.recurrent), expected.recurrent, rtol=2e-3, atol=2e-3)
    with pytest.raises(TypeError, match="recurrent must have dtype float32, got float16"):
        ec.forward(ec.LIF(alpha=0.9), DeviceArray(current), recurrent=DeviceArray(w.astype(np.float16)))


def test_recurrent_weights_are_read_where_they_lie():
    current, w = data(np.float32, "time first"), weights(np.float32)
    cpu = ec.forward(ec.LIF(alpha=0.9), current, recurrent=w)
    turned = DeviceArray(np.ascontiguousarray(w.T).T)
    assert_same(
        ec.forward(ec.LIF(alpha=0.9), DeviceArray(current), recurrent=turned).potential, cpu.potential
    )
    with pytest.raises(TypeError, match="recurrent must be an array of device on gpu:0, got ndarray"):
        ec.forward(ec.LIF(alpha=0.9), DeviceArray(current), recurrent=w)
    with pytest.raises(ValueError, match=r"recurrent must have shape \(3, 3\), got \(2, 3\)"):
        ec.forward(ec.LIF(alpha=0.9), DeviceArray(current), recurrent=DeviceArray(w[:2]))


def test_recurrent_weights_between_no_neurons():
    for shape in ((3, 0, 4), (3, 4, 0)):
        current, w = np.zeros(shape, np.float32), np.ones((shape[-1],) * 2, np.float32)
        trace = ec.forward(ec.LIF(alpha=0.9), DeviceArray(current), recurrent=DeviceArray(w))
        assert_same(ec.backward(trace, DeviceArray(current)).recurrent, np.zeros_like(w))


@pytest.mark.parametrize("name", NEURONS)
def test_chunks_and_states(name):
    neuron, current = NEURONS[name], data(np.float32, "time first")
    whole = ec.forward(neuron, current)
    first = ec.forward(neuron, DeviceArray(current[:9]))
    second = ec.forward(neuron, DeviceArray(current[9:]), state=first.state)
    assert_same(second.potential, whole.potential[9:])
    cpu = ec.forward(neuron, current[9:], state=ec.forward(neuron, current[:9]).state)
    ones = np.ones_like(current[9:])
    expected = ec.backward(cpu, grad_potential=ones, parameters=())
    assert_same(
        ec.backward(second, grad_potential=DeviceArray(ones), parameters=()).state.potential,
        expected.state.potential,
        1e-5,
    )


def test_a_custom_surrogate_gets_and_gives_device_arrays():
    current = data(np.float32, "time first")
    for neuron in (NEURONS["LIF per channel"], NEURONS["ALIF"]):
        cpu, device = ec.forward(neuron, current), ec.forward(neuron, DeviceArray(current))

        def custom(u, threshold):
            return 1.0 / ((u - threshold) * (u - threshold) + 1.0)

        expected = ec.backward(cpu, np.ones_like(current), surrogate=custom)
        got = ec.backward(device, DeviceArray(np.ones_like(current)), surrogate=custom)
        assert_same(got.current, expected.current, 1e-5)


def test_a_custom_surrogate_cannot_change_what_it_sees():
    current = data(np.float32, "time first")
    for neuron in (NEURONS["LIF per channel"], NEURONS["ALIF"]):
        trace = ec.forward(neuron, DeviceArray(current))
        before = host(trace.potential).copy()

        def tidy(u, threshold):
            return (u - threshold) * 0.5

        def in_place(u, threshold):
            u[...] = u - threshold
            threshold[...] = threshold * 0.0
            return u * 0.5

        expected = ec.backward(trace, DeviceArray(np.ones_like(current)), surrogate=tidy)
        got = ec.backward(trace, DeviceArray(np.ones_like(current)), surrogate=in_place)
        assert_same(got.current, host(expected.current))
        assert_same(trace.potential, before)
        assert_same(ec.forward(neuron, DeviceArray(current)).potential, before)


@pytest.mark.parametrize("name", NEURONS)
def test_a_copied_trace_has_memory_of_its_own(name):
    current = data(np.float64, "time first")
    neuron = dataclasses.replace(NEURONS[name])  # a copy, whose arrays on the device are overwritten below
    trace = ec.forward(neuron, DeviceArray(current))
    e = None if trace.spikes is None else DeviceArray(current)
    expected = ec.backward(trace, e, grad_potential=DeviceArray(current))
    copied = copy.deepcopy(trace)
    for bound in trace._binding.parameters.values():
        if bound.values is not None:
            host(bound.values)[...] = np.nan
    got = ec.backward(copied, e, grad_potential=DeviceArray(current))
    assert_same(got.current, host(expected.current))
    for key, gradient in expected.parameters.items():
        assert_same(got.parameters[key], host(gradient))


def test_gaps_are_copied_once():
    wide = data(np.float32, "time first", time=40)
    cpu = ec.forward(ec.LIF(alpha=0.9), wide[::2])
    assert_same(ec.forward(ec.LIF(alpha=0.9), DeviceArray(wide[::2])).potential, cpu.potential)
    assert_same(
        ec.forward(ec.LIF(alpha=0.9), DeviceArray(wide[::-1])).spikes,
        ec.forward(ec.LIF(alpha=0.9), wide[::-1]).spikes,
    )


def test_results_are_reused():
    current = DeviceArray(data(np.float32, "time first"))
    trace = ec.forward(ec.LIF(alpha=0.9), current)
    address = trace.potential.__cuda_array_interface__["data"]
    again = ec.forward(ec.LIF(alpha=0.5), current, out=trace)
    assert again is trace and again.potential.__cuda_array_interface__["data"] == address
    assert_same(again.potential, ec.forward(ec.LIF(alpha=0.5), host(current)).potential)
    with pytest.raises(ValueError, match=r"out\.spikes must not overlap current"):
        ec.forward(ec.LIF(alpha=0.5), trace.spikes, out=trace)


@pytest.mark.parametrize("kind", [DlpackArray, StreamlessArray])
def test_dlpack_where_no_stream_is_named(kind, shim, monkeypatch):
    waited = []
    monkeypatch.setattr(shim, "wait", lambda *arguments: waited.append(arguments))
    current = data(np.float32, "of channels last")
    trace = ec.forward(NEURONS["LIF per channel"], kind(current))
    assert_same(trace.potential, ec.forward(NEURONS["LIF per channel"], current).potential)
    assert waited == [(current.ctypes.data, 1)]


def test_the_stream_is_the_arrays(shim, monkeypatch):
    streams = []
    run = shim.forward
    monkeypatch.setattr(
        shim, "forward", lambda *arguments: (streams.append(arguments[-1][0]), run(*arguments))
    )
    monkeypatch.setattr(shim, "wait", lambda memory, stream: pytest.fail("waited"))
    ec.forward(ec.LIF(alpha=0.9), DeviceArray(np.ones((3, 2), np.float32)))
    assert streams == [7]


def test_threads_share_no_device(monkeypatch):
    """A device of CuPy remembers in itself which device was current, for one thread at a time."""
    entered, enter = {}, Device.__enter__

    def watched(device):
        entered.setdefault(threading.get_ident(), []).append(device)
        enter(device)

    monkeypatch.setattr(Device, "__enter__", watched)
    current = DeviceArray(np.ones((3, 2), np.float32))
    ec.forward(ec.LIF(alpha=0.9), current)
    thread = threading.Thread(target=ec.forward, args=(ec.LIF(alpha=0.9), current))
    thread.start()
    thread.join()
    first, second = ({id(device) for device in devices} for devices in entered.values())
    assert not first & second


@pytest.mark.parametrize("name", NEURONS)
def test_float16_is_only_storage(name):
    """Current and spikes are float16. Everything else equals the results for the same numbers in float32."""
    neuron, current = NEURONS[name], data(np.float16, "of channels last")
    cpu, device = ec.forward(neuron, current.astype(np.float32)), ec.forward(neuron, DeviceArray(current))
    assert_same(device.potential, cpu.potential)
    assert_same(device.spikes, None if cpu.spikes is None else cpu.spikes.astype(np.float16))
    assert all(part.dtype == np.float32 for part in device.state)
    e = None if cpu.spikes is None else data(np.float16, "of channels last")
    q = data(np.float32, "of channels last")
    expected = ec.backward(cpu, None if e is None else e.astype(np.float32), grad_potential=q)
    got = ec.backward(device, None if e is None else DeviceArray(e), grad_potential=DeviceArray(q))
    assert got.current.dtype == np.float16
    np.testing.assert_allclose(host(got.current), expected.current, rtol=1e-3, atol=1e-3)
    for key, gradient in expected.parameters.items():
        assert_same(got.parameters[key], np.asarray(gradient), 1e-5)


def test_filters():
    x = data(np.float64, "time last")
    for k in (kernel.Alpha(3.0), kernel.DoubleExponential(0.5, 0.8), kernel.FIR([0.5, -0.2, 0.1])):
        expected = ec.kernel_filter(k, x, time_axis=2)
        assert_same(ec.kernel_filter(k, DeviceArray(x), time_axis=2).output, expected.output)
        adjoint = ec.kernel_filter_adjoint(k, x, time_axis=2).output
        assert_same(ec.kernel_filter_adjoint(k, DeviceArray(x), time_axis=2).output, adjoint, 1e-12)


def test_errors_name_the_argument():
    current = DeviceArray(np.ones((4, 3), np.float32))
    trace = ec.forward(ec.LIF(alpha=0.9), current)
    with pytest.raises(TypeError, match="grad_spikes must be an array of device on gpu:0, got ndarray"):
        ec.backward(trace, np.ones((4, 3), np.float32))
    with pytest.raises(TypeError, match="grad_spikes must have dtype float32, got float64"):
        ec.backward(trace, DeviceArray(np.ones((4, 3))))
    with pytest.raises(ValueError, match=r"grad_spikes must have shape \(4, 3\), got \(3, 4\)"):
        ec.backward(trace, DeviceArray(np.ones((3, 4), np.float32)))
    with pytest.raises(TypeError, match="current must have dtype float32 or float64 or float16 or bfloat16"):
        ec.forward(ec.LIF(alpha=0.9), DeviceArray(np.ones((4, 3), np.int32)))
    with pytest.raises(TypeError, match=r"state\.potential must be an array of device on gpu:0, got ndarray"):
        ec.forward(ec.LIF(alpha=0.9), current, state=ec.LIF(alpha=0.9).initial_state((3,)))


def test_growth_needs_the_host():
    trace = ec.forward(ec.LIF(alpha=0.9), DeviceArray(np.ones((4, 3), np.float32)))
    with pytest.raises(TypeError, match="trace must hold numpy arrays, got arrays of device on gpu:0"):
        ec.growth(trace)


@pytest.mark.parametrize(("fault", "kind"), [("launch", DeviceArray), ("wait", DlpackArray)])
def test_the_drivers_message_is_raised_once(fault, kind, monkeypatch):
    current = kind(np.ones((4, 3), np.float32))
    trace = ec.forward(ec.LIF(alpha=0.9), current)
    calls = [lambda: ec.forward(ec.LIF(alpha=0.9), current)]
    if fault == "launch":  # A trace's own arrays name a stream, so nothing waits in their backward pass.
        calls.append(lambda: ec.backward(trace, kind(np.ones((4, 3), np.float32))))
    for call in calls:
        monkeypatch.setenv("EXODUS_SHIM_FAULT", fault)
        with pytest.raises(RuntimeError, match="error: an illegal memory access was encountered"):
            call()
        monkeypatch.delenv("EXODUS_SHIM_FAULT")
        call()


def test_without_kernels_the_error_says_why(monkeypatch):
    monkeypatch.setattr(cuda, "_found", lambda: (None, "there are none"))
    cuda.kernels.cache_clear()
    with pytest.raises(RuntimeError, match="arrays on a GPU cannot be used: there are none"):
        ec.forward(ec.LIF(alpha=0.9), DeviceArray(np.ones((4, 3), np.float32)))
