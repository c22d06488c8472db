"""Property: the CUDA kernels take and return JAX arrays, although Python cannot write into these.

Witness: NumPy arrays and the CPU kernels. JAX has no GPU here: its arrays on the CPU count as arrays on a
GPU, and the CUDA kernels run on the CPU too (see conftest). The tests need JAX, which CI installs.
"""

import numpy as np
import pytest

import exodus_core as ec
from device_problems import NEURONS, check_forward_and_backward, comparison, data
from exodus_core import _backends, kernel

jax = pytest.importorskip("jax")
jnp = jax.numpy


@pytest.fixture(autouse=True)
def on_a_gpu(shim, monkeypatch):
    """Make JAX arrays on the CPU count as arrays on a GPU, which share their memory in the same way."""
    kind = type(jnp.zeros(1))
    share = kind.__dlpack__
    cpu = int(jnp.zeros(1).__dlpack_device__()[0])
    monkeypatch.setattr(_backends, "_CUDA_DEVICES", (*_backends._CUDA_DEVICES, cpu))
    monkeypatch.setattr(kind, "__dlpack__", lambda self, stream=None: share(self))
    with jax.enable_x64(True):
        yield


assert_same = comparison(jax.Array, np.asarray)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", ["time first", "time last", "time between"])
@pytest.mark.parametrize("name", NEURONS)
def test_forward_and_backward_in_chunks(name, layout, dtype):
    check_forward_and_backward(name, layout, dtype, jnp.asarray, assert_same, chunks=2)


def test_bfloat16_is_only_storage():
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
