"""The operands of softmax and of the losses: checked, and as the flat arrays that loops take."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ._library import NAMESPACES
from ._losses import _row_sizes
from ._numba import array, run_parts
from ._registry import DTYPES

_NAMESPACE = NAMESPACES["numba"]


def check(op: str, *tensors: Tensor) -> None:
    """What keeps a direct call of an op from reading out of bounds."""
    like = tensors[0]
    if like.dtype not in DTYPES:
        raise NotImplementedError(f"{_NAMESPACE}::{op}: no kernel for {like.dtype}")
    for t in tensors[1:]:
        if t.shape != like.shape or t.dtype != like.dtype:
            raise RuntimeError(
                f"{_NAMESPACE}::{op}: expected all tensors to have one shape and one dtype; got "
                f"{tuple(t.shape)} {t.dtype} and {tuple(like.shape)} {like.dtype}"
            )


def require(condition: bool, op: str, what: str) -> None:
    if not condition:
        raise RuntimeError(f"{_NAMESPACE}::{op}: expected {what}")


class Rows:
    """The rows along a dimension of a tensor, where it lies or in a copy."""

    def __init__(self, x: Tensor, dim: int) -> None:
        self.dim = dim
        if x.numel() and not x.is_contiguous() and not x.movedim(dim, -1).is_contiguous():
            x = x.contiguous()
        self.like = x
        n = x.shape[dim] if x.dim() else 1
        inner = math.prod(x.shape[dim + 1 :]) if x.is_contiguous() else 1
        self.count = math.prod(x.shape) // n if n else math.prod(_row_sizes(x))
        self.shape = (self.count // max(inner, 1), n, inner)

    def of(self, t: Tensor) -> Any:
        """A tensor with its elements where x has them, flat."""
        if self.like.numel() == 0:
            return array(t.new_empty(0))
        x = self.like
        if x.is_contiguous():
            return array(t.contiguous().view(-1))
        return array(t.movedim(self.dim, -1).contiguous().view(-1))

    def run(self, kernel: Any, *args: Any) -> None:
        """Calls the kernel for all rows, in parallel."""
        if self.count == 0:
            return
        run_parts(
            self.count, self.shape[1], lambda begin, end: kernel(*args, self.shape, begin, end)
        )
