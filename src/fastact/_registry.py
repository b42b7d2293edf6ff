"""One row per activation: what Python needs to know of it.

The C++ twin of a row is a struct in ``csrc/formulas/activations.h``; a new activation is one of
each, and a short public name in ``functional`` and ``nn`` (CONTRIBUTING.md). Everything else,
schemas, fake kernels, autograd, vmap, the Numba loops, tests, benchmarks and documentation, comes
from these rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import _formulas as f
from . import _originals as F
from ._private import builtin

Scalar = Callable[..., Any]


@dataclass(frozen=True)
class Activation:
    """An elementwise function with its first two derivatives."""

    name: str  # torch.ops.fastact.<name>
    symbol: str  # fastact.autograd.<symbol>
    equation: str  # LaTeX, for the documentation
    reference: Callable[..., Tensor]  # torch's own op, or its composition: (x, *parameters)
    # value, slope and curvature over a vocabulary of elementary functions (_formulas.py)
    formula: Callable[[Any], tuple[Scalar, Scalar, Scalar]]
    parameters: tuple[str, ...] = ()
    defaults: tuple[float, ...] = ()
    # Whether autograd saves the output, given the parameters; None: it always saves the input.
    saves_output: Callable[..., bool] | None = None
    zero_wins: bool = False  # a zero slope stops even an infinite gradient, as torch's
    builtin: Callable[..., Tensor] = field(init=False)  # the reference, of C++ where there is one

    def __post_init__(self) -> None:
        object.__setattr__(self, "builtin", builtin(self.name) or self.reference)

    def saves_its_output(self, parameters: tuple[float, ...]) -> bool:
        """Whether autograd saves the output rather than the input, with these parameters."""
        return self.saves_output is not None and self.saves_output(*parameters)


def _always(*_: float) -> bool:
    return True


def _not_negative(parameter: float) -> bool:
    # With a negative parameter the output no longer tells on which side x was.
    return parameter >= 0


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def _squared_relu(x: Tensor) -> Tensor:
    return F.relu(x).square()


_ROWS = (
    Activation(
        "gelu",
        "GELU",
        r"x\,\Phi(x)",
        F.gelu,
        f.gelu,
    ),
    Activation(
        "gelu_tanh",
        "GELUTanh",
        r"\tfrac12 x\,(1 + \tanh(\sqrt{2/\pi}\,(x + 0.044715\,x^3)))",
        partial(F.gelu, approximate="tanh"),
        f.gelu_tanh,
    ),
    Activation(
        "quick_gelu",
        "QuickGELU",
        r"x\,\sigma(1.702\,x)",
        _quick_gelu,
        f.quick_gelu,
    ),
    Activation("silu", "SiLU", r"x\,\sigma(x)", F.silu, f.silu),
    Activation(
        "sigmoid",
        "Sigmoid",
        r"1 / (1 + e^{-x})",
        torch.sigmoid,
        f.sigmoid,
        saves_output=_always,
    ),
    Activation(
        "tanh",
        "Tanh",
        r"\tanh x",
        torch.tanh,
        f.tanh,
        saves_output=_always,
    ),
    Activation(
        "softplus",
        "Softplus",
        r"\tfrac1\beta \log(1 + e^{\beta x})",
        F.softplus,
        f.softplus,
        parameters=("beta", "threshold"),
        defaults=(1.0, 20.0),
    ),
    Activation(
        "logsigmoid",
        "LogSigmoid",
        r"-\log(1 + e^{-x})",
        F.logsigmoid,
        f.logsigmoid,
    ),
    Activation("mish", "Mish", r"x \tanh(\log(1 + e^x))", F.mish, f.mish),
    Activation(
        "elu",
        "ELU",
        r"x \text{ for } x > 0,\quad \alpha\,(e^x - 1) \text{ otherwise}",
        F.elu,
        f.elu,
        parameters=("alpha",),
        defaults=(1.0,),
    ),
    Activation(
        "selu",
        "SELU",
        r"\lambda x \text{ for } x > 0,\quad \lambda\alpha\,(e^x - 1) \text{ otherwise}",
        F.selu,
        f.selu,
    ),
    Activation(
        "celu",
        "CELU",
        r"x \text{ for } x > 0,\quad \alpha\,(e^{x/\alpha} - 1) \text{ otherwise}",
        F.celu,
        f.celu,
        parameters=("alpha",),
        defaults=(1.0,),
    ),
    Activation(
        "relu",
        "ReLU",
        r"\max(x, 0)",
        F.relu,
        f.relu,
        saves_output=_always,
        zero_wins=True,
    ),
    Activation(
        "relu6",
        "ReLU6",
        r"\min(\max(x, 0), 6)",
        F.relu6,
        f.relu6,
        saves_output=_always,
        zero_wins=True,
    ),
    Activation(
        "leaky_relu",
        "LeakyReLU",
        r"\max(x, 0) + a \min(x, 0)",
        F.leaky_relu,
        f.leaky_relu,
        parameters=("negative_slope",),
        defaults=(0.01,),
        saves_output=_not_negative,
    ),
    Activation(
        "squared_relu",
        "SquaredReLU",
        r"\max(x, 0)^2",
        _squared_relu,
        f.squared_relu,
        zero_wins=True,
    ),
    Activation(
        "hardswish",
        "Hardswish",
        r"x \min(\max(x + 3, 0), 6) / 6",
        F.hardswish,
        f.hardswish,
        zero_wins=True,
    ),
    Activation(
        "hardsigmoid",
        "Hardsigmoid",
        r"\min(\max(x + 3, 0), 6) / 6",
        F.hardsigmoid,
        f.hardsigmoid,
        zero_wins=True,
    ),
)

ACTIVATIONS: dict[str, Activation] = {row.name: row for row in _ROWS}

# The activations that gate, value(gate) * up.
GATES = ("silu", "gelu", "gelu_tanh", "relu", "sigmoid")

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
