"""Compares fastact with torch on the CPU: prints tables, writes JSON, draws pictures.

    python benchmarks/bench.py [--quick] [--ops gelu silu] [--dtypes fp32] [--sizes 2^20] ...

docs/benchmarks.md says what is measured and how.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import NoReturn

import cases
import pictures
import torch
from bars import BARS
from cases import COPY, Case
from results import Results, Row, measure
from tables import print_header, print_results, progress_bar, stdout
from timing import Budget
from workers import started

SIZES = list(dict.fromkeys(where for op in cases.OPS.values() for where in op.shapes))
# A --quick run takes the rows that have a bar, and those that are all overhead.
QUICK_BUDGET = Budget(seconds=0.3, least=5)


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Options that choose cases."""
    group = parser.add_argument_group("which cases")
    group.add_argument("--families", nargs="+", choices=cases.FAMILIES, default=cases.FAMILIES)
    group.add_argument("--ops", nargs="+", choices=list(cases.OPS), metavar="OP")
    group.add_argument("--sizes", nargs="+", choices=SIZES, metavar="N", help=", ".join(SIZES))
    group.add_argument("--dtypes", nargs="+", choices=list(cases.DTYPES), default=cases.GRID_DTYPES)
    group.add_argument("--modes", nargs="+", choices=cases.MODES, default=cases.MODES)
    group.add_argument("--threads", type=int, default=2)
    group.add_argument("--seconds", type=float, default=0.5, help="a case takes at least")


def selected(options: argparse.Namespace) -> list[Case]:
    """The cases that the options choose."""
    found = cases.select(
        options.families, options.ops, options.dtypes, options.sizes, options.modes
    )
    if getattr(options, "quick", False):
        bars = {(bar.op, bar.where, bar.dtype, cases.BOTH) for bar in BARS}
        ops = {bar.op for bar in BARS}
        return [
            case
            for case in found
            if (case.op.name, case.where, case.dtype, case.mode) in bars
            or (case.op.name in ops and case.where == "16")
        ]
    return found


def contenders(case: Case, options: argparse.Namespace) -> list[str]:
    """Who competes in a case: torch.compile, whose compilation takes seconds, not everywhere."""
    chosen = options.contenders or cases.available()
    if options.quick and not options.contenders:
        against = {bar.against for bar in BARS if (bar.op, bar.where) == (case.op.name, case.where)}
        chosen = ["fastact", *({"torch"} | against)]
    compiles = options.compile == "all" or (options.compile == "some" and case.compiles())
    return [name for name in chosen if name != "torch.compile" or compiles]


def run(options: argparse.Namespace) -> list[Row]:
    """Measures; what was measured before an interruption is kept."""
    budget = QUICK_BUDGET if options.quick else Budget(options.seconds)
    chosen, rows = selected(options), []
    names = [*(options.contenders or cases.available()), COPY] if options.isolate else []
    with started(options.threads, *[None] * len(names)) as processes, progress_bar() as progress:
        workers = dict(zip(names, processes, strict=True))
        task = progress.add_task("", total=len(chosen))
        try:
            for case in chosen:
                progress.update(task, description=case.name)
                rows.append(measure(case, contenders(case, options), budget, workers))
                progress.advance(task)
        except KeyboardInterrupt:
            stdout.print(f"Interrupted after {len(rows)} of {len(chosen)} cases.")
    return rows


class Parser(argparse.ArgumentParser):
    """Whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        """Ends the script."""
        self.exit(2, f"{message[0].upper()}{message[1:]}; see: {self.prog} --help\n")


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(
        prog=os.environ.get("FASTACT_PROG"), description=(__doc__ or "").splitlines()[0]
    )
    add_filters(parser)
    group = parser.add_argument_group("how")
    group.add_argument("--quick", action="store_true", help="only what is required, and n = 16")
    group.add_argument("--contenders", nargs="+", choices=cases.available())
    group.add_argument(
        "--compile",
        choices=("none", "some", "all"),
        default="some",
        help="where torch.compile competes: some is float32, both passes, from 2^20 elements on",
    )
    group.add_argument(
        "--isolate", action="store_true", help="each contender in a process of its own"
    )
    group.add_argument("--out", type=Path, default=Path("build/bench/latest.json"))
    group.add_argument("--show", type=Path, metavar="JSON", help="print and draw an earlier run")
    return parser.parse_args()


def main() -> None:
    """The command."""
    options = parse()
    torch.set_num_threads(options.threads)
    if options.show:
        out, results = options.show, Results.read(options.show)
    else:
        print_header()
        out, results = options.out, Results.now(run(options))
        results.write(out)
    print_results(results)
    stdout.print("\n[bold]Files[/]")
    for path in (out, *pictures.draw(results, out.with_suffix(""))):
        stdout.print(f"  {path}", soft_wrap=True)


if __name__ == "__main__":
    main()
