"""The families of softmax and of the losses.

::

    softmax(x, dim) -> y                    log_softmax alike
    nll_loss(x, target, weight, ...) -> (loss, total)
    cross_entropy(x, target, weight, ...) -> (loss, lse, entropy, stats, total)
    bce_with_logits(x, target, weight, pos_weight, reduction) -> loss

``target`` holds class indices, or probabilities like x. ``total`` is the sum of the weights, by
which ``mean`` divides; ``stats`` is what cross_entropy_backward needs of each row; ``lse`` and
``entropy`` are empty unless asked for. ``reduction`` is torch's number: 0 none, 1 mean, 2 sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from . import _compositions
from ._compositions import class_dim, compute_dtype
from ._family import Family, as_tuple, elementwise_batching, leading
from ._pointwise import empty_like

NONE, MEAN, SUM = range(3)

Arguments = tuple[Any, ...]


def _row_sizes(x: Tensor) -> list[Any]:
    return [size for dim, size in enumerate(x.shape) if dim != class_dim(x)]


def _contiguous_like(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _logits_like(x: Tensor) -> Tensor:
    """With the strides that the kernels give a gradient: the logits', if those are dense rows."""
    if not x.is_contiguous() and x.movedim(class_dim(x), -1).is_contiguous():
        return torch.empty_like(x)
    return _contiguous_like(x)


# --------------------------------------------------------------------------------------------------
# Softmax


def _softmax(name: str, symbol: str, composition: Callable[..., Any], symmetric: bool) -> Family:
    def double_backward(_v: Tensor, _grad: Tensor, y: Tensor, _dim: int) -> tuple[Tensor, Tensor]:
        return _contiguous_like(y), _contiguous_like(y)

    return Family(
        name=name,
        symbol=symbol,
        schemas=(
            "(Tensor x, int dim) -> Tensor",
            "(Tensor grad, Tensor y, int dim) -> Tensor",
            "(Tensor v, Tensor grad, Tensor y, int dim) -> (Tensor, Tensor)",
        ),
        fakes=(
            lambda x, _dim: _contiguous_like(x),
            lambda _grad, y, _dim: _contiguous_like(y),
            double_backward,
        ),
        batching=(elementwise_batching(dim_at=-1),) * 3,
        primals=1,
        tensors=1,
        saves=1,
        saved=lambda _args, outputs: outputs,
        no_grads=lambda saved, _constants: (torch.zeros_like(saved[0]),),
        composition=composition,
        symmetric=symmetric,
    )


def _softmax_backward_tangent(
    tangents: Arguments, grads: Arguments, saved: Arguments, constants: Arguments
) -> tuple[Tensor, ...]:
    """Of ``y (grad - sum(grad y))`` by the saved y."""
    (t,), (grad,), (y,), (dim,) = tangents, grads, saved, constants
    grad_sum = (grad * y).sum(dim, keepdim=True)
    return (t * (grad - grad_sum) - y * (grad * t).sum(dim, keepdim=True),)


# --------------------------------------------------------------------------------------------------
# vmap of a loss: all rows at once without a reduction, which then follows batch by batch


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


