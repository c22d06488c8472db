"""Property: with currents of two bytes, every result is that of float32 on the same numbers, rounded once.

The spikes, potential, states and parameters' gradients have the same bits; the gradient of the current is the
nearest number of its dtype. Only the gradient of recurrent weights is a sum over rounded numbers.

Witness: the float32 kernels, and torch's rounding.
"""

import numpy as np
import pytest
import torch

import exodus_core as ec
import exodus_core.torch as snn
from exodus_core import kernel
from neuron_examples import FIRING, SCALARS, per_neuron

HALVES = [torch.float16, torch.bfloat16]
SHAPES = {  # shape and time_dim: in place, time last, a narrow inner axis, longer than a row, one step
    "rows": ((37, 3, 130), 0),
    "time last": ((5, 9, 70), 2),
    "narrow": ((4, 33, 7), 1),
    "wide": ((19, 1, 1300), 0),
    "batch first": ((3, 18, 300), 1),
    "a step": ((5, 9), None),
}


def draw(shape, dtype, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def same(a, b):
    """The same bits, NaN included."""
    if a is None or b is None:
        return a is b
    return torch.equal(a.nan_to_num(7777.0), b.nan_to_num(7777.0)) and a.dtype == b.dtype


def run(neuron, current, seeds, time_dim, method="exodus", state=None, recurrent=None):
    names = neuron._parameter_names()
    values = [torch.tensor(np.array(neuron._value_of(name)), dtype=torch.float32) for name in names]
    values = [value.requires_grad_() for value in values]
    current = current.clone(memory_format=torch.preserve_format).requires_grad_()
    trace = snn.spike(
        current,
        neuron,
        method=method,
        time_dim=time_dim,
        state=state,
        parameters=dict(zip(names, values, strict=True)),
        recurrent=recurrent,
    )
    outputs = [part for part in (trace.spikes, trace.potential) if part is not None]
    loss = sum((part.float() * seed.float()).sum() for part, seed in zip(outputs, seeds, strict=False))
    loss = loss + sum(part.sum() for part in trace.state if part.numel())
    grads = torch.autograd.grad(loss, (current, *values))
    return trace, grads[0], grads[1:]


@pytest.mark.parametrize("method", ["exodus", "slayer", "bptt"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SCALARS)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_neuron(dtype, name, shape, method):
    lengths, time_dim = SHAPES[shape]
    neuron = SCALARS[name]
    current, seeds = draw(lengths, dtype), [draw(lengths, dtype, 1), draw(lengths, dtype, 2)]
    trace, gradient, learnt = run(neuron, current, seeds, time_dim, method)
    wide, wide_gradient, wide_learnt = run(neuron, current.float(), seeds, time_dim, method)
    if trace.spikes is not None:
        assert trace.spikes.dtype == dtype
        assert torch.equal(trace.spikes.float(), wide.spikes)
    assert same(trace.potential, wide.potential)
    assert all(map(same, trace.state, wide.state))
    assert gradient.dtype == dtype
    assert torch.equal(gradient, wide_gradient.to(dtype))
    assert all(map(same, learnt, wide_learnt))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", SCALARS)
def test_values_of_each_neuron(name, dtype):
    neuron = per_neuron(name, (3, 70))
    current, seeds = draw((20, 3, 70), dtype), [draw((20, 3, 70), dtype, 1)] * 2
    trace, gradient, learnt = run(neuron, current, seeds, 0)
    wide, wide_gradient, wide_learnt = run(neuron, current.float(), seeds, 0)
    assert same(trace.potential, wide.potential)
    assert torch.equal(gradient, wide_gradient.to(dtype))
    assert all(map(same, learnt, wide_learnt))


TAPS = ec.SRM(kernel.FIR(np.linspace(1, 0.1, 9)), kernel.FIR(-np.linspace(1, 0.1, 5)), threshold=0.8)


@pytest.mark.parametrize("method", ["exodus", "slayer", "bptt"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_taps(dtype, shape, method):
    lengths, time_dim = SHAPES[shape]
    current, seeds = draw(lengths, dtype), [draw(lengths, dtype, 1), draw(lengths, dtype, 2)]
    trace, gradient, learnt = run(TAPS, current, seeds, time_dim, method)
    wide, wide_gradient, wide_learnt = run(TAPS, current.float(), seeds, time_dim, method)
    assert same(trace.potential, wide.potential)
    assert all(map(same, trace.state, wide.state))
    assert torch.equal(gradient, wide_gradient.to(dtype))
    assert all(map(same, learnt, wide_learnt))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_recurrent_weights(dtype, order):
    lengths = (12, 5, 70)
    current = draw(lengths, dtype).permute(order).contiguous().permute(tuple(np.argsort(order)))
    weights = (0.3 * torch.randn(70, 70, generator=torch.Generator().manual_seed(3))).requires_grad_()
    seeds = [draw(lengths, dtype, 1), draw(lengths, dtype, 2)]
    results = []
    for given in (current, current.float()):
        trace, gradient, _ = run(SCALARS["LIF"], given, seeds, 0, recurrent=weights)
        again = snn.spike(given, SCALARS["LIF"], recurrent=weights)
        (again.spikes.float() * seeds[0].float()).sum().backward()
        results.append((trace, gradient, weights.grad.clone()))
        weights.grad = None
    (trace, gradient, grad_weights), (wide, wide_gradient, wide_weights) = results
    assert same(trace.potential, wide.potential)
    assert torch.equal(gradient, wide_gradient.to(dtype))
    rounding = 2.0**-10 if dtype == torch.float16 else 2.0**-7
    torch.testing.assert_close(
        grad_weights, wide_weights, rtol=rounding, atol=rounding * wide_weights.abs().max()
    )


@pytest.mark.parametrize("name", FIRING)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_chunks_are_whole(name, dtype):
    layer = snn.from_neuron(SCALARS[name], output="trace")
    current = draw((50, 3, 70), dtype)
    whole, state, parts = layer(current), None, []
    for chunk in current.split([7, 20, 23]):
        trace, state = layer(chunk, state)
        parts.append(trace.potential)
    assert torch.equal(torch.cat(parts), whole.potential)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_threads_are_invisible(dtype, threads):
    before = torch.get_num_threads()
    current = draw((60, 8, 700), dtype).requires_grad_()
    try:
        torch.set_num_threads(threads)
        spikes = snn.LIF(alpha=0.9)(current)
        spikes.sum().backward()
    finally:
        torch.set_num_threads(before)
    wide = current.detach().float().requires_grad_()
    expected = snn.LIF(alpha=0.9)(wide)
    expected.sum().backward()
    assert torch.equal(spikes.float(), expected)
    assert torch.equal(current.grad, wide.grad.to(dtype))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_numbers_at_the_ends_of_the_range(dtype):
    """Subnormal numbers, the largest, infinities and NaN."""
    info = torch.finfo(dtype)
    values = [info.tiny / 2, -info.tiny, info.max, -info.max, torch.inf, -torch.inf, torch.nan, 0.0, -0.0]
    current = torch.tensor(values * 9, dtype=torch.float32).reshape(9, 9).to(dtype)
    trace = snn.spike(current, ec.LIF(alpha=0.5, threshold=1e3))
    wide = snn.spike(current.float(), ec.LIF(alpha=0.5, threshold=1e3))
    assert same(trace.potential, wide.potential)
    assert torch.equal(trace.spikes.float(), wide.spikes)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_delays(dtype, shape):
    lengths, time_dim = SHAPES[shape]
    neurons = [n for axis, n in enumerate(lengths) if axis != time_dim]
    x, seed = draw(lengths, dtype), draw(lengths, dtype, 1)
    for delay in (torch.tensor(1.25), torch.linspace(0, 3.5, neurons[-1])):
        results = []
        for given in (x, x.float()):
            given, steps = given.clone().requires_grad_(), delay.clone().requires_grad_()
            output, state = snn.delay(given, steps, most=4, time_dim=time_dim)
            loss = (output.float() * seed.float()).sum() + state.square().sum()
            results.append((output, state, *torch.autograd.grad(loss, (given, steps))))
        (output, state, gradient, grad_steps), (wide, wide_state, wide_gradient, wide_steps) = results
        assert torch.equal(output, wide.to(dtype))
        assert same(state, wide_state)
        assert gradient.dtype == dtype
        torch.testing.assert_close(gradient.float(), wide_gradient, rtol=2.0**-7, atol=2.0**-7)
        torch.testing.assert_close(grad_steps, wide_steps, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_kernel_filter(dtype):
    x = draw((30, 3, 70), dtype)
    for own in (kernel.Alpha(4.0), kernel.FIR(np.linspace(1, 0, 7))):
        assert same(snn.kernel_filter(own, x).output, snn.kernel_filter(own, x.float()).output)


@pytest.mark.parametrize("time_axis", [0, 1, 2, None])
@pytest.mark.parametrize("name", SCALARS)
def test_numpy_arrays(name, time_axis):
    current = np.random.default_rng(0).normal(size=(18, 5, 33)).astype(np.float16)
    neuron, wide_current = SCALARS[name], current.astype(np.float32)
    trace = ec.forward(neuron, current, time_axis=time_axis)
    wide = ec.forward(neuron, wide_current, time_axis=time_axis)
    assert trace.potential.dtype == np.float32
    assert np.array_equal(trace.potential, wide.potential)
    seed = np.random.default_rng(1).normal(size=current.shape).astype(np.float16)
    given = {"grad_potential": seed.astype(np.float32)}
    if trace.spikes is not None:
        assert trace.spikes.dtype == np.float16
        assert np.array_equal(trace.spikes, wide.spikes)
        grads = ec.backward(trace, seed, **given)
        expected = ec.backward(wide, seed.astype(np.float32), **given)
    else:
        grads, expected = ec.backward(trace, **given), ec.backward(wide, **given)
    assert grads.current.dtype == np.float16
    assert np.array_equal(grads.current, expected.current.astype(np.float16))
    for key, gradient in grads.parameters.items():
        assert np.array_equal(gradient, expected.parameters[key])


def test_numpy_state_and_delay():
    state = ec.LIF(alpha=0.9).initial_state((4,), np.float16, potential=0.5)
    assert state.potential.dtype == np.float32
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float16)
    output, _ = ec.delay(x, 1.5)
    assert np.array_equal(output, ec.delay(x.astype(np.float32), 1.5).output.astype(np.float16))
    trace = ec.forward(ec.LIF(alpha=0.9), x, state=state)
    assert trace.state.potential.dtype == np.float32


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_autocast(dtype):
    torch.manual_seed(0)
    linear, layer = torch.nn.Linear(3, 4), snn.LIF(tau=5.0, threshold=0.3, learn=("tau",))
    x = torch.randn(20, 2, 3)
    with torch.autocast("cpu", dtype=dtype):
        narrow = linear(x)
        output = layer(narrow)
    assert narrow.dtype == output.dtype == dtype
    output.float().sum().backward()
    assert torch.equal(output.float(), layer(narrow.float()))
    assert linear.weight.grad.dtype == torch.float32
    assert layer.tau.grad.dtype == torch.float32


def test_a_gradient_scaler():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), snn.LIF(tau=5.0, threshold=0.3, learn=("tau",)))
    optimizer, scaler = torch.optim.SGD(net.parameters(), 0.1), torch.amp.GradScaler("cpu", init_scale=64.0)
    before = net[1].tau.item()
    with torch.autocast("cpu", dtype=torch.float16):
        loss = net(torch.randn(20, 2, 3)).float().mean()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert np.isfinite(net[1].tau.item())
    assert net[1].tau.item() != before
