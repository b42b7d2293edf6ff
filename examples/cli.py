"""The command line shared by the demo scripts; imports only the standard library when loaded."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from report import Section
    from rich.progress import Progress

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

# Import name -> what to give to pip, where the two differ.
PIP_NAMES = {"sklearn": "scikit-learn", "fastact": "."}


@dataclass(frozen=True)
class Options:
    """What the user asked for on the command line."""

    out: Path
    quick: bool


@contextmanager
def friendly_imports() -> Iterator[None]:
    """Turn a missing dependency into one sentence that says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        package = PIP_NAMES.get(name, name)
        where = " from the repository's root" if package == "." else ""
        print(
            f"The demo needs {name}, which is not installed:"
            f" run `{sys.executable} -m pip install {package}`{where}.",
            file=sys.stderr,
        )
        sys.exit(EXIT_USAGE)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def parse(description: str, argv: Sequence[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/demo"),
        metavar="DIR",
        help="folder for the pictures (default: %(default)s)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="train for a few epochs only, to see that everything works",
    )
    arguments = parser.parse_args(argv)
    return Options(out=arguments.out, quick=arguments.quick)


def launch(description: str, *problems: Callable[[Options, Progress], Section]) -> None:
    """Run the problems one after another, then print what they found."""
    options = parse(description)
    with friendly_imports():
        import torch
        from report import print_header, print_sections, progress_bars, stdout

    # One process trains both sides, so both get the same threads; two exist nearly everywhere.
    torch.set_num_threads(min(2, torch.get_num_threads()))
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"Cannot create the folder {options.out}: {error.strerror}.", file=sys.stderr)
        sys.exit(EXIT_USAGE)

    print_header()
    try:
        with progress_bars() as progress:
            sections = [problem(options, progress) for problem in problems]
    except KeyboardInterrupt:
        stdout.print("Interrupted.")
        sys.exit(EXIT_INTERRUPTED)
    print_sections(sections)
