"""Sequences of different lengths in one batch: each runs as if it were alone.

Property: with ``lengths=``, outputs, final states and gradients of each sequence are those of the same
network on this sequence without padding; outputs after its end are 0, and what stands there (a NaN too)
changes nothing, not even the statistics of batch normalisation. `last_step` and `mask_padding` read each
sequence's own steps. Wrong lengths raise clear errors. Witness: the network on each sequence alone.
"""

import copy
import re

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")
from torch import nn  # noqa: E402

from exodus_core import kernel  # noqa: E402

STEPS, LENGTHS = 9, [9, 4, 1, 6, 4]
BATCH = len(LENGTHS)
EACH = pytest.mark.parametrize("time_dim", [0, 1])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def raises(error, *words):
    """`pytest.raises` for a message that contains all the words, in any order."""
    return pytest.raises(error, match="(?s)" + "".join(f"(?=.*{re.escape(w)})" for w in words))


def inputs(*shape, time_dim, padding=float("nan")):
    """Random sequences, with NaN after their ends."""
    x = torch.randn(BATCH, STEPS, *shape, dtype=torch.float64)
    for sequence, length in zip(x, LENGTHS, strict=True):
        sequence[length:] = padding
    return x.transpose(0, 1 - time_dim).contiguous()


def alone(x, time_dim):
    """Each sequence as a batch of one, without padding."""
    parts = x.unbind(1 - time_dim)
    return [part[:n].unsqueeze(1 - time_dim) for part, n in zip(parts, LENGTHS, strict=True)]


def networks():
    """Networks whose states are of every kind: with leading axes, nested, torch's own."""
    taps = torch.rand(4).tolist()
    srm = dict(epsilon=kernel.FIR(taps), nu=kernel.Exponential(0.5, scale=-0.5), threshold=0.4)
    yield snn.LIF(alpha=0.9, threshold=0.4)
    yield snn.Sequential(nn.Linear(6, 6), snn.CubaLIF(0.9, 0.8, threshold=0.4), nn.Linear(6, 2))
    yield snn.Sequential(snn.ALIF(0.9, 0.8, 0.2, threshold=0.4), nn.Linear(6, 4), snn.ExpLeak(0.9))
    yield snn.Sequential(snn.SRM(**srm), snn.Delay([0.0, 0.5, 1.0, 2.0, 3.0, 2.5], most=3))
    yield snn.Residual(nn.Linear(6, 6), snn.Recurrent(snn.LIF(0.9, threshold=0.4), 6))
    yield snn.Sequential(snn.Sequential(nn.Linear(6, 3), snn.TimeDistributed(nn.ReLU())), nn.LSTM(3, 4))


NETWORKS = pytest.mark.parametrize("index", range(6))


def network(index, time_dim):
    torch.manual_seed(1)
    net = list(networks())[index].double()
    return snn.Sequential(net, time_dim=time_dim)


def each_tensor(state, x_dims):
    """The tensors of a state, with the batch first."""
    if isinstance(state, torch.Tensor):
        return [state.movedim(state.dim() - (x_dims - 1), 0)]
    return [] if state is None else [t for part in state for t in each_tensor(part, x_dims)]


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@EACH
@NETWORKS
def test_each_sequence_runs_as_if_alone(index, time_dim):
    net = network(index, time_dim)
    x = inputs(6, time_dim=time_dim)
    y, state = net(x, None, lengths=LENGTHS)
    close(net(x, lengths=torch.tensor(LENGTHS)), y)
    states = each_tensor(state, x.dim())
    assert states
    for k, part in enumerate(alone(x, time_dim)):
        expected, own = net(part, None)
        length = part.shape[time_dim]
        found = y.select(1 - time_dim, k)
        close(found[:length], expected.select(1 - time_dim, 0))
        assert not found[length:].any()
        for one, other in zip(states, each_tensor(own, x.dim()), strict=True):
            close(one[k], other[0])


