"""Property: a direct call with tensors on a GPU gives the CPU's results, on torch's current stream.

Witness: the same layers on the CPU. The CUDA kernels run under the shim, on tensors in host memory that claim
to be on a GPU.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import direct_calls
import exodus_core as ec
import exodus_core.torch as snn
from exodus_core import kernel
from exodus_core.torch import _direct, _run
from neuron_examples import SCALARS

SHAPE = (19, 3, 5)


@pytest.fixture
def calls(shim, monkeypatch):
    """The direct calls on a GPU, by name: each with the device whose stream is asked for."""
    found = direct_calls.record(monkeypatch)

    def current_stream(device):
        found[-1] = found[-1], device
        return SimpleNamespace(cuda_stream=11)

    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: True), raising=False)
    monkeypatch.setattr(torch.cuda, "current_stream", current_stream)
    return found


DIRECT = [(name, torch.device("cpu")) for name in ("forward", "backward")]


def results(layer, current, weights):
    current = current.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    output = layer(current)
    (output * weights).sum().backward()
    return output.detach(), current.grad


def has_taps(neuron):
    return any(name in neuron._parameters() for name in ec._core.models[neuron._model][2])


NEURONS = {name: neuron for name, neuron in SCALARS.items() if not has_taps(neuron)}
NEURONS["LIF per channel"] = ec.LIF(alpha=np.linspace(0.5, 0.9, 5))


def check(found, expected, dtype=torch.float32):
    (output, grad), (expected_output, expected_grad) = found, expected
    assert torch.equal(output, expected_output)
    assert output.stride() == expected_output.stride()
    assert grad.stride() == expected_grad.stride()
    largest = float(expected_grad.abs().max())
    assert largest > 0
    atol = largest * (1e-5 if dtype == torch.float32 else 1e-12)
    torch.testing.assert_close(grad, expected_grad, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("method", ["exodus", "slayer", "bptt"])
@pytest.mark.parametrize("name", NEURONS)
def test_every_neuron(name, method, dtype, calls, monkeypatch):
    torch.manual_seed(0)
    layer = snn.from_neuron(NEURONS[name], method=method)
    arrays = torch.randn(SHAPE, dtype=dtype), torch.randn(SHAPE, dtype=dtype)
    found = results(layer, *arrays)
    assert calls == DIRECT
    monkeypatch.undo()
    check(found, results(layer, *arrays), dtype)


@pytest.mark.parametrize("output", ["spikes", "potential"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NEURONS)
def test_halves_have_the_bits_of_the_general_way(name, dtype, output, calls, monkeypatch):
    """Both ways run the same kernels."""
    torch.manual_seed(0)
    neuron = NEURONS[name]
    layer = snn.from_neuron(neuron, output=output if neuron._fires else "potential")
    kind = torch.float32 if layer.output == "potential" else dtype
    current, weights = torch.randn(SHAPE, dtype=dtype), torch.randn(SHAPE, dtype=kind)
    direct = results(layer, current, weights)
    assert calls == DIRECT
    monkeypatch.setattr(_run, "place_of", lambda *arguments: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=11))
    general = results(layer, current, weights)
    assert calls == DIRECT
    for found, expected, of in zip(direct, general, (kind, dtype), strict=True):
        assert found.dtype == expected.dtype == of
        assert torch.equal(found, expected)
        assert found.abs().max() > 0


def test_time_last_in_columns(calls, monkeypatch):
    torch.manual_seed(0)
    layer = snn.LIF(alpha=0.9)
    arrays = torch.randn(5, 3, 19).permute(2, 1, 0), torch.randn(5, 3, 19).permute(2, 1, 0)
    found = results(layer, *arrays)
    assert calls == DIRECT
    monkeypatch.undo()
    check(found, results(layer, *arrays))


def test_a_potential_over_the_current(calls, monkeypatch):
    torch.manual_seed(0)
    arrays = torch.randn(SHAPE), torch.randn(SHAPE)
    in_place = snn.LIF(alpha=0.9, inplace=True)
    found = results(lambda current: in_place(current * 1), *arrays)
    assert calls == DIRECT
    monkeypatch.undo()
    check(found, results(snn.LIF(alpha=0.9), *arrays))


def test_workspace_is_memory_of_the_device(calls, monkeypatch):
    sizes, allocate = [], _direct.OnGpu._allocate

    def watched(self, size):
        memory, address = allocate(self, size)
        assert (memory.device, memory.dtype) == (self.device, torch.uint8)
        assert (memory.numel(), memory.data_ptr()) == (size, address)
        sizes.append(size)
        return memory, address

    monkeypatch.setattr(_direct.OnGpu, "_allocate", watched)
    for name, expected in (("LIF", 0), ("ALIF", 1)):
        results(snn.from_neuron(NEURONS[name]), torch.randn(SHAPE), torch.ones(SHAPE))
        assert len(sizes) == expected  # for the hidden states, in the backward pass


@pytest.mark.parametrize(
    "make",
    [
        lambda: snn.LIF(alpha=0.9, learn={"alpha": (5,)}),
        lambda: snn.LIF(alpha=0.9, gain="1-alpha", learn=("alpha",)),
        lambda: of_two_types(snn.LIF(alpha=0.9, gain=0.5, learn=("alpha", "gain"))),
        lambda: snn.from_neuron(ec.SRM(kernel.FIR([0.5, 0.25]), kernel.Exponential(0.8, -1.0))),
    ],
    ids=["learnt arrays", "a gain that follows", "learnt numbers of two types", "taps"],
)
def test_others_go_the_general_way(make, learnt_calls):
    results(make(), torch.randn(SHAPE), torch.randn(SHAPE))
    assert learnt_calls == []


def of_two_types(layer):
    layer.gain.data = layer.gain.data.double()
    return layer


@pytest.fixture
def learnt_calls(calls, monkeypatch):
    """The direct calls on a GPU, by name. The stream is asked for more often."""
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=11))
    return calls


def learnt_results(layer, current, weights):
    layer.zero_grad()
    output, grad = results(layer, current, weights)
    return output, grad, {name: parameter.grad for name, parameter in layer.named_parameters()}


def check_learnt(found, expected, dtype=torch.float32):
    check(found[:2], expected[:2], dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(found[2], expected[2], rtol=tolerance, atol=tolerance)
    assert any(grad is not None and grad.abs() > 0 for grad in expected[2].values())


LEARNT = {
    **NEURONS,
    "LIF by tau": ec.LIF(tau=9.0, gain=0.8, threshold=0.7, dt=0.5),
    "CubaLIF by tau": ec.CubaLIF(tau=9.0, tau_syn=4.0),
    "ExpLeak by tau": ec.ExpLeak(tau=3.0),
}


def numbers_of(neuron):
    return [name for name in neuron._parameter_names() if np.ndim(neuron._value_of(name)) == 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("method", ["exodus", "slayer", "bptt"])
@pytest.mark.parametrize("name", [name for name, neuron in LEARNT.items() if numbers_of(neuron)])
def test_learnt_numbers(name, method, dtype, learnt_calls, monkeypatch):
    torch.manual_seed(0)
    neuron = LEARNT[name]
    names = numbers_of(neuron)
    layer = snn.from_neuron(neuron, learn=names, method=method)
    arrays = torch.randn(SHAPE, dtype=dtype), torch.randn(SHAPE, dtype=dtype)
    found = learnt_results(layer, *arrays)
    takes_arrays = name == "LIF per channel"  # which go the general way with learnt numbers
    assert learnt_calls == ([] if takes_arrays or neuron._native(names) is None else ["forward", "backward"])
    monkeypatch.undo()
    check_learnt(found, learnt_results(layer, *arrays), dtype)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("tau", "threshold"), [(-1.0, -0.5), (5.0, 0.25), (float("inf"), 0.5)], ids=["below", "within", "above"]
)
def test_learnt_numbers_are_put_into_their_ranges(tau, threshold, precision, learnt_calls, monkeypatch):
    """The CPU has an error for infinities, and a GPU has none: the witness there is the general way."""
    torch.manual_seed(0)
    layer = snn.LIF(tau=5.0, threshold=0.5, learn=("tau", "threshold"))
    layer.tau.data = torch.tensor(tau, dtype=precision)
    layer.threshold.data = torch.tensor(threshold, dtype=precision)
    arrays = torch.randn(SHAPE), torch.randn(SHAPE)
    found = learnt_results(layer, *arrays)
    assert learnt_calls == ["forward", "backward"]
    monkeypatch.setattr(_run, "place_of", lambda *arguments: None)
    general = learnt_results(layer, *arrays)
    assert len(learnt_calls) == 2
    check_learnt(found, general)
    assert found[2]["tau"].dtype == precision
    monkeypatch.undo()
    if math.isfinite(tau):
        check_learnt(found, learnt_results(layer, *arrays))


def test_a_learnt_nan_reaches_the_potential(learnt_calls):
    """To raise an error, a call would have to wait for the GPU."""
    layer = snn.LIF(alpha=0.9, learn=("alpha",), output="potential")
    layer.alpha.data.fill_(float("nan"))
    assert layer(torch.ones(SHAPE))[1:].isnan().all()
    assert learnt_calls == ["forward"]


def test_gradients_of_some_learnt_numbers(learnt_calls, monkeypatch):
    torch.manual_seed(0)
    layer = snn.CubaLIF(alpha=0.9, alpha_syn=0.8, gain=0.9, learn=("alpha", "alpha_syn", "gain"))
    layer.alpha.requires_grad_(False)
    arrays = torch.randn(SHAPE), torch.randn(SHAPE)
    found = learnt_results(layer, *arrays)
    assert learnt_calls == ["forward", "backward"]
    monkeypatch.undo()
    assert found[2]["alpha"] is None
    check_learnt(found, learnt_results(layer, *arrays))


def test_backward_reads_the_learnt_numbers_of_the_forward_pass(learnt_calls):
    torch.manual_seed(0)
    arrays = torch.randn(SHAPE), torch.randn(SHAPE)
    layer = snn.LIF(tau=5.0, learn=("tau",))
    *_, expected = learnt_results(layer, *arrays)

    def changing(current):
        output = layer(current)
        layer.tau.data.fill_(2.0)
        return output

    layer.zero_grad()
    results(changing, *arrays)
    assert learnt_calls == ["forward", "backward"] * 2
    assert torch.equal(layer.tau.grad, expected["tau"])


def test_learnt_numbers_with_a_custom_surrogate(learnt_calls, monkeypatch):
    """Its gradients come the general way, from the numbers of a direct forward pass."""
    torch.manual_seed(0)
    layer = snn.LIF(
        tau=5.0,
        gain=0.8,
        learn=("tau", "gain"),
        surrogate=lambda u, threshold: 1 / (1 + (u - threshold) ** 2),
    )
    arrays = torch.randn(SHAPE), torch.randn(SHAPE)
    found = learnt_results(layer, *arrays)
    assert learnt_calls == ["forward"]
    monkeypatch.undo()
    check_learnt(found, learnt_results(layer, *arrays))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_learnt_numbers_beside_halves_have_the_bits_of_the_general_way(dtype, learnt_calls, monkeypatch):
    torch.manual_seed(0)
    layer = snn.CubaLIF(tau=9.0, tau_syn=4.0, learn=("tau", "tau_syn"))
    arrays = torch.randn(SHAPE, dtype=dtype), torch.randn(SHAPE, dtype=dtype)
    *direct, learnt = learnt_results(layer, *arrays)
    assert learnt_calls == ["forward", "backward"]
    monkeypatch.setattr(_run, "place_of", lambda *arguments: None)
    *general, expected = learnt_results(layer, *arrays)
    assert all(map(torch.equal, direct, general))
    for name, grad in learnt.items():
        assert grad.dtype == torch.float32
        torch.testing.assert_close(grad, expected[name], rtol=1e-6, atol=0)
        assert grad != 0


def test_lean_memory_is_refused(calls):
    with pytest.raises(ValueError, match="memory must be 'full' for arrays on a GPU, got 'lean'"):
        snn.LIF(alpha=0.9, memory="lean")(torch.randn(SHAPE))
    assert calls == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_potential_over_a_current_of_halves_is_refused(dtype, calls):
    with pytest.raises(ValueError, match=r"inplace must be False for current of b?float16"):
        snn.LIF(alpha=0.9, inplace=True)(torch.randn(SHAPE).to(dtype))
    assert calls == []


def test_tensors_elsewhere_are_not_taken(calls):
    place = _direct.place_of(ec.LIF(alpha=0.9), torch.randn(SHAPE), 0, {})
    here, elsewhere = torch.randn(SHAPE), torch.randn(SHAPE, device="meta")
    assert place.has_all((here, None), (here, here))
    for k in range(4):
        tensors = [elsewhere if i == k else here for i in range(4)]
        assert not place.has_all(tensors[:2], tensors[2:])
