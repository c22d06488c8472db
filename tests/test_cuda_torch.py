"""Property: layers give the same results and gradients for CUDA tensors as on the CPU, and never wait.

Witness: the same layers on the CPU. Here the CUDA kernels run on the CPU too, under the shim of the C++ tests
(see conftest), on tensors in host memory that claim to be on a GPU.
"""

import copy
import dataclasses
import gc
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

import exodus_core as ec
from exodus_core import _binding, kernel

torch = pytest.importorskip("torch")
pytest.importorskip("array_api_compat")
snn = pytest.importorskip("exodus_core.torch")
from device_layers import LAYERS, RECURRENT_LAYERS, WIDTH, check_layer, inputs, make, results  # noqa: E402
from exodus_core._backends import device as _device  # noqa: E402 (needs array-api-compat)
from neuron_examples import SCALARS, TAUS  # noqa: E402


@pytest.fixture
def on_gpu(shim, monkeypatch):
    """A function after whose call tensors claim to be on a GPU."""

    def pretend():
        monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: True), raising=False)
        stream = SimpleNamespace(cuda_stream=11)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)

    return pretend


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("name", [*LAYERS, *RECURRENT_LAYERS])
def test_layers(name, dtype, with_state, on_gpu):
    cpu = results(name, dtype, with_state)
    on_gpu()
    check_layer(results(name, dtype, with_state), cpu, dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", [*LAYERS, *RECURRENT_LAYERS])
def test_halves(name, dtype, on_gpu):
    """With current and spikes of two bytes, results are those of the same numbers in float32, rounded."""
    layer = make(name)
    current, weights = (tensor.detach().to(dtype) for tensor in inputs(name, torch.float32))
    passes = []
    for kind, start in ((torch.float32, lambda: None), (dtype, on_gpu)):
        start()
        layer.zero_grad()
        given = current.to(kind).requires_grad_()
        output, final = layer(given, None)
        assert all(part.dtype == torch.float32 for part in final)
        (output * weights.to(output.dtype)).sum().backward()
        learnt = {key: parameter.grad.clone() for key, parameter in layer.named_parameters()}
        passes.append((output.detach(), given.grad, learnt))
    (output, gradient, learnt), (half_output, half_gradient, half_learnt) = passes
    assert half_gradient.dtype == dtype
    assert torch.equal(half_output, output.to(half_output.dtype))
    torch.testing.assert_close(half_gradient, gradient.to(dtype), rtol=1e-2, atol=1e-3)
    if "weight" in learnt:  # sums over rounded numbers: spikes and gradients of the current
        weight, half_weight = learnt.pop("weight"), half_learnt.pop("weight")
        allowed = torch.finfo(dtype).eps * weight.abs().max().item()
        torch.testing.assert_close(half_weight, weight, rtol=0, atol=allowed)
    torch.testing.assert_close(half_learnt, learnt, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", [*LAYERS, *RECURRENT_LAYERS])
def test_without_a_potential(name, on_gpu):
    layer, current = make(name), inputs(name, torch.float32)[0]
    with torch.no_grad():
        expected, final = layer(current, None)
        on_gpu()
        output, last = layer(current, None)
    assert torch.equal(output, expected)
    for own, other in zip(last, final, strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize("one", [kernel.Alpha(4.0), kernel.FIR(np.linspace(0.9, 0.1, 6))], ids=repr)
def test_filter(one, on_gpu):
    passes = []
    for start in (lambda: None, on_gpu):
        start()
        current, weights = inputs("LIF", torch.float64)
        output, final = snn.kernel_filter(one, current)
        ((output * weights).sum() + final.potential.sum()).backward()
        passes.append((output.detach(), *(part.detach() for part in final), current.grad))
    torch.testing.assert_close(*passes, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("neuron", "key"),
    [
        (ec.LIF(tau=5.0), "tau"),
        (ec.StateSpace([[0.9, -0.2], [0.3, 0.8]], [1.0, 0.1], [-1.0, 0.2]), "A"),
        (ec.AdLIF(0.9, 0.95, 0.4, 0.2, threshold=0.2), "alpha_adapt"),
        (ec.ResonateAndFire(0.9, np.linspace(0.2, 1.0, WIDTH)), "decay"),
        (ec.SRM(kernel.Alpha(4.0), kernel.Exponential(0.8, -1.0)), "epsilon.tau"),
    ],
    ids=lambda part: part if isinstance(part, str) else type(part).__name__,
)
def test_parameters_of_a_computation(neuron, key, on_gpu):
    passes = []
    value = torch.tensor(np.array(neuron._value_of(key))).requires_grad_()
    for start in (lambda: None, on_gpu):
        start()
        current, weights = inputs("LIF", torch.float64)
        trace = snn.spike(current, neuron, parameters={key: value * 1.01})
        (trace.spikes * weights).sum().backward()
        passes.append((trace.potential.detach(), current.grad, value.grad.clone()))
        value.grad = None
    assert torch.equal(passes[0][0], passes[1][0])
    torch.testing.assert_close(*passes, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("learn", [(), ("alpha",)], ids=["direct", "general way"])
def test_on_torchs_stream(learn, on_gpu, shim, monkeypatch):
    streams, run, bound = [], shim.forward, shim.BoundNeuron

    def watched(*arguments):
        streams.append(arguments[-1][0])
        return run(*arguments)

    class Watched:
        def __init__(self, *arguments):
            self.bound = bound(*arguments)

        def forward(self, *arguments):
            streams.append(arguments[-1][0])
            return self.bound.forward(*arguments)

    monkeypatch.setattr(shim, "forward", watched)
    monkeypatch.setattr(shim, "BoundNeuron", Watched)
    on_gpu()
    snn.LIF(alpha=0.9, learn=learn)(torch.ones(4, 3))
    assert streams == [11]


@pytest.mark.parametrize("name", [*LAYERS, *RECURRENT_LAYERS])
def test_nothing_goes_to_the_host(name, on_gpu, monkeypatch):
    """After the first call nothing is copied between host and device: a CUDA graph could not capture it."""
    layer = make(name)
    current, weights = inputs(name, torch.float32)
    on_gpu()
    layer(current)

    def refuse(*arguments, **keywords):
        raise AssertionError("a copy between host and device")

    for method in ("numpy", "cpu", "cuda", "item", "tolist", "__array__", "__float__", "__bool__"):
        monkeypatch.setattr(torch.Tensor, method, refuse)
    for function in ("from_numpy", "tensor", "as_tensor", "asarray"):
        monkeypatch.setattr(torch, function, refuse)
    for method in ("exodus", "slayer", "bptt"):
        getattr(layer, "layer", layer).method = method
        (layer(current) * weights).sum().backward()


def test_a_custom_surrogate_gets_tensors(on_gpu):
    def custom(u, threshold):
        assert isinstance(u, torch.Tensor) and isinstance(threshold, torch.Tensor)
        return 1.0 / (1.0 + (u - threshold) ** 2)

    gradients = []
    for start in (lambda: None, on_gpu):
        start()
        current = torch.linspace(-1, 2, 60).reshape(10, 6).requires_grad_()
        snn.spike(current, ec.LIF(alpha=0.9), surrogate=custom).spikes.sum().backward()
        gradients.append(current.grad)
    torch.testing.assert_close(*gradients)


def test_arrays_without_autograd(on_gpu):
    current = torch.linspace(-1, 2, 60).reshape(10, 6)
    expected = ec.forward(ec.LIF(alpha=0.9), current.numpy())
    on_gpu()
    trace = ec.forward(ec.LIF(alpha=0.9), current)
    assert torch.equal(trace.potential, torch.from_numpy(expected.potential))
    assert isinstance(ec.backward(trace, torch.ones_like(current)).parameters["alpha"], torch.Tensor)
    with pytest.raises(TypeError, match=r"current must not require a gradient.*exodus_core\.torch\.spike"):
        ec.forward(ec.LIF(alpha=0.9), current.clone().requires_grad_())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_can_be_copied_after_it_ran(name, copied, on_gpu):
    layer, current = LAYERS[name](), inputs(name, torch.float32)[0]
    before = copied(layer)
    on_gpu()
    expected = layer(current).detach()
    layer(current).sum().backward()
    layer.zero_grad()
    neuron = layer._given
    assert vars(neuron).keys() == {field.name for field in dataclasses.fields(neuron)}
    for one in (copied(layer), before):
        assert one.neuron == layer.neuron
        assert torch.equal(one(current), expected)


def test_layers_of_one_descriptor_do_not_share_values(on_gpu):
    # All layers have the same descriptor, and each learns another parameter.
    neuron = ec.LIF(alpha=np.linspace(0.5, 0.9, WIDTH), threshold=np.linspace(0.5, 0.9, WIDTH))
    layers = [snn.from_neuron(neuron, learn=learn) for learn in ((), ("threshold",), ("alpha",))]
    current = inputs("LIF", torch.float32)[0].detach()
    with torch.no_grad():
        layers[1].threshold.mul_(0.5)
        layers[2].alpha.mul_(0.5)
    expected = [layer(current) for layer in layers]
    on_gpu()
    for layer, found in zip(layers * 2, expected * 2, strict=True):
        assert torch.equal(layer(current), found)


def remembered(cache):
    """The references in a cache, by identity, since references to equal neurons are equal."""
    return {id(reference): reference for reference, _ in cache._known.values()}


def test_caches_forget_a_deleted_neuron(on_gpu):
    caches = (_binding._known, _binding._bound, _device._constants)
    current = inputs("LIF", torch.float32)[0].detach()
    on_gpu()
    before = [remembered(cache) for cache in caches]  # neurons of other tests, which may be deleted meanwhile
    layers = [build() for build in LAYERS.values()]
    for layer in layers:
        layer(current)
        ec.forward(layer.neuron, current)
    after = [remembered(cache) for cache in caches]
    shared = {id(neuron) for neuron in (*SCALARS.values(), *TAUS.values())}  # which the examples keep alive
    own = [
        {k: r for k, r in now.items() if k not in then and id(r()) not in shared}
        for now, then in zip(after, before, strict=True)
    ]
    assert all(own)
    del layer, layers
    gc.collect()
    for cache, references in zip(caches, own, strict=True):
        assert not [r for r in references.values() if r() is not None]
        assert not references.keys() & remembered(cache)


def test_a_layer_that_was_not_moved(monkeypatch):
    layer = snn.LIF(alpha=0.9, learn=("alpha",))
    monkeypatch.setattr(torch.nn.Parameter, "device", property(lambda self: torch.device("cuda:0")))
    with pytest.raises(TypeError, match=r"alpha must be on the device of current, cpu, got cuda:0.*\.to\(\)"):
        layer(torch.ones(3, 2))
