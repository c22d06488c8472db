"""Large results take over the memory of earlier ones, and only when nothing refers to it any more.

Property: a result has the memory of one that is gone, but never that of one of which a view, a graph,
another library or another process has a part. The bytes that are remembered stay below the limit; with a
limit of 0 there are none. Threads and forked processes get correct results. Witness: addresses, and the
numbers in the results that are alive, after many more calls.
"""

import gc
import os
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import exodus_core as ec
from exodus_core._backends import NUMPY
from exodus_core._backends._memory import LARGE, MEMORY

try:
    import torch

    import exodus_core.torch as snn
    from exodus_core._backends.tensors import new
except ImportError:
    torch = None

needs_torch = pytest.mark.skipif(torch is None, reason="needs torch")
COUNT = LARGE // 4  # float32 elements


@pytest.fixture(autouse=True)
def own_cache():
    limit = ec.get_cache_limit()
    ec.set_cache_limit(limit)  # forgets what other tests have left
    yield
    ec.set_cache_limit(limit)


def array(count=COUNT):
    return NUMPY.empty_on_line((count,), (0,), "float32")


def tensor(count=COUNT):
    return new((count,), torch.float32)


def address(result):
    return result.ctypes.data if isinstance(result, np.ndarray) else result.data_ptr()


KINDS = [array, pytest.param(tensor, marks=needs_torch)]


@pytest.mark.parametrize("make", KINDS)
def test_memory_of_a_result_that_is_gone_is_used_again(make):
    first = make()
    at = address(first)
    second = make()
    assert address(second) != at
    del first
    assert address(make()) == at
    assert address(make(COUNT + 1)) != at


def holders():
    """Ways to keep a part of an array alive after its name is gone."""
    return {
        "slice": lambda a: a[5:9],
        "reshaped": lambda a: a.reshape(-1, 2).T,
        "buffer": lambda a: memoryview(a)[5:9],
        "list": lambda a: [a],
    }


def tensor_holders():
    return {
        "slice": lambda t: t[5:9],
        "detached": lambda t: t.detach().view(-1, 2),
        "array": lambda t: t.numpy()[5:9],
        "dlpack": lambda t: np.from_dlpack(t),
        "storage": lambda t: t.untyped_storage(),
        "graph": lambda t: (t * torch.ones((), requires_grad=True)).grad_fn,
        "saved": lambda t: torch.ones(COUNT, requires_grad=True).mul(t),
    }


@pytest.mark.parametrize("name", holders())
def test_a_view_of_an_array_keeps_its_memory(name):
    result = array()
    at = address(result)
    held = holders()[name](result)
    del result
    assert address(array()) != at
    del held
    assert address(array()) == at


@needs_torch
@pytest.mark.parametrize("name", tensor_holders())
def test_whatever_refers_to_a_tensor_keeps_its_memory(name):
    result = tensor()
    at = address(result)
    held = tensor_holders()[name](result)
    del result
    assert address(tensor()) != at
    del held
    gc.collect()
    assert address(tensor()) == at


@needs_torch
@pytest.mark.parametrize("change", [lambda t: t.untyped_storage().resize_(0), lambda t: t.share_memory_()])
def test_storages_that_are_resized_or_shared_are_left_alone(change):
    result = tensor()
    storage = result.untyped_storage()
    change(result)
    del result
    kept = storage.data_ptr(), storage.nbytes()
    del storage
    before = MEMORY.held
    assert (address(other := tensor()), other.untyped_storage().nbytes()) != kept
    assert MEMORY.held == before  # the changed one is forgotten, the new one is remembered


@needs_torch
def test_a_result_can_be_resized_as_any_tensor():
    layer, current = snn.IF(), torch.rand(64, 64, 64)
    spikes = layer(current)
    assert spikes.nbytes >= LARGE
    spikes.resize_(128, 64, 64)
    assert torch.equal(spikes[:64], layer(current))


@pytest.mark.parametrize("make", KINDS)
@given(moves=st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 2)), max_size=30))
def test_results_that_are_alive_never_change(make, moves):
    alive = {}
    for number, (keeps, slot, extra) in enumerate(moves):
        alive.pop(slot, None)
        result = make(COUNT + extra)
        result[...] = number
        if keeps:
            alive[slot] = result[extra::1000], number
        for kept, expected in alive.values():
            assert (kept == expected).all()


@pytest.mark.parametrize("make", KINDS)
def test_what_is_remembered_stays_below_the_limit(make):
    size = LARGE + 64 * (make is array)
    ec.set_cache_limit(3 * size)
    results = [make() for _ in range(5)]
    assert MEMORY.held == 3 * size
    at = {address(result) for result in results}
    assert len(at) == 5
    results.clear()
    other = make(2 * COUNT)  # has a size of its own: unused blocks make room for it
    assert MEMORY.held <= 3 * size
    del other
    ec.empty_cache()
    assert MEMORY.held == 0


@pytest.mark.parametrize("make", KINDS)
def test_a_limit_of_zero_remembers_nothing(make):
    ec.set_cache_limit(0)
    results = [make() for _ in range(3)]
    assert MEMORY.held == 0
    assert len({address(result) for result in results}) == 3


@pytest.mark.parametrize("make", KINDS)
def test_emptying_leaves_what_is_in_use(make):
    kept, gone = make(), make()
    kept[...] = 3
    held = MEMORY.held
    del gone
    ec.empty_cache()
    assert MEMORY.held == held // 2
    assert (kept == 3).all()


@pytest.mark.parametrize(
    ("limit", "error"), [(-1, ValueError), (1.5, TypeError), (True, TypeError), ("1", TypeError)]
)
def test_limits_are_checked(limit, error):
    with pytest.raises(error, match=r"limit must be .*got"):
        ec.set_cache_limit(limit)


def run(seed, results):
    current = np.random.default_rng(seed).normal(0.1, 0.3, (64, 64, 64)).astype(np.float32)
    for _ in range(5):
        trace = ec.forward(ec.LIF(alpha=0.9), current)
        results.append((trace.spikes.sum(), ec.backward(trace, current).current.sum()))


def test_threads_do_not_share_memory():
    results = [[] for _ in range(4)]
    threads = [threading.Thread(target=run, args=(seed, own)) for seed, own in enumerate(results)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, own in enumerate(results):
        alone = []
        run(seed, alone)
        assert own == alone


def test_a_forked_process_has_a_cache_of_its_own():
    kept = array()
    kept[...] = 7
    expected = []
    run(1, expected)
    child = os.fork()
    if child == 0:
        found = []
        run(1, found)
        os._exit(0 if found == expected and MEMORY.held > 0 and (kept == 7).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert (kept == 7).all()
