"""Run the package on the problems that the witnesses take."""

import numpy as np

import exodus_core as ec
from exodus_core import surrogate as surrogates

METHODS = ("exodus", "slayer", "bptt")


def neuron_of(model):
    """The package's descriptor of a witness's model."""
    return (ec.LIF if model.spiking else ec.ExpLeak)(**model.keywords())


def surrogate_of(witness):
    """The package's surrogate of the same name and parameters."""
    return getattr(surrogates, witness.name)(**dict(witness.keywords))


def state_of(neuron, potential, spikes, dtype):
    """A state with the given values; an ExpLeak has no spikes to set."""
    state = neuron.initial_state(np.shape(potential), dtype, potential=potential)
    if "spikes" in state._fields:
        state = state._replace(spikes=np.array(spikes, dtype))
    return state


def forward(problem, neuron=None, **keywords):
    """Run the package's forward pass of a problem, from the problem's initial state."""
    neuron = neuron_of(problem.model) if neuron is None else neuron
    state = state_of(neuron, problem.potential, problem.spikes, problem.current.dtype)
    return ec.forward(neuron, problem.current, state=state, **keywords)


def backward(trace, problem, method="exodus", **keywords):
    """Run the package's backward pass of a trace, with the problem's seeds and surrogate."""
    seeds = problem.seeds
    given = {"grad_potential": seeds.potential, "grad_state": seeds.state, **keywords}
    given.setdefault("surrogate", surrogate_of(problem.surrogate))
    return ec.backward(trace, seeds.spikes, method=method, **given)


def run_of(problem, trace):
    """Convert a trace to a run for the witnesses, with the package's own potentials and spikes."""
    spikes = np.zeros_like(problem.current) if trace.spikes is None else trace.spikes
    run = problem.run()
    return run._replace(spikes=spikes, potential=trace.potential)


def solve(problem, method="exodus"):
    """Forward and backward; returns the trace and the gradients."""
    trace = forward(problem)
    return trace, backward(trace, problem, method)
