"""Traces, gradients and states that users copy, pickle or edit give the right result or an error.

Property: any part of a trace, of gradients passed as `out`, or of a state may be replaced by any value. The
call then raises an error that names the part, or gives the same result as for the original. It never crashes,
and never computes anything else. Witness: the original trace. Each table runs in its own process, so that a
crash is a failed test.
"""

import copy
import dataclasses
import functools
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import exodus_core as ec
from compare import assert_same_bits
from exodus_core import kernel, surrogate
from neuron_examples import SCALARS

RNG = np.random.default_rng(0)
SHAPE = (11, 4, 600)
CURRENT = RNG.normal(0.3, 0.7, SHAPE)
WEIGHTS = RNG.normal(size=SHAPE)
STEEP = surrogate.SingleExponential(width=0.3, scale=1.0)
NEURONS = SCALARS | {
    "LIF": ec.LIF(alpha=0.9),
    "LIF of arrays": ec.LIF(
        tau=RNG.uniform(2, 9, 600), threshold=np.linspace(0.5, 1, 4)[:, None], v_min=-0.3
    ),
    "LIF that resets to zero": ec.LIF(alpha=0.9, reset="zero"),
    "CubaLIF": ec.CubaLIF(alpha=0.9, alpha_syn=RNG.uniform(0.5, 0.9, (4, 600))),
    "ALIF": ec.ALIF(alpha=0.9, alpha_adapt=0.8, adapt_scale=0.2),
    "StateSpace": ec.StateSpace([[0.9, RNG.uniform(-0.2, 0, 600)], [0.3, 0.8]], [1, 0.1], [-1, 0.2]),
    "SRM": ec.SRM(kernel.FIR(RNG.normal(size=(5, 600))), kernel.Exponential(0.8, scale=-0.7)),
    "ExpLeak": ec.ExpLeak(alpha=RNG.uniform(0.5, 0.9, 600)),
}
COPIES = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda trace: pickle.loads(pickle.dumps(trace)),
    "replace": dataclasses.replace,
    "Fortran order": lambda trace: dataclasses.replace(
        trace, potential=np.asfortranarray(trace.potential), current=np.asfortranarray(trace.current)
    ),
    "views with gaps": lambda trace: dataclasses.replace(
        trace,
        potential=np.repeat(trace.potential, 2, axis=1)[:, ::2],
        current=trace.current[::-1].copy()[::-1],
    ),
}


def made(name, dtype=np.float64, neuron=None):
    neuron = NEURONS[name] if neuron is None else neuron
    current = CURRENT.astype(dtype)
    first = ec.forward(neuron, current[:3])
    return ec.forward(neuron, current[3:], state=first.state)


def results(trace, name, out=None):
    """The bits of all results that are computed from a trace."""
    e = None if name == "ExpLeak" else WEIGHTS[3:]
    found = []
    for method in ("exodus", "bptt"):
        grads = ec.backward(trace, e, method=method, grad_potential=WEIGHTS[3:], out=out)
        found += [grads.current.copy(), *grads.state, *map(np.asarray, grads.parameters.values())]
    return [*found, np.array(ec.growth(trace, STEEP))]


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", NEURONS)
def test_copies_give_the_same_results(name, how):
    trace = made(name)
    expected = results(trace, name)
    for found, one in zip(results(COPIES[how](trace), name), expected, strict=True):
        assert_same_bits(found, one)


def replacements(trace, name):
    """A list of replacements for each field of a trace."""
    other_type = np.float32 if trace.potential.dtype == np.float64 else np.float64
    whole = trace.potential
    arrays = [
        None,
        0.5,
        "text",
        [[1.0]],
        whole[:-1],
        whole[None],
        whole.astype(other_type),
        whole.astype(">f8"),
        whole.astype(np.int64),
        np.ones((0, *whole.shape[1:]), whole.dtype),
        np.ma.masked_array(whole, whole > 0),
        whole.view(np.recarray),
        np.zeros(whole.shape, object),
    ]
    states = [
        0.5,
        (),
        tuple(trace.state)[:-1],
        (None,) * len(trace.state),
        tuple(part.astype(other_type) for part in trace.state),
        tuple(part[..., :-1] for part in trace.state),
        tuple(part.tolist() for part in trace.state),
        ec.IF().initial_state((4, 600), whole.dtype) if len(trace.state) != 2 else trace.state + trace.state,
    ]
    binding = trace._binding
    other = made("LIF of arrays" if name != "LIF of arrays" else "LIF")
    return {
        "spikes": arrays,
        "potential": arrays,
        "current": arrays,
        "state": [*states, None],
        "initial_state": states,
        "neuron": [None, ec.LIF, "LIF", *(n for k, n in NEURONS.items() if k != name), ec.IF(threshold=0.1)],
        "time_axis": [None, 1, 2, -3, 99, "0", 0.0, True],
        "memory": ["lean", "none", None, 1, ["full"]],
        "_binding": [
            None,
            {},
            tuple(binding),
            other._binding,
            made(name, np.float32)._binding,
            binding._replace(neuron=other.neuron),
            binding._replace(layout=dataclasses.replace(binding.layout, time_axis=1)),
        ],
        "recurrent": [
            0.5,
            "text",
            [[1.0]],
            np.ones(600),
            np.ones((600, 599)),
            np.ones((4, 4)),
            np.ones((600, 600), other_type),
            np.ones((600, 600), object),
            np.ma.masked_array(np.ones((600, 600), whole.dtype)),
        ],
    }


