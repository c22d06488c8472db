"""Any axis but time may be empty, as in the functions of torch and NumPy.

Property: results and states are empty and have the right shapes. Gradients of parameters are zero, in the
parameters' shapes, and growth is 0. An empty time axis is an error. Witness: the same call with one element
on that axis; shapes may differ only there.
"""

import itertools

import numpy as np
import pytest

import exodus_core as ec
from device_arrays import DeviceArray, host
from drive import METHODS
from exodus_core import kernel
from neuron_examples import SCALARS

NEURONS = SCALARS | {
    "LIF": ec.LIF(tau=5.0, threshold=np.array([[0.7]])),
    "LIF of the gain's alpha": ec.LIF(alpha=0.9, gain="1-alpha", v_min=-1.0, reset_amount=0.5),
    "IF": ec.IF(max_spikes=None),
    "CubaLIF": ec.CubaLIF(tau=5.0, alpha_syn=np.array([0.5])),
    "ALIF": ec.ALIF(alpha=0.9, tau_adapt=9.0, adapt_scale=0.2),
    "StateSpace": ec.StateSpace([[0.9, [-0.2]], [0.3, 0.8]], [1.0, 0.1], [-1.0, 0.2]),
    "AdLIF": ec.AdLIF(tau=5.0, alpha_adapt=0.9, coupling=np.array([0.3]), adapt_scale=0.2),
    "ResonateAndFire": ec.ResonateAndFire(0.9, 0.4),
    "SRM": ec.SRM(kernel.Alpha(4.0), kernel.Exponential(0.8, scale=-0.7)),
    "SRM of taps": ec.SRM(kernel.FIR([0.5, 0.3, 0.1]), kernel.FIR([[[-0.5]], [[-0.2]]])),
    "ExpLeak": ec.ExpLeak(tau=4.0),
}
SHAPES = ((5, 0, 3), (0, 5, 3), (3, 0, 5), (0, 3, 5), (0, 5, 0))
EMPTY = [(shape, axis) for shape in SHAPES for axis in range(3) if shape[axis] > 0]


def check(neuron, shape, axis, make=np.asarray, back=np.asarray):
    one = tuple(max(n, 1) for n in shape)
    results = []
    for lengths in (shape, one):
        current = make(np.full(lengths, 0.3, np.float32))
        trace = ec.forward(neuron, current, time_axis=axis)
        trace = ec.forward(neuron, current, time_axis=axis, state=trace.state)
        e = current if neuron._fires else None
        given = {"grad_potential": current, "grad_state": trace.state}
        for method in METHODS:
            grads = ec.backward(trace, e, method=method, surrogate=ec.surrogate.ATan(), **given)
        custom = ec.backward(trace, e, grad_potential=current, surrogate=lambda u, threshold: u * 0.0 + 1.0)
        results.append((trace, grads, custom))
    (trace, grads, custom), (full, full_grads, _) = results
    assert tuple(trace.potential.shape) == tuple(grads.current.shape) == shape
    assert tuple(trace.state.potential.shape) == shape[:axis] + shape[axis + 1 :]
    for few, many in zip((*trace.state, *grads.state), (*full.state, *full_grads.state), strict=True):
        kept = zip(few.shape[-2:], trace.state.potential.shape, strict=True)
        assert few.shape[:-2] == many.shape[:-2]
        assert all(a == b for a, b in kept) or 0 in few.shape[:-2]
    for found in (grads, custom):
        assert set(found.parameters) == set(full_grads.parameters)
        for name, gradient in found.parameters.items():
            assert tuple(gradient.shape) == tuple(full_grads.parameters[name].shape)
            assert not back(gradient).any()
    return trace


@pytest.mark.parametrize(("shape", "axis"), EMPTY)
@pytest.mark.parametrize("name", NEURONS)
def test_arrays_without_elements(name, shape, axis):
    trace = check(NEURONS[name], shape, axis)
    if not name.startswith("SRM") and name != "ExpLeak":
        assert ec.growth(trace) == 0.0


@pytest.mark.parametrize(("shape", "axis"), EMPTY[:6])
@pytest.mark.parametrize("name", NEURONS)
def test_arrays_without_elements_on_a_gpu(name, shape, axis, shim):
    pytest.importorskip("array_api_compat")
    check(NEURONS[name], shape, axis, DeviceArray, host)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_parameters_between_empty_axes(order):
    # (count, repeat) cannot describe the values, and another axis is empty.
    lengths = (3, 2, 4, 0)
    current = np.zeros((5, *(lengths[k] for k in order)))
    alpha = np.linspace(0.1, 0.9, 12).reshape(3, 1, 4, 1).transpose(order)
    neuron = ec.LIF(alpha=alpha)
    grads = ec.backward(ec.forward(neuron, current), current)
    assert grads.parameters["alpha"].shape == alpha.shape
    assert not grads.parameters["alpha"].any()


@pytest.mark.parametrize("shape", [(0,), (0, 3), (4, 0, 2)])
def test_a_single_step_without_elements(shape):
    trace = ec.forward(ec.LIF(0.9), np.zeros(shape), time_axis=None)
    assert trace.spikes.shape == trace.state.spikes.shape == shape
    assert ec.backward(trace, np.zeros(shape)).current.shape == shape


def test_results_are_reused():
    current = np.zeros((5, 0, 3))
    trace = ec.forward(ec.LIF(0.9), current)
    assert ec.forward(ec.LIF(0.8), current, out=trace) is trace
    grads = ec.backward(trace, current)
    assert ec.backward(trace, current, out=grads) is grads


def test_filters_and_surrogates_of_empty_arrays():
    output, state = ec.kernel_filter(kernel.FIR([0.5, 0.2]), np.zeros((5, 0)))
    assert output.shape == (5, 0) and state.x.shape == (1, 0)
    assert ec.kernel_filter_adjoint(kernel.Alpha(3.0), np.zeros((5, 0))).output.shape == (5, 0)
    assert ec.surrogate.Boxcar()(np.zeros((3, 0)), np.ones((3, 1))).shape == (3, 0)
    assert kernel.Alpha(3.0).taps(0).shape == kernel.Exponential(0.5).taps(0).shape == (0,)
    assert ec.LIF(0.9).initial_state((0, 3), potential=np.zeros((0, 3))).potential.shape == (0, 3)


def test_a_network_of_torch():
    torch = pytest.importorskip("torch")
    snn = pytest.importorskip("exodus_core.torch")
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 4),
        snn.LIF(tau=5.0, learn=("tau", "threshold"), surrogate=lambda u, th: torch.ones_like(u)),
        snn.ALIF(0.9, 0.8, 0.2, learn={"alpha": (4,)}),
        torch.nn.Linear(4, 2),
        snn.ExpLeak(alpha=0.9),
    )
    x = torch.zeros(5, 0, 3, requires_grad=True)
    y = net(x)
    y.sum().backward()
    assert y.shape == (5, 0, 2) and x.grad.shape == (5, 0, 3)
    for parameter in net.parameters():
        assert parameter.grad.shape == parameter.shape and not parameter.grad.any()
    _, state = net[1](torch.zeros(5, 0, 4), None)
    assert all(part.shape == (0, 4) for part in state)
    with pytest.raises(ValueError, match="current must not have a time axis of length zero"):
        net(torch.zeros(0, 2, 3))
