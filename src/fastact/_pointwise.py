"""The families of the activations, made from the registry's rows.

Each activation gives one family, and one that gates gives two more, ``silu_mul`` of two tensors and
``silu_glu`` of the halves of one::

    silu(x) -> y
    silu_(x)                                  in place, returns nothing
    silu_backward(grad, saved)                -> grad_x
    silu_double_backward(v, grad, saved)      -> (grad_grad, grad_saved)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._family import Family, elementwise_batching, nothing
from ._formulas import TorchMath
from ._registry import ACTIVATIONS, GATES, Activation


@dataclass(frozen=True, eq=False, kw_only=True)
class PointwiseFamily(Family):
    """A family of kernels that work element by element, made from an activation."""

    activation: Activation
    # The tensor whose layout the output takes: (*primals, *constants) -> Tensor
    like: Callable[..., Tensor]
    packed: bool = False  # of the halves of one tensor


def gate_and_up(x: Tensor, dim: int, gate_first: bool) -> tuple[Tensor, Tensor]:
    """The halves of x along dim, as views."""
    half = x.shape[dim] // 2
    first, second = x.narrow(dim, 0, half), x.narrow(dim, half, half)
    return (first, second) if gate_first else (second, first)


def empty_like(x: Tensor) -> Tensor:
    """An uninitialised tensor with the strides that torch's pointwise ops return for x."""
    return x.new_empty(x.shape) if x.is_contiguous() else torch.empty_like(x)


def _unary_composition(row: Activation) -> Callable[..., tuple[Tensor, ...]]:
    _, slope, curvature = row.formula(TorchMath)

    def composition(v: Tensor, grad: Tensor, saved: Tensor, *p: float) -> tuple[Tensor, ...]:
        return v * slope(saved, *p), v * grad * curvature(saved, *p)

    return composition


def _gated_composition(row: Activation) -> Callable[..., tuple[Tensor, ...]]:
    value, slope, curvature = row.formula(TorchMath)

    def composition(
        v: Tensor, w: Tensor, grad: Tensor, gate: Tensor, up: Tensor
    ) -> tuple[Tensor, ...]:
        f = value(gate)
        saved = f if row.saves_output else gate
        df = slope(saved)
        ddf = curvature(saved) * (df if row.saves_output else 1)
        return v * up * df + w * f, grad * (v * up * ddf + w * df), v * grad * df

    return composition


def _packed_composition(row: Activation) -> Callable[..., tuple[Tensor, ...]]:
    gated = _gated_composition(row)

    def composition(
        v: Tensor, grad: Tensor, x: Tensor, dim: int, gate_first: bool
    ) -> tuple[Tensor, ...]:
        halves = (gate_and_up(t, dim, gate_first) for t in (v, x))
        (v_gate, v_up), (gate, up) = halves
        grad_grad, *grads = gated(v_gate, v_up, grad, gate, up)
        return grad_grad, torch.cat(grads if gate_first else grads[::-1], dim)

    return composition


def _schemas(primals: tuple[str, ...], saved: tuple[str, ...], extra: str) -> tuple[str, str, str]:
    def arguments(*names: str) -> str:
        return ", ".join(f"Tensor {n}" for n in names) + extra

    def tensors(count: int) -> str:
        return "Tensor" if count == 1 else "(" + ", ".join(["Tensor"] * count) + ")"

    v = tuple(f"v_{n}" for n in saved)
    return (
        f"({arguments(*primals)}) -> Tensor",
        f"({arguments('grad', *saved)}) -> {tensors(len(saved))}",
        f"({arguments(*v, 'grad', *saved)}) -> {tensors(1 + len(saved))}",
    )


def _fakes(n: int, like: Callable[..., Tensor]) -> tuple[Callable[..., Any], ...]:
    def forward(*args: Any) -> Tensor:
        return empty_like(like(*args))

    def backward(_grad: Tensor, *args: Any) -> Any:
        grads = tuple(empty_like(t) for t in args[:n])
        return grads[0] if n == 1 else grads

    def double_backward(*args: Any) -> Any:
        saved, constants = args[n + 1 : 2 * n + 1], args[2 * n + 1 :]
        return (empty_like(like(*saved, *constants)), *(empty_like(t) for t in saved))

    return forward, backward, double_backward


def _first(x: Tensor, *_: Any) -> Tensor:
    return x


def _half(x: Tensor, dim: int, gate_first: bool) -> Tensor:
    return gate_and_up(x, dim, gate_first)[0]


def _family(
    name: str,
    symbol: str,
    row: Activation,
    primals: tuple[str, ...],
    constants: tuple[str, ...],
    composition: Callable[..., tuple[Tensor, ...]],
    *,
    saves_output: Callable[..., bool] | None = None,
    like: Callable[..., Tensor] = _first,
    packed: bool = False,
    further: dict[str, tuple[str, Callable[..., Any]]] | None = None,
) -> PointwiseFamily:
    n = len(primals)

    def saved(args: tuple[Any, ...], outputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return outputs if saves_output is not None and saves_output(*args[n:]) else args[:n]

    def no_grads(saved: tuple[Tensor, ...], constants: tuple[Any, ...]) -> tuple[Tensor, ...]:
        return (torch.zeros_like(like(*saved, *constants)),)

    return PointwiseFamily(
        name=name,
        symbol=symbol,
        schemas=_schemas(
            primals, ("saved",) if n == 1 else primals, "".join(f", {c}" for c in constants)
        ),
        fakes=_fakes(n, like),
        batching=(elementwise_batching(-2 if packed else None),) * 3,
        primals=n,
        tensors=n,
        saves=n,
        saved=saved,
        no_grads=no_grads,
        composition=composition,
        symmetric=n == 1 and not packed,
        further=further or {},
        activation=row,
        like=like,
        packed=packed,
    )


def pointwise_families() -> list[PointwiseFamily]:
    """The families of every row, not yet defined."""
    families = []
    for row in ACTIVATIONS.values():
        constants = tuple(f"float {p}" for p in row.parameters)
        inplace = f"({', '.join(('Tensor(a!) x', *constants))}) -> ()"
        families.append(
            _family(
                row.name, row.symbol, row, ("x",), constants, _unary_composition(row),
                saves_output=row.saves_output, further={"_": (inplace, nothing)},
            )
        )  # fmt: skip
    for name in GATES:
        row = ACTIVATIONS[name]
        families += [
            _family(
                f"{name}_mul", f"{row.symbol}Mul", row, ("gate", "up"), (), _gated_composition(row)
            ),
            _family(
                f"{name}_glu", f"{row.symbol}GLU", row, ("x",), ("int dim", "bool gate_first"),
                _packed_composition(row), like=_half, packed=True,
            ),
        ]  # fmt: skip
    return families
