"""Readouts, losses and regularisers are their formulas, with and without sequences of different lengths.

Witness: loops over single sequences and steps in numpy, in float64, and finite differences (gradcheck).
"""

import math

import numpy as np
import pytest

from exodus_core import kernel

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")

STEPS, BATCH, CLASSES = 12, 4, 3
LENGTHS = [12, 5, 1, 8]
RANDOM = np.random.default_rng(0)
SPIKES = RANDOM.integers(0, 3, (STEPS, BATCH, CLASSES)).astype(float)
OTHER = RANDOM.integers(0, 2, (STEPS, BATCH, CLASSES)).astype(float)
POTENTIAL = RANDOM.normal(0.0, 2.0, (STEPS, BATCH, CLASSES))
TARGET = np.array([0, 2, 1, 1])

READOUTS = {
    "spike_count": (SPIKES, lambda x: x.sum(0)),
    "spike_rate": (SPIKES, lambda x: x.mean(0)),
    "max_over_time": (POTENTIAL, lambda x: x.max(0)),
    "last_step": (POTENTIAL, lambda x: x[-1]),
}
LOSSES = {
    "ce_count_loss": READOUTS["spike_count"],
    "ce_max_membrane_loss": READOUTS["max_over_time"],
    "ce_last_membrane_loss": READOUTS["last_step"],
}
RATE = 0.8  # some neurons are above, some below
REGULARIZERS = {
    "rate_regularizer": lambda r: (r - RATE) ** 2,
    "lower_activity_regularizer": lambda r: max(0.0, RATE - r) ** 2,
    "upper_activity_regularizer": lambda r: max(0.0, r - RATE) ** 2,
}
both_lengths = pytest.mark.parametrize("lengths", [None, LENGTHS, torch.tensor(LENGTHS)], ids=str)
every_time_dim = pytest.mark.parametrize("time_dim", [0, 1, -1])


def sequences(x, lengths):
    """The sequences of a (time, batch, classes) array, each of its own length."""
    ends = [STEPS] * BATCH if lengths is None else [int(end) for end in lengths]
    return [x[:end, b] for b, end in enumerate(ends)]


def tensor(x, time_dim, grad=False):
    """The array as a tensor with time on `time_dim`, garbage after no sequence."""
    return torch.tensor(np.moveaxis(x, 0, time_dim), requires_grad=grad)


def padded(x, lengths, garbage=math.nan):
    """The array with garbage after the sequences' ends."""
    y = x.copy()
    for b, end in enumerate(lengths if lengths is not None else []):
        y[int(end) :, b] = garbage
    return y


def log_softmax(x):
    return x - np.log(np.exp(x).sum())


def cross_entropy(logits):
    return -np.mean([log_softmax(row)[label] for row, label in zip(logits, TARGET, strict=True)])


