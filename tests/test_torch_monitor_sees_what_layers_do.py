"""`Monitor` tells what the layers do, and changes nothing.

Witness: the layers' traces counted in numpy, operations counted spike by spike and output by output, and the
outputs, gradients, hooks and memory of the network without it.
"""

import copy
import gc
import io
import pickle
import warnings
import weakref

import numpy as np
import pytest

from exodus_core import surrogate

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")
from torch import nn  # noqa: E402


def spikes(*shape, rate=0.2, seed=0):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


def network(time_dim=1):
    torch.manual_seed(0)
    return snn.Sequential(
        *(nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), snn.LIF(0.9, threshold=0.3)),
        *(nn.Flatten(), nn.Linear(4 * 16, 10), snn.Recurrent(snn.LIF(0.8, threshold=0.2), 10)),
        *(nn.Linear(10, 3), snn.ExpLeak(0.95)),
        time_dim=time_dim,
    )


X = spikes(3, 20, 2, 8, 8)


def traces(net, x):
    """The trace of each layer, from the layers' own output."""
    net = copy.deepcopy(net)
    found, hooks = {}, []
    for name, module in net.named_modules():
        if isinstance(module, (snn.Layer, snn.Recurrent)):
            getattr(module, "layer", module).output = "trace"
            hook = lambda module, given, result, name=name: found.setdefault(name, result)  # noqa: E731
            hooks.append(module.register_forward_hook(hook))
    with torch.no_grad():
        net(x)
    return found


def test_rates_ranges_and_shares_are_those_of_the_traces():
    net, other = network(), spikes(3, 20, 2, 8, 8, rate=0.01, seed=1)
    with snn.Monitor(net) as monitor:
        net(X)
        net(other)
    for name, key in (("1", "1"), ("4", "4.layer"), ("6", "6")):
        layer, (one, two) = monitor.layers[key], (traces(net, x)[name] for x in (X, other))
        assert (layer.calls, layer.time_dim, layer.sizes) == (2, 1, [(20, 3)])
        potential = torch.cat([one.potential, two.potential])
        assert layer.potential_min == potential.min().item()
        assert layer.potential_max == potential.max().item()
        if one.spikes is None:
            assert np.isnan(layer.rate) and np.isnan(layer.silent) and layer.neurons == 0
            continue
        fired = torch.cat([one.spikes, two.spikes])
        assert layer.rate == pytest.approx(fired.double().mean().item(), rel=1e-12)
        assert layer.neurons == fired[0, 0].numel()
        assert layer.silent == (fired.sum((0, 1)) == 0).double().mean().item()
        assert layer.saturated == (fired.amin((0, 1)) > 0).double().mean().item()


def test_shares_of_silent_and_saturated_neurons():
    layer = snn.LIF(0.5)
    current = torch.tensor([[5.0, 0.0, 1.0, -3.0]]).repeat(6, 2, 1)
    current[3, 1, 2] = -9.0
    with snn.Monitor(layer) as monitor:
        layer(current)
    assert (monitor.layers[""].silent, monitor.layers[""].saturated) == (0.5, 0.25)


def test_growth_is_that_of_the_layer():
    steep = surrogate.SingleExponential(width=0.1, scale=1.0)
    layer, x = snn.LIF(0.9, surrogate=steep), 0.4 * torch.rand(50, 2, 8)
    trace = snn.spike(x, layer.neuron)
    with snn.Monitor(layer, warn=False) as monitor:
        layer(x)
        layer(torch.zeros_like(x))  # only the first call is measured
    assert monitor.layers[""].growth == snn.growth(trace, steep) > 0
    with snn.Monitor(layer, growth=False) as monitor:
        layer(x)
    assert np.isnan(monitor.layers[""].growth)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_growth_in_two_bytes_is_that_of_the_same_input_in_float32(dtype):
    """Potential and spikes are the same in both, so the factors are as well."""
    steep = surrogate.SingleExponential(width=0.1, scale=1.0)
    layer, x = snn.ALIF(0.9, 0.95, 0.1, surrogate=steep), torch.rand(50, 2, 8).to(dtype)
    found = []
    for values in (x, x.float()):
        with snn.Monitor(layer) as monitor:
            layer(values)
        found.append(monitor.layers[""].growth)
    assert found[0] == found[1] > 0


