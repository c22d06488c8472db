"""Containers run torch's modules on single steps and layers on sequences, and thread every state.

Property: `Sequential` and `Residual` give the outputs, states and gradients of their modules called by hand,
one step after the other; single steps and chunks of time have the bits of the whole. They are indexed, named,
copied and stored like ``nn.Sequential``. Wrong arguments raise clear errors. Witness: a loop over steps that
calls torch's modules on frames and layers by ``step``.
"""

import copy
import io
import pickle
import re
from collections import OrderedDict

import pytest

import exodus_core as ec

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")
from torch import nn  # noqa: E402

from small_networks import (  # noqa: E402
    BATCH,
    STEPS,
    assert_same,
    convolutional,
    events,
    exact,
    tensors,
)

TIME_DIMS = pytest.mark.parametrize("time_dim", [0, 1])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def raises(error, *words):
    """`pytest.raises` for a message that contains all the words, in any order."""
    return pytest.raises(error, match="(?s)" + "".join(f"(?=.*{re.escape(w)})" for w in words))


class Smooth(nn.Module):
    """A user's module with a state: a running mean, in plain torch."""

    time_dim = 0

    def step(self, frame, state=None):
        state = frame if state is None else 0.5 * state + 0.5 * frame
        return state, state

    def forward(self, x, state=None):
        outputs = []
        for frame in x.unbind(self.time_dim):
            y, state = self.step(frame, state)
            outputs.append(y)
        return torch.stack(outputs, self.time_dim), state


def by_hand(module, frame, state):
    """The witness: one step of one module."""
    if isinstance(module, snn.Sequential):
        states = []
        for part, own in zip(module, state or [None] * len(module), strict=True):
            frame, own = by_hand(part, frame, own)
            states.append(own)
        return frame, tuple(states)
    if isinstance(module, snn.Residual):
        y, own = by_hand(module.body, frame, state and state[0])
        return y + frame, (own, None)
    return module.step(frame, state) if hasattr(module, "step") else (module(frame), None)


def loop(net, x, time_dim, state=None, step=by_hand):
    outputs = []
    for frame in x.unbind(time_dim):
        y, state = step(net, frame, state)
        outputs.append(y)
    return torch.stack(outputs, time_dim), state


@TIME_DIMS
def test_outputs_and_states_are_those_of_the_modules_step_by_step(time_dim):
    net = exact(convolutional(time_dim))
    x = events(2, 4, 4, time_dim=time_dim)
    y, state = net(x, None)
    assert (y != 0).float().mean() > 0.3
    assert_same((y, state), loop(net, x, time_dim))
    assert_same(net(x), y)


@TIME_DIMS
def test_single_steps_have_the_bits_of_the_whole(time_dim):
    net = exact(convolutional(time_dim))
    x = events(2, 4, 4, time_dim=time_dim)
    assert_same(loop(net, x, time_dim, step=snn.Sequential.step), net(x, None))


@TIME_DIMS
def test_chunks_have_the_bits_of_the_whole(time_dim):
    net = exact(convolutional(time_dim))
    x = events(2, 4, 4, time_dim=time_dim)
    first, state = net(x.narrow(time_dim, 0, 3), None)
    second, state = net(x.narrow(time_dim, 3, 4), state)
    assert_same((torch.cat((first, second), time_dim), state), net(x, None))


@TIME_DIMS
def test_gradients_are_those_of_the_modules_step_by_step(time_dim):
    net = convolutional(time_dim).double()
    x = events(2, 4, 4, time_dim=time_dim, dtype=torch.float64).requires_grad_()
    found, expected = net(x, None), loop(net, x, time_dim)
    assert_same(found, expected, rtol=1e-12, atol=1e-12)
    seeds = [torch.randn_like(t) for t in tensors(found)]
    inputs = [x, *net.parameters()]
    gradients = [torch.autograd.grad(tensors(results), inputs, seeds) for results in (found, expected)]
    assert all(g.abs().max() > 0 for g in gradients[0])
    assert_same(*gradients, rtol=1e-9, atol=1e-10)


