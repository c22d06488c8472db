"""Property: in a container, a lean layer after a product by events keeps no array of its own for backward.

The product's spikes are kept as bits, from which the layer's current is computed again.
Witnesses: hooks on saved tensors count the bytes; the gradients have the bits of those with memory="full".
"""

import copy

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

import exodus_core.torch as snn
from exodus_core.torch import _handing

STEPS, BATCH = 40, 16


def linear(*sizes, **keywords):
    return snn.Linear(*sizes, engine="events", **keywords)


def conv(*sizes, **keywords):
    return snn.Conv2d(*sizes, 3, padding=1, engine="events", **keywords)


def spikes(*shape, dtype=torch.float32):
    torch.manual_seed(0)
    return (torch.rand(shape) < 0.2).to(dtype)


def with_memory(net, memory):
    return snn.configure(copy.deepcopy(net), memory=memory)


def run(net, x):
    """Return the result, its gradients, and the bytes that are kept for backward beside the parameters."""
    x, kept = x.clone().requires_grad_(), {}
    own = {p.data_ptr() for p in net.parameters()}

    def keep(tensor):
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        y = net(x)
    y.square().sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in net.parameters())], sum(kept.values())


def check(net, x):
    """Lean gradients are those of the full memory. Return the bytes that both keep."""
    (expected, full), (found, lean) = (run(with_memory(net, memory), x) for memory in ("full", "lean"))
    assert expected[0].abs().sum() > 0
    assert all(map(torch.equal, found, expected))
    assert _handing._hands.offer is None
    return full, lean


@pytest.mark.parametrize("time_dim", [0, 1])
@pytest.mark.parametrize("learn", [(), ("alpha", "threshold"), ("alpha", "gain")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_layers(time_dim, learn, dtype):
    net = snn.Sequential(
        linear(128, 128),
        snn.LIF(alpha=0.9, learn=learn),
        linear(128, 192, bias=False),
        snn.IF(),
        time_dim=time_dim,
    ).to(dtype)
    with torch.no_grad():
        net[2].weight.mul_(3)
    x = spikes(*((STEPS, BATCH) if time_dim == 0 else (BATCH, STEPS)), 128, dtype=dtype)
    full, lean = check(net, x)
    elements = STEPS * BATCH
    assert full >= elements * (128 + 192) * x.itemsize
    assert lean < elements * 64


@pytest.mark.parametrize("time_dim", [0, 1])
def test_convolutions(time_dim):
    net = snn.Sequential(
        conv(2, 4), snn.IF(), conv(4, 8, bias=False), snn.CubaLIF(0.8, 0.9), time_dim=time_dim
    )
    with torch.no_grad():
        net[2].weight.mul_(3)
    full, lean = check(net, spikes(*((STEPS, BATCH) if time_dim == 0 else (BATCH, STEPS)), 2, 16, 16))
    assert lean < full / 20


def test_convolutions_of_one_axis():
    net = snn.Sequential(snn.Conv1d(4, 8, 3, padding=1, engine="events"), snn.IF(threshold=0.3))
    full, lean = check(net, spikes(STEPS, BATCH, 4, 64))
    assert lean < full / 8


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_states(dtype):
    net = snn.Sequential(linear(128, 128), snn.LIF(alpha=0.9), stateful=True).to(dtype)
    full, lean = check(net, spikes(STEPS, BATCH, 128, dtype=dtype))
    assert lean < full / 2


def test_a_layer_after_anything_else_keeps_its_current():
    class Doubled(nn.Module):
        def forward(self, x):
            return x.mul_(2)

    x = spikes(STEPS, BATCH, 128)
    array = STEPS * BATCH * 128 * 4
    hooked = snn.Sequential(linear(128, 128), snn.IF())
    hooked[0].register_forward_hook(lambda module, given, result: result.mul_(2))
    changed = snn.Sequential(linear(128, 128), Doubled(), snn.IF())
    dense = snn.Sequential(snn.Linear(128, 128, engine="dense"), snn.IF())
    for net in (hooked, changed, dense):
        _, lean = check(net, x)
        assert lean >= array


def test_weights_that_change_before_backward_are_refused():
    net = with_memory(snn.Sequential(linear(128, 128), snn.IF()), "lean")
    for parameter in net.parameters():
        y = net(spikes(STEPS, BATCH, 128))
        with torch.no_grad():
            parameter.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def test_hooks_may_move_what_is_kept():
    net, x = with_memory(snn.Sequential(linear(128, 128), snn.IF()), "lean"), spikes(STEPS, BATCH, 128)
    expected, _ = run(net, x)
    net.zero_grad()
    with torch.autograd.graph.save_on_cpu(pin_memory=False):
        y = net(x)
    y.square().sum().backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(net.parameters(), expected[2:], strict=True))


def test_backward_twice():
    net, x = with_memory(snn.Sequential(linear(128, 128), snn.IF()), "lean"), spikes(STEPS, BATCH, 128)
    y = net(x).square().sum()
    weight = net[0].weight
    first, second = (torch.autograd.grad(y, weight, retain_graph=True)[0] for _ in range(2))
    assert first.abs().sum() > 0
    assert torch.equal(first, second)