CONVOLUTIONS = [
    (nn.Linear(6, 5), (4, 3, 6)),
    (nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (5, 4, 9)),
    (nn.Conv2d(2, 4, (3, 2), dilation=2), (3, 2, 8, 7)),
    (nn.Conv2d(2, 4, 3, padding="same"), (2, 5, 6)),  # without a batch
    (nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), (2, 1, 6, 6)),
    (nn.Conv3d(1, 2, 2), (2, 1, 4, 4, 4)),
    (nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1), (2, 2, 5, 5)),
]


@pytest.mark.parametrize(("module", "shape"), CONVOLUTIONS, ids=lambda one: str(one)[:20])
def test_accumulates_are_counted_spike_by_spike(module, shape):
    """Of each spike alone, the outputs that it changes are counted."""
    net = nn.Sequential(module, snn.LIF(0.9))
    x = spikes(*shape, rate=0.3) * (1 + spikes(*shape, rate=0.3, seed=1))  # some spikes count twice
    with torch.no_grad():
        module.weight.fill_(1.0)
        silent = module(torch.zeros_like(x))
        expected = 0.0
        for index in x.nonzero():
            alone = torch.zeros_like(x)
            alone[tuple(index)] = x[tuple(index)]
            expected += float(((module(alone) - silent).abs() > 0.5).sum() * x[tuple(index)])
        every = float((module(torch.ones_like(x)) - silent).sum())
    with snn.Monitor(net, warn=False) as monitor:
        net(x)
    found = monitor.synapses["0"]
    assert (found.accumulates, found.multiply_adds) == (expected, 0.0)
    assert found.dense == pytest.approx(every, rel=1e-6)
    assert found.energy == pytest.approx(0.9e-12 * expected)
    assert found.dense_energy == pytest.approx(4.6e-12 * found.dense)


def test_input_that_is_not_spikes_is_multiplied():
    net = nn.Sequential(nn.Linear(6, 5), snn.LIF(0.9))
    with snn.Monitor(net, warn=False) as monitor:
        net(torch.rand(7, 2, 6))
    found = monitor.synapses["0"]
    assert (found.accumulates, found.multiply_adds, found.dense) == (0.0, 7 * 2 * 30, 7 * 2 * 30)
    assert found.energy == found.dense_energy


def test_spikes_that_were_changed_in_place_are_looked_at_again():
    class Halved(nn.Module):
        def forward(self, x):
            return x.mul_(0.5)

    net = nn.Sequential(snn.LIF(0.9), Halved(), nn.Linear(6, 5), snn.LIF(0.9))
    with torch.no_grad(), snn.Monitor(net, warn=False) as monitor:
        net(2.0 * torch.rand(7, 2, 6))
    assert (monitor.synapses["2"].accumulates, monitor.synapses["2"].multiply_adds) == (0.0, 7 * 2 * 30)


def test_several_spikes_at_a_step_count_each():
    layer = snn.LIF(0.5, max_spikes=None)
    net = nn.Sequential(layer, nn.Linear(3, 5), snn.LIF(0.9))
    x = 4.0 * torch.rand(20, 2, 3) - 1.0
    fired = layer(x)
    assert fired.max() > 1
    with snn.Monitor(net, warn=False) as monitor:
        net(x)
    assert monitor.layers["0"].rate == pytest.approx(fired.double().mean().item())
    assert monitor.layers["0"].saturated == (fired.amin((0, 1)) > 0).double().mean().item()
    assert monitor.synapses["1"].accumulates == 5 * fired.sum().item()


class Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.layer = nn.Linear(4, 5), snn.LIF(0.8, threshold=0.1)

    def forward(self, x):
        return self.layer(self.linear(input=x))


def test_modules_that_are_called_with_keywords_are_counted():
    net, x = Keywords(), spikes(9, 2, 4)
    with snn.Monitor(net) as monitor:
        net(x)
    assert monitor.synapses["linear"].accumulates == 5 * x.sum().item() > 0