def test_a_state_has_one_entry_per_module_and_none_for_modules_without():
    _, state = convolutional()(events(2, 4, 4), None)
    kinds = [type(entry).__name__ for entry in state]
    none = "NoneType"
    assert kinds == [
        *(none, "LIFState", none, "tuple", none, none, "CubaLIFState", "tuple", "ExpLeakState"),
    ]
    assert [type(entry).__name__ for entry in state[3]] == ["tuple", none]
    assert [type(entry).__name__ for entry in state[7]] == ["Tensor", none, none]


@TIME_DIMS
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN], ids=lambda k: k.__name__)
def test_recurrent_modules_of_torch_work_inside(kind, batch_first, time_dim):
    module = kind(4, 5, num_layers=2, batch_first=batch_first)
    net = snn.Sequential(nn.Linear(6, 4), snn.LIF(alpha=0.9, threshold=0.2), module, time_dim=time_dim)
    x = events(6, time_dim=time_dim)
    y, state = net(x, None)
    spikes = snn.LIF(alpha=0.9, threshold=0.2, time_dim=time_dim)(net[0](x))
    swapped = batch_first != (time_dim == 1)
    expected, own = module(spikes.transpose(0, 1) if swapped else spikes)
    assert_same((y, state[-1]), (expected.transpose(0, 1) if swapped else expected, own))
    found = loop(net, x, time_dim, step=snn.Sequential.step)
    assert_same(found, (y, state), rtol=1e-5, atol=1e-6)


@TIME_DIMS
def test_a_users_module_with_a_state_works_inside(time_dim):
    net = snn.Sequential(nn.Linear(6, 4), Smooth(), nn.ReLU(), time_dim=time_dim)
    x = events(6, time_dim=time_dim)
    y, state = net(x, None)
    expected, own = Smooth.forward(net[1], net[0](x), None)
    assert_same((y, state[1]), (expected.relu(), own), rtol=1e-6, atol=1e-6)
    assert_same(loop(net, x, time_dim, step=snn.Sequential.step), (y, state), rtol=1e-6, atol=1e-6)


def test_a_users_module_that_sees_time_as_a_whole_works_inside():
    class Total(nn.Module):
        time_dim = 0

        def forward(self, x):
            return x.sum(self.time_dim)

    net = snn.Sequential(nn.Linear(6, 4), Total(), time_dim=1)
    x = events(6, time_dim=1)
    torch.testing.assert_close(net(x), net[0](x).sum(1))
    assert net(x, None)[1] == (None, None)
    with raises(TypeError, "1 (Total)", "step"):
        net.step(x[:, 0])


def test_a_trace_comes_out_at_the_end_and_passes_its_spikes_on_inside():
    plain = snn.Sequential(nn.Linear(6, 8), snn.LIF(alpha=0.9, threshold=0.3), nn.Linear(8, 4), snn.IF())
    traced = copy.deepcopy(plain)
    traced[1].output = traced[3].output = "trace"
    x = events(6)
    trace = traced(x)
    assert isinstance(trace, snn.Trace)
    assert_same(trace.spikes, plain(x))
    trace, state = traced(x, None)
    assert_same((trace.spikes, state, trace.state), (*plain(x, None), state[3]))
    assert snn.growth(trace) == 0
    frame, state = traced.step(x[0])
    assert isinstance(frame, snn.Trace)
    assert_same((frame.spikes, state), plain.step(x[0]))


def test_the_potential_passes_on_where_a_trace_has_no_spikes():
    net = snn.Sequential(snn.ExpLeak(alpha=0.9, output="trace"), nn.Linear(6, 2))
    x = events(6)
    assert_same(net(x), net[1](snn.ExpLeak(alpha=0.9)(x)), rtol=1e-6, atol=1e-6)


CONNECT = {
    "add": lambda body, shortcut: body + shortcut,
    "and": lambda body, shortcut: body * shortcut,
    "iand": lambda body, shortcut: (1 - body) * shortcut,
    torch.maximum: torch.maximum,
}


