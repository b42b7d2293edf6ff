"""From a public function to a kernel: who answers a call, and by which way."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.nn.parameter import Parameter

from . import _originals
from ._autograd import Functions, transforms_active
from ._backend import STATE
from ._dtensor import is_arriving, is_dtensor
from ._pointwise import gate_and_up
from ._private import (
    FakeTensor,
    autocasts,
    below_autograd,
    function_mode_active,
    is_jit_tracing,
)
from ._registry import ACTIVATIONS, DTYPES, GATES, Activation

PLAIN = frozenset({Tensor, Parameter, FakeTensor})
_DTYPES = frozenset(DTYPES)
_HALF = frozenset({torch.bfloat16, torch.float16})
# What torch's autocast computes in float32 on a GPU. The losses see to it by themselves.
_WIDENED_ON_CUDA = frozenset({"softplus", "softmax", "log_softmax"})
# The ops that an activation gates, of two tensors and of the halves of one.
_MUL = {gate: f"{gate}_mul" for gate in GATES}
_GLU = {gate: f"{gate}_glu" for gate in GATES}
TOO_SMALL = "torch is measured to be faster at this size"
NO_KERNELS = "no backend with kernels is in use"


def _is_traced(x: Tensor) -> bool:
    """Whether a compiler stands for x; of DTensors, torch compiles its own ops only.

    AOTAutograd (2.13) traces ours, but then fails or not by what ran before in eager code.
    """
    return torch.compiler.is_compiling() and type(x).__name__ != "DTensor"


def _off_cpu(x: Tensor) -> str:
    """Why no kernel of ours runs on x's device; empty where one does."""
    choice = STATE.choice
    if not x.is_cuda or choice.source != "compiled":
        return f"there are no kernels for {x.device.type}"
    if choice.cuda is None:
        return "GPUs are left to torch until our kernels are measured there"
    return choice.cuda.refusal(x.device)


def refusal(x: Tensor) -> str:
    """Why no kernel of ours takes this tensor; empty where one does."""
    if not (type(x) in PLAIN or _is_traced(x) or is_dtensor(x) or is_arriving(x)):
        return "the kernels take plain tensors and, in eager code, DTensors"
    if not x.is_cpu and (reason := _off_cpu(x)):
        return reason
    if x.dtype not in _DTYPES:
        return f"there are no kernels for {x.dtype}"
    if x.layout is not torch.strided or x.is_nested:
        return "the kernels take strided tensors"
    return ""


def stands_for_tensor(x: object) -> bool:
    """Whether x is no tensor, but torch's functions take it for one: torch.fx's Proxy, for one."""
    return not isinstance(x, Tensor) and hasattr(x, "__torch_function__")


def is_served(op: str, argument: str, x: object) -> bool:
    """Whether a kernel of ours answers; raises where neither it nor torch can."""
    choice = STATE.choice
    if choice.source != "torch" and isinstance(x, Tensor) and not refusal(x):
        return True
    if stands_for_tensor(x):
        return False
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}(): argument '{argument}' must be Tensor, not {type(x).__name__}")
    if choice.name in ("compiled", "numba"):
        raise NotImplementedError(
            f"{op}(): the backend {choice.name!r} takes strided float32, float64, bfloat16 and "
            f"float16 tensors; argument '{argument}' is a {type(x).__name__} of {x.dtype} on "
            f"{x.device} ({x.layout}): {refusal(x)}"
        )
    return False


def check_integer(op: str, name: str, value: Any) -> Any:
    """The value as an int, of whatever torch takes for one."""
    if isinstance(value, torch.SymInt) or (isinstance(value, int) and type(value) is not bool):
        return value
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{op}(): argument {name!r} must be int, not {type(value).__name__}")
    return value.__index__()


def records_graph(x: Tensor, other: Tensor | None = None) -> bool:
    """Whether autograd records what is done with a tensor, or two."""
    requires_grad = x.requires_grad or (other is not None and other.requires_grad)
    return requires_grad and torch.is_grad_enabled()


def is_small(line: str, dtype: torch.dtype, n: int, records: bool) -> bool:
    """Whether "auto" leaves n elements to torch, by a line of the table of cutoffs."""
    choice = STATE.choice
    return choice.auto and n < choice.cutoffs[line].of.get(dtype, (0, 0))[records]


def why_torch(op: str, line: str, x: Tensor, n: int, records: bool) -> str:
    """Why torch answers a call; empty where a kernel of ours does, raises where neither can."""
    if is_served(op, "input", x):
        return TOO_SMALL if line and is_small(line, x.dtype, n, records) else ""
    return NO_KERNELS if STATE.choice.source == "torch" else refusal(x)


def compiles_to_torch() -> bool:
    """Whether torch's own pointwise ops are traced: a compiler fuses them with their neighbours.

    So they are for torch.jit.trace, which cannot save an autograd Function. Asked before any size
    is looked at, on which a compiled graph would depend from then on.
    """
    return STATE.choice.auto and (torch.compiler.is_compiling() or is_jit_tracing())


