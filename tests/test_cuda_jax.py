"""Property: JAX's own arrays go to the CUDA kernels and come back, which cannot be written into from Python.

Witness: NumPy's arrays and the kernels of the CPU. JAX has no GPU here: its arrays on the CPU are taken for
ones on a GPU, whose kernels run on the CPU too (see conftest). Needs JAX, which CI installs.
"""

import numpy as np
import pytest

import exodus_core as ec
from exodus_core import _backends, kernel, surrogate
from test_cuda_arrays import LAYOUTS, NEURONS, data

jax = pytest.importorskip("jax")
jnp = jax.numpy


@pytest.fixture(autouse=True)
def on_a_gpu(shim, monkeypatch):
    """JAX's arrays on the CPU count as on a device, and share their memory as one's would."""
    kind = type(jnp.zeros(1))
    share = kind.__dlpack__
    cpu = int(jnp.zeros(1).__dlpack_device__()[0])
    monkeypatch.setattr(_backends, "_CUDA_DEVICES", (*_backends._CUDA_DEVICES, cpu))
    monkeypatch.setattr(kind, "__dlpack__", lambda self, stream=None: share(self))
    with jax.enable_x64(True):
        yield


def assert_same(got, expected, tolerance=0.0):
    if expected is None:
        assert got is None
        return
    assert isinstance(got, jax.Array), type(got)
    expected = np.asarray(expected)
    assert got.dtype == expected.dtype and got.shape == expected.shape
    scale = np.abs(expected).max(initial=1)
    np.testing.assert_allclose(np.asarray(got), expected, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", ["time first", "time last", "time between"])
@pytest.mark.parametrize("name", NEURONS)
def test_both_verbs_and_chunks(name, layout, dtype):
    neuron, current, axis = NEURONS[name], data(dtype, layout), LAYOUTS[layout]
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    cpu = ec.forward(neuron, current, time_axis=axis)
    device = ec.forward(neuron, jnp.asarray(current), time_axis=axis)
    cpu = ec.forward(neuron, current, time_axis=axis, state=cpu.state)
    device = ec.forward(neuron, jnp.asarray(current), time_axis=axis, state=device.state)
    assert_same(device.spikes, cpu.spikes)
    assert_same(device.potential, cpu.potential)
    for own, other in zip(device.state, cpu.state, strict=True):
        assert_same(own, other)
    q = data(dtype, layout)[::-1].copy()
    e = None if cpu.spikes is None else current
    for method in ("exodus", "slayer", "bptt"):
        options = {"method": method, "surrogate": surrogate.ATan()}
        expected = ec.backward(cpu, e, grad_potential=q, **options)
        given = None if e is None else jnp.asarray(e)
        got = ec.backward(device, given, grad_potential=jnp.asarray(q), **options)
        assert_same(got.current, expected.current, tolerance)
        for own, other in zip(got.state, expected.state, strict=True):
            assert_same(own, other, tolerance)
        assert got.parameters.keys() == expected.parameters.keys()
        for key, gradient in expected.parameters.items():
            assert_same(got.parameters[key], gradient, tolerance)


def test_bfloat16_is_storage_alone():
    current = jnp.asarray(data(np.float32, "time first")).astype(jnp.bfloat16)
    trace = ec.forward(ec.LIF(alpha=0.9), current)
    assert trace.spikes.dtype == jnp.bfloat16
    expected = ec.forward(ec.LIF(alpha=0.9), np.asarray(current.astype(jnp.float32)))
    assert_same(trace.potential, expected.potential)


def test_parameters_and_filters():
    current, alpha = data(np.float32, "time first"), np.array([0.5, 0.7, 0.9])
    expected = ec.forward(ec.LIF(alpha=alpha), current)
    assert_same(
        ec.forward(ec.LIF(alpha=jnp.asarray(alpha)), jnp.asarray(current)).potential, expected.potential
    )
    alike = kernel.Alpha(3.0)
    assert_same(ec.kernel_filter(alike, jnp.asarray(current)).output, ec.kernel_filter(alike, current).output)


def test_results_cannot_be_written_into():
    current = jnp.asarray(data(np.float32, "time first"))
    trace = ec.forward(ec.LIF(alpha=0.9), current)
    with pytest.raises(ValueError, match=r"out\.spikes must be writeable"):
        ec.forward(ec.LIF(alpha=0.9), current, out=trace)
