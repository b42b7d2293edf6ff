"""The softmax and loss ops as compositions of torch's.

For third derivatives, for what no kernel serves, and for targets and weights that are
differentiated themselves.
``reduction`` is torch's number: 0 none, 1 mean, 2 sum. Equations stand in
``csrc/formulas/cross_entropy.h`` and ``csrc/formulas/softmax.h``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _originals as F
from ._private import functorch_active

REDUCTIONS = ("none", "mean", "sum")
NUMBERS = {reduction: number for number, reduction in enumerate(REDUCTIONS)}  # torch's, too
NONE, MEAN, SUM = NUMBERS.values()


def class_dim(x: Tensor) -> int:
    """Which dimension of logits holds the classes."""
    return 0 if x.dim() == 1 else 1


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """What a dtype's kernels calculate in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def joint_dtype(x: Tensor, target: Tensor, weight: Tensor | None) -> torch.dtype:
    """The dtype of a loss: the logits'; with probabilities, what fits target and weight too."""
    if not target.is_floating_point():
        return x.dtype
    dtype = torch.promote_types(x.dtype, target.dtype)
    return dtype if weight is None else torch.promote_types(dtype, weight.dtype)


def softmax_double_backward(v: Tensor, grad: Tensor, y: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    grad_sum = (grad * y).sum(dim, keepdim=True)
    v_sum = (v * y).sum(dim, keepdim=True)
    return y * (v - v_sum), v * (grad - grad_sum) - grad * v_sum


def log_softmax_double_backward(
    v: Tensor, grad: Tensor, y: Tensor, dim: int
) -> tuple[Tensor, Tensor]:
    p = y.exp()
    return v - (v * p).sum(dim, keepdim=True), -v * p * grad.sum(dim, keepdim=True)


def nll_loss_double_backward(
    v: Tensor,
    _grad: Tensor,
    _x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    _total: Tensor,
    reduction: int,
    ignore_index: int,
) -> Tensor:
    """The loss is linear in x."""
    return F.nll_loss(v, target, weight, ignore_index=ignore_index, reduction=REDUCTIONS[reduction])


def bce_with_logits_double_backward(
    v: Tensor,
    grad: Tensor,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pos_weight: Tensor | None,
    reduction: int,
) -> tuple[Tensor, Tensor]:
    p, q = torch.sigmoid(x), torch.sigmoid(-x)
    positive = target if pos_weight is None else pos_weight * target
    slope, curvature = (1 - target) * p - positive * q, (1 - target + positive) * p * q
    if weight is not None:
        slope, curvature = weight * slope, weight * curvature
    by_grad = v * slope
    if reduction == NONE:
        return by_grad, v * grad * curvature
    n = x.numel() if reduction == MEAN else 1
    return by_grad.sum() / n, v * (grad / n) * curvature


def coefficients(
    x: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """The a_j of ``loss = sum_j a_j (lse - z_j)``, like x; and the rows in use, as 0 and 1."""
    dim = class_dim(x)
    classes = x.shape[dim]
    if target.is_floating_point():
        a = target
        used = torch.ones_like(x.select(dim, 0) if classes else x.sum(dim))
    else:
        used = (target != ignore_index).to(x.dtype)
        index = torch.where(target == ignore_index, 0, target).unsqueeze(dim)
        a = torch.zeros_like(x).scatter(dim, index, 1.0)
    if label_smoothing > 0:
        a = a * (1 - label_smoothing) + label_smoothing / classes
    if weight is not None:
        a = a * weight.to(x.dtype).view(-1, *(1,) * (x.dim() - dim - 1))
    return a * used.unsqueeze(dim), used


def total_weight(x: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
    """What "mean" divides by: the sum of the targets' weights, or the number of rows."""
    a, used = coefficients(x, target, weight, ignore_index, 0.0)
    return used.sum() if target.is_floating_point() else a.sum()


def capped(x: Tensor, softcap: float) -> Tensor:
    """``softcap tanh(x / softcap)``; 0: x itself."""
    return softcap * torch.tanh(x / softcap) if softcap > 0 else x


def cross_entropy(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: int,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float,
    full_precision: bool,
    with_lse: bool,
    with_entropy: bool,
) -> Tensor | tuple[Tensor, ...]:
    """The loss, with log-sum-exp and entropy where asked for, by torch's own ops."""
    dim = class_dim(x)
    wide = compute_dtype(x.dtype)
    z = capped(x, softcap)
    if target.is_floating_point() or functorch_active():
        # Not torch's function: it fails under vmap, and 0 * -inf is NaN there.
        a, _ = coefficients(z, target, weight, ignore_index, label_smoothing)
        log_p = torch.log_softmax(z.to(wide), dim)
        loss = -torch.where(a == 0, 0.0, a * log_p).sum(dim)
        if reduction != NONE:
            loss = loss.sum()
        if reduction == MEAN:
            loss = loss / total_weight(z, target, weight, ignore_index)
        loss = loss.to(wide if full_precision else x.dtype)
    else:
        loss = F.cross_entropy(
            z.to(wide) if full_precision else z,
            target,
            weight.to(wide) if full_precision and weight is not None else weight,
            ignore_index=ignore_index,
            reduction=REDUCTIONS[reduction],
            label_smoothing=label_smoothing,
        )
    if not (z_loss or with_lse or with_entropy):
        return loss
    z = z.to(wide)
    if target.is_floating_point():
        used = torch.ones_like(z.sum(dim), dtype=torch.bool)
    else:
        used = target != ignore_index
        z = torch.where(used.unsqueeze(dim), z, 0.0)
    lse = torch.where(used, torch.logsumexp(z, dim), 0.0)
    if z_loss:
        extra = z_loss * lse.square()
        if reduction != NONE:
            extra = extra.sum()
        if reduction == MEAN:
            extra = extra / total_weight(z, target, weight, ignore_index)
        loss = (loss.to(wide) + extra).to(loss.dtype)
    results = [loss]
    if with_lse:
        results.append(lse)
    if with_entropy:
        log_p = torch.log_softmax(z, dim)
        p = log_p.exp()
        entropy = -(p * log_p.masked_fill(p == 0, 0.0)).sum(dim)
        results.append(torch.where(used, entropy, 0.0))
    return tuple(results) if len(results) > 1 else loss


def cross_entropy_double_backward(
    v: Tensor,
    grad_loss: Tensor | None,
    grad_lse: Tensor | None,
    grad_entropy: Tensor | None,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    _stats: Tensor,
    total: Tensor,
    reduction: int,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float,
    full_precision: bool,
    with_lse: bool,
    with_entropy: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dim = class_dim(x)
    dtype, wide = x.dtype, compute_dtype(x.dtype)
    x, v = x.to(wide), v.to(wide)
    if target.is_floating_point():
        target = target.to(wide)
    a, used = coefficients(x, target, weight, ignore_index, label_smoothing)
    used = used.unsqueeze(dim)

    def per_row(grad: Tensor | None) -> Any:
        if grad is None:
            return 0.0
        return (grad.to(wide).unsqueeze(dim) if grad.dim() else grad.to(wide)) * used

    scale = total if reduction == MEAN else 1.0
    u = per_row(grad_loss) / scale
    q, h = per_row(grad_lse), per_row(grad_entropy)

    z = capped(x, softcap)
    ratio = z / softcap if softcap > 0 else torch.zeros_like(z)
    slope = 1 - ratio.square()
    log_p = torch.log_softmax(z, dim)
    p = log_p.exp()
    lse = torch.logsumexp(z, dim, keepdim=True)
    finite = z.masked_fill(p == 0, 0.0)
    centred = finite - (p * finite).sum(dim, keepdim=True)
    y = v * slope
    mean = (p * y).sum(dim, keepdim=True)
    covariance = (p * centred * y).sum(dim, keepdim=True)
    of_lse = a.sum(dim, keepdim=True) + 2 * z_loss * lse if z_loss else a.sum(dim, keepdim=True)

    by_loss = ((of_lse * mean - (a * y).sum(dim, keepdim=True)) * used).squeeze(dim)
    if reduction != NONE:
        by_loss = by_loss.sum() / scale
    by_lse, by_entropy = (mean * used).squeeze(dim), -(covariance * used).squeeze(dim)

    kappa = u * of_lse + q
    grad_x = p * (
        kappa * (y - mean) + 2 * z_loss * u * mean - h * ((centred + 1) * (y - mean) - covariance)
    )
    if softcap > 0:
        by_z = p * (kappa - h * centred) - u * a
        grad_x = slope * grad_x - v * 2 * ratio * slope / softcap * by_z
    none = x.new_empty(0)
    any_grad = grad_loss is not None or grad_lse is not None or grad_entropy is not None
    return (
        by_loss if full_precision else by_loss.to(dtype),
        by_lse if with_lse else none,
        by_entropy if with_entropy else none,
        (grad_x * used).to(dtype) if any_grad else none.to(dtype),
    )
