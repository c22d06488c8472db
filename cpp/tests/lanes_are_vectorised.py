"""Every loop marked EXODUS_LANES is vectorised, at the instruction set's full width, in every instantiation.

Reads the compiler's report (GCC). For each marked loop: no instantiation "couldn't vectorize", and at least
as many were vectorised as there are instantiations of the function around it (where that is a function of its
own; most are inlined).
"""

import collections
import pathlib
import re
import sys
import tempfile

from object_code import Kernels, arguments

WIDTHS = {"x86_64_v2": 16, "avx2": 32, "avx512": 64}
LINE = re.compile(r"^(?P<file>[^:\s]+):(?P<line>\d+):\d+: (?:optimized|missed|note): (?P<text>.*)$")
VECTORISED = re.compile(r"loop vectorized using (?:variable length|(\d+) byte) vectors")
FUNCTION = re.compile(r"vectorized [1-9]\d* loops in function")


class Report:
    """The report's lines about loops, by (file, line)."""

    def __init__(self, path):
        self.vectorised = collections.defaultdict(collections.Counter)  # how often, by width
        self.missed = collections.Counter()
        self.functions = collections.Counter()  # instantiations with a vectorised loop
        for text in path.read_text().splitlines():
            line = LINE.match(text)
            if not line:
                continue
            place = (pathlib.Path(line["file"]).name, int(line["line"]))
            if vectorised := VECTORISED.match(line["text"]):
                self.vectorised[place][int(vectorised[1] or 0)] += 1
            elif line["text"].startswith("couldn't vectorize loop"):
                self.missed[place] += 1
            elif FUNCTION.match(line["text"]):
                self.functions[place] += 1


def marked_loops(source):
    """(line of the loop, line of the function around it) for each EXODUS_LANES."""
    lines = source.read_text().splitlines()
    for number, text in enumerate(lines, start=1):
        if text.strip() != "EXODUS_LANES":
            continue
        function = number
        while function > 1 and not re.match(r"(?!template|namespace|struct)[A-Za-z]", lines[function - 1]):
            function -= 1
        yield number + 1, function


def problems(report, sources, isa):
    """What the report says against each marked loop of the sources."""
    loops = 0
    for source in sources:
        for line, function in marked_loops(source):
            loops += 1
            where = f"{isa}, {source.name}:{line}"
            widths = report.vectorised[source.name, line]
            full = widths[WIDTHS[isa]] if isa in WIDTHS else sum(widths.values())
            wanted = max(1, report.functions[source.name, function])
            missed = report.missed[source.name, line]
            if missed:
                yield f"{where}: {missed} instantiations are not vectorised"
            if full < wanted:
                yield f"{where}: {full} loops of {wanted} at full width (by width: {dict(widths)})"
    if loops == 0:
        yield "no loop is marked EXODUS_LANES"


def report_of(kernels, *options, source=None):
    """The compiler's report on the kernels, or on another source."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "report.txt"
        output = pathlib.Path(folder) / "kernels.o"
        kernels.compile(output, *options, f"-fopt-info-vec-all={path}", source=source)
        return Report(path)


# One loop that can be vectorised and one that cannot (a call in each iteration): the check must tell them
# apart, and must object to the first as well where nothing is vectorised.
GOOD = """#include "exodus/macros.hpp"
float elsewhere(float);
void good(float* to, const float* from, int lanes) {
  EXODUS_LANES
  for (int i = 0; i < lanes; ++i) to[i] = 2 * from[i];
}
"""
BAD = """void bad(float* to, const float* from, int lanes) {
  EXODUS_LANES
  for (int i = 0; i < lanes; ++i) to[i] = elsewhere(from[i]);
}
"""


def check_of_the_check(kernels, isa):
    """What is wrong with this check itself."""
    with tempfile.TemporaryDirectory() as folder:
        example = pathlib.Path(folder) / "example.cpp"
        for text, options, line, wanted in (
            (GOOD, [], 5, False),
            (GOOD + BAD, [], 5, False),
            (GOOD + BAD, [], 9, True),
            (GOOD, ["-fno-tree-vectorize"], 5, True),
        ):
            example.write_text(text)
            found = list(problems(report_of(kernels, *options, source=example), [example], isa))
            if any(f":{line}:" in problem for problem in found) != wanted:
                yield f"the check of line {line} of the example, with {options}, found {found}"


def main():
    """Prints the problems; 1 if there are any."""
    options = arguments(__doc__)
    kernels = Kernels(options.build, options.isa)
    sources = sorted(kernels.source.parent.glob("*.hpp"))
    found = [
        *problems(report_of(kernels), sources, options.isa),
        *check_of_the_check(kernels, options.isa),
    ]
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
