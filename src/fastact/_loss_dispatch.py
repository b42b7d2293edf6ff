"""From a public softmax or loss to a kernel: who answers a call."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from . import _compositions, _private
from . import _originals as F
from ._autograd import may_be_tracked, transforms_active
from ._backend import STATE
from ._compositions import REDUCTIONS, SUM, class_dim, compute_dtype, joint_dtype
from ._cutoffs import line_of
from ._dispatch import (
    PLAIN,
    apply,
    autocast,
    check_integer,
    compiles_to_torch,
    is_served,
    is_small,
    records_graph,
    refusal,
    stands_for_tensor,
    why_torch,
)
from ._dtensor import SOFTMAX, is_dtensor
from ._eager_cross_entropy import cross_entropy_with_grad, inplace_cross_entropy
from ._family import as_tuple
from ._library import NAMESPACES
from ._loss_checks import (
    check_cross_entropy,
    check_devices,
    check_expected_grad,
    check_inplace,
    check_target,
    check_tensors,
    check_weight,
    raise_for_target,
)

# Cross entropy of so many classes and elements beats what torch.compile makes of torch's; nothing
# else does reliably, once it is fused with its neighbours: benchmarks/compile.py.
COMPILED_CLASSES, COMPILED_ELEMENTS = 2**9, 2**18


def _beats_what_compiles(op: str, x: Tensor) -> bool:
    """Whether a kernel of ours is worth a node of its own in a compiled graph.

    An exported program gets torch's ops, which every process has and for every size.
    """
    return (
        op == "cross_entropy"
        and torch.compiler.is_compiling()  # or torch.jit.trace runs
        and not _private.is_exporting()
        and x.dim() > 0
        and _private.decide(x.shape[class_dim(x)] >= COMPILED_CLASSES)
        and _private.decide(x.numel() >= COMPILED_ELEMENTS)
    )


def loss_why_torch(
    op: str, records: bool, x: Tensor, classes: int | None, others: tuple[Tensor | None, ...] = ()
) -> str:
    """Why torch answers, as :func:`_dispatch.why_torch`.

    Args:
        op: the op.
        records: whether a gradient will be asked for.
        x: the logits.
        classes: of each row; None where torch cannot do what is asked for.
        others: target, weight and pos_weight.
    """
    # First, as all that is asked after it becomes a guard of the compiled graph.
    to_torch = compiles_to_torch()
    if to_torch and not _beats_what_compiles(op, x):
        return "torch.compile fuses torch's op with its neighbours"
    choice = STATE.choice
    for name, t in zip(("target", "weight", "pos_weight"), others, strict=False):
        if t is not None and not (type(t) in PLAIN or torch.compiler.is_compiling()):
            if choice.name in ("compiled", "numba"):
                raise NotImplementedError(
                    f"{op}(): the backend {choice.name!r} takes plain tensors; argument "
                    f"{name!r} is a {type(t).__name__}"
                )
            return f"the kernels take plain tensors, and {name} is none"
    if is_dtensor(x) and op not in SOFTMAX:
        reason = "for a DTensor call fastact.distributed.cross_entropy"
        if choice.name in ("compiled", "numba"):
            raise NotImplementedError(
                f"{op}(): the backend {choice.name!r} takes plain tensors; {reason}"
            )
        return reason
    if to_torch:
        return "" if is_served(op, "input", x) else refusal(x)
    # (A forced backend has none: a comparison with a size would become a compiled graph's guard.)
    line = line_of(op, classes) if choice.auto and classes is not None else ""
    return why_torch(op, line, x, x.numel(), records)


def answers(
    op: str, records: bool, x: Tensor, classes: int | None, others: tuple[Tensor | None, ...] = ()
) -> bool:
    """Whether a kernel of ours answers."""
    return not loss_why_torch(op, records, x, classes, others)


def is_torchs(op: str, x: Tensor) -> bool:
    """Whether torch answers whatever else is asked for: small tensors notice every check."""
    if type(x) is not Tensor:  # which may be answered by torch, too, but not before every check
        return False
    if is_dynamo_compiling():
        return STATE.choice.auto and not _beats_what_compiles(op, x)
    cutoffs, n = STATE.choice.cutoffs[op], x.numel()
    return n < cutoffs.most and is_small(op, x.dtype, n, records_graph(x))


# --------------------------------------------------------------------------------------------------
# Softmax


def softmax(op: str, x: Tensor, dim: int, dtype: torch.dtype | None) -> Tensor:
    """Softmax or log_softmax of x, first converted to dtype."""
    if stands_for_tensor(x):
        of_torch: Tensor = getattr(F, op)(x, dim, dtype=dtype)
        return of_torch
    check_tensors(op, input=x)
    dim = check_integer(op, "dim", dim)
    rank = max(x.dim(), 1)
    if not -rank <= dim < rank:
        raise IndexError(
            f"{op}(): dimension out of range (expected to be in range of [{-rank}, {rank - 1}], "
            f"but got dim {dim})"
        )
    if dtype is not None and x.dtype != dtype:
        if not isinstance(dtype, (torch.dtype, type)):  # float is a dtype, too
            raise TypeError(
                f"{op}(): argument 'dtype' must be torch.dtype, not {type(dtype).__name__}"
            )
        x = x.to(dtype)
    records = records_graph(x)
    if not answers(op, records, x, x.shape[dim] if x.dim() else 1):
        y: Tensor = getattr(F, op)(x, dim)
        return y
    if dtype is None:
        x = autocast(op, x)
    result: Tensor = apply(STATE.kernels.functions[op], records, x, dim % rank)
    return result


# --------------------------------------------------------------------------------------------------
# Losses over classes


def nll_loss(
    x: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: int
) -> Tensor:
    op = "nll_loss"
    if stands_for_tensor(x) or stands_for_tensor(target):
        return F.nll_loss(
            x, target, weight, ignore_index=ignore_index, reduction=REDUCTIONS[reduction]
        )
    check_tensors(op, input=x, target=target)
    check_integer(op, "ignore_index", ignore_index)
    check_target(op, x, target)
    check_weight(op, x, weight)
    check_devices(op, x, target=target, weight=weight)
    records = records_graph(x)
    if _private.autocasts(x.device) or not answers(
        op, records, x, x.shape[class_dim(x)], (target, weight)
    ):
        try:
            return F.nll_loss(
                x, target, weight, ignore_index=ignore_index, reduction=REDUCTIONS[reduction]
            )
        except IndexError:
            raise_for_target(op, x.shape[class_dim(x)], target, ignore_index)
            raise
    if x.dim() == 1:
        target = target.reshape(())
    functions = STATE.kernels.functions[op]
    try:
        loss: Tensor = apply(functions, records, x, target.long(), weight, reduction, ignore_index)
    except RuntimeError:
        raise_for_target(op, x.shape[class_dim(x)], target, ignore_index)
        raise
    return loss


def _scalar(value: float | Tensor) -> float | Tensor:
    """A tensor without dimensions: one with some would decide on shape and dtype."""
    return value.reshape(()) if isinstance(value, Tensor) else value


@torch.no_grad()
def _expected(
    grad: float | Tensor, x: Tensor, autocast: bool, normalizer: float | Tensor | None
) -> Tensor:
    """What the op will receive where the loss receives grad: what autograd makes of it."""
    dtype = compute_dtype(x.dtype)
    if not isinstance(grad, Tensor) or grad.is_cpu:  # (A copy to a GPU would wait for it.)
        # By way of float64: what is too large for a dtype becomes infinite.
        grad = x.new_full([], float(grad), dtype=torch.float64)
    expected = grad.reshape(()).to(dtype if autocast else x.dtype)
    return expected if normalizer is None else (expected.to(dtype) / _scalar(normalizer)).to(dtype)


def cross_entropy(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
    inplace_backward: bool,
    expected_grad: float | Tensor | None,
    z_loss: float,
    softcap: float | None,
    normalizer: float | Tensor | None,
    return_lse: bool,
    return_entropy: bool,
) -> Tensor | tuple[Tensor, ...]:
    op = "cross_entropy"
    extras = inplace_backward or z_loss or softcap is not None or normalizer is not None
    if not (extras or return_lse or return_entropy) and (
        stands_for_tensor(x) or stands_for_tensor(target)
    ):
        return F.cross_entropy(
            x, target, weight, ignore_index=ignore_index, reduction=REDUCTIONS[reduction],
            label_smoothing=label_smoothing,
        )  # fmt: skip
    probabilities = check_cross_entropy(
        op, x, target, weight, ignore_index, reduction, label_smoothing, z_loss, softcap, normalizer
    )
    plain = not (z_loss or softcap is not None or return_lse or return_entropy)
    records = records_graph(x)
    is_eager = records and not (transforms_active() or _private.result_mode_active())
    overwrites = inplace_backward and is_eager and not x.is_neg()
    if overwrites:
        check_inplace(op, x)
    if expected_grad is not None:
        check_expected_grad(op, x, expected_grad, inplace_backward)

    autocast = _private.autocasts(x.device)
    if probabilities:
        dtype = joint_dtype(x, target, weight)
        x, target = x.to(dtype), target.to(dtype)
        weight = None if weight is None else weight.to(dtype)
    else:
        target = target.long()
        if x.dim() == 1:
            target = target.reshape(())
    divided = normalizer is not None
    constants = (
        SUM if divided else reduction,
        ignore_index,
        float(label_smoothing),
        float(z_loss),
        0.0 if softcap is None else float(softcap),
        autocast or divided,
        return_lse,
        return_entropy,
    )
    classes = x.shape[class_dim(x)] if plain and not inplace_backward else None
    ours = answers(op, records, x, classes, (target, weight))
    results: Any
    if ours and (probabilities or weight is not None):
        ours = not (may_be_tracked(target) or may_be_tracked(weight))
    if ours:
        choice = STATE.kernels
        try:
            if overwrites:
                results = inplace_cross_entropy(NAMESPACES[choice.source]).record(
                    x, target, weight, *constants
                )
            elif expected_grad is not None and is_eager:
                results = cross_entropy_with_grad(NAMESPACES[choice.source]).record(
                    _expected(expected_grad, x, autocast, normalizer), x, target, weight, *constants
                )
            else:
                results = apply(choice.functions[op], records, x, target, weight, *constants)
        except RuntimeError:
            raise_for_target(op, x.shape[class_dim(x)], target, ignore_index)
            raise
    else:
        try:
            results = _compositions.cross_entropy(x, target, weight, *constants)
        except IndexError:
            raise_for_target(op, x.shape[class_dim(x)], target, ignore_index)
            raise
    loss, *others = as_tuple(results)
    if normalizer is not None:
        loss = loss / _scalar(normalizer)
        loss = loss if autocast else loss.to(x.dtype)
    return (loss, *others) if others else loss


# --------------------------------------------------------------------------------------------------
# Binary cross entropy


def _refuse_expansion(op: str, name: str, t: Tensor, x: Tensor) -> NoReturn:
    raise RuntimeError(
        f"{op}(): {name} of shape {tuple(t.shape)} cannot be broadcast to input of shape "
        f"{tuple(x.shape)}"
    ) from None


def bce_with_logits(
    x: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None, reduction: int
) -> Tensor:
    op, kernel = "binary_cross_entropy_with_logits", "bce_with_logits"
    if stands_for_tensor(x) or stands_for_tensor(target):
        return F.binary_cross_entropy_with_logits(
            x, target, weight, pos_weight=pos_weight, reduction=REDUCTIONS[reduction]
        )
    check_tensors(op, input=x, target=target)
    if target.shape != x.shape:
        raise ValueError(
            f"{op}(): Target size ({target.shape}) must be the same as input size ({x.shape})"
        )
    expanded: list[Tensor | None] = []
    for name, t in (("weight", weight), ("pos_weight", pos_weight)):
        if t is not None:
            check_tensors(op, **{name: t})
            try:
                expanded.append(t.expand(x.shape))
                continue
            except RuntimeError:
                _refuse_expansion(op, name, t, x)
        expanded.append(None)
    others = (target, *expanded)
    check_devices(op, x, target=target, weight=weight, pos_weight=pos_weight)
    records = records_graph(x)
    ours = (
        not _private.autocasts(x.device)
        and all(t is None or t.dtype == x.dtype for t in others)
        and answers(kernel, records, x, 0, others)
        and not any(map(may_be_tracked, (target, weight, pos_weight)))
    )
    if not ours:
        return F.binary_cross_entropy_with_logits(
            x, target, weight, pos_weight=pos_weight, reduction=REDUCTIONS[reduction]
        )
    loss: Tensor = apply(STATE.kernels.functions[kernel], records, x, *others, reduction)
    return loss
