"""A checkpoint has every value of a layer, learnt or not.

Property: a ``state_dict`` loaded into a layer of the same kind makes it compute the same, bit for bit. Values
that are not learnt are stored in float64, whatever becomes of the layer's or the file's dtype. A layer of
another kind or shape refuses it with an error that names the value, and stays as it is. Checkpoints of
earlier versions load with a warning. Programs that clone, average or convert a ``state_dict`` work on it. A
training that is resumed in another process goes on bit for bit. Witnesses: the layer that was saved, its
descriptor, and a training without interruption.
"""

import copy
import io
import os
import pickle
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest

import exodus_core as ec
from compare import assert_same_bits
from exodus_core import kernel
from neuron_examples import EXAMPLES

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")

from torch.nn.utils import parametrize, prune  # noqa: E402

CURRENT = 0.3 + 0.8 * torch.randn(12, 2, 3, generator=torch.Generator().manual_seed(0))


def near(value):
    """A number or array a little below a value; nested tuples too."""
    return 0.99 * np.asarray(value, np.float64)


def through_a_file(state_dict):
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def changed(neuron):
    """The descriptor with other values, one per neuron where it had one of them."""
    return neuron._with({name: near(neuron._value_of(name)) for name in neuron._parameter_names()})


NEURONS = {name: getattr(ec, name)(**example.keywords) for name, example in EXAMPLES.items()}
NEURONS |= {
    f"{name} of taus": getattr(ec, name)(**example.of_taus())
    for name, example in EXAMPLES.items()
    if example.taus
}
NEURONS |= {
    "per channel": ec.LIF(alpha=[0.1, 1 / 3, 0.999], threshold=np.float32([0.5, 0.6, 0.7]), v_min=-0.1),
    "other options": ec.LIF(tau=5.0, dt=0.3, gain="1-alpha", reset="zero", max_spikes=None),
    "SRM of taps": ec.SRM(kernel.FIR([0.5, 0.4, 0.1]), kernel.Exponential(0.9, scale=-1.0), max_spikes=3),
    "a matrix per channel": ec.StateSpace([[[0.9] * 3, -0.2], [0.3, 0.8]], [0.9, 0.2], [-0.8, 0.3]),
}
EACH = pytest.mark.parametrize("name", NEURONS)


@EACH
def test_values_that_are_not_learnt_are_loaded(name):
    saved, layer = (snn.from_neuron(n, output="potential") for n in (changed(NEURONS[name]), NEURONS[name]))
    assert not torch.equal(layer(CURRENT), saved(CURRENT))
    result = layer.load_state_dict(through_a_file(saved.state_dict()))
    assert result.missing_keys == result.unexpected_keys == []
    assert layer.neuron == saved.neuron
    assert_same_bits(layer(CURRENT), saved(CURRENT))


@EACH
def test_some_values_are_learnt(name):
    neuron = NEURONS[name]
    learn = neuron._parameter_names()[::2]
    saved, layer = (snn.from_neuron(n, learn=learn) for n in (changed(neuron), neuron))
    layer.load_state_dict(through_a_file(saved.state_dict()))
    assert layer.neuron == saved.neuron
    assert [p.requires_grad for p in layer.parameters()] == [True] * len(learn)


def test_the_step_is_loaded_too():
    saved, layer = snn.LIF(tau=5.0, dt=0.25), snn.LIF(tau=5.0)
    layer.load_state_dict(saved.state_dict())
    assert layer.neuron == saved.neuron


@pytest.mark.parametrize("convert", ["half", "bfloat16", "float", "double"])
def test_values_survive_a_change_of_dtype(convert):
    alpha = [0.999, 1 - 2**-40, 1 / 3]  # the second is 1 in float32
    layer = torch.nn.Sequential(snn.LIF(alpha=alpha), snn.Delay(100.3, learn=False))
    getattr(layer, convert)()
    assert_same_bits(layer[0].alpha, np.array(alpha))
    assert layer[1].delay == torch.tensor(100.3, dtype=torch.float64)
    other = torch.nn.Sequential(snn.LIF(alpha=[0.5] * 3), snn.Delay(101.0, learn=False))
    other.load_state_dict(through_a_file(layer.state_dict()))
    assert_same_bits(other[0].alpha, np.array(alpha))
    assert other[1].delay == torch.tensor(100.3, dtype=torch.float64)


