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


def problems(nm, file, tables):
    """Yield what an object defines that it should not, and the tables that it lacks."""
    found = symbols(nm, str(file))
    exported = [name for kind, name in found if kind.isupper() and kind != "U" and kind not in MERGED]
    yield from (f"{kind} {name}" for kind, name in found if kind in MERGED)
    yield from (f"exports {name}" for name in exported if name not in tables)
    yield from (f"does not export {table}" for table in tables if table not in exported)


def all_models(units, isa):
    """Return a source with the tables of all models: most of the time, each would parse the same headers."""
    first, *others = units
    lines = [
        '#include "exodus/exodus.hpp"',
        f'#include "{first.source}"',
        f"namespace exodus::cpu::{isa} {{",
    ]
    for unit in others:
        stages = ", ".join(f"all_stages<{unit.model}, {type_name}>" for type_name in ("float", "double"))
        lines.append(f"extern const ModelTable {unit.table};")
        lines.append(f"constinit const ModelTable {unit.table} = {{{stages}}};")
    return "\n".join([*lines, "}", ""])


def compiled_at_O0(units, isa, folder):
    """Yield (name, object, units in it) of the engine, and of all models together."""
    engine = next(unit for unit in units if unit.model is None)
    models = [unit for unit in units if unit.model is not None]
    for name, unit, source, inside in (
        ("engine", engine, None, [engine]),
        ("models", models[0], folder / "models.cpp", models),
    ):
        if source:
            source.write_text(all_models(models, isa))
        unit.compile(folder / f"{name}.o", "-O0", source=source)
        yield name, folder / f"{name}.o", inside


def main():
    """Print the problems; return 1 if there are any."""
    options = arguments(__doc__)
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        found = units(options.build, options.isa, options.models)
        objects = [(f"{unit.name}, as built", unit.object, [unit]) for unit in found]
        if not found[0].by_clang:
            objects += [
                (f"{name}, at -O0", file, inside)
                for name, file, inside in compiled_at_O0(found, options.isa, folder)
            ]
        for what, file, inside in objects:
            tables = [f"exodus::cpu::{options.isa}::{unit.table}" for unit in inside]
            for problem in problems(options.nm, file, tables):
                print(f"{options.isa}, {what}: {problem}")
                failed = True

        # The same check must see a function that could be merged.
        source = folder / "merged.cpp"
        source.write_text("inline int merged(int x) { return x; }\nint (*keep())(int) { return merged; }\n")
        found[0].compile(folder / "merged.o", source=source)
        if "W merged(int)" not in problems(options.nm, folder / "merged.o", []):
            print("the check does not see an inline function")
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
