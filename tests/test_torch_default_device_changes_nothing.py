"""Tensors on the CPU are computed there, whatever torch's default device is.

Property: with another default device, layers, products, pooling, delays, containers and readouts give the
same results and gradients for tensors on the CPU, small and large. Witness: the same call without it. The
device is "meta", whose tensors have no memory: one that reached the kernels would be an error.
"""

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")
from torch import nn  # noqa: E402 (after the check)

from neuron_examples import SCALARS  # noqa: E402

STEPS, BATCH = 12, 4


def features(size):
    return (torch.rand(STEPS, BATCH, size) < 0.3).float() * 1.5


def frames(size):
    return (torch.rand(STEPS, BATCH, 2, size, size) < 0.3).float()


MODULES = {
    **{name: (lambda neuron=neuron: snn.from_neuron(neuron), features) for name, neuron in SCALARS.items()},
    "learnt": (lambda: snn.LIF(tau=5.0, learn=("tau", "threshold")), features),
    "learnt array": (lambda: snn.ALIF(0.9, 0.8, 0.1, learn={"alpha": (1,)}), features),
    "learnt state": (lambda: snn.LIF(0.9, learn=("state.potential",)), features),
    "recurrent": (lambda: snn.Recurrent(snn.LIF(0.9), 6), features),
    "delay": (lambda: snn.Delay([0.5] * 6, most=3), features),
    "Linear": (lambda: snn.Linear(6, 5, engine="events"), features),
    "Conv2d": (lambda: snn.Sequential(snn.Conv2d(2, 3, 3, engine="events"), snn.IF()), frames),
    "AvgPool2d": (lambda: snn.Sequential(snn.AvgPool2d(2), snn.IF()), frames),
    "network": (lambda: snn.Sequential(snn.Linear(6, 5), snn.LIF(0.9), nn.Dropout(0.0)), features),
}


def run(module, x):
    module.zero_grad()
    leaf = x.clone().requires_grad_()
    result = module(leaf)
    (result[0] if isinstance(result, tuple) else result).square().sum().backward()
    return [leaf.grad, *(p.grad for p in module.parameters())], result


@pytest.mark.parametrize("name", MODULES)
def test_modules(name):
    torch.manual_seed(0)
    build, inputs = MODULES[name]
    module, x = build(), inputs(6)
    grads, result = run(module, x)
    with torch.device("meta"):
        found, other = run(module, x)
    torch.testing.assert_close(other, result, rtol=0, atol=0)
    for a, b in zip(found, grads, strict=True):
        assert a.device.type == "cpu"
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_large_results():
    current = torch.rand(100, 50, 60)
    layer, linear = snn.LIF(0.9), snn.Linear(60, 60, engine="events")
    expected = layer(linear(current))
    with torch.device("meta"):
        assert torch.equal(layer(linear(current)), expected)


def test_lengths_and_readouts():
    net, x = snn.Sequential(snn.Linear(6, 5), snn.LIF(0.9)), features(6)
    lengths = [3, 12, 7, 1]

    def all_of_it():
        y = net(x, lengths=lengths)
        return y, snn.last_step(y, lengths), snn.spike_count(y, lengths), snn.max_over_time(y, lengths)

    expected = all_of_it()
    with torch.device("meta"):
        found = all_of_it()
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


def test_second_derivatives_still_raise():
    x = features(6).requires_grad_()
    with torch.device("meta"):
        (grad,) = torch.autograd.grad(snn.LIF(0.9)(x).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="twice"):
            grad.sum().backward()
