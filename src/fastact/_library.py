"""The registered ops: schemas and fake kernels from the rows, and where their kernels come from.

Each activation gives one family of ops in the namespace ``fastact`` (kernels from the compiled
library) and one in ``fastact_numba`` (kernels from ``_numba.py``)::

    silu(x)                     -> y
    silu_(x)                    in place, returns nothing
    silu_backward(grad, saved)                -> grad_x
    silu_double_backward(v, grad, saved)      -> (grad_grad, grad_saved)

and one that gates gives two more, ``silu_mul`` of two tensors and ``silu_glu`` of the halves of
one.
``v`` is the gradient of the gradient. All three kinds of family look alike from here::

    forward(*primals, *constants) -> y
    backward(grad, *saved, *constants) -> one gradient for each of saved
    double_backward(*v, grad, *saved, *constants) -> (grad_grad, one for each of saved)
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ._formulas import TorchMath
from ._registry import ACTIVATIONS, GATES, Activation

NAMESPACES = {"compiled": "fastact", "numba": "fastact_numba"}


@dataclass(frozen=True, eq=False)
class Family:
    """One op with its derivatives, in one namespace."""

    name: str
    symbol: str
    activation: Activation
    primals: int  # tensor arguments of forward
    saves_output: Callable[..., bool]
    forward: Any  # OpOverloads
    backward: Any
    double_backward: Any
    inplace: Any
    # The tensor whose layout the output takes: (*primals, *constants) -> Tensor
    like: Callable[..., Tensor]
    # (*v, grad, *saved, *constants) -> what double_backward returns, as differentiable torch code
    composition: Callable[..., tuple[Tensor, ...]]
    packed: bool = False


def _schemas(name: str, primals: tuple[str, ...], saved: tuple[str, ...], extra: str) -> list[str]:
    def arguments(*names: str) -> str:
        return ", ".join(f"Tensor {n}" for n in names) + extra

    def tensors(count: int) -> str:
        return "Tensor" if count == 1 else "(" + ", ".join(["Tensor"] * count) + ")"

    v = tuple(f"v_{n}" for n in saved)
    return [
        f"{name}({arguments(*primals)}) -> Tensor",
        f"{name}_backward({arguments('grad', *saved)}) -> {tensors(len(saved))}",
        f"{name}_double_backward({arguments(*v, 'grad', *saved)}) -> {tensors(1 + len(saved))}",
    ]


def gate_and_up(x: Tensor, dim: int, gate_first: bool) -> tuple[Tensor, Tensor]:
    """The halves of x along dim, as views."""
    half = x.shape[dim] // 2
    first, second = x.narrow(dim, 0, half), x.narrow(dim, half, half)
    return (first, second) if gate_first else (second, first)


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


@dataclass(frozen=True)
class _Spec:
    """A family before its ops exist."""

    name: str
    symbol: str
    activation: Activation
    primals: tuple[str, ...]
    constants: tuple[str, ...]
    saves_output: Callable[..., bool]
    like: Callable[..., Tensor]
    composition: Callable[..., tuple[Tensor, ...]]
    packed: bool = False
    inplace: bool = False


def _first(x: Tensor, *_: Any) -> Tensor:
    return x


def _half(x: Tensor, dim: int, gate_first: bool) -> Tensor:
    return gate_and_up(x, dim, gate_first)[0]


def _never(*_: Any) -> bool:
    return False


def _specs() -> list[_Spec]:
    specs = []
    for row in ACTIVATIONS.values():
        constants = tuple(f"float {p}" for p in row.parameters)
        saves = row.saves_output or _never
        specs.append(
            _Spec(
                row.name, row.symbol, row, ("x",), constants, saves, _first,
                _unary_composition(row), inplace=True,
            )
        )  # fmt: skip
    for name in GATES:
        row = ACTIVATIONS[name]
        specs.append(
            _Spec(
                f"{name}_mul", f"{row.symbol}Mul", row, ("gate", "up"), (), _never, _first,
                _gated_composition(row),
            )
        )  # fmt: skip
        specs.append(
            _Spec(
                f"{name}_glu", f"{row.symbol}GLU", row, ("x",), ("int dim", "bool gate_first"),
                _never, _half, _packed_composition(row), packed=True,
            )
        )  # fmt: skip
    return specs


def empty_like(x: Tensor) -> Tensor:
    """An uninitialised tensor with the strides that torch's pointwise ops return for x."""
    return x.new_empty(x.shape) if x.is_contiguous() else torch.empty_like(x)


