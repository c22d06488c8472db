"""Helpers of the tests of arrays on a GPU: neurons, inputs, and the comparison with NumPy arrays."""

import numpy as np

import exodus_core as ec
from exodus_core import kernel, surrogate
from neuron_examples import SCALARS, per_neuron

NEURONS = SCALARS | {
    **{f"{name} per neuron": per_neuron(name, (5, 3)) for name in SCALARS},
    "LIF per channel": ec.LIF(tau=np.linspace(2.0, 9.0, 5)[:, None], gain="1-alpha", threshold=0.3),
    "LIF with a bound": ec.LIF(alpha=np.linspace(0.5, 0.99, 15).reshape(5, 3), v_min=-0.2, max_spikes=3),
    "IF that resets to zero": ec.IF(reset="zero"),
    "StateSpace per channel": ec.StateSpace(
        [[0.9, np.linspace(-0.4, 0.0, 5)[:, None]], [0.3, 0.8]], [0.9, 0.1], [-0.8, 0.2], reset="zero"
    ),
    "SRM of taps": ec.SRM(kernel.FIR(np.linspace(0.6, -0.1, 7)), kernel.FIR(-(0.7 ** np.arange(30)))),
    "SRM of taps per channel": ec.SRM(
        kernel.Exponential(0.8),
        kernel.FIR(-np.linspace(0.5, 1.0, 5)[:, None] * 0.6 ** np.arange(9)[:, None, None]),
    ),
}
RECURRENT = [name for name, neuron in NEURONS.items() if neuron._fires]
LAYOUTS = {"time first": 0, "time last": 2, "time between": 1, "of channels last": 0}


def data(dtype, layout, time=23):
    """Random numbers for (5, 3) neurons over time, in one of the LAYOUTS."""
    values = np.random.default_rng(4).normal(0.2, 0.5, (time, 5, 3)).astype(dtype)
    if layout == "of channels last":
        return np.ascontiguousarray(values.transpose(0, 2, 1)).transpose(0, 2, 1)
    return np.ascontiguousarray(np.moveaxis(values, 0, LAYOUTS[layout]))


def comparison(kind, host):
    """Make a function that compares arrays of class `kind` with NumPy's. `host` copies them to NumPy."""

    def assert_same(device, cpu, tolerance=0.0):
        if cpu is None:
            assert device is None
            return
        cpu = np.asarray(cpu)
        assert isinstance(device, kind), type(device)
        got = host(device)
        assert got.dtype == cpu.dtype and got.shape == cpu.shape
        if tolerance == 0:
            np.testing.assert_array_equal(got, cpu)
        else:
            scale = np.abs(cpu).max(initial=1)
            np.testing.assert_allclose(got, cpu, rtol=tolerance, atol=tolerance * scale)

    return assert_same


def weights(dtype, count=3):
    """Recurrent weights between the neurons of a batch entry."""
    return np.random.default_rng(5).normal(0, 0.8 / np.sqrt(count), (count, count)).astype(dtype)


def check_forward_and_backward(name, layout, dtype, to_device, assert_same, chunks=1, recurrent=None):
    """Run forward and backward on a device's arrays and on NumPy's, compare, and return both traces."""
    neuron, current, axis = NEURONS[name], data(dtype, layout), LAYOUTS[layout]
    if recurrent is not None:
        current = current * 3  # so that all neurons fire
    cpu = device = None
    on_device = None if recurrent is None else to_device(recurrent)
    for _ in range(chunks):
        cpu = ec.forward(neuron, current, time_axis=axis, state=cpu and cpu.state, recurrent=recurrent)
        device = ec.forward(
            neuron, to_device(current), time_axis=axis, state=device and device.state, recurrent=on_device
        )
    assert_same(device.spikes, cpu.spikes)
    assert_same(device.potential, cpu.potential)
    for own, other in zip(device.state, cpu.state, strict=True):
        assert_same(own, other)
    # Sums cancel, and recurrent weights pass a rounding error on to other neurons.
    rough = 1e-5 if recurrent is None else 1e-4
    tolerance = rough if dtype == np.float32 else 1e-12
    e = None if cpu.spikes is None else data(dtype, layout)
    q = data(dtype, layout)[::-1].copy()
    for method in ("exodus", "slayer", "bptt"):
        options = {"method": method, "surrogate": surrogate.ATan()}
        expected = ec.backward(cpu, e, grad_potential=q, **options)
        given = None if e is None else to_device(e)
        got = ec.backward(device, given, grad_potential=to_device(q), **options)
        assert_same(got.current, expected.current, tolerance)
        for own, other in zip(got.state, expected.state, strict=True):
            assert_same(own, other, tolerance)
        assert_same(got.recurrent, expected.recurrent, tolerance)
        assert got.parameters.keys() == expected.parameters.keys()
        for key, gradient in expected.parameters.items():
            assert_same(got.parameters[key], gradient, tolerance)
    return device, cpu


STEPS, LONGEST = 19, 4
DELAYED = [((STEPS, 5, 33), 0), ((5, STEPS, 3), 1), ((3, 5, STEPS), 2), ((3, 2), 0)]  # shape, time axis


def delay_problem(shape, axis, dtype):
    """Input, gradient of the output, state, gradient of the final state, and delays."""
    draw = np.random.default_rng(0)
    x, grad = (draw.normal(size=shape).astype(dtype) for _ in range(2))
    neurons = shape[:axis] + shape[axis + 1 :]
    state, grad_state = (draw.normal(size=(LONGEST + 1, *neurons)).astype(dtype) for _ in range(2))
    each, whole = draw.uniform(0, LONGEST, neurons[-1:]), draw.integers(0, LONGEST + 1, neurons)
    return x, grad, state, grad_state, [1.5, 0, LONGEST, each, whole]


def check_delay(shape, axis, dtype, to_device, host):
    """Delay a device's arrays and NumPy's, compare outputs and gradients, and return the last result."""
    x, grad, state, grad_state, delays = delay_problem(shape, axis, dtype)
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    options = dict(most=LONGEST, time_axis=axis)

    def moved(array):
        return None if array is None else to_device(array)

    for delay in delays:
        for carried, last in ((None, None), (state, None), (None, grad_state), (state, grad_state)):
            expected = ec.delay(x, delay, state=carried, **options)
            for given in (delay, to_device(np.asarray(delay, dtype))):
                found = ec.delay(to_device(x), given, state=moved(carried), **options)
                for one, other in zip(found, expected, strict=True):
                    np.testing.assert_array_equal(host(one), other)
                    assert host(one).dtype == dtype
            back = ec.delay_adjoint(grad, x, delay, state=carried, grad_state=last, **options)
            gradients = ec.delay_adjoint(
                to_device(grad), to_device(x), delay, state=moved(carried), grad_state=moved(last), **options
            )
            np.testing.assert_allclose(host(gradients.x), back.x, rtol=0, atol=tolerance)
            np.testing.assert_allclose(host(gradients.state), back.state, rtol=0, atol=tolerance)
            # Both sum the same terms in double precision.
            np.testing.assert_allclose(host(gradients.delay), back.delay, rtol=tolerance, atol=tolerance)
    return found