@pytest.mark.parametrize("connect", CONNECT, ids=lambda connect: getattr(connect, "__name__", connect))
def test_residual_joins_body_and_shortcut(connect):
    block = snn.Residual(
        nn.Conv2d(2, 4, 3, padding=1),
        snn.LIF(alpha=0.9, threshold=0.2),
        shortcut=snn.Sequential(nn.Conv2d(2, 4, 1), snn.IF(threshold=0.2)),
        connect=connect,
        time_dim=1,
    )
    x = events(2, 4, 4, time_dim=1)
    y, state = block(x, None)
    body, own = block.body(x, None)
    past, of_shortcut = block.shortcut(x, None)
    assert 0 < body.mean() < 1 and 0 < past.mean() < 1
    assert_same((y, state), (CONNECT[connect](body, past), (own, of_shortcut)))
    assert_same(block(x), y)
    assert block.body[1].time_dim == block.shortcut[1].time_dim == 1


def test_residual_takes_a_module_without_a_state_as_shortcut():
    block = snn.Residual(nn.Linear(6, 4), snn.IF(), shortcut=nn.Linear(6, 4))
    x = events(6)
    y, state = block(x, None)
    assert_same(y, block.body(x) + block.shortcut[0](x), rtol=1e-6, atol=1e-6)
    assert state[1] == (None,)


def test_residual_of_other_shapes_says_what_to_pass():
    with raises(ValueError, "shortcut", f"({STEPS}, {BATCH}, 4)", f"({STEPS}, {BATCH}, 6)", "Conv2d"):
        snn.Residual(nn.Linear(6, 4), snn.IF())(events(6))


@pytest.mark.parametrize("connect", ["or", None, 1])
def test_residual_names_a_wrong_connect(connect):
    with raises(ValueError, "connect", "'add', 'and', 'iand'", repr(connect)):
        snn.Residual(snn.IF(), connect=connect)


@TIME_DIMS
def test_time_distributed_runs_a_plain_block_with_a_skip_connection(time_dim):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x):
            return x + self.convolution(x).relu()

    module = snn.TimeDistributed(Block(), time_dim=time_dim)
    x = torch.randn(BATCH, STEPS, 2, 4, 4).transpose(0, 1 - time_dim)
    expected = torch.stack([module.module(frame) for frame in x.unbind(time_dim)], time_dim)
    torch.testing.assert_close(module(x), expected)
    assert module(x, None)[1] is None
    assert_same(snn.Sequential(module, snn.IF(), time_dim=time_dim)(x), snn.IF(time_dim=time_dim)(module(x)))


def test_batch_normalisation_has_the_statistics_of_all_steps():
    module = snn.TimeDistributed(nn.BatchNorm1d(6))
    x = torch.randn(STEPS, BATCH, 6)
    torch.testing.assert_close(module(x), nn.BatchNorm1d(6)(x.reshape(-1, 6)).reshape(x.shape))


def test_dropout_has_its_own_mask_at_each_step():
    masks = snn.TimeDistributed(nn.Dropout(0.5))(torch.ones(STEPS, BATCH, 50))
    assert not any(torch.equal(masks[0], mask) for mask in masks[1:])


def test_lazy_modules_see_single_steps():
    net = snn.Sequential(nn.Flatten(), nn.LazyLinear(3), snn.IF(), time_dim=1)
    assert net(events(2, 4, 4, time_dim=1)).shape == (BATCH, STEPS, 3)
    assert net[1].in_features == 32


def test_time_last():
    net = snn.Sequential(nn.Linear(6, 4), snn.LIF(alpha=0.9, threshold=0.3), nn.Linear(4, 2), time_dim=-1)
    first = copy.deepcopy(net)
    first.time_dim = 0
    x = events(6)
    assert_same(net(x.movedim(0, -1)).movedim(-1, 0), first(x), rtol=1e-6, atol=1e-6)


def test_a_time_dim_that_an_output_lacks_is_named():
    net = snn.Sequential(nn.Flatten(), snn.IF(), time_dim=3)
    with raises(ValueError, "time_dim=3", "3 dimensions", "negative"):
        net(torch.zeros(BATCH, 2, 4, STEPS))
    net.time_dim = -1
    assert net(torch.zeros(BATCH, 2, 4, STEPS)).shape == (BATCH, 8, STEPS)