@EACH
@NETWORKS
def test_gradients_are_those_of_each_sequence_alone(index, time_dim):
    net = network(index, time_dim)
    x = inputs(6, time_dim=time_dim).requires_grad_()
    y, state = net(x, None, lengths=LENGTHS)
    (y.square().sum() + sum(t.square().sum() for t in each_tensor(state, x.dim()))).backward()
    found = [x.grad, *[p.grad for p in net.parameters()]]
    net.zero_grad()
    x.grad = None
    for part in alone(x, time_dim):
        expected, own = net(part, None)
        (expected.square().sum() + sum(t.square().sum() for t in each_tensor(own, x.dim()))).backward()
    expected = [x.grad, *[p.grad for p in net.parameters()]]
    assert all(g.abs().sum() > 0 for g in found)
    for one, other in zip(found, expected, strict=True):
        close(one, other)


@EACH
def test_batch_normalisation_does_not_see_the_padding(time_dim):
    net = snn.Sequential(nn.BatchNorm1d(6), snn.IF(), time_dim=time_dim).double()
    x = inputs(6, time_dim=time_dim)
    y = net[:1](x, lengths=LENGTHS)
    valid = torch.cat([part.reshape(-1, 6) for part in alone(x, time_dim)])
    close(net[0].running_mean, 0.1 * valid.mean(0))
    found = torch.cat([part.reshape(-1, 6) for part in alone(y, time_dim)])
    close(found, (valid - valid.mean(0)) / (valid.var(0, unbiased=False) + 1e-5).sqrt())


@EACH
def test_chunks_with_their_own_lengths_are_the_whole(time_dim):
    net = network(2, time_dim)
    x = inputs(6, time_dim=time_dim)
    outputs, state = [], None
    for start in range(0, STEPS, 3):
        own = [min(max(n - start, 0), 3) for n in LENGTHS]
        if state is None:
            assert 0 not in own
        y, state = net(x.narrow(time_dim, start, 3), state, lengths=own)
        outputs.append(y)
    expected, final = net(x, None, lengths=LENGTHS)
    close(torch.cat(outputs, time_dim), expected)
    for one, other in zip(each_tensor(state, x.dim()), each_tensor(final, x.dim()), strict=True):
        close(one, other)


@pytest.mark.parametrize("where", ["container", "layer", "recurrent", "delay"])
def test_a_kept_state_is_that_of_each_sequences_end(where):
    net = snn.Sequential(snn.Delay(1.5, most=2), snn.Recurrent(snn.LIF(0.9, threshold=0.4), 6), snn.IF())
    net = net.double()
    owner = {"container": net, "layer": net[2], "recurrent": net[1], "delay": net[0]}[where]
    owner.stateful = True
    x = inputs(6, time_dim=0)
    _, expected = net(x, None, lengths=LENGTHS)
    net(x, lengths=LENGTHS)
    kept = owner._kept.state
    expected = {"container": expected, "layer": expected[2], "recurrent": expected[1], "delay": expected[0]}
    for one, other in zip(each_tensor(kept, 3), each_tensor(expected[where], 3), strict=True):
        close(one, other)


@pytest.mark.parametrize("output", ["trace", "potential"])
def test_other_outputs(output):
    plain = network(0, 0)
    net = copy.deepcopy(plain)
    net[0].output = output
    x = inputs(6, time_dim=0)
    for result in (net(x, lengths=LENGTHS), net(x, None, lengths=LENGTHS)[0]):
        potential = result.potential if output == "trace" else result
        assert not potential[4:, 1].any() and potential[:4, 1].any()
        if output == "trace":
            close(result.spikes, plain(x, lengths=LENGTHS))


@EACH
def test_last_step_of_each_sequence(time_dim):
    x = inputs(6, time_dim=time_dim).requires_grad_()
    found = snn.last_step(x, LENGTHS, time_dim=time_dim)
    expected = torch.cat([part.select(time_dim, -1) for part in alone(x, time_dim)])
    assert torch.equal(found, expected)
    found.sum().backward()
    assert x.grad.sum() == BATCH * 6
    assert torch.equal(
        snn.last_step(x.detach().nan_to_num(), time_dim=time_dim),
        x.detach().nan_to_num().select(time_dim, -1),
    )


