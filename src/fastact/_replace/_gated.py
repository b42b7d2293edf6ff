"""Gated MLPs: ``down(act(gate(x)) * up(x))``, with the gate and the product fused.

A module is recognised by what its class's forward says, whatever the class is called: the same
lines stand in well over a hundred classes of transformers. The projections are called as modules,
so adapters, quantised layers and hooks on them go on working. The activation is called, unfused,
where somebody has hooked it or put another in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn import Module

from .. import functional as F
from .._dispatch import compiles_to_torch, stands_for_tensor
from .._private import has_global_hooks
from ._source import says
from ._swap import KINDS, Kind, gate_of

_TWO: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "silu": F.silu_mul,
    "gelu": F.gelu_mul,
    "gelu_tanh": partial(F.gelu_mul, approximate="tanh"),
    "relu": F.relu_mul,
}
_HALVES: dict[str, Callable[..., Tensor]] = {
    "silu": F.swiglu,
    "gelu": F.geglu,
    "gelu_tanh": partial(F.geglu, approximate="tanh"),
    "relu": F.reglu,
}


# Where torch.nn.Module keeps them; a torch that keeps them elsewhere gets no gated op.
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _is_hooked(module: Module) -> bool:
    """Whether a call of a module does more than its class's forward."""
    return (
        "forward" in module.__dict__
        or any(getattr(module, name, True) for name in _HOOKS)
        or has_global_hooks()
    )


def _multiplied(act: Module, gate: Tensor, up: Tensor) -> Tensor:
    """``act(gate) * up``; as written where a compiler fuses it, whose guards all else would be."""
    op = None if compiles_to_torch() or stands_for_tensor(gate) else gate_of(act)
    if op is None or gate.shape != up.shape or gate.dtype != up.dtype or _is_hooked(act):
        y: Tensor = act(gate) * up
        return y
    return _TWO[op](gate, up)


def _halved(act: Module, x: Tensor, dim: int = -1) -> Tensor:
    """``act(gate) * up`` of the two halves of a dimension."""
    op = None if compiles_to_torch() or stands_for_tensor(x) else gate_of(act)
    if op is None or x.shape[dim] % 2 or _is_hooked(act):
        gate, up = x.chunk(2, dim=dim)
        y: Tensor = act(gate) * up
        return y
    return _HALVES[op](x, dim=dim)


# Their argument gets the name that a class gives it: other local variables have none of such names.


def _gate_up_down(self: Any, x: Tensor) -> Any:
    return self.down_proj(_multiplied(self.act_fn, self.gate_proj(x), self.up_proj(x)))


def _gate_up_drop_down(self: Any, x: Tensor) -> Any:
    product = _multiplied(self.act_fn, self.gate_proj(x), self.up_proj(x))
    return self.down_proj(self.dropout(product))


def _packed(self: Any, x: Tensor) -> Any:
    return self.down_proj(_halved(self.activation_fn, self.gate_up_proj(x)))


def _timm_swiglu(self: Any, x: Tensor) -> Any:
    product = _multiplied(self.act, self.fc1_g(x), self.fc1_x(x))
    return self.drop2(self.fc2(self.norm(self.drop1(product))))


def _timm_glu(self: Any, x: Tensor) -> Any:
    x = self.fc1(x)
    if self.gate_last:
        up, gate = x.chunk(2, dim=self.chunk_dim)
        product = _multiplied(self.act, gate, up)
    else:
        product = _halved(self.act, x, self.chunk_dim)
    return self.drop2(self.fc2(self.norm(self.drop1(product))))


@dataclass(frozen=True)
class Form:
    """One way to write a gated MLP."""

    kind: str
    children: frozenset[str]
    act: str  # the child that is the activation
    sources: tuple[str, ...]
    # Classes that say so in the versions that we know: another text is worth a warning.
    classes: frozenset[str]


_SPLIT = "self.act_fn(self.gate_proj(x)) * self.up_proj(x)"
_SPLIT_CLASSES = "Llama Mistral Qwen2 Qwen3 Gemma Gemma2 Gemma3 Olmo2 Granite Cohere DeepseekV3"

