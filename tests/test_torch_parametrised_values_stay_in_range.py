"""`parametrize` keeps learnt values inside of their ranges, where they have gradients.

Property: a parametrised value begins at the present one, to rounding. Whatever an optimiser does to its
number, the value stays strictly inside of its range, and has a gradient by which it can come back. Gradients
are those of the chain rule. Copies, pickles, checkpoints and torch's own functions work as on any module.
Domains decide which parametrisations a value can have. Witnesses: a plain layer with the same values, and the
chain rule by hand in float64.
"""

import copy
import io
import pickle

import numpy as np
import pytest

import exodus_core as ec
from compare import assert_same_bits
from exodus_core import kernel

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")

from torch.nn.utils import parametrize as torch_parametrize  # noqa: E402

CURRENT = 0.3 + 0.8 * torch.randn(12, 2, 3, generator=torch.Generator().manual_seed(0))
EPS = float(np.finfo(np.float32).eps)

DECAYS = [1e-3, 0.5, 0.9, 0.99, 0.9999]
POSITIVES = [0.07, 0.3, 1.0, 20.0, 1000.0]
CASES = [
    *((snn.LIF, "alpha", "sigmoid", value) for value in DECAYS),
    *((snn.LIF, "tau", kind, value) for kind in ("softplus", "exp") for value in POSITIVES),
    (snn.ExpLeak, "alpha", "sigmoid", 0.95),
    (snn.IF, "threshold", "softplus", 0.8),
    (snn.IF, "threshold", "exp", 0.8),
    (snn.IF, "threshold", "sigmoid", 0.8),
    (snn.IF, "gain", "exp", 0.8),
]


def made(kind, name, value, **keywords):
    return kind(**{name: value}, learn=(name,), output="potential", **keywords)


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize(("kind", "name", "how", "value"), CASES)
def test_a_value_begins_where_it_is(kind, name, how, value, array):
    given = [value, 0.7, value] if array else value
    layer, plain = made(kind, name, given), made(kind, name, given)
    assert snn.parametrize(layer, name, how) is layer
    expected = plain.get_parameter(name).detach()
    # A rounding error of the number is one of 1/2 eps times its magnitude, times the slope of the function.
    own = layer.parametrizations[name].original.detach()
    bound = (1 + own.abs()) * EPS if how == "exp" else (2 + own.abs()) * EPS
    assert ((getattr(layer, name) - expected).abs() <= bound * expected).all()
    assert [key for key, _ in layer.named_parameters()] == [f"parametrizations.{name}.original"]
    torch.testing.assert_close(layer(CURRENT), plain(CURRENT), rtol=1e-4, atol=1e-5)


FUNCTIONS = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.logaddexp(0, x),
    "exp": np.exp,
}


@pytest.mark.parametrize(("kind", "name", "how", "value"), CASES)
def test_gradients_are_those_of_the_chain_rule(kind, name, how, value):
    layer = made(kind, name, value).double()
    snn.parametrize(layer, name, how)
    plain = made(kind, name, value).double()
    with torch.no_grad():
        plain.get_parameter(name).copy_(getattr(layer, name))
    current = CURRENT.double()
    assert_same_bits(layer(current).detach(), plain(current).detach())
    for one in (layer, plain):
        one(current).sum().backward()
    original, f, d = layer.parametrizations[name].original, FUNCTIONS[how], 1e-5
    x = original.item()
    slope = (f(x + d) - f(x - d)) / (2 * d)
    assert original.grad.item() == pytest.approx(plain.get_parameter(name).grad.item() * slope, rel=1e-6)


