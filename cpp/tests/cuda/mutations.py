"""Whether the tests of the CUDA kernels notice: changes one thing at a time, tells which changes nobody saw.

python mutations.py BUILD [FILE[:LINE]...] removes each barrier, and shifts each comparison with a bound by
one, in a copy of cpp/src/cuda, of all its files or of some by name. BUILD is a build directory with the tests
in it, one with -DEXODUS_SANITIZE=address,undefined: only that sees what is read beyond an end. Prints a line
for each change, and fails if one survives that is not explained below.
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

# Changes that make no difference, by a part of the changed line, and why.
EQUAL = "both are the same where they are equal"
BEYOND = "what is beyond the last step nobody reads"
BEYOND_STEPS = "a chunk beyond the last has no steps"
NOBODYS_SUMS = "nobody wants the gradient of a parameter that the model does not have"
EXPLAINED = {
    "work <= max_blocks": EQUAL,
    "left <= groups.lanes": EQUAL,
    "first <= 0 ? -first : 0": EQUAL,
    "taps >= 1 ? (taps - 1)": EQUAL,
    "if (d <= steps) {": "beyond the last step all gradients are zero",
    "for (int d = 0; d <= D; ++d) {": "steps are D at most, and each d is compared with them",
    "for (int k = 0; k <= C::parameters; ++k) {": NOBODYS_SUMS,
    "call.sums[k] = parts.sums[k]": NOBODYS_SUMS,
    "for (int i = 1; i <= Count; ++i)": "nobody asks for that array",
    "Kernels >= 1 && given(1)": "a filter's second kernel has no taps",
    "end - first <= most": EQUAL,
    "segment <= layout.time ?": EQUAL,
    "later <= call.layout.time": "no steps are loaded then",
    "d <= on_tape": BEYOND,
    "place.active && d <= steps) tile[": BEYOND,
    "u[d >= 0 ?": "it is asked where d > 0 alone",
    "steps * steps <= time": "segments of any length give the states",
    "wanted.sums >= 0": "sums that nobody wants are not written",
    "layout.inner <= warp_threads": "either way of reading gives the values",
    "parameters[k].count >= 0": "nobody divides by the count of a parameter that the model does not have",
    "group <= groups.count": "a group beyond the last has no neurons",
    "first <= call.layout.time": BEYOND_STEPS,
    "begin <= fir.layout.time": BEYOND_STEPS,
    "N<V>::variants >= forms": "of a model without more variants none is asked for",
    "k <= end": "a sweep ends beyond the last neuron, where nothing is added",
    "shape.count < warp_threads": "either kernel gives the sum",
}


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
    """The compiler's words for each shim object, without source and output; and the test's own objects."""
    words = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        command = shlex.split(entry["command"])
        output = command[command.index("-o") + 1]
        if "cuda_shim" in output:
            target = re.search(r"(cuda_shim(_\w+)?)\.dir", output)[1]
            words[target] = (command[: command.index("-o")], entry["directory"])
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
        for target, source in [("cuda_shim", "common.cu"), *((f"cuda_shim_{m}", "model.cu") for m in models)]:
            command, directory = words[target]
            objects.append(f"{scratch}/{target}.o")
            compiled = [*command, "-w", "-o", objects[-1], "-c", str(copy / source)]
            if subprocess.run(compiled, cwd=directory, capture_output=True).returncode != 0:
                return "does not compile"
        tests = build / "cpp" / "tests" / "cuda"
        own = [str(o) for o in (tests / "CMakeFiles" / "cuda_kernels_are_the_cpu.dir").rglob("*.o")]
        sanitizers = [word for word in command if word.startswith("-fsanitize")]
        program = f"{scratch}/test"
        link = ["g++", *sanitizers, *own, *objects, str(tests / "libcuda_shim.a"), f"-L{build}"]
        link += ["-lexodus_core", f"-Wl,-rpath,{build}", "-lgtest", "-lpthread", "-o", program]
        subprocess.run(link, check=True)
        types = ("float", "float16", "bfloat16")
        filters = ":".join(f"*{model}_{name}.*" for model in models for name in types) + ":CudaTaps*"
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
    survivors = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda change: noticed(change, build, words), everything)
        for (path, number, changed), why in zip(everything, results, strict=True):
            explained = next((reason for part, reason in EXPLAINED.items() if part in changed), None)
            verdict = why or (f"makes no difference: {explained}" if explained else "SURVIVES")
            survivors += verdict == "SURVIVES"
            print(f"{path.name}:{number}: {changed.strip()}\n    {verdict}", flush=True)
    print(f"{len(everything)} changes, {survivors} survive")
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
