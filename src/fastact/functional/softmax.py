"""softmax and log_softmax."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling as traced

from .. import _loss_dispatch
from .. import _originals as F
from .._backend import LEAST
from .._loss_dispatch import is_torchs


def softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    r"""Softmax, :math:`y_i = e^{x_i} / \sum_j e^{x_j}` along a dimension.

    Args:
        input: any shape; float32, float64, bfloat16 or float16.
        dim: the dimension that sums to 1; None chooses one as torch does, with its warning.
        dtype: what ``input`` is converted to first.

    Raises:
        IndexError: there is no such dimension.
        TypeError: ``input`` is not a tensor, or ``dim`` not an int.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.softmax(torch.tensor([0.0, 1.0, float("-inf")]), dim=0)
        tensor([0.2689, 0.7311, 0.0000])

    Source: Bridle 1990, Training stochastic model recognition algorithms as networks.
    """
    if dim is None:
        return F.softmax(input, dim, _stacklevel + 1, dtype)
    if (type(input) is Tensor and not traced() and input.numel() < LEAST.softmax) or is_torchs(
        "softmax", input
    ):
        return torch.softmax(input, dim, dtype)
    return _loss_dispatch.softmax("softmax", input, dim, dtype)


def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    r"""Logarithm of softmax, :math:`y_i = x_i - \log \sum_j e^{x_j}` along a dimension.

    Args:
        input: any shape; float32, float64, bfloat16 or float16.
        dim: the dimension whose exponentials sum to 1; None chooses one as torch does, with its
            warning.
        dtype: what ``input`` is converted to first.

    Raises:
        IndexError: there is no such dimension.
        TypeError: ``input`` is not a tensor, or ``dim`` not an int.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.log_softmax(torch.tensor([0.0, 1.0, 2.0]), dim=0)
        tensor([-2.4076, -1.4076, -0.4076])

    Source: Bridle 1990, Training stochastic model recognition algorithms as networks.
    """
    if dim is None:
        return F.log_softmax(input, dim, _stacklevel + 1, dtype)
    if (type(input) is Tensor and not traced() and input.numel() < LEAST.log_softmax) or is_torchs(
        "log_softmax", input
    ):
        return torch.log_softmax(input, dim, dtype)
    return _loss_dispatch.softmax("log_softmax", input, dim, dtype)
