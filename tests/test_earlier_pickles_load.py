"""Property: descriptors, states and layers that an earlier version stored can be loaded, with equal values.

`earlier_pickles.json` was written when all neurons were in two files, `neurons.py` and `coupled.py`. It has
pickles of descriptors and states, files of `torch.save` with states, and pickled layers. Witness: the repr of
each descriptor from that time, and states whose k-th field is k + 1.
"""

import base64
import io
import json
import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest

import exodus_core as ec
from exodus_core import kernel, neurons

STORED = json.loads((Path(__file__).parent / "earlier_pickles.json").read_text())
OF_THAT_TIME = {
    *("LIF", "IF", "CubaLIF", "ALIF", "SRM", "ExpLeak", "Filter", "StateSpace", "AdLIF", "ResonateAndFire"),
}
NAMESPACE = {**vars(kernel), **vars(neurons), "np": np}


@pytest.mark.parametrize("text, stored", STORED["neurons"])
def test_descriptors(text, stored):
    neuron = pickle.loads(base64.b64decode(stored))
    assert repr(neuron) == text
    assert neuron == eval(text, NAMESPACE)
    again = pickle.loads(pickle.dumps(neuron))
    assert again == neuron and type(again) is type(neuron)


def expected_state(state):
    return [np.full_like(np.asarray(field), k + 1) for k, field in enumerate(state)]


@pytest.mark.parametrize("name, stored", STORED["states"])
def test_states(name, stored):
    state = pickle.loads(base64.b64decode(stored))
    assert type(state) is getattr(neurons, name)
    np.testing.assert_equal(list(state), expected_state(state))
    assert type(pickle.loads(pickle.dumps(state))) is type(state)


@pytest.mark.parametrize("name, stored", STORED["torch_states"])
def test_states_of_layers_with_weights_only(name, stored):
    torch = pytest.importorskip("torch")
    pytest.importorskip("exodus_core.torch")
    state = torch.load(io.BytesIO(zlib.decompress(base64.b64decode(stored))), weights_only=True)
    assert type(state) is getattr(neurons, name)
    np.testing.assert_equal([field.numpy() for field in state], expected_state(state))
    again = io.BytesIO()
    torch.save(state, again)
    again.seek(0)
    assert type(torch.load(again, weights_only=True)) is type(state)


@pytest.mark.parametrize("name, stored", STORED["layers"])
def test_layers(name, stored):
    torch = pytest.importorskip("torch")
    snn = pytest.importorskip("exodus_core.torch")
    layer = pickle.loads(zlib.decompress(base64.b64decode(stored)))
    assert type(layer) is getattr(snn, name)
    out = layer(torch.ones(3, 2))
    if hasattr(layer, "neuron"):
        trace = ec.forward(layer.neuron, np.ones((3, 2), np.float32))
        expected = trace.potential if trace.spikes is None else trace.spikes
        np.testing.assert_array_equal(out.detach().numpy(), expected)


def test_every_kind_was_stored():
    made = {type(pickle.loads(base64.b64decode(stored))).__name__ for _, stored in STORED["neurons"]}
    assert made == OF_THAT_TIME
    states = {name for name, _ in STORED["states"]}
    assert states == {getattr(neurons, name)._state.__name__ for name in OF_THAT_TIME}