@pytest.mark.parametrize("name", READOUTS)
@both_lengths
@every_time_dim
def test_readout_is_that_of_each_sequence_alone(name, lengths, time_dim):
    x, readout = READOUTS[name]
    expected = [readout(one) for one in sequences(x, lengths)]
    found = getattr(snn, name)(tensor(padded(x, lengths), time_dim), lengths, time_dim=time_dim)
    torch.testing.assert_close(found, torch.tensor(np.array(expected)), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", LOSSES)
@both_lengths
@every_time_dim
def test_cross_entropy_is_that_of_the_readout(name, lengths, time_dim):
    x, readout = LOSSES[name]
    expected = cross_entropy([readout(one) for one in sequences(x, lengths)])
    given = tensor(padded(x, lengths), time_dim)
    found = getattr(snn, name)(given, torch.tensor(TARGET), lengths, time_dim=time_dim)
    assert found.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_cross_entropy_takes_torchs_keywords_and_probabilities(name):
    x, readout = LOSSES[name]
    logits = np.array([log_softmax(readout(one)) for one in sequences(x, None)])
    wanted = RANDOM.dirichlet(np.ones(CLASSES), BATCH)
    found = getattr(snn, name)(tensor(x, 0), torch.tensor(wanted), reduction="none")
    np.testing.assert_allclose(found, -(wanted * logits).sum(1), rtol=1e-12)
    smooth = getattr(snn, name)(tensor(x, 0), torch.tensor(TARGET), label_smoothing=0.3)
    one_hot = 0.7 * np.eye(CLASSES)[TARGET] + 0.1
    assert smooth.item() == pytest.approx(-(one_hot * logits).sum(1).mean(), rel=1e-12)


def van_rossum(one, other, taps, factor):
    """The squared distance of two trains of one neuron, by the double sum of the definition."""
    distance = 0.0
    for n in range(len(one)):
        filtered = sum(taps[n - k] * (one[k] - other[k]) for k in range(n + 1))
        distance += factor * filtered**2
    return distance


@pytest.mark.parametrize(
    ("tau", "dt", "taps", "factor"),
    [
        (5.0, 1.0, lambda n: math.exp(-n / 5.0), 1 / 5.0),
        (5.0, 0.5, lambda n: math.exp(-0.5 * n / 5.0), 0.5 / 5.0),
        (kernel.Alpha(3.0), 2.0, lambda n: n / 3.0 * math.exp(1 - n / 3.0), 2.0),
    ],
)
@both_lengths
@every_time_dim
def test_van_rossum_distance_is_the_sum_of_its_definition(tau, dt, taps, factor, lengths, time_dim):
    taps = [taps(n) for n in range(STEPS)]
    expected = np.array(
        [
            [van_rossum(one[:, j], other[:, j], taps, factor) for j in range(CLASSES)]
            for one, other in zip(sequences(SPIKES, lengths), sequences(OTHER, lengths), strict=True)
        ]
    )
    given = [tensor(padded(x, lengths), time_dim) for x in (SPIKES, OTHER)]
    for reduction, value in (("none", expected), ("sum", expected.sum()), ("mean", expected.mean())):
        found = snn.van_rossum_distance(*given, tau, lengths, dt=dt, time_dim=time_dim, reduction=reduction)
        np.testing.assert_allclose(found, value, rtol=1e-10)


def test_van_rossum_distance_of_one_spike_is_one_half():
    """As in the paper, in the limit of small steps; and two coincident spikes have none."""
    one = torch.zeros(4000, 1, 1, dtype=torch.float64)
    one[10] = 1.0
    assert snn.van_rossum_distance(one, torch.zeros_like(one), 200.0).item() == pytest.approx(0.5, rel=0.01)
    assert snn.van_rossum_distance(one, one, 200.0).item() == 0.0


@pytest.mark.parametrize("name", REGULARIZERS)
@both_lengths
@every_time_dim
def test_regularizer_is_its_formula(name, lengths, time_dim):
    steps = sum(len(one) for one in sequences(SPIKES, lengths))
    rates = [sum(one[:, j].sum() for one in sequences(SPIKES, lengths)) / steps for j in range(CLASSES)]
    expected = np.mean([REGULARIZERS[name](rate) for rate in rates])
    given = tensor(padded(SPIKES, lengths), time_dim)
    found = getattr(snn, name)(given, RATE, lengths, time_dim=time_dim)
    assert found.item() == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_regularizers_distinguish_high_and_low_rates():
    x = torch.zeros(10, 2, 2, dtype=torch.float64)
    x[:, :, 0] = 1.0  # a neuron that always fires, and one that is silent
    assert snn.lower_activity_regularizer(x, 0.1).item() == pytest.approx(0.5 * 0.1**2)
    assert snn.upper_activity_regularizer(x, 0.4).item() == pytest.approx(0.5 * 0.6**2)
    assert snn.rate_regularizer(x, 0.4).item() == pytest.approx(0.5 * (0.6**2 + 0.4**2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_counts_of_long_sequences_are_exact_in_two_bytes(dtype):
    x = torch.ones(3001, 40, 2, dtype=dtype)
    assert torch.equal(snn.spike_count(x), torch.full((40, 2), 3001.0))
    assert torch.equal(snn.spike_rate(x), torch.ones(40, 2))
    assert snn.rate_regularizer(x, 0.5).item() == 0.25


def test_integers_and_booleans_count():
    x = torch.ones(7, 2, 3, dtype=torch.bool)
    for kind in (torch.bool, torch.uint8, torch.int64):
        assert torch.equal(snn.spike_count(x.to(kind), [7, 2]), torch.tensor([[7.0], [2.0]]).expand(2, 3))


LOSS_CALLS = {
    **{
        name: lambda x, lengths, name=name: getattr(snn, name)(x, torch.tensor(TARGET), lengths)
        for name in LOSSES
    },
    **{name: lambda x, lengths, name=name: getattr(snn, name)(x, 0.3, lengths) for name in REGULARIZERS},
    "van_rossum_distance": lambda x, lengths: snn.van_rossum_distance(x, tensor(OTHER, 0), 4.0, lengths),
    "van_rossum_distance_of_kernel": lambda x, lengths: snn.van_rossum_distance(
        tensor(OTHER, 0), x, kernel.DoubleExponential(0.9, 0.7), lengths
    ),
    **{name: lambda x, lengths, name=name: getattr(snn, name)(x, lengths) for name in READOUTS},
}


@pytest.mark.parametrize("name", LOSS_CALLS)
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=str)
def test_gradients_are_finite_differences(name, lengths):
    x = tensor(0.3 * POTENTIAL, 0, grad=True)
    assert torch.autograd.gradcheck(lambda x: LOSS_CALLS[name](x, lengths), (x,))


@pytest.mark.parametrize("name", LOSS_CALLS)
def test_nothing_after_the_ends_counts_or_gets_a_gradient(name):
    garbage = tensor(padded(0.3 * POTENTIAL, LENGTHS, garbage=math.inf), 0, grad=True)
    zeros = tensor(padded(0.3 * POTENTIAL, LENGTHS, garbage=0.0), 0, grad=True)
    for x in (garbage, zeros):
        LOSS_CALLS[name](x, LENGTHS).sum().backward()
    assert torch.equal(garbage.grad, zeros.grad) and bool(garbage.grad.isfinite().all())
    past = torch.arange(STEPS)[:, None] >= torch.tensor(LENGTHS)
    assert not garbage.grad[past].any()


@pytest.mark.parametrize("name", LOSS_CALLS)
def test_gradient_reaches_the_weights_through_layers(name):
    torch.manual_seed(0)
    net = snn.Sequential(torch.nn.Linear(6, CLASSES), snn.LIF(0.9, output="potential"))
    with torch.no_grad():  # one neuron is above the bounds, one is below
        net[0].weight[0], net[0].weight[1] = 0.5, -0.5
    x = torch.rand(STEPS, BATCH, 6)
    found = LOSS_CALLS[name]
    if name.startswith("van_rossum"):
        net.double()
        x = x.double()
    found(net(x), LENGTHS).sum().backward()
    grad = net[0].weight.grad
    assert bool(grad.isfinite().all())
    assert bool(grad.any())


@pytest.mark.parametrize("name", [*READOUTS, *LOSSES, *REGULARIZERS])
def test_compiled_programs_hold_readouts_and_losses_without_a_break(name):
    torch.compiler.reset()  # each name makes another program of the same function
    call = lambda x: LOSS_CALLS[name](x, None).sum()  # noqa: E731
    found, expected = tensor(POTENTIAL, 0, grad=True), tensor(POTENTIAL, 0, grad=True)
    result = torch.compile(call, backend="aot_eager", fullgraph=True)(found)
    result.backward()
    call(expected).backward()
    assert torch.equal(result, call(expected)) and torch.equal(found.grad, expected.grad)


TARGETS = torch.tensor(TARGET)
X = tensor(SPIKES, 0)
WRONG = [
    (lambda: snn.spike_count(3.0), TypeError, "x must be a torch tensor, got float"),
    (lambda: snn.spike_count(X, time_dim=3), ValueError, "time_dim=3"),
    (lambda: snn.spike_count(X, time_dim=1.0), TypeError, "time_dim must be an integer"),
    (lambda: snn.spike_rate(X, [0, 1, 1, 1]), ValueError, "lengths must be at least 1"),
    (lambda: snn.max_over_time(X, [0, 1, 1, 1]), ValueError, "lengths must be at least 1"),
    (lambda: snn.spike_rate(X[:0]), ValueError, r"x must have steps on time_dim=0, got shape \(0, 4, 3\)"),
    (lambda: snn.max_over_time(X.long()), TypeError, "x must have a floating-point dtype, got torch.int64"),
    (lambda: snn.max_over_time(X, [1, 1]), ValueError, r"lengths must have shape \(4,\)"),
    (lambda: snn.ce_count_loss(X, TARGET), TypeError, "target must be a torch tensor, got ndarray"),
    (
        lambda: snn.ce_count_loss(X, TARGETS, time_dim=1),
        ValueError,
        r"target must have an entry for each of 12 sequences, got shape \(4,\): time was taken .*time_dim=1",
    ),
    (lambda: snn.ce_count_loss(X[:, :, 0], TARGETS), ValueError, "dimensions of time, batch and classes"),
    (lambda: snn.van_rossum_distance(X, X[1:], 3.0), ValueError, "target must have the shape of spikes"),
    (lambda: snn.van_rossum_distance(X, SPIKES, 3.0), TypeError, "target must be a torch tensor"),
    (
        lambda: snn.van_rossum_distance(X, X.bool(), 3.0),
        TypeError,
        "target must have a floating-point dtype, got torch.bool",
    ),
    (lambda: snn.van_rossum_distance(X, X, 0.0), ValueError, "tau must be a positive number, got 0.0"),
    (lambda: snn.van_rossum_distance(X, X, 3.0, dt=-1), ValueError, "dt must be a positive number, got -1"),
    (
        lambda: snn.van_rossum_distance(X, X, 3.0, reduction="max"),
        ValueError,
        "reduction must be one of 'mean', 'sum', 'none', got 'max'",
    ),
    (lambda: snn.rate_regularizer(X, -0.1), ValueError, "target_rate must be a rate .* got -0.1"),
    (lambda: snn.lower_activity_regularizer(X, math.nan), ValueError, "bound must be a rate .* got nan"),
    (lambda: snn.upper_activity_regularizer(X, "a"), ValueError, "bound must be a rate .* got 'a'"),
]


@pytest.mark.parametrize(("call", "kind", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_arguments_are_named(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