def test_functional_calls():
    net = convolutional(1)
    x = events(2, 4, 4, time_dim=1)
    halves = {name: p.detach() / 2 for name, p in net.named_parameters()}
    found = torch.func.functional_call(net, halves, (x,))
    assert not torch.equal(found, net(x))
    net.load_state_dict(net.state_dict() | halves)
    assert_same(found, net(x))


# Like nn.Sequential


def test_the_time_dim_of_all_modules_is_the_containers():
    layer = snn.LIF(alpha=0.9, time_dim=0)
    net = snn.Sequential(layer, snn.Sequential(snn.Delay(1.0, most=2), snn.Residual(snn.IF())), time_dim=1)
    assert layer.time_dim == net[1].time_dim == net[1][0].time_dim == net[1][1].body[0].time_dim == 1
    net.time_dim = 2
    assert layer.time_dim == net[1].time_dim == net[1][0].time_dim == net[1][1].body[0].time_dim == 2


def test_modules_that_are_added_later_get_the_time_dim():
    net = snn.Sequential(nn.Linear(2, 2), time_dim=1)
    net.append(snn.IF())
    net.extend([snn.LIF(0.9)])
    net.insert(0, snn.ALIF(0.9, 0.9, 0.1))
    net.add_module("4", snn.IF())
    net[1] = snn.ExpLeak(0.5)
    net += nn.Sequential(snn.LIF(0.8))
    assert [type(m).__name__ for m in net] == ["ALIF", "ExpLeak", "IF", "LIF", "IF", "LIF"]
    assert {m.time_dim for m in net} == {1} and list(net._modules) == list("012345")


def test_slices_and_sums_are_containers_of_the_same_modules():
    net = snn.Sequential(nn.Linear(2, 2), snn.IF(), nn.Linear(2, 2), time_dim=1, stateful=True)
    for part in (net[1:], net[:1] + net[1:], net[:2] * 2):
        assert type(part) is snn.Sequential and part.time_dim == 1 and part.stateful is True
    assert list(net[1:]) == [net[1], net[2]] and len(net[:-1]) == 2 and net[-1] is net[2]
    assert list(net[:1] + net[1:]) == list(net) and list(net[:2] * 2) == [net[0], net[1]] * 2
    assert net.pop(2) not in list(net) and len(net) == 2


def test_names_and_state_dict_are_those_of_nn_sequential():
    modules = OrderedDict(one=nn.Linear(6, 4), cell=snn.LIF(0.9, learn=("alpha",)), out=nn.Linear(4, 2))
    net, plain = snn.Sequential(modules, time_dim=1), nn.Sequential(modules)
    assert [name for name, _ in net.named_children()] == ["one", "cell", "out"]
    assert list(net.state_dict()) == list(plain.state_dict())
    assert isinstance(net, nn.Sequential) and net.cell is modules["cell"]
    other = snn.Sequential(*map(copy.deepcopy, modules.values()))
    assert list(other.state_dict()) == list(nn.Sequential(*other).state_dict())


def test_copies_pickles_and_checkpoints_run_alike():
    net, x = convolutional(1), events(2, 4, 4, time_dim=1)
    expected = net(x)
    stored = io.BytesIO()
    torch.save(net.state_dict(), stored)
    stored.seek(0)
    loaded = convolutional(1)
    loaded.load_state_dict(torch.load(stored, weights_only=True))
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), loaded):
        assert_same(other(x), expected)


def test_repr_shows_time_dim():
    net = snn.Sequential(snn.TimeDistributed(nn.ReLU()), snn.Residual(snn.IF()), time_dim=1, stateful=True)
    assert repr(net).startswith("Sequential(\n  time_dim=1, stateful=True\n")
    assert "connect='add', time_dim=1" in repr(net)
    assert repr(net).count("time_dim=1") == 5


def test_an_empty_container_is_the_identity():
    x = events(6)
    assert snn.Sequential()(x) is x and snn.Sequential()(x, None) == (x, ())


def test_empty_batches_pass():
    net = convolutional(1)
    y, state = net(torch.zeros(0, STEPS, 2, 4, 4), None)
    assert y.shape == (0, STEPS, 5) and state[1].potential.shape == (0, 4, 4, 4)