def _fakes(spec: _Spec) -> list[Callable[..., Any]]:
    n = len(spec.primals)

    def forward(*args: Any) -> Tensor:
        return empty_like(spec.like(*args))

    def backward(_grad: Tensor, *args: Any) -> Any:
        grads = tuple(empty_like(t) for t in args[:n])
        return grads[0] if n == 1 else grads

    def double_backward(*args: Any) -> Any:
        saved, constants = args[n + 1 : 2 * n + 1], args[2 * n + 1 :]
        like = spec.like(*saved, *constants)
        return (empty_like(like), *(empty_like(t) for t in saved))

    return [forward, backward, double_backward]


# torch.library.Library objects unregister their ops when they are collected.
_libraries: dict[str, torch.library.Library] = {}


@cache
def families(namespace: str) -> dict[str, Family]:
    """Defines the ops of a namespace, with their fake kernels, and returns them by name."""
    library = _libraries[namespace] = torch.library.Library(namespace, "DEF")
    ops = getattr(torch.ops, namespace)
    result = {}
    for spec in _specs():
        extra = "".join(f", {c}" for c in spec.constants)
        saved = ("saved",) if len(spec.primals) == 1 else spec.primals
        for schema, fake in zip(
            _schemas(spec.name, spec.primals, saved, extra), _fakes(spec), strict=True
        ):
            library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
            library.impl(schema.partition("(")[0], fake, "Meta")
        if spec.inplace:
            library.define(f"{spec.name}_(Tensor(a!) x{extra}) -> ()")
            library.impl(f"{spec.name}_", lambda *_: None, "Meta")
        result[spec.name] = Family(
            spec.name,
            spec.symbol,
            spec.activation,
            len(spec.primals),
            spec.saves_output,
            getattr(ops, spec.name).default,
            getattr(ops, f"{spec.name}_backward").default,
            getattr(ops, f"{spec.name}_double_backward").default,
            getattr(ops, f"{spec.name}_").default if spec.inplace else None,
            spec.like,
            spec.composition,
            spec.packed,
        )
    return result


def library(namespace: str) -> torch.library.Library:
    """The torch.library.Library that defined a namespace."""
    families(namespace)
    return _libraries[namespace]


# --------------------------------------------------------------------------------------------------
# The compiled library


class CpuLibrary:
    """``libfastact_cpu.so``, or the reason why there is none."""

    def __init__(self) -> None:
        self.error: str | None = None
        self._c: ctypes.CDLL | None = None
        path = self._find()
        if path is None:
            self.error = (
                "fastact was installed without compiled kernels; to get them, install a C++20 "
                "compiler and torch >= 2.10, then run: pip install --no-build-isolation "
                "--force-reinstall --no-deps fastact"
            )
            return
        families("fastact")  # the schemas come first
        try:
            torch.ops.load_library(str(path))
            self._c = ctypes.CDLL(str(path))
        except OSError as error:
            self.error = f"{path.name} could not be loaded: {error}"
            return
        self._c.fastact_cpu_isas.restype = ctypes.c_char_p
        self._c.fastact_cpu_isa.restype = ctypes.c_char_p
        self._c.fastact_cpu_use_isa.restype = ctypes.c_bool
        self._c.fastact_cpu_use_isa.argtypes = [ctypes.c_char_p]
        if not self.isas:
            self.error = "the compiled kernels need a processor with at least x86-64-v2"
            self._c = None
            return
        if forced := os.environ.get("FASTACT_CPU_ISA"):
            self.use_isa(forced)

    @staticmethod
    def _find() -> Path | None:
        if named := os.environ.get("FASTACT_LIBRARY"):  # a build under sanitizers, say
            return Path(named)
        # In an editable install the package has two folders: sources, and what was built.
        from . import __path__ as folders

        for folder in folders:
            for path in sorted(Path(folder, "lib").glob("libfastact_cpu.*")):
                return path
        return None

    @property
    def isas(self) -> tuple[str, ...]:
        """The instruction sets that can be used here, best first."""
        if self._c is None:
            return ()
        return tuple(self._c.fastact_cpu_isas().decode().split())

    @property
    def isa(self) -> str:
        """The instruction set in use."""
        return "" if self._c is None else str(self._c.fastact_cpu_isa().decode())

    def use_isa(self, name: str) -> None:
        """Uses the kernels built for an instruction set from now on, in the whole process."""
        if self._c is None or not self._c.fastact_cpu_use_isa(name.encode()):
            raise RuntimeError(
                f"FASTACT_CPU_ISA={name!r} is not available here; expected one of "
                f"{', '.join(self.isas) or 'none: there are no compiled kernels'}"
            )


@cache
def cpu() -> CpuLibrary:
    """Loads the compiled CPU library, once."""
    return CpuLibrary()
