"""The demo reproduces the paper's results, and writes its pictures.

Property: at a network's first step EXODUS gives the weight gradients of BPTT, and SLAYER does not. From the
same start EXODUS learns spike times that SLAYER does not learn in as many epochs. A classifier learns. The
command line runs the chosen parts, prints an aligned table, writes PNGs, and names missing packages.
Witness: small versions of the demo's experiments, its files and its output.
"""

import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
for package in ("matplotlib", "sklearn", "tqdm"):
    pytest.importorskip(package, reason=f"needs {package}")
claim, digits, fit, srm = (
    pytest.importorskip(f"exodus_core.demo.{part}") for part in ("claim", "digits", "fit", "srm")
)

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def demo(*arguments, without=()):
    """Run the command line as if the packages in `without` were not installed."""
    command = ["-m", "exodus_core.demo"]
    if without:
        hide = f"import runpy, sys; sys.modules.update(dict.fromkeys({without!r}))"
        command = ["-c", f"{hide}; runpy.run_module('exodus_core.demo', run_name='__main__', alter_sys=True)"]
    return subprocess.run([sys.executable, *command, *arguments], capture_output=True, text=True, timeout=120)


def is_picture(path):
    return path.read_bytes().startswith(PNG) and path.stat().st_size > 10_000


def test_claim(tmp_path):
    result = claim.claim(steps=80, batch=16)
    for layer in range(3):
        assert result.cosine["exodus"][layer] > 1 - 1e-12
        assert abs(result.norm_ratio["exodus"][layer] - 1) < 1e-12
    assert result.cosine["slayer"][0] < 0.9
    assert result.cosine["slayer"][0] < result.cosine["slayer"][1] < 0.999
    assert result.norm_ratio["slayer"][0] > 2
    # There is no spiking layer after the last weights.
    assert result.cosine["slayer"][2] > 1 - 1e-12
    assert is_picture(claim.plot(result, tmp_path))


def test_fit(tmp_path):
    epochs = 200
    result = fit.fit(epochs=epochs, runs=3)
    assert result.loss["exodus"].shape == (epochs, 3)
    assert np.array_equal(result.loss["exodus"][0], result.loss["slayer"][0])
    assert result.loss["exodus"][-20:].mean() < 0.5 < result.loss["slayer"][-20:].mean()
    first = result.epochs_to_fit("exodus")[0]
    assert np.array_equal(result.raster["exodus"][first - 1].nonzero()[0], result.target)
    assert is_picture(fit.plot(result, tmp_path))


def test_srm(tmp_path):
    epochs = 300
    result = srm.srm(epochs=epochs, runs=3)
    assert np.array_equal(result.loss["exodus"][0], result.loss["slayer"][0])
    assert all(result.epochs_to_fit("exodus"))
    assert not any(result.epochs_to_fit("slayer"))
    assert result.loss["exodus"][-20:].mean() < 0.5 * result.loss["slayer"][-20:].mean()
    assert srm.plot(result, tmp_path).name == "srm.png" and is_picture(tmp_path / "srm.png")


def test_a_run_does_not_depend_on_the_other_runs():
    alone, together = fit.fit(seed=1, epochs=15, runs=1), fit.fit(seed=0, epochs=15, runs=2)
    for method in fit.METHODS:
        np.testing.assert_array_equal(alone.loss[method][:, 0], together.loss[method][:, 1])


def test_digits(tmp_path):
    result = digits.digits(epochs=4, splits=1)
    for method in digits.METHODS:
        assert result.accuracy[method].shape == (1, 4)
        assert result.accuracy[method][0, -1] > 0.88
        assert result.loss[method][0, -1] < 0.3 * result.loss[method][0, 0]
    assert len({example.label for example in result.examples}) == 3
    assert is_picture(digits.plot(result, tmp_path))


def test_same_seed_same_numbers():
    first, again, other = (claim.claim(seed=seed, steps=20, batch=4) for seed in (3, 3, 4))
    assert first.cosine == again.cosine
    assert first.loss == again.loss != other.loss


def test_command_line(tmp_path):
    folder = tmp_path / "new" / "folder"
    run = demo("--parts", "a", "--out", str(folder), "--seed", "1")
    assert run.returncode == 0, run.stderr
    assert [path.name for path in folder.iterdir()] == ["claim.png"]
    header, *rows = [line for line in run.stdout.splitlines() if "EXODUS" in line or "BPTT" in line]
    assert header.split() == ["EXODUS", "SLAYER", "BPTT"]
    cosines = [row.split()[-3:] for row in rows if "cosine" in row]
    assert [(float(exodus), float(bptt)) for exodus, _, bptt in cosines] == [(1.0, 1.0)] * 3
    assert float(cosines[0][1]) < 0.999
    ends = {len(line) for line in (header, *rows)}
    assert len(ends) == 1, "the columns are aligned"


def test_bad_parts_are_refused():
    run = demo("--parts", "ax")
    assert run.returncode == 2
    assert "letters among abcd, got 'ax'" in run.stderr


def test_help_needs_nothing():
    run = demo("-h", without=("torch", "matplotlib", "sklearn", "tqdm"))
    assert run.returncode == 0, run.stderr
    assert "--parts" in run.stdout


def test_missing_package_is_one_clear_line():
    run = demo(without=("sklearn",))
    assert run.returncode == 1
    assert run.stderr.splitlines() == ["The demo needs sklearn: pip install 'exodus-snn[demo]'"]
