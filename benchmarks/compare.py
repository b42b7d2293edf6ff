"""Compares fastact with torch on the CPU, in turns within one process, and prints a table.

    python benchmarks/compare.py [--threads N] [--seconds S] [--ops NAME ...]

Each figure is the median time per element of the forward pass, and of forward and backward
together; the ratio is torch's over fastact's, above 1 fastact is faster. ``copy`` is a copy into
memory that is already mapped: what no activation can beat.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import fastact
from fastact._registry import ACTIVATIONS

F = fastact.functional
SIZES = (2**12, 2**20, 2**24)
DTYPES = (torch.float32, torch.bfloat16)
DEFAULT = ("gelu_tanh", "gelu", "silu", "mish", "tanh", "relu", "silu_mul")


def functions(name: str) -> tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor], int]:
    """Ours, torch's, and how many tensors they take."""
    if name.endswith("_mul"):
        reference = ACTIVATIONS[name.removesuffix("_mul")].reference
        return getattr(F, name), lambda gate, up: reference(gate) * up, 2
    row = ACTIVATIONS[name]
    if name == "gelu_tanh":
        return lambda x: F.gelu(x, approximate="tanh"), row.reference, 1
    return getattr(F, name), row.reference, 1


def in_turns(calls: list[Callable[[], object]], seconds: float) -> list[float]:
    """The median time of each call."""
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for call, record in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            record.append(time.perf_counter() - start)
    return [statistics.median(record) for record in times]


def measure(name: str, dtype: torch.dtype, size: int, seconds: float) -> list[float]:
    """Nanoseconds per element: torch and ours forward, torch and ours with backward, a copy."""
    ours, theirs, count = functions(name)
    tensors = [torch.randn(size, dtype=dtype) for _ in range(count)]
    leaves = [t.clone().requires_grad_() for t in tensors]
    grad, target = torch.randn(size, dtype=dtype), torch.randn(size, dtype=dtype)

    def both(function: Callable[..., torch.Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(function(*leaves), leaves, grad)

    calls = [
        lambda: theirs(*tensors),
        lambda: ours(*tensors),
        both(theirs),
        both(ours),
        lambda: target.copy_(grad),
    ]
    return [t / size * 1e9 for t in in_turns(calls, seconds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each row")
    parser.add_argument("--ops", nargs="+", default=DEFAULT, choices=[*ACTIVATIONS, "silu_mul"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    table = Table(title=f"ns per element, {options.threads} threads, torch {torch.__version__}")
    for column in ("op", "dtype", "n"):
        table.add_column(column)
    for column in ("copy", "torch", "fastact", "ratio", "torch f+b", "fastact f+b", "ratio"):
        table.add_column(column, justify="right")
    rows = [(op, dtype, n) for op in options.ops for dtype in DTYPES for n in SIZES]
    with Progress(transient=True) as progress:
        for op, dtype, n in progress.track(rows, description="measuring"):
            theirs, ours, theirs_both, ours_both, copy = measure(op, dtype, n, options.seconds)
            table.add_row(
                op,
                str(dtype).removeprefix("torch."),
                f"2^{n.bit_length() - 1}",
                f"{copy:.3f}",
                f"{theirs:.3f}",
                f"{ours:.3f}",
                f"{theirs / ours:.2f}",
                f"{theirs_both:.3f}",
                f"{ours_both:.3f}",
                f"{theirs_both / ours_both:.2f}",
            )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
