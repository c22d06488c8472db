"""Property: a call whose tensors are taken where they are has the bits of the general way, both ways.

Witness: the same call without a place.
"""

import copy
import gc
import weakref

import numpy as np
import pytest
import torch

import direct_calls
import exodus_core as ec
import exodus_core.torch as snn
from exodus_core import surrogate
from exodus_core.torch import _run
from neuron_examples import FIRING, SCALARS

SHAPE = (7, 3, 5)
LAYOUTS = {
    "rows": lambda x: x,
    "columns": lambda x: x.permute(2, 1, 0).contiguous().permute(2, 1, 0),
    "gaps": lambda x: torch.stack([x, x], -1)[..., 0],
    "negated": lambda x: torch._neg_view(-x),
}


def results(layer, current, weights, direct, monkeypatch):
    """Spikes or potential, and all gradients; and how many kernel calls were direct."""
    with monkeypatch.context() as patch:
        if not direct:
            patch.setattr(_run, "place_of", lambda *arguments: None)
        calls = direct_calls.record(patch)
        layer = copy.deepcopy(layer)
        current = current.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        output = layer(current)
        (output * weights).sum().backward()
    learnt = {name: p.grad for name, p in layer.named_parameters()}
    return {"output": output.detach(), "current": current.grad, **learnt}, calls


def check(layer, current, weights, monkeypatch, expected_calls=("forward", "backward")):
    found, calls = results(layer, current, weights, True, monkeypatch)
    general, none = results(layer, current, weights, False, monkeypatch)
    assert calls == list(expected_calls)
    assert none == []
    assert found.keys() == general.keys()
    for name, tensor in found.items():
        if tensor is None:
            assert general[name] is None
            continue
        assert tensor.dtype == general[name].dtype
        assert tensor.stride() == general[name].stride()
        assert torch.equal(tensor, general[name]), name


