"""A stateful module continues where its last call ended.

Property: calls of a module with ``stateful=True`` on chunks of time have the bits of one call on the whole.
Gradients stop at the chunk's beginning, or flow on with "attached". ``reset_state`` starts afresh, in a layer
and in a whole network. A state that is passed leaves the kept one alone. An input of another batch size,
shape or dtype raises an error that names both. Witness: the same module, not stateful, with explicit states.
"""

import copy
import io
import pickle
import re

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")
from torch import nn  # noqa: E402

from neuron_examples import SCALARS  # noqa: E402

STEPS, BATCH = 8, 3


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def raises(error, *words):
    """`pytest.raises` for a message that contains all the words, in any order."""
    return pytest.raises(error, match="(?s)" + "".join(f"(?=.*{re.escape(w)})" for w in words))


def layer(stateful):
    return snn.LIF(alpha=0.9, threshold=0.4, stateful=stateful)


def recurrent(stateful):
    torch.manual_seed(1)
    return snn.Recurrent(layer(stateful), 4)


def delay(stateful):
    return snn.Delay([0.0, 1.0, 1.5, 3.0], most=3, stateful=stateful)


def sequential(stateful):
    torch.manual_seed(1)
    return snn.Sequential(nn.Linear(4, 6), snn.ALIF(0.9, 0.9, 0.1), snn.Residual(snn.IF()), stateful=stateful)


def residual(stateful):
    torch.manual_seed(1)
    return snn.Residual(nn.Linear(4, 4), snn.LIF(0.9, threshold=0.3), stateful=stateful)


def inside_a_plain_network(stateful):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 6), snn.LIF(0.9, threshold=0.3, stateful=stateful))


def inside_a_container(stateful):
    torch.manual_seed(1)
    return snn.Sequential(nn.Linear(4, 6), snn.LIF(0.9, threshold=0.3, stateful=stateful))


MAKE = (layer, recurrent, delay, sequential, residual, inside_a_plain_network, inside_a_container)
EACH = pytest.mark.parametrize("make", MAKE, ids=lambda f: f.__name__)
TAKING_STATES = pytest.mark.parametrize("make", [f for f in MAKE if f is not inside_a_plain_network])


def inputs(**keywords):
    return torch.randn(STEPS, BATCH, 4, **keywords)


def weights(y):
    return torch.linspace(0.5, 1.5, y.numel()).reshape(y.shape)


@EACH
def test_chunks_have_the_bits_of_the_whole(make):
    x, net = inputs(), make(True)
    found = torch.cat([net(x[:3]), net(x[3:4]), net(x[4:])])
    assert found.any() and torch.equal(found, make(False)(x))


@TAKING_STATES
def test_steps_continue_each_other_and_chunks(make):
    x, net = inputs(), make(True)
    frames = [net.step(frame)[0] for frame in x[:3]]
    assert torch.equal(torch.cat([torch.stack(frames), net(x[3:])]), make(False)(x))


@EACH
def test_reset_state_starts_afresh(make):
    x, net = inputs(), make(True)
    first = net(x)
    assert not torch.equal(net(x), first)
    snn.reset_state(net)
    assert torch.equal(net(x), first)
    if not isinstance(net, nn.Sequential) or isinstance(net, snn.Sequential):
        net.reset_state()
        assert torch.equal(net(x), first)
    snn.reset_state(net)
    assert net(x[:, :1]).shape[1] == 1  # another batch size


def test_reset_state_resets_all_layers_of_a_network():
    net = nn.ModuleDict({"a": sequential(True), "b": nn.Sequential(recurrent(True)), "c": delay("attached")})
    x = inputs()
    first = [net["a"](x), net["b"](x), net["c"](x)]
    snn.reset_state(net)
    for one, other in zip(first, [net["a"](x), net["b"](x), net["c"](x)], strict=True):
        assert torch.equal(one, other)
    with raises(TypeError, "net", "torch module", "Tensor"):
        snn.reset_state(x)


@EACH
def test_a_state_is_detached(make):
    x, net = inputs(requires_grad=True), make(True)
    net(x[:3])
    y = net(x[3:])
    (grad,) = torch.autograd.grad((y * weights(y)).sum(), x)
    assert not grad[:3].any() and grad[3:].any()


@EACH
def test_an_attached_state_has_the_gradient_of_the_whole(make):
    x, net, whole = inputs(requires_grad=True), make("attached"), make(False)
    y, expected = torch.cat([net(x[:3]), net(x[3:])]), whole(x)
    found = torch.autograd.grad((y * weights(y)).sum(), [x, *net.parameters()])
    expected = torch.autograd.grad((expected * weights(y)).sum(), [x, *whole.parameters()])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@TAKING_STATES
