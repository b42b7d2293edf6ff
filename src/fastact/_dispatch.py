"""From a public function to a kernel: who answers a call, and by which way."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import Parameter

from . import _originals
from ._autograd import Functions, transforms_active
from ._backend import STATE
from ._pointwise import gate_and_up
from ._private import FakeTensor, below_autograd
from ._registry import ACTIVATIONS, DTYPES, GATES, Activation

PLAIN = frozenset({Tensor, Parameter, FakeTensor})
_DTYPES = frozenset(DTYPES)


def _serves(x: Tensor) -> bool:
    """Whether a kernel of ours takes this tensor."""
    return (
        (type(x) in PLAIN or torch.compiler.is_compiling())
        and x.is_cpu
        and x.dtype in _DTYPES
        and x.layout is torch.strided
    )


def is_served(op: str, argument: str, x: object) -> bool:
    """Whether a kernel of ours answers; raises where neither it nor torch can."""
    choice = STATE.choice
    if choice.functions and isinstance(x, Tensor) and _serves(x):
        return True
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}(): argument '{argument}' must be Tensor, not {type(x).__name__}")
    if choice.name in ("compiled", "numba"):
        raise NotImplementedError(
            f"{op}(): the backend {choice.name!r} takes strided float32, float64, bfloat16 and "
            f"float16 tensors on the CPU; argument '{argument}' is a {type(x).__name__} of "
            f"{x.dtype} on {x.device} ({x.layout})"
        )
    return False


def _numbers(row: Activation, parameters: tuple[Any, ...]) -> tuple[Any, ...]:
    """The parameters as the op takes them, from whatever torch takes for a number."""
    taken = []
    for name, value in zip(row.parameters, parameters, strict=True):
        if isinstance(value, Tensor) and value.numel() == 1 and not value.requires_grad:
            value = value.item()
        elif isinstance(value, Real) and not isinstance(value, (float, int)):
            value = float(value)  # NumPy's
        if not isinstance(value, (float, int, torch.SymFloat, torch.SymInt)):
            raise TypeError(
                f"{row.name}(): argument '{name}' must be float, not {type(value).__name__}"
            )
        taken.append(value)
    return tuple(taken)


def apply(functions: Functions, records: bool, *args: Any) -> Any:
    """An op's differentiable outputs, by the cheapest way that is right: see _autograd.py."""
    if transforms_active():
        result = functions.family.forward(*args)
    elif records:
        return functions.eager.record(*args)
    else:
        with below_autograd():
            result = functions.family.forward(*args)
    if isinstance(result, Tensor):
        return result
    return functions.family.asked(result, args[functions.family.tensors :])


def unary(row: Activation, x: Tensor, *parameters: float) -> Tensor:
    """An elementwise activation of one tensor."""
    if STATE.choice.cutoffs and type(x) in PLAIN and x.numel() < row.smallest:
        return row.reference(x, *parameters)  # what tiny tensors notice is every check
    if not is_served(row.name, "input", x):
        return row.reference(x, *parameters)
    choice = STATE.choice
    records = x.requires_grad and torch.is_grad_enabled()
    if choice.cutoffs and x.numel() < (row.cutoff_grad if records else row.cutoff):
        return row.reference(x, *parameters)
    if parameters:
        parameters = _numbers(row, parameters)
    y: Tensor = apply(choice.functions[row.name], records, x, *parameters)
    return y


def unary_(row: Activation, x: Tensor, *parameters: float) -> Tensor:
    """In place. The value is written over x once nothing can go wrong any more."""
    if not is_served(row.name, "input", x):
        return row.reference(x, *parameters, inplace=True)
    choice = STATE.choice
    records = x.requires_grad and torch.is_grad_enabled()
    if choice.cutoffs and x.numel() < (row.cutoff_grad if records else row.cutoff):
        return row.reference(x, *parameters, inplace=True)
    functions = choice.functions[row.name]
    parameters = _numbers(row, parameters)
    if any(stride == 0 and size > 1 for stride, size in zip(x.stride(), x.shape, strict=True)):
        raise RuntimeError(
            f"{row.name}(): argument 'input' of shape {tuple(x.shape)} and strides {x.stride()} "
            "has several elements in one place of memory and cannot be written in place; clone it"
        )
    if transforms_active() or (records and (x.is_leaf or x._is_view())):
        # copy_ knows what may be written to, and how the history of views changes.
        return x.copy_(apply(functions, records, x.clone(), *parameters))
    if records:
        # As torch: where the input is needed for the backward pass, it is kept in a clone.
        original = None if row.saves_its_output(parameters) else x.clone()
        assert functions.inplace is not None
        y: Tensor = functions.inplace.record(x, original, *parameters)
        return y
    with below_autograd():
        functions.family.inplace(x, *parameters)
    return x


