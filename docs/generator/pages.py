"""The parts of the pages on activations and losses that follow from fastact itself."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fastact import functional as F
from fastact._registry import Activation

from . import families, figures

# Drawn beside the defaults, where a parameter changes the shape.
OTHERS: dict[str, tuple[float, ...]] = {
    "leaky_relu": (0.2,),
    "elu": (2.0,),
    "celu": (2.0,),
    "softplus": (3.0, 20.0),
}


# Of the x-axis, where something happens beyond the usual one.
LIMITS = {"relu6": 8.0}


def public(row: Activation) -> Callable[..., Tensor]:
    """The function that a user calls."""
    name, keywords = families.function(row.name)
    return partial(getattr(F, name), **keywords)


def picture(stem: str, alt: str) -> str:
    """The two variants of a picture, of which the site shows the theme's."""
    return "".join(
        f"```{{image}} /_generated/{stem}-{theme}.svg\n:class: only-{theme}\n:alt: {alt}\n```\n\n"
        for theme in figures.THEMES
    )


def signature(row: Activation) -> str:
    """A call with the parameters' names and defaults."""
    name, keywords = families.function(row.name)
    given = [f"{k}={v!r}" for k, v in keywords.items()]
    given += [f"{p}={d:g}" for p, d in zip(row.parameters, row.defaults, strict=True)]
    return f"{name}({', '.join(['x', *given])})"


def source(name: str) -> str:
    """Where the equation comes from, by the function's docstring."""
    found = re.search(r"Sources?: (.*)", inspect.getdoc(getattr(F, name)) or "", re.S)
    return " ".join(found[1].split()) if found else ""


def section(row: Activation, folder: Path) -> str:
    """An activation: equation, picture, names."""
    function = public(row)
    curves: list[tuple[str, figures.Curve]] = [("", function)]
    if row.name in OTHERS:
        names = row.parameters
        curves = [
            (
                ", ".join(f"{n} = {v:g}" for n, v in zip(names, values, strict=True)),
                lambda x, values=values: function(x, *values),
            )
            for values in (row.defaults, OTHERS[row.name])
        ]
    figures.panels(curves, folder / row.name, limit=LIMITS.get(row.name, figures.LIMIT))
    name, _ = families.function(row.name)
    module = families.module(row)
    alt = f"Value, slope and curvature of {row.symbol}"
    return (
        f"(op-{row.name})=\n## {row.symbol}\n\n$$\n{row.equation}\n$$\n\n{picture(row.name, alt)}"
        f"{{py:func}}`{signature(row)} <fastact.functional.{name}>`, "
        f"{{py:class}}`nn.{module} <fastact.nn.{module}>`. {source(name)}\n\n"
    )


def family(page: str, folder: Path) -> str:
    """All activations of a page, first in one picture and then one by one."""
    rows = families.rows(page)
    stem = f"family-{page}"
    limit = max(LIMITS.get(row.name, figures.LIMIT) for row in rows)
    figures.panels([(row.symbol, public(row)) for row in rows], folder / stem, limit=limit)
    names = ", ".join(row.symbol for row in rows)
    overview = picture(stem, f"Values, slopes and curvatures of {names}")
    return overview + "".join(section(row, folder) for row in rows)


def scaled(function: figures.Curve, up: float) -> figures.Curve:
    """A gate, with the other operand held."""
    return lambda gate: function(gate) * up


def gated(folder: Path) -> str:
    """The gates: value and slope over the gate for some values of the other operand."""
    text = ""
    for row in families.gates():
        names = families.gate_functions(row.name)
        curves = [(f"up = {up:g}", scaled(public(row), up)) for up in (1.0, 2.0, -1.0)]
        stem = f"gate-{row.name}"
        figures.panels(curves, folder / stem, xlabel="gate")
        _, keywords = families.function(row.name)
        given = "".join(f", {k}={v!r}" for k, v in keywords.items())
        calls = [
            f"{{py:func}}`{n}({'gate, up' if n.endswith('_mul') else 'x'}{given}) "
            f"<fastact.functional.{n}>`"
            for n in names
        ]
        equation = r"f(a)\,b \quad \text{with } f(x) = " + row.equation
        text += (
            f"(gate-{row.name})=\n## {row.symbol} gates\n\n$$\n{equation}\n$$\n\n"
            f"{picture(stem, f'Value, slope and curvature by the gate of a {row.symbol} gate')}"
            f"{', '.join(calls)}. {source(names[0])}\n\n"
        )
    return text


def _two_classes(x: Tensor) -> Tensor:
    return torch.stack([x, torch.zeros_like(x)], -1)


def _class_loss(smoothing: float) -> figures.Curve:
    def loss(x: Tensor) -> Tensor:
        target = torch.zeros(x.shape, dtype=torch.int64)
        return F.cross_entropy(_two_classes(x), target, reduction="none", label_smoothing=smoothing)

    return loss


def _binary_loss(y: float) -> figures.Curve:
    return lambda x: F.binary_cross_entropy_with_logits(x, torch.full_like(x, y), reduction="none")


def _nll(x: Tensor) -> Tensor:
    return F.nll_loss(x.unsqueeze(-1), torch.zeros(x.shape, dtype=torch.int64), reduction="none")


# Each as a function of one number: the first of two logits, the other of which is 0.
LOSSES: dict[str, list[tuple[str, figures.Curve]]] = {
    "softmax": [("", lambda x: F.softmax(_two_classes(x), -1)[..., 0])],
    "log_softmax": [("", lambda x: F.log_softmax(_two_classes(x), -1)[..., 0])],
    "cross_entropy": [
        ("no smoothing", _class_loss(0.0)),
        ("label_smoothing = 0.1", _class_loss(0.1)),
    ],
    "binary_cross_entropy_with_logits": [
        (f"target = {y:g}", _binary_loss(y)) for y in (0.0, 0.5, 1.0)
    ],
    "nll_loss": [("", _nll)],
}


def losses(folder: Path) -> str:
    """Softmax and the losses, with the equations of their docstrings."""
    text = ""
    for name, curves in LOSSES.items():
        doc = inspect.getdoc(getattr(F, name)) or ""
        equation = re.search(r":math:`(.*?)`", doc, re.S)
        assert equation, f"{name}: its docstring has no equation"
        figures.panels(curves, folder / name)
        text += (
            f"(op-{name})=\n## {name}\n\n$$\n{equation[1]}\n$$\n\n"
            f"{picture(name, f'Value, slope and curvature of {name}')}"
            f"{{py:func}}`{name} <fastact.functional.{name}>`. {source(name)}\n\n"
        )
    return text


# The modules of fastact.functional, in the order of the page.
API = {
    "activations": "Activations",
    "gated": "Gated activations",
    "softmax": "Softmax",
    "losses": "Losses",
}


def api() -> str:
    """The functions, grouped as their sources are and in the same order."""
    functions = [getattr(F, name) for name in F.__all__]
    text = ""
    for module, title in API.items():
        found = [f for f in functions if f.__module__ == f"{F.__name__}.{module}"]
        found.sort(key=lambda f: f.__code__.co_firstlineno)
        lines = "".join(f".. autofunction:: fastact.functional.{f.__name__}\n" for f in found)
        text += f"## {title}\n\n```{{eval-rst}}\n{lines}```\n\n"
    return text