def autocast(op: str, x: Tensor) -> Tensor:
    """The tensor as torch's autocast would hand it to its own op: it does not know ours."""
    if (
        x.is_cuda
        and op in _WIDENED_ON_CUDA
        and x.dtype in _HALF
        and torch.is_autocast_enabled("cuda")
    ):
        return x.float()
    return x


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
    if transforms_active() or function_mode_active():
        # (A mode has to see the op from above autograd, which differentiates what the mode adds.)
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
    # Every check is noticed by small tensors. What a compiler traces has no size yet.
    if (type(x) is Tensor or type(x) is Parameter) and not is_dynamo_compiling():
        cutoffs, n = STATE.choice.cutoffs[row.name], x.numel()
        if n < cutoffs.most and is_small(row.name, x.dtype, n, records_graph(x)):
            return row.builtin(x, *parameters)
    if compiles_to_torch() or not is_served(row.name, "input", x):
        return row.reference(x, *parameters)
    records = records_graph(x)
    if is_small(row.name, x.dtype, x.numel(), records):
        return row.reference(x, *parameters)
    if parameters:
        parameters = _numbers(row, parameters)
    if not x.is_cpu:
        x = autocast(row.name, x)
    y: Tensor = apply(STATE.kernels.functions[row.name], records, x, *parameters)
    return y


def unary_(row: Activation, x: Tensor, *parameters: float) -> Tensor:
    """In place. The value is written over x once nothing can go wrong any more."""
    if compiles_to_torch() or not is_served(row.name, "input", x):
        return row.reference(x, *parameters, inplace=True)
    records = records_graph(x)
    if is_small(row.name, x.dtype, x.numel(), records):
        return row.reference(x, *parameters, inplace=True)
    functions = STATE.kernels.functions[row.name]
    parameters = _numbers(row, parameters)
    if any(stride == 0 and size > 1 for stride, size in zip(x.stride(), x.shape, strict=True)):
        raise RuntimeError(
            f"{row.name}(): argument 'input' of shape {tuple(x.shape)} and strides {x.stride()} "
            "has several elements in one place of memory and cannot be written in place; clone it"
        )
    if (
        transforms_active()
        or type(x) not in PLAIN
        or (records and (x.is_leaf or x._is_view()))
        or x.is_neg()
    ):
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
    row, line = ACTIVATIONS[gate_name], _MUL[gate_name]
    if type(gate) is Tensor and type(up) is Tensor and not is_dynamo_compiling():
        cutoffs, n = STATE.choice.cutoffs[line], gate.numel()
        if (
            n < cutoffs.most
            and gate.shape == up.shape
            and gate.dtype is up.dtype
            and is_small(line, gate.dtype, n, records_graph(gate, up))
        ):
            return row.builtin(gate) * up
    served = is_served(op, "gate", gate) & is_served(op, "up", up)
    if not served and (stands_for_tensor(gate) or stands_for_tensor(up)):
        return row.reference(gate) * up
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
        if not autocasts(gate.device):
            raise RuntimeError(
                f"{op}(): expected gate and up to have the same dtype; got gate {gate.dtype} and "
                f"up {up.dtype}"
            )
        dtype = torch.promote_types(gate.dtype, up.dtype)
        gate, up = gate.to(dtype), up.to(dtype)
    records = records_graph(gate, up)
    if not served or compiles_to_torch() or is_small(line, gate.dtype, gate.numel(), records):
        return row.reference(gate) * up
    y: Tensor = apply(STATE.kernels.functions[line], records, gate, up)
    return y


def _halves_multiplied(op: str, row: Activation, x: Tensor, dim: int, gate_first: bool) -> Tensor:
    """A gated activation of the halves of a tensor, by torch."""
    if op == "glu":
        return _originals.glu(x, dim)
    gate, up = gate_and_up(x, dim, gate_first)
    return row.reference(gate) * up


def packed(op: str, gate_name: str, x: Tensor, dim: int, gate_first: bool) -> Tensor:
    """A gated activation of the halves of one tensor along a dimension."""
    row, line = ACTIVATIONS[gate_name], _GLU[gate_name]
    if dim == -1 and type(x) is Tensor and not is_dynamo_compiling():
        cutoffs, n = STATE.choice.cutoffs[line], x.numel() // 2
        if (
            n < cutoffs.most
            and x.dim()
            and x.shape[-1] % 2 == 0
            and is_small(line, x.dtype, n, records_graph(x))
        ):
            if op == "glu":
                return _originals.glu(x)  # the one whose second half gates
            gate, up = x.chunk(2, -1)
            return row.builtin(gate) * up
    served = is_served(op, "input", x)
    if not served and stands_for_tensor(x):
        return _halves_multiplied(op, row, x, dim, gate_first)
    dim = check_integer(op, "dim", dim)
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
    records = records_graph(x)
    if not served or compiles_to_torch() or is_small(line, x.dtype, x.numel() // 2, records):
        return _halves_multiplied(op, row, x, dim, gate_first)
    y: Tensor = apply(STATE.kernels.functions[line], records, x, dim, gate_first)
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
