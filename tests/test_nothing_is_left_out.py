"""A new neuron or surrogate cannot be added incompletely.

Property: every kernel model has a descriptor, and every descriptor names a kernel model. Every descriptor has
an example (whose step is its witness), a layer, a row in the README, and the defaults of the kernels' table.
Every surrogate in the kernels' table has a class, a formula in the tests, and a row. Witness: these lists,
each from another file.
"""

import dataclasses
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import exodus_core as ec
import reference
from exodus_core import _core, neurons, surrogate
from exodus_core._domains import FREE, model_facts
from neuron_examples import EXAMPLES, SCALARS, TAUS

README = (Path(__file__).parents[1] / "README.md").read_text()
DESCRIPTORS = {kind.__name__: kind for kind in neurons.DESCRIPTORS}
EACH = pytest.mark.parametrize("name", DESCRIPTORS)


def rows(heading):
    """The names in the first column of the README's table under a heading."""
    table = README.partition(f"| {heading} |")[2].partition("\n\n")[0]
    return re.findall(r"^\| `(\w+)\(", table, re.MULTILINE)


def assert_same(found, needed, entry):
    """Every name has its entry, once, and no entry is of something else."""
    assert sorted(found) == sorted(needed), (
        f"{entry} is missing for {sorted(set(needed) - set(found))}, is too much for "
        f"{sorted(set(found) - set(needed))}, or is there twice"
    )


def test_models_and_descriptors_name_each_other():
    named = {kind._model for kind in (*DESCRIPTORS.values(), neurons.Filter)}
    assert set(_core.models) == set(_core.parameters)
    assert_same(named, _core.models, "a descriptor that exodus_core/neurons/__init__.py imports")


def test_every_descriptor_is_in_every_list():
    assert_same(EXAMPLES, DESCRIPTORS, "an entry of EXAMPLES in tests/neuron_examples.py")
    assert_same(rows("neuron"), DESCRIPTORS, "a row in the README's table of neurons")
    missing = set(DESCRIPTORS) - set(ec.__all__)
    assert not missing, f"not in __all__ of exodus_core/neurons/__init__.py: {sorted(missing)}"
    for kind in DESCRIPTORS.values():
        assert getattr(ec, kind.__name__) is kind
        assert (kind._state.__name__ in ec.__all__) and len(kind._state._fields) == len(
            _core.models[kind._model][1]
        )


@EACH
def test_neurons_that_fire_say_how_their_gradient_grows(name):
    kind = DESCRIPTORS[name]
    says = any(
        getattr(kind, part) is not getattr(neurons.Neuron, part) for part in ("_carry_factor", "_growing")
    )
    assert says or not kind._fires, (
        f"{name} needs _carry_factor or _growing: docs/architecture.md, Add a model"
    )


@EACH
def test_layers_are_made_from_descriptors(name):
    snn = pytest.importorskip("exodus_core.torch")
    layer = getattr(snn, name)
    assert name in snn.__all__ and issubclass(layer, snn.Layer)
    assert type(snn.from_neuron(SCALARS[name])) is layer


@EACH
def test_maps_make_parameters_that_the_kernels_have(name):
    for neuron in (SCALARS[name], TAUS.get(f"{name} of taus", SCALARS[name])):
        facts = model_facts(neuron._model)
        assert set(neuron._parameters()) <= set(facts)
        assert set(neuron._facts()) == set(neuron._parameter_names())
        # A value that the kernels take as it is has the domain of their table. Others have their own domain.
        for own, fact in neuron._facts().items():
            assert fact.domain is facts[own].domain if own in facts else fact.domain is not None


@EACH
def test_defaults_are_the_kernels(name):
    kind = DESCRIPTORS[name]
    of_model = model_facts(kind._model)
    for field in dataclasses.fields(kind):
        number = isinstance(field.default, float) and field.name in of_model
        if number and of_model[field.name].default is not None:
            assert field.default == of_model[field.name].default, field.name


@EACH
def test_examples_give_every_parameter_without_a_default(name):
    example = EXAMPLES[name]
    given = set(example.keywords)
    for keyword, parameter in inspect.signature(DESCRIPTORS[name]).parameters.items():
        if parameter.default is inspect.Parameter.empty:
            assert keyword in given
    drawn = set(example.ranges) | set(example.options)
    assert given <= drawn and not set(example.optional) & given
    assert set(example.without) <= given and not set(example.taus) & given


@EACH
def test_domains_hold_the_ranges_of_examples(name):
    facts = SCALARS[name]._facts()
    for own, limits in EXAMPLES[name].ranges.items():
        domain = facts[own].domain
        assert domain is FREE or np.all(domain.holds(np.array(limits)))


def test_every_surrogate_has_a_class_a_formula_and_a_row():
    kinds = {kind.__name__: kind for kind in surrogate.Surrogate.__subclasses__()}
    assert_same([k._kind for k in kinds.values()], _core.surrogates, "a class in exodus_core/surrogate.py")
    assert_same(reference.SURROGATE_NAMES, kinds, "a formula in tests/reference.py")
    assert_same(rows("surrogate"), kinds, "a row in the README's table of surrogates")
    assert set(kinds) <= set(surrogate.__all__)