def test_inference_mode_gives_the_same_numbers():
    net = network()
    with snn.Monitor(net) as expected:
        net(X)
    with torch.inference_mode(), snn.Monitor(net) as monitor:
        net(X)
    assert monitor.summary() == expected.summary()


def test_operations_are_counted_exactly_under_autocast():
    net, x = nn.Sequential(nn.Conv2d(1, 1001, 3, padding=1), snn.LIF(0.9)), torch.ones(2, 1, 3, 3)
    with torch.autocast("cpu", torch.bfloat16), snn.Monitor(net, warn=False) as monitor:
        net(x)
    assert monitor.synapses["0"].accumulates == 2 * 1001 * (4 * 4 + 4 * 6 + 9)  # corners, edges, the middle


def test_gradient_transforms_are_watched():
    net = snn.Sequential(nn.Conv1d(4, 5, 2), nn.Flatten(), snn.LIF(0.8, threshold=0.1))
    x, values = spikes(9, 2, 4, 6), dict(net.named_parameters())
    loss = lambda values: torch.func.functional_call(net, values, (x,)).sum()  # noqa: E731
    with snn.Monitor(net) as monitor:
        found = torch.func.grad(loss)(values)
    assert monitor.layers["2"].rate == pytest.approx(net(x).double().mean().item())
    expected = torch.func.grad(loss)(values)
    assert all(torch.equal(found[name], expected[name]) for name in values)


def test_vmap_which_hides_values_is_an_error():
    net, x = nn.Sequential(nn.Linear(4, 5), snn.LIF(0.8, threshold=0.1)), spikes(9, 2, 4)
    message = r"Monitor cannot watch calls under torch\.func\.vmap"
    with snn.Monitor(net), pytest.raises(RuntimeError, match=message):
        torch.func.vmap(net, in_dims=1)(x)


def test_export_of_a_network_that_is_watched_is_an_error():
    net = nn.Sequential(nn.Linear(4, 5), snn.LIF(0.8))
    with (
        snn.Monitor(net),
        pytest.raises(RuntimeError, match="Monitor cannot watch a network that is exported"),
    ):
        torch.export.export(net, (spikes(9, 2, 4),), strict=False)


@pytest.mark.parametrize("pieces", ["whole", "chunks", "steps"])
def test_recurrent_weights_accumulate_for_each_spike(pieces):
    mask = np.triu(np.ones((5, 5)), 1)
    net, x, state = snn.Recurrent(snn.LIF(0.9), 5, mask=mask), 2.0 * torch.rand(9, 2, 5), None
    fired = net(x).detach()
    with snn.Monitor(net, warn=False) as monitor:
        if pieces == "steps":
            for frame in x:
                _, state = net.step(frame, state)
        else:
            for chunk in x.split(9 if pieces == "whole" else 4):
                _, state = net(chunk, state)
    fan_out = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0])
    assert monitor.synapses["layer"].accumulates == float((fired * fan_out).sum()) > 0
    assert monitor.synapses["layer"].dense == 9 * 2 * 10


def test_records_are_the_traces_with_time_first():
    net = network()
    with snn.Monitor(net, record=("spikes", "potential")) as monitor:
        net(X)
    for name, key in (("1", "1"), ("4", "4.layer"), ("6", "6")):
        trace = traces(net, X)[name]
        (potential,) = monitor.potential[key]
        assert torch.equal(potential, trace.potential.movedim(1, 0))
        assert not potential.requires_grad
        if trace.spikes is not None:
            assert torch.equal(monitor.spikes[key][0], trace.spikes.movedim(1, 0))
    assert "6" not in monitor.spikes


def test_single_steps_count_as_the_whole():
    net = snn.Sequential(nn.Linear(4, 5), snn.LIF(0.8, threshold=0.1))
    x, state = spikes(12, 3, 4), None
    with snn.Monitor(net, record="spikes") as whole:
        net(x)
    with snn.Monitor(net, record="spikes") as stepped:
        for frame in x:
            _, state = net.step(frame, state)
    assert torch.equal(torch.cat(stepped.spikes["1"]), whole.spikes["1"][0])
    one, two = whole.layers["1"], stepped.layers["1"]
    assert (one.rate, one.silent, one.saturated) == (two.rate, two.silent, two.saturated)
    assert whole.synapses["0"].accumulates == stepped.synapses["0"].accumulates


