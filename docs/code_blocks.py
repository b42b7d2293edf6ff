"""The code in README.md and docs/ runs as a part of the tests, and prints what it says."""

import os
import shlex
import subprocess
import sys
from doctest import ELLIPSIS, OutputChecker
from pathlib import Path
from typing import Any

import torch
from sybil import Example
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

ROOT = Path(__file__).parent.parent
# python in a document is the one that runs the tests.
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def run(command: str | list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=ROOT,
        env={**os.environ, "PATH": PATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def commands(example: Example) -> str | None:
    """A block of ``sh``: its targets of make and its scripts exist and take the options.

    They are not carried out: they build, train, measure or install.
    """
    for line in example.parsed.splitlines():
        match shlex.split(line, comments=True):
            case []:
                continue
            case ["make", *targets]:
                done = run(["make", "--dry-run", *targets])
            case [("python" | "torchrun") as program, *arguments]:
                done = run([program, *arguments, "--help"])
            case ["pip", "install", *options]:
                done = run([sys.executable, "-m", "pip", "install", *options, "--help"])
            case _:
                return f"code_blocks.py does not know how to check {line!r}"
        if done.returncode:
            return f"{line}\n{done.stdout}"
    return None


def session(example: Example) -> str | None:
    """A block of ``console``: a command after ``$``, and what it prints, ``...`` for any of it."""
    command, _, expected = example.parsed.partition("\n")
    printed = run(command.removeprefix("$ ")).stdout
    if OutputChecker().check_output(expected, printed, ELLIPSIS):
        return None
    return f"{command}\nexpected:\n{expected}\nprinted:\n{printed}"


def setup(namespace: dict[str, Any]) -> None:
    torch.manual_seed(0)
    namespace["__name__"] = "__main__"  # Dynamo of torch 2.10 imports the module it compiles


OPTIONS: dict[str, Any] = {
    "parsers": [
        SkipParser(),
        PythonCodeBlockParser(doctest_optionflags=ELLIPSIS),
        CodeBlockParser(language="sh", evaluator=commands),
        CodeBlockParser(language="console", evaluator=session),
    ],
    "patterns": ["README.md", "docs/*.md", "docs/*/*.md"],
    "excludes": ["docs/_generated/*"],
    "setup": setup,
}
