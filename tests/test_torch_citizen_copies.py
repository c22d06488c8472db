"""Copies, averages and files of networks with these layers are those of any torch module.

Property: a network that is copied, pickled, or saved with `weights_only` and loaded into a fresh one, here or
in another process, trains on exactly as the original. `AveragedModel` has the average of the parameters, and
batch statistics are computed through layers. Utilities for modules and parameters see the learnt values.
Witness: the original network, bit for bit, and averages by hand.
"""

import copy
import io
import pickle
import subprocess
import sys

import pytest

from compare import assert_same_bits
from neuron_examples import SCALARS

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")
swa = pytest.importorskip("torch.optim.swa_utils")

CURRENT = 0.3 + 0.8 * torch.randn(12, 2, 3, generator=torch.Generator().manual_seed(0))


class Network(torch.nn.Module):
    """Every kind of module of the package, and torch's own between them."""

    def __init__(self, name="LIF"):
        super().__init__()
        neuron = SCALARS[name]
        self.inner = torch.nn.Linear(3, 4)
        torch.nn.init.normal_(self.inner.weight, std=1.5)  # the layer behind it fires
        self.delay = snn.Delay([0.5, 1.25, 2.0, 0.0], most=3)
        self.hidden = snn.Recurrent(snn.LIF(tau=5.0, threshold=0.4, learn={"tau": (4,)}), 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.middle = snn.from_neuron(neuron, learn=neuron._parameter_names(), output="potential")
        self.readout = snn.ExpLeak(tau=8.0, gain="1-alpha", learn=("tau",))

    def forward(self, current):
        spikes = self.hidden(self.delay(self.inner(current)))
        return self.readout(self.middle(self.norm(spikes.flatten(0, 1)).unflatten(0, spikes.shape[:2])))


def network(name="LIF", seed=0):
    torch.manual_seed(seed)
    return Network(name)


def trained(net, steps=3):
    """Train, and return the losses, which change in the last bit if anything else does."""
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(steps):
        loss = net(CURRENT).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def by_torch_save(net):
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def by_weights_only(net):
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    fresh = Network("LIF")
    result = fresh.load_state_dict(torch.load(file, weights_only=True))
    assert result.missing_keys == result.unexpected_keys == []
    return fresh


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
    "torch.save": by_torch_save,
    "weights_only": by_weights_only,
}
EACH_COPY = pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)


@EACH_COPY
def test_a_copy_trains_on_as_the_original(make):
    net = network()
    trained(net)
    twin = make(net)
    before = copy.deepcopy(net.state_dict())
    losses = trained(twin)
    for name, value in net.named_parameters():  # the copy shares no memory
        assert_same_bits(value.detach(), before[name])
    assert len(set(losses)) == 3
    assert trained(net) == losses
    for one, other in zip(net.parameters(), twin.parameters(), strict=True):
        assert_same_bits(one.detach(), other.detach())


@pytest.mark.parametrize("name", SCALARS)
def test_every_neuron_is_copied(name):
    net = network(name)
    losses = [trained(make(net)) for make in (copy.deepcopy, COPIES["pickle"])]
    assert losses[0] == losses[1] == trained(net)


def test_layers_that_are_one_stay_one_in_a_copy():
    layer = snn.LIF(0.9, learn=("alpha",))
    net = torch.nn.Sequential(layer, torch.nn.Linear(3, 3), layer)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert twin[0] is twin[2] is not layer
        assert len(list(twin.parameters())) == len(list(net.parameters())) == 3


def test_a_copy_has_its_own_gradients_and_keeps_the_hooks():
    net, seen = network(), []
    net.middle.register_forward_hook(lambda module, args, result: seen.append(module))
    net(CURRENT).sum().backward()
    before = net.middle.alpha.grad.clone()
    twin = copy.deepcopy(net)
    twin(CURRENT).square().sum().backward()
    assert seen == [net.middle, twin.middle]
    assert before.any()
    assert_same_bits(net.middle.alpha.grad, before)
    assert not torch.equal(twin.middle.alpha.grad, before)


