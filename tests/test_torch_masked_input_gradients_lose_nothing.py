"""Property: with `masked_input_grad` a product computes a part of its input's gradient, and no other changes.

The part is where the surrogate of the layer before is not 0. Witnesses: the same network without it; the
surrogate at the layer's potential.
"""

import copy

import pytest
import torch
from torch import nn

import exodus_core as ec
import exodus_core.torch as snn
from exodus_core import surrogate
from exodus_core._products import Sizes, estimate_of_input_gradient
from exodus_core.torch import _products
from neuron_examples import FIRING, SCALARS

STEPS, BATCH, HIDDEN = 40, 16, 128
BOXCAR, TRIANGLE = surrogate.Boxcar(0.3), surrogate.Triangle(0.2)
READS_HIDDEN_STATE = ("ALIF",)


@pytest.fixture
def input_gradients(monkeypatch):
    """The gradients of products' inputs, with the bits of the elements that were wanted."""
    found = []
    compute = _products._input_gradient

    def recorded(sizes, g, weight, wanted):
        grad = compute(sizes, g, weight, wanted)
        found.append((grad, g @ weight, wanted))
        return grad

    monkeypatch.setattr(_products, "_input_gradient", recorded)
    return found


def network(layer, *, masked=True, time_dim=0, engine="events", dtype=torch.float32):
    torch.manual_seed(0)
    product = snn.Linear(HIDDEN, 10, engine=engine, masked_input_grad=masked)
    return snn.Sequential(nn.Linear(20, HIDDEN), copy.deepcopy(layer), product, time_dim=time_dim).to(dtype)


def drive(time_dim=0, dtype=torch.float32):
    torch.manual_seed(1)
    return 3 * torch.rand((STEPS, BATCH, 20) if time_dim == 0 else (BATCH, STEPS, 20), dtype=dtype)


def gradients(net, x):
    net.zero_grad()
    x = x.clone().requires_grad_()
    net(x).square().sum().backward()
    return {"x": x.grad} | {name: p.grad.clone() for name, p in net.named_parameters()}


def check(layer, x, **keywords):
    """The gradients are those without `masked_input_grad`."""
    masked, full = (network(layer, masked=own, dtype=x.dtype, **keywords) for own in (True, False))
    found, expected = gradients(masked, x), gradients(full, x)
    assert masked[2].masks_input_grad and not full[2].masks_input_grad
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-4, atol=1e-5 * float(grad.abs().max()))
        assert grad.abs().sum() > 0
    return masked


@pytest.mark.parametrize("method", ["exodus", "slayer", "bptt"])
@pytest.mark.parametrize("name", [name for name in FIRING if name not in READS_HIDDEN_STATE])
def test_all_gradients_of_every_neuron_and_method(name, method):
    layer = snn.from_neuron(SCALARS[name], surrogate=BOXCAR, method=method, time_dim=0)
    check(layer, drive())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("time_dim", [0, 1])
@pytest.mark.parametrize("kind", [BOXCAR, TRIANGLE])
def test_learnt_values_layouts_and_ways_to_keep_the_potential(kind, time_dim, dtype):
    layer = snn.LIF(alpha=0.9, surrogate=kind)
    for keywords in ({}, {"learn": ("alpha", "threshold")}, {"inplace": True}, {"memory": "lean"}):
        snn.configure(layer, **{"learn": (), "inplace": False, "memory": "full"} | keywords)
        check(layer, drive(time_dim, dtype), time_dim=time_dim)


