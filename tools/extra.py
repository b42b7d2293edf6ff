"""Prints the requirements of an extra of pyproject.toml, for pip to install.

``pip install .[demo]`` would build the package again to learn the same.
"""

import re
import sys
from pathlib import Path


def requirements(extra: str) -> list[str]:
    """The requirements of one extra, in the order of pyproject.toml, other extras' in place."""
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    found = re.search(rf"^{extra} = \[(.*?)\]$", text, re.MULTILINE | re.DOTALL)
    if found is None:
        sys.exit(f"pyproject.toml has no extra {extra!r}")
    listed: list[str] = []
    for requirement in re.findall(r'"([^"]+)"', re.sub(r"#.*", "", found[1])):
        other = re.fullmatch(r"fastact\[(\w+)\]", requirement)
        listed += requirements(other[1]) if other else [requirement]
    return listed


if __name__ == "__main__":
    print(*requirements(sys.argv[1]))
