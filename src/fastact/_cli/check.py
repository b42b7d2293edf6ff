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
from .._backend import STATE, backend, backends
from .._dispatch import unary
from .._registry import ACTIVATIONS, Activation
from . import accuracy, exits
from .accuracy import errors, rounded
from .arguments import no_such_op
from .console import stdout, table
from .explain import HALVES as PACKED
from .explain import PAIRS, no_kernels

Function = Callable[[Tensor], Tensor]
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
BLOCK = 2**20  # float32 numbers that are looked at together


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


def floats(step: int) -> Iterator[Tensor]:
    """Every step-th pattern of float32 that is finite, block by block, and the tails densely."""
    yield torch.linspace(-110, 30, 20_000)
    for begin in range(-(2**31), 2**31, BLOCK * step):
        bits = torch.arange(begin, min(begin + BLOCK * step, 2**31), step).to(torch.int32)
        x = bits.view(torch.float32)
        if len(x := x[x.isfinite()]):
            yield x


def every(dtype: torch.dtype) -> Tensor:
    """All finite numbers of a 16-bit dtype."""
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    return x[x.isfinite()]


def worst(actual: Tensor, exact: Tensor, scale: Tensor | None = None) -> float:
    """The largest error in ulp where the exact result is known."""
    known = exact.isfinite()
    terms = None if scale is None else scale[known]
    found = errors(actual[known], exact[known], terms)
    return float(found.max()) if len(found) else 0.0


def note(
    found: list[float], got: tuple[Tensor, ...], exacts: tuple[Tensor, ...], terms: Tensor
) -> None:
    """Keeps the larger errors of value and slope; the slope's are of the size of its terms."""
    for i, scale in enumerate((None, terms)):
        found[i] = max(found[i], worst(got[i], exacts[i], scale))


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

    mine, theirs = [0.0, 0.0], [0.0, 0.0]
    for x in floats(step):
        exacts = accuracy.derivatives(row, x)
        terms = accuracy.slope_terms(row, x, *exacts)
        note(mine, run_both(call, x), exacts, terms)
        note(theirs, run_both(reference, x), exacts, terms)
    yield Line(row.name, "fp32", "value", "ulp", mine[0], theirs[0], accuracy.VALUE)
    yield Line(row.name, "fp32", "slope", "ulp", mine[1], theirs[1], accuracy.SLOPE)
    for name, dtype in HALVES.items():
        x = every(dtype)
        exacts = accuracy.derivatives(row, x)
        got, torchs = run_both(call, x), run_both(reference, x)
        for i, kind in enumerate(("value", "slope")):
            if kind == "slope" and row.name in accuracy.FROM_OUTPUT:
                continue  # it follows from the rounded output, as torch's
            wrong = misrounded(got[i], exacts[i]), misrounded(torchs[i], exacts[i])
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
        mine, theirs = [0.0, 0.0], [0.0, 0.0]
        for gate in floats(step) if dtype == torch.float32 else [every(dtype)]:
            up = torch.rand(gate.shape, generator=generator) + 1
            up = torch.where(torch.rand(gate.shape, generator=generator) < 0.5, -up, up).to(dtype)
            value, slope = accuracy.derivatives(row, gate)
            terms = accuracy.slope_terms(row, gate, value, slope)
            product = (value * up).where((value * up).abs() <= torch.finfo(dtype).max, torch.nan)
            exacts = product, torch.stack((slope * up, value))
            terms, x = torch.stack((terms * up, value)), torch.stack((gate, up))
            note(mine, run_both(gated(op), x), exacts, terms)
            note(theirs, run_both(reference, x), exacts, terms)
        single = 2 * accuracy.VALUE + 0.5, 2 * accuracy.SLOPE + 0.5
        bounds = single if dtype == torch.float32 else (0.51, 0.51)
        for i, kind in enumerate(("value", "slope")):
            yield Line(op, name, kind, "ulp", mine[i], theirs[i], bounds[i])


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
            note(mine, run_both(case.ours, x, case.grad), exact, case.terms)
            note(theirs, run_both(case.theirs, x, case.grad), exact, case.terms)
        least = 4.0 if dtype == torch.float32 else 1.0
        for i, kind in enumerate(("value", "slope")):
            yield Line(name, label, kind, "ulp", mine[i], theirs[i], max(1.5 * theirs[i], least))


def lines_of(op: str, step: int) -> Iterator[Line]:
    """Every dtype of an op."""
    if op in ACTIVATIONS:
        return activation_lines(ACTIVATIONS[op], step)
    return gated_lines(op, step) if op in GATED else loss_lines(op)


def best() -> str:
    """The backend with kernels that is in use, or the best there is."""
    if STATE.choice.source != "torch":
        return STATE.choice.source
    infos = backends()
    for info in infos:
        if info.available and info.name != "torch":
            return info.name
    raise RuntimeError(no_kernels(infos))


def run(ops: tuple[str, ...], step: int, name: str | None) -> int:
    """The command."""
    known = (*ACTIVATIONS, *GATED, *LOSSES)
    for op in ops:
        if op not in known:
            raise no_such_op(op, known)
    try:
        forced = backend(name or best())
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