def test_a_state_that_is_passed_leaves_the_kept_one_alone(make):
    x, net = inputs(), make(True)
    net(x[:3])
    y, _ = net(x, None)
    assert torch.equal(y, make(False)(x))
    net.step(x[0], None)
    assert torch.equal(net(x[3:]), make(False)(x)[3:])


@pytest.mark.parametrize("neuron", SCALARS.values(), ids=SCALARS)
def test_every_neuron_keeps_its_state(neuron):
    x = inputs()
    net = snn.from_neuron(neuron, stateful=True)
    assert torch.equal(torch.cat([net(x[:3]), net(x[3:])]), snn.from_neuron(neuron)(x))


@EACH
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x[:, :2], ("(3, 4)", "(2, 4)")),
        (lambda x: x[None].expand(STEPS, *x.shape), ("(3, 4)", "(8, 3, 4)")),
        (lambda x: x.double(), ("torch.float32", "torch.float64")),
    ],
    ids=["batch", "shape", "dtype"],
)
def test_an_input_of_another_kind_is_named(make, change, words):
    net = make(True)
    net(inputs())
    given = change(inputs())
    if make in (inside_a_plain_network, inside_a_container):
        net = net.to(given.dtype)
        words = [word.replace("4)", "6)") for word in words]
    with raises(ValueError, "kept", *words, "reset_state()"):
        net(given)
    if make is not inside_a_plain_network:
        with raises(ValueError, "kept", *words, "reset_state()"):
            net.step(given[0])


def test_an_input_on_another_device_is_named():
    net = layer(True)
    net(inputs())
    net._kept.kind = (*net._kept.kind[:2], torch.device("cuda:0"))
    with raises(ValueError, "kept", "cuda:0", "cpu", "reset_state()"):
        net(inputs())


def test_another_number_of_steps_is_none_of_these():
    net = layer(True)
    assert net(inputs()).shape[0] == STEPS and net(inputs()[:2]).shape[0] == 2


@pytest.mark.parametrize("make", [layer, delay, sequential, residual])
@pytest.mark.parametrize("stateful", ["detached", None, 2, [True]])
def test_a_wrong_value_is_named(make, stateful):
    with raises(ValueError, "stateful", "False, True, 'attached'", repr(stateful)):
        make(stateful)


@EACH
@pytest.mark.parametrize("stateful", [True, "attached"])
def test_copies_and_pickles_continue(make, stateful):
    x, net = inputs(), make(stateful)
    net(x[:3])
    stored = io.BytesIO()
    torch.save(net, stored)
    stored.seek(0)
    others = [copy.deepcopy(net), pickle.loads(pickle.dumps(net)), torch.load(stored, weights_only=False)]
    expected = net(x[3:])
    for other in others:
        assert torch.equal(other(x[3:]), expected)


@EACH
def test_a_kept_state_is_not_in_the_state_dict(make):
    net = make(True)
    before = list(net.state_dict())
    net(inputs())
    assert list(net.state_dict()) == before


def test_stateful_can_be_set_and_is_shown():
    net = layer(False)
    x = inputs()
    assert net.stateful is False and "stateful" not in repr(net)
    first = net(x)
    assert torch.equal(net(x), first)
    net.stateful = "attached"
    assert net.stateful == "attached" and "stateful='attached'" in repr(net)
    assert torch.equal(net(x), first) and not torch.equal(net(x), first)
    net.stateful = False
    assert torch.equal(net(x), first)
    assert recurrent(True).stateful is True
    assert "stateful=True" in repr(recurrent(True)) and "stateful=True" in repr(delay(True))


def test_truncated_backpropagation_trains_a_stateful_network():
    net = sequential(True)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    x, losses = torch.randn(40, BATCH, 4), []
    for _ in range(30):
        net.reset_state()
        total = 0.0
        for chunk in x.split(10):
            loss = (net(chunk).mean() - 0.5).square()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        losses.append(total)
    assert losses[-1] < losses[0] / 4


def test_detach_state_keeps_the_structure():
    net = snn.Sequential(snn.LIF(0.9), nn.LSTM(4, 4), snn.Sequential(snn.Delay(1.0, most=2)))
    _, state = net(inputs(requires_grad=True), None)
    detached = snn.detach_state(state)
    assert type(detached[0]) is type(state[0]) and state[0].potential.requires_grad
    assert not any(t.requires_grad for t in (*detached[0], *detached[1], detached[2][0]))
    assert torch.equal(detached[1][0], state[1][0])
    given = torch.ones(2, requires_grad=True) * 2
    found = snn.detach_state({"a": [given, None]})
    assert list(found) == ["a"] and found["a"][1] is None and not found["a"][0].requires_grad
