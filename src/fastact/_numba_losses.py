"""Softmax and the losses in Numba: tensors in, tensors out; the loops are in the files beside."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import _numba
from ._compositions import MEAN, NONE, class_dim, compute_dtype
from ._library import NAMESPACES, families, library
from ._losses import _logits_like, _row_sizes
from ._numba import advised, array, run_parts
from ._numba_operands import Rows, check, require
from ._pointwise import empty_like

_NAMESPACE = NAMESPACES["numba"]
_NOTHING = np.empty(0)
_NO_LABELS = np.empty(0, np.int64)


# Modules that import Numba.


@cache
def _softmax_kernels() -> Any:
    from . import _numba_rows

    return _numba_rows


@cache
def _kernels() -> Any:
    from . import _numba_cross_entropy

    return _numba_cross_entropy


@cache
def _bce_kernels() -> Any:
    from . import _numba_bce

    return _numba_bce


# --------------------------------------------------------------------------------------------------
# Softmax


def _softmax(log: bool) -> tuple[Callable[..., Any], ...]:
    op = "log_softmax" if log else "softmax"

    def run(kernel: str, inputs: tuple[Tensor, ...], outputs: int, dim: int) -> Any:
        check(op, *inputs)
        x = inputs[-1]
        require(0 <= dim < max(x.dim(), 1), op, f"a dimension of {tuple(x.shape)}, got {dim}")
        results = [advised(x.new_empty(x.shape)) for _ in range(outputs)]
        rows = Rows(x.contiguous(), dim)
        if x.numel():
            operands = (rows.of(t) for t in (*(t.contiguous() for t in inputs), *results))
            rows.run(getattr(_softmax_kernels(), kernel), *operands, log)
        return results[0] if outputs == 1 else tuple(results)

    return (
        lambda x, dim: run("softmax_forward", (x,), 1, dim),
        lambda grad, y, dim: run("softmax_backward", (grad, y), 1, dim),
        lambda v, grad, y, dim: run("softmax_double_backward", (v, grad, y), 2, dim),
    )


# --------------------------------------------------------------------------------------------------
# Cross entropy


class _Problem:
    """The operands of one call, as the kernels take them."""

    def __init__(
        self, x: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int,
        smoothing: float = 0.0, z_loss: float = 0.0, softcap: float = 0.0, entropy: bool = False,
        normalized: bool = False,
    ) -> None:  # fmt: skip
        check("cross_entropy", x)
        require(x.dim() > 0, "cross_entropy", "a class dimension")
        self.x, self.entropy = x, entropy
        self.compute = compute_dtype(x.dtype)
        self.rows = Rows(x, class_dim(x))
        classes = x.shape[class_dim(x)]
        self.indexed = not target.is_floating_point()
        labels, q = _NO_LABELS, x.new_empty(0)
        if self.indexed:
            labels = target.contiguous().view(-1).numpy()
            require(
                target.dtype is torch.int64 and labels.size == self.rows.count,
                "cross_entropy", "an int64 target for each row",
            )  # fmt: skip
            wrong = ((labels < 0) | (labels >= classes)) & (labels != ignore_index)
            if wrong.any():
                row = int(wrong.argmax())
                raise RuntimeError(
                    f"fastact_numba::cross_entropy: target {labels[row]} at row {row} is out of "
                    f"bounds for {classes} classes"
                )
        else:
            check("cross_entropy", x, target)
            q = target
        require(
            weight is None or weight.shape == (classes,), "cross_entropy", "a weight for each class"
        )
        self.has_mass = smoothing > 0 or not self.indexed
        weights = _NOTHING if weight is None else weight.double().contiguous().numpy()
        probabilities = array(q) if self.indexed else self.rows.of(q)
        self.operands = (self.rows.of(x), labels, probabilities, weights)
        self.options = (
            ignore_index, float(smoothing), float(z_loss), float(softcap), normalized,
            self.indexed, weight is not None, self.has_mass, entropy,
        )  # fmt: skip

    def forward(self) -> tuple[Any, Tensor]:
        """The results of each row, and what its derivatives need."""
        k = _kernels()
        results = np.empty((k.RESULTS, self.rows.count))
        stats = self.x.new_empty(self.stats_shape(), dtype=self.compute)
        self.rows.run(k.cross_entropy_forward, *self.operands, results, stats.numpy(), self.options)
        return results, stats

    def stats_shape(self) -> tuple[int, int]:
        """The maximum and the rest of the sum, and the mass and the mean where there are any."""
        return 2 + self.has_mass + self.entropy, self.rows.count

    def shaped(self, row: Any) -> Tensor:
        """Numbers of each row, in shape and dtype of the results."""
        result = self.x.new_empty(_row_sizes(self.x), dtype=self.compute)
        return result.copy_(torch.from_numpy(row).view(result.shape))

    def reduced(self, rows: Any, weight_sum: Any, reduction: int, full_precision: bool) -> Tensor:
        """A loss of each row, as asked for."""
        if reduction == NONE:
            loss = self.shaped(rows)
        else:
            with np.errstate(all="ignore"):  # 0 / 0, where no row counts
                mean = rows.sum() / (weight_sum if reduction == MEAN else 1.0)
            loss = torch.tensor(mean, dtype=self.compute)
        return loss if full_precision else loss.to(self.x.dtype)

    def kept(self, stats: Tensor) -> Any:
        """What the forward pass kept, as the kernels take it."""
        require(
            stats.shape == self.stats_shape() and stats.dtype is self.compute,
            "cross_entropy", "the stats of its forward",
        )  # fmt: skip
        return stats.contiguous().numpy()

    def given(self, grads: tuple[Tensor | None, ...], total: Tensor, reduction: int) -> Any:
        """The gradients of each row's results."""
        given = np.zeros((3, self.rows.count))
        for i, grad in enumerate(grads):
            # Of an output that was not asked for torch.compile hands in an empty gradient.
            if grad is None or (grad.numel() == 0 and self.rows.count):
                continue
            if i == 0 and reduction != NONE:
                grad = grad.double() / total.double() if reduction == MEAN else grad
            require(
                grad.numel() == (1 if i == 0 and reduction != NONE else self.rows.count),
                "cross_entropy", f"a gradient for each result, got one of {tuple(grad.shape)}",
            )  # fmt: skip
            given[i] = grad.double().reshape(-1).numpy()
        return given

    def backward(self, stats: Any, given: Any, grad: Tensor) -> None:
        target = grad
        if grad.numel():
            # Where the result lies otherwise than x, by way of a tensor that does not.
            place = self.rows.of(grad)
            same = place.ctypes.data == grad.data_ptr()
            target = grad if same else _logits_like(self.rows.like)
        operands = (*self.operands, stats, given, self.rows.of(target), self.options)
        self.rows.run(_kernels().cross_entropy_backward, *operands)
        if target is not grad:
            grad.copy_(target)


