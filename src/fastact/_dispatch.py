"""From a public function to a kernel: who answers a call, and by which way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import Parameter

from ._autograd import Functions, below_autograd, transforms_active
from ._backend import STATE
from ._library import gate_and_up
from ._registry import ACTIVATIONS, DTYPES, GATES, Activation

_PLAIN = frozenset({Tensor, Parameter})
_DTYPES = frozenset(DTYPES)


def _serves(x: Tensor) -> bool:
    """Whether a kernel of ours takes this tensor."""
    return (
        (type(x) in _PLAIN or torch.compiler.is_compiling())
        and x.is_cpu
        and x.dtype in _DTYPES
        and x.layout is torch.strided
    )


def _torch_answers(op: str, argument: str, x: object) -> bool:
    """True where torch's own op has to answer; raises where a forced backend cannot."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}(): argument '{argument}' must be Tensor, not {type(x).__name__}")
    choice = STATE.choice
    if choice.functions is None:
        return True
    if _serves(x):
        return False
    if choice.name != "auto":
        raise NotImplementedError(
            f"{op}(): the backend {choice.name!r} takes strided float32, float64, bfloat16 and "
            f"float16 tensors on the CPU; argument '{argument}' is a {type(x).__name__} of "
            f"{x.dtype} on {x.device} ({x.layout})"
        )
    return True


def _apply(functions: Functions, records: bool, *args: Any) -> Any:
    if transforms_active():
        return functions.family.forward(*args)
    if records:
        return functions.forward.record(*args)
    with below_autograd():
        return functions.family.forward(*args)


def unary(row: Activation, x: Tensor, *parameters: float) -> Any:
    if _torch_answers(row.name, "input", x):
        return row.reference(x, *parameters)
    choice = STATE.choice
    records = x.requires_grad and torch.is_grad_enabled()
    if choice.cutoffs and x.numel() < (row.cutoff_grad if records else row.cutoff):
        return row.reference(x, *parameters)
    return _apply(choice.functions[row.name], records, x, *parameters)


def unary_(row: Activation, x: Tensor, *parameters: float) -> Any:
    """In place. The value is written over x once nothing can go wrong any more."""
    if _torch_answers(row.name, "input", x):
        return row.reference(x, *parameters, inplace=True)
    choice = STATE.choice
    records = x.requires_grad and torch.is_grad_enabled()
    if choice.cutoffs and x.numel() < (row.cutoff_grad if records else row.cutoff):
        return row.reference(x, *parameters, inplace=True)
    functions = choice.functions[row.name]
    if transforms_active() or (records and (x.is_leaf or x._is_view())):
        # copy_ knows what may be written to, and how the history of views changes.
        return x.copy_(_apply(functions, records, x.clone(), *parameters))
    if records:
        # As torch: where the input is needed for the backward pass, it is kept in a clone.
        original = None if row.saves_its_output(parameters) else x.clone()
        return functions.inplace.record(x, original, *parameters)
    with below_autograd():
        functions.family.inplace(x, *parameters)
    return x


def gated(op: str, gate_name: str, gate: Tensor, up: Tensor) -> Any:
    row = ACTIVATIONS[gate_name]
    from_torch = _torch_answers(op, "gate", gate) | _torch_answers(op, "up", up)
    if gate.shape != up.shape:
        raise RuntimeError(
            f"{op}(): expected gate and up to have the same shape; got gate {tuple(gate.shape)} and "
            f"up {tuple(up.shape)}"
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
    if from_torch or (choice.cutoffs and gate.numel() < GATES[gate_name][records]):
        return row.reference(gate) * up
    return _apply(choice.functions[f"{gate_name}_mul"], records, gate, up)


def packed(op: str, gate_name: str, x: Tensor, dim: int, gate_first: bool) -> Any:
    row = ACTIVATIONS[gate_name]
    from_torch = _torch_answers(op, "input", x)
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
    if from_torch or (choice.cutoffs and x.numel() < 2 * GATES[gate_name][records]):
        if op == "glu":
            return torch.nn.functional.glu(x, dim)
        gate, up = gate_and_up(x, dim, gate_first)
        return row.reference(gate) * up
    return _apply(choice.functions[f"{gate_name}_glu"], records, x, dim, gate_first)


def gelu_variant(op: str, approximate: str) -> str:
    if approximate == "none":
        return "gelu"
    if approximate == "tanh":
        return "gelu_tanh"
    raise RuntimeError(f"{op}(): approximate must be 'none' or 'tanh', but got {approximate!r}")