def test_hooks_of_modules_run():
    net, seen = snn.Sequential(nn.Linear(6, 4), snn.IF(), time_dim=1), []
    for module in net:
        module.register_forward_hook(lambda module, args, y: seen.append((type(module).__name__, y.shape)))
    net(events(6, time_dim=1))
    assert seen == [("Linear", (BATCH * STEPS, 4)), ("IF", (BATCH, STEPS, 4))]


# Errors


@pytest.mark.parametrize("make", [snn.Sequential, snn.TimeDistributed, lambda m: snn.Residual(m, snn.IF())])
@pytest.mark.parametrize("inner", [snn.IF(), nn.GRU(2, 2), snn.Sequential()], ids=lambda m: type(m).__name__)
def test_a_module_that_hides_time_is_named(make, inner):
    with raises(ValueError, "(Sequential)", f"1 ({type(inner).__name__})", "exodus_core.torch.Sequential"):
        make(nn.Sequential(nn.Linear(2, 2), inner))


def test_time_distributed_refuses_a_layer():
    with raises(ValueError, "module (LIF)", "sees time"):
        snn.TimeDistributed(snn.LIF(0.9))
    with raises(TypeError, "module", "function"):
        snn.TimeDistributed(lambda x: x)


def test_another_time_dim_of_a_module_is_an_error_in_the_call():
    layer = snn.IF()
    net = snn.Sequential(nn.Linear(6, 4), layer, time_dim=0)
    snn.Sequential(layer, time_dim=1)
    with raises(ValueError, "time_dim of 1 (IF)", "container, 0", "got 1"):
        net(events(6))


@pytest.mark.parametrize("time_dim", [0.0, None, True, "0"])
@pytest.mark.parametrize(
    "make", [snn.Sequential, snn.Residual, lambda **k: snn.TimeDistributed(nn.ReLU(), **k)]
)
def test_a_wrong_time_dim(make, time_dim):
    with raises(TypeError, "time_dim", "integer", repr(time_dim)):
        make(time_dim=time_dim)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ((None,), ("state", "3 entries", "a tuple of 1")),
        (torch.zeros(3), ("state", "3 entries", "Tensor")),
        ((torch.zeros(3), None, None), ("state of 0 (Linear)", "None", "Tensor")),
        ((None, None, torch.zeros(3)), ("state of 2 (Linear)", "None", "Tensor")),
    ],
)
def test_a_wrong_state(state, words):
    net = snn.Sequential(nn.Linear(6, 4), snn.IF(), nn.Linear(4, 2))
    with raises(ValueError, *words):
        net(events(6), state)
    with raises(ValueError, *words):
        net.step(events(6)[0], state)


@pytest.mark.parametrize("shape", [(), (4,), (4, 6)])
def test_an_input_without_a_batch(shape):
    with raises(ValueError, "x", "time, batch and features", "time_dim=0", str(shape)):
        snn.Sequential(nn.Linear(6, 4))(torch.zeros(shape))


def test_an_input_that_is_no_tensor():
    with raises(TypeError, "x", "torch tensor", "list"):
        snn.Sequential(nn.Linear(6, 4))([1.0])


@pytest.mark.parametrize("module", [nn.Flatten(0), nn.Identity()], ids=["samples", "tuple"])
def test_a_module_that_mixes_samples_is_named(module):
    if isinstance(module, nn.Identity):
        module.forward = lambda x: (x, x)
    with raises(ValueError, f"0 ({type(module).__name__})", f"({STEPS * BATCH}, ...)"):
        snn.Sequential(module)(events(6))


def test_the_neuron_layers_of_every_descriptor_work_inside():
    from neuron_examples import SCALARS

    for neuron in SCALARS.values():
        net = snn.Sequential(snn.from_neuron(neuron), time_dim=1)
        x = torch.randn(BATCH, STEPS, 5)
        y, state = net(x, None)
        trace = ec.forward(neuron, x.numpy(), time_axis=1)
        expected = trace.potential if trace.spikes is None else trace.spikes
        assert_same((y, *state[0]), [torch.from_numpy(a) for a in (expected, *trace.state)])
