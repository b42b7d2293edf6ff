"""The tables of accuracy, from what benchmarks/accuracy.py wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Ops = dict[str, dict[str, dict[str, Any]]]  # by op, contender and dtype

CONTENDERS = {"compiled": "fastact", "numba": "fastact, Numba", "torch": "torch"}
KINDS = ("value", "slope")


def table(head: Sequence[str], lines: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table in Markdown; all columns but the first few are aligned at the right."""
    marks = [":--" if n < left else "--:" for n in range(len(head))]
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, marks, *lines]) + "\n"


def ulp(found: dict[str, Any]) -> str:
    """The worst error, with a mark where a result is not even finite."""
    size = found["ulp"]
    text = f"{size:.2f}" if size < 100 else f"{size:.1e}"
    return f"**+** {text}" if found["broken"] else text


def count(found: int | None) -> str:
    """A number of misrounded results."""
    return "-" if found is None else f"{found:,}"


def link(op: str) -> str:
    """An op, linked to its section."""
    return f"[{op}](#op-{op})"


def side_by_side(ops: Ops, dtype: str, cell: Callable[[Any], str]) -> str:
    """A line for each op; for value and slope a column for each contender."""
    head = ["op", *(f"{kind}: {name}" for kind in KINDS for name in CONTENDERS.values())]
    lines = [
        [link(op), *(cell(by[c][dtype][kind]) for kind in KINDS for c in CONTENDERS)]
        for op, by in ops.items()
    ]
    return table(head, lines)


def failures(ops: Ops) -> str:
    """Where a result is infinite or NaN and the exact one is not, or the other way round."""
    lines = [
        [link(op), CONTENDERS[c], kind, f"{found['broken']:,}", f"{found['broken_at']:.4g}"]
        for op, by in ops.items()
        for c in CONTENDERS
        for kind in KINDS
        if (found := by[c]["fp32"][kind])["broken"]
    ]
    head = ["op", "whose", "of", "inputs of the sweep", "nearest to zero"]
    return table(head, lines, left=3) if lines else "None.\n\n"


def places(ops: Ops) -> str:
    """The inputs of the worst errors."""
    head = ["op", *(f"{CONTENDERS[c]}: {kind}" for c in CONTENDERS for kind in KINDS)]
    lines = [
        [
            link(op),
            *(f"{by[c]['fp32'][kind]['at']:.6g}" for c in CONTENDERS for kind in KINDS),
        ]
        for op, by in ops.items()
    ]
    return table(head, lines)


def page(path: Path) -> str:
    """Everything."""
    data = json.loads(path.read_text())
    ops, versions = data["ops"], data["versions"]
    return (
        f"fastact {versions['fastact']} (instruction set {versions['isa']}), torch "
        f"{versions['torch']}. float32: one bit pattern in {data['step']}, {data['inputs']:,} "
        "finite inputs; bfloat16 and float16: every finite input.\n\n"
        f"## Worst error in float32, in ulp\n\n{side_by_side(ops, 'fp32', ulp)}"
        "**+** marks results that are infinite or NaN where the exact one is finite; they are not "
        f"in the figure.\n\n### Not finite where the exact result is\n\n{failures(ops)}"
        f"### Where the worst errors are\n\n{places(ops)}"
        "## bfloat16: results that are not correctly rounded\n\nOf 65,280 inputs.\n\n"
        f"{side_by_side(ops, 'bf16', count)}"
        "## float16: results that are not correctly rounded\n\nOf 63,488 inputs.\n\n"
        f"{side_by_side(ops, 'fp16', count)}"
    )
