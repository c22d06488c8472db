"""Extract the examples of documents: ``python tests/readme.py numpy`` prints one of the README."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def example(name: str, document: str = "README.md") -> str:
    """Return the code block that follows the mark ``<!-- test: name -->``."""
    pattern = rf"<!-- test: {name} -->\n```\w+\n(.*?)```"
    (code,) = re.findall(pattern, (ROOT / document).read_text(), re.DOTALL)
    return code


if __name__ == "__main__":
    print(example(sys.argv[1]))
