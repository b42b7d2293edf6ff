"""Functions with the names, signatures, defaults and ``inplace`` arguments of torch.nn.functional.

Every function takes float32, float64, bfloat16 and float16 tensors of any layout on the CPU, is
differentiable to any order in reverse and forward mode, and works under torch.func, torch.compile,
autocast and checkpointing. What no kernel here serves (other dtypes and devices, sparse and quantised
tensors, tensor subclasses) goes to torch's own op, unless a backend is forced.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import Parameter

from ._autograd import Functions, below_autograd, transforms_active
from ._backend import STATE
from ._library import gate_and_up
from ._registry import ACTIVATIONS, DTYPES, GATES, Activation

__all__ = [
    "celu",
    "elu",
    "geglu",
    "gelu",
    "gelu_mul",
    "glu",
    "hardsigmoid",
    "hardswish",
    "leaky_relu",
    "logsigmoid",
    "mish",
    "quick_gelu",
    "reglu",
    "relu",
    "relu6",
    "relu_mul",
    "selu",
    "sigmoid",
    "silu",
    "silu_mul",
    "softplus",
    "squared_relu",
    "swiglu",
    "tanh",
]

_PLAIN = frozenset({Tensor, Parameter})
_DTYPES = frozenset(DTYPES)

_SILU = ACTIVATIONS["silu"]
_QUICK_GELU = ACTIVATIONS["quick_gelu"]
_RELU = ACTIVATIONS["relu"]
_RELU6 = ACTIVATIONS["relu6"]
_LEAKY_RELU = ACTIVATIONS["leaky_relu"]
_SQUARED_RELU = ACTIVATIONS["squared_relu"]
_ELU = ACTIVATIONS["elu"]
_SELU = ACTIVATIONS["selu"]
_CELU = ACTIVATIONS["celu"]
_SIGMOID = ACTIVATIONS["sigmoid"]
_TANH = ACTIVATIONS["tanh"]
_SOFTPLUS = ACTIVATIONS["softplus"]
_LOGSIGMOID = ACTIVATIONS["logsigmoid"]
_MISH = ACTIVATIONS["mish"]
_HARDSWISH = ACTIVATIONS["hardswish"]
_HARDSIGMOID = ACTIVATIONS["hardsigmoid"]


def _serves(x: Tensor) -> bool:
    """Whether a kernel of ours takes this tensor."""
    return (
        (type(x) in _PLAIN or torch.compiler.is_compiling())
        and x.is_cpu
        and x.dtype in _DTYPES
        and x.layout is torch.strided
    )


def _torch_answers(op: str, argument: str, x: object) -> bool:
    """True where torch's own op has to answer; raises where a forced backend cannot."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}(): argument '{argument}' must be Tensor, not {type(x).__name__}")
    choice = STATE.choice
    if choice.functions is None:
        return True
    if _serves(x):
        return False
    if choice.name != "auto":
        raise NotImplementedError(
            f"{op}(): the backend {choice.name!r} takes strided float32, float64, bfloat16 and "
            f"float16 tensors on the CPU; argument '{argument}' is a {type(x).__name__} of "
            f"{x.dtype} on {x.device} ({x.layout})"
        )
    return True


def _apply(functions: Functions, records: bool, *args: Any) -> Any:
    if transforms_active():
        return functions.family.forward(*args)
    if records:
        return functions.forward.record(*args)
    with below_autograd():
        return functions.family.forward(*args)


def _unary(row: Activation, x: Tensor, *parameters: float) -> Any:
    if _torch_answers(row.name, "input", x):
        return row.reference(x, *parameters)
    choice = STATE.choice
    records = x.requires_grad and torch.is_grad_enabled()
    if choice.cutoffs and x.numel() < (row.cutoff_grad if records else row.cutoff):
        return row.reference(x, *parameters)
    return _apply(choice.functions[row.name], records, x, *parameters)


def _unary_(row: Activation, x: Tensor, *parameters: float) -> Any:
    """In place. The value is written over x once nothing can go wrong any more."""
    if _torch_answers(row.name, "input", x):
        return row.reference(x, *parameters, inplace=True)
    choice = STATE.choice
    records = x.requires_grad and torch.is_grad_enabled()
    if choice.cutoffs and x.numel() < (row.cutoff_grad if records else row.cutoff):
        return row.reference(x, *parameters, inplace=True)
    functions = choice.functions[row.name]
    if transforms_active() or (records and (x.is_leaf or x._is_view())):
        # copy_ knows what may be written to, and how the history of views changes.
        return x.copy_(_apply(functions, records, x.clone(), *parameters))
    if records:
        # As torch: where the input is needed for the backward pass, it is kept in a clone.
        original = None if row.saves_its_output(parameters) else x.clone()
        return functions.inplace.record(x, original, *parameters)
    with below_autograd():
        functions.family.inplace(x, *parameters)
    return x


