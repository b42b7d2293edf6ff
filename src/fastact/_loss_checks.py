"""What is asked of the arguments of a softmax or loss before anything is written."""

from __future__ import annotations

import math
import warnings
from numbers import Real

import torch
from torch import Tensor

from ._compositions import MEAN, NUMBERS, REDUCTIONS, class_dim
from ._dispatch import check_integer
from ._private import autocasts, is_functorch_wrapped, is_grad_tracking, unwrapped


def check_tensors(op: str, **tensors: Tensor | None) -> None:
    """Raises where an argument is no tensor; what may be None is only looked at if it is not."""
    for name, t in tensors.items():
        if not isinstance(t, Tensor):
            raise TypeError(f"{op}(): argument {name!r} must be Tensor, not {type(t).__name__}")


def check_devices(op: str, x: Tensor, **others: Tensor | None) -> None:
    for name, t in others.items():
        if t is not None and t.device != x.device:
            raise RuntimeError(
                f"{op}(): expected all tensors to be on the same device; got input on {x.device} "
                f"and {name} on {t.device}"
            )


def reduction_number(
    op: str, reduction: str, size_average: bool | None = None, reduce: bool | None = None
) -> int:
    """Torch's number of a reduction, also from the two arguments that it replaced."""
    if size_average is not None or reduce is not None:
        averages, reduces = (arg is None or bool(arg) for arg in (size_average, reduce))
        reduction = "none" if not reduces else "mean" if averages else "sum"
        warnings.warn(
            f"size_average and reduce args will be deprecated, please use reduction={reduction!r} "
            "instead.",
            stacklevel=3,  # who called the public function
        )
    if reduction not in REDUCTIONS:
        raise ValueError(
            f"{op}(): {reduction!r} is not a valid value for reduction; expected one of "
            f"{', '.join(REDUCTIONS)}"
        )
    return NUMBERS[reduction]


def check_target(op: str, x: Tensor, target: Tensor) -> None:
    """That there is an index for each row."""
    if target.dtype not in (torch.int64, torch.uint8):
        name = str(target.dtype).removeprefix("torch.")
        raise RuntimeError(f"{op}(): expected target dtype to be Long or Byte, but got {name}")
    if x.dim() == 0:
        raise RuntimeError(f"{op}(): expected input to have a class dimension; got a 0-dim tensor")
    if x.dim() == 1:
        if target.dim() > 1 or target.numel() != 1:
            raise RuntimeError(
                f"{op}(): expected a 0-dim target for input of shape {tuple(x.shape)}; got target "
                f"of shape {tuple(target.shape)}"
            )
        return
    if target.dim() != x.dim() - 1:
        raise RuntimeError(
            f"{op}(): expected target to have {x.dim() - 1} dimensions, those of input without the "
            f"classes; got input {tuple(x.shape)} and target {tuple(target.shape)}"
        )
    if target.shape[0] != x.shape[0]:
        raise ValueError(
            f"{op}(): Expected input batch_size ({x.shape[0]}) to match target batch_size "
            f"({target.shape[0]})."
        )
    if target.shape[1:] != x.shape[2:]:
        raise RuntimeError(
            f"{op}(): size mismatch (got input: {list(x.shape)}, target: {list(target.shape)})"
        )


def check_weight(op: str, x: Tensor, weight: Tensor | None, promotes: bool = False) -> None:
    """That there is a weight for each class; of another dtype than x only if that is promoted."""
    if weight is None:
        return
    check_tensors(op, weight=weight)
    classes = x.shape[class_dim(x)]
    if weight.dim() != 1 or weight.shape[0] != classes:
        raise RuntimeError(
            f"{op}(): weight tensor should be defined either for all {classes} classes or no "
            f"classes but got weight tensor of shape: {list(weight.shape)}"
        )
    if weight.dtype != x.dtype and not (promotes or autocasts(x.device)):
        raise RuntimeError(
            f"{op}(): expected weight to have input's dtype {x.dtype} but found {weight.dtype}"
        )


def raise_for_target(op: str, classes: int, target: Tensor, ignore_index: int) -> None:
    """Raises where a target is out of range; called once a kernel, or torch, has refused.

    Not on a GPU, where no kernel refuses one: what failed there is something else.
    """
    if target.is_floating_point() or not target.is_cpu or torch.compiler.is_compiling():
        return
    mapped = False
    while is_functorch_wrapped(target):
        mapped |= not is_grad_tracking(target)
        target = unwrapped(target)
    bad = ((target < 0) | (target >= classes)) & (target != ignore_index)
    where = bad.nonzero()
    if len(where):
        position = where[0].tolist()
        value = target[tuple(position)].item()
        # A position in a batch that is mapped over is none in what the caller's function sees.
        named = position and not mapped
        at = f"target[{', '.join(map(str, position))}]" if named else "target"
        raise IndexError(
            f"{op}(): Target {value} is out of bounds: {at} is not a class index of input with "
            f"{classes} classes, nor ignore_index ({ignore_index})"
        ) from None


