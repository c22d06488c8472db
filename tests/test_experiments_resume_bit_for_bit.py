"""An interrupted training run of the experiments goes on with the same result, bit for bit.

Property: a run that stops after some epochs and goes on from its checkpoint has the history, weights and
optimiser of one that was never interrupted. A checkpoint of another run, and a broken file, raise errors
that name the file. The test set chooses nothing. Jobs that are done are not repeated. Witness: the
uninterrupted run.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("tqdm", reason="needs tqdm")

snn = pytest.importorskip("exodus_core.torch")
networks, synthetic, jobs_module, samples, training = (
    pytest.importorskip(f"experiments.{name}")
    for name in ("networks", "synthetic", "jobs", "samples", "training")
)
run_jobs, Samples, Splits = jobs_module.run_jobs, samples.Samples, samples.Splits
Plan, Run = training.Plan, training.Run

SPLITS = synthetic.speech("words", 3, (60, 12, 12), steps=40, channels=20, rate=0.1)
PLAN = Plan(epochs=4, batch=8, learning_rate=1e-2, seed=3, target_rate=0.1)


def network():
    return networks.speech(3, lambda: snn.LIF(tau=10.0, learn=("tau",)), (20, 12, 12))


def make(checkpoint=None, splits=SPLITS, plan=PLAN):
    return Run(network, networks.max_over_time, splits, plan, checkpoint)


def without_times(history):
    return {name: value for name, value in history.numbers().items() if name != "seconds"}


def assert_same(one, other):
    assert without_times(one.history) == without_times(other.history)
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name]), name
    states = (run.optimizer.state_dict()["state"] for run in (one, other))
    for own, theirs in zip(*(state.values() for state in states), strict=True):
        assert all(torch.equal(own[name], theirs[name]) for name in own)


@pytest.mark.parametrize("done", [1, 3])
def test_an_interrupted_run_is_the_whole(done, tmp_path):
    whole = make()
    whole.train()
    assert len(whole.history.loss) == PLAN.epochs
    begun = make(tmp_path / "run.pt")
    for _ in range(done):
        begun._epoch()
        begun._validate()
        begun._save()
    begun._epoch()  # is interrupted before it is saved
    resumed = make(tmp_path / "run.pt")
    assert len(resumed.history.loss) == done
    resumed.train()
    assert_same(resumed, whole)
    again = make(tmp_path / "run.pt")
    again.train()
    assert_same(again, whole)


def test_it_learns_and_measures_the_best_epoch(tmp_path):
    run = make(tmp_path / "run.pt", plan=Plan(12, 8, learning_rate=1e-2, target_rate=0.1))
    history = run.train()
    assert history.loss[-1] < 0.7 * history.loss[0]
    assert history.validation_accuracy[history.best_epoch] == max(history.validation_accuracy)
    assert history.best_epoch == history.validation_accuracy.index(max(history.validation_accuracy))
    counts = torch.tensor(history.confusion)
    assert counts.sum() == len(SPLITS.test)
    assert counts.sum(1).tolist() == [4, 4, 4]
    assert history.test_accuracy == counts.trace().item() / len(SPLITS.test)
    for norms in history.gradient_norms.values():
        assert len(norms) == 12 and all(norm > 0 for norm in norms)


def test_the_test_set_chooses_nothing(tmp_path):
    other = Splits(
        SPLITS.name,
        SPLITS.train,
        SPLITS.validation,
        Samples(SPLITS.test.events, (SPLITS.test.labels + 1) % 3),
        SPLITS.classes,
    )
    one, two = make(), make(splits=other)
    one.train(), two.train()
    assert one.history.best_epoch == two.history.best_epoch
    assert one.history.validation_accuracy == two.history.validation_accuracy
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, two.network.state_dict()[name])
    assert one.history.test_accuracy != two.history.test_accuracy


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    make(tmp_path / "run.pt").train()
    with pytest.raises(ValueError, match=r"run\.pt must be a checkpoint of this run") as error:
        make(tmp_path / "run.pt", plan=Plan(5, 8))
    assert "epochs=5" in str(error.value) and "epochs=4" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"text"])
def test_a_broken_checkpoint_is_named(content, tmp_path):
    path = tmp_path / "run.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.pt"):
        make(path)


def square(x, log):
    with open(log, "a") as file:
        file.write(f"{x} ")
    return {"square": x * x, "third": x / 3}


def test_jobs_are_done_once(tmp_path):
    log = tmp_path / "log"
    jobs = {f"job-{x}": (x, str(log)) for x in (1, 2, 5)}
    first = run_jobs(square, jobs, tmp_path, 2, "squares")
    assert list(first) == list(jobs)
    assert first["job-5"] == {"square": 25, "third": 5 / 3}
    assert run_jobs(square, jobs, tmp_path, 2, "squares") == first
    assert sorted(log.read_text().split()) == ["1", "2", "5"]
    changed = {**jobs, "job-2": (3, str(log))}
    assert run_jobs(square, changed, tmp_path, 1, "squares")["job-2"] == {"square": 9, "third": 1.0}
    assert sorted(log.read_text().split()) == ["1", "2", "3", "5"]


@pytest.mark.parametrize("content", ["", "{", json.dumps([1]), json.dumps({"result": 1})])
def test_a_broken_result_is_named(content, tmp_path):
    (tmp_path / "job.json").write_text(content)
    with pytest.raises(ValueError, match=r"job\.json"):
        run_jobs(square, {"job": (1, "log")}, tmp_path, 1, "squares")


def divide(x):
    return 1 / x


def test_an_error_in_a_job_comes_out(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run_jobs(divide, {"one": (1,), "zero": (0,)}, tmp_path, 1, "quotients")
    assert json.loads((tmp_path / "one.json").read_text())["result"] == 1.0
    assert not (tmp_path / "zero.json").exists()


ORPHAN = """
import os, sys, time
from pathlib import Path
from experiments.jobs import run_jobs

def wait(file):
    Path(file).write_text(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    run_jobs(wait, {"one": (sys.argv[1],)}, Path(sys.argv[2]), 1, "waiting")
"""


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def test_workers_end_with_a_run_that_is_killed(tmp_path):
    script, file = tmp_path / "orphan.py", tmp_path / "pid"
    script.write_text(ORPHAN)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, str(script), str(file), str(tmp_path)]
    with subprocess.Popen(command, env=environment) as parent:
        deadline = time.monotonic() + 120
        while not (file.exists() and file.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        worker = int(file.read_text())
        assert is_alive(worker)
        parent.kill()
    deadline = time.monotonic() + 60
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(worker)
