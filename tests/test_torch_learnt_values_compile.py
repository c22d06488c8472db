"""Property: layers with parametrised values and learnt initial states compile and export without a break.

Witness: the layer, eager: the same bits, and the same gradients to rounding.
"""

import io

import pytest

from compare import assert_same_bits

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")

CURRENT = 0.3 + 0.8 * torch.randn(12, 2, 3, generator=torch.Generator().manual_seed(0))


def starting():
    layer = snn.CubaLIF(0.9, 0.8, learn={"state.potential": (3,), "state.current": (), "alpha": ()})
    layer.state_potential = [0.1, 0.2, 0.3]
    layer.state_current = 0.5
    return layer


LAYERS = {
    "initial states": starting,
    "sigmoid": lambda: snn.parametrize(snn.LIF(0.9, learn=("alpha",)), "alpha", "sigmoid"),
    "softplus": lambda: snn.parametrize(snn.IF(0.8, learn={"threshold": (3,)}), "threshold", "softplus"),
    "exp": lambda: snn.parametrize(snn.ExpLeak(tau=5.0, learn=("tau",)), "tau", "exp"),
}
EACH = pytest.mark.parametrize("name", LAYERS)


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()


@EACH
def test_compiled(name):
    layer = LAYERS[name]()
    expected = layer(CURRENT)
    (expected * CURRENT).sum().backward()
    grads = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    found = compiled(CURRENT)
    assert_same_bits(found.detach(), expected.detach())
    (found * CURRENT).sum().backward()
    for p, grad in zip(layer.parameters(), grads, strict=True):
        torch.testing.assert_close(p.grad, grad)
        assert grad.abs().sum() > 0


@EACH
def test_exported(name):
    layer, file = LAYERS[name](), io.BytesIO()
    torch.export.save(torch.export.export(layer, (CURRENT,)), file)
    file.seek(0)
    assert_same_bits(torch.export.load(file).module()(CURRENT).detach(), layer(CURRENT).detach())


def test_a_value_that_is_nan_raises_when_compiled():
    layer = snn.LIF(0.9, learn=("alpha",))
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    compiled(CURRENT)
    with torch.no_grad():
        layer.alpha.fill_(float("nan"))
    with pytest.raises(ValueError, match="alpha must be finite, got nan"):
        compiled(CURRENT)