FORMS = (
    Form(
        "gate, up, down",
        frozenset({"gate_proj", "up_proj", "down_proj", "act_fn"}),
        "act_fn",
        (
            f"def forward(self, x): return self.down_proj({_SPLIT})",
            f"def forward(self, x):\n    y = self.down_proj({_SPLIT})\n    return y",
        ),
        frozenset(name + "MLP" for name in _SPLIT_CLASSES.split()),
    ),
    Form(
        "gate, up, dropout, down",
        frozenset({"gate_proj", "up_proj", "down_proj", "act_fn", "dropout"}),
        "act_fn",
        (
            f"def forward(self, x):\n    y = {_SPLIT}\n    y = self.dropout(y)\n"
            "    z = self.down_proj(y)\n    return z",
        ),
        frozenset({"T5GemmaMLP"}),
    ),
    Form(
        "gate and up in one, down",
        frozenset({"gate_up_proj", "down_proj", "activation_fn"}),
        "activation_fn",
        (
            "def forward(self, x):\n    y = self.gate_up_proj(x)\n"
            "    gate, y = y.chunk(2, dim=-1)\n    y = y * self.activation_fn(gate)\n"
            "    return self.down_proj(y)",
        ),
        frozenset({"Phi3MLP", "GlmMLP", "Glm4MLP"}),
    ),
    Form(
        "timm SwiGLU",
        frozenset({"fc1_g", "fc1_x", "act", "drop1", "norm", "fc2", "drop2"}),
        "act",
        (
            "def forward(self, x):\n    g = self.fc1_g(x)\n    x = self.fc1_x(x)\n"
            "    x = self.act(g) * x\n    x = self.drop1(x)\n    x = self.norm(x)\n"
            "    x = self.fc2(x)\n    x = self.drop2(x)\n    return x",
        ),
        frozenset({"SwiGLU"}),
    ),
    Form(
        "timm GLU",
        frozenset({"fc1", "act", "drop1", "norm", "fc2", "drop2"}),
        "act",
        (
            "def forward(self, x):\n    x = self.fc1(x)\n"
            "    x1, x2 = x.chunk(2, dim=self.chunk_dim)\n"
            "    x = x1 * self.act(x2) if self.gate_last else self.act(x1) * x2\n"
            "    x = self.drop1(x)\n    x = self.norm(x)\n"
            "    x = self.fc2(x)\n    x = self.drop2(x)\n    return x",
        ),
        frozenset({"GluMlp"}),
    ),
)

_OPS = {"silu": "swiglu", "gelu": "geglu", "gelu_tanh": "geglu, tanh", "relu": "reglu"}

_FORWARDS = {
    "gate, up, down": ("{gate}_mul", _gate_up_down),
    "gate, up, dropout, down": ("{gate}_mul", _gate_up_drop_down),
    "gate and up in one, down": ("{halves}", _packed),
    "timm SwiGLU": ("{gate}_mul", _timm_swiglu),
    "timm GLU": ("{gate}_mul or {halves}", _timm_glu),
}


def _says_form(form: Form, cls: type) -> bool:
    return says(cls.__dict__.get("forward"), *form.sources)


for _form in FORMS:
    _function, _forward = _FORWARDS[_form.kind]
    KINDS[_form.kind] = Kind(
        f"fastact.functional.{_function}", _forward, is_known=partial(_says_form, _form)
    )
ACTS = {form.kind: form.act for form in FORMS}


def label(kind: str, gate: str) -> str:
    """What the report says of an MLP with an activation that gates by an op."""
    text = KINDS[kind].label.format(gate=gate.removesuffix("_tanh"), halves=_OPS[gate])
    return f"{text}, tanh" if gate == "gelu_tanh" and "tanh" not in text else text


def form_of(module: Module) -> Form | None:
    """The form that the class of a module says, if any."""
    names = {name for name, _ in module.named_children()}
    for form in FORMS:
        if form.children <= names and _says_form(form, type(module)):
            return form
    return None


# What the projections of gated MLPs are called in transformers and timm.
_PROJECTIONS = (
    {"gate_proj", "up_proj"}, {"gate_up_proj"}, {"wi_0", "wi_1"}, {"fc1_g", "fc1_x"},
)  # fmt: skip


def looks_gated(module: Module) -> bool:
    """Whether the names of a module's children or parameters are those of a gated MLP's."""
    names = {*module._modules.keys(), *module._parameters.keys()}  # (of TorchScript no dicts)
    return any(projections <= names for projections in _PROJECTIONS)


def form_once_known(module: Module) -> Form | None:
    """The form that the name of a module's class, or of one that it derives from, promises."""
    names = {name for name, _ in module.named_children()}
    for form in FORMS:
        if form.children <= names:
            for cls in type(module).__mro__:
                library = cls.__module__.partition(".")[0]
                if library in ("transformers", "timm") and cls.__name__ in form.classes:
                    return form
    return None
