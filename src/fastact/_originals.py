"""torch's functions as they were when fastact was imported.

What fastact leaves to torch goes to these, and so passes by what ``fastact.patched()`` puts in
their places.
"""

from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    celu,
    cross_entropy,
    elu,
    gelu,
    glu,
    hardsigmoid,
    hardswish,
    leaky_relu,
    log_softmax,
    logsigmoid,
    mish,
    nll_loss,
    relu,
    relu6,
    selu,
    silu,
    softmax,
    softplus,
)

__all__ = [
    "binary_cross_entropy_with_logits",
    "celu",
    "cross_entropy",
    "elu",
    "gelu",
    "glu",
    "hardsigmoid",
    "hardswish",
    "leaky_relu",
    "log_softmax",
    "logsigmoid",
    "mish",
    "nll_loss",
    "relu",
    "relu6",
    "selu",
    "silu",
    "softmax",
    "softplus",
]
