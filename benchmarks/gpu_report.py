"""What a run on a GPU says: a line for each case, and the targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import cases
from bars import FLOOR
from cases import BOTH, DTYPES, FORWARD
from gpu_cases import COMPETITORS, COMPILE, LARGE, OURS, TARGET_LOGITS, TORCH
from results import Results, Row


def duration(seconds: float) -> str:
    """In microseconds."""
    return f"{seconds * 1e6:.1f}"


def ratio(row: Row, against: str = TORCH, of: str = OURS) -> float:
    """How many times as fast; NaN where one of the two was not measured."""
    found = row.ratio(of, against)
    return found.median if found else math.nan


def columns(lines: Iterable[tuple[str, ...]]) -> str:
    """Text in columns: the first four to the left, numbers to the right."""
    lines = list(lines)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 4 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cell(number: float, style: str = ".2f") -> str:
    return "" if math.isnan(number) else f"{number:{style}}"


def table(results: Results) -> str:
    """A line for each case."""
    heading = ("op", "dtype", "n", "pass", "us", "torch us", "torch", "compile", "liger",
               "not kept", "GB/s", "copy", "call us")  # fmt: skip
    calls = results.notes["calls"]
    lines = [heading]
    for row in sorted(results.rows, key=lambda r: (r.family, r.op, r.dtype, math.prod(r.shape))):
        ours, torchs = row.contenders[OURS], row.contenders[TORCH]
        call = calls.get(f"{row.op}-{row.dtype}-{row.where}-{row.mode}", {}).get(OURS, math.nan)
        lines.append((
            row.op.replace("binary_cross_entropy", "bce"), row.dtype, row.where,
            "fwd" if row.mode == FORWARD else "fwd+bwd",
            duration(ours.seconds.median), duration(torchs.seconds.median),
            *(_cell(ratio(row, name)) for name in COMPETITORS[1:]),
            f"{ours.gbs:.0f}", f"{ours.percent_of_copy:.0f}%", _cell(call * 1e6, ".1f"),
        ))  # fmt: skip
    return columns(lines)


@dataclass(frozen=True)
class Target:
    """What rows have to reach."""

    text: str
    required: float
    applies: Callable[[Row], bool]
    measured: Callable[[Row], float]

    def line(self, rows: list[Row]) -> str:
        """Reached or missed, by how many rows, and the worst."""
        found = [(self.measured(row), row) for row in rows if self.applies(row)]
        found = [(value, row) for value, row in found if not math.isnan(value)]
        if not found:
            return f"not measured  {self.text}"
        worst, row = min(found, key=lambda pair: pair[0])
        missed = sum(value < self.required for value, _ in found)
        verdict = f"MISSED {missed:>3}/{len(found)}" if missed else f"reached {len(found):>5}"
        where = f"{row.op} {row.dtype} {row.where} {row.mode}"
        return f"{verdict}  {self.text}: {self.required:g} required, least {worst:.3g} ({where})"


def _is_pointwise(row: Row) -> bool:
    return row.family in cases.FAMILIES[:2]


def _is_large(row: Row) -> bool:
    return _is_pointwise(row) and math.prod(row.shape) * DTYPES[row.dtype].itemsize >= 0.99 * LARGE


def _is_target_loss(row: Row) -> bool:
    return row.op == "cross_entropy" and row.where == TARGET_LOGITS and row.mode == BOTH


def _is_read_once(row: Row) -> bool:
    return row.op == "cross_entropy_expected" and row.where == TARGET_LOGITS


def _is_over_classes(row: Row) -> bool:
    return row.family == cases.FAMILIES[2] and len(row.shape) >= 2 and row.shape[1] >= 10


def _percent(row: Row) -> float:
    return row.contenders[OURS].percent_of_copy


TARGETS = (
    Target("pointwise, 64 MiB and more, % of a copy's bandwidth", 95, _is_large, _percent),
    Target("pointwise, times as fast as torch", FLOOR, _is_pointwise, ratio),
    Target(f"cross entropy {TARGET_LOGITS} bf16, times as fast as torch", 2.5,
           _is_target_loss, ratio),
    Target(f"cross entropy {TARGET_LOGITS} bf16, times as fast as torch.compile", 1.5,
           _is_target_loss, lambda row: ratio(row, COMPILE)),
    Target(f"cross entropy {TARGET_LOGITS} bf16, % of the two-kernel floor", 85,
           _is_target_loss, _percent),
    Target(f"cross entropy {TARGET_LOGITS} bf16, read once, % of the one-kernel floor", 85,
           _is_read_once, _percent),
    Target("softmax and losses over 10 classes and more, times as fast as torch", FLOOR,
           _is_over_classes, ratio),
)  # fmt: skip


def summary(results: Results) -> str:
    """The targets, and what was left out or wrong."""
    notes = results.notes
    lines = [target.line(results.rows) for target in TARGETS]
    slow = sum(
        seconds[OURS] > seconds[TORCH] / FLOOR
        for seconds in notes["calls"].values()
        if OURS in seconds and TORCH in seconds
    )
    lines.append(f"{slow} of {len(notes['calls'])} short calls from Python slower than torch's")
    lines += [f"WRONG {name}: {what}" for name, what in notes["wrong"].items()]
    lines += [f"FAILED {name}: {what}" for name, what in notes["failed"].items()]
    if notes["left_out"]:
        lines.append(f"{len(notes['left_out'])} cases left out, for time or memory")
    return "\n".join(lines)
