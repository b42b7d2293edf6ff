"""Functions with the names, signatures, defaults and ``inplace`` arguments of torch.nn.functional.

Every function takes float32, float64, bfloat16 and float16 tensors of any layout on the CPU, is
differentiable to any order in reverse and forward mode, and works under torch.func, torch.compile,
autocast and checkpointing. What no kernel here serves (other dtypes and devices, sparse and
quantised tensors, tensor subclasses but DTensor) goes to torch's own op, unless a backend is
forced.
"""

from .activations import (
    celu,
    elu,
    gelu,
    hardsigmoid,
    hardswish,
    leaky_relu,
    logsigmoid,
    mish,
    quick_gelu,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softplus,
    squared_relu,
    tanh,
)
from .gated import geglu, gelu_mul, glu, reglu, relu_mul, silu_mul, swiglu
from .losses import binary_cross_entropy_with_logits, cross_entropy, nll_loss
from .softmax import log_softmax, softmax

__all__ = [
    "binary_cross_entropy_with_logits",
    "celu",
    "cross_entropy",
    "elu",
    "geglu",
    "gelu",
    "gelu_mul",
    "glu",
    "hardsigmoid",
    "hardswish",
    "leaky_relu",
    "log_softmax",
    "logsigmoid",
    "mish",
    "nll_loss",
    "quick_gelu",
    "reglu",
    "relu",
    "relu6",
    "relu_mul",
    "selu",
    "sigmoid",
    "silu",
    "silu_mul",
    "softmax",
    "softplus",
    "squared_relu",
    "swiglu",
    "tanh",
]
