"""The activation classes that are replaced: torch.nn's, transformers' and timm's.

torch's own are recognised by their type. Of transformers and timm there is a row for each class,
with what it says in the versions that we know, and the kind that computes the same.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from .. import _originals
from .. import functional as F
from .. import nn as ours
from ._source import says
from ._swap import KINDS, OWN_GATES, Kind

# --------------------------------------------------------------------------------------------------
# torch.nn

LOSSES = ("CrossEntropyLoss", "NLLLoss", "BCEWithLogitsLoss")

_GATES: dict[str, str | property] = {
    "SiLU": "silu",
    "ReLU": "relu",
    "GELU": property(lambda m: "gelu" if m.approximate == "none" else "gelu_tanh"),
}
_PLAIN = {  # what torch's CrossEntropyLoss lacks and ours asks for
    "inplace_backward": False,
    "expected_grad": None,
    "z_loss": 0.0,
    "softcap": None,
    "return_lse": False,
    "return_entropy": False,
}

TORCH: dict[type, str] = {}
for _name in ours.__all__:
    if hasattr(torch.nn, _name):
        TORCH[getattr(torch.nn, _name)] = f"torch.nn.{_name}"
        KINDS[f"torch.nn.{_name}"] = Kind(
            f"fastact.nn.{_name}",
            base=getattr(ours, _name),
            gate=_GATES.get(_name),
            namespace=_PLAIN if _name == "CrossEntropyLoss" else {},
        )
OWN_GATES |= {getattr(ours, _name): gate for _name, gate in _GATES.items()}


# --------------------------------------------------------------------------------------------------
# transformers and timm


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def forward(self: Module, input: Tensor) -> Tensor:  # noqa: ARG001
        return function(input)

    return forward


def _inplace(function: Callable[[Tensor, bool], Tensor]) -> Callable[..., Tensor]:
    def forward(self: Any, input: Tensor) -> Tensor:
        return function(input, self.inplace)

    return forward


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, "tanh")


def _fast_gelu(self: Any, input: Tensor) -> Tensor:
    # Its sqrt(2 / pi) has ten digits, which float64 tells from ours.
    if input.dtype == torch.float64:
        result: Tensor = self._fastact[0].forward(self, input)
        return result
    return _gelu_tanh(input)


def _sigmoid(x: Tensor, inplace: bool) -> Tensor:
    return x.sigmoid_() if inplace else F.sigmoid(x)


def _tanh(x: Tensor, inplace: bool) -> Tensor:
    return x.tanh_() if inplace else F.tanh(x)


_F = "fastact.functional."
_KINDS = {
    "gelu": Kind(_F + "gelu", _unary(F.gelu), gate="gelu"),
    "gelu_tanh": Kind(_F + "gelu, tanh", _unary(_gelu_tanh), gate="gelu_tanh"),
    "fast_gelu": Kind(_F + "gelu, tanh", _fast_gelu),
    "quick_gelu": Kind(_F + "quick_gelu", _unary(F.quick_gelu)),
    "silu": Kind(_F + "silu", _unary(F.silu), gate="silu"),
    "mish": Kind(_F + "mish", _unary(F.mish)),
    "squared_relu": Kind(_F + "squared_relu", _unary(F.squared_relu)),
    "silu, inplace": Kind(_F + "silu", _inplace(F.silu), gate="silu"),
    "hardswish, inplace": Kind(_F + "hardswish", _inplace(F.hardswish)),
    "hardsigmoid, inplace": Kind(_F + "hardsigmoid", _inplace(F.hardsigmoid)),
    "sigmoid, inplace": Kind(_F + "sigmoid", _inplace(_sigmoid)),
    "tanh, inplace": Kind(_F + "tanh", _inplace(_tanh)),
}


def _is_known(cls: type) -> bool:
    row = KNOWN.get((cls.__module__, cls.__qualname__))
    return row is not None and _says(cls, row)


KINDS |= {name: replace(kind, is_known=_is_known) for name, kind in _KINDS.items()}


@dataclass(frozen=True)
class Known:
    """A class of another library."""

    kind: str
    forwards: tuple[str, ...]  # what its forward says, in one version or another
    helpers: dict[str, str] = field(default_factory=dict)  # methods and functions that it calls
    state: Callable[[Any], bool] | None = None  # whether the module's attributes are those we know


def _holds(function: Callable[..., Any], method: str = "", **keywords: Any) -> Callable[..., bool]:
    """That ``act`` is a function of torch's, with keywords, or a method that a helper describes."""

    def state(module: Any) -> bool:
        act: Any = module.act
        given: dict[str, Any] = {}
        if method and getattr(act, "__func__", None) is type(module).__dict__.get(method, act):
            return True
        if isinstance(act, functools.partial) and not act.args:
            act, given = act.func, act.keywords
        return given == keywords and act in (function, getattr(F, function.__name__))

    return state


_ACT = "def forward(self, input): return self.act(input)"
_CUBIC = "(1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (input + 0.044715 * torch.pow(input, 3.0))))"

