"""What the checks of the object code share: the objects of an instruction set, and their symbols by nm."""

import argparse
import json
import pathlib
import re
import shlex
import subprocess


def arguments(description):
    """The arguments of a check of one instruction set."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--build", required=True, help="the build folder, with compile_commands.json")
    parser.add_argument("--isa", required=True, help="the instruction set, by its name in the build")
    parser.add_argument("--models", required=True, help="the models, separated by commas")
    parser.add_argument("--nm", default="nm")
    return parser.parse_args()


class Unit:
    """How the build compiles one object: the engine, or the stages of a model."""

    def __init__(self, entry):
        words = shlex.split(entry["command"])
        output = words.index("-o")
        self.source = pathlib.Path(entry["file"])
        self.folder = pathlib.Path(entry["directory"])
        self.object = self.folder / words[output + 1]
        self.defines = dict(word[2:].split("=", 1) for word in words if re.match("-D[^=]+=", word))
        self.model = self.defines.get("EXODUS_CPU_MODEL")
        self.name = self.model or "engine"
        # Not the report of vectorised loops: another source's would replace it.
        report = ("-fopt-info", "-foptimization-record", "-fsave-optimization-record")
        self.by_clang = "clang" in pathlib.Path(words[0]).name
        self._command = [word for word in words[:output] + words[output + 2 :] if not word.startswith(report)]

    @property
    def report(self):
        """The compiler's report of vectorised loops, made with the object."""
        folder = next(parent for parent in self.object.parents if parent.name.endswith(".dir"))
        found = list(folder.glob("vectorised.*"))
        if len(found) != 1:
            raise SystemExit(f"{folder} has the reports {found}, not one: build the objects again")
        return found[0]

    @property
    def table(self):
        """What the object exports."""
        return f"{self.model}_stages" if self.model else "table"

    def compile(self, output, *options, source=None):
        """Compiles it, or another source in its place, with further options."""
        command = [str(source) if source and word == str(self.source) else word for word in self._command]
        subprocess.run([*command, *options, "-o", str(output)], cwd=self.folder, check=True)


def units(build, isa, models):
    """The objects of an instruction set: the engine and each of the models."""
    entries = json.loads((pathlib.Path(build) / "compile_commands.json").read_text())
    sources = ("engine.cpp", "model.cpp")
    found = [Unit(entry) for entry in entries if pathlib.Path(entry["file"]).name in sources]
    found = [unit for unit in found if unit.defines.get("EXODUS_ISA") == isa]
    names, wanted = sorted(unit.name for unit in found), sorted(["engine", *models.split(",")])
    if names != wanted:
        raise SystemExit(f"{build}/compile_commands.json has the objects {names} for {isa}, not {wanted}")
    return found


def symbols(nm, *options):
    """(type, name) of each symbol that nm lists."""
    output = subprocess.run([nm, "-C", *options], check=True, capture_output=True, text=True).stdout
    return [match.groups() for match in re.finditer(r"^[0-9a-f ]* ([A-Za-z]) (.+)$", output, re.MULTILINE)]
