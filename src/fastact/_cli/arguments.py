"""What the arguments of several commands have in common."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import click

DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "float64": "fp64"}


class Count(click.IntRange):
    """A range of integers that is called an integer where the value is none."""

    name = "integer"

    def __init__(self, least: int, most: int | None = None) -> None:
        super().__init__(min=least, max=most)


class Dtype(click.Choice[str]):
    """A short name of a dtype; torch's own is taken for it."""

    def __init__(self) -> None:
        super().__init__(tuple(DTYPES.values()))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The short name."""
        return super().convert(DTYPES.get(str(value), value), param, ctx)


def no_such_op(op: str, known: Iterable[str]) -> click.BadParameter:
    """The error for a name that is none of those known."""
    names = tuple(known)
    near = difflib.get_close_matches(op.lower(), names, 1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(names)}"
    return click.BadParameter(f"there is no op {op!r}: {hint}", param_hint="OP")
