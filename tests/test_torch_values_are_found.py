"""A layer finds its values wherever torch keeps them.

Property: a layer uses the learnt values that torch parametrises, prunes, normalises, replicates, swaps or
moves, shows them as attributes, and gives them gradients. The same holds for a module as surrogate. Learnt
parameters have the neuron's order. Witness: a plain layer with the same values, bit for bit, and the chain
rule by hand.
"""

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

import exodus_core as ec
from compare import assert_same_bits
from exodus_core import kernel, surrogate

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")

from torch.nn.utils import parametrizations, parametrize, prune  # noqa: E402

CURRENT = 0.3 + 0.8 * torch.randn(12, 2, 3, generator=torch.Generator().manual_seed(0))
EACH = torch.tensor([0.5, 0.7, 0.9])


class Sigmoid(torch.nn.Module):
    """A common parametrisation: a decay between 0 and 1 from any number."""

    def forward(self, x):
        return torch.sigmoid(x)

    def right_inverse(self, y):
        return torch.logit(y)


def learning(**keywords):
    return snn.LIF(alpha=EACH, threshold=0.8, learn=("alpha", "threshold"), **keywords)


def assert_computes(layer, alpha, current=CURRENT):
    """Require the results of a plain layer with this decay, and `alpha` as the layer's attribute."""
    plain = snn.LIF(alpha=alpha.detach(), threshold=0.8, learn=("alpha",))
    assert_same_bits(layer.alpha.detach(), alpha.detach())
    assert_same_bits(layer.neuron.alpha, alpha.detach())
    assert_same_bits(layer(current).detach(), plain(current).detach())
    plain(current).sum().backward()
    return plain.alpha.grad


def test_parametrised():
    layer = learning()
    parametrize.register_parametrization(layer, "alpha", Sigmoid())
    assert set(dict(layer.named_parameters())) == {"threshold", "parametrizations.alpha.original"}
    slope = assert_computes(layer, layer.alpha)
    layer(CURRENT).sum().backward()
    own = layer.parametrizations.alpha.original
    expected = slope * (layer.alpha * (1 - layer.alpha)).detach()
    torch.testing.assert_close(own.grad, expected, rtol=1e-5, atol=0)
    assert "alpha=" in repr(layer)
    layer.alpha = torch.full((3,), 0.25)  # through the right inverse
    assert_computes(layer, layer.alpha)
    torch.testing.assert_close(layer.alpha, torch.full((3,), 0.25))
    layer.alpha = 0.5
    torch.testing.assert_close(layer.alpha, torch.full((3,), 0.5))
    parametrize.remove_parametrizations(layer, "alpha")
    assert isinstance(layer.alpha, torch.nn.Parameter)
    assert_computes(layer, layer.alpha)


def test_parametrised_is_evaluated_once_a_call():
    class Noisy(torch.nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return x + 0.01 * self.calls

    layer = learning()
    parametrize.register_parametrization(layer, "alpha", noisy := Noisy())
    before = noisy.calls
    layer(CURRENT).sum().backward()
    assert noisy.calls == before + 1


def test_kernels_value_parametrised():
    class Exp(torch.nn.Module):
        def forward(self, x):
            return torch.exp(x)

        def right_inverse(self, y):
            return torch.log(y)

    layer = snn.SRM(kernel.Alpha(3.0), kernel.Exponential(0.8, scale=-1.0), learn=("epsilon.tau",))
    plain = copy.deepcopy(layer)
    parametrize.register_parametrization(layer, "epsilon_tau", Exp())
    with torch.no_grad():
        plain.epsilon_tau.copy_(layer.epsilon_tau)
    assert layer.neuron == plain.neuron
    assert layer.epsilon == plain.neuron.epsilon
    for one in (layer, plain):
        one(CURRENT).sum().backward()
    found = layer.parametrizations.epsilon_tau.original.grad
    torch.testing.assert_close(found, plain.epsilon_tau.grad * plain.epsilon_tau.detach())


def test_loading_what_is_not_finite_into_a_parametrised_layer():
    layer = learning()
    parametrize.register_parametrization(layer, "alpha", Sigmoid())
    state = layer.state_dict()
    state["parametrizations.alpha.original"] = torch.full((3,), torch.nan)
    with pytest.raises(RuntimeError, match=r"(?s)parametrizations\.alpha\.original.*finite"):
        layer.load_state_dict(state)


def test_pruned():
    layer = learning()
    prune.custom_from_mask(layer, "alpha", torch.tensor([1.0, 0.0, 1.0]))
    slope = assert_computes(layer, EACH * torch.tensor([1.0, 0.0, 1.0]))
    with torch.no_grad():
        layer.alpha_orig[0] = 0.25
    layer(CURRENT).sum().backward()  # applies the mask again
    assert layer.alpha[0] == 0.25
    assert layer.alpha_orig.grad[1] == 0
    assert layer.alpha_orig.grad[2] == slope[2]
    prune.remove(layer, "alpha")
    assert isinstance(layer.alpha, torch.nn.Parameter)
    assert_computes(layer, torch.tensor([0.25, 0.0, 0.9]))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
@pytest.mark.parametrize("normalise", [torch.nn.utils.weight_norm, parametrizations.weight_norm])
def test_normalised(normalise):
    layer = snn.LIF(alpha=EACH[:, None], threshold=0.8, learn=("alpha",))
    normalise(layer, "alpha", dim=None)  # over the whole: the direction of a single value has no gradient
    assert len(list(layer.parameters())) == 2
    current = CURRENT.movedim(1, 2)
    layer(current).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())
    assert_computes(layer, layer.alpha, current)


