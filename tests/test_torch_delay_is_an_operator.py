"""Property: delays compile, export and transform without a break, with the same numbers.

Witness: the eager layer, torch's ``opcheck``, and loops over the batch.
"""

import numpy as np
import pytest
import torch
from torch import library
from torch.func import functional_call, grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx

import exodus_core.torch as snn
from exodus_core.torch import _delay_operators

SHAPE = (9, 3, 4)


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    torch.manual_seed(0)


def layers():
    yield snn.Delay(np.linspace(0.0, 3.0, 4), most=4)
    yield snn.Delay(2.5, most=4, learn=False, time_dim=0)


@pytest.mark.parametrize("time_dim", [0, 1, -1, None])
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("learn", [False, True])
def test_opcheck(learn, state, time_dim):
    x = torch.randn(SHAPE, dtype=torch.float64).permute(2, 0, 1).requires_grad_()
    neurons = x.shape if time_dim is None else torch.empty(x.shape, device="meta").select(time_dim, 0).shape
    delay = torch.tensor(1.5, dtype=torch.float64, requires_grad=learn)
    initial = torch.randn(5, *neurons, dtype=torch.float64, requires_grad=True) if state else None
    library.opcheck(_delay_operators.delay_operator, (x, delay, initial, 4, time_dim))


@pytest.mark.parametrize("learn", [False, True])
def test_opcheck_of_the_backward_operator(learn):
    x, grad = torch.randn(2, *SHAPE, dtype=torch.float64)
    state, grad_final = torch.randn(2, 5, *SHAPE[1:], dtype=torch.float64)
    saved = (x, torch.tensor(1.5, dtype=torch.float64), state) if learn else (None, torch.tensor(1.5), None)
    library.opcheck(_delay_operators.delay_backward, (grad, grad_final, *saved, 4, 0))


def passes(layer, forward, x):
    layer.zero_grad()
    given = x.clone().requires_grad_()
    forward(given).square().sum().backward()
    return [given.grad, *[p.grad for p in layer.parameters()]]


@pytest.mark.parametrize("layer", layers(), ids=["learnt", "fixed"])
def test_compiled_layers(layer):
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for length in (9, 13):
        x = torch.randn(length, *SHAPE[1:])
        assert torch.equal(compiled(x), layer(x))
        for a, b in zip(passes(layer, compiled, x), passes(layer, layer, x), strict=True):
            torch.testing.assert_close(a, b)
    first, state = compiled(x[:5], None)
    second, _ = compiled(x[5:], state)
    assert torch.equal(torch.cat([first, second]), layer(x))


def test_make_fx_records_a_delay():
    layer = snn.Delay(2.5, most=4)
    x, y = torch.randn(2, *SHAPE)
    assert torch.equal(make_fx(layer)(x)(y), layer(y))
    graph = make_fx(lambda x: snn.delay(x, 1.5, most=4).output)(x)
    assert torch.equal(graph(y), snn.delay(y, 1.5, most=4).output)


def test_a_number_is_not_compiled():
    def function(x):
        return snn.delay(x, 1.5, most=4).output

    x = torch.randn(SHAPE)
    assert torch.equal(torch.compile(function, backend="aot_eager")(x), function(x))
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"use exodus_core\.torch\.Delay"):
        torch.compile(function, backend="aot_eager", fullgraph=True)(x)


def test_grad_and_vmap():
    layer = snn.Delay(np.linspace(0.0, 3.0, 4), most=4)
    x = torch.randn(5, *SHAPE)
    values = {key: value.detach() for key, value in layer.named_parameters()}

    def loss(values, one):
        return functional_call(layer, values, (one,)).square().sum()

    assert torch.equal(vmap(layer)(x), torch.stack([layer(one) for one in x]))
    per_sample = vmap(grad(loss), in_dims=(None, 0))(values, x)["delay"]
    for k, one in enumerate(x):
        layer.zero_grad()
        layer(one).square().sum().backward()
        torch.testing.assert_close(per_sample[k], layer.delay.grad)
        torch.testing.assert_close(grad(loss)(values, one)["delay"], layer.delay.grad)


def test_second_derivatives_raise():
    layer = snn.Delay(1.5, most=4)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        grad(lambda x: grad(lambda y: layer(y).square().sum())(x).sum())(torch.randn(SHAPE))
