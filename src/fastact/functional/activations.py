"""Elementwise activations.

Tiny tensors notice every Python frame. So each function asks by itself whether torch answers
whatever the dtype (``LEAST``), and calls what torch.nn.functional's function calls then. What a
compiler traces has no size yet.
"""

from __future__ import annotations

from torch import Tensor
from torch.compiler import is_dynamo_compiling as traced

from .. import _originals as F
from .._backend import LEAST
from .._dispatch import gelu_variant, unary, unary_
from .._registry import ACTIVATIONS

_GELU = ACTIVATIONS["gelu"]
_GELU_TANH = ACTIVATIONS["gelu_tanh"]
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
    if approximate == "none":  # ours is faster from one element on
        return unary(_GELU, input)
    if approximate == "tanh":
        if type(input) is Tensor and not traced() and input.numel() < LEAST.gelu_tanh:
            return F.gelu(input, approximate="tanh")
        return unary(_GELU_TANH, input)
    return unary(ACTIVATIONS[gelu_variant("gelu", approximate)], input)  # which raises


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
    if type(input) is Tensor and not inplace and not traced() and input.numel() < LEAST.silu:
        return _SILU.builtin(input)
    return (unary_ if inplace else unary)(_SILU, input)


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
    return unary(_QUICK_GELU, input)


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
    if type(input) is Tensor and not inplace and not traced() and input.numel() < LEAST.relu:
        return _RELU.builtin(input)
    return (unary_ if inplace else unary)(_RELU, input)


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
    if type(input) is Tensor and not inplace and not traced() and input.numel() < LEAST.relu6:
        return _RELU6.builtin(input)
    return (unary_ if inplace else unary)(_RELU6, input)


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
    if type(input) is Tensor and not inplace and not traced() and input.numel() < LEAST.leaky_relu:
        return _LEAKY_RELU.builtin(input, negative_slope)
    return (unary_ if inplace else unary)(_LEAKY_RELU, input, negative_slope)


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
    if type(input) is Tensor and not traced() and input.numel() < LEAST.squared_relu:
        return _SQUARED_RELU.builtin(input)
    return unary(_SQUARED_RELU, input)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    r"""Exponential linear unit: x above zero, :math:`\alpha (e^x - 1)` below.

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
    if type(input) is Tensor and not inplace and not traced() and input.numel() < LEAST.elu:
        return _ELU.builtin(input, alpha)
    return (unary_ if inplace else unary)(_ELU, input, alpha)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    r"""Scaled ELU: :math:`\lambda x` above zero, :math:`\lambda \alpha (e^x - 1)` below.

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
    if type(input) is Tensor and not inplace and not traced() and input.numel() < LEAST.selu:
        return _SELU.builtin(input)
    return (unary_ if inplace else unary)(_SELU, input)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    r"""Continuously differentiable ELU: x above zero, :math:`\alpha (e^{x/\alpha} - 1)` below.

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
    if type(input) is Tensor and not inplace and not traced() and input.numel() < LEAST.celu:
        return _CELU.builtin(input, alpha)
    return (unary_ if inplace else unary)(_CELU, input, alpha)


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
    if type(input) is Tensor and not traced() and input.numel() < LEAST.sigmoid:
        return _SIGMOID.builtin(input)
    return unary(_SIGMOID, input)


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

    Source: LeCun et al. 1998, Efficient BackProp, for its use as an activation.
    """
    if type(input) is Tensor and not traced() and input.numel() < LEAST.tanh:
        return _TANH.builtin(input)
    return unary(_TANH, input)


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
    if type(input) is Tensor and not traced() and input.numel() < LEAST.softplus:
        if beta == 1.0 and threshold == 20.0:  # torch reads its own defaults faster
            return _SOFTPLUS.builtin(input)
        return _SOFTPLUS.builtin(input, beta, threshold)
    return unary(_SOFTPLUS, input, beta, threshold)


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

    Source: the logarithm of :func:`sigmoid`, computed without overflow.
    """
    if type(input) is Tensor and not traced() and input.numel() < LEAST.logsigmoid:
        return _LOGSIGMOID.builtin(input)
    return unary(_LOGSIGMOID, input)


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
    if type(input) is Tensor and not inplace and not traced() and input.numel() < LEAST.mish:
        return _MISH.builtin(input)
    return (unary_ if inplace else unary)(_MISH, input)


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
    if type(input) is Tensor and not inplace and not traced() and input.numel() < LEAST.hardswish:
        return _HARDSWISH.builtin(input)
    return (unary_ if inplace else unary)(_HARDSWISH, input)


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
    if type(input) is Tensor and not inplace and not traced() and input.numel() < LEAST.hardsigmoid:
        return _HARDSIGMOID.builtin(input)
    return (unary_ if inplace else unary)(_HARDSIGMOID, input)
