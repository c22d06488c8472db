"""Whether the tests of the CUDA kernels notice: changes one thing at a time, tells which changes nobody saw.

python mutations.py BUILD [FILE[:LINE]...] removes each barrier, and shifts each comparison with a bound by
one, in a copy of cpp/src/cuda, of all its files or of some by name. BUILD is a build directory with all tests
in it, one with -DEXODUS_SANITIZE=address,undefined: only that sees what is read beyond an end. Prints a line
for each change. It fails if one survives that mutations_explained.txt does not excuse, if a change that is
excused is noticed, or if (where all files are tried) it is not made any more.

All changes are compiled into one program, and the environment says which ones are made (changes.hpp); but
those that the compiler has to know are compiled by themselves. Excused changes take the longest, since all
tests pass. So they are made together first, and one by one only if the tests notice something.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ROOT / "cpp" / "src" / "cuda"
# Models that together have most of what kernels ask of one; models_for() adds those with taps or variants,
# and one whose hidden state reads the potential.
MODELS = ("CubaLif", "Alif")
MODELS_WITH_TAPS = ("KernelFilter", "Srm")
TAPS_ALONE = ("fir.hpp", "common.cu")
SPLIT_MODELS = ("Lif", "CubaLif")
ALL_MODELS = (*MODELS, *MODELS_WITH_TAPS, "Lif", "StateSpace")
TESTS_OF_LAUNCHES = ("backward_takes_two_launches", "recurrence_is_one_launch")
BARRIER = re.compile(r"__sync(threads|warp)\(\);")
COMPARISON = re.compile(r" (<|<=|>|>=) (?!=)")
CONSTANT_FUNCTION = re.compile(r"(?<!if )constexpr .*\) {$")
SHIFTED = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
NOT_COMPARISONS = ("template", "#", "///", "//", "static_assert", "constexpr", "using", "namespace")
SWITCHES = Path(__file__).with_name("changes.hpp")
OPERATORS = {"<": "less", "<=": "at_most", ">": "more", ">=": "at_least"}


class Change(NamedTuple):
    """What is put in place of columns [begin, end) of a line."""

    path: Path
    number: int
    line: str
    begin: int
    end: int
    replacement: str
    following: str  # the next line
    at_compile_time: bool  # whether the compiler has to know

    @property
    def changed(self):
        """The line, changed."""
        return self.line[: self.begin] + self.replacement + self.line[self.end :]

    def switch(self, k):
        """What is put there if the change may be made or not, as change k."""
        if not self.replacement.strip(";"):
            return f"if (!::exodus::changes::made[{k}]) {self.line[self.begin : self.end]}"
        is_now = OPERATORS[self.line[self.begin : self.end]]
        return f"< ::exodus::changes::choice<{k}, ::exodus::changes::{is_now}> >"


def excuses():
    """Why changes make no difference, by file and whole changed line."""
    reason, found = "", {}
    for line in (Path(__file__).with_name("mutations_explained.txt")).read_text().splitlines():
        if line.startswith("    "):
            file, _, changed = line.strip().partition(": ")
            found[file, changed] = reason
        elif line:
            reason = line
    return found


def keys(change):
    """A change, as it may be excused: by its line, or with the next one where another line is equal."""
    alone = " ".join(change.changed.split())
    return [(change.path.name, text) for text in (alone, f"{alone} {' '.join(change.following.split())}")]


def excuse_of(change, excused):
    """The reason why a change makes no difference, or None."""
    return next((excused[key] for key in keys(change) if key in excused), None)


def changes():
    """Yield every change."""
    for path in sorted([*SOURCES.glob("*.hpp"), *SOURCES.glob("*.cu")]):
        host_only = in_constant = False
        lines = path.read_text().splitlines()
        for number, (line, following) in enumerate(zip(lines, [*lines[1:], ""], strict=True), 1):
            # What a GPU alone compiles, in launch.hpp, is not here.
            if path.name == "launch.hpp":
                host_only = host_only or line.startswith('#include "shim.hpp"')
                if not host_only:
                    continue
            in_constant = bool(CONSTANT_FUNCTION.search(line)) or (in_constant and line != "}")
            if line.strip().startswith(NOT_COMPARISONS):
                continue
            at_compile_time = in_constant or "constexpr" in line
            for found in BARRIER.finditer(line):
                yield Change(path, number, line, *found.span(), ";", following, at_compile_time)
            for found in COMPARISON.finditer(line):
                yield Change(
                    path, number, line, *found.span(1), SHIFTED[found[1]], following, at_compile_time
                )


def compile_commands(build):
    """For each shim object: the compiler's words without source and output, where it runs, the object."""
    words = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        command = shlex.split(entry["command"])
        output = command[command.index("-o") + 1]
        if "cuda_shim" in output:
            target = re.search(r"(cuda_shim(_\w+)?)\.dir", output)[1]
            directory = entry["directory"]
            words[target, Path(entry["file"]).name] = (
                command[: command.index("-o")],
                directory,
                f"{directory}/{output}",
            )
    return words