RANGES = {"sigmoid": (0.0, 1.0), "softplus": (0.0, np.inf), "exp": (0.0, np.inf)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("far", [-1e4, -100.0, -17.0, 0.0, 17.0, 100.0, 1e4])
@pytest.mark.parametrize(("name", "how"), [("alpha", "sigmoid"), ("tau", "softplus"), ("tau", "exp")])
def test_a_value_can_neither_leave_its_range_nor_die(name, how, far, dtype):
    layer = made(snn.ExpLeak, name, 0.9).to(dtype)
    snn.parametrize(layer, name, how)
    original = layer.parametrizations[name].original
    with torch.no_grad():
        original.fill_(far)
    low, high = RANGES[how]
    assert low < getattr(layer, name).item() < high
    alpha = layer.neuron.decays["alpha"]
    assert 0 < alpha <= 1
    # All inputs are positive, so the potential grows with the decay, and its gradient is above 0.
    layer(CURRENT.abs().to(dtype)).sum().backward()
    assert original.grad.isfinite()
    assert original.grad > 0
    if name == "alpha":
        assert alpha < 1


@pytest.mark.parametrize("how", ["softplus", "exp"])
@pytest.mark.parametrize("dt", [0.001, 1.0, 50.0])
def test_a_time_constant_is_bounded_in_units_of_the_step(how, dt):
    layer = made(snn.ExpLeak, "tau", dt, dt=dt)
    snn.parametrize(layer, "tau", how)
    with torch.no_grad():
        layer.parametrizations.tau.original.fill_(-1e4)
    assert layer.tau.item() == pytest.approx(dt / 16, rel=1e-5)
    srm = snn.SRM(kernel.Alpha(2.0), kernel.Alpha(2.0, -1.0), learn=("epsilon.tau",))
    snn.parametrize(srm, "epsilon.tau", how).epsilon_tau = 1e-9
    assert srm.epsilon_tau.item() == pytest.approx(1 / 16, rel=1e-5)


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_a_decay_at_the_end_of_its_range_moves_inside_and_away(end):
    layer = made(snn.ExpLeak, "alpha", end)
    snn.parametrize(layer, "alpha", "sigmoid")
    assert layer.alpha.item() != end
    assert layer.alpha.item() == pytest.approx(end, abs=2 * EPS)
    target = made(snn.ExpLeak, "alpha", 0.5)(CURRENT).detach()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.3)
    for _ in range(200):
        optimizer.zero_grad()
        (layer(CURRENT) - target).square().mean().backward()
        optimizer.step()
    assert layer.alpha.item() == pytest.approx(0.5, abs=1e-2)


def steps_until(layer, tau, lr):
    """The number of Adam's steps until a layer has learnt a time constant to 10 %, at most 2000."""
    target = made(snn.ExpLeak, "tau", tau)(CURRENT).detach()
    optimizer = torch.optim.Adam(layer.parameters(), lr=lr)
    for step in range(2000):
        if abs(layer.tau.item() - tau) < 0.1 * tau:
            return step
        optimizer.zero_grad()
        (layer(CURRENT) - target).square().mean().backward()
        optimizer.step()
    return 2000


def test_the_logarithm_of_a_time_constant_moves_at_adams_usual_rate():
    # docs/learning.md says so.
    assert steps_until(made(snn.ExpLeak, "tau", 20.0), 5.0, lr=1e-3) == 2000
    assert steps_until(snn.parametrize(made(snn.ExpLeak, "tau", 20.0), "tau", "exp"), 5.0, lr=1e-3) < 1900


OTHERS = [
    (snn.CubaLIF(0.9, tau_syn=3.0, learn=("alpha", "tau_syn")), {"alpha": "sigmoid", "tau_syn": "exp"}),
    (snn.ALIF(0.9, 0.8, 0.3, learn=("alpha_adapt",)), {"alpha_adapt": "sigmoid"}),
    (
        snn.SRM(kernel.Alpha(3.0), kernel.Exponential(0.8, -1.0), learn=("epsilon.tau", "nu.alpha")),
        {"epsilon.tau": "exp", "nu.alpha": "sigmoid"},
    ),
    (
        snn.AdLIF(
            tau=5.0, alpha_adapt=0.9, coupling=0.3, adapt_scale=0.2, learn=("tau", "alpha_adapt", "coupling")
        ),
        {"tau": "exp", "alpha_adapt": "sigmoid", "coupling": "softplus"},
    ),
    (snn.ResonateAndFire(0.9, 0.4, learn=("decay", "frequency")), {"decay": "sigmoid", "frequency": "exp"}),
]


@pytest.mark.parametrize(("layer", "kinds"), OTHERS, ids=lambda part: type(part).__name__)
def test_every_neuron(layer, kinds):
    layer = copy.deepcopy(layer)
    before = layer.neuron
    for name, kind in kinds.items():
        snn.parametrize(layer, name, kind)
    for name in kinds:
        np.testing.assert_allclose(layer.neuron._value_of(name), before._value_of(name), rtol=1e-5)
    layer(CURRENT).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    assert len(list(layer.parameters())) == len(kinds)


