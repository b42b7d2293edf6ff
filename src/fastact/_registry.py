"""One row per activation: what Python needs to know of it.

The C++ twin of a row is a struct in ``csrc/formulas/activations.h``; a new activation is one of each,
and a short public name in ``functional.py`` and ``nn.py`` (CONTRIBUTING.md). Everything else, schemas,
fake kernels, autograd, vmap, the Numba loops, tests, benchmarks and documentation, is generated from
these rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Scalar = Callable[..., float]


@dataclass(frozen=True)
class Activation:
    """An elementwise function with its first two derivatives.

    The scalar formulas are double precision Python that Numba compiles. ``slope`` and ``curvature``
    take what autograd saves: the input x, or the output y where ``saves_output``; ``curvature`` is the
    derivative of ``slope`` by that same tensor.
    """

    name: str  # torch.ops.fastact.<name>
    symbol: str  # fastact.autograd.<symbol>
    equation: str  # LaTeX, for the documentation
    reference: Callable[..., Tensor]  # torch's own op, or its composition: (x, *parameters)
    value: Scalar
    slope: Scalar
    curvature: Scalar
    parameters: tuple[str, ...] = ()
    defaults: tuple[float, ...] = ()
    saves_output: Callable[..., bool] | None = None  # by the parameters
    # slope as differentiable torch code, where the output is saved: (y, *parameters)
    slope_of_output: Callable[..., Tensor] | None = None
    # Fewer elements than this go to torch in "auto": measured by benchmarks/cutoffs.py, without and
    # with a gradient to record.
    cutoff: int = 16384
    cutoff_grad: int = 16384

    def saves_its_output(self, parameters: tuple[float, ...]) -> bool:
        """Whether autograd saves the output rather than the input, with these parameters."""
        return self.saves_output is not None and self.saves_output(*parameters)


def _always(*_: float) -> bool:
    return True


def _step(y: Tensor) -> Tensor:
    return (y > 0).to(y.dtype)


def _exponential_slope(scaled_alpha: float, positive: float, input_scale: float, y: Tensor) -> Tensor:
    return torch.where(y > 0, torch.full_like(y, positive), (y + scaled_alpha) * input_scale)


# --------------------------------------------------------------------------------------------------
# Scalar pieces that several formulas share. Numba compiles them with their callers.

_SQRT1_2 = math.sqrt(0.5)
_INV_SQRT_2PI = 1 / math.sqrt(2 * math.pi)
_B0 = math.sqrt(8 / math.pi)
_B1 = 0.044715 * _B0
_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


def _normal(x: float) -> float:
    return 0.5 * math.erfc(-x * _SQRT1_2)


def _density(x: float) -> float:
    return _INV_SQRT_2PI * math.exp(-0.5 * x * x)


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x))) if x == x else x


# x sigmoid(w): slope and curvature from w, w' and x w''.
def _gated_slope(x: float, w: float, dw: float) -> float:
    return _sigmoid(w) * (1.0 + x * dw * _sigmoid(-w))


def _gated_curvature(x: float, w: float, dw: float, xddw: float) -> float:
    s = _sigmoid(w)
    r = _sigmoid(-w)
    return s * r * (2.0 * dw + xddw + x * dw * dw * (r - s))


def _tanh_gelu_w(x: float) -> float:
    return x * (_B0 + _B1 * x * x)


def _tanh_gelu_dw(x: float) -> float:
    return _B0 + 3.0 * _B1 * x * x


def _gelu_curvature(x: float) -> float:
    return _density(x) * (2.0 - x * x)


def _mish_gate_slope(x: float) -> float:
    t = math.tanh(_softplus(x))
    return (1.0 - t * t) * _sigmoid(x)


def _mish_curvature(x: float) -> float:
    t = math.tanh(_softplus(x))
    s = _sigmoid(x)
    d = (1.0 - t * t) * s
    return 2.0 * d + x * d * (_sigmoid(-x) - 2.0 * t * s)


def _softplus_curvature(x: float, beta: float, threshold: float) -> float:
    return 0.0 if x * beta > threshold else beta * _sigmoid(x * beta) * _sigmoid(-x * beta)


def _relu6(x: float) -> float:
    return 0.0 if x < 0.0 else (6.0 if x > 6.0 else x)


def _elu_left_slope(s: float, alpha: float) -> float:
    return alpha * math.exp(s) if alpha < 0.0 else s + alpha


def _hardswish_slope(x: float) -> float:
    return 0.0 if x <= -3.0 else (1.0 if x > 3.0 else x / 3.0 + 0.5)



def _squared_relu(x: Tensor) -> Tensor:
    return F.relu(x).square()


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


_ROWS = (
    Activation(
        "gelu",
        "GELU",
        r"x\,\Phi(x),\quad \Phi(x) = \tfrac12\operatorname{erfc}(-x/\sqrt2)",
        reference=F.gelu,
        value=lambda x: x * _normal(x),
        slope=lambda x: _normal(x) + x * _density(x),
        curvature=_gelu_curvature,
    ),
    Activation(
        "gelu_tanh",
        "GELUTanh",
        r"\tfrac12 x\,(1 + \tanh(\sqrt{2/\pi}\,(x + 0.044715\,x^3)))",
        reference=_gelu_tanh,
        value=lambda x: x * _sigmoid(_tanh_gelu_w(x)),
        slope=lambda x: _gated_slope(x, _tanh_gelu_w(x), _tanh_gelu_dw(x)),
        curvature=lambda x: _gated_curvature(
            x, _tanh_gelu_w(x), _tanh_gelu_dw(x), 6.0 * _B1 * x * x
        ),
    ),
    Activation(
        "quick_gelu",
        "QuickGELU",
        r"x\,\sigma(1.702\,x)",
        reference=_quick_gelu,
        value=lambda x: x * _sigmoid(1.702 * x),
        slope=lambda x: _gated_slope(x, 1.702 * x, 1.702),
        curvature=lambda x: _gated_curvature(x, 1.702 * x, 1.702, 0.0),
    ),
    Activation(
        "silu",
        "SiLU",
        r"x\,\sigma(x)",
        reference=F.silu,
        value=lambda x: x * _sigmoid(x),
        slope=lambda x: _gated_slope(x, x, 1.0),
        curvature=lambda x: _gated_curvature(x, x, 1.0, 0.0),
    ),
    Activation(
        "sigmoid",
        "Sigmoid",
        r"\sigma(x) = 1 / (1 + e^{-x})",
        reference=torch.sigmoid,
        value=_sigmoid,
        slope=lambda y: y * (1.0 - y),
        curvature=lambda y: 1.0 - 2.0 * y,
        saves_output=_always,
        slope_of_output=lambda y: y * (1 - y),
    ),
    Activation(
        "tanh",
        "Tanh",
        r"\tanh x",
        reference=torch.tanh,
        value=math.tanh,
        slope=lambda y: (1.0 - y) * (1.0 + y),
        curvature=lambda y: -2.0 * y,
        saves_output=_always,
        slope_of_output=lambda y: 1 - y * y,
    ),
    Activation(
        "softplus",
        "Softplus",
        r"\tfrac1\beta \log(1 + e^{\beta x})",
        reference=F.softplus,
        parameters=("beta", "threshold"),
        defaults=(1.0, 20.0),
        value=lambda x, beta, threshold: x if x * beta > threshold else _softplus(x * beta) / beta,
        slope=lambda x, beta, threshold: 1.0 if x * beta > threshold else _sigmoid(x * beta),
        curvature=_softplus_curvature,
    ),
    Activation(
        "logsigmoid",
        "LogSigmoid",
        r"\log \sigma(x)",
        reference=F.logsigmoid,
        value=lambda x: -_softplus(-x),
        slope=lambda x: _sigmoid(-x),
        curvature=lambda x: -_sigmoid(x) * _sigmoid(-x),
    ),
    Activation(
        "mish",
        "Mish",
        r"x \tanh(\log(1 + e^x))",
        reference=F.mish,
        value=lambda x: x * math.tanh(_softplus(x)),
        slope=lambda x: math.tanh(_softplus(x)) + x * _mish_gate_slope(x),
        curvature=_mish_curvature,
    ),
    Activation(
        "elu",
        "ELU",
        r"x \text{ for } x > 0,\quad \alpha\,(e^x - 1) \text{ otherwise}",
        reference=F.elu,
        parameters=("alpha",),
        defaults=(1.0,),
        value=lambda x, alpha: x if x > 0.0 else alpha * math.expm1(x),
        slope=lambda s, alpha: 1.0 if s > 0.0 else _elu_left_slope(s, alpha),
        curvature=lambda s, alpha: (
            0.0 if s > 0.0 else (_elu_left_slope(s, alpha) if alpha < 0.0 else 1.0)
        ),
        # With a negative alpha the output no longer tells on which side x was.
        saves_output=lambda alpha: alpha >= 0.0,
        slope_of_output=lambda y, alpha: _exponential_slope(alpha, 1.0, 1.0, y),
    ),
    Activation(
        "selu",
        "SELU",
        r"\lambda x \text{ for } x > 0,\quad \lambda\alpha\,(e^x - 1) \text{ otherwise}",
        reference=F.selu,
        value=lambda x: (
            _SELU_SCALE * x if x > 0.0 else _SELU_SCALE * _SELU_ALPHA * math.expm1(x)
        ),
        slope=lambda y: _SELU_SCALE if y > 0.0 else y + _SELU_SCALE * _SELU_ALPHA,
        curvature=lambda y: 0.0 if y > 0.0 else 1.0,
        saves_output=_always,
        slope_of_output=lambda y: _exponential_slope(
            _SELU_SCALE * _SELU_ALPHA, _SELU_SCALE, 1.0, y
        ),
    ),
    Activation(
        "celu",
        "CELU",
        r"x \text{ for } x > 0,\quad \alpha\,(e^{x/\alpha} - 1) \text{ otherwise}",
        reference=F.celu,
        parameters=("alpha",),
        defaults=(1.0,),
        value=lambda x, alpha: x if x > 0.0 else alpha * math.expm1(x / alpha),
        slope=lambda y, alpha: 1.0 if y > 0.0 else (y + alpha) / alpha,
        curvature=lambda y, alpha: 0.0 if y > 0.0 else 1.0 / alpha,
        saves_output=_always,
        slope_of_output=lambda y, alpha: _exponential_slope(alpha, 1.0, 1 / alpha, y),
    ),
    Activation(
        "relu",
        "ReLU",
        r"\max(x, 0)",
        reference=F.relu,
        value=lambda x: 0.0 if x < 0.0 else x,
        slope=lambda y: 0.0 if y <= 0.0 else 1.0,
        curvature=lambda _: 0.0,
        saves_output=_always,
        slope_of_output=_step,
    ),
    Activation(
        "relu6",
        "ReLU6",
        r"\min(\max(x, 0), 6)",
        reference=F.relu6,
        value=_relu6,
        slope=lambda y: 0.0 if y <= 0.0 or y >= 6.0 else 1.0,
        curvature=lambda _: 0.0,
        saves_output=_always,
        slope_of_output=lambda y: _step(y) * _step(6 - y),
    ),
    Activation(
        "leaky_relu",
        "LeakyReLU",
        r"\max(x, 0) + a \min(x, 0)",
        reference=F.leaky_relu,
        parameters=("negative_slope",),
        defaults=(0.01,),
        value=lambda x, a: x if x > 0.0 else a * x,
        slope=lambda s, a: 1.0 if s > 0.0 else a,
        curvature=lambda _s, _a: 0.0,
        # With a negative slope the output no longer has the sign of x.
        saves_output=lambda a: a >= 0.0,
        slope_of_output=lambda y, a: a + (1 - a) * _step(y),
    ),
    Activation(
        "squared_relu",
        "SquaredReLU",
        r"\max(x, 0)^2",
        reference=_squared_relu,
        value=lambda x: 0.0 if x < 0.0 else x * x,
        slope=lambda x: 0.0 if x < 0.0 else 2.0 * x,
        curvature=lambda x: 2.0 if x > 0.0 else 0.0,
    ),
    Activation(
        "hardswish",
        "Hardswish",
        r"x \min(\max(x + 3, 0), 6) / 6",
        reference=F.hardswish,
        value=lambda x: x * (_relu6(x + 3.0) / 6.0),
        slope=_hardswish_slope,
        curvature=lambda x: 1.0 / 3.0 if -3.0 < x <= 3.0 else 0.0,
    ),
    Activation(
        "hardsigmoid",
        "Hardsigmoid",
        r"\min(\max(x + 3, 0), 6) / 6",
        reference=F.hardsigmoid,
        value=lambda x: _relu6(x + 3.0) / 6.0,
        slope=lambda x: 1.0 / 6.0 if -3.0 < x < 3.0 else 0.0,
        curvature=lambda _: 0.0,
    ),
)

ACTIVATIONS: dict[str, Activation] = {row.name: row for row in _ROWS}

# The activations that gate, value(gate) * up: with the cutoffs, in elements of the gate, without and
# with a gradient to record.
GATES: dict[str, tuple[int, int]] = {
    "silu": (4096, 4096),
    "gelu": (4096, 4096),
    "gelu_tanh": (4096, 4096),
    "relu": (4096, 4096),
    "sigmoid": (4096, 4096),
}

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def differentiate(function: Callable[..., Tensor], order: int) -> Callable[..., Tensor]:
    """The order-th derivative of an elementwise torch function by its first argument."""
    for _ in range(order):
        function = _derivative(function)
    return function


def _derivative(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def total(x: Tensor, *parameters: Any) -> Tensor:
        return function(x, *parameters).sum()

    return torch.func.grad(total)
