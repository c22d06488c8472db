"""The report on the CUDA kernels' machine code follows the loop over time, and counts its loads and bytes.

Property: in the way of a full chunk, machine_code.py counts the loads that go out before an instruction needs
one of them, and the bytes that are moved; a need in between is noticed, and a loop that is worse than
designed is named. Witness: listings that are written here, counted by hand.
"""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "cpp" / "tests" / "cuda"))
import machine_code

SYMBOL = "_ZN6exodus4cuda14forward_kernelINS_3LifELi0EfLb0EEEvNS0_9FormattedINS_11ForwardCallET1_EE"
# In a turn: two loads, a sum of each, and four stores. Beside this way there is one with a barrier, one of
# two bytes, one under conditions, and a loop inside: none of them is that of a full chunk.
LISTING = """
	.section	.text.{symbol},"ax",@progbits
{symbol}:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @!P0 LDG.E R9, desc[UR4][R2.64] ;
.L_x_1:
        /*0020*/               @P0 BRA `(.L_x_3) ;
        /*0030*/                   BRX R2 -0x30 (*"BRANCH_TARGETS .L_x_2,.L_x_4,.L_x_5"*) ;
.L_x_2:
        /*0040*/                   LDG.E.EF R4, desc[UR4][R2.64] ;
{between}
        /*0060*/                   LDG.E.EF R5, desc[UR4][R2.64+0x4] ;
        /*0070*/                   BRA `(.L_x_6) ;
.L_x_3:
        /*0080*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0090*/                   LDG.E.EF R4, desc[UR4][R2.64] ;
        /*00a0*/                   LDG.E.EF R5, desc[UR4][R2.64] ;
        /*00b0*/                   LDG.E.EF R5, desc[UR4][R2.64] ;
        /*00c0*/                   BRA `(.L_x_6) ;
.L_x_4:
        /*00d0*/                   LDG.E.EF.U16 R4, desc[UR4][R2.64] ;
        /*00e0*/                   LDG.E.EF.U16 R5, desc[UR4][R2.64] ;
        /*00f0*/                   LDG.E.EF.U16 R5, desc[UR4][R2.64] ;
        /*0100*/                   BRA `(.L_x_6) ;
.L_x_5:
        /*0110*/               @P1 LDG.E.EF R4, desc[UR4][R2.64] ;
        /*0120*/               @P2 LDG.E.EF R5, desc[UR4][R2.64] ;
        /*0130*/               @P3 LDG.E.EF R5, desc[UR4][R2.64] ;
        /*0140*/                   BRA `(.L_x_7) ;
.L_x_6:
        /*0150*/              @!P5 BRA `(.L_x_8) ;
.L_x_7:
        /*0160*/                   LDG.E R8, desc[UR4][R10.64] ;
        /*0170*/               @P4 BRA `(.L_x_7) ;
.L_x_8:
        /*0180*/                   FADD R6, R6, R4 ;
        /*0190*/                   FADD R7, R6, R5.reuse ;
        /*01a0*/                   STG.E.EF desc[UR4][R10.64], R6 ;
        /*01b0*/                   STG.E.EF desc[UR4][R10.64+0x4], R7 ;
        /*01c0*/                   STG.E.EF.64 desc[UR4][R12.64], R6 ;
        /*01d0*/                   STG.E.EF desc[UR4][R14.64], R6 ;
        /*01e0*/                   BRA P6, `(.L_x_1) ;
        /*01f0*/                   STG.E desc[UR4][R10.64], R7 ;
        /*0200*/                   EXIT ;
"""


def loops(between="", symbol=SYMBOL):
    return machine_code.main_loops(LISTING.format(symbol=symbol, between=between))


def test_loads_and_bytes_of_a_chunk_are_counted():
    (loop,) = loops()
    assert loop == machine_code.Loop("forward Lif 0", "pass", 2, (2,), copies=0, ahead=0, loaded=4, stored=10)