RECIPES = {
    "cloned": lambda d: {key: value.detach().cpu().clone() for key, value in d.items()},
    "in half": lambda d: {key: value.half() for key, value in d.items()},
    "in bfloat16": lambda d: {key: value.to(torch.bfloat16) for key, value in d.items()},
    "averaged": lambda d: {
        key: torch.stack([v.float() for v in (value,) * 3]).mean(0) for key, value in d.items()
    },
    "summed": lambda d: {key: (value + value + value + value) / 4 for key, value in d.items()},
    "moving average": lambda d: {
        key: value.clone().mul_(0.999).add_(value, alpha=1 - 0.999) for key, value in d.items()
    },
    "as numbers": lambda d: {key: torch.tensor(value.tolist()) for key, value in d.items()},
    "on one tape": lambda d: dict(
        zip(
            d,
            torch.split(torch.cat([v.flatten() for v in d.values()]), [v.numel() for v in d.values()]),
            strict=True,
        )
    ),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_recipes_for_state_dicts_work(recipe):
    saved, layer = snn.LIF(alpha=[0.999, 0.1, 1 / 3], threshold=0.3), snn.LIF(alpha=[0.5] * 3)
    layer.load_state_dict(recipe(saved.state_dict()))
    assert layer.neuron == saved.neuron


@pytest.mark.parametrize("values", [(0.5, 1 / 3), ([0.5] * 3, [0.1, 1 / 3, 0.25])], ids=str)
def test_the_size_does_not_depend_on_the_numbers(values):
    sizes = {snn.CubaLIF(v, v, v, gain=v).get_extra_state().shape for v in values}
    assert len(sizes) == 1


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_distributed_checkpoint(tmp_path):
    # It is loaded into tensors of the sizes that the network has.
    checkpoint = pytest.importorskip("torch.distributed.checkpoint")
    dicts = pytest.importorskip("torch.distributed.checkpoint.state_dict")
    saved, net = (
        torch.nn.Sequential(
            torch.nn.Linear(3, 3), snn.LIF(alpha=a, learn=("threshold",)), snn.ExpLeak(tau=5 * a)
        )
        for a in (1 / 3, 0.5)
    )
    saved[1].threshold = 0.25
    checkpoint.save(dicts.get_model_state_dict(saved), checkpoint_id=tmp_path)
    stored = dicts.get_model_state_dict(net)
    checkpoint.load(stored, checkpoint_id=tmp_path)
    dicts.set_model_state_dict(net, stored)
    assert [layer.neuron for layer in net[1:]] == [layer.neuron for layer in saved[1:]]
    assert_same_bits(net(CURRENT).detach(), saved(CURRENT).detach())


def test_an_ensemble_by_vmap():
    nets = [torch.nn.Sequential(torch.nn.Linear(3, 3), snn.LIF(0.9, learn=("alpha",))) for _ in range(3)]
    values = torch.func.stack_module_state(nets)
    base = copy.deepcopy(nets[0]).to("meta")
    found = torch.func.vmap(lambda values: torch.func.functional_call(base, values, (CURRENT,)))(values[0])
    for net, spikes in zip(nets, found, strict=True):
        torch.testing.assert_close(spikes, net(CURRENT))


def test_functional_call_takes_a_state_dict():
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), snn.LIF(tau=3.0, learn=("tau",)))
    expected = net(CURRENT)
    before = set(vars(net[1]))
    assert_same_bits(torch.func.functional_call(net, net.state_dict(), CURRENT).detach(), expected.detach())
    assert set(vars(net[1])) == before


