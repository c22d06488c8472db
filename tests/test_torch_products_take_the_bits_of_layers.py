"""Property: in a container, a product has the bits of its layer's spikes, and the results are those without.

Witness: the same network with hooks that do nothing, where the product packs the spikes itself.
"""

import copy

import pytest
import torch
from torch import nn

import exodus_core.torch as snn
from exodus_core.torch import _handing, _products

STEPS, BATCH = 40, 16


@pytest.fixture
def packs(monkeypatch):
    """The number of matrices that products pack themselves."""
    found = []
    pack = _products.Packing.pack

    def counted(self, matrix, *arguments):
        found.append(matrix)
        return pack(self, matrix, *arguments)

    monkeypatch.setattr(_products.Packing, "pack", counted)
    return found


def results(net, x):
    net, x = copy.deepcopy(net), x.clone().requires_grad_()
    y = net(x)
    y.square().sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in net.parameters())]


def watched(net):
    """The network with hooks, so that nothing is handed on."""
    net = copy.deepcopy(net)
    for module in net.modules():
        module.register_forward_hook(lambda module, given, result: None)
    return net


def check(net, x, packs, own):
    """The results are the same, and the products pack `own` of their inputs themselves."""
    expected = results(watched(net), x)
    without = len(packs)
    packs.clear()
    found = results(net, x)
    assert len(packs) == own < without
    assert expected[0].abs().sum() > 0
    assert all(map(torch.equal, found, expected))
    assert _handing._hands.offer is None and _handing._hands.asked is None
    packs.clear()


def linear(*sizes, **keywords):
    return snn.Linear(*sizes, engine="events", **keywords)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("time_dim", [0, 1])
def test_linear_layers(time_dim, dtype, packs):
    torch.manual_seed(0)
    net = snn.Sequential(
        linear(20, 128), snn.LIF(alpha=0.9), linear(128, 192), snn.IF(), linear(192, 5), time_dim=time_dim
    ).to(dtype)
    x = torch.rand((STEPS, BATCH, 20) if time_dim == 0 else (BATCH, STEPS, 20), dtype=dtype)
    lean = {"inplace": False, "memory": "lean"}
    for keywords in ({}, {"learn": ("alpha", "threshold")}, {"inplace": True}, lean):
        snn.configure(net[1], **keywords)
        check(net, 3 * x, packs, own=1)


@pytest.mark.parametrize("time_dim", [0, 1])
def test_convolutions_and_flattened_layers(time_dim, packs):
    torch.manual_seed(0)
    conv = [snn.Conv2d(a, b, 3, padding=1, engine="events") for a, b in ((2, 4), (4, 3))]
    net = snn.Sequential(
        conv[0], snn.IF(), conv[1], snn.LIF(alpha=0.8), nn.Flatten(), linear(192, 5), time_dim=time_dim
    )
    x = 3 * torch.rand((STEPS, BATCH, 2, 8, 8) if time_dim == 0 else (BATCH, STEPS, 2, 8, 8))
    check(net, x, packs, own=1)


def counts(net, x, packs):
    packs.clear()
    net(x)
    return len(packs)


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (snn.IF(), 96),  # the rows are not whole words
        (snn.LIF(alpha=0.9, max_spikes=2), 128),  # not binary
        (snn.Recurrent(snn.IF(), 128), 128),
        (snn.LIF(alpha=0.9, output="trace"), 128),
    ],
)
def test_products_pack_what_layers_do_not(layer, size, packs):
    torch.manual_seed(0)
    net = snn.Sequential(nn.Linear(20, size), copy.deepcopy(layer), linear(size, 5))
    x = 3 * torch.rand(STEPS, BATCH * 2, 20)
    assert counts(net, x, packs) == 1


class InPlace(nn.Module):
    """A module that changes its input in place."""

    def forward(self, x):
        return x.mul_(0)


def test_what_could_change_the_spikes_keeps_products_reading(packs):
    torch.manual_seed(0)
    parts = [nn.Linear(20, 128), snn.IF(), linear(128, 5)]
    x = 3 * torch.rand(STEPS, BATCH, 20)
    with torch.no_grad():
        plain = snn.Sequential(*copy.deepcopy(parts))
        assert counts(plain, x, packs) == 0
        between = snn.Sequential(*copy.deepcopy(parts[:2]), InPlace(), parts[2])
        assert counts(between, x, packs) == 1
        assert torch.equal(between(x), parts[2].bias.expand(STEPS, BATCH, 5))
        for register in ("register_forward_hook", "register_forward_pre_hook"):
            hooked = snn.Sequential(*copy.deepcopy(parts))
            module = hooked[1] if register == "register_forward_hook" else hooked[2]
            getattr(module, register)(lambda module, given, *result: None)
            assert counts(hooked, x, packs) == 1
    with torch.inference_mode():  # whose tensors have no version
        assert counts(plain, x, packs) == 1
    small = snn.Sequential(*copy.deepcopy(parts))
    assert counts(small, x[:2], packs) == 1


def test_bits_are_taken_for_the_memory_that_was_written_only():
    spikes = (torch.rand(64, 64) < 0.1).float()
    handed = _handing.Handed(_products.Packed(3, None, None, None), None)
    _handing.give(spikes, handed)
    assert _handing.take_handed(spikes.view(32, 128), 128) is handed
    assert _handing.take_handed(spikes, 64) is None  # once
    for other, inputs in (
        (spikes.clone(), 64),
        (spikes[:32], 64),
        (spikes.view(torch.int32), 64),
        (spikes, 32),
    ):
        _handing.give(spikes, handed)
        assert _handing.take_handed(other, inputs) is None
    _handing.give(spikes, handed)
    assert _handing.take_recipe(spikes) is None  # of another kind
    _handing.give(spikes, handed)
    spikes[0, 0] = 1 - spikes[0, 0]
    assert _handing.take_handed(spikes, 64) is None


def test_dense_inputs_take_the_dense_product(packs):
    torch.manual_seed(0)
    net = snn.Sequential(nn.Linear(20, 128), snn.IF(threshold=0.01), snn.Linear(128, 128))
    with torch.no_grad():
        net[0].weight.fill_(1.0)
    x = torch.rand(400, BATCH, 20)
    assert net[2].engine == "auto"
    assert counts(net, x, packs) == 0
    assert net[2].engine_used == "dense"
    assert torch.equal(net(x), nn.functional.linear(net[:2](x), net[2].weight, net[2].bias))


def test_an_error_leaves_nothing_behind():
    class Fails(snn.Linear):
        def forward(self, x):
            raise RuntimeError("no product today")

    net = snn.Sequential(nn.Linear(20, 128), snn.IF(), Fails(128, 5))
    with pytest.raises(RuntimeError, match="no product today"):
        net(torch.rand(STEPS, BATCH, 20))
    assert _handing._hands.offer is None and _handing._hands.asked is None