def _gated(op: str, gate_name: str, gate: Tensor, up: Tensor) -> Any:
    row = ACTIVATIONS[gate_name]
    from_torch = _torch_answers(op, "gate", gate) | _torch_answers(op, "up", up)
    if gate.shape != up.shape:
        raise RuntimeError(
            f"{op}(): expected gate and up to have the same shape; got gate {tuple(gate.shape)} and "
            f"up {tuple(up.shape)}"
        )
    if gate.device != up.device:
        raise RuntimeError(
            f"{op}(): expected gate and up to be on the same device; got gate on {gate.device} and "
            f"up on {up.device}"
        )
    if gate.dtype != up.dtype:
        if not torch.is_autocast_enabled(gate.device.type):
            raise RuntimeError(
                f"{op}(): expected gate and up to have the same dtype; got gate {gate.dtype} and "
                f"up {up.dtype}"
            )
        dtype = torch.promote_types(gate.dtype, up.dtype)
        gate, up = gate.to(dtype), up.to(dtype)
    choice = STATE.choice
    records = torch.is_grad_enabled() and (gate.requires_grad or up.requires_grad)
    if from_torch or (choice.cutoffs and gate.numel() < GATES[gate_name][records]):
        return row.reference(gate) * up
    return _apply(choice.functions[f"{gate_name}_mul"], records, gate, up)


def _packed(op: str, gate_name: str, x: Tensor, dim: int, gate_first: bool) -> Any:
    row = ACTIVATIONS[gate_name]
    from_torch = _torch_answers(op, "input", x)
    if x.dim() == 0:
        raise RuntimeError(f"{op}(): argument 'input' has no dimension to halve")
    if not -x.dim() <= dim < x.dim():
        raise IndexError(
            f"{op}(): dimension out of range (expected to be in range of [{-x.dim()}, "
            f"{x.dim() - 1}], but got dim {dim})"
        )
    dim %= x.dim()
    if x.shape[dim] % 2:
        raise RuntimeError(
            f"{op}(): the halved dimension must be even, but dimension {dim} of argument 'input' "
            f"with shape {tuple(x.shape)} has size {x.shape[dim]}"
        )
    choice = STATE.choice
    records = x.requires_grad and torch.is_grad_enabled()
    if from_torch or (choice.cutoffs and x.numel() < 2 * GATES[gate_name][records]):
        if op == "glu":
            return torch.nn.functional.glu(x, dim)
        gate, up = gate_and_up(x, dim, gate_first)
        return row.reference(gate) * up
    return _apply(choice.functions[f"{gate_name}_glu"], records, x, dim, gate_first)


def _gelu_variant(op: str, approximate: str) -> str:
    if approximate == "none":
        return "gelu"
    if approximate == "tanh":
        return "gelu_tanh"
    raise RuntimeError(f"{op}(): approximate must be 'none' or 'tanh', but got {approximate!r}")


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    r"""Gaussian error linear unit, :math:`x\,\Phi(x)`.

    With ``approximate="tanh"``,
    :math:`\tfrac12 x (1 + \tanh(\sqrt{2/\pi}(x + 0.044715 x^3)))`.

    Args:
        input: any shape; float32, float64, bfloat16 or float16.
        approximate: ``"none"`` or ``"tanh"``.

    Raises:
        RuntimeError: ``approximate`` is something else.
        TypeError: ``input`` is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.gelu(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([-0.1587,  0.0000,  0.8413])

    Source: Hendrycks & Gimpel 2016, arXiv:1606.08415.
    """
    return _unary(ACTIVATIONS[_gelu_variant("gelu", approximate)], input)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    r"""SiLU, or swish, :math:`x\,\sigma(x)`.

    Args:
        input: any shape; float32, float64, bfloat16 or float16.
        inplace: whether to overwrite ``input`` and return it.

    Raises:
        TypeError: ``input`` is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.silu(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([-0.2689,  0.0000,  0.7311])

    Source: Elfwing et al. 2017, arXiv:1702.03118.
    """
    return (_unary_ if inplace else _unary)(_SILU, input)