KINDS = {
    "neuron": (snn.LIF(0.9), snn.ExpLeak(0.9), r"neuron must be ExpLeak, got LIF"),
    "reset": (snn.LIF(0.9), snn.LIF(0.9, reset="zero"), r"reset must be 'zero', got 'subtract'"),
    "max_spikes": (snn.IF(max_spikes=2), snn.IF(max_spikes=None), r"max_spikes must be None, got 2"),
    "a bound": (snn.LIF(0.9), snn.LIF(0.9, v_min=-1.0), r"v_min must be a number, got None"),
    "no bound": (snn.LIF(0.9, v_min=-1.0), snn.LIF(0.9), r"v_min must be None, got a number"),
    "time constant": (snn.LIF(0.9), snn.LIF(tau=3.0), r"alpha must be None, got a number"),
    "gain": (snn.LIF(0.9), snn.LIF(0.9, gain="1-alpha"), r"gain must be '1-alpha', got a number"),
    "kernel": (
        snn.SRM(kernel.Alpha(3.0), kernel.Alpha(2.0)),
        snn.SRM(kernel.Alpha(3.0), kernel.Exponential(0.5)),
        r"nu must be 'Exponential', got 'Alpha'",
    ),
    "shape": (snn.LIF([0.9, 0.8]), snn.LIF([0.9] * 3), r"size mismatch for LAYERalpha.*\(3,\), got \(2,\)"),
    "a number": (snn.LIF(0.9), snn.LIF([0.9] * 3), r"size mismatch for LAYERalpha.*\(3,\), got \(\)"),
    "an array": (snn.LIF([0.9] * 3), snn.LIF(0.9), r"size mismatch for LAYERalpha.*\(\), got \(3,\)"),
    "taps": (
        snn.SRM(kernel.FIR([1.0, 0.5]), kernel.Alpha(2.0)),
        snn.SRM(kernel.FIR([1.0, 0.5, 0.1]), kernel.Alpha(2.0)),
        r"size mismatch for LAYERepsilon_taps.*\(3,\), got \(2,\)",
    ),
    "order": (
        snn.AdLIF(0.9, 0.9, 0.1, 0.1),
        snn.AdLIF(0.9, 0.9, 0.1, 0.1, order="symplectic"),
        r"order must be 'symplectic', got 'adaptation_first'",
    ),
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("saved", "layer", "message"), KINDS.values(), ids=KINDS)
def test_another_kind_or_shape_is_an_error(saved, layer, message, strict):
    before = layer.neuron
    for prefix, module, stored in (
        ("", layer, saved.state_dict()),
        ("1.", torch.nn.Sequential(torch.nn.Identity(), layer), {"1._extra_state": saved.get_extra_state()}),
    ):
        said = message.replace("LAYER", re.escape(prefix))
        start = "" if "LAYER" in message else re.escape(prefix)
        with pytest.raises(RuntimeError, match=f"(?s)loading state_dict.*{start}{said}"):
            module.load_state_dict(stored, strict=strict)
    with pytest.raises(ValueError, match=message.replace("LAYER", "")):
        layer.set_extra_state(saved.get_extra_state())
    assert layer.neuron == before


@pytest.mark.parametrize(
    "stored", [None, {}, "LIF", torch.zeros(3), torch.tensor([0.5, -1.0]), torch.full((2,), 999.0)], ids=str
)
def test_what_is_no_extra_state_is_an_error(stored):
    layer = snn.LIF(0.9)
    if stored is not None:
        with pytest.raises(RuntimeError, match="_extra_state: the extra state of a layer must be one"):
            layer.load_state_dict({"_extra_state": stored})
    with pytest.raises(ValueError, match="the extra state of a layer must be one"):
        layer.set_extra_state(stored)
    assert layer.neuron == ec.LIF(0.9)


EDITED = {
    "a value out of its domain": ("0.9", "1.5", r"alpha must be in \[0, 1\], got 1.5"),
    "a value that is no number": ("0.9", '"a lot"', "alpha must be a number"),
    "a neuron of another version": ('"LIF"', '"NewLIF"', "neuron must be one of this version.*NewLIF"),
    "a field of another version": ('"threshold"', '"limit"', "neuron must be one of this version.*limit"),
}


@pytest.mark.parametrize(("old", "new", "message"), EDITED.values(), ids=EDITED)
def test_what_this_version_cannot_read_is_an_error(old, new, message):
    layer, stored = snn.LIF(0.9), snn.LIF(0.9).get_extra_state()
    text = bytes(stored.int().tolist()).decode()
    assert old in text
    with pytest.raises(RuntimeError, match=rf"(?s)_extra_state.*{message}"):
        layer.load_state_dict({"_extra_state": torch.tensor(list(text.replace(old, new).encode()))})
    assert layer.neuron == ec.LIF(0.9)


def test_a_surrogate_in_the_place_of_a_neuron_is_an_error():
    layer = snn.LIF(0.9)
    text = '{}\n{"kind":"ATan","given":{}}'
    with pytest.raises(RuntimeError, match="must be a neuron, got ATan"):
        layer.load_state_dict({"_extra_state": torch.tensor(list(text.encode()))})


