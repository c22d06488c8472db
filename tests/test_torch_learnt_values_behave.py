"""Learnt values behave as users of torch expect.

Property: a number can be assigned to a learnt value, which remains the parameter that an optimiser holds. A
value that is no number any more raises an error on the CPU. Weight decay spares the neurons if the optimiser
gets `parameter_groups`. Conversions to half precision do not round learnt values. Witnesses: a layer built
with the same values, and the steps of an optimiser computed by hand.
"""

import numpy as np
import pytest

import exodus_core as ec
from compare import assert_same_bits
from exodus_core import kernel
from neuron_examples import SCALARS

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")

from torch.nn.utils import prune  # noqa: E402

CURRENT = 0.3 + 0.8 * torch.randn(12, 2, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("value", [0.5, 1, np.float32(0.5), np.array(0.5), np.float64(0.25)], ids=repr)
def test_a_number_is_assigned_to_a_learnt_value(value):
    layer = snn.LIF(alpha=0.9, learn={"alpha": (3,)})
    parameter = layer.alpha
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer.alpha = value
    assert layer.alpha is parameter is optimizer.param_groups[0]["params"][0]
    assert_same_bits(layer.alpha.detach(), np.full(3, value, np.float32))
    assert_same_bits(layer(CURRENT).detach(), snn.LIF(alpha=np.full(3, value))(CURRENT))


def test_an_array_is_assigned_to_a_learnt_value():
    layer = snn.LIF(alpha=[0.9, 0.8, 0.7], learn=("alpha",)).double()
    layer.alpha = [0.1, 0.2, 0.3]
    assert_same_bits(layer.alpha.detach(), np.array([0.1, 0.2, 0.3]))
    taps = snn.SRM(kernel.FIR([0.5, 0.4]), kernel.Alpha(2.0), learn={"epsilon.taps": (2, 3)})
    taps.epsilon_taps = [1.0, 0.5]
    assert_same_bits(taps.epsilon_taps.detach(), np.float32([[1.0] * 3, [0.5] * 3]))


@pytest.mark.parametrize("learn", [True, False])
def test_numbers_are_assigned_to_delays(learn):
    layer = snn.Delay([1.0, 2.0, 3.0], most=4, learn=learn)
    own = layer.delay
    layer.delay = 1.5
    assert layer.delay is own
    assert_same_bits(layer(CURRENT).detach(), snn.delay(CURRENT, 1.5).output)
    layer.delay = [0.0, 0.5, 4.0]
    assert_same_bits(layer(CURRENT).detach(), snn.delay(CURRENT, [0.0, 0.5, 4.0]).output)
    for wrong, error, message in (
        (5.0, ValueError, "delay must be at most 4"),
        (-1.0, ValueError, "delay must be at least 0"),
        ("1", TypeError, "delay must be a number"),
        (None, TypeError, "delay must be a number"),
        ([1.0, 2.0], ValueError, r"delay must broadcast to shape \(3,\), got \(2,\)"),
    ):
        with pytest.raises(error, match=message):
            layer.delay = wrong
    assert layer.delay.tolist() == [0.0, 0.5, 4.0]


@pytest.mark.parametrize("name", SCALARS)
def test_every_parameter_can_be_set(name):
    neuron = SCALARS[name]
    layer = snn.from_neuron(neuron, learn=neuron._parameter_names())
    for key in neuron._parameter_names():
        value = 0.9 * np.asarray(neuron._value_of(key), np.float64)
        setattr(layer, key.replace(".", "_"), value)
        np.testing.assert_allclose(layer.neuron._value_of(key), value, rtol=1e-6)


def test_values_are_in_range_of_each_other():
    layer = snn.LIF(0.9, threshold=1.0, v_min=-1.0, learn=("threshold", "v_min"))
    layer.threshold = 0.5
    with pytest.raises(ValueError, match="v_min must be below the threshold"):
        layer.v_min = 0.75
    layer.v_min = 0.25
    with pytest.raises(ValueError, match="v_min must be below the threshold"):
        layer.threshold = 0.125
    assert (layer.neuron.threshold, layer.neuron.v_min) == (0.5, 0.25)


def test_a_number_repairs_a_value_that_is_nan():
    layer = snn.LIF(0.9, learn=("alpha", "threshold"))
    with torch.no_grad():
        layer.alpha.fill_(float("nan"))
    layer.alpha = 0.5
    assert_same_bits(layer(CURRENT).detach(), snn.LIF(0.5)(CURRENT))


def test_a_number_in_the_place_of_a_tensor_is_an_error():
    layer = snn.LIF(0.9, learn=("alpha",))
    prune.identity(layer, "alpha")  # The value is now computed from another parameter.
    with pytest.raises(TypeError, match=r"alpha was replaced.*must be set to a tensor, got 0\.5"):
        layer.alpha = 0.5


BAD = [float("nan"), float("inf"), -float("inf")]
SHAPES = [(), (3,)]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", SCALARS)
def test_a_learnt_value_that_is_not_finite_raises(name, shape, bad):
    neuron = SCALARS[name]
    for key in neuron._parameter_names():
        leading = np.shape(neuron._value_of(key))[: len(neuron._leading_lengths(key))]
        layer = snn.from_neuron(neuron, learn={key: (*leading, *shape)})
        with torch.no_grad():
            layer.get_parameter(key.replace(".", "_")).view(-1)[-1] = bad
        for run, arguments in ((layer, (CURRENT,)), (layer, (CURRENT, None)), (layer.step, CURRENT[:1])):
            with pytest.raises(ValueError, match=rf"{key} must be finite, got {bad}.*gradient"):
                run(*arguments)
        with pytest.raises(ValueError, match=f"{key} must be finite"):
            snn.spike(CURRENT, neuron, parameters={key: layer.get_parameter(key.replace(".", "_"))})


def test_training_stops_at_a_gradient_that_is_nan():
    layer = snn.LIF(0.9, threshold=0.5, learn=("threshold",))
    optimizer = torch.optim.Adam(layer.parameters())
    (layer(CURRENT).sum() * float("nan")).backward()
    optimizer.step()
    with pytest.raises(ValueError, match="threshold must be finite, got nan"):
        layer(CURRENT)
    assert "threshold=nan" in repr(layer)


@pytest.mark.parametrize("convert", ["half", "bfloat16"])
def test_conversions_do_not_round_learnt_values(convert):
    learn = ("alpha", "threshold", "state.potential")
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 3),
        snn.LIF(alpha=0.999, threshold=0.7001, learn=learn),
        snn.Delay(100.3, most=200),
    )
    before = net[1].neuron, net[2].delay.item()
    getattr(net, convert)()
    assert (net[1].neuron, net[2].delay.item()) == before
    assert net[0].weight.dtype == getattr(torch, {"half": "float16"}.get(convert, convert))
    assert {p.dtype for p in (*net[1].parameters(), net[2].delay)} == {torch.float32}
    net.double()
    assert {p.dtype for p in net.parameters()} == {torch.float64}
    net.float()
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert (net[1].neuron, net[2].delay.item()) == before


