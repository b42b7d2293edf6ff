"""Measures from which size on fastact is faster than torch, for the cutoffs in _registry.py.

    python benchmarks/cutoffs.py [--ops gelu silu] [--dtypes fp32 bf16 fp16] [--threads N]

For each op, without and with a gradient, sizes double from 16 elements on; at each, torch and the
compiled kernels are timed in turns. The cutoff is the size from which on the kernels win at every
larger size. What the row of the registry needs is the largest of its line, and for a gate the
largest over the ops that it gates.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import cases
import torch
from cases import BOTH, FORWARD, OPS, Case, Op
from tables import print_header, progress_bar, stdout, table
from timing import Budget, in_turns, ratio

from fastact._registry import ACTIVATIONS, GATES

SIZES = [2**k for k in range(4, 25)]
WON = 0.97  # of torch's speed: what noise makes of 1
MODES = ((FORWARD, "forward"), (BOTH, "with gradient"))


def wins(op: Op, dtype: str, mode: str, size: int, budget: Budget) -> bool:
    """Whether the kernels are as fast as torch."""
    shape = (size,) if op.family == "activations" else (1, size)
    case = Case(replace(op, shapes={str(size): shape}), dtype, str(size), mode)
    samples = in_turns(case.calls(["compiled", "torch"]), budget, shortest=3e-4)
    return ratio(samples, "torch", "compiled").median >= WON


def cutoff(op: Op, dtype: str, mode: str, budget: Budget) -> int | None:
    """The smallest size from which on the kernels always win; None if they lose at the largest."""
    smallest, longer = None, replace(budget, seconds=4 * budget.seconds)
    for size in reversed(SIZES):
        # Beside a busy neighbour the first answer may be wrong.
        if not any(wins(op, dtype, mode, size, b) for b in (budget, longer)):
            break
        smallest = size
    return smallest


def current(op: Op) -> str:
    """The cutoffs that the registry has, without and with a gradient."""
    if op.name in ACTIVATIONS:
        row = ACTIVATIONS[op.name]
        pair: Sequence[int] = (row.cutoff, row.cutoff_grad)
    else:
        pair = GATES[op.gate]
    return " ".join(power(size) for size in pair)


def power(size: int | None) -> str:
    """A power of two as it is written."""
    return "none" if size is None else f"2^{size.bit_length() - 1}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [name for name, op in OPS.items() if op.family != "losses"]
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
    made = table("From which size on the kernels win", "op", right=(*headings, "registry"))
    with progress_bar() as progress:
        task = progress.add_task("", total=len(options.ops) * len(headings))
        for name in options.ops:
            line = []
            for mode, _ in MODES:
                for dtype in options.dtypes:
                    progress.update(task, description=f"{name} {dtype} {mode}")
                    line.append(power(cutoff(OPS[name], dtype, mode, budget)))
                    progress.advance(task)
            made.add_row(name, *line, current(OPS[name]))
    stdout.print(made)


if __name__ == "__main__":
    main()
