"""Measures from which size on fastact is faster than torch: the cutoffs of "auto".

    python benchmarks/cutoffs.py [--ops gelu silu] [--dtypes fp32 bf16 fp16] [--threads N]

For each op, without and with a gradient, sizes double from 16 elements on; at each, torch and the
compiled kernels are timed in turns. The cutoff is the size from which on the kernels win at every
larger size. What the row of _registry.py needs is the largest of its line (float16 may have its
own, where that is much larger), and for a gate the largest over the ops that it gates; ops over
classes have cutoffs for few, some and many of them, in _loss_dispatch.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cases
import torch
from cases import BOTH, FORWARD, OPS, Case, Op
from tables import print_header, progress_bar, stdout, table
from timing import Budget, in_turns, ratio

from fastact._loss_dispatch import CUTOFFS
from fastact._registry import ACTIVATIONS, GATES, Cutoffs

SIZES = [2**k for k in range(4, 25)]
CLASSES = (10, 100, 1000)  # up to 64, up to 511, more
WON = 0.97  # of torch's speed: what noise makes of 1
MODES = ((FORWARD, "forward"), (BOTH, "with gradient"))


@dataclass(frozen=True)
class Line:
    """What one line of the table measures."""

    op: Op
    classes: int = 0  # of each row; 0: the op knows none

    @property
    def name(self) -> str:
        """Heads the line."""
        return f"{self.op.name} C={self.classes}" if self.classes else self.op.name

    def shape(self, size: int) -> tuple[int, ...]:
        """The input's, of about so many elements."""
        if self.classes:
            return (max(size // self.classes, 1), self.classes)
        return (1, size) if self.op.family == "gated" else (size,)

    @staticmethod
    def pairs(cutoffs: Cutoffs) -> tuple[int, ...]:
        """Those of float16 last, where it has its own."""
        return (cutoffs.plain, cutoffs.grad, *(cutoffs.half or ()))

    def current(self) -> str:
        """The cutoffs in force, without and with a gradient."""
        name = self.op.name
        if self.op.family == "losses":
            kind = sum(self.classes >= least for least in CLASSES[1:])
            pair: Sequence[int] = CUTOFFS[name.replace("binary_cross_entropy", "bce")][kind]
        elif name in ACTIVATIONS:
            pair = self.pairs(ACTIVATIONS[name].cutoffs)
        else:
            pair = self.pairs(GATES[self.op.gate])
        return " ".join(power(size) for size in pair)


def lines(names: Sequence[str]) -> list[Line]:
    """The lines of the table."""
    found = []
    for name in names:
        op = OPS[name]
        over_classes = op.family == "losses" and len(next(iter(op.shapes.values()))) > 1
        found += [Line(op, c) for c in (CLASSES if over_classes else (0,))]
    return found


def wins(line: Line, dtype: str, mode: str, size: int, budget: Budget) -> bool:
    """Whether the kernels are as fast as torch."""
    op, shape = line.op, line.shape(size)
    case = Case(replace(op, shapes={str(size): shape}), dtype, str(size), mode)
    samples = in_turns(case.calls(["compiled", "torch"]), budget, shortest=3e-4)
    return ratio(samples, "torch", "compiled").median >= WON


def cutoff(line: Line, dtype: str, mode: str, budget: Budget) -> int | None:
    """The smallest size from which on the kernels always win; None if they lose at the largest."""
    smallest, longer = None, replace(budget, seconds=4 * budget.seconds)
    for size in reversed(SIZES):
        # Beside a busy neighbour the first answer may be wrong.
        if not any(wins(line, dtype, mode, size, b) for b in (budget, longer)):
            break
        smallest = size
    return smallest


def power(size: int | None) -> str:
    """A power of two as it is written."""
    return "none" if size is None or size >= 2**60 else f"2^{size.bit_length() - 1}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [name for name, op in OPS.items() if not op.overwrites]
    parser.add_argument("--ops", nargs="+", choices=names, default=names, metavar="OP")
    parser.add_argument(
        "--dtypes", nargs="+", choices=list(cases.DTYPES), default=cases.GRID_DTYPES
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.06, help="for each size")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print_header()

    budget = Budget(options.seconds)
    headings = tuple(f"{heading} {dtype}" for _, heading in MODES for dtype in options.dtypes)
    made = table("From which size on the kernels win", "op", right=(*headings, "now"))
    with progress_bar() as progress:
        task = progress.add_task("", total=len(lines(options.ops)) * len(headings))
        for line in lines(options.ops):
            found = []
            for mode, _ in MODES:
                for dtype in options.dtypes:
                    progress.update(task, description=f"{line.name} {dtype} {mode}")
                    found.append(power(cutoff(line, dtype, mode, budget)))
                    progress.advance(task)
            made.add_row(line.name, *found, line.current())
    stdout.print(made)


if __name__ == "__main__":
    main()
