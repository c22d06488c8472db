"""How many loads the CUDA kernels have under way, and the bytes they move, read off their machine code.

python machine_code.py OBJECT... disassembles objects of the CUDA library by NVIDIA's cuobjdump and nvdisasm
(pip install --no-deps nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm), and prints a line for each loop over time
of the main kernels. It fails if one has fewer loads under way than loops.csv says, waits for loads more
often, or moves more bytes.

A loop has many ways through it. The one that is followed moves most; it is that of a full chunk: it has no
barrier (except where chunks run side by side), and under a condition it loads nothing and stores nothing but
checkpoints (a chunk that is cut short does; so do threads without a neuron).
"""

import csv
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

from ptxas_report import title

MODELS = ("Lif", "CubaLif", "Alif")
PASSES = (
    "forward {} 0",
    *(f"backward {{}} 0 {m}{p}" for m in ("exodus", "bptt") for p in ("", " with parameters")),
)
MAIN = [name.format(model) for model in MODELS for name in PASSES] + [
    f"backward {model} 0 exodus, few neurons" for model in ("Lif", "CubaLif")
]

DESIGN = Path(__file__).with_name("loops.csv")
TOOLS = Path(sysconfig.get_path("purelib"), "nvidia", "cu13", "bin")  # where pip puts them

SECTION = re.compile(r"^\s*\.section\s+\.text\.(\w+)", re.MULTILINE)
LABEL = re.compile(r"^(\.L_x_\d+):")
CODE = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@(!?U?P\d+)\s+)?([A-Z][\w.]*)\s*(.*)")
PASS = re.compile("(ward|split)_kernel")
LEAVING = ("BRA", "BRX", "EXIT", "RET")
WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}


