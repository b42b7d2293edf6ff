"""What is measured on a GPU: the ops of cases.py at sizes that fill one, and who competes."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import cases
import torch
import torch.nn.functional as TF
from cases import DTYPES, FORWARD, OPS, Case, Op
from torch import Tensor

import fastact
from fastact import functional as F

# Ours are the compiled kernels, forced; and once more without keeping rows in shared memory.
OURS, TORCH, COMPILE, LIGER = "fastact", "torch", "torch.compile", "liger"
NOT_KEPT = "fastact, rows not kept"
COMPETITORS = (OURS, TORCH, COMPILE, LIGER, NOT_KEPT)

_SIZES = {f"2^{k}": 2**k for k in (20, 24, 26, 28)}
SHAPES = {
    cases.FAMILIES[0]: {"4096": (4096,), **{name: (n,) for name, n in _SIZES.items()}},
    cases.FAMILIES[1]: {
        "4096": (1, 4096),
        **{name: (round(n / 11008), 11008) for name, n in _SIZES.items() if n < 2**28},
    },
}
TARGET_LOGITS = "8192x128256"
# Classes that lie apart: images, feature maps, and logits of a few tokens.
_APART = {"8x21x512x512": (8, 21, 512, 512), "32x1000x7x7": (32, 1000, 7, 7),
          "8x50257x2": (8, 50257, 2)}  # fmt: skip
_LOGITS = ((8192, 32000), (8192, 50257), (4096, 1000), (65536, 10))
# From here on a copy is to be matched (bytes of a tensor).
LARGE = 64 * 2**20
# Measured first, and more often with torch.compile, whose compilation takes seconds.
FIRST = ("cross_entropy", "gelu", "gelu_tanh", "silu", "silu_mul", "swiglu", "softmax")


def _smoothed(x: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    return TF.cross_entropy(x, target, label_smoothing=0.1, reduction=reduction)


def _options(x: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    z = 30 * torch.tanh(x / 30)
    rows = TF.cross_entropy(z, target, reduction="none") + 1e-4 * z.logsumexp(1).square()
    return rows.mean() if reduction == "mean" else rows.sum()


def _images(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    count = math.prod(shape) // shape[1]
    (target,) = cases.OPS["nll_loss"].inputs((count, shape[1]), dtype)[1:]
    return cases.normal(shape, dtype), target.view(shape[0], *shape[2:])


def _ops() -> Iterator[Op]:
    wide = {"8192x128256": (8192, 128256)}
    logits = {f"{n}x{c}": (n, c) for n, c in _LOGITS}
    for op in OPS.values():
        shapes = SHAPES.get(op.family)
        if op.name == "cross_entropy":
            plain = replace(op, shapes=wide | logits, dtypes=cases.GRID_DTYPES)
            yield plain
            some = replace(plain, shapes={k: logits[k] for k in ("8192x50257", "65536x10")})
            apart = replace(plain, shapes=_APART, inputs=_images)
            yield replace(apart, name="cross_entropy, images")
            yield replace(some, name="cross_entropy, smoothed", theirs=_smoothed,
                          keywords={"label_smoothing": 0.1})  # fmt: skip
            yield replace(some, name="cross_entropy, softcap, z_loss", theirs=_options,
                          keywords={"softcap": 30.0, "z_loss": 1e-4})  # fmt: skip
        elif op.name in ("cross_entropy_inplace", "cross_entropy_expected"):
            yield replace(op, shapes=wide | {"8192x32000": (8192, 32000)})
        elif op.function == "binary_cross_entropy_with_logits":
            some = {name: (n,) for name, n in _SIZES.items() if n <= 2**26}
            yield replace(op, shapes=some, dtypes=cases.GRID_DTYPES)
        elif shapes is None:
            yield replace(op, shapes=logits, dtypes=cases.GRID_DTYPES)
            if op.name in ("softmax", "log_softmax"):
                yield replace(op, name=f"{op.name}, dim 1", shapes=_APART, keywords={"dim": 1},
                              theirs=partial(getattr(TF, op.name), dim=1))  # fmt: skip
        else:
            yield replace(op, shapes=shapes)


def all_cases() -> list[Case]:
    """Every case: what has a target first, then what is large, so that a limit costs the least."""
    found = [
        Case(op, dtype, where, mode)
        for op in _ops()
        for dtype in op.dtypes
        if dtype in cases.GRID_DTYPES
        for where in op.shapes
        if where != TARGET_LOGITS or dtype == "bf16"
        for mode in op.modes
    ]

    def order(case: Case) -> tuple[bool, bool, bool, int]:
        is_first = case.op.name in FIRST and case.dtype == "bf16"
        return case.where != TARGET_LOGITS, not is_first, case.elements < 2**24, case.elements

    return sorted(found, key=order)


def compiles(case: Case) -> bool:
    """Whether torch.compile competes: in bfloat16, every op at its largest size, some at two."""
    sizes = sorted(case.op.shapes.values(), key=math.prod)
    if case.dtype != "bf16" or case.op.overwrites:
        return False
    if case.op.name in FIRST:
        return case.shape in sizes[-2:]
    return case.shape == sizes[-1] and case.mode == case.op.modes[-1]


def keeps_rows(case: Case) -> bool:
    """Whether kernels go over a row twice that is long enough to be kept (csrc/cuda/plan.h)."""
    twice = case.op.name in (
        "softmax", "log_softmax", "cross_entropy, smoothed", "cross_entropy_expected"
    )  # fmt: skip
    return twice and case.shape[-1] * DTYPES[case.dtype].itemsize >= 8192


@contextmanager
def _rows_not_kept() -> Iterator[None]:
    path = os.environ.get("FASTACT_LIBRARY") or fastact._library.find("libfastact_cuda")
    keep_rows = ctypes.CDLL(str(path)).fastact_cuda_keep_rows
    keep_rows(ctypes.c_bool(False))
    try:
        yield
    finally:
        keep_rows(ctypes.c_bool(True))


@cache
def _liger() -> dict[str, Callable[..., Any]]:
    """Liger-Kernel's functions by our op, where it is installed."""
    try:
        from liger_kernel.ops.geglu import LigerGELUMulFunction
        from liger_kernel.ops.softmax import LigerSoftmaxFunction
        from liger_kernel.ops.swiglu import LigerSiLUMulFunction
        from liger_kernel.transformers.functional import liger_cross_entropy
    except ImportError:
        return {}
    return {
        # Computes the gradient in its forward pass, over the logits.
        "cross_entropy_inplace": liger_cross_entropy,
        "silu_mul": LigerSiLUMulFunction.apply,
        "gelu_mul_tanh": LigerGELUMulFunction.apply,
        "softmax": LigerSoftmaxFunction.apply,
    }


