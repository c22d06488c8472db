"""``kernel_filter`` and ``growth`` of tensors.

Property: a filtered tensor has the bits of the filtered array. The gradients of the input and of the state
are those of the convolution, in any layout and over chained calls. `growth` of a trace of tensors equals
`exodus_core.growth`. Witnesses: torch's autograd of a product with the matrix of the kernel's taps, and the
numpy front end.
"""

import numpy as np
import pytest

import exodus_core as ec
from compare import assert_same_bits
from exodus_core import surrogate

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("exodus_core.torch")

STEPS = 30
KERNELS = [
    ec.kernel.Exponential(0.9, scale=-0.4),
    ec.kernel.DoubleExponential(0.9, 0.6, scale=1.7),
    ec.kernel.Alpha(4.0, scale=0.8),
    ec.kernel.FIR(np.random.default_rng(7).normal(size=11)),
    ec.kernel.FIR(np.random.default_rng(8).normal(size=90)),
]
EACH = pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: repr(kernel)[:30])


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def matrix(kernel, steps):
    """The filter as a matrix: output[n] = sum of kernel[n - k] x[k]."""
    taps, n = torch.from_numpy(np.asarray(kernel.taps(steps))), torch.arange(steps)
    late = n[:, None] - n
    return torch.where(late >= 0, taps[late.clamp(min=0)], 0.0)


@pytest.mark.parametrize("time_dim", [0, 1, -1])
@EACH
def test_gradient_is_autograd_of_the_convolution(kernel, time_dim):
    x, weights = normal(STEPS, 2, 3), normal(STEPS, 2, 3, seed=1)
    leaf = x.clone().requires_grad_()
    expected = torch.einsum("nk,kbc->nbc", matrix(kernel, STEPS), leaf)
    (expected.square() * weights).sum().backward()
    given = x.movedim(0, time_dim).contiguous().requires_grad_()
    output, _ = snn.kernel_filter(kernel, given, time_dim=time_dim)
    output = output.movedim(time_dim, 0)
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    (output.square() * weights).sum().backward()
    torch.testing.assert_close(given.grad.movedim(time_dim, 0), leaf.grad, rtol=1e-11, atol=1e-11)


@EACH
def test_gradient_flows_through_the_carried_state(kernel):
    x, weights = normal(STEPS, 2, 3), normal(STEPS, 2, 3, seed=1)
    grads = []
    for cuts in ((STEPS,), (11, 1, STEPS - 12)):
        leaf = x.clone().requires_grad_()
        state, found = None, []
        for piece in leaf.split(cuts):
            output, state = snn.kernel_filter(kernel, piece, state=state)
            found.append(output)
        (torch.cat(found).square() * weights).sum().backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)


@EACH
def test_gradient_of_states_is_numerical(kernel):
    x = normal(4, 2).requires_grad_()
    rest = snn.kernel_filter(kernel, x.detach())[1]
    state = tuple(normal(*part.shape, seed=2 + k).requires_grad_() for k, part in enumerate(rest))

    def run(x, *state):
        output, last = snn.kernel_filter(kernel, x, state=state)
        return (output, *last)

    assert torch.autograd.gradcheck(run, (x, *state))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@EACH
def test_forward_has_the_bits_of_the_numpy_front_end(kernel, dtype):
    x = normal(STEPS, 70, dtype=dtype)
    for given in (x, x[::2], x.t().contiguous().t()):
        output, state = snn.kernel_filter(kernel, given)
        expected = ec.kernel_filter(kernel, np.ascontiguousarray(given.numpy()))
        assert_same_bits(output, expected.output)
        for one, other in zip(state, expected.state, strict=True):
            assert_same_bits(one, other)
    frame, _ = snn.kernel_filter(kernel, x[0], time_dim=None)
    assert_same_bits(frame, output[0])


def test_van_rossum_loss_trains_a_layer():
    kernel, x = ec.kernel.Exponential(0.8), normal(STEPS, 5, dtype=torch.float32).abs()
    target = snn.kernel_filter(kernel, snn.LIF(0.9, 0.5)(x)).output
    layer = snn.LIF(0.9, 0.8, learn=("threshold",))
    loss = (snn.kernel_filter(kernel, layer(x)).output - target).square().mean()
    loss.backward()
    trace = ec.forward(layer.neuron, x.numpy())
    filtered = ec.kernel_filter(kernel, trace.spikes)
    grad = 2 * (filtered.output - target.numpy()) / x.numel()
    grads = ec.backward(trace, ec.kernel_filter_adjoint(kernel, grad.astype(np.float32)).output)
    assert layer.threshold.grad == pytest.approx(float(grads.parameters["threshold"]), rel=1e-5)
    assert layer.threshold.grad != 0


NEURONS = [
    ec.LIF(alpha=[0.9, 0.5, 0.7], threshold=0.6),
    ec.LIF(alpha=0.9, reset="zero"),
    ec.IF(threshold=0.7),
    ec.ALIF(alpha=0.9, alpha_adapt=0.95, adapt_scale=0.3),
    ec.StateSpace([[[0.9, 0.7, 1.1], -0.1], [0.1, 0.8]], [1.0, 0.1], [-1.0, 0.2], threshold=0.6),
    ec.AdLIF(0.6, 0.9, [0.3, -2.0, 0.5], 0.3, threshold=0.3),
    ec.SRM(ec.kernel.Alpha(3.0), ec.kernel.Exponential(0.9, scale=-1.0)),
]
STEEP = surrogate.SingleExponential(width=0.1)


@pytest.mark.parametrize("time_dim", [0, 1])
@pytest.mark.parametrize("neuron", NEURONS, ids=lambda n: type(n).__name__)
def test_growth_is_that_of_the_numpy_front_end(neuron, time_dim):
    x = (0.3 + 0.8 * normal(2, STEPS, 3).movedim(1, time_dim)).contiguous()
    layer = snn.from_neuron(neuron, learn=("threshold",), time_dim=time_dim, output="trace").double()
    first, state = layer(x, None)
    later, _ = layer(x, state)  # starts with the adaptation of an ALIF
    arrays = ec.forward(neuron, x.numpy(), time_axis=time_dim)
    last = ec.forward(neuron, x.numpy(), time_axis=time_dim, state=arrays.state)
    for found, expected in ((first, arrays), (later, last)):
        for chosen in (STEEP, surrogate.SingleExponential()):
            assert snn.growth(found, chosen) == ec.growth(expected, chosen)
            by_function = snn.growth(found, lambda u, threshold, chosen=chosen: chosen(u, threshold))
            assert by_function == ec.growth(expected, chosen)
    assert 0 < snn.growth(first, STEEP) < 1
    assert snn.growth(snn.spike(x, neuron, time_dim=time_dim), STEEP) == ec.growth(arrays, STEEP)


def test_growth_of_a_readout_is_none():
    assert snn.growth(snn.spike(normal(5, 2), ec.ExpLeak(0.9)), STEEP) == 0.0