def test_conversions_move_to_a_device():
    layer = snn.LIF(0.9, learn=("alpha",)).to("meta", torch.bfloat16)
    assert layer.alpha.is_meta
    assert layer.alpha.dtype == torch.float32
    assert layer.to_empty(device="cpu").alpha.device.type == "cpu"


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(3, 4),
        torch.nn.BatchNorm1d(2),
        snn.Recurrent(snn.LIF(alpha=0.9, threshold=0.5, learn=("alpha", "threshold", "state.potential")), 4),
        snn.Delay([1.0] * 4, most=3),
        snn.parametrize(snn.ExpLeak(tau=5.0, learn=("tau",)), "tau", "exp"),
    )


def test_weight_decay_spares_the_neurons():
    # AdamW without gradients only decays.
    net = network()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = torch.optim.AdamW(snn.parameter_groups(net, weight_decay=0.1), lr=0.5)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    neurons = {"2.layer.alpha", "2.layer.threshold", "2.layer.state_potential", "3.delay"}
    neurons |= {"4.parametrizations.tau.original"}
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.detach(), before[name] * (1.0 if name in neurons else 0.95))
    plain = network()
    optimizer = torch.optim.AdamW(plain.parameters(), weight_decay=0.1, lr=0.5)
    for p in plain.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert plain[2].layer.alpha < 0.9  # what the groups are for


