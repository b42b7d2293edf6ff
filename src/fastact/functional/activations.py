"""Elementwise activations.

Tiny tensors notice every Python frame. So each function asks by itself whether torch answers
whatever the dtype (``LEAST``), and calls what torch.nn.functional's function calls then. What a
compiler traces has no size yet.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.compiler import is_dynamo_compiling as traced

from .._backend import LEAST
from .._dispatch import gelu_variant, unary, unary_
from .._originals import gelu as torchs_gelu
from .._registry import ACTIVATIONS, Activation

_GELU, _GELU_TANH = ACTIVATIONS["gelu"], ACTIVATIONS["gelu_tanh"]
_QUICK_GELU, _SQUARED_RELU = ACTIVATIONS["quick_gelu"], ACTIVATIONS["squared_relu"]


def _row(name: str) -> tuple[Activation, Callable[..., Tensor]]:
    """A row, and what torch's function calls: read from a name, as a tiny tensor notices."""
    return ACTIVATIONS[name], ACTIVATIONS[name].builtin


_SILU, _silu = _row("silu")
_RELU, _relu = _row("relu")
_RELU6, _relu6 = _row("relu6")
_LEAKY_RELU, _leaky_relu = _row("leaky_relu")
_ELU, _elu = _row("elu")
_SELU, _selu = _row("selu")
_CELU, _celu = _row("celu")
_SIGMOID, _sigmoid = _row("sigmoid")
_TANH, _tanh = _row("tanh")
_SOFTPLUS, _softplus = _row("softplus")
_LOGSIGMOID, _logsigmoid = _row("logsigmoid")
_MISH, _mish = _row("mish")
_HARDSWISH, _hardswish = _row("hardswish")
_HARDSIGMOID, _hardsigmoid = _row("hardsigmoid")


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
            return torchs_gelu(input, approximate="tanh")
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
        return _silu(input)
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
        return _relu(input)
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
        return _relu6(input)
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
        return _leaky_relu(input, negative_slope)
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
        return _relu(input).square()
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
        return _elu(input, alpha)
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
        return _selu(input)
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
    if type(input) is Tensor and not inplace and not traced() and input.numel() < LEAST.celu:
        return _celu(input, alpha)  # which refuses zero by itself
    if (not isinstance(alpha, Tensor) or alpha.numel() == 1) and alpha == 0:
        raise RuntimeError("celu(): argument 'alpha' must not be zero")
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
        return _sigmoid(input)
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
        return _tanh(input)
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
        try:
            if beta == 1.0 and threshold == 20.0:  # torch reads its own defaults faster
                return _softplus(input)
            return _softplus(input, beta, threshold)
        except (RuntimeError, TypeError):
            pass  # of a tensor of two, say: torch names the argument
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
        return _logsigmoid(input)
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
        return _mish(input)
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
        return _hardswish(input)
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
        return _hardsigmoid(input)
    return (unary_ if inplace else unary)(_HARDSIGMOID, input)
