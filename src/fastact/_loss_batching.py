"""vmap of a loss: all rows at once without a reduction, which then follows batch by batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._compositions import MEAN, NONE, compute_dtype
from ._family import as_tuple, leading

Arguments = tuple[Any, ...]


def _one_by_one(op: Any, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
    """The rule that is right for everything."""
    results = []
    if info.batch_size == 0:  # what an element would give tells the shapes
        args = tuple(
            arg if dim is None else arg.new_zeros([*arg.shape[:dim], 1, *arg.shape[dim + 1 :]])
            for arg, dim in zip(args, in_dims, strict=True)
        )
    for i in range(max(info.batch_size, 1)):
        chosen = (
            arg.select(dim, i) if dim is not None else arg
            for arg, dim in zip(args, in_dims, strict=True)
        )
        results.append(as_tuple(op(*chosen)))
    stacked = tuple(torch.stack(t)[: info.batch_size] for t in zip(*results, strict=True))
    return (stacked[0], 0) if len(stacked) == 1 else (stacked, (0,) * len(stacked))


class _Batch:
    """Logits whose batch dimension is merged with that of their rows."""

    def __init__(self, size: int, x: Tensor, dim: int) -> None:
        self.size = size
        self.single = x.dim() == 2  # of each element (C,): the batch is the rows' dimension
        sizes = [*x.shape[:dim], *x.shape[dim + 1 :]]
        self.row_sizes = [] if self.single else [sizes[0], *sizes[2:]]
        self.rows = math.prod(self.row_sizes)  # of each element
        self.x = self.merged(x, dim)

    def merged(self, t: Any, dim: int | None) -> Any:
        """Something like the logits, or with a number for each row."""
        if t is None:
            return None
        t = leading(t, dim, self.size)
        return t if self.single else t.flatten(0, 1)

    def split(self, t: Tensor) -> Tensor:
        return t if self.single else t.unflatten(0, (self.size, self.row_sizes[0]))

    def reduced(self, rows: Tensor, reduction: int, totals: Tensor) -> Tensor:
        """What the op would have returned for each element of the batch."""
        rows = self.split(rows)
        if reduction == NONE:
            return rows
        sums = rows.reshape(self.size, self.rows).sum(1)
        return sums / totals if reduction == MEAN else sums

    def spread(self, grad: Any, dim: int | None, reduction: int, totals: Tensor) -> Any:
        """The gradient of each row's loss, from that of the reduced one."""
        if grad is None or reduction == NONE:
            return self.merged(grad, dim)
        grad = leading(grad, dim, self.size)
        grad = grad / totals if reduction == MEAN else grad
        grad = grad.view(self.size, *(1,) * len(self.row_sizes)).expand(-1, *self.row_sizes)
        return grad if self.single else grad.flatten(0, 1)

    def totals(self, target: Tensor, weight: Any, ignore_index: int, dtype: torch.dtype) -> Tensor:
        """The sum of the weights in each element of the batch."""
        if target.is_floating_point():
            return torch.full((self.size,), self.rows, dtype=dtype, device=target.device)
        used = target != ignore_index
        weights = used.to(dtype)
        if weight is not None:
            weights = weights * weight.to(dtype)[torch.where(used, target, 0)]
        return weights.reshape(self.size, self.rows).sum(1)


# The three rules below are those of ops whose tensors before the constants are, after `grads`
# gradients: x, target, weight, and of a derivative what the forward returned last.


def batched_loss(op: Any, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
    x, target, weight, reduction, ignore_index, *constants = args
    if in_dims[0] is None or in_dims[2] is not None:
        return _one_by_one(op, info, in_dims, *args)
    batch = _Batch(info.batch_size, x, in_dims[0])
    target = batch.merged(target, in_dims[1])
    loss, *others, _ = op(batch.x, target, weight, NONE, ignore_index, *constants)
    totals = batch.totals(target, weight, ignore_index, compute_dtype(x.dtype))
    loss = batch.reduced(loss.to(totals.dtype), reduction, totals).to(loss.dtype)
    if not others:
        return (loss, totals), (0, 0)
    lse, entropy, stats = others
    stats = stats.unflatten(1, (batch.size, batch.rows))
    with_lse, with_entropy = constants[-2:]
    return (
        (loss, batch.split(lse) if with_lse else lse,
         batch.split(entropy) if with_entropy else entropy, stats, totals),
        (0, 0 if with_lse else None, 0 if with_entropy else None, 1, 0),
    )  # fmt: skip


def _derivative_arguments(
    info: Any, in_dims: tuple[int | None, ...], args: Arguments, before: int, grads: int, kept: int
) -> Any:
    """The arguments of a derivative, merged.

    ``before`` tensors like x and the gradients come before x, ``kept`` outputs of the forward op
    after the weight.
    """
    at = before + grads
    x, target, weight = args[at : at + 3]
    batch = _Batch(info.batch_size, x, in_dims[at] or 0)
    end = at + 3 + kept
    totals = leading(args[end - 1], in_dims[end - 1], batch.size)
    reduction, *constants = args[end:]
    merged = [batch.merged(args[i], in_dims[i]) for i in range(before)]
    merged.append(batch.spread(args[before], in_dims[before], reduction, totals))
    merged += [batch.merged(args[i], in_dims[i]) for i in range(before + 1, at)]
    merged += [batch.x, batch.merged(target, in_dims[at + 1]), weight]
    if kept == 2:
        stats, dim = args[at + 3], in_dims[at + 3]
        planes = stats.movedim(dim, 1) if dim is not None else stats.unsqueeze(1)
        merged.append(planes.expand(-1, batch.size, -1).flatten(1, 2))
    merged.append(totals.sum())
    return batch, totals, reduction, (*merged, NONE, *constants)


def batched_derivatives(grads: int, kept: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The rules of backward and double backward of a loss with so many gradients."""

    def cannot(in_dims: tuple[int | None, ...], at: int) -> bool:
        return in_dims[at] is None or in_dims[at + 2] is not None

    def backward(op: Any, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
        if cannot(in_dims, grads):
            return _one_by_one(op, info, in_dims, *args)
        batch, *_, merged = _derivative_arguments(info, in_dims, args, 0, grads, kept)
        return batch.split(op(*merged)), 0

    def double_backward(op: Any, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
        if cannot(in_dims, 1 + grads):
            return _one_by_one(op, info, in_dims, *args)
        batch, totals, reduction, merged = _derivative_arguments(
            info, in_dims, args, 1, grads, kept
        )
        by_loss, *others = as_tuple(op(*merged))
        by_loss = batch.reduced(by_loss.to(totals.dtype), reduction, totals).to(by_loss.dtype)
        if not others:
            return by_loss, 0
        # What was not asked for is empty.
        asked = (*args[-2:], any(g is not None for g in args[1 : 1 + grads]))
        results = tuple(
            batch.split(t) if there else t for t, there in zip(others, asked, strict=True)
        )
        return (by_loss, *results), (0, *(0 if there else None for there in asked))

    return backward, double_backward
