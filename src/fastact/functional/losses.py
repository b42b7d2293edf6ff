"""Losses: negative log likelihood, cross entropy, binary cross entropy."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling as traced

from .. import _loss_dispatch
from .._backend import LEAST
from .._compositions import NUMBERS
from .._loss_checks import reduction_number
from .._loss_dispatch import is_torchs
from .._private import cross_entropy_loss, nll_loss_nd


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""Negative log likelihood, :math:`-w_t\,x_t` for log-probabilities x and target class t.

    Shapes: ``input`` (N, C), (N, C, d1, ...) or (C,); ``target`` (N,), (N, d1, ...) or (). The loss
    has target's shape without a reduction, and no dimension with one.

    Args:
        input: log-probabilities; float32, float64, bfloat16 or float16.
        target: class indices, int64 or uint8.
        weight: a weight for each class, (C,), of input's dtype.
        size_average: deprecated, see ``reduction``.
        ignore_index: the target of rows that do not count.
        reduce: deprecated, see ``reduction``.
        reduction: ``"none"``, ``"mean"`` (divided by the sum of the targets' weights) or ``"sum"``.

    Raises:
        IndexError: a target is neither a class nor ``ignore_index``.
        ValueError: batch sizes differ, or there is no such reduction.
        RuntimeError: other shapes or dtypes do not fit.
        TypeError: an argument is not a tensor.

    Example:
        >>> import torch, fastact
        >>> x = fastact.functional.log_softmax(torch.tensor([[1.0, 2.0], [0.0, 3.0]]), dim=1)
        >>> fastact.functional.nll_loss(x, torch.tensor([0, 1]))
        tensor(0.6809)

    Source: Fisher 1922, On the mathematical foundations of theoretical statistics.
    """
    if (
        (
            (type(input) is Tensor and not traced() and input.numel() < LEAST.nll_loss)
            or is_torchs("nll_loss", input)
        )
        and size_average is None
        and reduce is None
        and nll_loss_nd is not None
    ):
        try:
            tiny: Tensor = nll_loss_nd(input, target, weight, NUMBERS[reduction], ignore_index)
            return tiny
        except (IndexError, KeyError, RuntimeError, TypeError, ValueError):
            pass  # to be said in more words below
    number = reduction_number("nll_loss", reduction, size_average, reduce)
    return _loss_dispatch.nll_loss(input, target, weight, ignore_index, number)


@overload
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = ...,
    size_average: bool | None = ...,
    ignore_index: int = ...,
    reduce: bool | None = ...,
    reduction: str = ...,
    label_smoothing: float = ...,
    *,
    inplace_backward: bool = ...,
    expected_grad: float | Tensor | None = ...,
    z_loss: float = ...,
    softcap: float | None = ...,
    normalizer: float | Tensor | None = ...,
    return_lse: Literal[False] = ...,
    return_entropy: Literal[False] = ...,
) -> Tensor: ...


