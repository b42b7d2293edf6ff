"""``fastact bench`` and ``fastact demo``: scripts of the repository, which a wheel carries along.

They run in a process of their own, as from a checkout.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from .arguments import no_such_op
from .explain import OPS

PACKAGE = Path(__file__).parent.parent
# What to look for, by the name to import.
NEEDS = {"bench": ("matplotlib",), "demo": ("matplotlib", "sklearn")}

IDLE = 0.5  # the load of a machine that does nothing in particular
MEASURED = (*OPS, "cross_entropy_inplace", "cross_entropy_expected")  # by benchmarks/cases.py


def folder(name: str) -> Path:
    """Where scripts are: in the package, or, of an editable install, in the checkout."""
    installed = PACKAGE / "_scripts" / name
    return installed if installed.is_dir() else PACKAGE.parent.parent / name


def find_needed(command: str) -> None:
    """Raises where a package that a script imports is not installed."""
    missing = [name for name in NEEDS[command] if importlib.util.find_spec(name) is None]
    if missing:
        raise click.UsageError(
            f"fastact {command} needs {' and '.join(missing)}, not installed; run: "
            f"pip install 'fastact[{command}]'"
        )


def make_folder(path: Path) -> None:
    """Makes the folder of what is written, or says why it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.BadParameter(
            f"the folder {path} cannot be made: {error.strerror}", param_hint="--out"
        ) from None
    if not os.access(path, os.W_OK):
        raise click.BadParameter(f"the folder {path} is not writable", param_hint="--out")


def load_warning(threads: int) -> str:
    """What to say where others need the cores that are to measure; else empty."""
    cores = os.cpu_count() or 1
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows
        return ""
    if load <= max(cores - threads, 0) + IDLE:
        return ""
    return (
        f"Warning: the load average is {load:.1f}, and {threads} threads of {cores} are to "
        "measure: the figures will be noisy; stop what else runs, or take fewer --threads."
    )


def run(command: str, script: Path, arguments: Sequence[str]) -> int:
    """Runs a script and returns its exit code."""
    try:
        environment = {**os.environ, "FASTACT_PROG": f"fastact {command}"}
        return subprocess.call([sys.executable, str(script), *arguments], env=environment)
    except KeyboardInterrupt:  # which the script got, too, and answers in its own way
        raise click.Abort from None


def bench(full: bool, ops: Sequence[str], dtypes: Sequence[str], threads: int, out: Path) -> int:
    """Compares with torch."""
    for op in ops:
        if op not in MEASURED:
            raise no_such_op(op, MEASURED)
    find_needed("bench")
    make_folder(out.parent)  # before anything is measured
    if busy := load_warning(threads):
        click.echo(busy, err=True)
    scripts = folder("benchmarks")
    arguments = ["--threads", str(threads), "--out", str(out)]
    if not full:
        arguments += ["--compile", "none", *(["--seconds", "0.2"] if ops else ["--quick"])]
    if ops:
        arguments += ["--ops", *ops]
    if dtypes:
        arguments += ["--dtypes", *dtypes]
    return run("bench", scripts / "bench.py", arguments)


def demo(quick: bool, out: Path) -> int:
    """Trains small networks."""
    find_needed("demo")
    arguments = ["--out", str(out), *(["--quick"] if quick else [])]
    return run("demo", folder("examples") / "demo.py", arguments)