def test_replicated():
    # As torch.nn.parallel.replicate does, without GPUs.
    layer = learning(surrogate=Wide())
    replica = layer._replicate_for_data_parallel()
    for name, parameter in layer.named_parameters(recurse=False):
        setattr(replica, name, parameter * 1.0)
    replica.surrogate = layer.surrogate._replicate_for_data_parallel()
    replica.surrogate.slope = layer.surrogate.slope * 1.0
    assert list(replica.parameters()) == []
    assert_computes(replica, EACH)
    replica(CURRENT).sum().backward()
    expected = copy.deepcopy(layer)
    expected.zero_grad()
    expected(CURRENT).sum().backward()
    assert_same_bits(layer.alpha.grad, expected.alpha.grad)
    assert_same_bits(layer.threshold.grad, expected.threshold.grad)


def test_swapped_by_functional_call():
    net = torch.nn.Sequential(learning())
    value = torch.tensor([0.2, 0.3, 0.4], requires_grad=True)
    found = torch.func.functional_call(net, {"0.alpha": value}, (CURRENT,))
    found.sum().backward()
    plain = snn.LIF(alpha=value.detach(), threshold=0.8, learn=("alpha",))
    plain(CURRENT).sum().backward()
    assert_same_bits(value.grad, plain.alpha.grad)
    assert net[0].alpha.grad is None
    assert_computes(net[0], EACH)


def test_set_by_hand():
    layer = learning()
    layer.alpha = torch.nn.Parameter(torch.tensor([0.1, 0.2, 0.3]))
    assert_computes(layer, torch.tensor([0.1, 0.2, 0.3]))
    del layer.alpha
    layer.alpha = torch.tensor([0.3, 0.2, 0.1])  # as a hypernetwork would
    assert_computes(layer, torch.tensor([0.3, 0.2, 0.1]))
    del layer.alpha
    with pytest.raises(AttributeError, match="alpha"):
        layer.alpha  # noqa: B018
    with pytest.raises(AttributeError, match="alpha"):
        layer(CURRENT)


def test_shared_between_layers():
    one, other = learning(), learning()
    other.alpha = one.alpha
    for layer in (one, other):
        layer(CURRENT).sum().backward()
    plain = learning()
    plain(CURRENT).sum().backward()
    torch.testing.assert_close(one.alpha.grad, 2 * plain.alpha.grad)


def test_in_shared_memory():
    layer = learning().share_memory()
    assert layer.alpha.is_shared()
    assert_computes(layer, EACH)


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda layer: pickle.loads(pickle.dumps(layer))}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_copies_of_a_layer_with_a_module_as_surrogate(make):
    layer = learning(surrogate=Wide())
    twin = make(layer)
    assert isinstance(twin.surrogate, Wide)
    assert twin.surrogate is not layer.surrogate
    assert_same_bits(gradient(twin), gradient(layer))


def test_deepcopy_of_a_parametrised_layer():
    layer = learning()
    parametrize.register_parametrization(layer, "alpha", Sigmoid())
    twin = copy.deepcopy(layer)
    assert_computes(twin, layer.alpha)
    with torch.no_grad():
        twin.parametrizations.alpha.original.zero_()
    assert_computes(twin, torch.full((3,), 0.5))
    assert_computes(layer, layer.alpha)


def test_pickle_that_has_its_surrogate_under_another_name():
    layer = learning(surrogate=Wide())
    state = layer.__getstate__()
    state["_modules"] = {"_surrogate": layer.surrogate}  # as an earlier version stored it
    old = snn.LIF.__new__(snn.LIF)
    old.__setstate__(state)
    assert old.surrogate is layer.surrogate
    assert set(old._modules) == {"surrogate"}