@pytest.mark.parametrize("learn", [(), ("alpha",)])
def test_an_earlier_checkpoint_loads_with_a_warning(learn):
    saved, net = (torch.nn.Sequential(torch.nn.Linear(3, 3), snn.LIF(a, learn=learn)) for a in (0.5, 0.25))
    stored = {key: value for key, value in saved.state_dict().items() if "_extra_state" not in key}
    message = r"(?s)1\._extra_state.*LIF.*keeps its own.*alpha=0.25"
    with pytest.warns(UserWarning, match=message) as warned:
        result = net.load_state_dict(stored)
    assert [warning.filename for warning in warned] == [__file__]
    assert result.missing_keys == result.unexpected_keys == []
    assert net[1].neuron == (saved if learn else net)[1].neuron
    assert torch.equal(net[0].weight, saved[0].weight)


def test_a_checkpoint_of_this_version_loads_without_a_warning():
    net = torch.nn.Sequential(snn.Recurrent(snn.LIF(0.9), 3), snn.Delay(1.0, 3), snn.ExpLeak(0.9))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.load_state_dict(through_a_file(net.state_dict()))


def test_a_learnt_value_becomes_one_that_is_not_learnt_and_back():
    trained, fixed = snn.LIF(alpha=[0.5] * 3, learn=("alpha",)), snn.LIF(alpha=[0.1] * 3)
    trained.alpha = [0.25, 0.5, 1.0]
    result = fixed.load_state_dict(through_a_file(trained.state_dict()))
    assert result.missing_keys == result.unexpected_keys == []
    assert_same_bits(fixed.alpha, np.float32([0.25, 0.5, 1.0]))
    again = snn.LIF(alpha=[0.1] * 3, learn=("alpha",))
    again.load_state_dict(fixed.state_dict())
    assert isinstance(again.alpha, torch.nn.Parameter)
    assert again.neuron == trained.neuron
    each = snn.LIF(alpha=0.1, learn={"alpha": (3,)})
    each.load_state_dict(snn.LIF(alpha=0.75).state_dict())
    assert_same_bits(each.alpha.detach(), np.float32([0.75] * 3))


def test_a_learnt_value_that_another_layer_has_no_room_for():
    trained = snn.LIF(alpha=[0.5] * 3, learn=("alpha",))
    with pytest.raises(RuntimeError, match=r"size mismatch for alpha: its shape must be \(\), got \(3,\)"):
        snn.LIF(alpha=0.5).load_state_dict(trained.state_dict())
    with pytest.raises(RuntimeError, match=r"size mismatch for alpha: its shape must be \(2,\), got \(3,\)"):
        snn.LIF(alpha=0.5, learn={"alpha": (2,)}).load_state_dict(snn.LIF(alpha=[0.5] * 3).state_dict())
    with pytest.raises(RuntimeError, match="alpha, which was learnt, must be in the state_dict"):
        snn.LIF(alpha=0.5).load_state_dict({"_extra_state": snn.LIF(0.5, learn=("alpha",)).get_extra_state()})


def test_a_bound_is_in_range_of_a_threshold_that_was_learnt():
    # 0.5 is above the threshold with which the second layer was built.
    saved, layer = (
        snn.LIF(0.9, threshold=t, v_min=v, learn=("threshold",)) for t, v in ((2.0, 0.5), (0.2, 0.1))
    )
    layer.load_state_dict(saved.state_dict())
    assert layer.neuron == saved.neuron


def test_a_layer_without_data_takes_a_state_dict_without_data():
    layer = snn.LIF(0.9, learn=("alpha",))
    stored = {key: value.to("meta") for key, value in layer.state_dict().items()}
    with torch.device("meta"):
        twin = snn.LIF(0.5, learn=("alpha",))
        assert not twin.state_dict()["_extra_state"].is_meta
        twin.load_state_dict(stored)
    assert twin.alpha.is_meta


def test_a_fixed_delay_beyond_the_longest_is_an_error():
    saved, layer = snn.Delay(5.0, learn=False), snn.Delay(2.0, learn=False)
    with pytest.raises(RuntimeError, match=r"delay must be in \[0, 2\], got 5\.0"):
        layer.load_state_dict(saved.state_dict())
    assert layer.delay == 2.0


