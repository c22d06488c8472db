"""``growth`` counts steps at which the gradient grows, for every neuron that names a factor.

Property: the count is that of |d x[n+1] / d x[n]| > 1 for one of the neuron's states x, through everything
that the step computes, with the surrogate for the spike. Witness: autograd of the step in plain operators
(`neuron_examples`), in float64.
"""

from itertools import product

import numpy as np
import pytest

import exodus_core as ec
import reference
from drive import surrogate_of
from exodus_core import neurons
from neuron_examples import EXAMPLES, FIRING, SCALARS

torch = pytest.importorskip("torch", reason="needs torch")
stepwise = pytest.importorskip("stepwise")

STEPS, LANES = 40, (30,)
STEEP = reference.surrogate("SingleExponential", width=0.4, scale=0.9)
# Neurons with coupled states have another witness: test_coupled_states_are_the_published_neurons.py.
NAMED = [name for name in FIRING if type(SCALARS[name])._growing is neurons.Neuron._growing]


def draws(name):
    """Keywords of a neuron with each combination of options."""
    example, rng = EXAMPLES[name], np.random.default_rng(0)
    for chosen in product(*example.options.values()):
        options = dict(zip(example.options, chosen, strict=True))
        values = {k: rng.uniform(*limits, LANES) for k, limits in example.ranges.items()}
        if name == "SRM":  # the only refractory kernel that has a factor
            options |= {"epsilon": "Exponential", "nu": "Exponential"}
            values |= {f"{role}.alpha": rng.uniform(0, 1, LANES) for role in ("epsilon", "nu")}
            values |= {
                "epsilon.scale": rng.uniform(0.5, 1.5, LANES),
                "nu.scale": -rng.uniform(0.5, 1.5, LANES),
            }
        yield stepwise.Model(name, options | values)


def derivatives(model, current, initial):
    """d x[n+1] / d x[n] for each state x, of shape (steps - 1, lanes)."""
    p = {k: torch.tensor(model.keywords[k]) for k in model.names()}
    p.setdefault("gain", torch.ones(LANES, dtype=torch.float64))
    most = model.keywords.get("max_spikes", 1)

    def fire(x):
        h = torch.tensor(STEEP(x.detach().numpy(), p["threshold"].numpy()))
        return stepwise.Spike.apply(x, p["threshold"], h, torch.inf if most is None else most)

    state = [torch.tensor(x, requires_grad=True) for x in initial]
    found = [[] for _ in state]
    for n, a in enumerate(torch.tensor(current)):
        after = stepwise.STEPS[model.name](torch.where, p, model.keywords, state, a, fire, True)
        for k, (x, y) in enumerate(zip(state, after, strict=True)) if n > 0 else ():
            (own,) = (
                torch.autograd.grad(y.sum(), x, retain_graph=True, allow_unused=True)
                if y.requires_grad
                else (None,)
            )
            found[k].append(np.zeros(LANES) if own is None else own.numpy())
        state = list(after)
    return np.array(found)


@pytest.mark.parametrize("name", NAMED)
def test_growth_counts_derivatives_above_one(name):
    for model in draws(name):
        neuron = model.neuron()
        current = np.random.default_rng(1).normal(0.2, 0.6, (STEPS, *LANES))
        initial = neuron.initial_state(LANES, dtype=np.float64)
        trace = ec.forward(neuron, current)
        # The derivative at the last step needs a step more, and each step's is of the one before it.
        found_by_state = np.delete(derivatives(model, current, initial), 1, axis=0)  # without the spikes
        counts = {int(np.sum(np.abs(own) > 1)) for own in found_by_state}
        counts = counts - {0} or {0}  # a state that only decays tells nothing
        head = ec.forward(neuron, current[:-1])
        found = ec.growth(head, surrogate_of(STEEP)) * head.potential.size
        assert any(abs(found - count) < 1.5 for count in counts), (model.keywords, found, counts)
        assert trace.spikes.sum() > 0
