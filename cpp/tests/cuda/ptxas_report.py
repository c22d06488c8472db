"""What the compiler made of the CUDA kernels: registers, spills, shared memory, and how many blocks fit.

python ptxas_report.py LOG... reads what `nvcc -Xptxas -v` printed (cmake -DCMAKE_CUDA_FLAGS="-Xptxas -v"),
and prints a line for each kernel and architecture. It fails if a float32 kernel spills or uses local memory,
or if fewer blocks (of 64 threads where time is the last axis, else of 128) fit on a multiprocessor of sm_90
than occupancy.csv says. Other GPUs may have too little shared memory for as many; what it holds must fit.
"""

import csv
import math
import re
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
METHODS = ("exodus", "slayer", "bptt")
TYPES = {"f": "float", "d": "double"}
ACCESS = ("", ", any format", ", tiled")  # enum class Access: direct, lanes, tiled
DESIGN = Path(__file__).with_name("occupancy.csv")


class Multiprocessor(NamedTuple):
    """What a multiprocessor has for blocks, by CUDA's cuda_occupancy.h and programming guide."""

    threads: int
    shared: int
    shared_of_system: int  # in each block
    shared_unit: int

    def blocks(self, threads, registers, shared):
        """The blocks that fit, of so many threads, with these registers of a thread and bytes of a block."""
        # A multiprocessor has four parts of 16384 registers, among which the warps are shared out.
        by_registers = 16384 // rounded_up(32 * registers, 256) * 4 * 32 // threads
        by_memory = self.shared // max(1, rounded_up(shared + self.shared_of_system, self.shared_unit))
        return min(by_registers, by_memory, self.threads // threads)


MULTIPROCESSORS = {
    "sm_75": Multiprocessor(1024, 64 << 10, 0, 256),
    "sm_80": Multiprocessor(2048, 164 << 10, 1024, 128),
    "sm_86": Multiprocessor(1536, 100 << 10, 1024, 128),
    "sm_89": Multiprocessor(1536, 100 << 10, 1024, 128),
    "sm_90": Multiprocessor(2048, 228 << 10, 1024, 128),
    "sm_100": Multiprocessor(2048, 228 << 10, 1024, 128),
    "sm_120": Multiprocessor(1536, 100 << 10, 1024, 128),
}


class Kernel(NamedTuple):
    """A line of the report; sizes in bytes, `local` with spills."""

    name: str
    type: str
    architecture: str
    registers: int
    shared: int
    local: int

    def blocks(self):
        """The blocks that fit on a multiprocessor."""
        multiprocessor = MULTIPROCESSORS.get(self.architecture, MULTIPROCESSORS["sm_90"])
        return multiprocessor.blocks(64 if ", tiled" in self.name else 128, self.registers, self.shared)

    def most(self):
        """The most blocks that may be wanted: on sm_90 any number, elsewhere those by shared memory."""
        return math.inf if self.architecture == "sm_90" else self._replace(registers=1).blocks()

    def problems(self, designed):
        """What is worse than `designed`, its blocks."""
        where = f"{self.name} ({self.type}, {self.architecture})"
        if self.local > 0:
            yield f"{where}: wanted no local memory, found {self.local} bytes"
        if designed is None:
            yield f"{where}: {DESIGN.name} has no row for it, found {self.blocks()} blocks per multiprocessor"
        elif self.blocks() < (wanted := min(designed, self.most())):
            yield (
                f"{where}: wanted {wanted} blocks per multiprocessor, found {self.blocks()} "
                f"({self.registers} registers, {self.shared} bytes of shared memory)"
            )


def rounded_up(number, unit):
    """The least multiple of a unit that is not less than a number."""
    return -(-number // unit) * unit


def title(symbol):
    """A kernel's name from its mangled one, and its type: the pass, the model, its variant, the access."""
    found = re.search(r"(forward|backward|split)_kernelINS_\d+([A-Za-z]+)E(.*?)EEv", symbol)
    if found is None:
        name, kind = re.search(r"\d([a-z]+(?:_[a-z]+)*_kernel)(?:I([fd])[ELfd])?", symbol).groups()
        return name, kind or "d"
    which, model, rest = found.groups()
    method = re.search(r"LNS_6MethodE(\d)E", rest)
    variant = re.search(r"Li(\d+)E([fd])", rest)
    flags = re.findall(r"Lb([01])E", rest + "E")  # (backward) parameters, no rare inputs; steps one by one
    access = re.search(r"AccessE(\d)", rest)
    name = f"{'forward' if which == 'forward' else 'backward'} {model} {variant[1]}"
    if method is not None:
        name += f" {METHODS[int(method[1])]}"
    if which == "split":
        name += ", few neurons"
    elif flags[-1] == "1":
        name += ", single steps"  # taps, recurrent weights
    elif which == "backward":
        name += " with parameters" if flags[0] == "1" else ""
        name += "" if flags[1] == "1" else ", all inputs"
    if access is not None and ", single steps" not in name:
        name += ACCESS[int(access[1])]
    return name, variant[2]


def kernels(log):
    """Yield each Kernel of a log."""
    entry, stack = None, 0
    for line in log.splitlines():
        if found := ENTRY.search(line):
            entry, stack = found.groups(), 0
        elif (found := STACK.search(line)) and entry is not None:
            stack = max(stack, *map(int, found.groups()))
        elif (found := USED.search(line)) and entry is not None:
            name, kind = title(entry[0])
            shared = SHARED.search(line)
            yield Kernel(name, TYPES[kind], entry[1], int(found[1]), int(shared[1]) if shared else 0, stack)
            entry = None


def designed_blocks(kernel):
    """The blocks that occupancy.csv wants of a kernel: those of the first row that fits; None without any."""
    with DESIGN.open() as file:
        for row in csv.DictReader(file):
            if fnmatchcase(kernel, row["kernel"]):
                return int(row["blocks"])
    return None


def main():
    """Print the report of the logs that the command line names."""
    # A log may have a kernel several times. The last one counts.
    found = {row[:3]: row for path in sys.argv[1:] for row in kernels(Path(path).read_text())}
    rows = sorted(found.values())
    if not rows:
        sys.exit("no kernels in the log: were they compiled there, and with -Xptxas -v?")
    print(
        f"{'kernel':48s}{'type':>8s}{'arch':>8s}{'registers':>11s}{'shared':>8s}{'local':>7s}{'blocks':>8s}"
    )
    for row in rows:
        print(
            f"{row.name:48s}{row.type:>8s}{row.architecture:>8s}{row.registers:11d}{row.shared:8d}{row.local:7d}"
            f"{row.blocks():8d}"
        )
    # Double is for checks, not for speed.
    problems = [p for row in rows if row.type == "float" for p in row.problems(designed_blocks(row.name))]
    print(*problems, f"{len(rows)} kernels, {len(problems)} problems of float", sep="\n")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