@pytest.mark.parametrize(("shape", "time_dim"), [((3,), 0), ((3,), 1), ((), 0), ((2, 3), -1), ((2, 3), 2)])
def test_padding_is_masked(shape, time_dim):
    first = torch.randn(STEPS, BATCH, *shape)
    x = first.movedim(0, time_dim).clone().requires_grad_()
    y = snn.mask_padding(x, LENGTHS, time_dim=time_dim, value=-1.0)
    steps = torch.arange(STEPS).reshape(-1, 1, *[1] * len(shape))
    past = steps >= torch.tensor(LENGTHS).reshape(-1, *[1] * len(shape))
    expected = torch.where(past, torch.tensor(-1.0), first)
    assert torch.equal(y.detach().movedim(time_dim, 0), expected)
    y.sum().backward()
    assert torch.equal(x.grad.movedim(time_dim, 0), (~past).float().expand_as(first))


CALLS = {
    "Sequential": lambda x, lengths: snn.Sequential(nn.Linear(6, 2), snn.IF())(x, lengths=lengths),
    "TimeDistributed": lambda x, lengths: snn.TimeDistributed(nn.Linear(6, 2))(x, lengths=lengths),
    "Residual": lambda x, lengths: snn.Residual(snn.IF())(x, lengths=lengths),
    "last_step": lambda x, lengths: snn.last_step(x, lengths),
    "mask_padding": lambda x, lengths: snn.mask_padding(x, lengths),
}


@pytest.mark.parametrize("run", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("lengths", "error", "words"),
    [
        ([1.0] * BATCH, TypeError, ("integers", "float32")),
        ([True] * BATCH, TypeError, ("integers", "bool")),
        ([1], ValueError, (f"shape ({BATCH},)", "(1,)")),
        ([[1] * BATCH], ValueError, (f"shape ({BATCH},)", f"(1, {BATCH})")),
        ([1, 2, 3, 4, STEPS + 1], ValueError, (f"from 0 to {STEPS}", str(STEPS + 1))),
        ([1, 2, -3, 4, 5], ValueError, (f"from 0 to {STEPS}", "-3")),
    ],
)
def test_wrong_lengths(run, lengths, error, words):
    with raises(error, "lengths", *words):
        run(torch.zeros(STEPS, BATCH, 6), lengths)


def test_an_empty_sequence_needs_a_state():
    x = torch.zeros(STEPS, BATCH, 6)
    with raises(ValueError, "lengths", "at least 1"):
        snn.Sequential(snn.IF())(x, None, lengths=[0, 1, 1, 1, 1])
    with raises(ValueError, "lengths", "at least 1"):
        snn.last_step(x, [0, 1, 1, 1, 1])


def test_the_state_of_a_users_module_has_the_batch_first():
    class Sum(nn.Module):
        time_dim = 0

        def step(self, frame, state=None):
            raise NotImplementedError

        def forward(self, x, state=None):
            total = x.sum(self.time_dim).unsqueeze(-1)
            state = {"of": [torch.zeros_like(total) if state is None else state["of"][0]]}
            return x, {"of": [state["of"][0] + total]}

    x = inputs(6, time_dim=1)
    _, (state,) = snn.Sequential(Sum(), time_dim=1)(x, None, lengths=LENGTHS)
    close(state["of"][0][:, :, 0], x.nan_to_num().sum(1))


def test_a_state_without_a_batch_is_named():
    class Counter(nn.Module):
        time_dim = 0

        def step(self, frame, state=None):
            raise NotImplementedError

        def forward(self, x, state=None):
            return x, torch.tensor(len(x))

    with raises(ValueError, "state", "batch of 5", "shape ()"):
        snn.Sequential(Counter())(torch.zeros(STEPS, BATCH, 6), (torch.tensor(0),), lengths=LENGTHS)