def _check_real(op: str, name: str, value: object) -> None:
    if not isinstance(value, (float, Real, torch.SymFloat, torch.SymInt)):
        raise TypeError(f"{op}(): argument {name!r} must be float, not {type(value).__name__}")


def _check_number(op: str, name: str, value: float, low: float) -> None:
    _check_real(op, name, value)
    if not low <= float(value) < math.inf:
        raise ValueError(f"{op}(): {name} must be finite and at least {low}; got {value}")


def _check_probabilities(op: str, x: Tensor, target: Tensor, ignore_index: int) -> None:
    if not target.is_floating_point():
        name = str(target.dtype).removeprefix("torch.")
        raise RuntimeError(
            f"{op}(): Expected floating point type for target with class probabilities, got {name}"
        )
    if ignore_index >= 0:
        raise RuntimeError(
            f"{op}(): ignore_index is not supported for floating point target; got {ignore_index}"
        )
    if x.dim() == 0:
        raise RuntimeError(f"{op}(): expected input to have a class dimension; got a 0-dim tensor")


def check_inplace(op: str, x: Tensor) -> None:
    base = x._base if x._is_view() else x
    if base is not None and base.is_leaf and base.requires_grad:
        kind = "is a view of a leaf" if base is not x else "is a leaf"
        raise RuntimeError(
            f"{op}(): inplace_backward=True writes the gradient over the logits, but argument "
            f"'input' {kind} that requires grad and would lose its value; compute it from "
            "something, or leave the option out"
        )
    extent = 0
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size > 1 and stride <= extent:
            break
        extent += stride * (size - 1)
    else:
        return
    if x.numel():
        raise RuntimeError(
            f"{op}(): inplace_backward=True needs logits with a place of memory for each element; "
            f"got shape {tuple(x.shape)} with strides {x.stride()}"
        )


def _check_scalar(op: str, name: str, value: object) -> None:
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(
                f"{op}(): {name} must be a number or a tensor of one element; got shape "
                f"{tuple(value.shape)}"
            )
    elif not isinstance(value, (Real, torch.SymFloat, torch.SymInt)):
        raise TypeError(
            f"{op}(): argument {name!r} must be a number or a Tensor, not {type(value).__name__}"
        )


def check_expected_grad(op: str, x: Tensor, expected_grad: object, inplace_backward: bool) -> None:
    _check_scalar(op, "expected_grad", expected_grad)
    if isinstance(expected_grad, Tensor) and not expected_grad.is_cpu:
        check_devices(op, x, expected_grad=expected_grad)
    if inplace_backward:
        raise ValueError(
            f"{op}(): with expected_grad the forward pass writes the gradient, with "
            "inplace_backward=True the backward pass; got both"
        )


def _check_normalizer(op: str, reduction: int, normalizer: object) -> None:
    if reduction != MEAN:
        raise ValueError(
            f"{op}(): normalizer takes the place of the count in reduction='mean'; got "
            f"reduction={REDUCTIONS[reduction]!r}"
        )
    _check_scalar(op, "normalizer", normalizer)


def check_cross_entropy(
    op: str,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
    normalizer: float | Tensor | None,
) -> bool:
    """Raises where arguments do not fit; returns whether the target holds probabilities."""
    check_tensors(op, input=x, target=target)
    if not isinstance(label_smoothing, Tensor):
        _check_real(op, "label_smoothing", label_smoothing)
    if label_smoothing != 0.0 and not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(
            f"{op}(): label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}"
        )
    check_integer(op, "ignore_index", ignore_index)
    probabilities = target.shape == x.shape
    if probabilities:
        _check_probabilities(op, x, target, ignore_index)
    else:
        check_target(op, x, target)
    check_weight(op, x, weight, promotes=probabilities)
    check_devices(op, x, target=target, weight=weight)
    if z_loss:
        _check_number(op, "z_loss", z_loss, 0.0)
    if softcap is not None:
        _check_number(op, "softcap", softcap, 0.0)
        if softcap == 0:
            raise ValueError(f"{op}(): softcap must be above 0, or None for none; got 0")
    if normalizer is not None:
        _check_normalizer(op, reduction, normalizer)
    return probabilities
