"""Measures from which size on fastact is faster than torch: the cutoffs of "auto".

    python benchmarks/cutoffs.py [--backend numba] [--ops gelu silu] [--threads N]

For each op and dtype, without and with a gradient, sizes halve from 2^24 elements on; at each,
torch and the kernels of a backend are timed in turns. The cutoff is the size from which on the
kernels gain most, each doubling counting alike: where they mostly win, one size at which they do
not changes nothing. Ops over classes have a line for few, some and many of them. Below the table
are the lines for src/fastact/_cutoffs.py.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from cases import BOTH, COPY, FORWARD, GRID_DTYPES, OPS, Case, Op
from tables import print_header, progress_bar, stdout, table
from timing import Budget, in_turns, ratio

from fastact._cli import explain
from fastact._cutoffs import CLASSES, CUTOFFS, NEVER, OVER_CLASSES
from fastact._library import NAMESPACES

SIZES = [2**k for k in range(4, 25)]
HOPELESS = math.log(2)  # what smaller sizes do not make up for
MODES = ((FORWARD, "forward"), (BOTH, "with gradient"))


@dataclass(frozen=True)
class Line:
    """What one line of the table measures."""

    op: Op
    classes: int = 0  # of each row; 0: the op knows none

    @property
    def name(self) -> str:
        """As the table of cutoffs has it."""
        return explain.line(self.op.name, self.classes)

    def shape(self, size: int) -> tuple[int, ...]:
        """The input's, or a gated op's result's, of about so many elements."""
        if self.classes:
            return (max(size // self.classes, 1), self.classes)
        return (1, size) if self.op.family == "gated" else (size,)

    def current(self, backend: str) -> str:
        """The cutoffs in force."""
        known = CUTOFFS[backend][self.name]
        pairs = (known.fp32, known.bf16, known.fp16)
        return ", ".join(f"{power(plain)} {power(grad)}" for plain, grad in pairs)


def lines(names: Sequence[str]) -> list[Line]:
    """The lines of the table."""
    return [
        Line(OPS[name], classes)
        for name in names
        for classes in (CLASSES if name in OVER_CLASSES else (0,))
    ]


def speedup(backend: str, line: Line, dtype: str, mode: str, size: int, budget: Budget) -> float:
    """How much faster the kernels are than torch."""
    op, shape = line.op, line.shape(size)
    case = Case(replace(op, shapes={str(size): shape}), dtype, str(size), mode)
    calls = case.calls([backend, "torch"])
    del calls[COPY]
    return ratio(in_turns(calls, budget, shortest=3e-4), "torch", backend).median


def cutoff(backend: str, line: Line, dtype: str, mode: str, budget: Budget) -> int:
    """The size from which on the kernels gain most; 1: every size."""
    best, chosen, gained = 0.0, 2**NEVER, 0.0
    for size in reversed(SIZES):
        gained += math.log(speedup(backend, line, dtype, mode, size, budget))
        if gained > best:
            best, chosen = gained, size
        elif gained < best - HOPELESS:
            break
    return 1 if chosen == SIZES[0] else chosen


def power(size: int) -> str:
    """A power of two as it is written."""
    return "never" if size == 2**NEVER else f"2^{size.bit_length() - 1}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [name for name, op in OPS.items() if not op.overwrites]
    parser.add_argument("--backend", choices=list(NAMESPACES), default="compiled")
    parser.add_argument("--ops", nargs="+", choices=names, default=names, metavar="OP")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.06, help="for each size")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print_header()

    budget = Budget(options.seconds)
    headings = tuple(f"{heading} {dtype}" for dtype in GRID_DTYPES for _, heading in MODES)
    made = table("From which size on the kernels gain", "op", right=(*headings, "now"))
    written = []
    with progress_bar() as progress:
        task = progress.add_task("", total=len(lines(options.ops)) * len(headings))
        for line in lines(options.ops):
            found: list[int] = []
            for dtype in GRID_DTYPES:
                for mode, _ in MODES:
                    known = dtype in line.op.dtypes
                    progress.update(task, description=f"{line.name} {dtype} {mode}")
                    # What a dtype is not measured in is like bfloat16.
                    found.append(
                        cutoff(options.backend, line, dtype, mode, budget) if known else found[-2]
                    )
                    progress.advance(task)
            made.add_row(line.name, *map(power, found), line.current(options.backend))
            powers = [n.bit_length() - 1 for n in found]
            pairs = ", ".join(f"({a}, {b})" for a, b in zip(powers[::2], powers[1::2], strict=True))
            written.append(f'"{line.name}": ({pairs}),'.replace(str(NEVER), "NEVER"))
    stdout.print(made)
    stdout.print(*written, sep="\n", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    main()