def copied(scratch, edits):
    """A copy of the sources, of which `edits` replaces columns of lines: (change, replacement)."""
    copy = Path(scratch) / "cuda"
    shutil.copytree(SOURCES, copy)
    for path in {change.path for change, _ in edits}:
        lines = path.read_text().splitlines()
        here = [(change, text) for change, text in edits if change.path == path]
        for change, text in sorted(here, key=lambda edit: edit[0].begin, reverse=True):
            line = lines[change.number - 1]
            lines[change.number - 1] = line[: change.begin] + text + line[change.end :]
        (copy / path.name).write_text("\n".join(lines) + "\n")
    return copy


def program_of(edits, models, build, words, scratch, pool):
    """The tests of some models with sources that are edited, and the compiler's errors: one of the two."""
    copy = copied(scratch, edits)
    edited = {change.path for change, _ in edits}
    shared = [("cuda_shim", source) for source in ("common.cu", "delay.cu", "recurrence.cu")]
    objects, compiled = [], []
    for target, source in [*((f"cuda_shim_{m}", "model.cu") for m in models), *shared]:
        command, directory, unchanged = words[target, source]
        if not any(path.suffix == ".hpp" or path.name == source for path in edited):
            objects.append(unchanged)
            continue
        objects.append(f"{scratch}/{target}_{source}.o")
        new = [*command, "-w", "-include", str(SWITCHES), "-o", objects[-1], "-c", str(copy / source)]
        compiled.append(pool.submit(subprocess.run, new, cwd=directory, capture_output=True, text=True))
    for done in [job.result() for job in compiled]:
        if done.returncode != 0:
            return None, done.stderr
    tests = build / "cpp" / "tests"
    names = [
        "cuda_kernels_are_the_cpu",
        *(f"cuda_kernels_are_the_cpu_{model}" for model in models),
        *TESTS_OF_LAUNCHES,
    ]
    folders = [tests / "cuda" / "CMakeFiles" / f"{name}.dir" for name in names]
    folders.append(tests / "CMakeFiles" / "tests_main.dir")
    own = [str(o) for folder in folders for o in folder.rglob("*.o")]
    sanitizers = [word for word in command if word.startswith("-fsanitize")]
    program = f"{scratch}/test"
    link = ["g++", *sanitizers, *own, *objects, str(tests / "cuda" / "libcuda_shim.a"), f"-L{build}"]
    link += ["-lexodus_core", f"-Wl,-rpath,{build}", "-lgtest", "-lpthread", "-o", program]
    subprocess.run(link, check=True)
    return program, ""


def models_for(change):
    """The models whose tests should notice."""
    if change.path.name == "split.hpp":
        return SPLIT_MODELS
    if change.path.name == "model.cu":  # calls with taps, and with recurrent weights too
        return (*MODELS, "Srm")
    if "potential" in change.line:  # its hidden state reads the potential before
        return (*MODELS, "StateSpace")
    return MODELS_WITH_TAPS if change.path.name in TAPS_ALONE or "forms" in change.line else MODELS


def tests_for(change):
    """The filters of the tests that could notice a change, in rounds: most are noticed in the first.

    The tests of recurrent weights, which take the longest, are the last.
    """
    if change.path.name == "delay.cu":  # nothing else uses it
        return ("CudaDelay*",)
    if change.path.name == "split.hpp":
        return ("CudaLaunches*:CudaSplit*", ":".join(f"*{model}*FewNeurons*" for model in SPLIT_MODELS))

    def of_models(tests):
        return [
            ":".join(f"*{model}_{name}.{tests}" for model in models_for(change) for name in names)
            for names in (("float",), ("double", "float16", "bfloat16"))
        ]

    recurrent = "CudaRecurrence*:CudaWeights*", *of_models("*RecurrentWeights")
    if change.path.stem == "recurrence":  # nothing else uses it
        return recurrent
    alone = "CudaLaunches*:CudaSplit*:CudaTaps*:CudaDelay*:CudaDecay*:CudaRotation*:CudaLearnt*:CudaState*"
    first, second = of_models("*")
    return f"{first}:{alone}-*RecurrentWeights", f"{second}-*RecurrentWeights", *recurrent