def quick_gelu(input: Tensor) -> Tensor:
    r"""The sigmoid approximation of GELU, :math:`x\,\sigma(1.702\,x)`.

    Args:
        input: any shape; float32, float64, bfloat16 or float16.

    Raises:
        TypeError: ``input`` is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.quick_gelu(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([-0.1542,  0.0000,  0.8458])

    Source: Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2.
    """
    return _unary(_QUICK_GELU, input)


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    r"""Rectified linear unit, :math:`\max(x, 0)`.

    Args:
        input: any shape; float32, float64, bfloat16 or float16.
        inplace: whether to overwrite ``input`` and return it.

    Raises:
        TypeError: ``input`` is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.relu(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([0., 0., 1.])

    Source: Nair & Hinton 2010.
    """
    return (_unary_ if inplace else _unary)(_RELU, input)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    r"""ReLU capped at 6, :math:`\min(\max(x, 0), 6)`.

    Args:
        input: any shape; float32, float64, bfloat16 or float16.
        inplace: whether to overwrite ``input`` and return it.

    Raises:
        TypeError: ``input`` is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.relu6(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([0., 0., 1.])

    Source: Krizhevsky 2010, Convolutional deep belief networks on CIFAR-10.
    """
    return (_unary_ if inplace else _unary)(_RELU6, input)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    r"""Leaky ReLU, :math:`\max(x, 0) + a \min(x, 0)`.

    Args:
        input: any shape; float32, float64, bfloat16 or float16.
        negative_slope: a, the slope below zero.
        inplace: whether to overwrite ``input`` and return it.

    Raises:
        TypeError: ``input`` is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.leaky_relu(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([-0.0100,  0.0000,  1.0000])

    Source: Maas et al. 2013.
    """
    return (_unary_ if inplace else _unary)(_LEAKY_RELU, input, negative_slope)


def squared_relu(input: Tensor) -> Tensor:
    r"""Squared ReLU, :math:`\max(x, 0)^2`.

    Args:
        input: any shape; float32, float64, bfloat16 or float16.

    Raises:
        TypeError: ``input`` is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.squared_relu(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([0., 0., 1.])

    Source: So et al. 2021, arXiv:2109.08668.
    """
    return _unary(_SQUARED_RELU, input)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    r"""Exponential linear unit, :math:`x \text{ for } x > 0, \alpha (e^x - 1) \text{ otherwise}`.

    Args:
        input: any shape; float32, float64, bfloat16 or float16.
        alpha: the value reached at minus infinity, negated.
        inplace: whether to overwrite ``input`` and return it.

    Raises:
        TypeError: ``input`` is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.elu(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([-0.6321,  0.0000,  1.0000])

    Source: Clevert et al. 2015, arXiv:1511.07289.
    """
    return (_unary_ if inplace else _unary)(_ELU, input, alpha)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    r"""Scaled ELU, :math:`\lambda x \text{ for } x > 0, \lambda \alpha (e^x - 1) \text{ otherwise}`.

    Args:
        input: any shape; float32, float64, bfloat16 or float16.
        inplace: whether to overwrite ``input`` and return it.

    Raises:
        TypeError: ``input`` is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.selu(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([-1.1113,  0.0000,  1.0507])

    Source: Klambauer et al. 2017, arXiv:1706.02515.
    """
    return (_unary_ if inplace else _unary)(_SELU, input)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    r"""Continuously differentiable ELU, :math:`x \text{ for } x > 0, \alpha (e^{x/\alpha} - 1) \text{ otherwise}`.

    Args:
        input: any shape; float32, float64, bfloat16 or float16.
        alpha: the value reached at minus infinity, negated; not 0.
        inplace: whether to overwrite ``input`` and return it.

    Raises:
        TypeError: ``input`` is not a tensor.
        RuntimeError: ``alpha`` is zero.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.celu(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([-0.6321,  0.0000,  1.0000])

    Source: Barron 2017, arXiv:1704.07483.
    """
    if alpha == 0:
        raise RuntimeError("celu(): argument 'alpha' must not be zero")
    return (_unary_ if inplace else _unary)(_CELU, input, alpha)


def sigmoid(input: Tensor) -> Tensor:
    r"""Logistic function, :math:`1 / (1 + e^{-x})`.

    Args:
        input: any shape; float32, float64, bfloat16 or float16.

    Raises:
        TypeError: ``input`` is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.sigmoid(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([0.2689, 0.5000, 0.7311])

    Source: Verhulst 1845.
    """
    return _unary(_SIGMOID, input)


def tanh(input: Tensor) -> Tensor:
    r"""Hyperbolic tangent, :math:`\tanh x`.

    Args:
        input: any shape; float32, float64, bfloat16 or float16.

    Raises:
        TypeError: ``input`` is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.tanh(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([-0.7616,  0.0000,  0.7616])
    """
    return _unary(_TANH, input)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    r"""Softplus, :math:`\tfrac{1}{\beta} \log(1 + e^{\beta x})`.

    Args:
        input: any shape; float32, float64, bfloat16 or float16.
        beta: sharpness.
        threshold: where ``beta * x`` is above it, the function is the identity.

    Raises:
        TypeError: ``input`` is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.softplus(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([0.3133, 0.6931, 1.3133])

    Source: Dugas et al. 2001.
    """
    return _unary(_SOFTPLUS, input, beta, threshold)


