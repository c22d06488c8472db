"""Extract the README's examples: ``python tests/readme.py numpy`` prints one."""

import re
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def example(name: str) -> str:
    """Return the code block that follows the mark ``<!-- test: name -->``."""
    pattern = rf"<!-- test: {name} -->\n```\w+\n(.*?)```"
    (code,) = re.findall(pattern, README.read_text(), re.DOTALL)
    return code


if __name__ == "__main__":
    print(example(sys.argv[1]))
