"""What the tests and the published table of accuracy (accuracy.py) compare, and where.

The exact functions and the errors are those of ``fastact check``.
"""

from __future__ import annotations

import torch
from torch import Tensor

import fastact
from fastact._cli.accuracy import FROM_OUTPUT, SELF_GATED, exact_of
from fastact._library import NAMESPACES
from fastact._registry import Activation

Parameters = tuple[float, ...]


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
    if row.name in SELF_GATED:
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
