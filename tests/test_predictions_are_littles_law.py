"""Predictions of speed on a GPU are bytes over bandwidth, or waits for the memory, whichever takes longer.

Property: benchmarks/predictions.py predicts these times. Witness: times that are worked out by hand, of each
kind. Whether GPUs keep to them is not tested here.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import on_gpu
import predictions

H200 = predictions.gpu_of("NVIDIA H200")
LATENCY = 132 * 49152 / 4.8e12


def test_a_large_array_takes_the_time_of_its_bytes():
    time = predictions.seconds(H200, "forward Lif 0", 250, 512 * 2048)
    assert time == pytest.approx(250 * 512 * 2048 * (4 + 8) / (0.88 * 4.8e12))


def test_few_neurons_wait_once_for_each_chunk():
    time = predictions.seconds(H200, "backward Lif 0 bptt", 250, 2048)
    assert time == pytest.approx(16 / 2 * LATENCY)  # 16 chunks of 16 steps, copied two ahead


def test_chunks_that_run_side_by_side_wait_together():
    times = [predictions.seconds(H200, "backward Lif 0 exodus", 16 * n, 1024) for n in (2, 16, 17, 33)]
    assert times == pytest.approx([LATENCY, LATENCY, 2 * LATENCY, 3 * LATENCY])
    slow = H200._replace(under_way=10 * H200.under_way)
    one, two = (predictions.seconds(slow, "backward Lif 0 exodus", 250, 32 * n) for n in (132, 133))
    assert [one, two] == pytest.approx([10 * LATENCY, 20 * LATENCY])  # a block of 32 neurons fills an SM


def test_blocks_that_do_not_fit_wait_after_the_others():
    slow = H200._replace(under_way=10 * H200.under_way)
    one, two = (predictions.seconds(slow, "forward Lif 0", 32, 128 * 132 * n) for n in (5, 6))
    assert [one, two] == pytest.approx([2 / 3 * 10 * LATENCY, 4 / 3 * 10 * LATENCY])  # three ahead


def test_every_loop_of_a_pass_waits():
    time = predictions.seconds(H200, "backward CubaLif 0 exodus with parameters", 250, 2048)
    # Mark, which waits for copies three ahead; and the pass, which waits for loads too.
    assert time == pytest.approx(32 * (1 / 3 + 1 + 1 / 3) * LATENCY)


def test_the_benchmark_prints_predictions_of_float32_time_first():
    torch = SimpleNamespace(float32=0, float16=1, cuda=SimpleNamespace(get_device_name=lambda: "NVIDIA H200"))
    shape, kernel = (250, 128, 128), "backward Lif 0 bptt"
    printed = on_gpu.predicted(torch, "time first", shape, torch.float32, kernel)
    time = 250 * 128 * 128 * 12 / (0.88 * 4.8e12)
    assert printed.split() == ["prediction", f"{1e6 * time:.1f}", "us"]
    assert on_gpu.predicted(torch, "time last", shape, torch.float32, kernel) == ""
    assert on_gpu.predicted(torch, "time first", shape, torch.float16, kernel) == ""
    assert on_gpu.predicted(torch, "time first", shape, torch.float32, "backward Lif 0 slayer") == ""


def test_nothing_is_predicted_of_what_is_not_listed():
    assert predictions.gpu_of("NVIDIA GeForce RTX 4090") is None
    assert predictions.seconds(H200, "backward Lif 0 slayer", 250, 2048) is None
