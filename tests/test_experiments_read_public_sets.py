"""The loaders of the public data sets read files in the real formats.

Property: spikes of HDF5 files and events of AEDAT 2.0, 3.1 and 4.0 files fall into the table's steps and
channels, splits follow speakers, users and names, and broken or missing files raise errors that name them.
Wide-7B-Net has the layers of its description. Each network of table S1 trains on a stand-in. Witness: files
that the tests write byte by byte, or for AEDAT 4.0 by the camera maker's library, and loops over their
events.
"""

import dataclasses
import struct

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
h5py = pytest.importorskip("h5py", reason="needs h5py")
for needed in ("matplotlib", "scipy", "tqdm", "tonic"):
    pytest.importorskip(needed, reason=f"needs {needed}")

snn = pytest.importorskip("exodus_core.torch")
aedat, public_sets, networks, table_s1, settings = (
    pytest.importorskip(f"experiments.{name}")
    for name in ("aedat", "public_sets", "networks", "table_s1", "settings")
)


def spoken(path, samples, labels, speakers=None, words=None):
    """A file of HSD or SSC. A sample is its times in seconds and its units."""
    path.parent.mkdir(parents=True, exist_ok=True)
    floats, integers = h5py.vlen_dtype(np.float16), h5py.vlen_dtype(np.uint16)
    with h5py.File(path, "w") as file:
        times = file.create_dataset("spikes/times", (len(samples),), dtype=floats)
        units = file.create_dataset("spikes/units", (len(samples),), dtype=integers)
        for k, (when, which) in enumerate(samples):
            times[k], units[k] = np.asarray(when, np.float16), np.asarray(which, np.uint16)
        file["labels"] = np.asarray(labels, np.uint16)
        if speakers is not None:
            file["extra/speaker"] = np.asarray(speakers, np.uint16)
        if words is not None:
            file["extra/keys"] = words


def random_samples(rng, count):
    return [(np.sort(rng.random(200) * 1.5), rng.integers(0, 700, 200)) for _ in range(count)]