LOADS = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from test_torch_citizen_copies import network, trained
net = network(seed=1)
net.load_state_dict(torch.load(sys.argv[2], weights_only=True))
torch.save(trained(net), sys.argv[3])
"""


def test_a_network_trains_on_in_another_process(tmp_path, request):
    net = network()
    trained(net)
    torch.save(net.state_dict(), tmp_path / "state.pt")
    files = [str(tmp_path / "state.pt"), str(tmp_path / "losses.pt")]
    command = [sys.executable, "-c", LOADS, str(request.path.parent), *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert torch.load(files[1], weights_only=True) == trained(net)


def averages(updates):
    """The parameters of an averaged model, and those of the network after each update."""
    net = network()
    average = swa.AveragedModel(net, **updates)
    seen = []
    for _ in range(3):
        trained(net, steps=1)
        average.update_parameters(net)
        seen.append({name: p.detach().clone() for name, p in net.named_parameters()})
    return average, seen


def test_an_averaged_model_has_the_mean_of_the_parameters():
    average, seen = averages({})
    for name, value in average.module.named_parameters():
        mean = torch.stack([one[name] for one in seen]).mean(0)
        torch.testing.assert_close(value.detach(), mean)
        assert not torch.equal(value.detach(), seen[-1][name])


def test_a_moving_average_is_that_of_the_parameters():
    average, seen = averages({"multi_avg_fn": swa.get_ema_multi_avg_fn(0.5)})
    for name, value in average.module.named_parameters():
        moving = seen[0][name].lerp(seen[1][name], 0.5).lerp(seen[2][name], 0.5)
        torch.testing.assert_close(value.detach(), moving)


def test_an_averaged_model_runs_with_its_own_values():
    average, _ = averages({})
    average.eval()
    plain = network(seed=2)
    plain.load_state_dict(average.module.state_dict())
    assert_same_bits(average(CURRENT).detach(), plain.eval()(CURRENT).detach())
    again = pickle.loads(pickle.dumps(average))
    assert_same_bits(again(CURRENT).detach(), average(CURRENT).detach())


def test_batch_statistics_are_those_of_the_spikes_that_reach_them():
    net = network()
    swa.update_bn([CURRENT, CURRENT.flip(0)], net)
    with torch.no_grad():
        spikes = [net.hidden(net.delay(net.inner(x))).flatten(0, 1) for x in (CURRENT, CURRENT.flip(0))]
    mean = torch.stack([x.mean(0) for x in spikes]).mean(0)
    assert mean.any()
    torch.testing.assert_close(net.norm.running_mean, mean)


def test_utilities_see_every_learnt_value():
    net = network()
    names = dict(net.named_parameters())
    assert {"hidden.weight", "hidden.layer.tau", "middle.alpha", "readout.tau", "delay.delay"} <= set(names)
    flat = torch.nn.utils.parameters_to_vector(net.parameters())
    before = net(CURRENT)
    torch.nn.utils.vector_to_parameters(0.97 * flat, net.parameters())
    assert not torch.equal(net(CURRENT), before)
    net(CURRENT).square().sum().backward()
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 1e-3)
    assert norm > 1e-3
    total = torch.stack([p.grad.norm() for p in net.parameters()]).norm()
    torch.testing.assert_close(total, torch.tensor(1e-3), rtol=1e-3, atol=0.0)
    kinds = []
    net.apply(lambda module: kinds.append(type(module).__name__))
    assert kinds.count("LIF") == 2
    assert not any(p.requires_grad for p in net.requires_grad_(False).parameters())


@pytest.mark.parametrize("way", [{"foreach": True}, {"fused": True}, {"differentiable": False}], ids=str)
def test_optimisers_of_every_implementation_train_learnt_values(way):
    net = network()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, **way)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    net(CURRENT).square().sum().backward()
    optimizer.step()
    for name, value in net.named_parameters():
        moved = not torch.equal(value.detach(), before[name])
        assert moved or not value.grad.any(), name


def test_a_hook_for_all_modules_sees_layers():
    seen = []
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda module, args, result: seen.append(type(module).__name__)
    )
    try:
        network()(CURRENT)
    finally:
        handle.remove()
    assert seen == ["Linear", "Delay", "Recurrent", "BatchNorm1d", "LIF", "ExpLeak", "Network"]


def test_modes_and_moves_return_the_module():
    net = network()
    assert net.eval().train().to(torch.float64).double().float().cpu() is net
    assert net.to(torch.float64)(CURRENT.double()).dtype == torch.float64
