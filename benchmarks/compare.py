"""Compares two revisions of fastact: builds both, times them in turns, prints what moved.

    python benchmarks/compare.py BASE [--head REV] [--fail] [--ops ...] [--sizes ...]

Each revision is installed into a folder of its own and runs in a process of its own; the processes
take turns, a sample each, so that noise hits both. What seems to have moved is measured twice more
in new processes, since where memory lies makes a difference too, and printed if it always moved.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import bench
import torch
from cases import Case
from tables import progress_bar, short, stdout, table
from timing import Budget, Spread
from worker import Reply, Request

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


class Worker:
    """A process with one of the revisions."""

    def __init__(self, site: Path, threads: int) -> None:
        # -S: without it a .pth file of an editable install puts the working tree first.
        libraries = sysconfig.get_path("purelib")
        self.process = subprocess.Popen(
            [sys.executable, "-S", str(Path(__file__).with_name("worker.py")), str(threads)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), libraries])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        where = Path(str(self.ask({"do": "where"})["value"]))
        if site.resolve() not in where.resolve().parents:
            raise RuntimeError(f"the worker for {site} imported {where}")

    def ask(self, request: Request) -> Reply:
        """Sends a request and waits for the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with status {self.process.wait()}")
        reply: Reply = json.loads(line)
        return reply

    def prepare(self, case: Case, contender: str) -> bool:
        """Makes a case ready; false where the revision has no such op."""
        key = [case.op.name, case.dtype, case.where, case.mode]
        return bool(self.ask({"do": "prepare", "case": key, "contender": contender})["value"])

    def sample(self) -> float:
        """Seconds of one call."""
        return float(self.ask({"do": "sample"})["value"])

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@contextmanager
def workers(*sites: Path, threads: int) -> Iterator[list[Worker]]:
    """A process for each folder."""
    started: list[Worker] = []
    try:
        for site in sites:
            started.append(Worker(site, threads))
        yield started
    finally:
        for worker in started:
            worker.close()


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
    if not all(worker.prepare(case, contender) for worker in pair):
        return None
    samples: tuple[list[float], list[float]] = ([], [])
    order, shuffle = [0, 1], random.Random(0).shuffle
    end = time.perf_counter() + budget.seconds
    for turn in range(budget.most):
        if turn >= budget.least and time.perf_counter() > end:
            break
        shuffle(order)
        for which in order:
            samples[which].append(pair[which].sample())
    ratio = Spread.of([a / b for a, b in zip(*samples, strict=True)])
    return Change(case, Spread.of(samples[0]).median, Spread.of(samples[1]).median, ratio)


def measured(
    sites: tuple[Path, Path], chosen: list[Case], options: argparse.Namespace, what: str
) -> dict[Case, Change]:
    """Times the cases in one pair of processes."""
    changes: dict[Case, Change] = {}
    if not chosen:
        return changes
    budget = Budget(options.seconds, least=9)
    with workers(*sites, threads=options.threads) as pair, progress_bar() as progress:
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
        right=("base us", "head us", "base / head", "quartiles"),
    )  # fmt: skip
    for change in changes:
        case, ratio = change.case, change.ratio
        colour = "red" if ratio.median < 1 else "green"
        made.add_row(
            case.op.name, case.dtype, case.where, short(case.mode),
            f"{change.base * 1e6:.4g}", f"{change.head * 1e6:.4g}",
            f"[{colour}]{ratio.median:.2f}[/]", f"{ratio.low:.2f} to {ratio.high:.2f}",
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
    parser.set_defaults(dtypes=("fp32", "bf16"), seconds=0.3)
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
