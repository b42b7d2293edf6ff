"""What replace() did."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Replaced:
    """One module that is replaced, or one model's loss."""

    name: str  #: where it is in the model
    was: str  #: its class, or the loss function
    now: str  #: what computes it now


@dataclass(frozen=True)
class Left:
    """One module that looks like ours and was left."""

    name: str  #: where it is in the model
    was: str  #: its class
    why: str  #: the reason


@dataclass(repr=False)
class Report:
    """What :func:`fastact.replace` did, or would do; prints as a table.

    Attributes:
        replaced: for each module and loss that was replaced its ``name``, what it ``was`` and what
            computes it ``now``.
        left: for each that looks like one of ours its ``name``, what it ``was``, and ``why`` it was
            left.
        dry_run: whether nothing was changed.
    """

    replaced: list[Replaced] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    dry_run: bool = False

    def __str__(self) -> str:
        verb = "would replace" if self.dry_run else "replaced"
        lines = [f"fastact {verb} {len(self.replaced)}, left {len(self.left)}"]
        if self.replaced:
            rows = _grouped((r.name, r.was, r.now) for r in self.replaced)
            lines += _table(("count", "where", "was", "now"), rows)
        if self.left:
            rows = _grouped((r.name, r.was, r.why) for r in self.left)
            lines += _table(("count", "where", "left", "why"), rows)
        return "\n".join(lines)

    __repr__ = __str__


def _grouped(rows: Iterable[tuple[str, str, str]]) -> list[tuple[str, ...]]:
    """One row for those that differ in the numbers of their names alone."""
    counts: dict[tuple[str, str, str], int] = defaultdict(int)
    for name, *rest in rows:
        pattern = re.sub(r"(?<![^.])\d+(?![^.])", "*", name) or "(the model)"
        counts[pattern, rest[0], rest[1]] += 1
    return [(str(count), *row) for row, count in counts.items()]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
