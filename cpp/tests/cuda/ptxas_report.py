"""What the compiler made of the CUDA kernels: registers, spills and shared memory of each.

python ptxas_report.py LOG... reads what `nvcc -Xptxas -v` printed (cmake -DCMAKE_CUDA_FLAGS="-Xptxas -v"),
prints a line for each kernel and architecture, and fails if a float32 kernel spills or uses local memory.
"""

import re
import sys
from pathlib import Path

ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
METHODS = ("exodus", "slayer", "bptt")


def title(symbol):
    """A kernel's name from its mangled one: the pass, the model, its variant, the type."""
    found = re.search(r"(forward|backward)_kernelINS_\d+([A-Za-z]+)E(.*?)EEv", symbol)
    if found is None:
        name, kind = re.search(r"\d([a-z]+(?:_[a-z]+)*_kernel)(?:I([fd])[EL])?", symbol).groups()
        return name, kind or "d"
    which, model, rest = found.groups()
    method = re.search(r"LNS_6MethodE(\d)E", rest)
    variant = re.search(r"Li(\d+)E([fd])", rest)
    flags = re.findall(r"Lb([01])E", rest + "E")  # (backward) parameters, no rare inputs; steps one by one
    name = f"{which} {model} {variant[1]}"
    if method is not None:
        name += f" {METHODS[int(method[1])]}"
    if flags[-1] == "1":
        name += ", single steps"  # taps, recurrent weights
    elif which == "backward":
        name += " with parameters" if flags[0] == "1" else ""
        name += "" if flags[1] == "1" else ", all inputs"
    return name, variant[2]


def kernels(log):
    """Yield (name, type, architecture, registers, shared bytes, stack and spill bytes) of a log."""
    entry, stack = None, 0
    for line in log.splitlines():
        if found := ENTRY.search(line):
            entry, stack = found.groups(), 0
        elif (found := STACK.search(line)) and entry is not None:
            stack = max(stack, *map(int, found.groups()))
        elif (found := USED.search(line)) and entry is not None:
            shared = SHARED.search(line)
            yield *title(entry[0]), entry[1], int(found[1]), int(shared[1]) if shared else 0, stack
            entry = None


def main():
    """Print the report of the logs that the command line names."""
    rows = sorted({row for path in sys.argv[1:] for row in kernels(Path(path).read_text())})
    if not rows:
        sys.exit("no kernels in the log: was it compiled with -Xptxas -v?")
    print(f"{'kernel':48s}{'type':>8s}{'arch':>8s}{'registers':>11s}{'shared':>8s}{'local':>7s}")
    for name, kind, arch, registers, shared, stack in rows:
        kind = {"f": "float", "d": "double"}[kind]
        print(f"{name:48s}{kind:>8s}{arch:>8s}{registers:11d}{shared:8d}{stack:7d}")
    spilled = [row for row in rows if row[1] == "f" and row[5] > 0]
    print(f"{len(rows)} kernels, {len(spilled)} of float with local memory")
    sys.exit(1 if spilled else 0)


if __name__ == "__main__":
    main()
