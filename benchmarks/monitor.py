"""Times a training step of the digits demo with fastact.monitor and without.

    python benchmarks/monitor.py

The networks are those of examples/digits.py. A period of fifty steps is timed, of which
every=50 records one.
"""

from __future__ import annotations

from contextlib import ExitStack

import torch
from tables import print_header, stdout, table
from timing import Budget, Call, in_turns, ratio
from torch import nn

import fastact

BUDGET = Budget(seconds=8, least=9)
PERIOD = 50


def mlp(*widths: int) -> nn.Module:
    layers: list[nn.Module] = []
    for before, width in zip((64, *widths), widths, strict=False):
        layers += [nn.Linear(before, width), fastact.nn.GELU(approximate="tanh")]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 10))


def conv_net() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 32, 3, padding=1), fastact.nn.SiLU(),
        nn.Conv2d(32, 64, 3, padding=1), fastact.nn.SiLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1024, 10),
    )  # fmt: skip


NETWORKS = {
    "wide MLP (1024-1024), GELU (tanh)": (lambda: mlp(1024, 1024), 512),
    "narrow MLP (256-256-256), GELU (tanh)": (lambda: mlp(256, 256, 256), 512),
    "conv net, SiLU": (conv_net, 256),
}


def steps(model: nn.Module, batch: int) -> Call:
    """A period of training steps."""
    x, y = torch.rand(batch, 64), torch.randint(10, (batch,))
    optimizer, loss = torch.optim.Adam(model.parameters()), fastact.nn.CrossEntropyLoss()

    def run() -> None:
        for _ in range(PERIOD):
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()

    return Call(run)


def main() -> None:
    torch.set_num_threads(2)
    print_header()
    made = table("Time of a step over that without", "network", right=("every=50", "every=1"))
    for name, (build, batch) in NETWORKS.items():
        calls = {}
        with ExitStack() as stack:
            for side, every in (("plain", None), ("every=50", 50), ("every=1", 1)):
                model = build()
                if every is not None:
                    stack.enter_context(fastact.monitor(model, every=every))
                calls[side] = steps(model, batch)
            samples = in_turns(calls, BUDGET)
        spreads = [ratio(samples, side, "plain") for side in ("every=50", "every=1")]
        made.add_row(name, *(f"{s.median:.3f} ± {s.noise * s.median:.3f}" for s in spreads))
    stdout.print(made)


if __name__ == "__main__":
    main()