# NumPy's sums are taken in one order, whatever the number of threads.
def _loss(
    problem: _Problem, reduction: int, full_precision: bool
) -> tuple[Tensor, Tensor, Any, Tensor]:
    """The loss, the sum of the weights, the results of the rows, and what is kept of them."""
    k = _kernels()
    results, stats = problem.forward()
    weight_sum = results[k.WEIGHT].sum()
    loss = problem.reduced(results[k.LOSS], weight_sum, reduction, full_precision)
    return loss, torch.tensor(weight_sum, dtype=problem.compute), results, stats


def _cross_entropy_forward(
    x: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore_index: int,
    smoothing: float, z_loss: float, softcap: float, full_precision: bool, with_lse: bool,
    with_entropy: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    k = _kernels()
    p = _Problem(x, target, weight, ignore_index, smoothing, z_loss, softcap, with_entropy)
    loss, total, results, stats = _loss(p, reduction, full_precision)
    nothing = x.new_empty(0, dtype=p.compute)
    lse = p.shaped(results[k.LSE]) if with_lse else nothing
    entropy = p.shaped(results[k.ENTROPY]) if with_entropy else nothing.clone()
    return loss, lse, entropy, stats, total


def _derivative(
    args: tuple[Any, ...],
) -> tuple[_Problem, Any, Any, Tensor]:
    u, q, h, x, target, weight, stats, total, reduction, ignore_index, *options = args
    smoothing, z_loss, softcap, *_, with_entropy = options
    p = _Problem(x, target, weight, ignore_index, smoothing, z_loss, softcap, with_entropy)
    return p, p.kept(stats), p.given((u, q, h), total, reduction), x


def _cross_entropy_backward(*args: Any) -> Tensor:
    p, stats, given, x = _derivative(args)
    grad = advised(_logits_like(x))
    p.backward(stats, given, grad)
    return grad


def _cross_entropy_backward_(*args: Any) -> None:
    p, stats, given, x = _derivative(args)
    p.backward(stats, given, x)


def _cross_entropy_with_grad(
    expected: Tensor, x: Tensor, target: Tensor, weight: Tensor | None, reduction: int,
    *options: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    results = _cross_entropy_forward(x, target, weight, reduction, *options)
    grads = expected.expand(_row_sizes(x) if reduction == NONE else []), None, None
    kept = results[3:]
    grad = _cross_entropy_backward(*grads, x, target, weight, *kept, reduction, *options)
    return (*results, grad)


def _cross_entropy_correct_grad_(grad: Tensor, expected: Tensor, *args: Any) -> None:
    by_loss, *others = args[:3]
    if by_loss is None or any(t is not None for t in others) or bool((by_loss != expected).any()):
        p, stats, given, x = _derivative(args)
        check("cross_entropy", x, grad)
        p.backward(stats, given, grad)


def _cross_entropy_double_backward(v: Tensor, *args: Any) -> tuple[Tensor, ...]:
    p, stats, given, x = _derivative(args)
    check("cross_entropy", x, v)
    reduction, full_precision, with_lse = args[8], args[13], args[14]
    any_grad = any(grad is not None for grad in args[:3])
    grad = advised(_logits_like(p.rows.like)) if any_grad else x.new_empty(0)
    by_given = np.zeros((4, p.rows.count))
    p.rows.run(
        _kernels().cross_entropy_double_backward, p.rows.of(v), *p.operands, stats, given,
        by_given, p.rows.of(grad) if any_grad else array(grad), any_grad, p.options,
    )  # fmt: skip
    nothing = x.new_empty(0, dtype=p.compute)
    return (
        p.reduced(by_given[0], by_given[3].sum(), reduction, full_precision),
        p.shaped(by_given[1]) if with_lse else nothing,
        p.shaped(by_given[2]) if p.entropy else nothing.clone(),
        grad,
    )


# --------------------------------------------------------------------------------------------------
# NLL of log-probabilities


def _nll_forward(
    x: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore_index: int
) -> tuple[Tensor, Tensor]:
    problem = _Problem(x, target, weight, ignore_index, normalized=True)
    return _loss(problem, reduction, False)[:2]


def _nll_backward(
    grad: Tensor, x: Tensor, target: Tensor, weight: Tensor | None, total: Tensor, reduction: int,
    ignore_index: int,
) -> Tensor:  # fmt: skip
    p = _Problem(x, target, weight, ignore_index, normalized=True)
    result = advised(_logits_like(x))
    stats = x.new_zeros(p.stats_shape(), dtype=p.compute).numpy()
    p.backward(stats, p.given((grad,), total, reduction), result)
    return result


def _nll_double_backward(
    v: Tensor, _grad: Tensor, _x: Tensor, target: Tensor, weight: Tensor | None, _total: Tensor,
    reduction: int, ignore_index: int,
) -> Tensor:  # fmt: skip
    return _nll_forward(v, target, weight, reduction, ignore_index)[0]


# --------------------------------------------------------------------------------------------------
# Binary cross entropy


def _bce(
    order: int, vs: tuple[Tensor, ...], x: Tensor, others: tuple[Any, ...], reduction: int
) -> Any:
    """``others``: target, weight, pos_weight; ``vs``: what comes before x, the last a gradient."""
    op = "bce_with_logits"
    check(op, x, *(t for t in others if t is not None))
    like = advised(empty_like(x)) if order > 0 else empty_like(x)

    def flat(t: Tensor | None) -> Any:
        if t is None:
            return array(x.new_empty(0))
        t = t if t.stride() == like.stride() else torch.empty_like(like).copy_(t)
        return array(t.as_strided((t.numel(),), (1,)))

    n = x.numel()
    args: list[Any] = []
    if order == 2:
        check(op, x, vs[0])
        args.append(flat(vs[0]))
    if order > 0:
        grad = vs[-1].double()
        require(
            grad.numel() == (n if reduction == NONE else 1),
            op, f"a gradient of the loss, got one of {tuple(grad.shape)}",
        )  # fmt: skip
        if reduction == NONE:
            grad = torch.empty_like(like, dtype=torch.float64).copy_(grad)
            args.append(grad.as_strided((n,), (1,)).numpy())
        else:
            args.append((grad.reshape(1) / (n if reduction == MEAN else 1)).numpy())
    args += [flat(x), *map(flat, others)]
    rows = torch.empty(n, dtype=torch.float64)  # of the loss, or of the gradient by its gradient
    if order != 1:
        args.append(rows.numpy())
    if order > 0:
        args.append(array(like.as_strided((n,), (1,))))
    k = _bce_kernels()
    kernel = (k.bce_forward, k.bce_backward, k.bce_double_backward)[order]
    if n:

        def part(begin: int, end: int) -> None:
            kernel(*(a[begin:end] if a.size == n else a for a in args))

        run_parts(n, 1, part)
    if order == 1:
        return like
    if reduction == NONE:
        result = advised(torch.empty_like(like))
        result.as_strided((n,), (1,)).copy_(rows)
    else:
        with np.errstate(all="ignore"):  # 0 / 0, of no element
            total = rows.numpy().sum() / np.float64(n if reduction == MEAN else 1)
        result = torch.tensor(total, dtype=compute_dtype(x.dtype)).to(x.dtype)
    return result if order == 0 else (result, like)


@cache
def register() -> None:
    """Registers the kernels of every op; none is compiled before its first call."""
    _numba.register()
    ops: dict[str, tuple[Callable[..., Any], ...]] = {
        "softmax": _softmax(log=False),
        "log_softmax": _softmax(log=True),
        "nll_loss": (_nll_forward, _nll_backward, _nll_double_backward),
        "cross_entropy": (
            _cross_entropy_forward, _cross_entropy_backward, _cross_entropy_double_backward,
            _cross_entropy_backward_, _cross_entropy_with_grad, _cross_entropy_correct_grad_,
        ),
        "bce_with_logits": (
            lambda x, *rest: _bce(0, (), x, rest[:3], rest[3]),
            lambda grad, x, *rest: _bce(1, (grad,), x, rest[:3], rest[3]),
            lambda v, grad, x, *rest: _bce(2, (v, grad), x, rest[:3], rest[3]),
        ),
    }  # fmt: skip
    for name, kernels in ops.items():
        further = families(_NAMESPACE)[name].further
        suffixes = ("", "_backward", "_double_backward", *further)
        for suffix, kernel in zip(suffixes, kernels, strict=True):
            library(_NAMESPACE).impl(name + suffix, kernel, "CPU")
