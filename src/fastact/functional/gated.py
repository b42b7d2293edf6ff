"""Gated activations: one tensor, or half of one, gates another.

Tiny tensors go to torch as in activations.py; a shape is read only where torch would not refuse.
"""

from __future__ import annotations

from torch import Tensor
from torch.compiler import is_dynamo_compiling as traced

from .._backend import LEAST
from .._dispatch import gated, gelu_variant, packed
from .._private import torchs_glu
from .._registry import ACTIVATIONS

_silu, _relu, _gelu_tanh = (ACTIVATIONS[name].builtin for name in ("silu", "relu", "gelu_tanh"))


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    r"""SiLU of a gate times a second tensor, fused: ``silu(gate) * up``.

    Strided halves of one buffer are read where they are.

    Args:
        gate: any shape; float32, float64, bfloat16 or float16.
        up: like ``gate``.

    Raises:
        RuntimeError: the shapes, dtypes or devices differ.
            Under autocast different dtypes are promoted.
        TypeError: an argument is not a tensor.

    Example:
        >>> import torch, fastact
        >>> gate, up = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([2.0, 2.0, 2.0])
        >>> fastact.functional.silu_mul(gate, up)
        tensor([-0.5379,  0.0000,  1.4621])

    Source: Shazeer 2020, arXiv:2002.05202.
    """
    if (
        type(gate) is Tensor and type(up) is Tensor and not traced()
        and gate.numel() < LEAST.silu_mul and gate.shape == up.shape and gate.dtype is up.dtype
    ):  # fmt: skip
        return _silu(gate) * up
    return gated("silu_mul", "silu", gate, up)


def gelu_mul(gate: Tensor, up: Tensor, approximate: str = "none") -> Tensor:
    r"""GELU of a gate times a second tensor, fused: ``gelu(gate) * up``.

    Strided halves of one buffer are read where they are.

    Args:
        gate: any shape; float32, float64, bfloat16 or float16.
        up: like ``gate``.
        approximate: ``'none'`` or ``'tanh'``.

    Raises:
        RuntimeError: the shapes, dtypes or devices differ, or ``approximate`` is something else.
            Under autocast different dtypes are promoted.
        TypeError: an argument is not a tensor.

    Example:
        >>> import torch, fastact
        >>> gate, up = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([2.0, 2.0, 2.0])
        >>> fastact.functional.gelu_mul(gate, up)
        tensor([-0.3173,  0.0000,  1.6827])

    Source: Shazeer 2020, arXiv:2002.05202.
    """
    if (
        approximate == "tanh"  # exact GELU is ours from one element on
        and type(gate) is Tensor and type(up) is Tensor and not traced()
        and gate.numel() < LEAST.gelu_tanh_mul and gate.shape == up.shape
        and gate.dtype is up.dtype
    ):  # fmt: skip
        return _gelu_tanh(gate) * up
    return gated("gelu_mul", gelu_variant("gelu_mul", approximate), gate, up)


def relu_mul(gate: Tensor, up: Tensor) -> Tensor:
    r"""ReLU of a gate times a second tensor, fused: ``relu(gate) * up``.

    Strided halves of one buffer are read where they are.

    Args:
        gate: any shape; float32, float64, bfloat16 or float16.
        up: like ``gate``.

    Raises:
        RuntimeError: the shapes, dtypes or devices differ.
            Under autocast different dtypes are promoted.
        TypeError: an argument is not a tensor.

    Example:
        >>> import torch, fastact
        >>> gate, up = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([2.0, 2.0, 2.0])
        >>> fastact.functional.relu_mul(gate, up)
        tensor([0., 0., 2.])

    Source: Shazeer 2020, arXiv:2002.05202.
    """
    if (
        type(gate) is Tensor and type(up) is Tensor and not traced()
        and gate.numel() < LEAST.relu_mul and gate.shape == up.shape and gate.dtype is up.dtype
    ):  # fmt: skip
        return _relu(gate) * up
    return gated("relu_mul", "relu", gate, up)