@overload
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = ...,
    size_average: bool | None = ...,
    ignore_index: int = ...,
    reduce: bool | None = ...,
    reduction: str = ...,
    label_smoothing: float = ...,
    *,
    inplace_backward: bool = ...,
    expected_grad: float | Tensor | None = ...,
    z_loss: float = ...,
    softcap: float | None = ...,
    normalizer: float | Tensor | None = ...,
    return_lse: bool = ...,
    return_entropy: bool = ...,
) -> Tensor | tuple[Tensor, ...]: ...


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    inplace_backward: bool = False,
    expected_grad: float | Tensor | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
    normalizer: float | Tensor | None = None,
    return_lse: bool = False,
    return_entropy: bool = False,
) -> Tensor | tuple[Tensor, ...]:
    r"""Cross entropy of logits, :math:`-w_t \log \mathrm{softmax}(x)_t`, fused.

    The forward pass reads the logits once and keeps two numbers of each row; the backward pass
    reads them once and writes the gradient. Nothing else of their size is stored. With
    ``expected_grad`` they are read once in all. 16-bit logits are summed in float32. Rows that are
    ignored have a loss, log-sum-exp, entropy and gradient of 0, whatever they hold.

    Shapes: ``input`` (N, C), (N, C, d1, ...) or (C,). ``target`` has class indices, (N,),
    (N, d1, ...) or (), or probabilities, input's shape. What is returned for each row has the shape
    of the former.

    Args:
        input: logits; float32, float64, bfloat16 or float16.
        target: class indices, int64 or uint8; or probabilities.
        weight: a weight for each class, (C,), of input's dtype.
        size_average: deprecated, see ``reduction``.
        ignore_index: the target of rows that do not count.
        reduce: deprecated, see ``reduction``.
        reduction: ``"none"``, ``"mean"`` (divided by the sum of the targets' weights; with
            probabilities by the number of rows) or ``"sum"``.
        label_smoothing: how much of the target is spread evenly over all classes, 0 to 1.
        inplace_backward: whether the backward pass writes the gradient over the logits' own memory
            and returns it from there. Their version counter then tells autograd to refuse any other
            use of them. For logits that something computes, in eager code; torch.compile and
            transforms leave them alone.
        expected_grad: the gradient that the loss will receive: 1 for ``loss.backward()``, 0.25 for
            ``(loss / 4).backward()``; a number or a tensor of one element. The forward pass then
            computes the gradient of the logits from the row that it has at hand, and the backward
            pass returns it. Where another gradient comes, or one of another result, it is computed
            anew: a wrong number costs time, a third or so, and changes no result. Worth it for
            logits that no cache holds and a backward pass that follows soon: the gradient takes
            its memory from the forward pass on. In eager code; torch.compile and transforms go the
            ordinary way.
        z_loss: adds ``z_loss * lse**2`` to the loss of each row, before the reduction.
        softcap: bounds the logits first, to ``softcap * tanh(input / softcap)``.
        normalizer: a number or a tensor of one element by which ``"mean"`` divides, in place of the
            sum of the weights: for a batch that comes in parts. Differentiable, if it is a tensor.
        return_lse: whether to return the log-sum-exp of each row too.
        return_entropy: whether to return the entropy of each row's softmax too.

    Returns:
        The loss, in input's dtype (float32 under autocast); or a tuple of the loss and what was
        asked for, log-sum-exp first, which for 16-bit logits is float32. All differentiable.

    Raises:
        IndexError: a target is neither a class nor ``ignore_index``.
        ValueError: batch sizes differ; there is no such reduction; a number is out of its range; a
            normalizer comes with another reduction than ``"mean"``; ``expected_grad`` and
            ``inplace_backward`` come together.
        RuntimeError: other shapes or dtypes do not fit; label_smoothing is out of range;
            ``inplace_backward`` would overwrite a leaf.
        TypeError: an argument is not a tensor.

    Example:
        >>> import torch, fastact
        >>> logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, 3.0, 1.0]])
        >>> fastact.functional.cross_entropy(logits, torch.tensor([0, 1]))
        tensor(0.8170)
        >>> loss, lse = fastact.functional.cross_entropy(
        ...     logits, torch.tensor([0, -100]), reduction="none", z_loss=1e-4, return_lse=True
        ... )
        >>> loss, lse
        (tensor([1.4649, 0.0000]), tensor([2.4644, 0.0000]))

    Sources: Szegedy et al. 2015, arXiv:1512.00567 (label smoothing); Chowdhery et al. 2022,
    arXiv:2204.02311, section 5 (z_loss); Bello et al. 2016, arXiv:1611.09940 (softcap).
    """
    if (
        (
            (type(input) is Tensor and not traced() and input.numel() < LEAST.cross_entropy)
            or is_torchs("cross_entropy", input)
        )
        and softcap is None
        and normalizer is None
        and expected_grad is None
        and not (inplace_backward or z_loss or return_lse or return_entropy)
        and size_average is None
        and reduce is None
        and cross_entropy_loss is not None
    ):
        try:
            if label_smoothing >= 0:  # which torch does not ask
                tiny: Tensor = cross_entropy_loss(
                    input, target, weight, NUMBERS[reduction], ignore_index, label_smoothing
                )
                return tiny
        except (IndexError, KeyError, RuntimeError, TypeError, ValueError):
            pass  # to be said in more words below
    return _loss_dispatch.cross_entropy(
        input,
        target,
        weight,
        ignore_index,
        reduction_number("cross_entropy", reduction, size_average, reduce),
        label_smoothing,
        inplace_backward,
        expected_grad,
        z_loss,
        softcap,
        normalizer,
        return_lse,
        return_entropy,
    )


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    r"""Binary cross entropy, :math:`-w\,(p\,y \log\sigma(x) + (1 - y) \log\sigma(-x))`.

    Args:
        input: logits x, any shape; float32, float64, bfloat16 or float16.
        target: probabilities y, of input's shape.
        weight: w, which broadcasts to input's shape.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        pos_weight: p, the weight of the positive answer, which broadcasts to input's shape.

    Raises:
        ValueError: shapes differ, or there is no such reduction.
        RuntimeError: a weight does not broadcast.
        TypeError: an argument is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.binary_cross_entropy_with_logits(
        ...     torch.tensor([-1.0, 2.0]), torch.tensor([0.0, 1.0])
        ... )
        tensor(0.2201)

    Source: Cox 1958, The regression analysis of binary sequences.
    """
    if (
        (
            (type(input) is Tensor and not traced() and input.numel() < LEAST.bce_with_logits)
            or is_torchs("bce_with_logits", input)
        )
        and isinstance(target, Tensor)
        and target.shape == input.shape
        and size_average is None
        and reduce is None
    ):
        try:
            return torch.binary_cross_entropy_with_logits(
                input, target, weight, pos_weight, NUMBERS[reduction]
            )
        except (KeyError, RuntimeError, TypeError):
            pass  # to be said in more words below
    number = reduction_number("binary_cross_entropy_with_logits", reduction, size_average, reduce)
    return _loss_dispatch.bce_with_logits(input, target, weight, pos_weight, number)
