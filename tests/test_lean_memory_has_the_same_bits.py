"""Property: gradients of a call with memory="lean" have the bits of those of a call that keeps the potential.

Witness: the same call with memory="full". That its gradients are right is tested elsewhere.
"""

import copy
import pickle

import numpy as np
import pytest
import torch

import exodus_core as ec
import exodus_core.torch as snn
from exodus_core import kernel, surrogate
from neuron_examples import FIRING, SCALARS, per_neuron

SHAPE = (70, 3, 37)


def arrays(dtype, seed=0, shape=SHAPE):
    draw = np.random.default_rng(seed)
    return [draw.normal(0.3, 1, shape).astype(dtype) for _ in range(2)]


def assert_same(found, expected):
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def check(neuron, current, grad, method="exodus", time_axis=0, **keywords):
    full = ec.forward(neuron, current, time_axis=time_axis, **keywords)
    lean = ec.forward(neuron, current, time_axis=time_axis, memory="lean", **keywords)
    assert lean.potential is None
    for own, other in zip(lean.state, full.state, strict=True):
        assert_same(own, other)
    weights = (
        {"grad_spikes": grad} if neuron._fires else {"grad_potential": grad.astype(full.potential.dtype)}
    )
    if neuron._fires:
        assert_same(lean.spikes, full.spikes)
        assert 0 < full.spikes.sum() < full.spikes.size
    grad_state = full.state
    found, expected = (
        ec.backward(trace, method=method, grad_state=grad_state, **weights) for trace in (lean, full)
    )
    assert_same(found.current, expected.current)
    assert found.parameters.keys() == expected.parameters.keys()
    for name, gradient in found.parameters.items():
        assert_same(gradient, expected.parameters[name])
    for own, other in zip(found.state, expected.state, strict=True):
        assert_same(own, other)
    if expected.recurrent is not None:
        assert_same(found.recurrent, expected.recurrent)


@pytest.mark.parametrize("method", ["exodus", "slayer", "bptt"])
@pytest.mark.parametrize("name", SCALARS)
def test_every_neuron_and_method(name, method):
    for dtype in (np.float16, np.float32, np.float64):
        check(SCALARS[name], *arrays(dtype), method)
    check(per_neuron(name, SHAPE[1:]), *arrays(np.float32), method)


@pytest.mark.parametrize("time_axis", [0, 1, 2])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", SCALARS)
def test_every_layout(name, order, time_axis):
    current, grad = (np.asarray(x, order=order) for x in arrays(np.float32))
    check(SCALARS[name], current, grad, time_axis=time_axis)


@pytest.mark.parametrize("name", FIRING)
def test_recurrent_weights_and_a_state(name):
    neuron = SCALARS[name]
    current, grad = arrays(np.float32)
    weights = np.random.default_rng(1).normal(0, 0.2, (37, 37)).astype(np.float32)
    state = ec.forward(neuron, current[:9]).state
    check(neuron, current, grad, recurrent=weights, state=state)


@pytest.mark.parametrize("steps", [1, 2, 8, 9, 64, 65, 1000])
def test_any_number_of_steps(steps):
    check(ec.LIF(alpha=0.9), *arrays(np.float32, shape=(steps, 2, 70)))
    check(ec.ALIF(alpha=0.9, alpha_adapt=0.95, adapt_scale=0.2), *arrays(np.float32, shape=(steps, 70)))


def test_a_lean_call_reuses_the_spikes_of_an_earlier_one():
    current, grad = arrays(np.float32)
    out = ec.forward(ec.LIF(alpha=0.9), current)
    spikes = out.spikes
    trace = ec.forward(ec.LIF(alpha=0.9), current, out=out, memory="lean")
    assert trace is out and trace.spikes is spikes and trace.potential is None
    full = ec.forward(ec.LIF(alpha=0.9), current)
    assert_same(ec.backward(trace, grad).current, ec.backward(full, grad).current)


def test_a_lean_trace_can_be_copied():
    current, grad = arrays(np.float32)
    trace = ec.forward(ec.LIF(alpha=0.9), current, memory="lean")
    expected = ec.backward(trace, grad).current
    for copied in (copy.deepcopy(trace), pickle.loads(pickle.dumps(trace))):
        assert_same(ec.backward(copied, grad).current, expected)


