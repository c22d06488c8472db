"""`init_` brings every spiking layer of a network to the target rate, and only scales weights.

Witness: rates counted from the outputs of the layers in a pass without `init_`; the variance of the potential
of neurons with random weights and random input.
"""

import copy
import math
import warnings

import numpy as np
import pytest

import exodus_core as ec

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")
from torch import nn  # noqa: E402


def spikes(*shape, rate=0.05, seed=0):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


def deep(container, **keywords):
    torch.manual_seed(1)
    return container(
        *(nn.Linear(40, 64), snn.LIF(alpha=0.9)),
        *(nn.Linear(64, 64), nn.Dropout(0.5), snn.CubaLIF(0.9, 0.8)),
        *(nn.Linear(64, 64), snn.Recurrent(snn.ALIF(0.9, 0.95, 0.1), 64)),
        *(nn.Linear(64, 10), snn.ExpLeak(0.95)),
        **keywords,
    )


def convolutional():
    torch.manual_seed(2)
    return snn.Sequential(
        *(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), snn.LIF(tau=[[[5.0]]] * 8), nn.AvgPool2d(2)),
        snn.Residual(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), snn.IF(output="trace")),
        *(nn.Flatten(), nn.Linear(8 * 36, 12), snn.AdLIF(0.9, 0.8, 0.1, 0.2)),
        time_dim=1,
    )


def rates(net, x):
    """Count the spikes of each layer's own output, without the observers that init_ uses."""
    found, hooks = {}, []

    def count(name):
        def hook(module, given, result):
            out = result[0] if isinstance(result, tuple) else result
            out = getattr(out, "spikes", out)
            found[name] = float((out != 0).double().mean())

        return hook

    for name, module in net.named_modules():
        if isinstance(module, (snn.Layer, snn.Recurrent)) and not isinstance(module, snn.ExpLeak):
            hooks.append(module.register_forward_hook(count(name)))
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("container", [nn.Sequential, snn.Sequential])
@pytest.mark.parametrize("target", [0.05, 0.2])
def test_every_layer_fires_at_the_target(container, target):
    net, x = deep(container), spikes(60, 4, 40)
    first = rates(net.eval(), x)
    assert min(first.values()) < 0.02  # it is silent without init_
    found = snn.init_(net, x, target_rate=target)
    counted = rates(net, x)
    assert len(counted) == 3
    for rate in (*counted.values(), *found.values()):
        assert rate == pytest.approx(target, rel=0.1)


def test_batch_normalisation_and_residuals_reach_the_target_in_training():
    net, x = convolutional(), spikes(3, 30, 2, 14, 14)
    buffers = {name: value.clone() for name, value in net.named_buffers()}
    snn.init_(net, x)
    assert all(torch.equal(value, buffers[name]) for name, value in net.named_buffers())
    assert all(rate == pytest.approx(0.1, rel=0.1) for rate in rates(net.train(), x).values())


def test_only_the_scale_of_weights_changes():
    net, x = deep(snn.Sequential), spikes(60, 4, 40)
    net.train()
    net[1].eval()
    before, random = copy.deepcopy(net), torch.random.get_rng_state()
    snn.init_(net, x)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert [m.training for m in net.modules()] == [m.training for m in before.modules()]
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    for k in (0, 2, 5):
        scale = net[k].weight[0, 0] / before[k].weight[0, 0]
        assert scale > 0
        torch.testing.assert_close(net[k].weight, before[k].weight * scale)
        torch.testing.assert_close(net[k].bias, before[k].bias * scale)
    assert torch.equal(net[7].weight, before[7].weight)  # before a readout
    assert torch.equal(net[6].weight, before[6].weight)  # recurrent weights


def test_result_depends_on_weights_and_input_only():
    first, second, x = deep(snn.Sequential), deep(snn.Sequential), spikes(60, 4, 40)
    snn.init_(first, x)
    torch.rand(5)
    loader = torch.utils.data.DataLoader([(x[:, k], k) for k in range(4)], batch_size=4)
    batch_first = [[b.movedim(0, 1), labels] for b, labels in loader]
    snn.init_(second, batch_first)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_kept_states_stay_and_do_not_enter_the_passes():
    x = spikes(40, 4, 40)
    plain, stateful = deep(snn.Sequential), deep(snn.Sequential, stateful=True)
    stateful.eval()(spikes(40, 4, 40, seed=3))
    kept = stateful._kept.state[1].potential
    assert snn.init_(stateful, x) == snn.init_(plain, x)
    assert stateful._kept.state[1].potential is kept


def test_parametrised_weights_are_scaled():
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(40, 32)), snn.LIF(0.9))
    snn.init_(net, spikes(60, 4, 40))
    assert rates(net, spikes(60, 4, 40))["1"] == pytest.approx(0.1, rel=0.1)


def test_layer_without_weights_before_it_is_a_warning():
    net = nn.Sequential(snn.LIF(0.9), nn.Linear(40, 32), snn.LIF(0.9))
    with pytest.warns(UserWarning, match=r"layer '0' \(LIF, time_dim=0\) has no weights before it") as caught:
        found = snn.init_(net, spikes(60, 4, 40))
    assert len(caught) == 1
    assert found["2"] == pytest.approx(0.1, rel=0.1)


def test_modules_that_are_called_with_keywords_are_scaled():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.layer = nn.Linear(40, 32), snn.LIF(0.9)

        def forward(self, x):
            return self.layer(self.linear(input=x))

    found = snn.init_(net := Net(), spikes(60, 4, 40))
    assert found["layer"] == rates(net, spikes(60, 4, 40))["layer"] == pytest.approx(0.1, rel=0.1)


