"""Property: on a GPU, arrays of every library give the results of NumPy arrays, also in CUDA graphs.

Witness: the CPU kernels. The tests need the CUDA kernels and a GPU, and run for those of torch, CuPy and JAX
that are installed. test_cuda_arrays.py, test_cuda_torch.py and test_cuda_jax.py test without a GPU.
"""

import importlib
import importlib.util

import numpy as np
import pytest

import exodus_core as ec
from device_problems import (
    DELAYED,
    NEURONS,
    RECURRENT,
    check_delay,
    check_forward_and_backward,
    comparison,
    data,
    weights,
)
from exodus_core import cuda

pytestmark = pytest.mark.skipif(
    not cuda.is_available(), reason=f"there are no CUDA kernels that can run: {cuda._unavailable()}"
)

pytest.importorskip("array_api_compat")

# For each library, functions that copy a NumPy array to the GPU and back.
LIBRARIES = {
    "torch": (lambda torch: lambda a: torch.from_numpy(a).cuda(), lambda a: a.cpu().numpy()),
    "cupy": (lambda cupy: cupy.asarray, lambda a: a.get()),
    "jax.numpy": (lambda jnp: jnp.asarray, np.asarray),
}


@pytest.fixture(params=LIBRARIES)
def library(request):
    """Functions that copy to a library's arrays and back."""
    module = pytest.importorskip(request.param)
    to_library, host = LIBRARIES[request.param]
    if request.param == "jax.numpy":
        jax = importlib.import_module("jax")
        if jax.default_backend() != "gpu":
            pytest.skip("JAX sees no GPU")
        with jax.enable_x64(True):
            yield to_library(module), host
        return
    if request.param == "torch" and not module.cuda.is_available():
        pytest.skip("torch sees no GPU")
    yield to_library(module), host


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", ["time first", "time last", "time between"])
@pytest.mark.parametrize("name", NEURONS)
def test_forward_and_backward_in_chunks(name, layout, dtype, library):
    to_device, host = library
    kind = type(to_device(np.zeros(1)))
    check_forward_and_backward(name, layout, dtype, to_device, comparison(kind, host), chunks=2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "axis"), DELAYED, ids=str)
def test_delays(shape, axis, dtype, library):
    check_delay(shape, axis, dtype, *library)


@pytest.mark.parametrize("layout", ["time first", "time last"])
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_weights(name, layout, library):
    to_device, host = library
    kind, w = type(to_device(np.zeros(1))), weights(np.float64)
    check_forward_and_backward(name, layout, np.float64, to_device, comparison(kind, host), 2, w)


@pytest.fixture
def torch():
    """The torch module, if it sees a GPU."""
    module = pytest.importorskip("torch")
    if not module.cuda.is_available():
        pytest.skip("torch sees no GPU")
    return module


_layers = importlib.import_module("device_layers") if importlib.util.find_spec("torch") else None
LAYERS = [] if _layers is None else [*_layers.LAYERS, *_layers.RECURRENT_LAYERS]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, with_state, dtype, torch):
    from device_layers import check_layer, results

    dtype = getattr(torch, dtype)
    check_layer(results(name, dtype, with_state, "cuda"), results(name, dtype, with_state), dtype)


def test_the_same_bits_on_every_run(torch):
    current = torch.randn(100, 3000, device="cuda")
    neuron = NEURONS["ALIF"]
    traces = [ec.forward(neuron, current) for _ in range(2)]
    assert torch.equal(traces[0].potential, traces[1].potential)
    first, second = (ec.backward(trace, torch.ones_like(current)) for trace in traces)
    assert torch.equal(first.current, second.current)
    assert all(torch.equal(first.parameters[key], second.parameters[key]) for key in first.parameters)


@pytest.mark.parametrize("count", [20, 128, 512, 700, 1100])
def test_recurrent_weights_of_many_entries(count, torch):
    """Forward has the CPU's bits, in one block or step by step. Backward has the same bits on every run."""
    rng = np.random.default_rng(8)
    current = rng.normal(0.2, 0.7, (50, 16, count)).astype(np.float32)
    w = weights(np.float32, count)
    cpu = ec.forward(ec.CubaLIF(alpha=0.9, alpha_syn=0.7), current, recurrent=w)
    given = torch.from_numpy(current).cuda()
    trace = ec.forward(ec.CubaLIF(alpha=0.9, alpha_syn=0.7), given, recurrent=torch.from_numpy(w).cuda())
    np.testing.assert_array_equal(trace.potential.cpu().numpy(), cpu.potential)
    first, second = (ec.backward(trace, given) for _ in range(2))
    assert torch.equal(first.recurrent, second.recurrent)
    expected = ec.backward(cpu, current).recurrent
    scale = np.abs(expected).max()
    np.testing.assert_allclose(first.recurrent.cpu().numpy(), expected, rtol=1e-4, atol=1e-4 * scale)


def test_layers_on_a_stream_of_their_own(torch):
    from exodus_core import torch as snn

    layer = snn.LIF(alpha=0.9, learn=("alpha",)).cuda()
    current = torch.randn(200, 50000, device="cuda")
    expected = layer(current)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        spikes = [layer(current * 1.0) for _ in range(20)]  # The allocator reuses freed memory.
    torch.cuda.current_stream().wait_stream(side)
    assert all(torch.equal(own, expected) for own in spikes)


@pytest.mark.parametrize("name", [name for name in NEURONS if name != "ExpLeak"])
def test_a_cuda_graph_replays_a_step_of_training(name, torch):
    from exodus_core import torch as snn

    layer = snn.from_neuron(NEURONS[name], learn=("threshold",) if name == "LIF" else ()).cuda()
    given = torch.from_numpy(data(np.float32, "time first")).cuda().requires_grad_()
    weights = torch.randn_like(given)

    def step():
        given.grad = None
        (layer(given) * weights).sum().backward()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    captured = given.grad
    with torch.no_grad():
        given.copy_(given.flip(0))
    graph.replay()
    replayed = captured.clone()
    step()
    assert torch.equal(replayed, given.grad)
