"""What the checks of the object code share: the kernels' own compile command, and what nm says."""

import argparse
import json
import pathlib
import re
import shlex
import subprocess


def arguments(description):
    """The arguments of a check of one instruction set's kernels."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--build", required=True, help="the build folder, with compile_commands.json")
    parser.add_argument("--isa", required=True, help="the instruction set, by its name in the build")
    parser.add_argument("--nm", default="nm")
    return parser.parse_args()


class Kernels:
    """How the build compiles the kernels of an instruction set."""

    def __init__(self, build, isa):
        for entry in json.loads((pathlib.Path(build) / "compile_commands.json").read_text()):
            words = shlex.split(entry["command"])
            if pathlib.Path(entry["file"]).name == "kernels.cpp" and f"-DEXODUS_ISA={isa}" in words:
                output = words.index("-o")
                self.source = pathlib.Path(entry["file"])
                self.folder = pathlib.Path(entry["directory"])
                self.object = self.folder / words[output + 1]
                self._command = words[:output] + words[output + 2 :]
                return
        raise SystemExit(f"{build}/compile_commands.json has no kernels.cpp for {isa}: was it renamed?")

    def compile(self, output, *options, source=None):
        """Compiles the kernels, or another source in their place, with further options."""
        command = [str(source) if source and word == str(self.source) else word for word in self._command]
        subprocess.run([*command, *options, "-o", str(output)], cwd=self.folder, check=True)


def symbols(nm, *options):
    """(type, name) of each symbol that nm lists."""
    output = subprocess.run([nm, "-C", *options], check=True, capture_output=True, text=True).stdout
    return [match.groups() for match in re.finditer(r"^[0-9a-f ]* ([A-Za-z]) (.+)$", output, re.MULTILINE)]