def competitors(case: Case) -> list[str]:
    """Who takes part in a case, ours first."""
    takes_part = {
        COMPILE: compiles(case),
        LIGER: case.op.name in _liger(),
        NOT_KEPT: keeps_rows(case),
    }
    return [name for name in COMPETITORS if takes_part.get(name, True)]


@dataclass(frozen=True)
class Operands:
    """One set of inputs, and the gradient that comes in."""

    tensors: tuple[Tensor, ...]
    grad: Tensor | None

    @classmethod
    def of(cls, case: Case) -> Operands:
        """On the default device."""
        dtype = DTYPES[case.dtype]
        grad = None if case.op.scalar else cases.normal(case.shape, dtype, 3)
        return cls(case.op.inputs(case.shape, dtype), grad)

    @property
    def bytes(self) -> int:
        """Of memory."""
        grad = 0 if self.grad is None else self.grad.nbytes
        return grad + sum(t.nbytes for t in self.tensors)


def function_of(case: Case, competitor: str) -> Callable[..., Tensor]:
    """What a competitor calls."""
    if competitor in (OURS, NOT_KEPT):
        return case.op.ours
    if competitor == LIGER:
        return _liger()[case.op.name]
    if competitor == COMPILE:
        torch.compiler.reset()
        return torch.compile(case.op.theirs, dynamic=False)
    return case.op.theirs


