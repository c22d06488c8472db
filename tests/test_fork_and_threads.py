"""The thread pool survives fork, serves any number of callers, and releases the GIL.

Property: a forked child computes the same results as its parent, even if another thread was computing during
the fork. Concurrent callers get the bits of a single caller. The GIL is released during a call. Idle threads
sleep. Thread counts can be set and read, and are checked. Witness: the same call on one thread, without other
callers.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest

import exodus_core as ec

NEURON = ec.LIF(alpha=0.9, threshold=0.6)
# There are enough rows of lanes to give every thread work.
CURRENT = np.random.default_rng(0).normal(0.2, 0.7, (20, 40_000)).astype(np.float32)
ONES = np.ones_like(CURRENT)


def compute():
    """Forward and backward, as bytes."""
    trace = ec.forward(NEURON, CURRENT)
    grads = ec.backward(trace, ONES)
    return b"".join(x.tobytes() for x in (trace.spikes, trace.potential, grads.current))


@pytest.fixture
def expected(threads):
    threads(1)
    alone = compute()
    threads(4)
    return alone


def exit_code_of_child(work, seconds=60):
    """Fork, run `work` in the child, where a true result is success, and return the child's exit code."""
    with warnings.catch_warnings():
        # Python warns that forking a process with threads may deadlock, which is tested here.
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        code = 2
        try:
            code = 0 if work() else 1
        finally:
            os._exit(code)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    pytest.fail(f"the child did not end within {seconds} s")
    return None


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@needs_fork
def test_child_computes_after_its_parent_did(expected):
    assert compute() == expected
    assert exit_code_of_child(lambda: compute() == expected) == 0
    assert compute() == expected


@needs_fork
def test_child_of_a_child(expected):
    compute()

    def work():
        return compute() == expected and exit_code_of_child(lambda: compute() == expected) == 0

    assert exit_code_of_child(work) == 0


@needs_fork
def test_child_can_change_its_thread_count(expected):
    def work():
        for count in (1, 3, 2):
            ec.set_num_threads(count)
            if compute() != expected:
                return False
        return ec.get_num_threads() == 2

    assert exit_code_of_child(work) == 0
    assert ec.get_num_threads() == 4


@needs_fork
def test_fork_while_another_thread_computes(expected):
    stop, results = threading.Event(), []

    def keep_computing():
        while not stop.is_set():
            results.append(compute() == expected)

    busy = threading.Thread(target=keep_computing)
    busy.start()
    try:
        codes = [exit_code_of_child(lambda: compute() == expected) for _ in range(10)]
    finally:
        stop.set()
        busy.join()
    assert codes == [0] * 10
    assert results
    assert all(results)


@needs_fork
def test_first_call_in_a_child_of_a_parent_that_never_computed():
    code = (
        "import os, numpy as np, exodus_core as ec\n"
        "x = np.full((20, 40_000), 0.25, np.float32)\n"
        "pid = os.fork()\n"
        "total = ec.forward(ec.IF(), x).spikes.sum()\n"
        "if pid == 0: os._exit(0 if total == 5 * 40_000 else 1)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()


def test_eight_callers_at_once_get_the_bits_of_one(expected):
    start, results = threading.Barrier(8), [None] * 8

    def work(i):
        start.wait()
        results[i] = [compute() == expected for _ in range(5)]

    workers = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [[True] * 5] * 8


def test_callers_may_change_the_thread_count_meanwhile(expected):
    stop = threading.Event()

    def change():
        while not stop.is_set():
            for count in (1, 2, 3, 4):
                ec.set_num_threads(count)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        assert all(compute() == expected for _ in range(10))
    finally:
        stop.set()
        changer.join()


@pytest.mark.parametrize("name", ["forward", "backward"])
def test_the_gil_is_released_during_a_call(name, threads):
    threads(1)
    current = np.full((100, 60_000), 0.3, np.float32)
    trace = ec.forward(NEURON, current)
    calls = {  # without out=, for whose overlaps NumPy looks without the GIL
        "forward": lambda: ec.forward(NEURON, current),
        "backward": lambda: ec.backward(trace, current),
    }
    with counting_thread() as count:
        assert not advances_within(0.5, count, lambda: sum(range(1000))), "another thread took the GIL"
        assert advances_within(30, count, calls[name]), "no other thread ran Python during the calls"


@contextlib.contextmanager
def counting_thread():
    """Yield what another thread has counted so far. No thread loses the GIL that does not release it."""
    interval, count, stop = sys.getswitchinterval(), [0], threading.Event()

    def work():
        while not stop.is_set():
            count[0] += 1
            time.sleep(0.001)

    worker = threading.Thread(target=work)
    sys.setswitchinterval(1000)  # before it can wait for the GIL with the old interval
    worker.start()
    try:
        yield count
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        worker.join()


def advances_within(seconds, count, call):
    """Whether `count` advances during one of the calls. Between them, the other thread may run."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        before = count[0]
        call()
        if count[0] > before:
            return True
        time.sleep(0.002)
    return False


def test_idle_threads_use_no_processor_time():
    # They would take it from torch's threads, which run between the calls. (The load of the machine does not
    # count: this is the time that the process itself runs.)
    code = (
        "import time, numpy as np, exodus_core as ec\n"
        "ec.set_num_threads(3)\n"
        "for _ in range(3):\n"
        "    ec.forward(ec.IF(), np.full((20, 40_000), 0.25, np.float32))\n"
        "    before = time.process_time()\n"
        "    time.sleep(0.5)\n"
        "    print(time.process_time() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert max(map(float, done.stdout.split())) < 0.1


def test_thread_count_is_set_and_read(threads):
    for count in (1, 2, 3, 7):
        threads(count)
        assert ec.get_num_threads() == count


def test_environment_sets_the_thread_count_to_start_with():
    code = "import exodus_core as ec; print(ec.get_num_threads())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "EXODUS_NUM_THREADS": "3"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == "3", done.stderr


@pytest.mark.parametrize("count", [0, -1, -(2**40)])
def test_thread_count_below_one_is_an_error(threads, count):
    threads(2)
    with pytest.raises(ValueError, match=str(count)):
        threads(count)
    assert ec.get_num_threads() == 2


@pytest.mark.parametrize("count", [1.5, "two", None, [1]])
def test_thread_count_that_is_no_integer_is_an_error(threads, count):
    before = ec.get_num_threads()
    with pytest.raises(TypeError):
        threads(count)
    assert ec.get_num_threads() == before
