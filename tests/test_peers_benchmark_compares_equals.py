"""The comparison with other libraries compares layers that compute the same.

Property: before any timing, spikes and gradients of an implementation are those of this library's twin of it,
and a neuron or recurrent weights that differ are refused; what is not installed, or has no such layer, is
left out and named; a run writes a table, a picture and JSON. Witness: the loop over steps in torch, which is
always there.
"""

import json
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("exodus_core.torch")
pytest.importorskip("matplotlib", reason="needs matplotlib")
import exodus_core as ec  # noqa: E402 (after the checks)


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    import peers

    # Peers that happen to be installed are left out: the loop is the witness, and needs no other package.
    monkeypatch.setattr(peers, "PEERS", (peers.Ours, peers.OursBatchFirst, peers.TorchLoop, Missing))
    threads = torch.get_num_threads()
    yield peers
    torch.set_num_threads(threads)


class Missing:
    def __init__(self):
        raise ImportError("No module named 'missing'")


def test_a_run_writes_what_it_compared(peers, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(peers, "LAYERS", {"tiny": (10, 8, 16)})
    arguments = ["--out", str(tmp_path), "--rounds", "2", "--threads", "1", "--only", "tiny"]
    monkeypatch.setattr(sys, "argv", ["peers.py", *arguments])
    peers.main()
    assert "left out: Missing, No module named 'missing'" in capsys.readouterr().err
    (found,) = json.loads((tmp_path / "peers.json").read_text())["quartiles in ms, memory in MB"].values()
    assert list(found) == ["exodus_core", "exodus_core, batch first", "torch loop"]
    for one in found.values():
        assert one["equal spikes"] == 1.0
        assert one["cosine"] == pytest.approx(1.0, abs=1e-6)
        assert one["norm ratio"] == pytest.approx(1.0, abs=1e-6)
        for kind in ("forward", "backward", "both"):
            low, median, high = one[kind]
            assert 0 < low <= median <= high
    assert "| torch loop |" in (tmp_path / "peers").with_suffix(".md").read_text()
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")


def test_another_neuron_is_refused(peers, monkeypatch):
    monkeypatch.setattr(peers.TorchLoop, "twin", ec.LIF(0.9))
    with pytest.raises(RuntimeError, match="torch loop must have this library's spikes"):
        peers.one_layer((50, 8, 16), [peers.TorchLoop()], 1)


def test_recurrent_layers_have_the_gradients_of_their_weights(peers, monkeypatch, capsys):
    class Unable(peers.TorchLoop):
        name, not_recurrent = "unable", "which has no such layer"

    monkeypatch.setattr(peers, "PAUSE", 0)
    found = peers.recurrent_layer((20, 4, 8), [*peers.installed(), Unable()], 2)
    assert "left out of recurrent layers: unable, which has no such layer" in capsys.readouterr().err
    assert list(found) == ["exodus_core", "exodus_core, batch first", "torch loop"]
    for one in found.values():
        assert one["equal spikes"] == 1.0
        for which in ("", ", weights"):
            assert one[f"cosine{which}"] == pytest.approx(1.0, abs=1e-6)
            assert one[f"norm ratio{which}"] == pytest.approx(1.0, abs=1e-6)
    lines = peers.table("recurrent", found)
    assert lines[2].endswith("| cosine, weights | norm ratio, weights |")
    assert len({line.count("|") for line in lines[2:-1]}) == 1


def test_other_recurrent_weights_are_refused(peers, monkeypatch):
    monkeypatch.setattr(peers.TorchLoop, "weights", peers.Peer.weights)  # the transpose
    with pytest.raises(RuntimeError, match="torch loop must have this library's spikes"):
        peers.recurrent_layer((50, 8, 16), [peers.TorchLoop()], 1)


def test_quartiles_lie_within_the_rounds(peers):
    assert peers.quartiles([7.0, 1.0]) == [2.5, 4.0, 5.5]


def test_ratios_are_to_the_layer_with_the_same_layout(peers):
    class LoopBatchFirst(peers.TorchLoop):
        batch_first = True

    medians = {peers.Ours(): 1.0, peers.OursBatchFirst(): 2.0, LoopBatchFirst(): 6.0}
    found = {
        peer.name: {"memory": None, "reference": peer.reference}
        | {kind: [ms] * 3 for kind in ("forward", "backward", "both")}
        for peer, ms in medians.items()
    }
    ratios = [line.split(" | ")[4] for line in peers.table("title", found)[4:-1]]
    assert ratios == ["1", "1", "3"]


@pytest.mark.parametrize("protocol", ["training step, HSD network", "Open Neuromorphic, n = 512"])
def test_networks_take_their_steps(peers, monkeypatch, protocol):
    monkeypatch.setattr(peers, "PAUSE", 0)
    shrunk = {
        "training_step": lambda sizes, peers_, shape, rounds: step((8, 12, 12, 4), peers_, (6, 5), rounds),
        "open_neuromorphic": lambda size, peers_, rounds: linear(16, peers_, rounds),
    }
    step, linear = peers.training_step, peers.open_neuromorphic
    for name, function in shrunk.items():
        monkeypatch.setattr(peers, name, function)
    found = peers.protocols(peers.installed(), 2)[protocol]()
    assert {"exodus_core", "exodus_core, batch first", "torch loop"} <= set(found)
    assert all(one["both"][1] > 0 for one in found.values())
