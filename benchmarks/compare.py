"""Compares two revisions of fastact: builds both, times them in turns, prints what moved.

    python benchmarks/compare.py BASE [--head REV] [--fail] [--ops ...] [--sizes ...]

Each revision is installed into a folder of its own and runs in a process of its own; the processes
take turns, a sample each, so that noise hits both. What seems to have moved is measured twice more
in new processes, since where memory lies makes a difference too, and printed if it always moved.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import bench
import torch
from cases import Case
from tables import progress_bar, short, stdout, table
from timing import Budget, Spread, certain, in_turns, ratios
from workers import Worker, started

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "compare"
LEAST = 0.05  # what moved less is not printed
CONFIRMATIONS = 2


def git(*arguments: str) -> str:
    """What a git command prints."""
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def install(revision: str | None) -> Path:
    """Installs a revision, or the working tree, and returns the folder to import it from."""
    if revision is None:
        return _build(ROOT, FOLDER / "tree")
    commit = git("rev-parse", "--verify", f"{revision}^{{commit}}")
    home = FOLDER / commit[:12]
    if (home / "done").exists():
        return home / "site"
    source = home / "source"
    source.mkdir(parents=True, exist_ok=True)
    archive = home / "source.tar"
    git("archive", f"--output={archive}", commit)  # unlike a worktree it leaves nothing in .git
    shutil.unpack_archive(archive, source)
    archive.unlink()
    site = _build(source, home)
    (home / "done").touch()
    return site


def _build(source: Path, home: Path) -> Path:
    site = home / "site"
    with stdout.status(f"building {home.name}"):
        command = [
            sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps",
            "--upgrade", "--target", str(site), f"--config-settings=build-dir={home / 'build'}",
            str(source),
        ]  # fmt: skip
        subprocess.run(command, check=True)
    return site


@dataclass(frozen=True)
class Change:
    """What became of a case."""

    case: Case
    base: float  # seconds
    head: float
    ratio: Spread  # base over head: above 1 head is faster

    @property
    def moved(self) -> bool:
        """Whether it is more than 5 % and more than the noise."""
        if abs(self.ratio.median - 1) < LEAST:
            return False
        return self.ratio.low > 1 or self.ratio.high < 1

    def agrees(self, other: Change) -> bool:
        """Whether both moved, and the same way."""
        return self.moved and other.moved and (self.ratio.low > 1) == (other.ratio.low > 1)


def compare(pair: list[Worker], case: Case, contender: str, budget: Budget) -> Change | None:
    """Times a case in turns; None where one of the revisions lacks it."""
    calls = [worker.call(case, contender) for worker in pair]
    ready = {name: call for name, call in zip(("base", "head"), calls, strict=True) if call}
    if len(ready) < 2:
        return None
    samples = in_turns(ready, budget)
    base, head = (Spread.of(samples[name]).median for name in ("base", "head"))
    return Change(case, base, head, certain(ratios(samples, "base", "head")))


def measured(
    sites: tuple[Path, Path], chosen: list[Case], options: argparse.Namespace, what: str
) -> dict[Case, Change]:
    """Times the cases in one pair of processes."""
    changes: dict[Case, Change] = {}
    if not chosen:
        return changes
    budget = Budget(options.seconds, least=9)
    with started(options.threads, *sites) as pair, progress_bar() as progress:
        task = progress.add_task(what, total=len(chosen))
        for case in chosen:
            progress.update(task, description=f"{what} {case.name}")
            change = compare(pair, case, options.contender, budget)
            if change is not None:
                changes[case] = change
            progress.advance(task)
    return changes


def print_changes(changes: list[Change], head: str, base: str) -> None:
    """Prints what moved."""
    made = table(
        f"{head} against {base}", "op", "dtype", "n", "pass",
        right=("base us", "head us", "base / head", "95 %"),
    )  # fmt: skip
    for change in changes:
        case, spread = change.case, change.ratio
        colour = "red" if spread.median < 1 else "green"
        made.add_row(
            case.op.name, case.dtype, case.where, short(case.mode),
            f"{change.base * 1e6:.4g}", f"{change.head * 1e6:.4g}",
            f"[{colour}]{spread.median:.2f}[/]", f"{spread.low:.2f} to {spread.high:.2f}",
        )  # fmt: skip
    stdout.print(made)


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("base", help="a revision")
    parser.add_argument("--head", help="another; the working tree if not given")
    parser.add_argument("--fail", action="store_true", help="exit with 1 where head is slower")
    parser.add_argument("--contender", default="fastact", choices=("fastact", "compiled", "numba"))
    bench.add_filters(parser)
    parser.set_defaults(dtypes=("fp32", "bf16"), seconds=1.0)
    return parser.parse_args()


def main() -> None:
    """The command."""
    options = parse()
    sites = (install(options.base), install(options.head))
    head = options.head or "the working tree"
    stdout.print(f"[bold]{head} against {options.base}[/], torch {torch.__version__}")
    first = measured(sites, bench.selected(options), options, "measuring")
    suspects = moved = [change for change in first.values() if change.moved]
    for _ in range(CONFIRMATIONS):
        again = measured(sites, [change.case for change in moved], options, "once more")
        moved = [again[change.case] for change in moved if again[change.case].agrees(change)]
    if moved:
        print_changes(moved, head, options.base)
    slower = sum(change.ratio.median < 1 for change in moved)
    stdout.print(
        f"{len(first)} cases: {len(moved) - slower} faster, {slower} slower;"
        f" {len(suspects) - len(moved)} more seemed to have moved, but not again"
    )
    sys.exit(1 if options.fail and slower else 0)


if __name__ == "__main__":
    main()
