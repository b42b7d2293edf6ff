"""What the tests share: one case for each op of the registry, exact results, and comparisons.

A new row of the registry is tested without a line here: its exact function is then its torch
reference in float64, or the better one of fastact._cli.accuracy.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as TF
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import fastact
from fastact import functional as F
from fastact._cli.accuracy import EXACT, errors, exact_of, rounded, ulp
from fastact._library import cpu, cuda
from fastact._registry import ACTIVATIONS, DTYPES, GATES, Activation

# For the tests, beside what is defined here.
__all__ = ["ACTIVATIONS", "DTYPES", "EXACT", "GATES", "errors", "exact_of", "rounded", "ulp"]

ROOT = Path(__file__).parent.parent
ISAS = cpu().isas
# tests/emulation: CPU tensors go through the CUDA kernels.
EMULATED = ISAS == ("emulation",)


def no_gpu() -> str | None:
    """Why the CUDA kernels cannot run here; None where they can."""
    if not torch.cuda.is_available():
        return "needs a GPU, or FASTACT_LIBRARY=build/emulation/libfastact_emulated.so"
    return cuda().error


# Another backend with kernels of its own joins where it is installed and written.
BACKENDS = ["compiled"] + [
    info.name
    for info in fastact.backends()
    if info.name == "numba" and info.available and importlib.util.find_spec("fastact._numba")
]

# Beside the defaults: what takes another branch of a formula, or saves another tensor.
UNUSUAL = {
    "softplus": [(2.0, 3.0), (0.5, 40.0)],
    "elu": [(1.7,), (-0.5,), (0.0,)],
    "celu": [(1.3,), (-0.7,)],
    "leaky_relu": [(-0.3,), (0.0,), (1.5,)],
}


PACKED = {"silu": F.swiglu, "gelu": F.geglu, "relu": F.reglu, "sigmoid": F.glu}


@dataclass(frozen=True)
class Case:
    """An op with its parameters, ours and torch's."""

    label: str
    family: str  # torch.ops.fastact.<family>
    row: Activation
    parameters: tuple[float, ...]
    function: Callable[..., Tensor]  # of fastact.functional
    torch: Callable[..., Tensor]  # torch's own op, or its composition
    exact: Callable[..., Tensor]  # in float64, of the elementwise operands
    tensors: int = 1
    dim: int | None = None  # packed: which dimension halves, and whether the gate comes first
    gate_first: bool = True
    inplace: Callable[[Tensor], Tensor] | None = None

    @property
    def slope_from_output(self) -> bool:
        """Whether slopes follow from the rounded output; a gate's do where its unary op's do."""
        return self.row.saves_its_output(self.parameters)

    def constants(self, x: Tensor) -> tuple[object, ...]:
        """What the registered op takes after its tensors."""
        return self.parameters if self.dim is None else (self.dim % x.dim(), self.gate_first)

    def split(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The operands that correspond element by element."""
        if self.dim is None:
            return tensors
        first, second = tensors[0].chunk(2, self.dim)
        return (first, second) if self.gate_first else (second, first)

    def join(self, operands: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self.dim is None:
            return operands
        return (torch.cat(operands if self.gate_first else operands[::-1], self.dim),)


def public(name: str) -> Callable[..., Tensor]:
    """The function of fastact.functional for a row."""
    if name.startswith("gelu_tanh"):
        plain = public(name.replace("gelu_tanh", "gelu"))
        return lambda *args, **kwargs: plain(*args, approximate="tanh", **kwargs)
    return lambda *args, **kwargs: getattr(F, name)(*args, **kwargs)


def _unary(row: Activation, parameters: tuple[float, ...]) -> Case:
    function = public(row.name)
    label = row.name + "".join(f",{p:g}" for p in parameters if parameters != row.defaults)
    return Case(
        label, row.name, row, parameters, lambda x: function(x, *parameters),
        lambda x: row.reference(x, *parameters), exact_of(row, parameters),
        inplace=partial(_inplace, row, parameters) if has_inplace(row.name) else None,
    )  # fmt: skip


def has_inplace(name: str) -> bool:
    return "inplace" in getattr(getattr(F, name, None), "__annotations__", {})


def _inplace(row: Activation, parameters: tuple[float, ...], x: Tensor) -> Tensor:
    return public(row.name)(x, *parameters, inplace=True)


def _gate(name: str) -> list[Case]:
    row = ACTIVATIONS[name]
    value = exact_of(row)
    own = row.reference
    cases = []
    if hasattr(F, name.removesuffix("_tanh") + "_mul"):
        cases.append(
            Case(
                f"{name}_mul", f"{name}_mul", row, (), public(f"{name}_mul"),
                lambda a, b: own(a) * b, lambda a, b: value(a) * b, tensors=2,
            )
        )  # fmt: skip
    tanh = {"approximate": "tanh"} if name.endswith("_tanh") else {}
    function = PACKED[name.removesuffix("_tanh")]
    gate_first = function is not F.glu

    def reference(x: Tensor, dim: int) -> Tensor:
        gate, up = x.chunk(2, dim)
        return own(gate) * up

    label = function.__name__ + "".join(tanh.values())
    cases += [
        Case(
            label if dim == -1 else f"{label},dim={dim}", f"{name}_glu", row, (),
            partial(function, dim=dim, **tanh),
            partial(reference if gate_first else TF.glu, dim=dim),
            lambda a, b: value(a) * b, dim=dim, gate_first=gate_first,
        )
        for dim in ((-1, 0) if name in ("silu", "sigmoid") else (-1,))
    ]  # fmt: skip
    return cases


UNARY = [
    _unary(row, parameters)
    for row in ACTIVATIONS.values()
    for parameters in (row.defaults, *UNUSUAL.get(row.name, []))
]
GATED = [case for name in GATES for case in _gate(name)]
CASES = UNARY + GATED
INPLACE = [case for case in UNARY if case.inplace is not None]


def borrowed(left_out: dict[ModuleType, set[str]]) -> dict[str, object]:
    """The tests of other modules but those left out, by names that tell where they come from."""
    found = {}
    for module, names in left_out.items():
        tests = {name: t for name, t in vars(module).items() if name.startswith("test_")}
        assert names <= set(tests), f"{module.__name__}: no {names - set(tests)}"
        for name, test in tests.items():  # in order: pytest's workers have to agree on it
            if name not in names:
                found[name + module.__name__.removeprefix("test")] = test
    return found


def labels(case: object) -> str:
    """For pytest's ids."""
    return case.label if isinstance(case, Case) else str(case).removeprefix("torch.")


@contextlib.contextmanager
def use_isa(name: str) -> Iterator[None]:
    before = cpu().isa
    cpu().use_isa(name)
    try:
        yield
    finally:
        cpu().use_isa(before)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Ops(TorchDispatchMode):
    """The names of the ops that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))

    @property
    def ours(self) -> Counter[str]:
        """How often each of the compiled backend's ran."""
        names = (name.partition("::") for name in self.names)
        return Counter(op for namespace, _, op in names if namespace == "fastact")

    @property
    def reads(self) -> set[str]:
        """Those for which Python waits, and with it a GPU."""
        names = ("_local_scalar_dense", "item", "equal", "is_nonzero", "nonzero")
        return {f"aten::{name}" for name in names} & set(self.names)


def ops_of(function: Callable[..., object], *args: object, **kwargs: object) -> list[str]:
    """The names of the ops that a call runs, without a gradient."""
    with Ops() as seen, torch.no_grad():
        function(*args, **kwargs)
    return seen.names


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh interpreter, from the tests' folder."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        timeout=300,
    )