def inputs(dtype, seed=0):
    torch.manual_seed(seed)
    return torch.randn(SHAPE, dtype=dtype), torch.randn(SHAPE, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("learns", [False, True], ids=["fixed", "learnt"])
@pytest.mark.parametrize("name", SCALARS)
def test_every_neuron(name, learns, dtype, monkeypatch):
    neuron = SCALARS[name]
    names = (
        [key for key in neuron._parameter_names() if np.ndim(neuron._value_of(key)) == 0] if learns else []
    )
    for method in ("exodus", "slayer", "bptt"):
        layer = snn.from_neuron(neuron, learn=names, method=method)
        has_taps = isinstance(neuron, ec.SRM) and any("taps" in key for key in neuron._parameter_names())
        has_arrays = any(np.ndim(value) for value in neuron._parameters().values())
        direct = not has_taps and not (names and has_arrays)
        check(layer, *inputs(dtype), monkeypatch, ("forward", "backward") if direct else ())


@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("time_dim", [0, 1, -1])
def test_every_order_of_the_axes(layout, time_dim, monkeypatch):
    current, weights = map(LAYOUTS[layout], inputs(torch.float32))
    layer = snn.LIF(tau=5.0, gain=0.8, learn=("tau", "gain"), time_dim=time_dim)
    check(layer, current, weights, monkeypatch)


def test_arrays_that_are_fixed(monkeypatch):
    layer = snn.LIF(alpha=torch.linspace(0.1, 0.9, 5), threshold=torch.linspace(0.5, 1.0, 3)[:, None])
    check(layer, *inputs(torch.float32), monkeypatch)


@pytest.mark.parametrize("learn", [(), ("tau",)], ids=["fixed", "learnt"])
@pytest.mark.parametrize("kind", [snn.LIF, snn.ExpLeak])
def test_a_gain_that_follows_tau(kind, learn, monkeypatch):
    check(kind(tau=5.0, gain="1-alpha", learn=learn), *inputs(torch.float32), monkeypatch)


def test_a_learnt_value_outside_its_domain(monkeypatch):
    for value in (-0.5, 1.5):
        layer = snn.LIF(alpha=0.9, threshold=0.5, learn=("alpha", "threshold"))
        with torch.no_grad():
            layer.alpha.fill_(value)
            layer.threshold.fill_(-1.0)
        check(layer, *inputs(torch.float32), monkeypatch)


def test_a_learnt_value_of_another_dtype(monkeypatch):
    layer = snn.LIF(tau=5.0, learn=("tau",)).double()
    check(layer, *inputs(torch.float32), monkeypatch)


@pytest.mark.parametrize("frozen", ["tau", "threshold", "gain"])
def test_a_learnt_value_that_needs_no_gradient(frozen, monkeypatch):
    layer = snn.LIF(tau=5.0, threshold=0.7, gain=0.8, learn=("tau", "threshold", "gain"))
    getattr(layer, frozen).requires_grad_(False)
    check(layer, *inputs(torch.float32), monkeypatch)


def test_a_learnt_value_that_torch_keeps_negated(monkeypatch):
    layer = snn.LIF(tau=5.0, learn=("tau",))
    layer.tau = torch.nn.Parameter(torch._neg_view(torch.tensor(-5.0)))
    assert layer.tau.is_neg()
    check(layer, *inputs(torch.float32), monkeypatch)


def test_learnt_values_of_several_dtypes(monkeypatch):
    layer = snn.LIF(tau=5.0, threshold=0.7, learn=("tau", "threshold"))
    layer.threshold = torch.nn.Parameter(layer.threshold.detach().double())
    check(layer, *inputs(torch.float32), monkeypatch)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_learnt_value_that_is_not_finite(value, monkeypatch):
    layer = snn.LIF(tau=5.0, learn=("tau",))
    with torch.no_grad():
        layer.tau.fill_(value)
    for direct in (True, False):
        with pytest.raises(ValueError, match=r"tau must be finite, got (nan|-?inf)"):
            results(layer, *inputs(torch.float32), direct, monkeypatch)


@pytest.mark.parametrize("name", FIRING)
def test_a_function_as_surrogate_goes_the_general_way_back(name, monkeypatch):
    layer = snn.from_neuron(
        SCALARS[name],
        surrogate=lambda u, th: 1 / (1 + (u - th) ** 2),
        learn=SCALARS[name]._parameter_names()[:1],
    )
    found, _ = results(layer, *inputs(torch.float64), True, monkeypatch)
    general, _ = results(layer, *inputs(torch.float64), False, monkeypatch)
    for key, tensor in found.items():
        assert torch.equal(tensor, general[key])


@pytest.mark.parametrize(
    "change",
    [
        LAYOUTS["columns"],
        LAYOUTS["gaps"],
        LAYOUTS["negated"],
        lambda g: g[:1].expand(SHAPE),
        lambda g: torch.zeros(()).expand(SHAPE) + g,
    ],
)
def test_a_gradient_in_another_layout(change, monkeypatch):
    current, weights = inputs(torch.float32)
    passes = []
    for direct in (True, False):
        with monkeypatch.context() as patch:
            if not direct:
                patch.setattr(_run, "place_of", lambda *arguments: None)
            layer = snn.LIF(tau=5.0, learn=("tau",))
            given = current.clone().requires_grad_()
            layer(given).backward(change(weights))
            passes.append((given.grad, layer.tau.grad))
    assert all(map(torch.equal, *passes))


@pytest.mark.parametrize("layout", ["gaps", "negated"])
def test_a_current_that_has_to_be_copied(layout, monkeypatch):
    current, _ = inputs(torch.float32)
    layer = snn.LIF(alpha=0.9)
    found = layer(LAYOUTS[layout](current))
    assert torch.equal(found, layer(current))


def test_a_parameter_that_changes_between_the_passes():
    """Backward reads the value of the forward pass, not the one that an optimiser has written since."""
    current, weights = inputs(torch.float32)
    gradients = []
    for change in (0.0, 3.0):
        layer, given = snn.LIF(tau=5.0, learn=("tau",)), current.clone().requires_grad_()
        output = layer(given)
        with torch.no_grad():
            layer.tau.add_(change)
        output.backward(weights)
        gradients.append((given.grad, layer.tau.grad))
    assert all(map(torch.equal, *gradients))


def test_a_place_does_not_keep_the_neuron_alive():
    neuron = ec.LIF(alpha=0.321)
    layer = snn.from_neuron(neuron, surrogate=surrogate.Boxcar())
    layer(torch.ones(3, 2, requires_grad=True)).sum().backward()
    alive = weakref.ref(neuron)
    del neuron, layer
    gc.collect()
    assert alive() is None