def swiglu(input: Tensor, dim: int = -1) -> Tensor:
    r"""``silu(gate) * up`` of the two halves of a dimension, gate first.

    The halves are read, and their gradients written, where they are: nothing is copied or joined.

    Args:
        input: the size of ``dim`` is even; float32, float64, bfloat16 or float16.
        dim: the dimension to halve.

    Raises:
        RuntimeError: the dimension is odd, or there is none.
        IndexError: ``dim`` is out of range.
        TypeError: ``input`` is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.swiglu(torch.tensor([-1.0, 1.0, 2.0, 2.0]))
        tensor([-0.5379,  1.4621])

    Source: Shazeer 2020, arXiv:2002.05202.
    """
    if (
        dim == -1 and type(input) is Tensor and not traced()
        and input.numel() // 2 < LEAST.silu_glu
        and (shape := input.shape) and shape[-1] % 2 == 0
    ):  # fmt: skip
        gate, up = input.chunk(2, -1)
        return _silu(gate) * up
    return packed("swiglu", "silu", input, dim, True)


def geglu(input: Tensor, approximate: str = "none", dim: int = -1) -> Tensor:
    r"""``gelu(gate) * up`` of the two halves of a dimension, gate first.

    The halves are read, and their gradients written, where they are: nothing is copied or joined.

    Args:
        input: the size of ``dim`` is even; float32, float64, bfloat16 or float16.
        approximate: ``'none'`` or ``'tanh'``.
        dim: the dimension to halve.

    Raises:
        RuntimeError: the dimension is odd, or there is none; or ``approximate`` is something else.
        IndexError: ``dim`` is out of range.
        TypeError: ``input`` is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.geglu(torch.tensor([-1.0, 1.0, 2.0, 2.0]))
        tensor([-0.3173,  1.6827])

    Source: Shazeer 2020, arXiv:2002.05202.
    """
    if (
        approximate == "tanh"  # exact GELU is ours from one element on
        and dim == -1 and type(input) is Tensor and not traced()
        and input.numel() // 2 < LEAST.gelu_tanh_glu
        and (shape := input.shape) and shape[-1] % 2 == 0
    ):  # fmt: skip
        gate, up = input.chunk(2, -1)
        return _gelu_tanh(gate) * up
    return packed("geglu", gelu_variant("geglu", approximate), input, dim, True)


def reglu(input: Tensor, dim: int = -1) -> Tensor:
    r"""``relu(gate) * up`` of the two halves of a dimension, gate first.

    The halves are read, and their gradients written, where they are: nothing is copied or joined.

    Args:
        input: the size of ``dim`` is even; float32, float64, bfloat16 or float16.
        dim: the dimension to halve.

    Raises:
        RuntimeError: the dimension is odd, or there is none.
        IndexError: ``dim`` is out of range.
        TypeError: ``input`` is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.reglu(torch.tensor([-1.0, 1.0, 2.0, 2.0]))
        tensor([0., 2.])

    Source: Shazeer 2020, arXiv:2002.05202.
    """
    if (
        dim == -1 and type(input) is Tensor and not traced()
        and input.numel() // 2 < LEAST.relu_glu
        and (shape := input.shape) and shape[-1] % 2 == 0
    ):  # fmt: skip
        gate, up = input.chunk(2, -1)
        return _relu(gate) * up
    return packed("reglu", "relu", input, dim, True)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    r"""Gated linear unit, :math:`a\,\sigma(b)` for the halves a, b of one dimension.

    Unlike in the functions above the gate comes second, as in torch.

    Args:
        input: the size of ``dim`` is even; float32, float64, bfloat16 or float16.
        dim: the dimension to halve.

    Raises:
        RuntimeError: the dimension is odd, or there is none.
        IndexError: ``dim`` is out of range.
        TypeError: ``input`` is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.glu(torch.tensor([2.0, 2.0, -1.0, 1.0]))
        tensor([0.5379, 1.4621])

    Source: Dauphin et al. 2016, arXiv:1612.08083.
    """
    if (
        dim == -1 and type(input) is Tensor and not traced()
        and input.numel() // 2 < LEAST.sigmoid_glu
    ):  # fmt: skip
        try:
            return torchs_glu(input)
        except RuntimeError:
            pass  # and say it in our words
    return packed("glu", "sigmoid", input, dim, False)
