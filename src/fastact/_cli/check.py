"""``fastact check``: errors of values and slopes on this machine, beside torch's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import click
import torch
import torch.nn.functional as TF
from rich.progress import track
from torch import Tensor

from .. import functional
from .._backend import STATE, backend
from .._dispatch import unary
from .._registry import ACTIVATIONS, Activation
from . import accuracy, exits
from .accuracy import errors, rounded
from .arguments import no_such_op
from .console import stdout, table
from .explain import HALVES as PACKED
from .explain import PAIRS

Function = Callable[[Tensor], Tensor]
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Line:
    """One row of the table: worst errors, or numbers of wrong results, and what they may be."""

    op: str
    dtype: str
    kind: str  # "value" or "slope"
    unit: str
    ours: float
    theirs: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the bound is kept."""
        return self.ours <= self.bound


def run_both(function: Function, x: Tensor, grad: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Value and gradient."""
    leaf = x.detach().requires_grad_()
    y = function(leaf)
    (dx,) = torch.autograd.grad(y, leaf, torch.ones_like(y) if grad is None else grad.to(y.dtype))
    return y.detach(), dx


def floats(step: int) -> Tensor:
    """Every step-th pattern of float32 that is finite, and the tails densely."""
    bits = torch.arange(-(2**31), 2**31, step, dtype=torch.int64).to(torch.int32)
    x = torch.cat([bits.view(torch.float32), torch.linspace(-110, 30, 20_000)])
    return x[x.isfinite()]


def every(dtype: torch.dtype) -> Tensor:
    """All finite numbers of a 16-bit dtype."""
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    return x[x.isfinite()]


def worst(actual: Tensor, exact: Tensor, scale: Tensor | None = None) -> float:
    """The largest error in ulp where the exact result is known."""
    known = exact.isfinite()
    terms = None if scale is None else scale[known]
    return float(errors(actual[known], exact[known], terms).max())


def misrounded(actual: Tensor, exact: Tensor) -> int:
    """How many results are not the exact ones, rounded."""
    known = exact.isfinite()
    return int((actual[known] != rounded(exact[known], actual.dtype)).sum())


def activation_lines(row: Activation, step: int) -> Iterator[Line]:
    """Every dtype of an activation."""

    def call(x: Tensor) -> Tensor:
        return unary(row, x, *row.defaults)

    def reference(x: Tensor) -> Tensor:
        return row.reference(x, *row.defaults)

    x = floats(step)
    value, slope = accuracy.derivatives(row, x)
    terms = accuracy.slope_terms(row, x, value, slope)
    mine, torchs = run_both(call, x), run_both(reference, x)
    for kind, i, exact, scale, bound in (
        ("value", 0, value, None, accuracy.VALUE),
        ("slope", 1, slope, terms, accuracy.SLOPE),
    ):
        yield Line(
            row.name, "fp32", kind, "ulp",
            worst(mine[i], exact, scale), worst(torchs[i], exact, scale), bound,
        )  # fmt: skip
    for name, dtype in HALVES.items():
        x = every(dtype)
        exacts = accuracy.derivatives(row, x)
        mine, torchs = run_both(call, x), run_both(reference, x)
        for i, kind in enumerate(("value", "slope")):
            if kind == "slope" and row.name in accuracy.FROM_OUTPUT:
                continue  # it follows from the rounded output, as torch's
            wrong = misrounded(mine[i], exacts[i]), misrounded(torchs[i], exacts[i])
            yield Line(row.name, name, kind, "wrong", *wrong, accuracy.MISROUNDED)


GATED = {**PAIRS, **PACKED}  # and the activation that gates


def gated(op: str) -> Function:
    """A gated op as a function of gates and ups, (2, n), so that it has one gradient."""
    options = {"approximate": "tanh"} if op.endswith("_tanh") else {}
    function = getattr(functional, op.removesuffix("_tanh"))

    def call(x: Tensor) -> Tensor:
        if op == "glu":  # whose gate comes second
            x = x.flip(0)
        result: Tensor = function(*(x if op in PAIRS else [x.flatten()]), **options)
        return result

    return call


def gated_lines(op: str, step: int) -> Iterator[Line]:
    """Every dtype of a gated op.

    A product with up to 2 has up to twice the error of its factor, and in 16 bits all of it is
    rounded once: half an ulp, and a little for what float32 does to it before.
    """
    row = ACTIVATIONS[GATED[op]]

    def reference(x: Tensor) -> Tensor:
        return row.reference(x[0], *row.defaults) * x[1]

    generator = torch.Generator().manual_seed(1)
    for name, dtype in {"fp32": torch.float32, **HALVES}.items():
        gate = floats(step) if dtype == torch.float32 else every(dtype)
        up = torch.rand(gate.shape, generator=generator) + 1
        up = torch.where(torch.rand(gate.shape, generator=generator) < 0.5, -up, up).to(dtype)
        value, slope = accuracy.derivatives(row, gate)
        terms = accuracy.slope_terms(row, gate, value, slope)
        product = (value * up).where((value * up).abs() <= torch.finfo(dtype).max, torch.nan)
        exact = product, torch.stack((slope * up, value))
        scales = None, torch.stack((terms * up, value))
        x = torch.stack((gate, up))
        mine, torchs = run_both(gated(op), x), run_both(reference, x)
        single = 2 * accuracy.VALUE + 0.5, 2 * accuracy.SLOPE + 0.5
        bounds = single if dtype == torch.float32 else (0.51, 0.51)
        for i, kind in enumerate(("value", "slope")):
            ours, theirs = (worst(got[i], exact[i], scales[i]) for got in (mine, torchs))
            yield Line(op, name, kind, "ulp", ours, theirs, bounds[i])


@dataclass(frozen=True)
class Loss:
    """One of the losses over a set of logits, as a number for each row or element."""

    ours: Function
    theirs: Function
    grad: Tensor  # of those numbers
    terms: Tensor  # the size of what the gradient by the logits is a difference of


def loss(name: str, x: Tensor) -> Loss:
    """A loss with targets and gradients that are drawn for it."""
    generator = torch.Generator().manual_seed(1)
    z = x.double()
    if name in ("softmax", "log_softmax"):
        grad = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)
        share = torch.softmax(z, 1) if name == "softmax" else torch.ones_like(z)
        terms = (share * grad.double().abs()).amax(1, True).expand_as(z)
        return Loss(
            partial(getattr(functional, name), dim=1),
            partial(getattr(TF, name), dim=1),
            grad,
            terms,
        )
    if name in ("cross_entropy", "nll_loss"):
        target = torch.randint(x.shape[1], x.shape[:1], generator=generator)
        grad, terms = torch.ones_like(x[:, 0]), torch.zeros_like(z)
    else:
        target = torch.rand(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)
        grad, terms = torch.ones_like(x), torch.maximum(torch.sigmoid(z), target.double())

    def call(module: object, logits: Tensor) -> Tensor:
        at = target.to(logits.dtype) if target.is_floating_point() else target
        result: Tensor = getattr(module, name)(logits, at, reduction="none")
        return result

    return Loss(partial(call, functional), partial(call, TF), grad, terms)


LOSSES = ("cross_entropy", "nll_loss", "binary_cross_entropy_with_logits", "log_softmax", "softmax")


def loss_lines(name: str) -> Iterator[Line]:
    """Every dtype of a loss. The bound is 1.5 times torch's error, or 4 and in 16 bits 1 ulp."""
    for label, dtype in {"fp32": torch.float32, **HALVES}.items():
        mine, theirs = [0.0, 0.0], [0.0, 0.0]
        for rows, classes, scale in ((64, 10, 1.0), (32, 1000, 3.0), (4, 32000, 1.0)):
            generator = torch.Generator().manual_seed(0)
            x = torch.randn(rows, classes, generator=generator, dtype=torch.float64) * scale
            x = x.to(dtype)
            case = loss(name, x)
            exact = run_both(case.theirs, x.double(), case.grad)
            for found, function in ((mine, case.ours), (theirs, case.theirs)):
                got = run_both(function, x, case.grad)
                for i, terms in enumerate((None, case.terms)):
                    found[i] = max(found[i], worst(got[i], exact[i], terms))
        least = 4.0 if dtype == torch.float32 else 1.0
        for i, kind in enumerate(("value", "slope")):
            yield Line(name, label, kind, "ulp", mine[i], theirs[i], max(1.5 * theirs[i], least))


def lines_of(op: str, step: int) -> Iterator[Line]:
    """Every dtype of an op."""
    if op in ACTIVATIONS:
        return activation_lines(ACTIVATIONS[op], step)
    return gated_lines(op, step) if op in GATED else loss_lines(op)


def run(ops: tuple[str, ...], step: int, name: str | None) -> int:
    """The command."""
    known = (*ACTIVATIONS, *GATED, *LOSSES)
    for op in ops:
        if op not in known:
            raise no_such_op(op, known)
    try:
        forced = backend(name or STATE.choice.source)
    except RuntimeError as error:
        raise click.BadParameter(str(error), param_hint="--backend") from None
    lines: list[Line] = []
    missing = []
    with forced:
        for op in track(ops or known, "checking", console=stdout, transient=True):
            try:
                lines += lines_of(op, step)
            except NotImplementedError as error:
                missing.append(str(error))
        show(lines, STATE.choice.name)
    for sentence in missing:
        stdout.print(f"Not checked: {sentence}.", markup=False)
    failed = [line for line in lines if not line.holds]
    if failed or not lines:
        first = f", first {failed[0].op} in {failed[0].dtype}" if failed else ""
        stdout.print(
            f"[bold red]{len(failed)} of {len(lines)} bounds are exceeded{first}:[/] report this "
            "output, and set FASTACT_BACKEND=torch until then."
        )
        return exits.FAILED
    stdout.print(f"[bold green]All {len(lines)} bounds are kept.[/]")
    return exits.OK


def show(lines: list[Line], name: str) -> None:
    """Prints the table: a line for each op and dtype."""
    shown = table(
        f"Errors of the backend {name!r}, and of torch", "op", "dtype",
        right=("value", "torch", "bound", "slope", "torch", "bound"),
    )  # fmt: skip
    previous = ""
    keys = dict.fromkeys((line.op, line.dtype) for line in lines)
    for op, dtype in keys:
        cells = []
        for kind in ("value", "slope"):
            found = [ln for ln in lines if (ln.op, ln.dtype, ln.kind) == (op, dtype, kind)]
            for line in found:
                mine = number(line, line.ours)
                cells += [
                    mine if line.holds else f"[bold red]{mine}[/]",
                    f"[dim]{number(line, line.theirs)}[/]",
                    f"[dim]{number(line, line.bound)}[/]",
                ]
            cells += [] if found else ["", "", ""]
        short = op.replace("binary_cross_entropy", "bce")
        shown.add_row(short if op != previous else "", dtype, *cells)
        previous = op
    stdout.print(shown)
    stdout.print(
        "[dim]Against float64, the worst of the inputs. With a point: in units of the last place "
        "(ulp). Without: how many of the 65,536 inputs are not correctly rounded. Slopes of "
        "sigmoid and tanh in 16 bits follow from the rounded output, as torch's do, and are not "
        "counted.[/]"
    )


def number(line: Line, value: float) -> str:
    """A cell."""
    if line.unit == "wrong":
        return f"{value:.0f}"
    return f"{value:.2f}" if value < 100 else f"{value:.0e}"