def parametrised(**keywords):
    layer = snn.LIF(tau=[2.0, 5.0, 20.0], threshold=0.5, learn=("tau", "threshold"), **keywords)
    snn.parametrize(layer, "tau", "exp")
    return snn.parametrize(layer, "threshold", "softplus")


def saved_and_loaded(layer):
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
    "torch.save": saved_and_loaded,
    "deepcopy of a network": lambda layer: copy.deepcopy(torch.nn.Sequential(layer))[0],
    "pickle of a pickle": lambda layer: pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(layer)))),
}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_copies_are_parametrised(make):
    layer = parametrised()
    twin = make(layer)
    assert isinstance(twin, snn.LIF)
    assert torch_parametrize.is_parametrized(twin, "tau")
    assert list(twin.state_dict()) == list(layer.state_dict())
    assert twin.neuron == layer.neuron
    assert_same_bits(twin(CURRENT).detach(), layer(CURRENT).detach())


@pytest.mark.parametrize("make", [copy.deepcopy, COPIES["pickle"]])
def test_a_parametrisation_is_removed_from_one_of_two_copies(make):
    layer = parametrised()
    twin = make(layer)
    torch_parametrize.remove_parametrizations(twin, "tau")
    torch_parametrize.remove_parametrizations(twin, "threshold")
    assert type(twin) is snn.LIF
    assert isinstance(twin.tau, torch.nn.Parameter)
    assert_same_bits(layer.tau.detach(), twin.tau.detach())  # the property of the layer is still there
    assert torch_parametrize.is_parametrized(layer, "tau")


@pytest.mark.parametrize("make", [copy.deepcopy, COPIES["pickle"]])
def test_copies_have_values_of_their_own(make):
    layer = parametrised()
    twin, before = make(layer), layer.neuron
    twin.tau = 3.0
    assert layer.neuron == before != twin.neuron
    twin(CURRENT).sum().backward()
    assert layer.parametrizations.tau.original.grad is None


class Square(torch.nn.Module):
    """A user's parametrisation."""

    def forward(self, x):
        return x**2

    def right_inverse(self, y):
        return y.sqrt()


def test_a_user_s_parametrisation_is_pickled():
    layer = snn.LIF(alpha=[0.9, 0.8, 0.7], learn=("alpha", "threshold"))
    torch_parametrize.register_parametrization(layer, "alpha", Square())
    twin = pickle.loads(pickle.dumps(layer))
    assert_same_bits(twin.alpha.detach(), layer.alpha.detach())
    assert list(twin.state_dict()) == list(layer.state_dict())


def test_a_pickle_of_a_network_keeps_shared_parameters():
    one, other = (made(snn.ExpLeak, "alpha", 0.9) for _ in range(2))
    other.alpha = one.alpha
    net = torch.nn.Sequential(one, other)
    twin = pickle.loads(pickle.dumps(net))
    assert twin[0].alpha is twin[1].alpha


def test_state_dict_round_trip():
    layer, other = parametrised(), parametrised()
    layer.tau = [4.0, 6.0, 8.0]
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.neuron == layer.neuron


def test_a_checkpoint_of_another_parametrisation_is_an_error():
    # The names of the parameters are the same, and so are their shapes.
    one, other = (
        snn.parametrize(snn.IF(learn=("threshold",)), "threshold", how) for how in ("exp", "softplus")
    )
    with pytest.raises(RuntimeError, match="parametrisation of threshold must be 'softplus', got 'exp'"):
        other.load_state_dict(one.state_dict())


def test_a_value_is_set_through_its_parametrisation():
    layer = parametrised()
    original = layer.parametrizations.tau.original
    layer.tau = 10.0
    torch.testing.assert_close(layer.tau, torch.full((3,), 10.0))
    assert layer.parametrizations.tau.original is original
    layer.tau = torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(layer.tau, torch.tensor([1.0, 2.0, 3.0]))
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"tau must be above 0, got {wrong}"):
            layer.tau = wrong
    torch.testing.assert_close(layer.tau, torch.tensor([1.0, 2.0, 3.0]))
    gain = snn.parametrize(snn.IF(gain=2.0, learn=("gain",)), "gain", "exp")
    with pytest.raises(
        ValueError, match=r"gain must be at least 0, as it is parametrised by 'exp', got -1\.0"
    ):
        gain.gain = -1.0
    assert gain.gain.item() == pytest.approx(2.0)


