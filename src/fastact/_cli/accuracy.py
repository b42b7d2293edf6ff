"""How exact a result is: float64 references that are accurate in the tails, and errors in ulp.

For ``fastact check`` and for the tests. Nothing here is made from fastact's own formulas.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .._registry import Activation

# In ulp of max(|exact|, largest term): what every float32 input keeps to.
VALUE, SLOPE = 3.02, 4.0
# Of the 65,536 inputs of a 16-bit dtype, how many may not be correctly rounded.
MISROUNDED = 16

# x F(x), whose slope F + x F' is a sum of terms of opposite signs.
SELF_GATED = {"gelu", "gelu_tanh", "quick_gelu", "silu", "mish", "hardswish"}
# Whose slope follows from an output that is not exact: how much a change of the output moves it.
FROM_OUTPUT = {"sigmoid": 1, "tanh": 2}


def _sigmoid(w: Tensor) -> Tensor:
    # Not torch.sigmoid: its derivative y (1 - y) cancels where y is close to 1. Below -350 it is
    # 1e-152, which is zero in every dtype that is compared there.
    return 1 / (1 + torch.exp(-w.clamp(min=-350)))


def _negative(x: Tensor) -> Tensor:
    # Not x.clamp(max=0): its derivative at 0 is 1 up to torch 2.13 and 0 from 2.14 on.
    return torch.where(x > 0, 0, x)


def _mish(x: Tensor) -> Tensor:
    # tanh(log(1 + e)) = n / (n + 2) with n = e (e + 2), in two forms against cancellation.
    low, high = torch.exp(_negative(x)), torch.exp(torch.where(x < 0, 0, x).clamp(max=80))
    left = low * (low + 2) / (low * (low + 2) + 2)
    return x * torch.where(x < 0, left, 1 - 2 / (high * (high + 2) + 2))


def _expm1(x: Tensor) -> Tensor:
    # Autograd differentiates expm1 as y + 1, which cancels far below zero.
    return torch.where(x < -1, torch.exp(x) - 1, torch.expm1(x))


# In float64, differentiable by torch's own ops, accurate in the tails and independent of
# fastact._formulas. Piecewise ops are missing: torch's are exact.
EXACT: dict[str, Callable[..., Tensor]] = {
    "gelu": lambda x: 0.5 * x * torch.special.erfc(-x * math.sqrt(0.5)),
    "gelu_tanh": lambda x: x * _sigmoid(math.sqrt(8 / math.pi) * x * (1 + 0.044715 * x.square())),
    "quick_gelu": lambda x: x * _sigmoid(1.702 * x),
    "silu": lambda x: x * _sigmoid(x),
    "sigmoid": _sigmoid,
    "softplus": lambda x, beta, threshold: torch.where(
        beta * x > threshold, x, torch.logaddexp(beta * x, torch.zeros_like(x)) / beta
    ),
    "logsigmoid": lambda x: -torch.logaddexp(-x, torch.zeros_like(x)),
    "mish": _mish,
    "elu": lambda x, alpha: torch.where(x > 0, x, alpha * _expm1(_negative(x))),
    "selu": lambda x: (
        1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * _expm1(_negative(x)))
    ),
    "celu": lambda x, alpha: torch.where(x > 0, x, alpha * _expm1(_negative(x) / alpha)),
    # torch's overflows in x * (x + 3)
    "hardswish": lambda x: torch.where(
        x > -3, torch.where(x < 3, x * (x.clamp(-3, 3) + 3) / 6, x), 0 * _negative(x)
    ),
    # torch's has no second derivative
    "hardsigmoid": lambda x: torch.where((x > -3) & (x < 3), x / 6 + 0.5, (x > 0) * 1.0),
}


def exact_of(row: Activation, parameters: tuple[float, ...] = ()) -> Callable[[Tensor], Tensor]:
    return lambda x: EXACT.get(row.name, row.reference)(x, *parameters)


def derivatives(row: Activation, x: Tensor) -> tuple[Tensor, Tensor]:
    """Value and slope in float64, with the default parameters as the kernels know them."""
    single = torch.tensor(row.defaults, dtype=torch.float64).float().double().tolist()
    at = x.detach().double().requires_grad_()
    value = exact_of(row, tuple(single))(at)
    (slope,) = torch.autograd.grad(value.sum(), at)
    return value.detach(), slope


def slope_terms(row: Activation, x: Tensor, value: Tensor, slope: Tensor) -> Tensor:
    """The largest term of the sum that makes up each slope, in float64."""
    if row.name in SELF_GATED:
        ratio = torch.where(x == 0, 0.0, value / x.double())
        return torch.maximum(ratio.abs(), (slope - ratio).abs())
    if row.name in FROM_OUTPUT:
        return FROM_OUTPUT[row.name] * value.abs().clamp(max=2)
    return slope


def ulp(dtype: torch.dtype, magnitude: Tensor) -> Tensor:
    """The distance of neighbours in dtype at a magnitude, as float64."""
    info = torch.finfo(dtype)
    exponent = torch.frexp(magnitude.abs().double().clamp(max=info.max))[1]
    lowest = math.frexp(info.tiny)[1]
    return torch.ldexp(torch.full_like(magnitude, info.eps, dtype=torch.float64),
                       exponent.clamp(min=lowest) - 1)  # fmt: skip


def rounded(exact: Tensor, dtype: torch.dtype) -> Tensor:
    """Correctly rounded from float64; torch's own conversion to 16 bits rounds to float32 first."""
    unit = ulp(dtype, exact)
    return torch.where(exact.isfinite(), (exact / unit).round() * unit, exact).to(dtype)


def errors(actual: Tensor, exact: Tensor, scale: Tensor | None = None) -> Tensor:
    """The error of each element in ulp of its dtype at max(|exact|, scale).

    It is infinite where one of the two is NaN or infinite and the other is not, or is of the other
    sign.
    """
    y, exact = actual.double(), exact.double()
    limit = torch.finfo(actual.dtype).max
    magnitude = exact.abs() if scale is None else torch.maximum(exact.abs(), scale.abs())
    unit = ulp(actual.dtype, magnitude)
    # What rounds to infinity may be either infinite or the largest finite number.
    exact = torch.where(exact.abs() > limit, torch.copysign(torch.tensor(math.inf), exact), exact)
    near_limit = y.isinf() & (exact.abs() >= limit * (1 - torch.finfo(actual.dtype).eps))
    same = (y == exact) | (y.isnan() & exact.isnan()) | (near_limit & (y.sign() == exact.sign()))
    error = ((y - exact).abs() / unit).nan_to_num(nan=math.inf, posinf=math.inf)
    return torch.where(same, 0.0, error)
