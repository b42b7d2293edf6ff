"""Writes the two tables of speed in README.md anew, from the committed results.

python benchmarks/readme.py
"""

from __future__ import annotations

import re

from cases import BOTH
from results import ROOT, Results, Row

RESULTS, README = ROOT / "benchmarks" / "results" / "cpu.json", ROOT / "README.md"
COLUMNS = [(dtype, where) for dtype in ("fp32", "bf16") for where in ("2^20", "2^24")]
OPS = {
    "gelu_tanh": "GELU (tanh)",
    "gelu": "GELU",
    "silu": "SiLU",
    "mish": "Mish",
    "tanh": "tanh",
    "relu": "ReLU",
    "silu_mul": "`silu_mul`",
}
LOGITS = ("2048x32000", "512x128256", "4096x1000", "64x10")
Rows = dict[tuple[str, str, str], Row]  # by op, dtype and size


def times(row: Row) -> str:
    """Nanoseconds for each element, of torch and of fastact, and the ratio."""
    torch, ours = (
        row.contenders[name].seconds.median / 2 ** int(row.where[2:]) * 1e9
        for name in ("torch", "fastact")
    )
    found = row.ratio()
    assert found
    return f"{torch:.2f} / {ours:.2f} = {found.median:.1f}x"


def ratios(rows: Rows, op: str, where: str, against: str = "torch") -> str:
    """How many times as fast, in bfloat16 in brackets; nothing where it was not measured."""
    found = [
        row.ratio(against=against) if (row := rows.get((op, dtype, where))) else None
        for dtype in ("fp32", "bf16")
    ]
    full, half = (f"{r.median:.{1 if r.median > 1.5 else 2}f}x" if r else "" for r in found)
    return f"{full} ({half})" if half else full


def line(*cells: str) -> str:
    """A row of a table."""
    return re.sub(" +", " ", f"| {' | '.join(cells)} |")


def tables(results: Results) -> tuple[str, str]:
    """The lines below the heads of the two tables."""
    rows = {(r.op, r.dtype, r.where): r for r in results.rows if r.mode == BOTH}
    activations = [
        line(name, *(times(rows[(op, *column)]) for column in COLUMNS)) for op, name in OPS.items()
    ]
    losses = [
        line(
            where.replace("x", " x "),
            ratios(rows, "cross_entropy", where),
            ratios(rows, "cross_entropy_expected", where),
            ratios(rows, "cross_entropy_inplace", where),
            ratios(rows, "cross_entropy", where, "torch.compile"),
        )
        for where in LOGITS
    ]
    return "\n".join(activations), "\n".join(losses)


def rewritten(text: str, results: Results) -> str:
    """A README with the tables of some results."""
    for below, found in zip(
        ("| | float32, 2^20 |", "| rows x classes |"), tables(results), strict=True
    ):
        head = re.escape(below) + r".*\n\|[-|]+\n"
        text, count = re.subn(f"({head})(?:\\|.*\n)+", lambda m, t=found: f"{m[1]}{t}\n", text)
        assert count == 1, below
    return text


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text(), Results.read(RESULTS)))
