"""The report on the compiled CUDA kernels says what fits on a GPU, and fails if one is worse than designed.

Property: as many blocks fit on a multiprocessor as its registers, shared memory and threads allow; a float32
kernel that has local memory, fewer blocks than occupancy.csv wants, or no row there is named with what was
wanted and found, and the script fails. Witness: blocks worked out by hand, and a log that is written here.
"""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "cpp" / "tests" / "cuda"))
import ptxas_report

LOG = """ptxas info    : Compiling entry function '{symbol}' for 'sm_90'
ptxas info    : Function properties for {symbol}
    {stack} bytes stack frame, {stack} bytes spill stores, {stack} bytes spill loads
ptxas info    : Used {registers} registers, used 1 barriers, {shared} bytes smem
"""
FLOAT = "_ZN6exodus4cuda14forward_kernelINS_3LifELi0EfLb0EEEvNS0_9FormattedINS_11ForwardCallET1_EE"


@pytest.mark.parametrize(
    ("architecture", "threads", "registers", "shared", "blocks"),
    [
        ("sm_90", 128, 96, 8256, 5),  # registers: 16384 / (32 * 96) = 5.3
        ("sm_90", 128, 97, 8256, 4),  # which are given out by 8: 104
        ("sm_90", 128, 168, 0, 3),
        ("sm_90", 128, 169, 0, 2),
        ("sm_90", 128, 255, 0, 2),
        ("sm_90", 128, 128, 16512, 4),
        ("sm_75", 128, 128, 16512, 3),  # 64 KiB of shared memory
        ("sm_86", 128, 64, 33 << 10, 2),  # 100 KiB, of which the system takes one for each block
        ("sm_90", 128, 16, 0, 16),  # 2048 threads
        ("sm_89", 128, 16, 0, 12),  # 1536 threads
        ("sm_90", 64, 200, 0, 4),  # 2 warps of each part
        ("sm_90", 64, 160, 0, 6),  # 3 warps of each part, 2 of a block
        ("sm_90", 64, 16, 48 << 10, 4),
        ("sm_90", 64, 16, 0, 32),
    ],
)
def test_blocks_are_those_that_fit(architecture, threads, registers, shared, blocks):
    assert ptxas_report.MULTIPROCESSORS[architecture].blocks(threads, registers, shared) == blocks


def test_blocks_have_half_the_threads_where_time_is_last():
    kernel = ptxas_report.Kernel("forward Lif 0", "float", "sm_90", 160, 0, 0)
    assert kernel.blocks() == 3
    assert kernel._replace(name="forward Lif 0, tiled").blocks() == 6


@pytest.fixture
def report(tmp_path):
    """A function that runs the script on a log of one kernel, and returns its status and what it prints."""

    def run(symbol=FLOAT, registers=96, shared=8256, stack=0):
        log = tmp_path / "log"
        log.write_text(LOG.format(symbol=symbol, registers=registers, shared=shared, stack=stack))
        done = subprocess.run([sys.executable, ptxas_report.__file__, log], capture_output=True, text=True)
        return done.returncode, done.stdout

    return run


def test_a_kernel_as_designed_passes(report):
    code, output = report()
    assert code == 0
    assert "1 kernels, 0 problems of float" in output


def test_fewer_blocks_fail(report):
    code, output = report(registers=97)
    assert code == 1
    where = "forward Lif 0 (float, sm_90)"
    assert f"{where}: wanted 5 blocks per multiprocessor, found 4 (97 registers, 8256 bytes of" in output


def test_where_shared_memory_is_scarce_what_it_holds_must_fit(report, tmp_path):
    log = tmp_path / "older"
    for registers, code in ((168, 0), (169, 1)):  # three blocks of 33 KiB, in 100
        text = LOG.format(symbol=FLOAT, registers=registers, shared=32 << 10, stack=0)
        log.write_text(text.replace("sm_90", "sm_86"))
        done = subprocess.run([sys.executable, ptxas_report.__file__, log], capture_output=True, text=True)
        assert done.returncode == code, done.stdout
    assert report(shared=48 << 10)[0] == 1


@pytest.mark.parametrize(
    ("access", "name"), [(0, "forward Lif 0"), (1, "forward Lif 0, any format"), (2, "forward Lif 0, tiled")]
)
def test_a_kernels_name_says_how_it_accesses_arrays(access, name):
    symbol = FLOAT.replace("Lb0EEEvNS0", f"Lb0ELNS0_6AccessE{access}EEEvNS0")
    assert ptxas_report.title(symbol) == (name, "f")


def test_local_memory_fails(report):
    code, output = report(stack=8)
    assert code == 1
    assert "forward Lif 0 (float, sm_90): wanted no local memory, found 8 bytes" in output


def test_a_kernel_without_a_row_fails(report):
    code, output = report(symbol="_ZN6exodus4cuda13novel_kernelIfLi3EEvv")
    assert code == 1
    assert "novel_kernel (float, sm_90): occupancy.csv has no row for it, found 5 blocks" in output


def test_double_is_not_held_to_the_design(report):
    code, _ = report(symbol=FLOAT.replace("EfLb", "EdLb"), registers=200, stack=8)
    assert code == 0