def run_of(case: Case, competitor: str, sets: list[Operands]) -> list[Callable[[], object]]:
    """A call for each set of operands."""
    function = function_of(case, competitor)
    return [_call(case, function, operands) for operands in sets]


def _call(case: Case, function: Callable[..., Tensor], given: Operands) -> Callable[[], object]:
    if case.mode == FORWARD:
        return partial(function, *given.tensors)
    count = case.op.differentiated
    leaves = [t.detach().requires_grad_() for t in given.tensors[:count]]
    if case.op.overwrites:
        # A leaf may not be overwritten. After the first call these are the gradients of gradients,
        # which cost the same.
        leaves[0] = leaves[0].view_as(leaves[0]) * 1
    rest = given.tensors[count:]
    return lambda: torch.autograd.grad(function(*leaves, *rest), leaves, given.grad)


def backend_of(competitor: str) -> Any:
    """What has to be in force around a competitor's calls."""
    stack = ExitStack()
    if competitor in (OURS, NOT_KEPT):
        stack.enter_context(fastact.backend("compiled"))
    if competitor == NOT_KEPT:
        stack.enter_context(_rows_not_kept())
    return stack


# --------------------------------------------------------------------------------------------------
# Whether the results are right

# Of the norm of what is exact: in 16 bits one number, correctly rounded, is off by up to 1 / 1.1 of
# this, and many by a third.
_TOLERANCE = {"fp32": 2e-6, "bf16": 1.1 * 2.0**-8, "fp16": 1.1 * 2.0**-11}
_PART = 2**24  # elements that are compared at a time


def wrong(case: Case) -> str:
    """What is wrong with the value or a gradient, against float64; empty where nothing is."""
    given = Operands.of(case)
    count, rows = case.op.differentiated, case.shape[0]
    leaves = [t.detach().requires_grad_() for t in given.tensors[:count]]
    # A leaf may not be overwritten.
    inputs = [t * 1 for t in leaves] if case.op.overwrites else leaves
    with fastact.backend("compiled"):
        y = getattr(F, case.op.function)(*inputs, *given.tensors[count:], **case.op.keywords)
        grads = torch.autograd.grad(y, leaves, given.grad)
    # What is compared is part by part; a loss is a mean over all of them.
    number = case.elements if case.op.scalar else 1
    if case.op.indexed:
        number //= case.shape[1]
    size = max(1, rows * _PART // max(1, case.elements))
    sums = [[0.0, 0.0] for _ in range(1 + count)]  # squares: of errors, of what is exact
    loss = 0.0
    for begin in range(0, rows, size):
        part = slice(begin, begin + size)
        wide = [t[part].double() if t.is_floating_point() else t[part] for t in given.tensors]
        inputs = [t.requires_grad_() for t in wide[:count]]
        if case.op.scalar:
            exact = case.op.theirs(*inputs, *wide[count:], reduction="sum") / number
            loss += exact.detach().item()
            outputs = []
        else:
            exact = case.op.theirs(*inputs, *wide[count:])
            outputs = [(y[part], exact)]
        grad = None if given.grad is None else given.grad[part].double()
        exact_grads = torch.autograd.grad(exact, inputs, grad)
        outputs += zip((g[part] for g in grads), exact_grads, strict=True)
        for total, (got, want) in zip(sums[-len(outputs) :], outputs, strict=True):
            got, want = got.detach().double(), want.detach()
            total[0] += float((got - want).square().sum())
            total[1] += float(want.square().sum())
    if case.op.scalar:
        sums[0] = [(float(y.detach()) - loss) ** 2, loss**2]
    # What rounds to a subnormal is off by up to half of the smallest.
    tiny = torch.finfo(DTYPES[case.dtype]).smallest_normal * torch.finfo(DTYPES[case.dtype]).eps
    for name, (error, square) in zip(("value", "gradient", "gradient by up"), sums, strict=False):
        bound = _TOLERANCE[case.dtype] * math.sqrt(square) + tiny * math.sqrt(case.elements)
        if not math.sqrt(error) <= bound:
            return f"{name} off by {math.sqrt(error / max(square, 1e-300)):.2g} of its norm"
    return ""