@pytest.mark.parametrize(
    ("between", "loads"),
    [
        ("        /*0050*/                   FADD R8, R4, R4 ;", (1, 1)),
        ("        /*0050*/                   STG.E desc[UR4][R10.64], R4 ;", (1, 1)),
        ("        /*0050*/                   LDG.E R8, desc[UR4][R4.64] ;", (1, 2)),
        ("        /*0050*/                   DADD R8, R3.64, R8.64 ;", (1, 1)),  # R3.64 is R3 and R4
        ("        /*0050*/                   FADD R8, R40, R9 ;", (2,)),
        ("        /*0050*/                   LDG.E.128 R16, desc[UR4][R2.64] ;", (3,)),
    ],
)
def test_an_instruction_that_needs_a_load_is_noticed(between, loads):
    (loop,) = loops(between)
    assert loop.loads == loads


def test_asynchronous_copies_are_counted_with_the_turns_that_they_have():
    copies = "        /*0050*/                   LDGSTS.E [R1+0x80], desc[UR4][R2.64] ;\n" * 2
    wait = "        /*0050*/                   DEPBAR.LE SB0, 0x3 ;"
    (loop,) = loops(wait + "\n" + copies)
    assert loop == machine_code.Loop("forward Lif 0", "pass", 4, (2,), copies=2, ahead=3, loaded=4, stored=5)


def test_a_loop_that_only_starts_copies_is_no_loop_over_time():
    start = """.L_x_20:
        /*0210*/                   LDGSTS.E [R1+0x80], desc[UR4][R2.64] ;
        /*0220*/               @P4 BRA `(.L_x_20) ;
"""
    listing = LISTING.replace("        /*0200*/                   EXIT ;", start + "        /*0200*/  EXIT ;")
    (loop,) = machine_code.main_loops(listing.format(symbol=SYMBOL, between=""))
    assert loop.copies == 0


def test_a_barrier_is_passed_where_chunks_run_side_by_side():
    symbol = (
        "_ZN6exodus4cuda12split_kernelINS_3LifELNS_6MethodE0ELi0EfEEvNS0_9FormattedINS_12BackwardCallET2_EE"
    )
    barrier = "        /*0050*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;"
    assert [loop.kernel for loop in loops(barrier, symbol)] == ["backward Lif 0 exodus, few neurons"]


def test_what_a_turn_loads_may_be_needed_in_the_next():
    load, need = "LDG.E.EF R{}, desc[UR4][R2.64]", "FADD R6, R6, R{}"
    lines = [need.format(4), need.format(5), load.format(4), load.format(5), load.format(9)]
    (block,) = machine_code.blocks(
        "\n".join(f"        /*{16 * k:04x}*/ {line} ;" for k, line in enumerate(lines))
    )
    assert machine_code.waits(block.instructions) == [3]


def test_other_kernels_are_left_out():
    assert (
        loops(symbol=SYMBOL.replace("Li0Ef", "Li0Ed")) == loops(symbol=SYMBOL.replace("Li0Ef", "Li1Ef")) == []
    )


@pytest.mark.parametrize(
    ("worse", "says"),
    [
        (dict(loads=(1,)), "forward Lif 0, pass: wanted waits for () loads, found (1,)"),
        (dict(ahead=2), "forward Lif 0, pass: wanted 16 copies 3 turns ahead, found 16 and 2"),
        (dict(copies=15), "forward Lif 0, pass: wanted 16 copies 3 turns ahead, found 15 and 3"),
        (dict(loaded=4.25), "forward Lif 0, pass: wanted 4.0 bytes loaded, found 4.25"),
        (dict(stored=12.0), "forward Lif 0, pass: wanted 8.0 bytes stored, found 12.0"),
    ],
)
def test_what_is_worse_than_designed_is_named(worse, says):
    wanted = machine_code.designed_loops()[0]
    assert list(wanted.problems(wanted)) == []
    assert list(wanted._replace(**worse).problems(wanted)) == [says]


def test_fewer_loads_together_are_named():
    wanted = next(loop for loop in machine_code.designed_loops() if loop.loads == (32,))
    says = f"{wanted.kernel}, {wanted.name}: wanted 32 loads that go out together, found (31,)"
    assert list(wanted._replace(loads=(31,)).problems(wanted)) == [says]


def test_every_main_kernel_is_designed():
    assert {loop.kernel for loop in machine_code.designed_loops()} == set(machine_code.MAIN)