def gated(op: str, gate_name: str, gate: Tensor, up: Tensor) -> Tensor:
    """A gated activation of two tensors."""
    row = ACTIVATIONS[gate_name]
    if (
        STATE.choice.cutoffs
        and type(gate) in PLAIN
        and type(up) in PLAIN
        and gate.numel() < GATES[gate_name][0]
        and gate.shape == up.shape
        and gate.dtype is up.dtype
    ):
        return row.reference(gate) * up
    served = is_served(op, "gate", gate) & is_served(op, "up", up)
    if gate.shape != up.shape:
        raise RuntimeError(
            f"{op}(): expected gate and up to have the same shape; got gate "
            f"{tuple(gate.shape)} and up {tuple(up.shape)}"
        )
    if gate.device != up.device:
        raise RuntimeError(
            f"{op}(): expected gate and up to be on the same device; got gate on {gate.device} and "
            f"up on {up.device}"
        )
    if gate.dtype != up.dtype:
        if not torch.is_autocast_enabled(gate.device.type):
            raise RuntimeError(
                f"{op}(): expected gate and up to have the same dtype; got gate {gate.dtype} and "
                f"up {up.dtype}"
            )
        dtype = torch.promote_types(gate.dtype, up.dtype)
        gate, up = gate.to(dtype), up.to(dtype)
    choice = STATE.choice
    records = torch.is_grad_enabled() and (gate.requires_grad or up.requires_grad)
    if not served or (choice.cutoffs and gate.numel() < GATES[gate_name][records]):
        return row.reference(gate) * up
    y: Tensor = apply(choice.functions[f"{gate_name}_mul"], records, gate, up)
    return y


def packed(op: str, gate_name: str, x: Tensor, dim: int, gate_first: bool) -> Tensor:
    """A gated activation of the halves of one tensor along a dimension."""
    row = ACTIVATIONS[gate_name]
    served = is_served(op, "input", x)
    if not isinstance(dim, (int, torch.SymInt)):
        raise TypeError(f"{op}(): argument 'dim' must be int, not {type(dim).__name__}")
    if x.dim() == 0:
        raise RuntimeError(f"{op}(): argument 'input' has no dimension to halve")
    if not -x.dim() <= dim < x.dim():
        raise IndexError(
            f"{op}(): dimension out of range (expected to be in range of [{-x.dim()}, "
            f"{x.dim() - 1}], but got dim {dim})"
        )
    dim %= x.dim()
    if x.shape[dim] % 2:
        raise RuntimeError(
            f"{op}(): the halved dimension must be even, but dimension {dim} of argument 'input' "
            f"with shape {tuple(x.shape)} has size {x.shape[dim]}"
        )
    choice = STATE.choice
    records = x.requires_grad and torch.is_grad_enabled()
    if not served or (choice.cutoffs and x.numel() < 2 * GATES[gate_name][records]):
        if op == "glu":
            return _originals.glu(x, dim)
        gate, up = gate_and_up(x, dim, gate_first)
        return row.reference(gate) * up
    y: Tensor = apply(choice.functions[f"{gate_name}_glu"], records, x, dim, gate_first)
    return y


def gelu_variant(op: str, approximate: str) -> str:
    """The row that torch's ``approximate`` argument names."""
    if approximate == "none":
        return "gelu"
    if approximate == "tanh":
        return "gelu_tanh"
    if not isinstance(approximate, str):
        raise TypeError(
            f"{op}(): argument 'approximate' must be str, not {type(approximate).__name__}"
        )
    raise RuntimeError(
        f"{op}(): argument 'approximate' must be 'none' or 'tanh', but got {approximate!r}"
    )
