"""Times compiled functions and models: torch's ops against fastact's, forward and backward.

    python benchmarks/compile.py [losses] [models] [--threads N] [--seconds S]

Everything is compiled by torch.compile with fullgraph=True, and timed in turns. "auto" is what
fastact does by itself while it is compiled, "compiled" has its kernels forced into the graph.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from itertools import product

import torch
import torch.nn.functional as TF
from tables import duration, print_header, progress_bar, stdout, table
from timing import Budget, Call, Spread, in_turns, ratio
from torch import Tensor, nn

import fastact
from fastact import functional as F

TORCH = "torch"
BACKENDS = ("auto", "compiled")
Step = Callable[[], object]


def compiled(function: Callable[..., Tensor], *tensors: Tensor) -> Step:
    """Runs a compiled function forward and backward."""
    made = torch.compile(function, fullgraph=True)
    leaves = [t for t in tensors if t.requires_grad]

    def step() -> object:
        y = made(*tensors)
        return torch.autograd.grad(y, leaves, torch.ones_like(y))

    return step


# --------------------------------------------------------------------------------------------------
# Losses, on logits that something computes

SHAPES = ((64, 10), (16384, 64), (4096, 256), (256, 1000), (4096, 1000), (2048, 32000))


def _cross_entropy(module: object, x: Tensor, target: Tensor) -> Tensor:
    loss: Tensor = module.cross_entropy(x, target)  # type: ignore[attr-defined]
    return loss


def _softmax(module: object, x: Tensor, _target: Tensor) -> Tensor:
    y: Tensor = module.softmax(x, dim=1)  # type: ignore[attr-defined]
    return y


def _log_softmax(module: object, x: Tensor, _target: Tensor) -> Tensor:
    y: Tensor = module.log_softmax(x, dim=1)  # type: ignore[attr-defined]
    return y


def _nll_loss(module: object, x: Tensor, target: Tensor) -> Tensor:
    loss: Tensor = module.nll_loss(x, target)  # type: ignore[attr-defined]
    return loss


def _bce(module: object, x: Tensor, _target: Tensor) -> Tensor:
    loss: Tensor = module.binary_cross_entropy_with_logits(  # type: ignore[attr-defined]
        x, torch.full_like(x, 0.5)
    )
    return loss


LOSSES = {
    "cross_entropy": _cross_entropy,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "nll_loss": _nll_loss,
    "bce_with_logits": _bce,
}


def loss(name: str, shape: tuple[int, int], dtype: torch.dtype, module: object) -> Step:
    """One loss on logits of a shape."""
    torch.manual_seed(0)
    x = torch.randn(shape).to(dtype).requires_grad_()
    target = torch.randint(shape[1], shape[:1])
    return compiled(partial(LOSSES[name], module), x, target)


# --------------------------------------------------------------------------------------------------
# Models


class Block(nn.Module):
    """What a transformer does besides attention: norm, projections, an activation between them."""

    def __init__(self, module: object, kind: str, width: int) -> None:
        super().__init__()
        self.module, self.kind = module, kind
        hidden = 3 * width
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * hidden if kind == "swiglu" else hidden)
        self.down = nn.Linear(hidden, width)

    def activation(self, x: Tensor) -> Tensor:
        """Of the hidden layer."""
        if self.kind != "swiglu":
            y: Tensor = getattr(self.module, self.kind)(x)
            return y
        gate, up = x.chunk(2, -1)
        if self.module is TF:
            return TF.silu(gate) * up
        return F.silu_mul(gate, up)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.activation(self.up(self.norm(x)) * 1.01))
        return x + y


class LanguageModel(nn.Module):
    """Embedding, blocks, logits and their loss."""

    def __init__(self, module: object, kind: str, vocabulary: int = 16000) -> None:
        super().__init__()
        torch.manual_seed(0)
        width = 128
        self.module = module
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.Sequential(*(Block(module, kind, width) for _ in range(2)))
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        logits = self.head(self.blocks(self.embedding(tokens)))
        return _cross_entropy(self.module, logits.flatten(0, 1), tokens.roll(1).flatten())


def mlp(kind: str, rows: int, module: object) -> Step:
    """A block by itself."""
    torch.manual_seed(0)
    block = Block(module, kind, 256)
    x = torch.randn(rows, 256, requires_grad=True)
    return compiled(block, x)


def language_model(kind: str, rows: int, module: object) -> Step:
    """A step of training, without the optimiser."""
    model = LanguageModel(module, kind)
    made = torch.compile(model, fullgraph=True)
    tokens = torch.randint(16000, (rows // 64, 64))

    def step() -> None:
        model.zero_grad()
        made(tokens).backward()

    return step


# --------------------------------------------------------------------------------------------------


def measure(title: str, cases: dict[str, Callable[[object], Step]], budget: Budget) -> None:
    """Times each case, made of torch's ops and of fastact's, and prints a table."""
    made = table(title, "", right=("torch", *(f"torch / fastact, {b}" for b in BACKENDS)))
    with progress_bar() as progress:
        for label, case in progress.track(cases.items(), description="measuring"):
            torch._dynamo.reset()
            calls = {TORCH: Call(case(TF))}
            for name in BACKENDS:
                calls[name] = Call(case(F), partial(fastact.backend, name))
            samples = in_turns(calls, budget)
            theirs = Spread.of(samples[TORCH]).median
            found = (ratio(samples, TORCH, name) for name in BACKENDS)
            made.add_row(
                label,
                duration(theirs),
                *(f"{r.median:.2f} ({r.low:.2f}-{r.high:.2f})" for r in found),
            )
    stdout.print()
    stdout.print(made)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="losses|models")
    parser.add_argument("--ops", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.5, help="for each row")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print_header()
    budget = Budget(options.seconds, least=7, most=501)
    parts = options.parts or ["losses", "models"]
    if "losses" in parts:
        cases = {
            f"{name} {shape[0]}x{shape[1]} {str(dtype).removeprefix('torch.')}": partial(
                loss, name, shape, dtype
            )
            for name, shape, dtype in product(options.ops, SHAPES, (torch.float32, torch.bfloat16))
        }
        measure("Losses, compiled", cases, budget)
    if "models" in parts:
        cases = {
            f"{label}, {kind}, {rows} rows": partial(function, kind, rows)
            for (label, function), kind, rows in product(
                (("MLP", mlp), ("language model", language_model)),
                ("gelu", "swiglu"),
                (64, 1024),
            )
        }
        measure("Models, compiled", cases, budget)


if __name__ == "__main__":
    main()
