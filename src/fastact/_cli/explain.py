"""``fastact explain``: asks the code that dispatches who would answer a call."""

from __future__ import annotations

from dataclasses import dataclass

import click
import torch
from torch import Tensor

from .. import functional
from .._backend import STATE, backends
from .._dispatch import NO_KERNELS, TOO_SMALL, why_torch
from .._loss_dispatch import CUTOFFS, cutoffs, loss_why_torch
from .._private import FakeTensorMode
from .._registry import ACTIVATIONS, GATES
from . import exits
from .arguments import no_such_op
from .console import stdout

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
assert set(LOSSES.values()) == set(CUTOFFS)


@dataclass(frozen=True)
class Answer:
    """Who answers a call, and why."""

    backend: str
    why: str


def example(dtype: torch.dtype, numel: int, grad: bool, device: str) -> Tensor:
    """A tensor that takes no memory, on a device that need not exist."""
    with FakeTensorMode():
        return torch.empty(numel, dtype=dtype, device=device, requires_grad=grad)


def limits(op: str, dtype: torch.dtype, classes: int) -> tuple[int, int]:
    """The cutoffs of an op, in elements of its input."""
    if op in LOSSES:
        return cutoffs(LOSSES[op], classes)
    if op in HALVES:
        plain, grad = GATES[HALVES[op]].of(dtype)
        return 2 * plain, 2 * grad
    return (GATES[PAIRS[op]] if op in PAIRS else ACTIVATIONS[op].cutoffs).of(dtype)


def answer(op: str, x: Tensor, classes: int) -> Answer:
    """Who would answer a call of an op; raises what the call would."""
    records, known = x.requires_grad, limits(op, x.dtype, classes)
    if op in LOSSES:
        why = loss_why_torch(LOSSES[op], records, x, classes)
    else:
        why = why_torch(op, x, x.numel(), known, records)
    if why:
        return Answer("torch", because(why, known[records]))
    name = STATE.choice.source
    if not STATE.choice.cutoffs:
        return Answer(name, "it is forced")
    least = known[records]
    where = "at every size" if least <= 1 else f"from {least:,} elements on"
    return Answer(name, f"it is measured to be faster {where}")


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
        missing = [f"{info.name}: {info.detail}" for info in backends() if not info.available]
        return "; ".join(["no backend with kernels is available", *missing])
    return why


def run(op: str, dtype: str, numel: int, classes: int, grad: bool, device: str) -> int:
    """The command."""
    if op not in OPS:
        raise no_such_op(op, OPS)
    try:
        x = example(DTYPES[dtype], numel, grad, device)
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        raise click.BadParameter(first, param_hint="--device") from None
    what = f"{op} of {numel:,} elements of {x.dtype} on {x.device}"
    if op in LOSSES and op != "binary_cross_entropy_with_logits":
        classes = min(classes, max(numel, 1))  # one row at least
        what += f" in rows of {classes:,} classes"
    what += ", with a gradient" if grad else ", without a gradient"
    try:
        found = answer(op, x, classes)
    except NotImplementedError as error:
        stdout.print(f"Nobody answers {what}: {error}.", markup=False, soft_wrap=True)
        return exits.FAILED
    stdout.print(f"{found.backend} answers {what}: {found.why}.", markup=False, soft_wrap=True)
    return exits.OK
