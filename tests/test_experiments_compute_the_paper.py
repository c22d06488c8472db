"""The experiments compute what the paper says, and their figures and tables come from that.

Property: partial derivatives around a loop multiply to -1. The points of figure S1 are of the four kinds.
The gradient of an output layer is the formula with sigma_m[k]. EXODUS has BPTT's gradients at every layer,
and SLAYER does not. A loop in torch has this library's spikes and gradients. Each small run writes pictures
and finite numbers. Witness: solutions of phi = 0, (S9) written out, autograd of the loop.
"""

import json
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
for needed in ("matplotlib", "scipy", "tqdm", "tonic"):
    pytest.importorskip(needed, reason=f"needs {needed}")

import_ = pytest.importorskip
loop_example, section_7, figure_s2, figure_s3, oxford, table_s2, scales = (
    import_(f"experiments.{name}")
    for name in (
        "loop_example",
        "section_7",
        "figure_s2",
        "figure_s3",
        "oxford",
        "table_s2",
        "gradient_scale",
    )
)
settings = import_("experiments.settings")


def small(tmp_path, **keywords):
    return settings.Settings(tmp_path, **keywords)


def numbers_of(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [x for part in value for x in numbers_of(part)]
    return [value] if isinstance(value, (int, float)) else []


def check(outcome):
    """The outcome can be shown: pictures are there, cells are text, numbers are finite."""
    assert outcome.title and all(outcome.text)
    for table in outcome.tables:
        assert all(len(row) == len(table.columns) for row in table.rows)
        assert all(isinstance(cell, str) and "nan" not in cell for row in table.rows for cell in row)
    for figure in outcome.figures:
        assert figure.read_bytes().startswith(b"\x89PNG")
    found = numbers_of(json.loads(json.dumps(outcome.numbers)))
    assert found and all(math.isfinite(x) for x in found)


@pytest.mark.parametrize("loop", loop_example.LOOPS, ids=lambda loop: loop.formula)
def test_the_product_around_a_loop_is_minus_one(loop):
    point = (*loop.near[:2], loop_example.solve(loop.phi, loop.near, 2))
    assert abs(loop_example.value(loop.phi, point)) < 1e-12
    implicit = loop_example.implicit_partials(loop.phi, point)
    assert np.prod(implicit) == pytest.approx(-1, abs=1e-12)
    assert implicit == pytest.approx(loop_example.solved_partials(loop.phi, point), rel=1e-7)


def test_the_points_of_figure_s1_are_of_the_four_kinds(tmp_path):
    expected = {
        "A": (True, True, True),
        "B": (True, True, False),
        "C": (False, False, True),
        "D": (False,) * 3,
    }
    for name, place in loop_example.POINTS.items():
        assert abs(loop_example.figure_phi(*map(np.array, place))) < 1e-12
        differentiable = loop_example.figure_gradient(*place) is not None
        functions = (loop_example.is_function(place, k) for k in (0, 1))
        assert (differentiable, *functions) == expected[name], name
    for place in ((1.5, 1.0), (2.0, 0.0)):
        moved = [
            (
                loop_example.figure_phi(*(np.array(place) + step))
                - loop_example.figure_phi(*(np.array(place) - step))
            )
            / 2e-6
            for step in (np.array([1e-6, 0]), np.array([0, 1e-6]))
        ]
        assert loop_example.figure_gradient(*place) == pytest.approx(moved, abs=1e-5)
    check(loop_example.run(small(tmp_path)))


def test_the_output_layer_has_the_formulas_gradient(tmp_path):
    for tail in section_7.TAILS.values():
        for seed in range(3):
            assert section_7.output_layer_error(tail, seed) < 1e-12
    outcome = section_7.run(small(tmp_path))
    check(outcome)
    for one in outcome.numbers.values():
        assert one["cosine"]["exodus"] == pytest.approx([1.0] * 3, abs=1e-9)
        assert one["norm_ratio"]["exodus"] == pytest.approx([1.0] * 3, abs=1e-9)
        assert one["norm_ratio"]["slayer"][0] > one["norm_ratio"]["slayer"][-1] > 1.5


def test_the_formula_is_the_dense_sum():
    # Two steps by hand: sigma_0[0] = h0, sigma_0[1] = -h1 h0, sigma_1[1] = h1.
    u, e = torch.tensor([[0.7], [1.2]]).double(), torch.tensor([[2.0], [3.0]]).double()
    h = torch.exp(-(u - 1).abs() / 0.5)
    first = 2 * h[0] - 3 * h[1] * h[0] + 0.9 * 3 * h[1]
    found = section_7.written_out(u, e, 0.9)
    assert found[:, 0].tolist() == pytest.approx([first.item(), (3 * h[1]).item()])


def test_exodus_is_bptt_at_every_layer_and_slayer_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(figure_s2, "SCALES", (1.0, 0.01))
    monkeypatch.setattr(figure_s2, "WIDTHS", (0.4, 1.0))
    monkeypatch.setattr(figure_s2, "DEPTHS", (4,))
    monkeypatch.setattr(figure_s2, "TAUS", (20.0,))
    monkeypatch.setattr(figure_s2, "HIDDEN", 24)
    outcome = figure_s2.run(small(tmp_path, workers=1))
    check(outcome)
    for name, one in outcome.numbers.items():
        assert one["cosine"]["exodus"] == pytest.approx([1.0] * len(one["norm"]), abs=1e-5), name
        assert one["norm_ratio"]["exodus"] == pytest.approx([1.0] * len(one["norm"]), rel=1e-5), name
        assert one["cosine"]["slayer"][-1] == pytest.approx(1.0, abs=1e-9)
    for name in ("paper, seed 0", "depth 4, seed 0"):
        one = outcome.numbers[name]
        assert one["cosine"]["slayer"][0] < 0.9
        assert one["norm_ratio"]["slayer"][0] > one["norm_ratio"]["slayer"][1] > 1


def test_a_loop_in_torch_has_the_librarys_spikes_and_gradients(tmp_path, monkeypatch):
    for name, task in table_s2.TASKS.items():
        if name != "DVS Gesture":
            difference, least, ratio = table_s2.Stepper(task, 4, "cpu").agreement()
            assert difference == 0.0
            assert least == pytest.approx(1.0, abs=1e-9)
            assert ratio == pytest.approx(1.0, abs=1e-5)
    monkeypatch.setattr(table_s2, "TASKS", {"HSD": table_s2.TASKS["HSD"]})
    outcome = table_s2.run(small(tmp_path))
    check(outcome)
    times = outcome.numbers["HSD"]["milliseconds"]
    assert set(times) == set(table_s2.METHODS)
    assert all(len(own) == 4 and min(map(min, own)) > 0 for own in times.values())


def test_a_spike_train_is_fitted(tmp_path, monkeypatch):
    monkeypatch.setattr(figure_s3, "TAUS", (5.0, 10.0, 20.0, 50.0))
    monkeypatch.setattr(figure_s3, "jobs", lambda _: {"one": (20.0, 1e-3, 40), "two": (20.0, 1e-2, 40)})
    outcome = figure_s3.run(small(tmp_path))
    check(outcome)
    kept = json.loads((tmp_path / "quick" / "figure_s3" / "one.json").read_text())["result"]
    mean = np.mean(kept["loss"]["exodus"], axis=1).sum()
    assert outcome.numbers["tau 20 rate 0.001"]["exodus"] == pytest.approx(mean)


def test_gradient_scales(tmp_path, monkeypatch):
    monkeypatch.setattr(scales, "SCALES", (0.01, 0.5, 1.0))
    monkeypatch.setattr(scales, "TAUS", (20.0,))
    outcome = scales.run(small(tmp_path, epochs=1))
    check(outcome)
    norms = {name: one["norm"] for name, one in outcome.numbers.items()}
    spans = {
        method: max(v for k, v in norms.items() if k.startswith(method))
        / min(v for k, v in norms.items() if k.startswith(method))
        for method in ("exodus", "slayer")
    }
    assert spans["slayer"] > 5 * spans["exodus"]


def events(pairs):
    """Events of 40 bits, whose highest bit of time is the polarity."""
    return b"".join(
        neuron.to_bytes(2, "big") + ((1 << 23) | time).to_bytes(3, "big") for neuron, time in pairs
    )


def test_spike_trains_are_read(tmp_path):
    pairs = [(0, 0), (199, 999), (7, 1000), (7, 1_899_999), (7, 1_899_000)]
    path = tmp_path / "input.bs1"
    path.write_bytes(events(pairs))
    found = oxford.read_spikes(path)
    assert found.shape == (1900, 200)
    assert found.nonzero().tolist() == [[0, 0], [0, 199], [1, 7], [1899, 7]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 bytes"),
        (b"1234567", "7 bytes"),
        (events([(200, 0)]), "neuron 200"),
        (events([(0, 1_900_000)]), "1900 ms"),
    ],
)
def test_broken_spike_trains_are_refused(content, words, tmp_path):
    path = tmp_path / "broken.bs1"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.bs1 must have .*" + words):
        oxford.read_spikes(path)
    with pytest.raises(FileNotFoundError, match=r"missing\.bs1.*slayerPytorch"):
        oxford.read_spikes(tmp_path / "missing.bs1")


def test_the_picture_emerges(tmp_path):
    outcome = oxford.run(small(tmp_path, epochs=12))
    check(outcome)
    for one in outcome.numbers.values():
        assert len(one["loss"]) == 12
        assert one["loss"][-1] < 0.9 * one["loss"][0]


def test_the_picture_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(oxford, "SAVED", 2)
    whole = oxford.train("exodus", 4, None, tmp_path)
    part = tmp_path / "part"
    part.mkdir()
    steps = oxford.snn.van_rossum_distance
    calls = []

    def stops(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return steps(*arguments)

    monkeypatch.setattr(oxford.snn, "van_rossum_distance", stops)
    with pytest.raises(KeyboardInterrupt):
        oxford.train("exodus", 4, None, part)
    monkeypatch.setattr(oxford.snn, "van_rossum_distance", steps)
    assert oxford.train("exodus", 4, None, part) == whole
