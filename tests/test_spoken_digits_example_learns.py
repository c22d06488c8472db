"""The example of spoken digits reads recordings, keeps the test set separate, and learns.

Property: the index of a recording determines its split, and the training set normalises the bands. The
command line trains all networks, which then recognise digits of the test set. It refuses a folder without
recordings. Witness: tones with a pitch for each digit, and the real recordings if EXODUS_DATA is set: its
subfolder fsdd is a clone of https://github.com/Jakobovski/free-spoken-digit-dataset.
"""

import importlib
import os
import re
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("tqdm", reason="needs tqdm")

SCRIPT = Path(__file__).parent.parent / "examples" / "spoken_digits.py"
SAMPLES = 3000


def write_tone(path, pitch, rng):
    time = np.arange(SAMPLES) / 8000
    tone = np.sin(2 * np.pi * (pitch * time + rng.random())) + rng.normal(0, 0.1, SAMPLES)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes((8000 * tone).astype("<i2").tobytes())


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """A data set of one speaker, with a tone for each digit."""
    folder = tmp_path_factory.mktemp("digits") / "recordings"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for digit in range(10):
        for index in range(15):
            write_tone(folder / f"{digit}_tone_{index}.wav", 200 * 1.3**digit, rng)
    return folder.parent


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    yield importlib.import_module("spoken_digits")
    sys.modules.pop("spoken_digits")


def run(*arguments):
    command = [sys.executable, str(SCRIPT), "--threads=1", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def accuracies(done):
    """The accuracies of the networks on the test set, in per cent."""
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"^(\w+(?:, recurrent)?) .* % +(\d+\.\d) %", done.stdout, re.MULTILINE))
    assert list(found) == ["CubaLIF", "CubaLIF, recurrent", "AdLIF", "AdLIF, recurrent"], done.stdout
    return {name: float(accuracy) for name, accuracy in found.items()}


def test_splits_are_apart(example, tones, tmp_path):
    splits = example.load(tones / "recordings")
    for split in splits.values():
        assert split.inputs.shape == (80, 50, 40)
        assert torch.equal(split.labels, torch.arange(10).repeat_interleave(5))
    frames = -(-(SAMPLES + 1) // 80)
    learnt_from = splits["train"].inputs[:frames]
    assert learnt_from.mean((0, 1)).abs().max() < 1e-5
    assert (learnt_from.std((0, 1)) - 1).abs().max() < 1e-3
    assert not splits["train"].inputs[frames:].any()
    # Louder test recordings do not change the training set.
    other = tmp_path / "recordings"
    other.mkdir()
    rng = np.random.default_rng(1)
    for path in (tones / "recordings").iterdir():
        if int(path.stem.rsplit("_", 1)[1]) < 5:
            write_tone(other / path.name, 3000.0, rng)
        else:
            (other / path.name).write_bytes(path.read_bytes())
    again = example.load(other)
    assert torch.equal(again["train"].inputs, splits["train"].inputs)
    assert torch.equal(again["validation"].inputs, splits["validation"].inputs)
    assert not torch.equal(again["test"].inputs, splits["test"].inputs)


def test_networks_learn_tones(tones):
    found = accuracies(run("--data", tones, "--hidden=32", "--epochs=110", "--seeds=1"))
    assert min(found.values()) > 60, found


def test_a_folder_without_recordings_is_refused(tmp_path):
    done = run("--data", tmp_path)
    assert done.returncode == 2
    assert "--data must be a folder with recordings/*.wav, got" in done.stderr


def test_networks_learn_digits():
    folder = os.environ.get("EXODUS_DATA")
    if folder is None:
        pytest.skip("EXODUS_DATA is not set: a folder with fsdd, a clone of the Free Spoken Digit Dataset")
    found = accuracies(run("--data", Path(folder) / "fsdd", "--quick"))
    assert min(found.values()) > 70, found