def test_moved_and_converted():
    layer = parametrised().bfloat16()
    assert layer.parametrizations.tau.original.dtype == torch.float32
    assert layer.double().tau.dtype == torch.float64
    assert layer(CURRENT.double()).dtype == torch.float64
    assert layer.to("meta").tau.is_meta


def test_moving_average_and_functional_call():
    net = torch.nn.Sequential(parametrised())
    average = torch.optim.swa_utils.AveragedModel(net)
    average.update_parameters(net)
    assert_same_bits(average(CURRENT).detach(), net(CURRENT).detach())
    value = torch.zeros(3, requires_grad=True)
    found = torch.func.functional_call(net, {"0.parametrizations.tau.original": value}, (CURRENT,))
    found.sum().backward()
    expected = snn.LIF(tau=[1.0] * 3, threshold=net[0].threshold.item())
    assert_same_bits(found.detach(), expected(CURRENT))
    assert value.grad.abs().sum() > 0


def test_a_number_that_is_nan_raises():
    layer = made(snn.ExpLeak, "alpha", 0.9)
    snn.parametrize(layer, "alpha", "sigmoid")
    with torch.no_grad():
        layer.parametrizations.alpha.original.fill_(float("nan"))
    with pytest.raises(ValueError, match="alpha must be finite, got nan"):
        layer(CURRENT)
    assert "alpha=nan" in repr(layer)


LIF = {"alpha": 0.9, "gain": -1.0, "v_min": -0.5, "learn": ("alpha", "threshold", "gain", "v_min")}
WRONG = {
    "no layer": (
        lambda: snn.parametrize(torch.nn.Linear(2, 2), "weight", "exp"),
        TypeError,
        "layer must be.*Linear",
    ),
    "no name": (lambda: snn.parametrize(snn.LIF(**LIF), 3, "exp"), ValueError, "name must be.*alpha.*got 3"),
    "unknown": (
        lambda: snn.parametrize(snn.LIF(**LIF), "beta", "exp"),
        ValueError,
        "name must be.*got 'beta'",
    ),
    "not learnt": (
        lambda: snn.parametrize(snn.LIF(0.9), "alpha", "exp"),
        ValueError,
        r"learnt value, \[\], got",
    ),
    "kind": (
        lambda: snn.parametrize(snn.LIF(**LIF), "alpha", "tanh"),
        ValueError,
        "kind must be one of.*'tanh'",
    ),
    "a decay above 1": (
        lambda: snn.parametrize(snn.LIF(**LIF), "alpha", "exp"),
        ValueError,
        r"kind must have values that are in \[0, 1\], as alpha, got 'exp'",
    ),
    "a bound": (
        lambda: snn.parametrize(snn.LIF(**LIF), "v_min", "exp"),
        ValueError,
        "kind must have values that are below the threshold, as v_min, got 'exp'",
    ),
    "a negative value": (
        lambda: snn.parametrize(snn.LIF(**LIF), "gain", "softplus"),
        ValueError,
        r"gain must be at least 0.*'softplus', got -1\.0",
    ),
    "above 1": (
        lambda: snn.parametrize(snn.IF(1.5, learn=("threshold",)), "threshold", "sigmoid"),
        ValueError,
        r"threshold must be in \[0, 1\].*'sigmoid', got 1\.5",
    ),
    "twice": (
        lambda: snn.parametrize(parametrised(), "tau", "exp"),
        ValueError,
        "not parametrised yet, got 'tau'",
    ),
    "meta": (
        lambda: snn.parametrize(snn.LIF(**LIF).to("meta"), "alpha", "sigmoid"),
        TypeError,
        "alpha must have values",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), WRONG.values(), ids=WRONG)
def test_errors(call, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        call()


def test_an_error_leaves_the_layer_as_it_is():
    layer = snn.LIF(**LIF)
    for name, kind in (("gain", "exp"), ("alpha", "softplus")):
        with pytest.raises(ValueError, match=name):
            snn.parametrize(layer, name, kind)
    assert not torch_parametrize.is_parametrized(layer)
    assert layer.neuron == snn.LIF(**LIF).neuron
    assert ec.LIF(0.9, v_min=-0.5) != layer.neuron