FIELDS = [field.name for field in dataclasses.fields(ec.Trace)]


def check_replacements(name):
    """Put each replacement into its field of a trace, of an `out` or of gradients."""
    trace = made(name)
    expected = results(trace, name)
    listed = replacements(trace, name)
    assert set(listed) == set(FIELDS)
    reused = ec.backward(trace, grad_potential=WEIGHTS[3:])
    for field, values in listed.items():
        for value in values:
            edited = dataclasses.replace(trace, **{field: value})
            for out in (None, reused):
                check_one(functools.partial(results, edited, name, out), field, value, expected)
    for field in ("spikes", "potential"):
        for value in listed[field]:
            check_out(trace, field, value)
    for value in listed["current"]:
        out = dataclasses.replace(reused, current=value)
        check_one(functools.partial(results, trace, name, out), "current", value, expected)


def check_one(call, field, value, expected):
    try:
        found = call()
    except (TypeError, ValueError) as error:
        # For a binding of another call, the error may also name the part that does not fit it.
        word = "trace." if field == "_binding" else field
        assert word in str(error), (field, repr(value)[:200], error)
        return
    for one, other in zip(found, expected, strict=True):
        assert_same_bits(one, other, f"{field} replaced by {value!r:.200}")


def check_out(trace, field, value):
    out = dataclasses.replace(trace, **{field: value})
    try:
        again = ec.forward(trace.neuron, CURRENT[3:], state=trace.initial_state, out=out)
    except (TypeError, ValueError) as error:
        assert field in str(error), (field, repr(value)[:200], error)
    else:
        assert_same_bits(again.potential, trace.potential)


@pytest.mark.parametrize("name", NEURONS)
def test_parameters_bound_for_another_layout_give_the_same_gradients(name):
    """The binding decides: arrays are copied into its layout, and sums have its order."""
    trace = made(name)
    turned = ec.forward(NEURONS[name], np.asfortranarray(CURRENT[3:]), state=trace.initial_state)
    assert turned._binding.layout.order != trace._binding.layout.order
    edited = dataclasses.replace(trace, _binding=turned._binding)
    for found, expected in zip(results(edited, name), results(trace, name), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NEURONS)
def test_every_part_of_a_trace_is_checked(name):
    run_here(f"here.check_replacements({name!r})")


def run_here(code):
    """Run code of this module in its own process."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {Path(__file__).stem} as here; {code}"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-2000:]}"


def check_the_extension():
    """The extension itself refuses arrays of wrong sizes and types, although it does not know their names."""
    trace = made("LIF of arrays")
    backend = trace._binding.layout.backend
    seen = []
    kernels = backend.kernels

    class Recorder:
        def __getattr__(self, name):
            def call(*arguments):
                seen.append((name, arguments))
                return getattr(kernels, name)(*arguments)

            return call

    type(backend).kernels = Recorder()
    try:
        made("LIF of arrays")
        made("SRM")
        results(trace, "LIF of arrays")
        results(made("SRM"), "SRM")
    finally:
        type(backend).kernels = kernels
    names = [name for name, _ in seen]
    assert {"forward", "backward"} <= set(names)
    for name, arguments in seen:
        for place, argument in enumerate(arguments):
            for changed in wrong(argument):
                try:
                    getattr(kernels, name)(*arguments[:place], changed, *arguments[place + 1 :])
                except (TypeError, ValueError):
                    continue
                raise AssertionError((name, place, str(changed)[:200]))


def wrong(argument):
    """Versions of an extension's argument in which one array is too short or has another dtype."""
    if isinstance(argument, np.ndarray):
        if argument.size == 0:
            return
        yield argument.ravel()[:-1]
        yield np.ones((*argument.shape, 2), argument.dtype)
        yield argument.astype(np.float32 if argument.itemsize == 8 else np.float64)[..., None].repeat(3, -1)
    elif isinstance(argument, dict):
        for key, value in argument.items():
            yield from ({**argument, key: other} for other in wrong(value))
    elif isinstance(argument, tuple):
        for place, value in enumerate(argument):
            if isinstance(value, np.ndarray):
                yield from ((*argument[:place], other, *argument[place + 1 :]) for other in wrong(value))


def test_the_extension_reads_nothing_beyond_an_array():
    run_here("here.check_the_extension()")


def test_a_trace_of_read_only_arrays():
    trace = made("LIF of arrays")
    expected = results(trace, "LIF of arrays")
    for array in (trace.potential, trace.spikes, *trace.initial_state):
        array.flags.writeable = False
    for found, one in zip(results(trace, "LIF of arrays"), expected, strict=True):
        assert_same_bits(found, one)


def test_an_equal_neuron_is_accepted():
    trace = made("LIF")
    expected = results(trace, "LIF")
    again = dataclasses.replace(trace, neuron=ec.LIF(alpha=0.9))
    for found, one in zip(results(again, "LIF"), expected, strict=True):
        assert_same_bits(found, one)
    with pytest.raises(
        ValueError, match=r"trace\.neuron must be that of the forward pass, LIF\(alpha=0\.9\)"
    ):
        ec.backward(dataclasses.replace(trace, neuron=ec.LIF(alpha=0.8)), WEIGHTS[3:])
