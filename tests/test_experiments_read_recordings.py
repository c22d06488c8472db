"""The experiments read recordings exactly, and broken or missing files raise errors that name them.

Property: events fall into the bins of space and time that a loop over them finds. N-MNIST's files and wav
files are read, and anything else is refused. Splits are disjoint, and hold the recordings that they promise.
The front end's spikes depend on the sound. Witness: loops over events, tones, and the real recordings if
EXODUS_DATA is set (its subfolders fsdd and nmnist).
"""

import os
import wave
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
for needed in ("scipy", "tqdm", "tonic"):
    pytest.importorskip(needed, reason=f"needs {needed}")

digits, nmnist, frames, synthetic, recordings = (
    pytest.importorskip(f"experiments.{name}")
    for name in ("digits", "nmnist", "frames", "synthetic", "recordings")
)


def events_of(rng, count, width, height, microseconds):
    events = np.zeros(count, [("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "?")])
    events["x"], events["y"] = rng.integers(0, width, count), rng.integers(0, height, count)
    events["t"] = np.sort(rng.integers(500, microseconds, count))
    events["p"] = rng.random(count) < 0.5
    return events


@pytest.mark.parametrize(("sensor", "side"), [((34, 34), 32), ((34, 34), 8), ((128, 96), 32), ((7, 9), 7)])
def test_events_are_counted_in_their_bins(sensor, side):
    rng = np.random.default_rng(0)
    events = events_of(rng, 5000, *sensor, 70_000)
    found = frames.count_events(events, sensor, 12, 5000, side)
    size = min(sensor) // side
    expected = np.zeros((12, 2, side, side), np.uint8)
    for x, y, t, p in events:
        column, row = (
            (x - (sensor[0] - size * side) // 2) // size,
            (y - (sensor[1] - size * side) // 2) // size,
        )
        step = (t - events["t"][0]) // 5000
        if 0 <= column < side and 0 <= row < side and step < 12:
            expected[step, int(p), row, column] += 1
    assert np.array_equal(found, expected)
    assert found.sum() > 1000


def test_counts_end_at_255_and_nothing_is_nothing():
    events = events_of(np.random.default_rng(0), 400, 1, 1, 501)
    assert frames.count_events(events, (1, 1), 1, 1000, 1).sum(axis=(0, 2, 3)).max() <= 255
    events["p"] = True
    assert frames.count_events(events, (1, 1), 1, 1000, 1)[0, 1, 0, 0] == 255
    assert not frames.count_events(events[:0], (4, 4), 2, 1000, 2).any()


def nmnist_bytes(events):
    """40 bits each: x, y, polarity and 23 bits of time."""
    return b"".join(
        bytes([x, y]) + ((int(p) << 23) | int(t)).to_bytes(3, "big") for x, y, t, p in events.tolist()
    )


@pytest.fixture
def nmnist_folder(tmp_path):
    rng = np.random.default_rng(1)
    for part, count in (("Train", 6), ("Test", 2)):
        for digit in range(10):
            folder = tmp_path / "nmnist" / part / str(digit)
            folder.mkdir(parents=True)
            for k in range(count):
                content = nmnist_bytes(events_of(rng, 50 + digit, 34, 34, 300_000))
                (folder / f"{k:05}.bin").write_bytes(content)
    return tmp_path


def test_nmnist_is_read(nmnist_folder):
    splits = nmnist.load(nmnist_folder)
    assert splits.sizes() == {"train": 48, "validation": 12, "test": 20}
    assert splits.test.events.shape == (20, nmnist.STEPS, 2, 32, 32)
    assert splits.test.labels.tolist() == [digit for digit in range(10) for _ in range(2)]
    rng = np.random.default_rng(1)
    first = events_of(rng, 50, 34, 34, 300_000)
    expected = frames.count_events(first, (34, 34), nmnist.STEPS, nmnist.WINDOW, 32)
    assert np.array_equal(splits.validation.events[0].numpy(), expected)
    inputs, labels = splits.train.batch(torch.tensor([3, 5]), "cpu")
    assert inputs.dtype == torch.float32 and torch.equal(inputs[1], splits.train.events[5].float())
    assert torch.equal(labels, splits.train.labels[[3, 5]])


@pytest.mark.parametrize("content", [b"", b"1234567", bytes([40, 3, 0, 0, 1])])
def test_broken_nmnist_is_refused(content, nmnist_folder):
    path = nmnist_folder / "nmnist" / "Test" / "3" / "00001.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"3.00001\.bin must have events.*garrickorchard"):
        nmnist.load(nmnist_folder)


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Train.*no such folder.*garrickorchard"):
        nmnist.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"recordings.*no such folder.*free-spoken-digit"):
        digits.load(tmp_path, tmp_path)
    (tmp_path / "fsdd" / "recordings").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="none of them"):
        digits.load(tmp_path, tmp_path)


def write_wav(path, samples, rate=8000, channels=1):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(samples).astype("<i2").tobytes())


def tone(frequency, seconds=0.3):
    return 8000 * np.sin(2 * np.pi * frequency * np.arange(int(8000 * seconds)) / 8000)


@pytest.mark.parametrize("frequency", [200.0, 700.0, 2500.0])
def test_a_tone_excites_the_channel_of_its_frequency(frequency, tmp_path):
    write_wav(tmp_path / "tone.wav", tone(frequency))
    envelope = digits.envelopes(digits.read_wav(tmp_path / "tone.wav"))
    loudest = digits.centre_frequencies()[envelope.sum(axis=0).argmax()]
    assert loudest == pytest.approx(frequency, rel=0.06)
    trains = digits.spikes(envelope)
    assert trains.shape == (250, 100) and trains.dtype == np.uint8
    assert not trains[80:].any()  # after 300 ms
    assert abs(int(trains.sum(axis=0).argmax()) - int(envelope.sum(axis=0).argmax())) <= 6
    assert trains.sum() > 50


def test_spikes_do_not_depend_on_loudness(tmp_path):
    for name, factor in (("loud", 1.0), ("soft", 0.125)):
        write_wav(tmp_path / f"{name}.wav", factor * np.round(tone(500.0) / 8) * 8)
    loud, soft = (
        digits.spikes(digits.envelopes(digits.read_wav(tmp_path / f"{name}.wav")))
        for name in ("loud", "soft")
    )
    assert np.array_equal(loud, soft)


@pytest.mark.parametrize(
    ("samples", "keywords", "words"),
    [
        (tone(300.0), {"rate": 16000}, r"8 kHz.*16000"),
        (tone(300.0), {"channels": 2}, r"mono.*2"),
        (np.zeros(100), {}, "silence"),
        (np.zeros(0), {}, "0 samples"),
    ],
)
def test_other_recordings_are_refused(samples, keywords, words, tmp_path):
    write_wav(tmp_path / "odd.wav", samples, **keywords)
    with pytest.raises(ValueError, match=r"odd\.wav must " + ".*" + words):
        digits.read_wav(tmp_path / "odd.wav")


def test_a_file_that_is_no_recording_is_refused(tmp_path):
    (tmp_path / "odd.wav").write_bytes(b"RIFF and no more")
    with pytest.raises(ValueError, match=r"odd\.wav must be a wav file.*free-spoken-digit"):
        digits.read_wav(tmp_path / "odd.wav")


@pytest.fixture
def digit_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "CHANNELS", 4)
    folder = tmp_path / "fsdd" / "recordings"
    folder.mkdir(parents=True)
    for speaker, pitch in (("ann", 1.0), ("bob", 0.8)):
        for digit in range(10):
            for index in range(12):
                sound = tone(pitch * (300 + 200 * digit), 0.05 + 0.005 * index)
                write_wav(folder / f"{digit}_{speaker}_{index}.wav", sound)
    return tmp_path


def test_splits_of_digits_are_disjoint_and_whole(digit_folder):
    splits = digits.load(digit_folder, digit_folder)
    assert splits.sizes() == {"train": 40, "validation": 100, "test": 100}
    left = digits.leave_out("bob", digit_folder, digit_folder)
    assert left.sizes() == {"train": 70, "validation": 50, "test": 120}
    for one in (splits, left):
        parts = [getattr(one, name).events.flatten(1) for name in ("train", "validation", "test")]
        assert len(torch.cat(parts)) == 240
        assert all(
            torch.bincount(getattr(one, n).labels).tolist() == [len(getattr(one, n)) // 10] * 10
            for n in ("train", "test")
        )
    with pytest.raises(ValueError, match=r"speaker must be one of \['ann', 'bob'\], got 'eve'"):
        digits.leave_out("eve", digit_folder, digit_folder)


def test_the_cache_is_that_of_the_files_and_the_front_end(digit_folder, monkeypatch):
    first = digits.recordings(digit_folder, digit_folder)
    monkeypatch.setattr(digits, "envelopes", lambda _: pytest.fail("was computed again"))
    assert torch.equal(digits.recordings(digit_folder, digit_folder).events, first.events)
    monkeypatch.undo()
    monkeypatch.setattr(digits, "CHANNELS", 4)
    monkeypatch.setattr(digits, "GAIN", 0.5)
    assert not torch.equal(digits.recordings(digit_folder, digit_folder).events, first.events)
    (digit_folder / "digits.pt").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"digits\.pt"):
        digits.recordings(digit_folder, digit_folder)


def test_stand_ins_have_classes():
    splits = synthetic.speech("words", 4, (80, 8, 40))
    assert splits.synthetic and splits.train.events.shape == (80, 250, 100)
    assert splits.train.events.float().mean().item() == pytest.approx(0.03, rel=0.1)
    means = torch.stack([splits.train.events[splits.train.labels == k].float().mean((0,)) for k in range(4)])
    nearest = torch.cdist(splits.test.events.float().flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == splits.test.labels).float().mean() > 0.9
    frames_of = synthetic.vision("gestures", 3, (6, 3, 3), 5, 16).train.events
    assert frames_of.shape == (6, 5, 2, 16, 16) and frames_of.max() == 1


def test_a_small_run_of_the_recordings_reports(tmp_path, monkeypatch):
    settings = pytest.importorskip("experiments.settings")
    vision = synthetic.vision("N-MNIST", 10, (20, 10, 10), 5, 32)
    words = synthetic.speech("digits", 10, (40, 20, 20), steps=20)
    monkeypatch.setattr(recordings, "load", lambda task, *_: vision if task == "nmnist" else words)
    monkeypatch.setattr(
        recordings,
        "run_jobs",
        lambda function, jobs, *_: {name: function(*job) for name, job in jobs.items()},
    )
    outcome = recordings.run(settings.Settings(tmp_path, epochs=1))
    assert len(outcome.tables) == 3 and all(figure.exists() for figure in outcome.figures)
    for method in ("exodus", "slayer", "bptt"):
        assert outcome.numbers[f"digits-{method}-0"]["test_accuracy"] is not None
    first, exact = (outcome.numbers[f"digits-{method}-0"]["loss"][0] for method in ("exodus", "bptt"))
    assert first == pytest.approx(exact, rel=1e-4)


def test_real_recordings():
    folder = os.environ.get("EXODUS_DATA")
    if folder is None:
        pytest.skip("EXODUS_DATA is not set: a folder with nmnist and fsdd")
    splits = nmnist.load(Path(folder))
    assert splits.sizes() == {"train": 800, "validation": 200, "test": 100}
    assert 0.01 < splits.train.events.float().mean().item() < 0.1
    files = digits._files(Path(folder))
    assert len(files) == 3000
    trains = digits.spikes(digits.envelopes(digits.read_wav(files[0])))
    assert 0.005 < trains.mean() < 0.1