def test_spoken_words_are_binned(tmp_path):
    samples = [*random_samples(np.random.default_rng(0), 3), ([], [])]
    spoken(tmp_path / "words.h5", samples, [3, 1, 19, 0], [4, 4, 7, 9])
    read = list(public_sets.read_spoken(tmp_path / "words.h5"))
    expected = np.zeros((4, 250, 100), np.uint8)
    for k, (when, which) in enumerate(samples):
        for time, unit in zip(np.asarray(when, np.float16).astype(float), which, strict=True):
            if (step := int(time / 1.4 * 250)) < 250:
                expected[k, step, unit // 7] += 1
    assert np.array_equal([events for events, _ in read], expected)
    assert expected.sum() > 500
    assert [label for _, label in read] == [3, 1, 19, 0]


def test_two_speakers_of_hsd_are_for_validation(tmp_path):
    rng = np.random.default_rng(1)
    speakers = [0, 1, 2, 5, 6, 6, 5, 0]
    spoken(tmp_path / "SHD" / "shd_train.h5", random_samples(rng, 8), range(8), speakers)
    spoken(tmp_path / "SHD" / "shd_test.h5", random_samples(rng, 3), [17, 18, 19], [4, 4, 9])
    splits = public_sets.load_hsd(tmp_path, tmp_path)
    assert splits.train.labels.tolist() == [0, 1, 2, 7]
    assert splits.validation.labels.tolist() == [3, 4, 5, 6]
    assert splits.test.labels.tolist() == [17, 18, 19]
    assert len(splits.classes) == 20


def test_ssc_has_its_own_validation_set(tmp_path):
    rng = np.random.default_rng(2)
    for name, count in (("train", 4), ("valid", 2), ("test", 3)):
        samples = random_samples(rng, count)
        spoken(tmp_path / "SSC" / f"ssc_{name}.h5", samples, range(count), words=["yes", "no", "up", "down"])
    splits = public_sets.load_ssc(tmp_path, tmp_path)
    assert splits.sizes() == {"train": 4, "validation": 2, "test": 3}
    assert splits.classes == ("yes", "no", "up", "down")
    spoken(tmp_path / "SSC" / "ssc_train.h5", samples, range(3))
    assert len(public_sets.load_ssc(tmp_path, tmp_path).classes) == 35


def test_sets_are_converted_once(tmp_path, monkeypatch):
    rng = np.random.default_rng(7)
    for name in ("train", "valid", "test"):
        spoken(tmp_path / "SSC" / f"ssc_{name}.h5", random_samples(rng, 3), range(3))
    first = public_sets.load_ssc(tmp_path, tmp_path).train
    monkeypatch.setattr(public_sets, "_count_spikes", None)
    again = public_sets.load_ssc(tmp_path, tmp_path).train
    assert torch.equal(first.events, again.events) and torch.equal(first.labels, again.labels)
    (frames,) = tmp_path.glob("SSC-train-*.frames")
    frames.write_bytes(frames.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"SSC-train-\w+\.frames must have 75000 bytes: delete .*\.pt"):
        public_sets.load_ssc(tmp_path, tmp_path)


def test_an_interrupted_conversion_begins_anew(tmp_path, monkeypatch):
    for name in ("train", "valid", "test"):
        spoken(tmp_path / "SSC" / f"ssc_{name}.h5", random_samples(np.random.default_rng(8), 3), range(3))
    count, calls = public_sets._count_spikes, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return count(*arguments)

    monkeypatch.setattr(public_sets, "_count_spikes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        public_sets.load_ssc(tmp_path, tmp_path)
    assert not list(tmp_path.glob("SSC-*"))
    assert len(public_sets.load_ssc(tmp_path, tmp_path).train) == 3


def test_classes_out_of_range_are_refused(tmp_path):
    rng = np.random.default_rng(9)
    spoken(tmp_path / "SHD" / "shd_train.h5", random_samples(rng, 4), [0, 20, 1, 2], [0, 1, 2, 3])
    spoken(tmp_path / "SHD" / "shd_test.h5", random_samples(rng, 3), [17, 18, 19])
    with pytest.raises(ValueError, match=r"HSD-train must have classes from 0 to 19, got 20"):
        public_sets.load_hsd(tmp_path, tmp_path)


def test_broken_spoken_words_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"shd_train\.h5 is missing.*zenkelab"):
        public_sets.load_hsd(tmp_path, tmp_path)
    path = tmp_path / "words.h5"
    path.write_bytes(b"no file of HDF5")
    with pytest.raises(ValueError, match=r"words\.h5 must be a file of HSD or SSC.*zenkelab"):
        list(public_sets.read_spoken(path))
    with h5py.File(path, "w") as file:
        file["labels"] = [1]
    with pytest.raises(ValueError, match=r"words\.h5 must be a file of HSD or SSC"):
        list(public_sets.read_spoken(path))
    spoken(path, [([0.1], [700])], [1])
    with pytest.raises(ValueError, match=r"words\.h5 must have units below 700, got 700 in sample 0"):
        list(public_sets.read_spoken(path))
    spoken(path, [([0.1], [7])], [1, 2])
    with pytest.raises(ValueError, match=r"words\.h5 must have as many spikes as labels"):
        list(public_sets.read_spoken(path))


def events_of(rng, count, begin, end):
    times = np.sort(rng.integers(begin, end, count))
    return [(*rng.integers(0, 128, 2).tolist(), int(t), int(rng.integers(2))) for t in times]


def aedat2(events):
    """AEDAT 2.0 of a DVS128: big-endian address and time."""
    body = b"".join(struct.pack(">II", x << 8 | y << 1 | p, t) for x, y, t, p in events)
    return b"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n" + body


def packet(kind, words):
    body = b"".join(struct.pack("<II", *word) for word in words)
    return struct.pack("<hhiiiiii", kind, 1, 8, 4, 0, len(words), len(words), len(words)) + body


def aedat3(events, size=50):
    """AEDAT 3.1: packets of polarity events, one of which is invalid, and one of special events."""
    words = [(x << 17 | y << 2 | p << 1 | 1, t) for x, y, t, p in events]
    packets = [packet(1, words[k : k + size]) for k in range(0, len(words), size)]
    packets.insert(1, packet(0, [(0x7FFFFFFF, 5)]))
    packets.insert(2, packet(1, [(3 << 17 | 4 << 2, 5)]))
    return b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n" + b"".join(packets)


def as_tuples(events):
    return [(int(e["x"]), int(e["y"]), int(e["t"]), int(e["p"])) for e in events]


def test_aedat_is_read(tmp_path):
    events = events_of(np.random.default_rng(3), 120, 1000, 100_000)
    (tmp_path / "two.aedat").write_bytes(aedat2(events))
    (tmp_path / "three.aedat").write_bytes(aedat3(events))
    assert as_tuples(aedat.read_dvs128(tmp_path / "two.aedat")) == events
    assert as_tuples(aedat.read_packets(tmp_path / "three.aedat")) == events


@pytest.mark.parametrize(
    ("content", "read", "words"),
    [
        (b"", aedat.read_dvs128, "must begin with #!AER-DAT"),
        (b"something else", aedat.read_packets, "must begin with #!AER-DAT"),
        (aedat2([(1, 1, 1, 1)])[:-3], aedat.read_dvs128, "events of 8 bytes, got version 2.0 and 5 bytes"),
        (aedat3([(1, 1, 1, 1)]), aedat.read_dvs128, "got version 3.1"),
        (aedat2([(1, 1, 1, 1)]), aedat.read_packets, "must be AEDAT 3, got version 2.0"),
        (aedat3([(1, 1, 1, 1)])[:-3], aedat.read_packets, "the last one is cut"),
        (aedat3([(1, 1, 1, 1)])[:-20], aedat.read_packets, "the last one is cut"),
    ],
)
def test_broken_aedat_is_refused(content, read, words, tmp_path):
    path = tmp_path / "broken.aedat"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.aedat .*" + words):
        read(path)


def gesture_recording(folder, name, rng, rows):
    folder.mkdir(parents=True, exist_ok=True)
    events = [event for _, begin, end in rows for event in events_of(rng, 100, begin, end)]
    (folder / f"{name}.aedat").write_bytes(aedat3(events))
    lines = ["class,startTime_usec,endTime_usec", *(",".join(map(str, row)) for row in rows)]
    (folder / f"{name}_labels.csv").write_text("\n".join(lines) + "\n")
    return events


def test_dvs_gesture_is_cut_and_binned(tmp_path):
    rng, folder = np.random.default_rng(4), tmp_path / "DvsGesture"
    rows = [(1, 10_000, 3_010_000), (11, 4_000_000, 11_000_000)]
    events = gesture_recording(folder, "user01_lab", rng, rows)
    gesture_recording(folder, "user21_led", rng, [(5, 0, 1_000_000)])
    gesture_recording(folder, "user24_led", rng, [(7, 0, 1_000_000), (2, 2_000_000, 3_000_000)])
    (folder / "trials_to_train.txt").write_text("user01_lab.aedat\nuser21_led.aedat\n")
    (folder / "trials_to_test.txt").write_text("user24_led.aedat\n")
    splits = public_sets.load_dvs_gesture(tmp_path, tmp_path)
    assert splits.train.labels.tolist() == [0, 10]
    assert splits.validation.labels.tolist() == [4]
    assert splits.test.labels.tolist() == [6, 1]
    for k, own in enumerate((events[:100], events[100:])):
        expected = np.zeros((300, 2, 64, 64), np.uint8)
        for x, y, t, p in own:
            if (step := (t - own[0][2]) // 20_000) < 300:
                expected[step, p, y // 2, x // 2] += 1
        assert np.array_equal(splits.train.events[k].numpy(), expected)
    (folder / "trials_to_test.txt").write_text("user24_led.aedat\nuser25_led.aedat\n")
    with pytest.raises(FileNotFoundError, match=r"user25_led\.aedat is missing.*ibm"):
        public_sets.load_dvs_gesture(tmp_path, tmp_path)
    (folder / "trials_to_test.txt").write_text("user24_led.aedat\n")
    (folder / "user24_led_labels.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"user24_led_labels\.csv is missing.*ibm"):
        public_sets.load_dvs_gesture(tmp_path, tmp_path)
    (folder / "user24_led_labels.csv").write_text("class,begin\n1,0\n")
    with pytest.raises(ValueError, match=r"user24_led_labels\.csv must have classes and times"):
        public_sets.load_dvs_gesture(tmp_path, tmp_path)


def test_gestures_that_tonic_saves_are_binned(tmp_path):
    rng, folder = np.random.default_rng(10), tmp_path / "DVSGesture"
    kept = {}
    for name in ("ibmGestureTrain/user02_led", "ibmGestureTrain/user23_lab", "ibmGestureTest/user29_led"):
        (folder / name).mkdir(parents=True)
        for kind in (3, 10):
            events = [(x, y, p, t // 1000) for x, y, t, p in events_of(rng, 50, 0, 5_000_000)]
            np.save(folder / name / f"{kind}.npy", np.array(events, np.float64))
            kept[name, kind] = events
    splits = public_sets.load_dvs_gesture(tmp_path, tmp_path)
    assert splits.sizes() == {"train": 2, "validation": 2, "test": 2}
    assert sorted(splits.test.labels.tolist()) == [3, 10]
    own = kept["ibmGestureTest/user29_led", 10]
    expected = np.zeros((300, 2, 64, 64), np.uint8)
    for x, y, p, t in own:
        if (step := (t - own[0][3]) // 20) < 300:
            expected[step, p, y // 2, x // 2] += 1
    assert np.array_equal(splits.test.events[splits.test.labels.tolist().index(10)].numpy(), expected)
    assert table_s1.is_at_hand(table_s1.TASKS["DVS Gesture"], tmp_path)
    broken = folder / "ibmGestureTest" / "user29_led" / "5.npy"
    for content in (b"no array", b""):
        broken.write_bytes(content)
        with pytest.raises(ValueError, match=r"5\.npy must have rows of x, y, polarity, time"):
            public_sets.load_dvs_gesture(tmp_path, tmp_path)
    np.save(broken, np.zeros((3, 5)))
    with pytest.raises(ValueError, match=r"5\.npy must have rows of x, y, polarity, time"):
        public_sets.load_dvs_gesture(tmp_path, tmp_path)


def write_aedat2(path, events):
    path.write_bytes(aedat2(events))


def write_aedat4(path, events):
    dv = pytest.importorskip("dv_processing", reason="needs dv-processing")
    store = dv.EventStore()
    for x, y, t, p in events:
        store.push_back(int(t), int(x), int(y), bool(p))
    config = dv.io.MonoCameraWriter.EventOnlyConfig("DVS128", (128, 128))
    dv.io.MonoCameraWriter(str(path), config).writeEvents(store)


@pytest.mark.parametrize(("suffix", "write"), [(".aedat", write_aedat2), (".aedat4", write_aedat4)])
def test_cifar10_dvs_is_binned(tmp_path, suffix, write):
    rng = np.random.default_rng(5)
    kept = {}
    for name in public_sets.CIFAR10_NAMES:
        folder = tmp_path / "CIFAR10DVS" / name
        folder.mkdir(parents=True)
        for k in range(10):
            kept[name, k] = events_of(rng, 30, 100, 1_000_000)
            write(folder / f"cifar10_{name}_{k}{suffix}", kept[name, k])
    splits = public_sets.load_cifar10_dvs(tmp_path, tmp_path)
    assert splits.sizes() == {"train": 80, "validation": 10, "test": 10}
    assert splits.test.labels.tolist() == list(range(10))
    own = kept["frog", 9]
    window = -(-(own[-1][2] - own[0][2] + 1) // 8)
    expected = np.zeros((8, 2, 128, 128), np.uint8)
    for x, y, t, p in own:
        expected[(t - own[0][2]) // window, p, y, x] += 1
    assert np.array_equal(splits.test.events[6].numpy(), expected)
    assert expected.sum() == 30
    broken = tmp_path / "CIFAR10DVS" / "frog" / f"cifar10_frog_3{suffix}"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(ValueError, match="cifar10_frog_3"):
        public_sets.read_cifar10(broken)
    broken.unlink()
    with pytest.raises(FileNotFoundError, match=r"frog must have 1000 recordings.*got 9.*figshare"):
        public_sets.load_cifar10_dvs(tmp_path, tmp_path)


def test_wide_7b_net_has_the_layers_of_its_description():
    net = networks.wide_7b_net(snn.IF)
    blocks = [module for module in net.modules() if isinstance(module, snn.Residual)]
    assert len(blocks) == 7
    assert all(block.connect == "add" for block in blocks)
    widths = [
        next(m for m in block.modules() if isinstance(m, torch.nn.Conv2d)).out_channels for block in blocks
    ]
    assert widths == [64, 64, 64, 64, 128, 128, 128]
    for block in blocks:
        kinds = [type(module).__name__ for module in block.modules() if not list(module.children())]
        assert kinds == ["Conv2d", "BatchNorm2d", "IF"] * 2
    convolutions = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [m.kernel_size for m in convolutions].count((1, 1)) == 2
    assert all(m.bias is None for m in convolutions)
    assert sum(isinstance(m, torch.nn.MaxPool2d) for m in net.modules()) == 7
    three = 4 * 2 * 9 * 64**2 + 3 * 2 * 9 * 128**2
    norms = 2 * (64 * (1 + 8) + 128 * (1 + 6))
    assert sum(p.numel() for p in net.parameters()) == three + 2 * 64 + 64 * 128 + norms + 128 * 10 + 10
    assert net(torch.rand(1, 2, 2, 128, 128)).shape == (1, 2, 10)


def test_the_other_networks_have_the_tables_layers():
    shapes = {
        networks.speech(20, snn.IF): [(128, 100), (128, 128), (20, 128)],
        networks.speech(35, snn.IF): [(128, 100), (128, 128), (35, 128)],
        networks.dvs_gesture(snn.IF): [(2, 2, 3, 3), (4, 2, 3, 3), (8, 4, 3, 3), (16, 8, 3, 3), (11, 1024)],
    }
    for net, expected in shapes.items():
        assert [tuple(p.shape) for p in net.parameters() if p.dim() > 1] == expected
        assert sum(isinstance(m, snn.IF) for m in net.modules()) == len(expected) - 1


def test_table_s1_trains_each_network(tmp_path, monkeypatch):
    def small(task, stand_in, counts):
        return dataclasses.replace(task, stand_in=stand_in, quick=counts)

    speech, vision = table_s1.synthetic.speech, table_s1.synthetic.vision
    stand_ins = {
        "HSD": (lambda counts: speech("HSD", 20, counts, steps=10), (8, 4, 4, 4, 1)),
        "SSC": (lambda counts: speech("SSC", 35, counts, steps=10), (8, 4, 4, 4, 1)),
        "DVS Gesture": (lambda counts: vision("DVS", 11, counts, 5, 64, rate=0.05), (8, 4, 4, 4, 1)),
        "CIFAR10-DVS": (lambda counts: vision("CIFAR", 10, counts, 1, 128, rate=0.1), (2, 2, 2, 2, 1)),
    }
    tasks = {name: small(table_s1.TASKS[name], *own) for name, own in stand_ins.items()}
    monkeypatch.setattr(table_s1, "TASKS", tasks)
    monkeypatch.setattr(
        table_s1, "run_jobs", lambda function, jobs, *_: {name: function(*job) for name, job in jobs.items()}
    )
    outcome = table_s1.run(settings.Settings(tmp_path))
    assert any("SYNTHETIC STAND-INS" in text and "CIFAR10-DVS" in text for text in outcome.text)
    assert [row[0] for row in outcome.tables[0].rows] == [f"{name}, EXODUS" for name in tasks]
    assert outcome.figures[0].read_bytes().startswith(b"\x89PNG")
    for result in outcome.numbers.values():
        assert len(result["loss"]) == 1 and result["loss"][0] > 0
        assert sum(map(sum, result["confusion"])) == result["sizes"]["test"]


def test_a_set_that_is_there_is_used(tmp_path):
    rng = np.random.default_rng(6)
    spoken(tmp_path / "SHD" / "shd_train.h5", random_samples(rng, 8), range(8), [0, 1, 2, 5, 6, 6, 5, 0])
    spoken(tmp_path / "SHD" / "shd_test.h5", random_samples(rng, 3), [17, 18, 19])
    assert not table_s1.splits_of(table_s1.TASKS["HSD"], True, tmp_path, tmp_path).synthetic
    assert table_s1.splits_of(table_s1.TASKS["SSC"], True, tmp_path, tmp_path).synthetic


def test_a_full_run_trains_by_each_method_and_takes_longer_with_recordings(tmp_path):
    chosen = settings.Settings(tmp_path / "out", quick=False)
    own = table_s1.jobs(chosen)
    assert {(name, method, plan.seed) for name, method, _, plan, *_ in own.values()} == {
        (name, method, seed) for name in table_s1.TASKS for method in table_s1.METHODS for seed in range(3)
    }
    (tmp_path / "SSC").mkdir()
    there = dataclasses.replace(chosen, data=tmp_path)
    assert table_s1.seconds(there) > 1.05 * table_s1.seconds(chosen)
