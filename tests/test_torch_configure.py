"""`configure` sets a keyword of all layers of a network at once, or changes nothing.

Property: surrogates, methods and time dimensions hold for all layers, however deep; learnt values are those
that are named, with the values that they had. A wrong argument leaves the network as it was. Witness: a
network that was built with these keywords.
"""

import re

import pytest

from exodus_core import surrogate

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")
from torch import nn  # noqa: E402

X = torch.randn(10, 3, 4, generator=torch.Generator().manual_seed(0))


def raises(error, *words):
    """`pytest.raises` for a message that contains all the words, in any order."""
    return pytest.raises(error, match="(?s)" + "".join(f"(?=.*{re.escape(w)})" for w in words))


def network(learn=(), **keywords):
    torch.manual_seed(0)
    given = {"learn": learn, **keywords}
    return nn.Sequential(
        nn.Linear(4, 8),
        snn.LIF(tau=5.0, threshold=0.5, **given),
        snn.Residual(nn.Linear(8, 8), snn.LIF(tau=[3.0] * 8, threshold=0.3, **given)),
        nn.ModuleList([snn.Recurrent(snn.LIF(tau=4.0, threshold=0.2, **given), 8)])[0],
        snn.ExpLeak(tau=6.0, learn=[name for name in learn if name == "tau"]),
    )


def layers(net):
    return [module for module in net.modules() if isinstance(module, snn.Layer)]


def gradients(net):
    y = net(X)
    y.sum().backward()
    return [y.detach(), *[p.grad for p in net.parameters()]]


def assert_same(net, other):
    assert list(net.state_dict()) == list(other.state_dict())
    for one, two in zip(gradients(net), gradients(other), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    "keywords",
    [
        {"method": "slayer"},
        {"surrogate": surrogate.ATan()},
        {"method": "bptt", "surrogate": surrogate.Boxcar()},
    ],
    ids=str,
)
def test_surrogate_and_method_hold_for_all_layers(keywords):
    net = network()
    assert snn.configure(net, **keywords) is net
    assert not torch.equal(gradients(net)[1], gradients(network())[1])
    net.zero_grad()
    assert_same(net, network(**keywords))


@pytest.mark.parametrize(
    "learn", [("tau",), ("threshold", "tau"), {"tau", "threshold"}], ids=["one", "two", "a set"]
)
def test_learnt_values_are_those_of_a_network_built_so(learn):
    assert_same(snn.configure(network(), learn=learn), network(learn=learn))


def test_initial_states_are_learnt_and_frozen():
    layer = snn.CubaLIF(0.9, 0.8)
    snn.configure(layer, learn={"state.current": (4,), "alpha": ()})
    assert layer._learn_states == ("state.current",)
    own = layer.state_current
    layer.state_current = 0.5
    expected = layer(X).detach()
    snn.configure(layer, learn=("alpha",))
    assert not own.requires_grad and layer.alpha.requires_grad
    torch.testing.assert_close(layer(X).detach(), expected, rtol=0, atol=0)
    snn.configure(layer, learn={"state.current": (4,), "state.potential": ()})
    assert layer.state_current is own and own.requires_grad
    assert [name for name, _ in layer.named_parameters()] == ["state_potential", "state_current"]
    with raises(ValueError, "learn", "state.potential", "got 'state.spikes'"):
        snn.configure(layer, learn=("state.spikes",))


def test_shapes_of_learnt_values():
    net = snn.configure(snn.Sequential(nn.Linear(4, 8), snn.LIF(0.9), snn.LIF(0.8)), learn={"alpha": (8,)})
    assert [layer.alpha.shape for layer in layers(net)] == [(8,), (8,)]
    torch.testing.assert_close(net[2].alpha.detach(), torch.full((8,), 0.8))


def test_values_that_are_not_named_keep_their_present_value():
    net = network(learn=("tau", "threshold"))
    with torch.no_grad():
        for layer in layers(net):
            layer.tau.mul_(1.5)
    expected = net(X)
    kept = [layer.threshold for layer in layers(net)[:3]]
    snn.configure(net, learn=("threshold",))
    assert [layer._learn_names for layer in layers(net)] == [("threshold",)] * 3 + [()]
    assert all(layer.threshold is parameter for layer, parameter in zip(layers(net)[:3], kept, strict=True))
    assert torch.equal(net(X), expected) and layers(net)[0].tau == 7.5
    snn.configure(net, learn=())
    assert all(not list(layer.parameters()) for layer in layers(net)) and torch.equal(net(X), expected)


def test_a_parametrised_value_stays_if_it_is_named():
    layer = snn.LIF(alpha=0.9, learn=("alpha",))
    torch.nn.utils.parametrize.register_parametrization(layer, "alpha", nn.Sigmoid())
    snn.configure(layer, learn=("alpha", "threshold"))
    assert torch.nn.utils.parametrize.is_parametrized(layer, "alpha")
    assert layer._learn_names == ("alpha", "threshold") and layer(X).shape == X.shape
    with raises(ValueError, "learn", "alpha", "LIF", "parametrised"):
        snn.configure(layer, learn=())


def test_time_dim_of_layers_delays_and_containers():
    net = nn.Sequential(
        snn.Sequential(nn.Linear(4, 4), snn.IF()), snn.Delay(1.0, most=2), snn.IF(), nn.Linear(4, 2)
    )
    expected = net(X)
    snn.configure(net, time_dim=1)
    assert {m.time_dim for m in net.modules() if hasattr(m, "time_dim")} == {1}
    torch.testing.assert_close(net(X.transpose(0, 1)).transpose(0, 1), expected)


WRONG = [
    ({"method": "adjoint"}, ValueError, ("method", "'exodus', 'slayer', 'bptt'", "'adjoint'")),
    ({"surrogate": "atan"}, TypeError, ("surrogate", "atan")),
    ({"time_dim": 1.0}, TypeError, ("time_dim", "integer", "1.0")),
    ({"learn": "tau"}, TypeError, ("learn", "collection", "'tau'")),
    ({"learn": 3}, TypeError, ("learn", "collection", "3")),
    ({"learn": ("alpha",)}, ValueError, ("learn", "'tau'", "got 'alpha'")),
    ({"learn": {"tau": (3,)}}, ValueError, ("learn['tau']", "(8,)", "(3,)")),
]


@pytest.mark.parametrize(("keywords", "error", "words"), WRONG, ids=lambda value: str(value)[:30])
def test_a_wrong_argument_changes_nothing(keywords, error, words):
    net = network()
    before = repr(net)
    valid = {"method": "slayer", "surrogate": surrogate.ATan(), "time_dim": 1, "learn": ("threshold",)}
    with raises(error, *words):
        snn.configure(net, **{**valid, **keywords})
    assert repr(net) == before


def test_something_that_is_no_network():
    with raises(TypeError, "net", "torch module", "LIFState"):
        snn.configure(snn.LIF(0.9).initial_state((3,)), method="bptt")