def _batched_loss(op: Any, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
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


def _batched_derivatives(grads: int, kept: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
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


# --------------------------------------------------------------------------------------------------
# nll_loss


def _nll_loss() -> Family:
    extra = "Tensor target, Tensor? weight"
    constants = "int reduction, int ignore_index"

    def fake(x: Tensor, _target: Tensor, _weight: Any, reduction: int, *_: Any) -> Any:
        loss = x.new_empty(_row_sizes(x) if reduction == NONE else [])
        return loss, x.new_empty([], dtype=compute_dtype(x.dtype))

    def fake_double(v: Tensor, _grad: Any, _x: Tensor, *args: Any) -> Tensor:
        return v.new_empty(_row_sizes(v) if args[-2] == NONE else [])

    return Family(
        name="nll_loss",
        symbol="NLLLoss",
        schemas=(
            f"(Tensor x, {extra}, {constants}) -> (Tensor, Tensor)",
            f"(Tensor grad, Tensor x, {extra}, Tensor total, {constants}) -> Tensor",
            f"(Tensor v, Tensor grad, Tensor x, {extra}, Tensor total, {constants}) -> Tensor",
        ),
        fakes=(fake, lambda _grad, x, *_: _logits_like(x), fake_double),
        batching=(_batched_loss, *_batched_derivatives(grads=1, kept=1)),
        primals=1,
        tensors=3,
        saves=4,
        saved=lambda args, outputs: (*args[:3], outputs[1]),
        passive=lambda _constants: (1,),
        no_grads=lambda saved, constants: (
            saved[0].new_zeros(_row_sizes(saved[0]) if constants[0] == NONE else []),
        ),
        composition=_compositions.nll_loss_double_backward,
        linear=True,
    )


# --------------------------------------------------------------------------------------------------
# cross_entropy


def _cross_entropy() -> Family:
    extra = "Tensor target, Tensor? weight"
    grads = "Tensor? grad_loss, Tensor? grad_lse, Tensor? grad_entropy"
    kept = "Tensor stats, Tensor total"
    constants = (
        "int reduction, int ignore_index, float label_smoothing, float z_loss, float softcap, "
        "bool full_precision, bool with_lse, bool with_entropy"
    )

    def row_results(x: Tensor, constants: Arguments) -> tuple[Tensor, Tensor, Tensor]:
        reduction, *_, full_precision, with_lse, with_entropy = constants
        rows, dtype = _row_sizes(x), compute_dtype(x.dtype)
        return (
            x.new_empty(
                rows if reduction == NONE else [], dtype=dtype if full_precision else x.dtype
            ),
            x.new_empty(rows if with_lse else [0], dtype=dtype),
            x.new_empty(rows if with_entropy else [0], dtype=dtype),
        )

    def fake(x: Tensor, target: Tensor, _weight: Any, *constants: Any) -> Any:
        dtype = compute_dtype(x.dtype)
        label_smoothing, with_entropy = constants[2], constants[-1]
        planes = 2 + (target.is_floating_point() or label_smoothing > 0) + with_entropy
        stats = x.new_empty([planes, math.prod(_row_sizes(x))], dtype=dtype)
        return (*row_results(x, constants), stats, x.new_empty([], dtype=dtype))

    def fake_double(v: Tensor, *args: Any) -> Any:
        any_grad = any(grad is not None for grad in args[:3])
        results = row_results(v, args[8:])
        return (*results, _logits_like(args[3]) if any_grad else v.new_empty([0]))

    def passive(constants: Arguments) -> tuple[int, ...]:
        with_lse, with_entropy = constants[-2:]
        return (*(() if with_lse else (1,)), *(() if with_entropy else (2,)), 3, 4)

    return Family(
        name="cross_entropy",
        symbol="CrossEntropy",
        schemas=(
            f"(Tensor x, {extra}, {constants}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
            f"({grads}, Tensor x, {extra}, {kept}, {constants}) -> Tensor",
            f"(Tensor v, {grads}, Tensor x, {extra}, {kept}, {constants}) -> "
            "(Tensor, Tensor, Tensor, Tensor)",
        ),
        fakes=(fake, lambda _u, _q, _h, x, *_: _logits_like(x), fake_double),
        batching=(_batched_loss, *_batched_derivatives(grads=3, kept=2)),
        primals=1,
        tensors=3,
        outputs=3,
        saves=5,
        saved=lambda args, outputs: (*args[:3], *outputs[3:]),
        passive=passive,
        no_grads=lambda _saved, _constants: (None, None, None),
        overwrites=(
            "_backward_",
            f"({grads}, Tensor(a!) x, {extra}, {kept}, {constants}) -> ()",
        ),
        composition=_compositions.cross_entropy_double_backward,
    )


# --------------------------------------------------------------------------------------------------
# binary_cross_entropy_with_logits


def _bce_with_logits() -> Family:
    extra = "Tensor target, Tensor? weight, Tensor? pos_weight"

    def reduced(rows: Tensor, reduction: int) -> Tensor:
        if reduction == NONE:
            return rows
        rows = rows.flatten(1)
        return rows.sum(1) if reduction == SUM else rows.mean(1)

    def batching(derivative: int) -> Callable[..., Any]:
        """The rule of the op with so many tensors before x."""

        def rule(op: Any, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
            *tensors, reduction = args
            batched: list[Any] = [
                t if t is None else leading(t, dim, info.batch_size)
                for t, dim in zip(tensors, in_dims, strict=False)
            ]
            x = batched[derivative]
            if derivative and reduction != NONE:
                grad = batched[derivative - 1].view(-1, *(1,) * (x.dim() - 1))
                n = math.prod(x.shape[1:]) if reduction == MEAN else 1
                batched[derivative - 1] = (grad / n).expand(x.shape)
            result = op(*batched, NONE)
            if derivative == 1:
                return result, 0
            if derivative == 0:
                return reduced(result, reduction), 0
            return (reduced(result[0], reduction), result[1]), (0, 0)

        return rule

    def fake(x: Tensor, *args: Any) -> Tensor:
        return empty_like(x) if args[-1] == NONE else x.new_empty([])

    return Family(
        name="bce_with_logits",
        symbol="BCEWithLogits",
        schemas=(
            f"(Tensor x, {extra}, int reduction) -> Tensor",
            f"(Tensor grad, Tensor x, {extra}, int reduction) -> Tensor",
            f"(Tensor v, Tensor grad, Tensor x, {extra}, int reduction) -> (Tensor, Tensor)",
        ),
        fakes=(
            fake,
            lambda _grad, x, *_: empty_like(x),
            lambda _v, _grad, x, *args: (fake(x, *args), empty_like(x)),
        ),
        batching=tuple(batching(order) for order in range(3)),
        primals=1,
        tensors=4,
        saves=4,
        saved=lambda args, _outputs: args[:4],
        no_grads=lambda saved, constants: (fake(saved[0], *constants).zero_(),),
        composition=_compositions.bce_with_logits_double_backward,
    )


def loss_families() -> list[Family]:
    """The families of softmax and of the losses, not yet defined."""
    return [
        replace(
            _softmax("softmax", "Softmax", _compositions.softmax_double_backward, symmetric=True),
            backward_tangent=_softmax_backward_tangent,
        ),
        _softmax(
            "log_softmax", "LogSoftmax", _compositions.log_softmax_double_backward, symmetric=False
        ),
        _nll_loss(),
        _cross_entropy(),
        _bce_with_logits(),
    ]
