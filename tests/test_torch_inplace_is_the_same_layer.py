"""Property: a layer with inplace=True has the results of one without, in the memory of its current.

Witness: the same layer with inplace=False, bit for bit.
"""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import exodus_core.torch as snn
from neuron_examples import FIRING, SCALARS

SHAPE = (40, 3, 37)


def learnable(neuron):
    """The parameters whose gradients do not read the current."""
    return [name for name in neuron._parameter_names() if not neuron._reads_current([name])]


def results(net, x, inplace, weights):
    """Output and all gradients of a network, and the current of its layer after the call."""
    net = copy.deepcopy(net)
    snn.configure(net, inplace=inplace)
    x = x.clone().requires_grad_()
    current = x * 1.5  # not a leaf
    output = net(current)
    spikes, potential = (output.spikes, output.potential) if isinstance(output, snn.Trace) else (output, None)
    loss = ((potential if spikes is None else spikes) * weights).sum()
    if spikes is not None and potential is not None:
        loss = loss + potential.square().sum()
    loss.backward()
    gradients = {name: p.grad for name, p in net.named_parameters()}
    found = {"spikes": spikes, "potential": potential, "x": x.grad, **gradients}
    return {k: None if v is None else v.detach().clone() for k, v in found.items()}, current, potential


def check(net, seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    x, weights = torch.rand(SHAPE, dtype=dtype), torch.randn(SHAPE, dtype=dtype)
    found, current, potential = results(net, x, True, weights)
    expected, _, apart = results(net, x, False, weights)
    for name, tensor in found.items():
        assert (tensor is None) == (expected[name] is None)
        assert tensor is None or torch.equal(tensor, expected[name]), name
    if potential is not None:
        assert potential.data_ptr() == current.data_ptr()
        assert torch.equal(current, apart)


@pytest.mark.parametrize("output", ["potential", "trace", "spikes"])
@pytest.mark.parametrize("method", ["exodus", "slayer", "bptt"])
@pytest.mark.parametrize("name", SCALARS)
def test_every_neuron(name, method, output):
    neuron = SCALARS[name]
    if output == "spikes" and not neuron._fires:
        pytest.skip("it does not fire")
    for dtype in (torch.float32, torch.float64):
        for time_dim in (0, 1, 2):
            kinds = {"method": method, "time_dim": time_dim, "output": output}
            check(snn.from_neuron(neuron, **kinds), dtype=dtype)
            check(snn.from_neuron(neuron, learn=learnable(neuron), **kinds), dtype=dtype)


@pytest.mark.parametrize("name", FIRING)
def test_recurrent_weights(name):
    torch.manual_seed(0)
    check(snn.Recurrent(snn.from_neuron(SCALARS[name], output="trace"), 37))


def conv_net(time_dim):
    return snn.Sequential(
        nn.Conv2d(2, 3, 3),
        snn.LIF(alpha=0.9),
        snn.Conv2d(3, 4, 3),
        snn.LIF(alpha=0.8),
        nn.Flatten(),
        snn.Linear(16, 5),
        snn.ExpLeak(alpha=0.9),
        time_dim=time_dim,
    )


@pytest.mark.parametrize("lengths", [None, [5, 2, 4, 0]], ids=["all", "lengths"])
@pytest.mark.parametrize("time_dim", [0, 1])
def test_a_network_in_a_container(time_dim, lengths):
    torch.manual_seed(0)
    net = conv_net(time_dim)
    x = 3 * torch.rand((5, 4, 2, 6, 6) if time_dim == 0 else (4, 5, 2, 6, 6))
    gradients = []
    for inplace in (False, True):
        snn.configure(net, inplace=inplace).zero_grad()
        y = net(x, lengths=lengths)
        y.square().sum().backward()
        gradients.append([y.detach(), *(p.grad.clone() for p in net.parameters())])
    assert gradients[0][1].abs().sum() > 0
    assert all(map(torch.equal, *gradients))


def forward_peak(net, x):
    """The most bytes of tensors that a forward pass holds at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        net(x)
    held = np.cumsum(
        [e.nbytes() for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    )
    return held.max()


def test_it_takes_less_memory():
    """Current, potential and spikes are two arrays in place of three."""
    net = snn.Sequential(nn.Linear(8, 256), snn.LIF(alpha=0.9))
    x, array = torch.rand(50, 8, 8), 50 * 8 * 256 * 4
    apart = forward_peak(net, x)
    assert forward_peak(snn.configure(net, inplace=True), x) <= apart - 0.9 * array


def test_no_gradient_is_needed():
    x = torch.rand(SHAPE)
    expected = snn.LIF(alpha=0.9, output="trace")(x)
    with torch.no_grad():
        given = x.clone()
        spikes = snn.LIF(alpha=0.9, inplace=True)(given)
    assert torch.equal(spikes, expected.spikes)
    assert torch.equal(given, expected.potential)


def test_later_uses_of_the_current_see_the_potential_and_its_gradient():
    torch.manual_seed(0)
    x = torch.rand(SHAPE)
    gradients = []
    for inplace in (False, True):
        given = x.clone().requires_grad_()
        current = 2 * given
        trace = snn.LIF(alpha=0.9, output="trace", inplace=inplace)(current)
        potential = current if inplace else trace.potential
        (trace.spikes.sum() + potential.sin().sum()).backward()
        gradients.append(given.grad)
    assert torch.equal(*gradients)


def test_earlier_readers_of_the_current_notice():
    """A function that has kept its result for its own backward pass raises torch's error."""
    current = torch.rand(SHAPE, requires_grad=True).sigmoid()
    spikes = snn.LIF(alpha=0.9, inplace=True)(current)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        spikes.sum().backward()
    net = snn.Sequential(nn.Linear(4, 5), nn.Sigmoid(), snn.LIF(alpha=0.9, inplace=True))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        net(torch.rand(6, 2, 4)).sum().backward()


def test_a_current_that_changes_afterwards_is_noticed():
    current = torch.rand(SHAPE, requires_grad=True) * 2
    spikes = snn.LIF(alpha=0.9, inplace=True)(current)
    current.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        spikes.sum().backward()


def refused(layer, current, match):
    """The call raises an error, and the current is as before."""
    before = current.detach().clone()
    with pytest.raises(ValueError, match=match):
        layer(current)
    assert torch.equal(current.detach(), before)


def test_what_cannot_be_overwritten_is_refused():
    layer = snn.LIF(alpha=0.9, inplace=True)
    refused(layer, torch.rand(SHAPE, requires_grad=True), "current must not be a leaf")
    refused(layer, (torch.rand(SHAPE, requires_grad=True) * 2)[1:], "current must not be a view")
    refused(layer, torch.rand(SHAPE)[..., ::2], "current must be dense")
    refused(layer, torch.rand(SHAPE)[:1].expand(SHAPE), "current must be dense")
    refused(layer, torch._neg_view(torch.rand(SHAPE)), "current must not be a negated view")
    refused(layer, torch.rand(SHAPE).half(), "inplace must be False for current of float16")
    for names in (["gain"], ["alpha", "gain"]):
        learns = snn.LIF(alpha=0.9, gain=1.0, learn=names, inplace=True)
        refused(learns, torch.rand(SHAPE, requires_grad=True) * 2, "as that of gain does")
    tied = snn.LIF(tau=9.0, gain="1-alpha", learn=["tau"], inplace=True)
    refused(tied, torch.rand(SHAPE, requires_grad=True) * 2, "as that of tau does")
    with pytest.raises(TypeError, match="inplace must be True or False, got 1"):
        snn.LIF(alpha=0.9, inplace=1)
    with pytest.raises(RuntimeError, match="must have their defaults in a program that is compiled"):
        torch.func.vmap(layer)(torch.rand(SHAPE))


def test_an_input_that_two_ways_get_is_not_overwritten():
    first = snn.Sequential(snn.LIF(alpha=0.9, inplace=True), nn.Linear(5, 5))
    x = torch.rand(6, 2, 5)
    refused(snn.Residual(first), x, "inplace of the first module of body, LIF, must be False")
    shortcut = snn.Residual(nn.Linear(5, 5), shortcut=snn.IF(inplace=True))
    refused(shortcut, x, "inplace of the first module of shortcut, IF, must be False")
    last = snn.Residual(nn.Linear(5, 5), snn.LIF(alpha=0.9, inplace=True))
    last(x).sum().backward()


def test_a_monitor_sees_what_it_sees_without():
    torch.manual_seed(0)
    net, x = conv_net(0), 3 * torch.rand(5, 4, 2, 6, 6)
    tables = []
    for inplace in (False, True):
        snn.configure(net, inplace=inplace)
        with snn.Monitor(net, warn=False) as monitor:
            net(x)
        tables.append(str(monitor))
    assert tables[0] == tables[1]


def test_init_finds_the_same_weights():
    states = []
    for inplace in (False, True):
        torch.manual_seed(0)
        net = snn.configure(conv_net(0), inplace=inplace)
        snn.init_(net, 3 * torch.rand(5, 4, 2, 6, 6))
        states.append([p.detach().clone() for p in net.parameters()])
    assert all(map(torch.equal, *states))


def test_a_stateful_layer_and_single_steps():
    x = torch.rand(SHAPE)
    apart, over = (snn.LIF(alpha=0.9, stateful=True, inplace=inplace) for inplace in (False, True))
    for _ in range(2):
        assert torch.equal(over(x.clone()), apart(x))
    frame = x[0].clone()
    spikes, state = apart.step(x[0])
    assert torch.equal(over.step(frame)[0], spikes)
    assert torch.equal(frame, state.potential)