def test_what_does_not_fit_is_refused():
    current, grad = arrays(np.float32)
    with pytest.raises(ValueError, match=r"memory must be 'full' or 'lean', got 'none'"):
        ec.forward(ec.IF(), current, memory="none")
    for taps in (
        ec.SRM(epsilon=kernel.FIR([1.0, 0.5]), nu=kernel.Exponential(0.5)),
        ec.SRM(epsilon=kernel.Exponential(0.5), nu=kernel.FIR([-1.0, -0.5])),
    ):
        with pytest.raises(
            ValueError, match="memory must be 'full' for kernels that are given by their taps"
        ):
            ec.forward(taps, current, memory="lean")
    trace = ec.forward(ec.IF(), current, memory="lean")
    with pytest.raises(ValueError, match="surrogate must be a built-in one with memory='lean'"):
        ec.backward(trace, grad, surrogate=lambda u, threshold: u)
    with pytest.raises(ValueError, match="trace must have its potential"):
        ec.growth(trace)
    trace.current = None
    with pytest.raises(ValueError, match=r"trace\.current must be the input, which memory='lean' needs"):
        ec.backward(trace, grad)


def layer_results(layer, current, weights, memory):
    layer = copy.deepcopy(layer)
    snn.configure(layer, memory=memory)
    current = current.clone().requires_grad_()
    saved = []

    def pack(tensor):
        saved.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = layer(current)
    (output * weights).sum().backward()
    gradients = {name: p.grad for name, p in layer.named_parameters()}
    return {"output": output.detach(), "current": current.grad, **gradients}, current.data_ptr() in saved


@pytest.mark.parametrize("learns", [False, True], ids=["fixed", "learnt"])
@pytest.mark.parametrize("method", ["exodus", "bptt"])
@pytest.mark.parametrize("name", SCALARS)
def test_torch_layers(name, method, learns):
    neuron = SCALARS[name]
    layer = snn.from_neuron(neuron, method=method, learn=neuron._parameter_names() if learns else ())
    current, weights = map(torch.from_numpy, arrays(np.float32))
    found, keeps_current = layer_results(layer, current, weights, "lean")
    expected, _ = layer_results(layer, current, weights, "full")
    assert keeps_current or not (neuron._fires or learns)
    for key, tensor in found.items():
        assert torch.equal(tensor, expected[key]), key


@pytest.mark.parametrize("output", ["spikes", "potential", "trace"])
def test_every_output_of_a_layer(output):
    current = torch.from_numpy(arrays(np.float32)[0])
    for recurrent in (False, True):
        gradients = []
        for memory in ("full", "lean"):
            torch.manual_seed(0)
            layer = snn.LIF(alpha=0.9, output=output, memory=memory)
            net = snn.Recurrent(layer, 37) if recurrent else layer
            x = current.clone().requires_grad_()
            y = net(x)
            (y.potential * y.spikes if output == "trace" else y).square().sum().backward()
            gradients.append(x.grad)
        assert torch.equal(*gradients)


def test_lean_layers_refuse_what_they_cannot_do():
    x = torch.rand(5, 3, 2)
    with pytest.raises(ValueError, match="memory must be 'full' or 'lean', got 'little'"):
        snn.IF(memory="little")
    with pytest.raises(ValueError, match="surrogate must be a built-in one with memory='lean'"):
        snn.IF(memory="lean", surrogate=lambda u, threshold: u)(x)
    with pytest.raises(RuntimeError, match="must have their defaults in a program that is compiled"):
        torch.func.vmap(snn.IF(memory="lean"))(x)
    layer = snn.LIF(alpha=0.5)
    with pytest.raises(ValueError, match="inplace must be False with memory='lean'"):
        snn.configure(layer, memory="lean", inplace=True)
    assert layer.memory == "full" and not layer.inplace
    assert "memory='lean'" in repr(snn.configure(layer, memory="lean"))


def test_calls_under_activation_checkpointing():
    layer, x = snn.LIF(alpha=0.9, memory="lean"), torch.from_numpy(arrays(np.float32)[0])
    gradients = []
    for checkpointed in (False, True):
        current = x.clone().requires_grad_()
        y = (
            torch.utils.checkpoint.checkpoint(layer, current, use_reentrant=False)
            if checkpointed
            else layer(current)
        )
        y.square().sum().backward()
        gradients.append(current.grad)
    assert torch.equal(*gradients)


def test_the_default_surrogate_is_not_the_only_one():
    current, grad = arrays(np.float32)
    for chosen in (surrogate.Boxcar(0.5), surrogate.Sigmoid(0.3)):
        full, lean = (ec.forward(ec.LIF(alpha=0.9), current, memory=memory) for memory in ("full", "lean"))
        assert_same(
            ec.backward(lean, grad, surrogate=chosen).current,
            ec.backward(full, grad, surrogate=chosen).current,
        )