@pytest.mark.parametrize("kind", [BOXCAR, TRIANGLE])
def test_the_part_is_where_the_surrogate_is_not_zero(kind, input_gradients):
    layer = snn.LIF(alpha=0.9, threshold=[0.8, 1.2] * (HIDDEN // 2), surrogate=kind)
    net, x = network(layer), drive()
    gradients(net, x)
    [(grad, whole, wanted)] = input_gradients
    potential = ec.forward(layer.neuron, net[0](x).detach().numpy()).potential
    h = torch.from_numpy(kind(potential, layer.neuron.threshold)).view_as(grad)
    bits = wanted.view(-1, 1).bitwise_right_shift(torch.arange(64)).bitwise_and(1).view_as(grad)
    assert torch.equal(bits.bool(), h != 0)
    assert 0 < bits.sum() < bits.numel()
    assert not grad[h == 0].any()
    torch.testing.assert_close(grad[h != 0], whole[h != 0], rtol=1e-5, atol=1e-5)


def test_flattened_layers_hand_on_their_support():
    nets = []
    for masked in (True, False):
        torch.manual_seed(0)
        product = snn.Linear(256, 5, engine="events", masked_input_grad=masked)
        layers = nn.Conv2d(2, 4, 3, padding=1), snn.IF(surrogate=BOXCAR), nn.Flatten(), product
        nets.append(snn.Sequential(*layers, time_dim=0))
    x = 3 * torch.rand(STEPS, BATCH, 2, 8, 8)
    found, expected = (gradients(net, x) for net in nets)
    assert nets[0][3].masks_input_grad
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-4, atol=1e-5 * float(grad.abs().max()))


class Watched(snn.LIF):
    """A layer with a hook that does nothing."""

    def __init__(self, **keywords):
        super().__init__(**keywords)
        self.register_forward_hook(lambda module, given, result: None)


@pytest.mark.parametrize(
    "layer",
    [
        snn.LIF(alpha=0.9),  # the surrogate is nowhere 0
        snn.LIF(alpha=0.9, surrogate=lambda u, threshold: (abs(u - threshold) < 0.2).to(u.dtype)),
        snn.from_neuron(SCALARS["ALIF"], surrogate=BOXCAR, time_dim=0),
        snn.LIF(alpha=0.9, max_spikes=2, surrogate=BOXCAR),
        snn.Recurrent(snn.LIF(alpha=0.9, surrogate=BOXCAR), HIDDEN),
        Watched(alpha=0.9, surrogate=BOXCAR),
        nn.ReLU(),
    ],
)
def test_other_layers_get_the_whole_gradient(layer, input_gradients):
    net = network(layer)
    gradients(net, drive())
    [(grad, whole, wanted)] = input_gradients
    assert wanted is None and not net[2].masks_input_grad
    assert torch.equal(grad, whole)


def test_a_product_by_itself_has_the_whole_gradient(input_gradients):
    x = (torch.rand(600, HIDDEN) < 0.1).float().requires_grad_()
    snn.Linear(HIDDEN, 10, engine="events", masked_input_grad=True)(x).sum().backward()
    [(grad, whole, wanted)] = input_gradients
    assert wanted is None and torch.equal(grad, whole)


def test_auto_computes_everything_where_that_is_faster():
    sizes, wide = Sizes(32000, 128, 128), surrogate.Boxcar(1e6)
    estimate = estimate_of_input_gradient(sizes, "float32")
    assert estimate.prefers_events(0.05) and not estimate.prefers_events(0.6)
    torch.manual_seed(0)
    x = (torch.rand(250, 128, 20) < 0.1).float()
    used = []
    for kind, engine in ((surrogate.Boxcar(0.01), "auto"), (wide, "auto"), (wide, "events")):
        layer, product = snn.LIF(alpha=0.9, surrogate=kind), snn.Linear(128, 128, engine=engine)
        product.masked_input_grad = True
        net = snn.Sequential(nn.Linear(20, 128), layer, product)
        net(x).sum().backward()
        used.append((product.engine_used, product.masks_input_grad))
    assert used == [("events", True), ("events", False), ("events", True)]


def test_without_a_gradient_no_support_is_written():
    net, x = network(snn.LIF(alpha=0.9, surrogate=BOXCAR)), drive()
    with torch.no_grad():
        expected = net(x)
    assert not net[2].masks_input_grad
    assert torch.equal(net(x), expected)
    assert net[2].masks_input_grad


def test_saved_tensors_may_be_packed_and_unpacked():
    net, x = network(snn.LIF(alpha=0.9, surrogate=BOXCAR)), drive()
    expected = gradients(net, x)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        found = gradients(net, x)
    assert net[2].masks_input_grad
    assert all(torch.equal(found[name], grad) for name, grad in expected.items())
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: t.double(), lambda t: t),
        pytest.raises(RuntimeError, match="saved tensors must come back"),
    ):
        gradients(net, x)


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_the_keyword_is_checked(value):
    with pytest.raises(TypeError, match=f"masked_input_grad must be a bool, got {value!r}"):
        snn.Linear(3, 2, masked_input_grad=value)
    product = snn.Linear(3, 2)
    with pytest.raises(TypeError, match="masked_input_grad must be a bool"):
        product.masked_input_grad = value


def test_it_is_shown_and_copied():
    product = snn.Linear(3, 2, masked_input_grad=True)
    assert "masked_input_grad=True" in repr(product) and "masked" not in repr(snn.Linear(3, 2))
    assert copy.deepcopy(product).masked_input_grad