def test_moving_average_of_a_network():
    net = torch.nn.Sequential(snn.LIF(alpha=0.9, threshold=0.5, learn=("alpha",)))
    average = torch.optim.swa_utils.AveragedModel(net)
    average.update_parameters(net)
    net[0].alpha = 0.5
    average.update_parameters(net)
    assert average.module[0].alpha.item() == pytest.approx(0.7)
    assert average.module[0].threshold == 0.5
    other = torch.optim.swa_utils.AveragedModel(
        torch.nn.Sequential(snn.LIF(alpha=0.1, threshold=0.1, learn=("alpha",)))
    )
    other.load_state_dict(through_a_file(average.state_dict()))
    assert other.module[0].neuron == average.module[0].neuron


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_copies_load_and_store_as_the_layer(make):
    layer = snn.LIF(alpha=0.9, threshold=[0.5, 0.6, 0.7])
    layer.threshold = [0.2, 0.3, 0.4]
    twin = make(layer)
    assert_same_bits(twin.state_dict()["_extra_state"], layer.state_dict()["_extra_state"])
    twin.load_state_dict(snn.LIF(alpha=0.25, threshold=[0.1] * 3).state_dict())
    assert (twin.alpha, layer.alpha) == (0.25, 0.9)


def test_pruned_and_normalised_layers_are_stored():
    for change in (
        lambda layer: prune.random_unstructured(layer, "alpha", 0),
        lambda layer: torch.nn.utils.parametrizations.weight_norm(layer, "alpha", dim=None),
        lambda layer: parametrize.register_parametrization(layer, "alpha", torch.nn.Identity()),
    ):
        saved, layer = (
            snn.LIF(alpha=torch.full((3, 1), a), threshold=t, learn=("alpha",))
            for a, t in ((0.9, 0.3), (0.8, 0.5))
        )
        change(saved)
        change(layer)
        layer.load_state_dict(through_a_file(saved.state_dict()))
        current = CURRENT.movedim(1, 2)
        assert_same_bits(layer(current).detach(), saved(current).detach())
        assert layer.threshold == 0.3


TRAINING = """
import sys
import torch
import exodus_core.torch as snn

def built():
    torch.manual_seed(0)
    spiking = snn.CubaLIF(tau=5.0, tau_syn=3.0, learn={'tau', 'threshold', 'gain', 'tau_syn'})
    readout = snn.ExpLeak(tau=4.0, learn={'tau', 'gain'})
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), spiking, readout)
    snn.parametrize(net[2], 'tau', 'exp')
    groups = snn.parameter_groups(net, weight_decay=0.01, neuron_lr=0.05)
    return net, torch.optim.AdamW(groups, lr=0.01)

def train(net, optimizer, steps):
    for step in steps:
        current = torch.randn(20, 3, 4, generator=torch.Generator().manual_seed(step))
        loss = (net(current) - 0.1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

net, optimizer = built()
task, path = sys.argv[1:]
if task == 'begin':
    train(net, optimizer, range(4))
else:
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    stored = torch.load(path, weights_only=True)
    net.load_state_dict(stored['net'])
    optimizer.load_state_dict(stored['optimizer'])
    train(net, optimizer, range(4, 8))
torch.save({'net': net.state_dict(), 'optimizer': optimizer.state_dict()}, path)
"""


def test_training_resumed_in_another_process_goes_on_bit_for_bit(tmp_path):
    path = tmp_path / "checkpoint.pt"
    for seed, task in enumerate(("begin", "go on")):
        subprocess.run(
            [sys.executable, "-c", TRAINING, task, str(path)],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            check=True,
        )
    found, scope = torch.load(path, weights_only=True), {"__name__": "whole"}
    own = TRAINING.replace("range(4))", "range(8))").replace(
        "sys.argv[1:]", f"'begin', {str(tmp_path / 'whole')!r}"
    )
    exec(own, scope)
    expected = torch.load(tmp_path / "whole", weights_only=True)
    assert list(found["net"]) == list(expected["net"])
    for key, value in expected["net"].items():
        assert_same_bits(found["net"][key], value, key)
    for key, state in expected["optimizer"]["state"].items():
        assert all(
            torch.equal(found["optimizer"]["state"][key][name], value) for name, value in state.items()
        )
    assert len(expected["optimizer"]["state"]) == 8
