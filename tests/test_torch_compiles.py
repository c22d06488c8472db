"""Property: a network of spiking layers compiles, exports and traces without a break, with the same numbers.

Witness: the same network, eager.
"""

import copy
import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.fx.experimental.proxy_tensor import make_fx

import exodus_core as ec
import exodus_core.torch as snn
from exodus_core import surrogate
from neuron_examples import SCALARS


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    torch.manual_seed(0)


def network(**keywords):
    return nn.Sequential(
        nn.Linear(6, 8),
        snn.LIF(tau=5.0, threshold=0.3, learn=("tau",), **keywords),
        nn.Linear(8, 8),
        snn.CubaLIF(alpha=0.9, alpha_syn=0.7, threshold=0.3, learn=("alpha_syn", "threshold"), **keywords),
        nn.Linear(8, 4),
        snn.ExpLeak(alpha=torch.linspace(0.5, 0.9, 4)),
    )


def passes(net, forward, x):
    net.zero_grad()
    given = x.clone().requires_grad_()
    output = forward(given)
    (output**2).sum().backward()
    return [output.detach(), given.grad, *[p.grad.clone() for p in net.parameters()]]


def check(net, compiled, x):
    for a, b in zip(passes(net, compiled, x), passes(net, net, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["exodus", "slayer", "bptt"])
def test_three_layers(method):
    net = network(method=method)
    check(net, torch.compile(net, backend="aot_eager", fullgraph=True), torch.randn(20, 3, 6))


def test_three_layers_by_inductor():
    net = network()
    compiled = torch.compile(net, fullgraph=True)
    for length in (20, 13):
        check(net, compiled, torch.randn(length, 3, 6))


def test_one_graph_for_all_lengths():
    net, counter = network(), CompileCounter()
    compiled = torch.compile(net, backend=counter, fullgraph=True, dynamic=True)
    for length in (20, 13, 31, 7):
        x = torch.randn(length, 3, 6)
        assert torch.equal(compiled(x), net(x))
    assert counter.frame_count == 1


def test_lengths_that_become_dynamic_by_themselves():
    net, counter = network(), CompileCounter()
    compiled = torch.compile(net, backend=counter, fullgraph=True)
    for length in (20, 13, 31, 7, 11):
        compiled(torch.randn(length, 3, 6))
    assert counter.frame_count == 2


def test_dynamic_shapes_have_the_same_gradients():
    net = network()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True, dynamic=True)
    for length, batch in ((20, 3), (9, 5), (9, 2)):
        check(net, compiled, torch.randn(length, batch, 6))


@pytest.mark.parametrize("name", SCALARS)
def test_every_neuron(name):
    layer = snn.from_neuron(SCALARS[name], learn=SCALARS[name]._parameter_names(), time_dim=1)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    check(layer, compiled, torch.randn(3, 10, 4))


@pytest.mark.parametrize("name", SCALARS)
def test_a_state_goes_in_and_out(name):
    layer = snn.from_neuron(SCALARS[name])
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(12, 3, 4)
    whole, last = layer(x, None)
    first, state = compiled(x[:5], None)
    second, final = compiled(x[5:], state)
    assert type(final) is type(last)
    assert torch.equal(torch.cat([first, second]), whole)
    for a, b in zip(final, last, strict=True):
        assert torch.equal(a, b)


def test_single_steps():
    layer = snn.LIF(alpha=0.9)

    def steps(x):
        state, spikes = None, []
        for frame in x:
            output, state = layer.step(frame, state)
            spikes.append(output)
        return torch.stack(spikes)

    x = torch.randn(5, 3, 4)
    assert torch.equal(torch.compile(steps, backend="aot_eager", fullgraph=True)(x), layer(x))


def test_a_whole_trace_is_returned():
    layer = snn.LIF(alpha=0.9, output="trace")
    x = torch.randn(12, 3, 4)
    found, expected = torch.compile(layer, backend="aot_eager", fullgraph=True)(x), layer(x)
    assert torch.equal(found.potential, expected.potential)
    assert torch.equal(found.state.potential, expected.state.potential)


def test_recurrent_weights():
    layer = snn.Recurrent(snn.LIF(alpha=0.9, threshold=0.3, learn=("alpha",)), 4)
    check(layer, torch.compile(layer, backend="aot_eager", fullgraph=True), torch.randn(12, 3, 4))