# --------------------------------------------------------------------------------------------------
# Comparing


def assert_within(
    actual: Tensor, exact: Tensor, bound: float, at: Tensor, name: str, scale: Tensor | None = None
) -> None:
    """Checks a bound on errors(); a failure names the worst input."""
    assert actual.shape == exact.shape, f"{name}: shape {tuple(actual.shape)}"
    if actual.numel() == 0:
        return
    actual, exact, at = actual.detach(), exact.detach(), at.detach()
    error = errors(actual, exact, scale).reshape(-1)
    worst = int(error.argmax())
    got, want = actual.reshape(-1)[worst].item(), exact.reshape(-1)[worst].item()
    assert error[worst] <= bound, (
        f"{name}: {error[worst]:.3g} ulp of {actual.dtype}, allowed {bound}, at "
        f"{at.reshape(-1)[worst].item()!r}: got {got!r}, expected {want!r}"
    )


# In ulp of the dtype, of |exact| plus how far a change of each input (or of the saved output) by
# its own size moves the result. A kernel's bound is about 4 ulp, and at most two follow each other;
# in float64 the reference itself has as much; 16-bit results are rounded after each of up to
# four steps.
TOLERANCE = {torch.float32: 8, torch.float64: 16, torch.bfloat16: 2.5, torch.float16: 2.5}


@dataclass(frozen=True)
class Expected:
    name: str
    value: Tensor
    scale: Tensor


