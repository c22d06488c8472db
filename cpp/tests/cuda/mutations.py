"""Whether the tests of the CUDA kernels notice: changes one thing at a time, tells which changes nobody saw.

python mutations.py BUILD [FILE[:LINE]...] removes each barrier, and shifts each comparison with a bound by
one, in a copy of cpp/src/cuda, of all its files or of some by name. BUILD is a build directory with the tests
in it, one with -DEXODUS_SANITIZE=address,undefined: only that sees what is read beyond an end. Prints a line
for each change. It fails if one survives that mutations_explained.txt does not excuse, if a change that is
excused is noticed, or if (where all files are tried) it is not made any more.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ROOT / "cpp" / "src" / "cuda"
# Models that together have all that kernels ask of one; what they do not have: kernels with taps, variants.
MODELS = ("CubaLif", "Alif")
MODELS_WITH_TAPS = ("KernelFilter", "Srm")
TAPS_ALONE = ("fir.hpp", "common.cu")
BARRIER = re.compile(r"__syncthreads\(\);")
COMPARISON = re.compile(r" (<|<=|>|>=) (?!=)")
SHIFTED = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
NOT_COMPARISONS = ("template", "#", "///", "//", "static_assert", "constexpr", "using", "namespace")


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


def key(path, changed):
    """A change, as it is excused: spaces do not count."""
    return path.name, " ".join(changed.split())


def changes():
    """Yield (file, line number, changed line)."""
    for path in sorted([*SOURCES.glob("*.hpp"), *SOURCES.glob("*.cu")]):
        host_only = False
        for number, line in enumerate(path.read_text().splitlines(), 1):
            # What a GPU alone compiles, in launch.hpp, is not here.
            if path.name == "launch.hpp":
                host_only = host_only or line.startswith("#else")
                if not host_only:
                    continue
            if line.strip().startswith(NOT_COMPARISONS):
                continue
            if BARRIER.search(line):
                yield path, number, BARRIER.sub(";", line)
            for found in COMPARISON.finditer(line):
                begin, end = found.span(1)
                yield path, number, line[:begin] + SHIFTED[found[1]] + line[end:]


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


def noticed(change, build, words):
    """Why the tests fail with a change, or None if they pass."""
    path, number, changed = change
    models = MODELS_WITH_TAPS if path.name in TAPS_ALONE or "forms" in changed else MODELS
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "cuda"
        shutil.copytree(SOURCES, copy)
        lines = (copy / path.name).read_text().splitlines()
        lines[number - 1] = changed
        (copy / path.name).write_text("\n".join(lines) + "\n")
        objects = []
        shared = [("cuda_shim", source) for source in ("common.cu", "delay.cu", "recurrence.cu")]
        for target, source in [*shared, *((f"cuda_shim_{m}", "model.cu") for m in models)]:
            command, directory, unchanged = words[target, source]
            if path.suffix == ".cu" and path.name != source:
                objects.append(unchanged)
                continue
            objects.append(f"{scratch}/{target}_{source}.o")
            compiled = [*command, "-w", "-o", objects[-1], "-c", str(copy / source)]
            if subprocess.run(compiled, cwd=directory, capture_output=True).returncode != 0:
                return "does not compile"
        tests = build / "cpp" / "tests"
        names = ["kernels_are_the_cpu", *(f"kernels_are_the_cpu_{model}" for model in models)]
        folders = [tests / "cuda" / "CMakeFiles" / f"cuda_{name}.dir" for name in names]
        own = [
            str(o)
            for folder in [*folders, tests / "CMakeFiles" / "tests_main.dir"]
            for o in folder.rglob("*.o")
        ]
        sanitizers = [word for word in command if word.startswith("-fsanitize")]
        program = f"{scratch}/test"
        link = ["g++", *sanitizers, *own, *objects, str(tests / "cuda" / "libcuda_shim.a"), f"-L{build}"]
        link += ["-lexodus_core", f"-Wl,-rpath,{build}", "-lgtest", "-lpthread", "-o", program]
        subprocess.run(link, check=True)
        types = ("float", "double", "float16", "bfloat16")
        filters = (
            ":".join(f"*{model}_{name}.*" for model in models for name in types) + ":CudaTaps*:CudaDelay*"
        )
        environment = os.environ | {"ASAN_OPTIONS": "detect_stack_use_after_return=0"}
        run = [program, f"--gtest_filter={filters}", "--gtest_fail_fast"]
        try:
            done = subprocess.run(run, capture_output=True, text=True, timeout=600, env=environment)
        except subprocess.TimeoutExpired:
            return "never ends"
        if done.returncode == 0:
            return None
        found = re.search(r"shim: .*|ERROR: AddressSanitizer: [\w-]+|runtime error: .*", done.stderr)
        return found[0] if found else "other results"


def main():
    """Try every change and print what became of it."""
    build = Path(sys.argv[1]).resolve()
    words = compile_commands(build)
    chosen = set(sys.argv[2:] or os.listdir(SOURCES))
    everything = [c for c in changes() if chosen & {c[0].name, f"{c[0].name}:{c[1]}"}]
    explained_changes = excuses()
    survivors, stale = 0, []
    if len(sys.argv) == 2:
        made = {key(path, changed) for path, _, changed in everything}
        stale = [
            f"{file}: {line}\n    is excused, but no such change is made"
            for file, line in explained_changes
            if (file, line) not in made
        ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda change: noticed(change, build, words), everything)
        for (path, number, changed), why in zip(everything, results, strict=True):
            explained = explained_changes.get(key(path, changed))
            verdict = why or (f"makes no difference: {explained}" if explained else "SURVIVES")
            survivors += verdict == "SURVIVES"
            if why and explained:
                stale.append(f"{path.name}:{number}: {changed.strip()}\n    is excused, but noticed: {why}")
            print(f"{path.name}:{number}: {changed.strip()}\n    {verdict}", flush=True)
    print(*stale, sep="\n")
    print(f"{len(everything)} changes, {survivors} survive, {len(stale)} excuses are stale")
    sys.exit(1 if survivors or stale else 0)


if __name__ == "__main__":
    main()