def logsigmoid(input: Tensor) -> Tensor:
    r"""Logarithm of the logistic function, :math:`-\log(1 + e^{-x})`.

    Args:
        input: any shape; float32, float64, bfloat16 or float16.

    Raises:
        TypeError: ``input`` is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.logsigmoid(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([-1.3133, -0.6931, -0.3133])
    """
    return _unary(_LOGSIGMOID, input)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    r"""Mish, :math:`x \tanh(\log(1 + e^x))`.

    Args:
        input: any shape; float32, float64, bfloat16 or float16.
        inplace: whether to overwrite ``input`` and return it.

    Raises:
        TypeError: ``input`` is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.mish(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([-0.3034,  0.0000,  0.8651])

    Source: Misra 2019, arXiv:1908.08681.
    """
    return (_unary_ if inplace else _unary)(_MISH, input)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    r"""Hard swish, :math:`x \min(\max(x + 3, 0), 6) / 6`.

    Args:
        input: any shape; float32, float64, bfloat16 or float16.
        inplace: whether to overwrite ``input`` and return it.

    Raises:
        TypeError: ``input`` is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.hardswish(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([-0.3333,  0.0000,  0.6667])

    Source: Howard et al. 2019, arXiv:1905.02244.
    """
    return (_unary_ if inplace else _unary)(_HARDSWISH, input)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    r"""Hard sigmoid, :math:`\min(\max(x + 3, 0), 6) / 6`.

    Args:
        input: any shape; float32, float64, bfloat16 or float16.
        inplace: whether to overwrite ``input`` and return it.

    Raises:
        TypeError: ``input`` is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.hardsigmoid(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([0.3333, 0.5000, 0.6667])

    Source: Courbariaux et al. 2015, arXiv:1511.00363.
    """
    return (_unary_ if inplace else _unary)(_HARDSIGMOID, input)


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
        >>> fastact.functional.silu_mul(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([2.0, 2.0, 2.0]))
        tensor([-0.5379,  0.0000,  1.4621])

    Source: Shazeer 2020, arXiv:2002.05202.
    """
    return _gated("silu_mul", "silu", gate, up)


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
        >>> fastact.functional.gelu_mul(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([2.0, 2.0, 2.0]))
        tensor([-0.3173,  0.0000,  1.6827])

    Source: Shazeer 2020, arXiv:2002.05202.
    """
    return _gated("gelu_mul", _gelu_variant("gelu_mul", approximate), gate, up)


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
        >>> fastact.functional.relu_mul(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([2.0, 2.0, 2.0]))
        tensor([0., 0., 2.])

    Source: Shazeer 2020, arXiv:2002.05202.
    """
    return _gated("relu_mul", "relu", gate, up)


def swiglu(input: Tensor) -> Tensor:
    r"""``silu(gate) * up`` of the two halves of the last dimension, gate first.

    The halves are read, and their gradients written, where they are: nothing is copied or joined.

    Args:
        input: shape (\*, 2 N), gives (\*, N); float32, float64, bfloat16 or float16.

    Raises:
        RuntimeError: the last dimension is odd, or there is none.
        TypeError: ``input`` is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.swiglu(torch.tensor([-1.0, 1.0, 2.0, 2.0]))
        tensor([-0.5379,  1.4621])

    Source: Shazeer 2020, arXiv:2002.05202.
    """
    return _packed("swiglu", "silu", input, -1, True)


def geglu(input: Tensor, approximate: str = "none") -> Tensor:
    r"""``gelu(gate) * up`` of the two halves of the last dimension, gate first.

    The halves are read, and their gradients written, where they are: nothing is copied or joined.

    Args:
        input: shape (\*, 2 N), gives (\*, N); float32, float64, bfloat16 or float16.
        approximate: ``'none'`` or ``'tanh'``.

    Raises:
        RuntimeError: the last dimension is odd, or there is none; ``approximate`` is something else.
        TypeError: ``input`` is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.geglu(torch.tensor([-1.0, 1.0, 2.0, 2.0]))
        tensor([-0.3173,  1.6827])

    Source: Shazeer 2020, arXiv:2002.05202.
    """
    return _packed("geglu", _gelu_variant("geglu", approximate), input, -1, True)


def reglu(input: Tensor) -> Tensor:
    r"""``relu(gate) * up`` of the two halves of the last dimension, gate first.

    The halves are read, and their gradients written, where they are: nothing is copied or joined.

    Args:
        input: shape (\*, 2 N), gives (\*, N); float32, float64, bfloat16 or float16.

    Raises:
        RuntimeError: the last dimension is odd, or there is none.
        TypeError: ``input`` is not a tensor.

    Example:
        >>> import torch, fastact
        >>> fastact.functional.reglu(torch.tensor([-1.0, 1.0, 2.0, 2.0]))
        tensor([0., 2.])

    Source: Shazeer 2020, arXiv:2002.05202.
    """
    return _packed("reglu", "relu", input, -1, True)


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
    return _packed("glu", "sigmoid", input, dim, False)
