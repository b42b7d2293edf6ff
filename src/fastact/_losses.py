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
from ._compositions import MEAN, NONE, SUM, class_dim, compute_dtype
from ._family import Family, elementwise_batching, leading, nothing
from ._loss_batching import Arguments, batched_derivatives, batched_loss
from ._pointwise import empty_like


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
        batching=(batched_loss, *batched_derivatives(grads=1, kept=1)),
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
        batching=(batched_loss, *batched_derivatives(grads=3, kept=2)),
        primals=1,
        tensors=3,
        outputs=3,
        saves=5,
        saved=lambda args, outputs: (*args[:3], *outputs[3:]),
        passive=passive,
        no_grads=lambda _saved, _constants: (None, None, None),
        further={
            "_backward_": (
                f"({grads}, Tensor(a!) x, {extra}, {kept}, {constants}) -> ()",
                nothing,
            ),
            # Forward and backward where the gradient of the loss is expected.
            "_with_grad": (
                f"(Tensor expected, Tensor x, {extra}, {constants}) -> "
                "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
                lambda _expected, x, *args: (*fake(x, *args), _logits_like(x)),
            ),
            "_correct_grad_": (
                f"(Tensor(a!) grad, Tensor expected, {grads}, Tensor x, {extra}, {kept}, "
                f"{constants}) -> ()",
                nothing,
            ),
        },
        composition=_compositions.cross_entropy_double_backward,
    )


# --------------------------------------------------------------------------------------------------
# binary_cross_entropy_with_logits


def _bce_with_logits() -> Family:
    extra = "Tensor target, Tensor? weight, Tensor? pos_weight"

    def reduced(rows: Tensor, reduction: int) -> Tensor:
        if reduction == NONE or rows.dim() == 1:  # each of one element
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
