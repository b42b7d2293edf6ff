"""Which activation is on which page, and what its function and module are called."""

from __future__ import annotations

from fastact import functional, nn
from fastact._registry import ACTIVATIONS, GATES, Activation

# The pages and the rows they name; the last one takes every row that none of them names.
PAGES: dict[str, tuple[str, ...]] = {
    "rectifiers": ("relu", "leaky_relu", "relu6", "squared_relu"),
    "gelu": ("gelu", "gelu_tanh", "quick_gelu"),
    "sigmoid": ("silu", "mish", "sigmoid", "tanh"),
    "elu": ("elu", "selu", "celu"),
    "soft-and-hard": ("softplus", "logsigmoid", "hardswish", "hardsigmoid"),
}
REST = "soft-and-hard"


def rows(page: str) -> list[Activation]:
    """The rows of a page, in its order."""
    found = [ACTIVATIONS[name] for name in PAGES[page]]
    if page == REST:
        named = {name for names in PAGES.values() for name in names}
        found += [row for name, row in ACTIVATIONS.items() if name not in named]
    return found


def function(name: str) -> tuple[str, dict[str, str]]:
    """The public function of a row, and what it takes beside the tensor and the parameters."""
    if hasattr(functional, name):
        return name, {}
    plain, _, variant = name.rpartition("_")
    return plain, {"approximate": variant}


def module(row: Activation) -> str:
    """The module of a row."""
    return row.symbol if hasattr(nn, row.symbol) else row.symbol.removesuffix("Tanh")


def gate_functions(name: str) -> list[str]:
    """The public functions that a gate gives, of two tensors and of the halves of one."""
    plain = name.removesuffix("_tanh")
    packed = {"silu": "swiglu", "gelu": "geglu", "relu": "reglu", "sigmoid": "glu"}
    return [f for f in (f"{plain}_mul", packed.get(plain, "")) if hasattr(functional, f)]


def gates() -> list[Activation]:
    """The activations that gate."""
    return [ACTIVATIONS[name] for name in GATES]
