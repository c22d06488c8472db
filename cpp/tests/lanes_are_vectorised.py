"""Every loop marked EXODUS_LANES is vectorised, at the instruction set's full width, in every instantiation.

Reads the reports that the compiler wrote beside the objects when it made them. For each marked loop: no
instantiation in any object is left as it is, and at least as many are vectorised as there are instantiations
of the function around it (where that is a function of its own; most are inlined, and only GCC counts them).
Clang reports a width in elements of a type that it does not name: the full widths of double and float pass.
"""

import collections
import pathlib
import re
import sys
import tempfile

from object_code import arguments, units

WIDTHS = {"x86_64_v2": 16, "avx2": 32, "avx512": 64}  # bytes
LINE = re.compile(r"^(?P<file>[^:\s]+):(?P<line>\d+):\d+: (?:optimized|missed|note): (?P<text>.*)$")
VECTORISED = re.compile(r"loop vectorized using (?:variable length|(\d+) byte) vectors")
FUNCTION = re.compile(r"vectorized [1-9]\d* loops in function")
REMARK = re.compile(
    r"^--- !(?P<kind>Passed|Missed)\n.*?^Name: +(?P<name>\w+)\n"
    r"DebugLoc: +\{ File: '(?P<file>[^']+)', *\n? *Line: (?P<line>\d+),.*?^\.\.\.$",
    re.MULTILINE | re.DOTALL,
)
LANES = re.compile(r"VectorizationFactor: '(\d+)'")


class Report:
    """What the reports say about loops, by (file, line)."""

    def __init__(self, paths):
        self.vectorised = collections.defaultdict(collections.Counter)  # how often, by width in bytes
        self.missed = collections.Counter()
        self.functions = collections.Counter()  # instantiations with a vectorised loop
        for path in paths:
            text = path.read_text()
            if path.suffix == ".yaml":
                self._read_clang(text)
            else:
                self._read_gcc(text)

    def _read_gcc(self, report):
        for text in report.splitlines():
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

    def _read_clang(self, report):
        for document in re.split(r"(?=^--- !)", report, flags=re.MULTILINE):
            remark = REMARK.match(document)
            if not remark:
                continue
            place = (pathlib.Path(remark["file"]).name, int(remark["line"]))
            if remark["name"] == "Vectorized":
                lanes = int(LANES.search(document)[1])
                for width in WIDTHS.values():
                    if lanes in (width // 4, width // 8):
                        self.vectorised[place][width] += 1
            elif remark["kind"] == "Missed":
                self.missed[place] += 1


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


def report_options(path):
    """The compiler's options for a report like the one at this path, to be written there."""
    if path.suffix == ".yaml":
        return [
            "-fsave-optimization-record=yaml",
            f"-foptimization-record-file={path}",
            "-foptimization-record-passes=loop-vectorize",
            "-Wno-pass-failed",
        ]
    return [f"-fopt-info-vec-all={path}"]


def check_of_the_check(unit, isa):
    """What is wrong with this check itself."""
    # Clang vectorises what is marked even where it is told to leave loops.
    off = "-O0" if unit.report.suffix == ".yaml" else "-fno-tree-vectorize"
    with tempfile.TemporaryDirectory() as folder:
        example = pathlib.Path(folder) / "example.cpp"
        report = pathlib.Path(folder) / unit.report.name
        for text, options, line, wanted in (
            (GOOD, [], 5, False),
            (GOOD + BAD, [], 5, False),
            (GOOD + BAD, [], 9, True),
            (GOOD, [off], 5, True),
        ):
            example.write_text(text)
            report.write_text("")  # which stays, where the compiler has nothing to say
            unit.compile(f"{folder}/example.o", *options, *report_options(report), source=example)
            found = list(problems(Report([report]), [example], isa))
            if any(f":{line}:" in problem for problem in found) != wanted:
                yield f"the check of line {line} of the example, with {options}, found {found}"


def main():
    """Prints the problems; 1 if there are any."""
    options = arguments(__doc__)
    objects = units(options.build, options.isa, options.models)
    sources = sorted(objects[0].source.parent.glob("*.hpp"))
    engine = next(unit for unit in objects if unit.model is None)
    found = [
        *problems(Report([unit.report for unit in objects]), sources, options.isa),
        *check_of_the_check(engine, options.isa),
    ]
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