def test_nothing_changes_and_nothing_stays():
    net = network()
    plain, x = copy.deepcopy(net), X.clone().requires_grad_()
    expected = plain(x)
    expected.square().sum().backward()
    grad, x.grad = x.grad, None
    with snn.Monitor(net, record=("spikes", "potential")) as monitor:
        found = net(x)
        found.square().sum().backward()
        output = weakref.ref(found)
    assert torch.equal(found, expected) and torch.equal(x.grad, grad)
    for one, other in zip(net.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    for module in net.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
        assert "_observers" not in module.__dict__
    monitor.summary()
    net(x)
    assert monitor.layers["1"].calls == 1
    del found, expected
    gc.collect()
    assert output() is None


def test_hooks_go_with_an_error_too():
    net = network()
    with pytest.raises(ValueError, match="boom"), snn.Monitor(net):
        raise ValueError("boom")
    assert not any(m._forward_hooks or getattr(m, "_observers", ()) for m in net.modules())


def test_monitors_can_be_nested_but_not_entered_twice():
    net = network()
    outer = snn.Monitor(net)
    with outer:
        with snn.Monitor(net) as inner:
            net(X)
        net(X)
        with pytest.raises(RuntimeError, match="already watching"):
            outer.__enter__()
    assert (inner.layers["1"].calls, outer.layers["1"].calls) == (1, 2)
    assert not any(m._forward_hooks or getattr(m, "_observers", ()) for m in net.modules())
    outer.reset()
    assert outer.layers == {} and "nothing has run" in str(outer)


def test_network_that_is_watched_can_be_copied_and_pickled():
    net = network()
    with snn.Monitor(net) as monitor:
        net(X)
        one, two = copy.deepcopy(net), pickle.loads(pickle.dumps(net))
        torch.save(net, io.BytesIO())
        assert torch.equal(one(X), two(X))
    assert monitor.layers["1"].calls == 1


def test_batch_first_input_to_a_time_first_layer_is_visible():
    layer = nn.Sequential(nn.Linear(4, 5), snn.LIF(0.8, threshold=0.1))
    with snn.Monitor(layer) as monitor:
        layer(spikes(32, 100, 4))  # batch first, but time_dim is 0
    assert monitor.layers["1"].sizes == [(32, 100)]
    head, _, row = str(monitor).splitlines()[:3]
    assert "time x batch" in head and "32 x 100" in row
    mixed = nn.Sequential(snn.LIF(0.9, time_dim=1), nn.Linear(4, 5), snn.LIF(0.8))
    with snn.Monitor(mixed, warn=False) as monitor:
        mixed(spikes(32, 100, 4))
    assert "different sizes of time x batch: check their time_dim" in str(monitor)


def test_summary_has_a_row_for_each_layer_in_order_and_a_total():
    net = network()
    with snn.Monitor(net) as monitor:
        net(X)
    text = monitor.summary()
    assert [line.split()[:2] for line in text.splitlines() if line[:1].isdigit()] == [
        *(["1", "LIF"], ["4.layer", "LIF"], ["6", "ExpLeak"]),
        *(["0", "Conv2d"], ["3", "Linear"], ["4.layer", "Recurrent"], ["5", "Linear"]),
    ]
    assert "total" in text and "Horowitz" in text
    assert str(monitor) == text and "3 spiking layers" in repr(monitor)


def test_silent_and_saturated_layers_are_warned_of_once_with_advice():
    net = snn.Sequential(nn.Identity(), snn.LIF(0.9, time_dim=1), time_dim=1)
    with snn.Monitor(net), pytest.warns(UserWarning, match="layer '1' .*time_dim=1.*20 steps of 3") as caught:
        net(torch.zeros(3, 20, 4))
        net(torch.zeros(3, 20, 4))
    assert len(caught) == 1 and "is silent" in str(caught[0].message) and "init_" in str(caught[0].message)
    with snn.Monitor(net), pytest.warns(UserWarning, match="is saturated"):
        net(torch.full((3, 20, 4), 100.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with snn.Monitor(net, warn=False):
            net(torch.zeros(3, 20, 4))
        with snn.Monitor(net):  # a single silent step is normal
            net.step(torch.zeros(3, 4), None)
            net(torch.ones(3, 20, 4))


def test_short_pieces_of_a_batch_are_not_warned_of():
    x = torch.full((30, 4, 3), 0.6)
    x[25:] = 0.0
    net = snn.Sequential(nn.Identity(), snn.LIF(0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with snn.Monitor(net) as monitor:
            net(x, None, lengths=[25, 28, 29, 30])
    assert monitor.layers["1"].sizes == [(25, 4), (3, 4), (1, 4)]


def test_nan_in_a_potential_is_seen():
    layer, x = snn.LIF(0.9), torch.ones(5, 2, 3)
    x[3, 1, 1] = float("nan")
    with snn.Monitor(layer) as monitor:
        layer(x)
        layer(torch.ones(5, 2, 3))
    assert np.isnan(monitor.layers[""].potential_min) and np.isnan(monitor.layers[""].potential_max)


def test_compiled_networks_run_under_a_monitor():
    net = nn.Sequential(nn.Linear(4, 5), snn.LIF(0.8, threshold=0.1))
    x = spikes(10, 2, 4)
    with torch.no_grad(), snn.Monitor(net) as monitor:
        found = torch.compile(net, backend="eager")(x)
    assert torch.equal(found, net(x))
    assert monitor.layers["1"].rate == pytest.approx(found.double().mean().item())


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        (("net",), {}, "net must be a torch module, got str"),
        ((nn.Linear(2, 2),), {}, "net must contain a spiking layer"),
        ((snn.LIF(0.9),), {"record": ("spike",)}, "record must name 'spikes' or 'potential', got 'spike'"),
        ((snn.LIF(0.9),), {"record": True}, "record must name 'spikes' or 'potential', got True"),
    ],
)
def test_wrong_arguments_are_named(arguments, keywords, message):
    with pytest.raises((TypeError, ValueError), match=message):
        snn.Monitor(*arguments, **keywords)


class TestPlots:
    @pytest.fixture
    def axes(self):
        matplotlib = pytest.importorskip("matplotlib")
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots()
        yield axes
        plt.close(figure)

    def test_raster_has_a_mark_for_each_spike(self, axes):
        net = network()
        with snn.Monitor(net, record="spikes") as monitor:
            net(X)
        assert monitor.plot_raster("4.layer", sequence=1, ax=axes) is axes
        (marks,) = axes.collections
        expected = monitor.spikes["4.layer"][0][:, 1].nonzero().numpy()
        assert len(expected) > 0
        assert np.array_equal(np.asarray(marks.get_offsets()), expected)

    def test_trace_has_the_potential_of_each_neuron(self, axes):
        net = network()
        with snn.Monitor(net, record=("spikes", "potential")) as monitor:
            net(X)
        monitor.plot_trace("1", neurons=(3, 7), sequence=2, ax=axes)
        expected = monitor.potential["1"][0][:, 2].flatten(1)
        for line, neuron in zip(axes.lines, (3, 7), strict=True):
            assert np.array_equal(line.get_ydata(), expected[:, neuron].numpy())
        assert len(axes.collections) == 2

    def test_what_was_not_recorded_is_named(self, axes):
        net = network()
        with snn.Monitor(net, record="spikes") as monitor:
            net(X)
        with pytest.raises(ValueError, match="potential must be recorded"):
            monitor.plot_trace("1", ax=axes)
        with pytest.raises(ValueError, match=r"name must be a layer that has run, '1', .*, got '0'"):
            monitor.plot_raster("0", ax=axes)
        with pytest.raises(ValueError, match="sequence must be one of 3 sequences, got 3"):
            monitor.plot_raster("1", sequence=3, ax=axes)
        with pytest.raises(ValueError, match="call must be one of 1 calls, got 1"):
            monitor.plot_raster("1", call=1, ax=axes)