class Program:
    """The tests with changes, of which each call makes some."""

    def __init__(self, path):
        self.path = path
        self.limits = {}  # seconds, by filter

    def run_unchanged(self, tests):
        """Why one of these filters' tests fails without any change, or None. Notes how long they take."""
        for one in tests:
            begin = time.monotonic()
            why = self._failure(one, ())
            if why:
                return why
            self.limits[one] = 60 + 2 * (time.monotonic() - begin)
        return None

    def failure(self, tests, made=()):
        """Why one of these filters' tests fails with the changes of these numbers, or None if all pass."""
        return next(filter(None, (self._failure(one, made) for one in tests)), None)

    def _failure(self, tests, made):
        environment = os.environ | {
            "ASAN_OPTIONS": "detect_stack_use_after_return=0",
            "EXODUS_CHANGES": "".join(f"{k} " for k in made),
        }
        run = [self.path, f"--gtest_filter={tests}", "--gtest_fail_fast"]
        limit = self.limits.get(tests, 1200)
        try:
            done = subprocess.run(run, capture_output=True, text=True, timeout=limit, env=environment)
        except subprocess.TimeoutExpired:
            return "never ends"
        if done.returncode == 0:
            return None
        found = re.search(r"shim: .*|ERROR: AddressSanitizer: [\w-]+|runtime error: .*", done.stderr)
        return found[0] if found else "other results"


def noticed_compiled(made, build, words, pool):
    """Why the tests fail with changes that are compiled by themselves, or None if they pass."""
    models = sorted({model for change in made for model in models_for(change)})
    tests = dict.fromkeys(one for change in made for one in tests_for(change))
    with tempfile.TemporaryDirectory() as scratch:
        edits = [(change, change.replacement) for change in made]
        program, _ = program_of(edits, models, build, words, scratch, pool)
        return "does not compile" if program is None else Program(program).failure(tests)


def pass_together(program, tried, numbers, pool):
    """The numbers of the changes whose tests pass when all of those for the same tests are made."""
    groups = {}
    for k in numbers:
        groups.setdefault(tests_for(tried[k]), []).append(k)
    found = pool.map(lambda group: program.failure(*group), groups.items())
    return {k for why, own in zip(found, groups.values(), strict=True) if not why for k in own}


def results(tried, excused, build):
    """Yield for each change why the tests fail, or None.

    Changes that the compiler has to know come last, in `tried` as here.
    """
    words = compile_commands(build)
    with ThreadPoolExecutor(os.cpu_count()) as pool, tempfile.TemporaryDirectory() as scratch:
        switched = [(c, c.switch(k)) for k, c in enumerate(tried) if not c.at_compile_time]
        program, errors = program_of(switched, ALL_MODELS, build, words, scratch, pool)
        if program is None:
            sys.exit(f"the program with all changes does not compile:\n{errors}")
        program = Program(program)
        for why in pool.map(program.run_unchanged, sorted({tests_for(change) for change in tried})):
            if why:
                sys.exit(f"the tests fail without any change: {why}")
        switchable = {k for k, change in enumerate(tried) if not change.at_compile_time}
        passed = pass_together(
            program, tried, sorted(k for k in switchable if excuse_of(tried[k], excused)), pool
        )
        runs = {
            k: pool.submit(program.failure, tests_for(tried[k]), (k,)) for k in sorted(switchable - passed)
        }
        for k in sorted(switchable):
            yield None if k in passed else runs[k].result()
        compiled = [change for change in tried if change.at_compile_time]
        together = [change for change in compiled if excuse_of(change, excused)]
        unnoticed = together if together and not noticed_compiled(together, build, words, pool) else []
        for change in compiled:
            yield None if change in unnoticed else noticed_compiled([change], build, words, pool)


def main():
    """Try every change and print what became of it."""
    chosen = set(sys.argv[2:] or os.listdir(SOURCES))
    tried = [c for c in changes() if chosen & {c.path.name, f"{c.path.name}:{c.number}"}]
    tried.sort(key=lambda change: change.at_compile_time)
    explained_changes = excuses()
    survivors, stale = 0, []
    if len(sys.argv) == 2:
        made = {key for change in tried for key in keys(change)}
        stale = [
            f"{file}: {line}\n    is excused, but no such change is made"
            for file, line in explained_changes
            if (file, line) not in made
        ]
    for change, why in zip(
        tried, results(tried, explained_changes, Path(sys.argv[1]).resolve()), strict=True
    ):
        explained = excuse_of(change, explained_changes)
        verdict = why or (f"makes no difference: {explained}" if explained else "SURVIVES")
        survivors += verdict == "SURVIVES"
        where = f"{change.path.name}:{change.number}: {change.changed.strip()}"
        if why and explained:
            stale.append(f"{where}\n    is excused, but noticed: {why}")
        print(f"{where}\n    {verdict}", flush=True)
    print(*stale, sep="\n")
    print(f"{len(tried)} changes, {survivors} survive, {len(stale)} excuses are stale")
    sys.exit(1 if survivors or stale else 0)


if __name__ == "__main__":
    main()