def test_every_parameter_is_in_one_group():
    net = network()
    net[2].layer.threshold = net[2].layer.alpha  # shared
    groups = snn.parameter_groups(net, weight_decay=0.1, neuron_lr=0.25)
    assert [group["name"] for group in groups] == ["weights", "neurons"]
    found = [p for group in groups for p in group["params"]]
    assert len({id(p) for p in found}) == len(found)
    assert {id(p) for p in found} == {id(p) for p in net.parameters()}
    optimizer = torch.optim.SGD(groups, lr=0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.25]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert "lr" not in snn.parameter_groups(net)[1]


def test_groups_that_are_empty_are_left_out():
    assert [g["name"] for g in snn.parameter_groups(torch.nn.Linear(2, 2))] == ["weights"]
    assert [g["name"] for g in snn.parameter_groups(snn.LIF(0.9, learn=("alpha",)))] == ["neurons"]
    assert snn.parameter_groups(snn.LIF(0.9)) == []


WRONG = [
    (lambda: snn.parameter_groups([torch.zeros(2)]), TypeError, "net must be a module, got list"),
    (
        lambda: snn.parameter_groups(network(), weight_decay=-0.1),
        ValueError,
        r"weight_decay.*negative, got -0\.1",
    ),
    (
        lambda: snn.parameter_groups(network(), weight_decay="0.1"),
        TypeError,
        "weight_decay must be a number, got '0.1'",
    ),
    (
        lambda: snn.parameter_groups(network(), neuron_lr=float("nan")),
        ValueError,
        "neuron_lr.*finite.*got nan",
    ),
    (
        lambda: snn.parameter_groups(network(), neuron_lr=True),
        TypeError,
        "neuron_lr must be a number, got True",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=[message for _, _, message in WRONG])
def test_wrong_arguments_of_parameter_groups(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_pinned_values_are_those_of_the_descriptor():
    layer = snn.LIF(alpha=0.9, max_spikes=None, learn=("alpha",))
    assert "max_spikes=None" in repr(layer)
    assert layer.neuron == ec.LIF(alpha=float(np.float32(0.9)), max_spikes=None)


@pytest.mark.parametrize("shape", [(), (3,)], ids=str)
@pytest.mark.parametrize("dt", [0.01, 1.0])
@pytest.mark.parametrize("start", [-1.0, 0.0, 1e-6])
def test_a_time_constant_that_an_optimiser_has_pushed_below_0_comes_back(shape, dt, start):
    # At tau = 0 the decay would be 0 and its gradient too, and the neuron would never learn again.
    layer = snn.ExpLeak(tau=dt, dt=dt, learn={"tau": shape})
    with torch.no_grad():
        layer.tau.fill_(start * dt)
    target = snn.ExpLeak(tau=2.0 * dt, dt=dt)(CURRENT)
    assert layer.neuron.decays["alpha"] == pytest.approx(np.full(shape, np.exp(-16.0)), rel=1e-4)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05 * dt)
    for _ in range(300):
        optimizer.zero_grad()
        (layer(CURRENT) - target).square().mean().backward()
        optimizer.step()
    np.testing.assert_allclose(layer.neuron.tau, 2.0 * dt, rtol=0.05)
