"""Measures from which size on fastact is faster than torch, for the cutoffs in _registry.py.

    python benchmarks/cutoffs.py [--threads N]

For each op, without and with a gradient: sizes double from 256 elements on; at each, torch and the
compiled kernels are timed in turns and the medians compared. The cutoff is the size from which on
the kernels win at every larger size. It prints a table to copy from.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import fastact
from fastact._registry import ACTIVATIONS, GATES

SIZES = [2**k for k in range(8, 25)]


def compare(ours: Callable[[], object], theirs: Callable[[], object], seconds: float) -> float:
    """The ratio theirs / ours of the median times, called in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 7:
        for function, record in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            function()
            record.append(time.perf_counter() - start)
    return statistics.median(times[1]) / statistics.median(times[0])


def forward_and_backward(
    function: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...], grad: torch.Tensor
) -> Callable[[], object]:
    return lambda: torch.autograd.grad(function(*inputs), inputs, grad)


def cutoff(
    ours: Callable[..., torch.Tensor],
    theirs: Callable[..., torch.Tensor],
    tensors: int,
    with_gradient: bool,
) -> str:
    wins = []
    for size in SIZES:
        inputs = tuple(torch.randn(size, requires_grad=with_gradient) for _ in range(tensors))
        if with_gradient:
            grad = torch.randn(size)
            pair = [forward_and_backward(f, inputs, grad) for f in (ours, theirs)]
        else:
            pair = [lambda f=f, i=inputs: f(*i) for f in (ours, theirs)]
        wins.append(compare(pair[0], pair[1], 0.06) >= 0.97)
    first = len(SIZES)
    while first > 0 and wins[first - 1]:
        first -= 1
    return str(SIZES[first]) if first < len(SIZES) else f"more than {SIZES[-1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    functions = fastact._autograd.functions("fastact")
    print(f"{'op':16} {'forward':>18} {'with gradient':>18}")
    for name, row in ACTIVATIONS.items():
        made = functions[name]

        def theirs(x: torch.Tensor, row=row) -> torch.Tensor:
            return row.reference(x, *row.defaults)

        def ours(x: torch.Tensor, row=row, made=made) -> torch.Tensor:
            return fastact._dispatch.apply(made, x.requires_grad, x, *row.defaults)

        results = [cutoff(ours, theirs, 1, gradient) for gradient in (False, True)]
        print(f"{name:16} {results[0]:>18} {results[1]:>18}", flush=True)
    for name in GATES:
        row, made = ACTIVATIONS[name], functions[f"{name}_mul"]

        def theirs_gated(a: torch.Tensor, b: torch.Tensor, row=row) -> torch.Tensor:
            return row.reference(a) * b

        def ours_gated(a: torch.Tensor, b: torch.Tensor, made=made) -> torch.Tensor:
            return fastact._dispatch.apply(made, a.requires_grad, a, b)

        results = [cutoff(ours_gated, theirs_gated, 2, gradient) for gradient in (False, True)]
        print(f"{name + '_mul':16} {results[0]:>18} {results[1]:>18}", flush=True)


if __name__ == "__main__":
    main()