def test_a_function_as_surrogate():
    layer = snn.LIF(alpha=0.9, surrogate=lambda u, th: 1 / (1 + (u - th) ** 2), learn=("alpha",))
    check(layer, torch.compile(layer, backend="aot_eager", fullgraph=True), torch.randn(12, 3, 4))


def test_functions_are_not_compiled():
    neuron, curve, kernel = ec.LIF(alpha=0.9), surrogate.Boxcar(), ec.kernel.Alpha(3.0)

    def function(x):
        trace = snn.spike(x, neuron, method="bptt", surrogate=curve)
        return snn.kernel_filter(kernel, trace.spikes).output

    x = torch.randn(12, 3, 4)
    found = torch.compile(function, backend="aot_eager")(x)
    assert torch.equal(found, function(x))
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"use exodus_core\.torch\.from_neuron"):
        torch.compile(function, backend="aot_eager", fullgraph=True)(x)


def test_a_changed_value_takes_effect():
    layer = snn.LIF(alpha=0.9, threshold=0.5)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(20, 3, 4)
    assert torch.equal(compiled(x), layer(x))
    before = layer(x)
    layer.threshold = 2.0
    layer.alpha = 0.2
    assert torch.equal(compiled(x), layer(x))
    assert not torch.equal(before, layer(x))


def test_a_changed_surrogate_takes_effect():
    layer = snn.LIF(alpha=0.9)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(20, 3, 4)
    for curve in (surrogate.Boxcar(), lambda u, th: u * 0 + 0.1, surrogate.ATan()):
        layer.surrogate = curve
        check(layer, compiled, x)
    layer.method = "slayer"
    check(layer, compiled, x)


def test_a_training_step_under_no_grad_and_with_it():
    net = network()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    x = torch.randn(20, 3, 6)
    with torch.no_grad():
        assert torch.equal(compiled(x), net(x))
    check(net, compiled, x)


def test_make_fx_records_the_layer():
    layer = snn.LIF(alpha=0.9, learn=("alpha",))
    x, y = torch.randn(2, 20, 3, 4)
    graph = make_fx(layer)(x)
    assert torch.equal(graph(y), layer(y))
    assert any("exodus.spike" in str(node.target) for node in graph.graph.nodes)


def test_export_runs_in_another_process(tmp_path):
    net = network().eval()
    x = torch.randn(20, 3, 6)
    batch = torch.export.Dim("batch", min=2, max=64)
    length = torch.export.Dim("length", min=2, max=4096)
    program = torch.export.export(net, (x,), dynamic_shapes={"input": {0: length, 1: batch}})
    torch.export.save(program, tmp_path / "net.pt2")
    y = torch.randn(31, 5, 6)
    torch.save({"y": y, "expected": net(y).detach()}, tmp_path / "data.pt")
    code = (
        "import sys, torch, exodus_core.torch\n"
        "data = torch.load(sys.argv[2])\n"
        "net = torch.export.load(sys.argv[1]).module()\n"
        "assert torch.equal(net(data['y']), data['expected'])\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "net.pt2", tmp_path / "data.pt"], check=True)


def test_export_with_a_function_as_surrogate_raises():
    layer = snn.LIF(alpha=0.9, surrogate=lambda u, th: u * 0 + 1)
    with pytest.raises(Exception, match="a Python function cannot be exported"):
        torch.export.export(layer, (torch.randn(20, 3, 4),))


def test_copies_and_pickles_of_a_compiled_layer_work():
    layer = snn.LIF(alpha=0.9, surrogate=surrogate.ATan(), learn=("alpha",))
    x = torch.randn(20, 3, 4)
    torch.compile(layer, backend="aot_eager", fullgraph=True)(x)
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    for again in (copy.deepcopy(layer), torch.load(buffer, weights_only=False)):
        check(again, torch.compile(again, backend="aot_eager", fullgraph=True), x)


def test_arrays_as_values():
    layer = snn.LIF(alpha=np.linspace(0.1, 0.9, 4), threshold=np.linspace(0.5, 1.0, 3)[:, None])
    check(layer, torch.compile(layer, backend="aot_eager", fullgraph=True), torch.randn(20, 3, 4))