def expected(case: Case, tensors: tuple[Tensor, ...], grad: Tensor, v: tuple[Tensor, ...]):
    """Value, gradients and double backward of a case, exactly, over its elementwise operands.

    v is the gradient of the gradients; the last results are those by grad and by each operand.
    """
    operands = [t.detach().double().requires_grad_() for t in case.split(tensors)]
    g = grad.detach().double().requires_grad_()
    w = [t.detach().double() for t in case.split(v)]

    def derivatives(outputs, inputs, by):
        if not outputs.requires_grad:
            return [torch.zeros_like(t) for t in inputs]
        return torch.autograd.grad(outputs, inputs, by, create_graph=True, materialize_grads=True)

    y = case.exact(*operands)
    firsts = derivatives(y, operands, g)
    total = sum((d * t).sum() for d, t in zip(firsts, w, strict=True))
    seconds = derivatives(total, [g, *operands], None)
    # Of the activation alone: how its output, where that is saved, tells of its input.
    x = operands[0]
    f = exact_of(case.row, case.parameters)(x)
    value, slope = f.detach(), derivatives(f, [x], torch.ones_like(x))[0].detach()

    results = []
    names = ["value", *(f"grad {i}" for i in range(len(operands))), "grad grad"]
    names += [f"second grad {i}" for i in range(len(operands))]
    for name, out in zip(names, (y, *firsts, *seconds), strict=True):
        scale = out.detach().abs()
        for i, t in enumerate([*operands, g]):
            d = derivatives(out, [t], torch.ones_like(out))[0].detach()
            scale = scale + (t.detach() * d).abs()
            if case.slope_from_output and i == 0 and name != "value":
                scale = scale + (value * d / slope).abs().nan_to_num(0.0, 0.0, 0.0)
        results.append(Expected(name, out.detach(), scale))
    return results


def actual(case: Case, tensors: tuple[Tensor, ...], grad: Tensor, v: tuple[Tensor, ...]):
    """The same from fastact: value, gradients, double backward, operand by operand."""
    tensors = tuple(t.detach().requires_grad_() for t in tensors)
    grad = grad.detach().requires_grad_()
    y = case.function(*tensors)
    firsts = torch.autograd.grad(y, tensors, grad, create_graph=True)
    seconds = torch.autograd.grad(
        firsts, (grad, *tensors), v, materialize_grads=True, allow_unused=True
    )
    return [y, *case.split(firsts), seconds[0], *case.split(seconds[1:])]


def check(case: Case, *tensors: Tensor, name: str = "", want=None, grad=None, v=None) -> None:
    """Compares the value and every gradient, first and second, with float64."""
    grad, v = (grad, v) if grad is not None else cotangents(case, *tensors)
    want = want if want is not None else expected(case, tensors, grad, v)
    at = case.split(tensors)[0]
    for got, exact in zip(actual(case, tensors, grad, v), want, strict=True):
        assert got.dtype == tensors[0].dtype, f"{case.label} {name} {exact.name}: {got.dtype}"
        assert_within(
            got, exact.value, TOLERANCE[got.dtype], at,
            f"{case.label} {name} {exact.name}", exact.scale,
        )  # fmt: skip


def cotangents(case: Case, *tensors: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """An incoming gradient, and gradients of the gradients."""
    random = generator(1)

    def like(t: Tensor) -> Tensor:
        return torch.randn(t.shape, generator=random, dtype=torch.float64).to(t.dtype)

    return like(case.split(tensors)[0]), tuple(like(t) for t in tensors)


# --------------------------------------------------------------------------------------------------
# Inputs


def generator(seed: int) -> torch.Generator:
    """Of the device that tensors are made on: with --device cuda, and in test_cuda.py, a GPU."""
    return torch.Generator(torch.get_default_device()).manual_seed(seed)


def layouts(dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors of every layout whose first and last dimension are even."""
    return _layouts(dtype, torch.get_default_device())


@cache
def _layouts(dtype: torch.dtype, _: torch.device) -> dict[str, Tensor]:
    random = generator(2)

    def make(*shape: int) -> Tensor:
        return (torch.randn(shape, generator=random, dtype=torch.float64) * 2).to(dtype)

    return {
        "contiguous": make(4, 6, 5, 8),
        "channels last": make(4, 6, 5, 8).contiguous(memory_format=torch.channels_last),
        "transposed": make(8, 5, 6).transpose(0, 2),
        "strided": make(4, 12, 5, 16)[:, ::2, :, ::2],
        "rows with gaps": make(6, 21)[:, 3:13],
        "columns with gaps": make(6, 21)[:, 3:13].t(),
        "permuted with gaps": make(4, 6, 8, 2)[:, :, ::2].permute(3, 0, 2, 1),
        "expanded": make(6, 1, 8).expand(6, 5, 8),
        "expanded first": make(8).expand(4, 3, 8),
        "one number": make(1).expand(2, 4),
        "overlapping": make(20).as_strided((4, 6), (2, 1)),
        "offset": make(4 * 8 + 1)[1:].view(4, 8),
        "sizes of one": make(2, 1, 1, 6).as_strided((2, 1, 1, 6), (6, 50, 3, 1)),
        "empty": make(0, 8),
        "empty inside": make(2, 0, 4),
    }