@dataclass
class Instruction:
    """An instruction of the machine code.

    Attributes
    ----------
    condition : str or None
        The predicate it runs under.
    name : str
    modifiers : list of str
        What follows the name, after points.
    operands : str
    """

    condition: str | None
    name: str
    modifiers: list
    operands: str

    def is_global(self):
        """Whether it loads from or stores to global memory."""
        return self.name in ("LDG", "STG", "LDGSTS")

    def streams(self):
        """Whether it accesses an array over time, which is not used soon again, and not the workspace."""
        return self.name == "LDGSTS" or (self.is_global() and "EF" in self.modifiers)

    def bytes(self):
        """The bytes that it moves for a thread."""
        return next((WIDTHS[m] for m in self.modifiers if m in WIDTHS), 4)

    def registers(self):
        """The registers that it names. R6.64 is a pair."""
        found = set()
        for number, pair in re.findall(r"\bR(\d+)(?:\.reuse)?(\.64)?", self.operands):
            found |= {int(number), int(number) + bool(pair)}
        return found

    def loaded(self):
        """The registers that a load fills."""
        first = int(re.match(r"R(\d+)", self.operands)[1])
        return set(range(first, first + -(-self.bytes() // 4)))


@dataclass
class Block:
    """Instructions that run one after another, and the indices of the blocks that may follow."""

    instructions: list = field(default_factory=list)
    after: list = field(default_factory=list)

    def is_followed(self, side_by_side):
        """Whether full chunks of 32-bit elements, time first, may go through it.

        Chunks that run `side_by_side` meet at barriers and keep no checkpoints.
        """
        return not any(
            (i.name == "BAR" and not side_by_side)
            or (i.is_global() and i.bytes() == 2)
            or (i.condition and i.is_global() and (i.streams() or i.name == "LDG" or side_by_side))
            for i in self.instructions
        )

    def weight(self):
        """How much it moves, and then how short it is. The way through a loop has the greatest sum."""
        return sum(i.is_global() for i in self.instructions), -len(self.instructions)


def functions(text):
    """Yield the symbol and the code of each function that nvdisasm prints."""
    _, *parts = SECTION.split(text)
    yield from zip(parts[::2], parts[1::2], strict=True)


def blocks(code):
    """The blocks of a function."""
    found, labels, ended = [Block()], {}, False
    for line in code.splitlines():
        label, instruction = LABEL.match(line), CODE.search(line)
        if (label or (instruction and ended)) and found[-1].instructions:
            found.append(Block())
        if label:
            labels[label[1]] = len(found) - 1
        elif instruction:
            condition, opcode, operands = instruction.groups()
            name, *modifiers = opcode.split(".")
            found[-1].instructions.append(Instruction(condition, name, modifiers, operands))
            ended = name in LEAVING
    for following, block in enumerate(found, start=1):
        last = block.instructions[-1] if block.instructions else Instruction(None, "NOP", [], "")
        if last.name in ("BRA", "BRX"):
            block.after = [labels[label] for label in re.findall(r"\.L_x_\d+", last.operands)]
        may_stay = last.condition or (last.name == "BRA" and "," in last.operands)  # BRA P0, `(.L_x_1)
        if (last.name not in LEAVING or may_stay) and following < len(found):
            block.after.append(following)
    return found


def within(graph, kept):
    """The part of a graph (node: following nodes) with these nodes."""
    return {node: [after for after in graph[node] if after in kept] for node in graph if node in kept}


def reachable(graph, start):
    """The nodes that follow a node, sooner or later."""
    found, new = set(), [start]
    while new:
        fresh = set(graph[new.pop()]) - found
        found |= fresh
        new += fresh
    return found


def loops(graph, entries):
    """Yield the head and the nodes of each loop of a graph that is entered at `entries`, with inner loops."""
    after = {node: reachable(graph, node) for node in graph}
    repeated = [node for node in graph if node in after[node]]
    for nodes in {frozenset(n for n in after[node] if node in after[n]) for node in repeated}:
        entered = {n for node in graph if node not in nodes for n in graph[node]} | entries
        head, *others = sorted(nodes & entered)
        if others:
            raise ValueError("a loop is entered at several places")
        yield head, nodes
        inner = within(graph, nodes - {head})
        yield from loops(inner, set(graph[head]) & set(inner))


def way(code, head, nodes, side_by_side=False):
    """The instructions of the followed way through a loop, from its head; none if there is no such way."""
    nodes = {node for node in nodes if code[node].is_followed(side_by_side)}
    graph = {node: [n for n in code[node].after if n in nodes and n != head] for node in nodes}
    best = {}  # the weight of the best way from a node back to the head, and the node that follows
    for node in TopologicalSorter(graph).static_order():
        ends = [((0, 0), None)] if head in code[node].after else []
        ways = ends + [(best[n][0], n) for n in graph[node] if n in best]
        if ways:
            weight, following = max(ways, key=lambda found: found[0])
            best[node] = tuple(map(sum, zip(weight, code[node].weight(), strict=True))), following
    instructions, node = [], head if head in best else None
    while node is not None:
        instructions += code[node].instructions
        node = best[node][1]
    return instructions


def waits(instructions):
    """Count the loads of a loop that go out together.

    Returns
    -------
    list of int
        For each instruction that needs the result of a load: the loads since the one before it.
    """
    found, pending, count = [], set(), 0
    for turn in range(2):  # what is loaded in a turn may be needed in the next
        for instruction in instructions:
            if instruction.registers() & pending:
                found.append((turn, count))
                pending, count = set(), 0
            if instruction.name == "LDG":
                pending, count = pending | instruction.loaded(), count + 1
    return [count for turn, count in found if turn == 1]


def loops_over_time(code, side_by_side=False):
    """The followed ways through the loops of a function that stream arrays, in the code's order."""
    graph = {node: block.after for node, block in enumerate(code)}
    graph = within(graph, reachable(graph, 0) | {0})
    found = sorted(loops(graph, {0}), key=lambda loop: loop[0])
    ways = []
    for head, nodes in found:
        inner = set().union(*(other for _, other in found if other < nodes))
        ways.append(way(code, head, nodes - inner, side_by_side))
    return [w for w in ways if any(i.streams() for i in w)]


class Loop(NamedTuple):
    """A kernel's loop over time.

    Attributes
    ----------
    kernel : str
    name : str
        "pass", or "mark": through all of time, to keep hidden states.
    steps : int
        The steps of a chunk, which one turn of the loop computes.
    loads : tuple of int
        The loads to registers that go out together, for each time that a turn waits for loads.
    copies : int
        The asynchronous copies to shared memory that a turn starts.
    ahead : int
        The turns before the one that needs them.
    loaded, stored : float
        The bytes that a step of a neuron moves.
    """

    kernel: str
    name: str
    steps: int
    loads: tuple
    copies: int
    ahead: int
    loaded: float
    stored: float

    def problems(self, wanted):
        """What is worse than the loop that was designed."""
        where = f"{self.kernel}, {self.name}"
        if max(self.loads, default=0) < max(wanted.loads, default=0):
            yield f"{where}: wanted {max(wanted.loads)} loads that go out together, found {self.loads}"
        if len(self.loads) > len(wanted.loads):
            yield f"{where}: wanted waits for {wanted.loads} loads, found {self.loads}"
        if self.copies * self.ahead < wanted.copies * wanted.ahead:
            yield (
                f"{where}: wanted {wanted.copies} copies {wanted.ahead} turns ahead, "
                f"found {self.copies} and {self.ahead}"
            )
        for what in ("loaded", "stored"):
            if getattr(self, what) > getattr(wanted, what):
                yield f"{where}: wanted {getattr(wanted, what)} bytes {what}, found {getattr(self, what)}"


def moved(instructions, *names):
    """The bytes that instructions of these names move for a thread."""
    return sum(i.bytes() for i in instructions if i.name in names)


def streamed(instructions, *names):
    """The number of instructions of these names that stream."""
    return sum(i.streams() and i.name in names for i in instructions)


def turns_ahead(instructions):
    """The turns before the one that waits for them in which a turn's asynchronous copies start."""
    left = [
        i.operands for i in instructions if i.name == "DEPBAR"
    ]  # DEPBAR.LE SB0, 0x2: two younger turns' copies
    return max((int(re.search(r"0x[0-9a-f]+", operands)[0], 16) for operands in left), default=0)


def loops_of(kernel, listing):
    """The Loops of a function."""
    ways = loops_over_time(blocks(listing), side_by_side="few neurons" in kernel)
    # Before a loop over time, one starts the first copies. Forward reads one array and backward writes one:
    # the fewest are the steps of a chunk.
    ways = [w for w in ways if any(i.name in ("LDS", "STG") or (i.name == "LDG" and i.streams()) for i in w)]
    steps = min(n for w in ways for n in (streamed(w, "LDG", "LDGSTS"), streamed(w, "STG")) if n)
    found = []
    for w in ways:
        loaded, stored = moved(w, "LDG", "LDGSTS") / steps, moved(w, "STG") / steps
        name = "pass" if streamed(w, "STG") else "mark"
        copies = streamed(w, "LDGSTS")
        ahead = turns_ahead(w) if copies else 0
        found.append(Loop(kernel, name, steps, tuple(waits(w)), copies, ahead, loaded, stored))
    return found


def main_loops(text):
    """The Loops of the main kernels in what nvdisasm prints."""
    named = ((title(symbol), listing) for symbol, listing in functions(text) if PASS.search(symbol))
    return [
        loop
        for (name, kind), listing in named
        if name in MAIN and kind == "f"
        for loop in loops_of(name, listing)
    ]


def designed_loops():
    """The Loops that loops.csv wants."""
    with DESIGN.open() as file:
        return [
            Loop(
                row["kernel"],
                row["loop"],
                int(row["steps"]),
                tuple(map(int, row["loads"].split())),
                int(row["copies"]),
                int(row["ahead"]),
                float(row["loaded"]),
                float(row["stored"]),
            )
            for row in csv.DictReader(file)
        ]


def disassembled(path):
    """What nvdisasm prints of the code in an object."""
    options = dict(check=True, text=True, env=os.environ | {"PATH": f"{TOOLS}:{os.environ['PATH']}"})
    with tempfile.TemporaryDirectory() as folder:
        extract = ["cuobjdump", "-xelf", "all", os.path.abspath(path)]
        subprocess.run(extract, cwd=folder, stdout=subprocess.DEVNULL, **options)
        cubins = sorted(Path(folder).glob("*.cubin"))
        found = [subprocess.run(["nvdisasm", "-c", c], stdout=subprocess.PIPE, **options) for c in cubins]
    return "".join(run.stdout for run in found)


def main():
    """Print the table of the objects that the command line names."""
    found = [loop for path in sys.argv[1:] for loop in main_loops(disassembled(path))]
    columns = f"{'loads together':18s}{'copies':>7s}{'ahead':>6s}{'bytes loaded':>14s}{'stored':>8s}"
    print(f"{'kernel':42s}{'loop':10s}{'steps':>6s}  {columns}")
    for kernel, name, steps, loads, copies, ahead, loaded, stored in sorted(found):
        together = ", ".join(map(str, loads))
        print(
            f"{kernel:42s}{name:10s}{steps:6d}  {together:18s}{copies:7d}{ahead:6d}"
            f"{loaded:14.2f}{stored:8.2f}"
        )
    by_name, problems = {(loop.kernel, loop.name): loop for loop in found}, []
    for wanted in designed_loops():
        loop = by_name.get(wanted[:2])
        problems += [f"{wanted.kernel}, {wanted.name}: not found"] if loop is None else loop.problems(wanted)
    print(*problems, f"{len(found)} loops, {len(problems)} problems", sep="\n")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