def test_rate_that_the_input_is_too_small_for_is_an_error_that_says_so():
    net = nn.Sequential(nn.Linear(40, 4), snn.LIF(0.9))
    with pytest.raises(RuntimeError, match=r"layer '1' .*its 240 neurons and steps with x are too few"):
        snn.init_(net, spikes(30, 2, 40), target_rate=0.001)


def test_layers_with_shared_weights_that_miss_the_target_are_a_warning():
    shared = nn.Linear(40, 40)
    net = nn.Sequential(shared, snn.LIF(0.9), shared, snn.LIF(0.9, threshold=4.0))
    with pytest.warns(UserWarning, match=r"do not fire at target_rate=0.1 within 10%: '1': .*share"):
        snn.init_(net, spikes(60, 4, 40))


def test_failure_names_both_modules_and_leaves_the_weights():
    net = nn.Sequential(nn.Linear(40, 32), snn.LIF(0.9), nn.Linear(32, 8), snn.LIF(0.9))
    with torch.no_grad():
        net[2].weight.zero_()
        net[2].bias.zero_()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(RuntimeError, match=r"'2' \(Linear\) brings layer '3' \(LIF, time_dim=0\)"):
        snn.init_(net, spikes(60, 4, 40))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(layer._observers for layer in (net[1], net[3]))
    assert not any(module._forward_hooks for module in net)
    normalised = nn.Sequential(nn.Linear(40, 32), nn.LayerNorm(32, elementwise_affine=False), snn.LIF(0.9))
    with pytest.raises(RuntimeError, match=r"follows '1' .*affine=True"):
        snn.init_(normalised, spikes(60, 4, 40))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"net": "net"}, "net must be a torch module, got str"),
        ({"net": nn.Linear(3, 3)}, "net must contain a spiking layer"),
        ({"net": nn.Sequential(nn.LazyLinear(3), snn.LIF(0.9))}, "got 0.weight without a shape"),
        ({"x": 3}, "x must be a batch of inputs"),
        ({"x": []}, "x must be a batch of inputs"),
        ({"x": "a path"}, "x must be a batch of inputs.* got str"),
        ({"x": [{"inputs": torch.rand(5, 2, 3)}]}, "x must be a batch of inputs.* got list with dict"),
        ({"x": torch.rand(5, 0, 3)}, r"x must have sequences and steps, got shape \(5, 0, 3\)"),
        ({"x": torch.full((5, 2, 3), math.nan)}, "x must not contain NaN, got 30 of 30 values"),
        ({"target_rate": 0.0}, "target_rate must be between 0 and 1.* got 0.0"),
        ({"target_rate": math.nan}, "target_rate must be between 0 and 1"),
        ({"tolerance": 1}, "tolerance must be between 0 and 1, got 1"),
    ],
)
def test_wrong_arguments_are_named(keywords, message):
    arguments = {"net": nn.Sequential(nn.Linear(3, 3), snn.LIF(0.9)), "x": torch.rand(5, 2, 3)} | keywords
    with pytest.raises((TypeError, ValueError), match=message):
        snn.init_(arguments.pop("net"), arguments.pop("x"), **arguments)


def test_gain_of_a_leaky_layer_is_the_equation():
    alpha, gain, p, steps = 0.9, 0.7, 0.05, 4000
    found = snn.calculate_gain(
        ec.LIF(alpha, threshold=1.5, gain=gain), steps, target_rate=0.1, mean=p, variance=p * (1 - p)
    )
    power = gain**2 * (p * (1 - p) / (1 - alpha**2) + p**2 / (1 - alpha) ** 2)
    assert found == pytest.approx(1.5 / 1.2815515655446004 / math.sqrt(power), rel=0.01)


@pytest.mark.parametrize("neuron", [ec.LIF(0.9), ec.IF(), ec.CubaLIF(0.9, 0.7, 0.8), ec.LIF([0.5, 0.9])])
def test_gain_gives_the_potential_its_variance(neuron):
    p, fan_in, steps = 0.1, 300, 50
    shape = (2,) if np.ndim(getattr(neuron, "alpha", 0.0)) else ()
    gain = snn.calculate_gain(neuron, steps, target_rate=0.2, mean=p, variance=p * (1 - p), shape=shape)
    random = np.random.default_rng(0)
    weights = random.normal(0, gain / math.sqrt(fan_in), (fan_in, 2000))
    current = (random.random((steps, fan_in)) < p) @ weights
    silent = neuron._with({"threshold": 1e30})
    potential = ec.forward(silent, current.reshape(steps, -1, 2)).potential
    assert np.sqrt(np.mean(potential**2)) == pytest.approx(neuron.threshold / 0.8416212, rel=0.1)


def test_gain_rejects_what_makes_no_potential():
    with pytest.raises(TypeError, match="neuron must be a descriptor of a neuron that fires"):
        snn.calculate_gain(ec.ExpLeak(0.9), 10)
    with pytest.raises(ValueError, match="steps must be a positive integer, got 0"):
        snn.calculate_gain(ec.LIF(0.9), 0)
    with pytest.raises(ValueError, match="mean and variance must make a potential"):
        snn.calculate_gain(ec.LIF(0.9), 10, mean=0.0, variance=0.0)


def test_initialised_network_warns_of_nothing():
    net, x = deep(snn.Sequential), spikes(60, 4, 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        snn.init_(net, x)
        with snn.Monitor(net):
            net.eval()(x)
