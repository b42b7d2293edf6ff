"""Times one call on one element, by every way to a kernel, in nanoseconds.

    python benchmarks/overhead.py [--ops silu gelu] [--threads N] [--seconds S]

Every way is timed in turns with the others. "no gradient" records nothing, "recording" records a
graph, "and backward" also runs it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from cases import OPS, normal
from tables import print_header, progress_bar, stdout, table
from timing import Budget, Call, Spread, in_turns, written_out
from torch import Tensor

import fastact
from fastact._private import below_autograd
from fastact._registry import ACTIVATIONS

NOTHING = "an empty call"
TORCH = "torch"
DEFAULT = ("silu", "gelu_tanh", "leaky_relu", "silu_mul")


def ways(name: str) -> dict[str, tuple[Callable[..., Tensor], tuple[float, ...], str]]:
    """Each way's function, what it takes beside the tensors, and the backend to force."""
    op = OPS[name]
    activation, gates, _ = name.partition("_mul")
    row = ACTIVATIONS[activation]
    symbol = row.symbol + ("Mul" if gates else "")
    registered = getattr(torch.ops.fastact, name).default
    constants = () if gates else row.defaults

    def below(*args: object) -> Tensor:
        with below_autograd():
            y: Tensor = registered(*args)
            return y

    return {
        TORCH: (op.theirs, (), "auto"),
        "fastact.functional, auto": (op.ours, (), "auto"),
        "fastact.functional, compiled": (op.ours, (), "compiled"),
        f"fastact.autograd.{symbol}.apply": (
            getattr(fastact.autograd, symbol).apply, constants, "auto",
        ),
        f"torch.ops.fastact.{name}": (registered, constants, "auto"),
        "the op below autograd": (below, constants, "auto"),
    }  # fmt: skip


def calls(name: str, mode: str) -> dict[str, Call]:
    """What to time in one column."""
    tensors = OPS[name].inputs((1,), torch.float32)
    grad = normal((1,), torch.float32, 3)
    if mode != "no gradient":
        tensors = tuple(t.requires_grad_() for t in tensors)
    made = {NOTHING: Call(written_out(tuple))}
    for label, (function, constants, backend) in ways(name).items():
        if label.endswith("below autograd") and mode != "no gradient":
            continue  # it records nothing
        forward = written_out(function, *tensors, *constants)
        run: Callable[[], object] = forward
        if mode == "and backward":
            run = partial(_backward, forward, tensors, grad)
        made[label] = Call(run, partial(fastact.backend, backend))
    return made


def _backward(forward: Callable[[], Tensor], leaves: tuple[Tensor, ...], grad: Tensor) -> object:
    return torch.autograd.grad(forward(), leaves, grad)


MODES = ("no gradient", "recording", "and backward")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    choices = [n for n in OPS if n in ACTIVATIONS or n.endswith("_mul")]
    parser.add_argument("--ops", nargs="+", choices=choices, default=DEFAULT, metavar="OP")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.5, help="for each op and column")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print_header()

    budget = Budget(options.seconds, least=21, most=1001)
    found: dict[tuple[str, str], dict[str, Spread]] = {}
    with progress_bar() as progress:
        cells = [(name, mode) for name in options.ops for mode in MODES]
        for name, mode in progress.track(cells, description="measuring"):
            samples = in_turns(calls(name, mode), budget)
            found[name, mode] = {label: Spread.of(times) for label, times in samples.items()}
    for name in options.ops:
        columns = [found[name, mode] for mode in MODES]
        made = table(
            f"{name}, one element: ns a call, and more than torch",
            "by",
            right=tuple(heading for mode in MODES for heading in (mode, "")),
        )
        for label in columns[0]:
            values = []
            for column in columns:
                spread = column.get(label)
                values.append(f"{spread.median * 1e9:.0f}" if spread else "")
                more = (spread.median - column[TORCH].median) * 1e9 if spread else 0.0
                values.append(f"{more:+.0f}" if spread and label not in (TORCH, NOTHING) else "")
            made.add_row(label, *values)
        stdout.print()
        stdout.print(made)


if __name__ == "__main__":
    main()