_TRANSFORMERS = {
    "GELUActivation": Known(
        "gelu",
        (_ACT,),
        {
            "_gelu_python": "def f(self, input):"
            " return input * 0.5 * (1.0 + torch.erf(input / math.sqrt(2.0)))"
        },
        _holds(_originals.gelu, "_gelu_python"),
    ),
    "GELUTanh": Known(
        "gelu_tanh",
        (_ACT,),
        {"_gelu_tanh_python": f"def f(self, input): return input * 0.5 * {_CUBIC}"},
        _holds(_originals.gelu, "_gelu_tanh_python", approximate="tanh"),
    ),
    "PytorchGELUTanh": Known(
        "gelu_tanh",
        ("def forward(self, input): return nn.functional.gelu(input, approximate='tanh')",),
    ),
    "NewGELUActivation": Known(
        "gelu_tanh", (f"def forward(self, input): return 0.5 * input * {_CUBIC}",)
    ),
    "AccurateGELUActivation": Known(
        "gelu_tanh",
        (
            "def forward(self, input): return 0.5 * input * (1 + torch.tanh("
            "self.precomputed_constant * (input + 0.044715 * torch.pow(input, 3))))",
        ),
        state=lambda m: bool(m.precomputed_constant == math.sqrt(2 / math.pi)),
    ),
    "FastGELUActivation": Known(
        "fast_gelu",
        (
            "def forward(self, input): return 0.5 * input * (1.0 + torch.tanh("
            "input * 0.7978845608 * (1.0 + 0.044715 * input * input)))",
        ),
    ),
    "QuickGELUActivation": Known(
        "quick_gelu", ("def forward(self, input): return input * torch.sigmoid(1.702 * input)",)
    ),
    "SiLUActivation": Known(
        "silu", ("def forward(self, input): return nn.functional.silu(input)",)
    ),
    "MishActivation": Known("mish", (_ACT,), state=_holds(_originals.mish)),
    "ReLUSquaredActivation": Known(
        "squared_relu",
        (
            "def forward(self, input):\n"
            "    relu_applied = nn.functional.relu(input)\n"
            "    squared = torch.square(relu_applied)\n"
            "    return squared",
        ),
    ),
}

_TIMM = {
    "GELU": Known("gelu", ("def forward(self, input): return F.gelu(input)",)),
    "GELUTanh": Known(
        "gelu_tanh", ("def forward(self, input): return F.gelu(input, approximate='tanh')",)
    ),
    "QuickGELU": Known(
        "quick_gelu",
        ("def forward(self, input): return quick_gelu(input)",),
        {"quick_gelu": "def f(x, inplace=False): return x * torch.sigmoid(1.702 * x)"},
    ),
    "Swish": Known(
        "silu, inplace",
        ("def forward(self, x): return swish(x, self.inplace)",),
        {
            "swish": "def f(x, inplace=False):"
            " return x.mul_(x.sigmoid()) if inplace else x.mul(x.sigmoid())"
        },
    ),
    "Mish": Known(
        "mish",
        ("def forward(self, x): return mish(x)",),
        {"mish": "def f(x, inplace=False): return x.mul(F.softplus(x).tanh())"},
    ),
    "Sigmoid": Known(
        "sigmoid, inplace",
        ("def forward(self, x): return x.sigmoid_() if self.inplace else x.sigmoid()",),
    ),
    "Tanh": Known(
        "tanh, inplace", ("def forward(self, x): return x.tanh_() if self.inplace else x.tanh()",)
    ),
    "HardSwish": Known(
        "hardswish, inplace",
        ("def forward(self, x): return hard_swish(x, self.inplace)",),
        {
            "hard_swish": "def f(x, inplace=False):\n"
            "    inner = F.relu6(x + 3.).div_(6.)\n"
            "    return x.mul_(inner) if inplace else x.mul(inner)"
        },
    ),
    "HardSigmoid": Known(
        "hardsigmoid, inplace",
        ("def forward(self, x): return hard_sigmoid(x, self.inplace)",),
        {
            "hard_sigmoid": "def f(x, inplace=False):\n"
            "    if inplace:\n        return x.add_(3.).clamp_(0., 6.).div_(6.)\n"
            "    else:\n        return F.relu6(x + 3.) / 6."
        },
    ),
}

KNOWN: dict[tuple[str, str], Known] = {
    **{("transformers.activations", name): row for name, row in _TRANSFORMERS.items()},
    **{("timm.layers.activations", name): row for name, row in _TIMM.items()},
}

# torch's functions that modules may keep in their attributes, by name.
FUNCTIONS: dict[Any, str] = {getattr(_originals, name): name for name in _originals.__all__}

# Where activations are defined: what else comes from there is reported.
PLACES = ("torch.nn.modules.activation", "transformers.activations", "timm.layers.activations",
          "timm.layers.activations_me")  # fmt: skip


def _says(cls: type, row: Known) -> bool:
    """Whether a class says what its row says."""
    forward = cls.__dict__.get("forward")
    if not says(forward, *row.forwards):
        return False
    for name, source in row.helpers.items():
        helper = cls.__dict__.get(name, getattr(forward, "__globals__", {}).get(name))
        if helper is not None and not says(helper, source):
            return False
    return True


def is_as_known(module: Module, row: Known) -> bool:
    """Whether a module's class says what its row says, and its attributes are those we know."""
    return _says(type(module), row) and (row.state is None or bool(row.state(module)))
