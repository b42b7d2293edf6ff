"""``fastact explain``: asks the code that dispatches who would answer a call."""

from __future__ import annotations

from dataclasses import dataclass

import click
import torch
from torch import Tensor

from .. import functional
from .._backend import STATE, BackendInfo, backends
from .._cutoffs import line_of
from .._dispatch import NO_KERNELS, TOO_SMALL, refusal, why_torch
from .._loss_dispatch import loss_why_torch
from .._private import FakeTensorMode
from .._registry import ACTIVATIONS
from . import exits
from .arguments import no_such_op
from .console import stdout
from .machine import lacks

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp64": torch.float64,
}
# The activation that gates, of two tensors and of the halves of one.
PAIRS = {
    "silu_mul": "silu",
    "gelu_mul": "gelu",
    "gelu_mul_tanh": "gelu_tanh",
    "relu_mul": "relu",
}
HALVES = {
    "swiglu": "silu",
    "geglu": "gelu",
    "geglu_tanh": "gelu_tanh",
    "reglu": "relu",
    "glu": "sigmoid",
}
LOSSES = {
    "softmax": "softmax",
    "log_softmax": "log_softmax",
    "nll_loss": "nll_loss",
    "cross_entropy": "cross_entropy",
    "binary_cross_entropy_with_logits": "bce_with_logits",
}
OPS = (*ACTIVATIONS, *PAIRS, *HALVES, *LOSSES)
assert {name.removesuffix("_tanh") for name in OPS} >= set(functional.__all__)


@dataclass(frozen=True)
class Answer:
    """Who answers a call, and why."""

    backend: str
    why: str


def example(dtype: torch.dtype, numel: int, grad: bool, device: str) -> Tensor:
    """A tensor that takes no memory, on a device that need not exist."""
    with FakeTensorMode():
        return torch.empty(numel, dtype=dtype, device=device, requires_grad=grad)


def line(op: str, classes: int) -> str:
    """The line of an op in the table of cutoffs."""
    if op in PAIRS:
        return f"{PAIRS[op]}_mul"
    if op in HALVES:
        return f"{HALVES[op]}_glu"
    return line_of(LOSSES.get(op, op), classes)


def limits(op: str, dtype: torch.dtype, classes: int) -> tuple[int, int]:
    """The cutoffs of an op, in elements of its input; 0 where there are none."""
    plain, grad = STATE.choice.cutoffs[line(op, classes)].of.get(dtype, (0, 0))
    return (2 * plain, 2 * grad) if op in HALVES else (plain, grad)


def answer(op: str, x: Tensor, classes: int) -> Answer:
    """Who would answer a call of an op; raises what the call would."""
    records = x.requires_grad
    least = limits(op, x.dtype, classes)[records]
    if op in LOSSES:
        why = loss_why_torch(LOSSES[op], records, x, classes)
    else:
        numel = x.numel() // 2 if op in HALVES else x.numel()
        why = why_torch(op, line(op, classes), x, numel, records)
    if why == TOO_SMALL and x.numel() == 0:
        return Answer("torch", "there is nothing to compute")
    if why:
        return Answer("torch", because(why, least))
    choice = STATE.choice
    if not choice.auto:
        return Answer(choice.source, "it is forced")
    where = "at every size" if least <= 1 else f"from {least:,} elements on"
    return Answer(choice.source, f"it is measured to be faster {where}")


def because(why: str, limit: int) -> str:
    """A reason with what is behind it."""
    if why == TOO_SMALL:
        never = limit >= 2**40
        return "torch is measured to be " + (
            "as fast at every size" if never else f"as fast below {limit:,} elements"
        )
    if why == NO_KERNELS:
        if STATE.choice.name == "torch":
            return "it is forced"
        return no_kernels(backends())
    return why


def no_kernels(infos: list[BackendInfo]) -> str:
    """That no backend with kernels is available, and why."""
    missing = [f"{info.name}: {info.detail}" for info in infos if not info.available]
    return "; ".join(["no backend with kernels is available", *missing])


def counted(count: int, noun: str) -> str:
    """A count and its noun."""
    return f"{count:,} {noun if count == 1 else noun + ('es' if noun.endswith('s') else 's')}"


def columns(op: str, numel: int, classes: int | None) -> int:
    """The classes of a row: those asked for, or 1000 where there are so many elements."""
    if classes is None:
        return min(1000, max(numel, 1))
    if 0 < numel < classes and in_rows(op):
        raise click.UsageError(
            f"{op} needs at least one row, but --numel {numel} is less than --classes {classes}",
            click.get_current_context(silent=True),
        )
    return classes


def check_halves(op: str, numel: int) -> None:
    """Raises where a tensor of so many elements has no halves."""
    if op in HALVES and numel % 2:
        raise click.UsageError(
            f"{op} halves a dimension, and --numel {numel} is odd",
            click.get_current_context(silent=True),
        )


def in_rows(op: str) -> bool:
    """Whether an op takes rows of classes."""
    return op in LOSSES and op != "binary_cross_entropy_with_logits"


def run(op: str, dtype: str, numel: int, classes: int | None, grad: bool, device: str) -> int:
    """The command."""
    if op not in OPS:
        raise no_such_op(op, OPS)
    classes = columns(op, numel, classes)
    check_halves(op, numel)
    try:
        x = example(DTYPES[dtype], numel, grad, device)
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        raise click.BadParameter(first, param_hint="--device") from None
    what = f"{op} of {counted(numel, 'element')} of {x.dtype} on {x.device}"
    what += f" in rows of {counted(classes, 'class')}" if in_rows(op) else ""
    what += ", with a gradient" if grad else ", without a gradient"
    missing = lacks(x.device)
    note = f" But torch cannot use {x.device} on this machine: {missing}." if missing else ""
    try:
        found = answer(op, x, classes)
    except NotImplementedError:
        # Not its message, which is about the tensor that stands for the user's.
        why = f"the backend {STATE.choice.name!r} is forced, and {refusal(x)}"
        stdout.print(f"Nobody answers {what}: {why}.{note}", markup=False, soft_wrap=True)
        return exits.FAILED
    sentence = f"{found.backend} answers {what}: {found.why}.{note}"
    stdout.print(sentence, markup=False, soft_wrap=True)
    return exits.OK