class Wide(torch.nn.Module):
    """A surrogate with a parameter."""

    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(0.1))

    def forward(self, potential, threshold):
        return 0.3 * torch.exp(-self.slope * (potential - threshold).abs())


class Empty(torch.nn.ModuleList):
    """A module whose truth value is false."""

    def forward(self, potential, threshold):
        return torch.zeros_like(potential)


def gradient(layer):
    current = CURRENT.clone().requires_grad_()
    layer(current).sum().backward()
    return current.grad


def function(potential, threshold):
    return 0.3 * torch.exp(-0.1 * (potential - threshold).abs())


def test_module_as_surrogate_given_or_set():
    expected = gradient(snn.LIF(0.9, surrogate=function))
    given, later = snn.LIF(0.9, surrogate=Wide()), snn.LIF(0.9)
    assert not torch.equal(gradient(later), expected)
    later.surrogate = Wide()
    for layer in (given, later):
        assert isinstance(layer.surrogate, Wide)
        assert_same_bits(gradient(layer), expected)
        assert dict(layer.named_children()) == {"surrogate": layer.surrogate}
        assert set(layer.state_dict()) == {"_extra_state", "surrogate.slope"}
        assert layer.double().surrogate.slope.dtype == torch.float64
        assert layer.eval().surrogate.training is False


def test_surrogate_replaced_and_deleted():
    layer = snn.LIF(0.9, surrogate=Wide())
    for chosen in (surrogate.ATan(), Wide(), Wide(), function, Empty()):
        layer.surrogate = chosen
        assert layer.surrogate is chosen
        assert list(layer.children()) == ([chosen] if isinstance(chosen, torch.nn.Module) else [])
    layer.surrogate = surrogate.ATan()
    assert_same_bits(gradient(layer), gradient(snn.LIF(0.9, surrogate=surrogate.ATan())))
    for chosen in (surrogate.ATan(), Wide()):
        layer.surrogate = chosen
        del layer.surrogate
        assert layer.surrogate == surrogate.SingleExponential()
        assert list(layer.children()) == []
    with pytest.raises(TypeError, match="surrogate must be"):
        layer.surrogate = Wide
    assert layer.surrogate == surrogate.SingleExponential()


COLLECTIONS = [set, frozenset, list, tuple, dict.fromkeys, iter, lambda names: names[::-1]]


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_learnt_names_come_in_the_neurons_order(collection):
    names = ["threshold", "tau", "gain"]
    learn = collection(names)
    if isinstance(learn, dict):
        learn = dict.fromkeys(names, ())
    layer = snn.LIF(tau=5.0, learn=learn)
    order = [name for name in layer._given._parameter_names() if name in names]
    assert [name for name, _ in layer.named_parameters()] == order
    assert f"learn={tuple(order)}" in repr(layer)


def test_order_of_a_set_is_that_of_every_process():
    code = (
        "import exodus_core.torch as snn\n"
        "layer = snn.CubaLIF(tau=5.0, tau_syn=3.0, learn={'tau', 'threshold', 'gain', 'tau_syn'})\n"
        "print(*(name for name, _ in layer.named_parameters()))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in range(3)
    }
    assert found == {"tau tau_syn gain threshold\n"}


def test_kernels_values_that_are_not_learnt():
    layer = snn.SRM(kernel.Alpha(3.0), kernel.Alpha(2.0, scale=-1.0), learn=("epsilon.tau",))
    assert (layer.epsilon_scale, layer.nu_tau, layer.nu_scale) == (1.0, 2.0, -1.0)
    layer.nu_tau = torch.tensor(4.0)
    layer.epsilon_scale = 0.5
    assert layer.neuron == ec.SRM(kernel.Alpha(3.0, scale=0.5), kernel.Alpha(4.0, scale=-1.0))
    with pytest.raises(ValueError, match="tau must be above 0"):
        layer.nu_tau = -1.0
    with pytest.raises(AttributeError, match="nu_alpha"):
        layer.nu_alpha  # noqa: B018


def test_values_set_that_are_not_learnt():
    layer = snn.LIF(0.9, learn=("threshold",))
    layer.alpha = EACH
    assert_same_bits(layer.alpha, EACH)
    expected = ec.forward(ec.LIF(alpha=EACH.numpy(), threshold=1.0), CURRENT.numpy())
    assert_same_bits(layer(CURRENT).detach(), expected.spikes)
    assert isinstance(layer.alpha, np.ndarray)
