"""Property: layers work under ``torch.func``, or raise a clear error.

Witness: autograd, and loops over the batch.
"""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, vjp, vmap

import exodus_core as ec
import exodus_core.torch as snn
from neuron_examples import FIRING, SCALARS


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def network():
    return nn.Sequential(
        nn.Linear(3, 4), snn.LIF(tau=5.0, threshold=0.3, learn=("tau", "threshold")), snn.ExpLeak(alpha=0.8)
    )


@pytest.mark.parametrize("name", SCALARS)
def test_grad_is_autograds(name):
    neuron = SCALARS[name]
    layer = snn.from_neuron(neuron, learn=neuron._parameter_names())
    x = torch.randn(9, 2, 4)
    values = dict(layer.named_parameters())
    found, found_x = grad(lambda v, x: functional_call(layer, v, (x,)).square().sum(), argnums=(0, 1))(
        values, x
    )
    given = x.clone().requires_grad_()
    layer(given).square().sum().backward()
    torch.testing.assert_close(found_x, given.grad)
    for key, parameter in layer.named_parameters():
        torch.testing.assert_close(found[key], parameter.grad)


def test_functional_call_of_a_network():
    net = network()
    x = torch.randn(20, 2, 3)
    values = {key: value.detach() * 1.1 for key, value in net.named_parameters()}
    with torch.no_grad():
        other = network()
        other.load_state_dict(other.state_dict() | values)
        for key, parameter in other.named_parameters():
            parameter.copy_(values[key])
    assert torch.equal(functional_call(net, values, (x,)), other(x))


@pytest.mark.parametrize("name", SCALARS)
@pytest.mark.parametrize(("time_dim", "in_dim"), [(0, 0), (0, 1), (-1, 2), (1, 0), (None, 1)])
def test_vmap_is_a_loop(name, time_dim, in_dim):
    layer = snn.from_neuron(SCALARS[name], output="potential")
    x = torch.randn(5, 6, 7)

    def run(one):
        if time_dim is None:
            return layer.step(one)[0]
        return snn.spike(one, SCALARS[name], time_dim=time_dim).potential

    found = vmap(run, in_dims=in_dim)(x)
    expected = torch.stack([run(one) for one in x.unbind(in_dim)])
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", SCALARS)
def test_vmap_over_states(name):
    layer = snn.from_neuron(SCALARS[name])
    x = torch.randn(5, 9, 2, 4)
    states = [layer(one, None)[1] for one in torch.randn(5, 3, 2, 4)]
    stacked = type(states[0])(*map(torch.stack, zip(*states, strict=True)))
    output, last = vmap(lambda one, state: layer(one, state))(x, stacked)
    for k, state in enumerate(states):
        expected, final = layer(x[k], state)
        assert torch.equal(output[k], expected)
        for a, b in zip(last, final, strict=True):
            assert torch.equal(a[k], b)


def test_vmap_over_learnt_values():
    """An ensemble: the same input, parameters of its own for each member."""
    x, taus = torch.randn(20, 2, 4), torch.tensor([2.0, 5.0, 9.0], requires_grad=True)
    neuron = ec.LIF(tau=1.0)
    weights = torch.randn(3, 20, 2, 4)
    found = vmap(lambda tau: snn.spike(x, neuron, parameters={"tau": tau}).spikes)(taus)
    (found * weights).sum().backward()
    other = taus.detach().clone().requires_grad_()
    expected = torch.stack([snn.spike(x, neuron, parameters={"tau": tau}).spikes for tau in other])
    (expected * weights).sum().backward()
    assert torch.equal(found, expected)
    torch.testing.assert_close(taus.grad, other.grad)


@pytest.mark.parametrize("name", SCALARS)
def test_gradients_per_sample(name):
    neuron = SCALARS[name]
    layer = snn.from_neuron(neuron, learn=neuron._parameter_names())
    x = torch.randn(5, 9, 4)
    values = {key: value.detach() for key, value in layer.named_parameters()}

    def loss(values, one):
        return functional_call(layer, values, (one,)).square().sum()

    found = vmap(grad(loss), in_dims=(None, 0))(values, x)
    for k, one in enumerate(x):
        expected = grad(loss)(values, one)
        for key, gradient in expected.items():
            torch.testing.assert_close(found[key][k], gradient)


def test_gradients_of_the_input_per_sample():
    layer = snn.LIF(alpha=0.9)
    x = torch.randn(5, 9, 4)
    found = vmap(grad(lambda one: layer(one).square().sum()))(x)
    expected = torch.stack([grad(lambda one: layer(one).square().sum())(one) for one in x])
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_vmap_with_recurrent_weights():
    layer = snn.Recurrent(snn.LIF(alpha=0.9, threshold=0.3), 4)
    x = torch.randn(5, 9, 2, 4)
    found = vmap(layer)(x)
    assert torch.equal(found, torch.stack([layer(one) for one in x]))
    values = {key: value.detach() for key, value in layer.named_parameters()}

    def loss(values, one):
        return functional_call(layer, values, (one,)).sum()

    per_sample = vmap(grad(loss), in_dims=(None, 0))(values, x)["weight"]
    for k, one in enumerate(x):
        torch.testing.assert_close(per_sample[k], grad(loss)(values, one)["weight"])


@pytest.mark.parametrize("name", FIRING)
def test_vjp_and_jacrev(name):
    layer = snn.from_neuron(SCALARS[name])
    x, seed = torch.randn(6, 3), torch.randn(6, 3)
    output, pull = vjp(layer, x)
    given = x.clone().requires_grad_()
    expected = layer(given)
    assert torch.equal(output, expected)
    torch.testing.assert_close(pull(seed)[0], torch.autograd.grad(expected, given, seed)[0])
    jacobian = jacrev(layer)(x)
    torch.testing.assert_close(
        torch.einsum("ij,ijkl->kl", seed, jacobian), torch.autograd.grad(layer(given), given, seed)[0]
    )


def test_second_derivatives_raise():
    layer = snn.LIF(alpha=0.9)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        grad(lambda x: grad(lambda y: layer(y).sum())(x).sum())(torch.randn(6, 3))


def test_forward_mode_raises():
    with pytest.raises(Exception, match=r"jvp|forward"):
        torch.func.jvp(snn.LIF(alpha=0.9), (torch.randn(6, 3),), (torch.randn(6, 3),))
