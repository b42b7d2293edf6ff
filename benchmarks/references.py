"""What the results should be, in float64, and how far others are from it.

The tests and the published table of accuracy (accuracy.py) share it. A row that EXACT does not name
is compared with its torch reference in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

import fastact
from fastact._library import NAMESPACES
from fastact._registry import Activation

Parameters = tuple[float, ...]

# x F(x): the slope F + x F' and the curvature 2 F' + x F'' are sums of terms of opposite signs.
GATED = {"gelu", "gelu_tanh", "quick_gelu", "silu", "mish", "hardswish"}
# Whose slope follows from an output that is not exact: how much a change of the output moves it.
FROM_OUTPUT = {"sigmoid": 1, "tanh": 2}


def _sigmoid(w: Tensor) -> Tensor:
    # Not torch.sigmoid: its derivative y (1 - y) cancels where y is close to 1. Below -350 it is
    # 1e-152, which is zero in every dtype that is compared there.
    return 1 / (1 + torch.exp(-w.clamp(min=-350)))


def _mish(x: Tensor) -> Tensor:
    # tanh(log(1 + e)) = n / (n + 2) with n = e (e + 2), in two forms against cancellation.
    low, high = torch.exp(x.clamp(max=0)), torch.exp(x.clamp(0, 80))
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
    "elu": lambda x, alpha: torch.where(x > 0, x, alpha * _expm1(x.clamp(max=0))),
    "selu": lambda x: (
        1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * _expm1(x.clamp(max=0)))
    ),
    "celu": lambda x, alpha: torch.where(x > 0, x, alpha * _expm1(x.clamp(max=0) / alpha)),
    # torch's overflows in x * (x + 3)
    "hardswish": lambda x: torch.where(
        x > -3, torch.where(x < 3, x * (x.clamp(-3, 3) + 3) / 6, x), 0 * x.clamp(max=0)
    ),
    # torch's has no second derivative
    "hardsigmoid": lambda x: torch.where((x > -3) & (x < 3), x / 6 + 0.5, (x > 0) * 1.0),
}


def exact_of(row: Activation, parameters: tuple[float, ...] = ()) -> Callable[[Tensor], Tensor]:
    return lambda x: EXACT.get(row.name, row.reference)(x, *parameters)


def exact_64(row: Activation, parameters: Parameters, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value, slope and curvature in float64, with the parameters as the kernel knows them."""
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    # CELU's is a divisor, of which the kernel keeps more than a float.
    known = torch.float64 if row.name == "celu" else compute
    parameters = tuple(torch.tensor(parameters, dtype=torch.float64).to(known).tolist())
    x = x.double().requires_grad_()
    value = exact_of(row, parameters)(x)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    if not slope.requires_grad:
        return value.detach(), slope, torch.zeros_like(slope)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    return value.detach(), slope.detach(), curvature


def scales(
    row: Activation,
    parameters: Parameters,
    x: Tensor,
    value: Tensor,
    slope: Tensor,
    curvature: Tensor,
) -> tuple[Tensor, Tensor]:
    """The largest term of slope and of curvature."""
    if row.name in GATED:
        ratio = torch.where(x == 0, 0.0, value / x)
        other = slope - ratio
        term = torch.where(x == 0, 0.0, 2 * other / x)
        return torch.maximum(ratio.abs(), other.abs()), torch.maximum(
            term.abs(), (curvature - term).abs()
        )
    if row.saves_its_output(parameters) and row.name in FROM_OUTPUT:
        return FROM_OUTPUT[row.name] * value.abs().clamp(max=2), curvature
    return slope, curvature


def settled(row: Activation, parameters: Parameters, kind: str, x: Tensor) -> Tensor:
    """Where the exact result is no matter of convention, and not scaled down from an overflow."""
    # A curvature at a kink is torch's: test_edges.py.
    kink = (x == 0) & (kind == "curvature")
    return ~kink & ((x > -62) | ((row.name, parameters) != ("celu", (-0.7,))))


def results(
    row: Activation, parameters: Parameters, x: Tensor, backend: str = "compiled"
) -> dict[str, Tensor]:
    """Value, slope and, where the input is saved, curvature, from the kernels of a backend."""
    with fastact.backend(backend):  # registers its ops
        ops = getattr(torch.ops, NAMESPACES[backend])
    one = torch.ones_like(x)
    y = getattr(ops, row.name)(x, *parameters)
    backward = getattr(ops, row.name + "_backward")
    if row.saves_its_output(parameters):
        return {"value": y, "slope": backward(one, y, *parameters)}
    _, curvature = getattr(ops, row.name + "_double_backward")(one, one, x, *parameters)
    return {"value": y, "slope": backward(one, x, *parameters), "curvature": curvature}


def every_float(step: int) -> Tensor:
    """Every step-th of the 2^32 bit patterns of float32, where it is finite."""
    bits = torch.arange(-(2**31), 2**31 - 1, step, dtype=torch.int64).to(torch.int32)
    x = bits.view(torch.float32)
    return x[x.isfinite()]


def every(dtype: torch.dtype) -> Tensor:
    """Every bit pattern of a 16-bit dtype."""
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)


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
    """The error of each element in ulp of its dtype at max(|exact|, scale); inf where one of the
    two is NaN or infinite and the other is not, or is of the other sign.
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
