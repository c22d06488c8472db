"""The kernels of an instruction set have internal linkage.

The linker keeps any one copy of an inline function or template that several objects define. If an object
compiled for AVX-512 had one, the code for older processors could end up calling it. So each such object, of
the engine or of a model, defines its table and nothing that could be merged, as it was built and at -O0,
where nothing is inlined away. (Clang's objects only as they were built: at -O0 it makes functions of the
constructors of plain structs, which no attribute can keep in the object.)
"""

import pathlib
import sys
import tempfile

from object_code import arguments, symbols, units

MERGED = (
    "WVu"  # weak functions, weak objects, unique objects (lower-case w and v are undefined: somebody else's)
)


def problems(nm, file, table):
    """What an object defines that it should not, or lacks."""
    found = symbols(nm, str(file))
    exported = [name for kind, name in found if kind.isupper() and kind != "U" and kind not in MERGED]
    yield from (f"{kind} {name}" for kind, name in found if kind in MERGED)
    yield from (f"exports {name}" for name in exported if name != table)
    if table not in exported:
        yield f"does not export {table}"


def main():
    """Prints the problems; 1 if there are any."""
    options = arguments(__doc__)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "kernels.o"
        for unit in units(options.build, options.isa, options.models):
            files = {"as built": unit.object}
            if not unit.by_clang:
                unit.compile(output, "-O0")
                files["at -O0"] = output
            table = f"exodus::cpu::{options.isa}::{unit.table}"
            for name, file in files.items():
                for problem in problems(options.nm, file, table):
                    print(f"{options.isa}, {unit.name}, {name}: {problem}")
                    failed = True

        # The same check must see a function that could be merged.
        source = pathlib.Path(folder) / "merged.cpp"
        source.write_text("inline int merged(int x) { return x; }\nint (*keep())(int) { return merged; }\n")
        unit.compile(output, source=source)
        if "W merged(int)" not in problems(options.nm, output, table):
            print("the check does not see an inline function")
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
