"""Property: delays on a GPU equal those of NumPy arrays, bit for bit forward, to rounding backward.

Witness: the CPU kernels. Here the CUDA kernels run on the CPU too, under the shim of the C++ tests (see
conftest).
"""

from types import SimpleNamespace

import numpy as np
import pytest

import exodus_core as ec
from device_arrays import DeviceArray, host
from device_problems import DELAYED, LONGEST, STEPS, check_delay, delay_problem

pytest.importorskip("array_api_compat")


@pytest.fixture(autouse=True)
def _kernels(shim):
    """Use the shim in every test."""


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "axis"), DELAYED, ids=str)
def test_arrays(shape, axis, dtype):
    found = check_delay(shape, axis, dtype, DeviceArray, host)
    assert isinstance(found.output, DeviceArray)
    x = delay_problem(shape, axis, dtype)[0]
    assert host(found.output).strides == x.strides


def test_chunks_have_the_bits_of_the_whole():
    x, _, state, _, delays = delay_problem((STEPS, 5, 33), 0, np.float32)
    for delay in delays:
        whole = ec.delay(DeviceArray(x), delay, most=LONGEST, state=DeviceArray(state))
        first = ec.delay(DeviceArray(x[:7]), delay, most=LONGEST, state=DeviceArray(state))
        second = ec.delay(DeviceArray(x[7:]), delay, most=LONGEST, state=first.state)
        found = np.concatenate([host(first.output), host(second.output)])
        np.testing.assert_array_equal(found, host(whole.output))
        np.testing.assert_array_equal(host(second.state), host(whole.state))


def test_integer_delays_do_not_spread_nan_and_infinity():
    x = np.ones((STEPS, 3), np.float32)
    x[5] = np.nan
    output = host(ec.delay(DeviceArray(x), 2).output)
    assert np.isnan(output).all(axis=1).tolist() == [n == 7 for n in range(STEPS)]
    back = ec.delay_adjoint(DeviceArray(x), DeviceArray(np.ones_like(x)), 2)
    assert np.isnan(host(back.x)).all(axis=1).tolist() == [n == 3 for n in range(STEPS)]


def test_arrays_without_neurons():
    x = DeviceArray(np.zeros((5, 0, 3), np.float32))
    result = ec.delay(x, 1.5, most=3)
    assert result.output.shape == (5, 0, 3)
    found = ec.delay_adjoint(x, x, np.ones(3), most=3, state=result.state)
    assert host(found.delay).tolist() == [0.0] * 3


def test_mistakes_are_named():
    x = DeviceArray(np.zeros((5, 3), np.float32))
    with pytest.raises(ValueError, match="most must be given with delays on a device"):
        ec.delay(x, DeviceArray(np.ones(3, np.float32)))
    with pytest.raises(ValueError, match="delay must be at most 2"):
        ec.delay(x, 3.0, most=2)
    with pytest.raises(TypeError, match="state must be an array of"):
        ec.delay(x, 1.0, most=1, state=np.zeros((2, 3), np.float32))


torch = pytest.importorskip("torch")
snn = pytest.importorskip("exodus_core.torch")


@pytest.fixture
def on_gpu(monkeypatch):
    """A function after whose call tensors claim to be on a GPU."""

    def pretend():
        monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: True), raising=False)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=11))

    return pretend


def run(layer, x, state):
    layer.zero_grad()
    x, state = x.clone().requires_grad_(), state.clone().requires_grad_()
    output, last = layer(x, state)
    (output.float().square().sum() + last.sum()).backward()
    learnt = [p.grad.clone() for p in layer.parameters()]
    return output.detach(), last.detach(), x.grad, state.grad, learnt


@pytest.mark.parametrize("learn", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_layers(dtype, learn, on_gpu):
    torch.manual_seed(0)
    layer = snn.Delay(np.linspace(0, LONGEST, 33), most=LONGEST, learn=learn)
    x = torch.randn(STEPS, 2, 33).to(dtype)
    state = torch.randn(LONGEST + 1, 2, 33)
    expected = run(layer, x.float(), state)
    on_gpu()
    output, last, grad_x, grad_state, learnt = run(layer, x, state)
    assert output.dtype == grad_x.dtype == dtype
    assert last.dtype == grad_state.dtype == torch.float32
    assert torch.equal(output, expected[0].to(dtype))
    assert torch.equal(last, expected[1])
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(grad_x.float(), expected[2], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(grad_state, expected[3], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(learnt, expected[4], rtol=tolerance, atol=STEPS * tolerance)
