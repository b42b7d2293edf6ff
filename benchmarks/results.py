"""What was measured, as it is kept in JSON.

The fields of a file are those of ``Results``; ``docs/benchmarks.md`` describes them.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from cases import COPY, Case
from timing import Budget, Samples, Spread, in_turns, ratio
from workers import Worker

import fastact
from fastact._cli.machine import processor

VERSION = 1  # of the format
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Contender:
    """What one contender did in a case."""

    seconds: Spread
    gbs: float  # 10^9 bytes a second, of the bytes that have to be moved at least
    percent_of_copy: float
    ratios: dict[str, Spread]  # torch's, torch.compile's and Liger's time over this one's


@dataclass(frozen=True)
class Row:
    """One case."""

    family: str
    op: str
    dtype: str
    where: str
    shape: list[int]
    mode: str
    bytes: int
    copy_bytes: int
    rounds: int
    copy_gbs: float
    contenders: dict[str, Contender]

    @classmethod
    def of(cls, case: Case, samples: Samples) -> Row:
        """Computes everything from the samples."""
        copy_gbs = case.copy_bytes / Spread.of(samples[COPY]).median * 1e-9
        contenders = {}
        for name in samples:
            if name == COPY:
                continue
            seconds = Spread.of(samples[name])
            gbs = case.bytes / seconds.median * 1e-9
            references: list[str] = [
                other for other in ("torch", "torch.compile", "liger") if other in samples
            ]
            ratios = {other: ratio(samples, other, name) for other in references}
            contenders[name] = Contender(seconds, gbs, 100 * gbs / copy_gbs, ratios)
        return cls(
            case.op.family, case.op.name, case.dtype, case.where, list(case.shape), case.mode,
            case.bytes, case.copy_bytes, len(samples[COPY]), copy_gbs, contenders,
        )  # fmt: skip

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Row:
        """The inverse of asdict."""
        contenders = {
            name: Contender(
                Spread(**contender["seconds"]),
                contender["gbs"],
                contender["percent_of_copy"],
                {reference: Spread(**r) for reference, r in contender["ratios"].items()},
            )
            for name, contender in fields["contenders"].items()
        }
        return cls(**{**fields, "contenders": contenders})

    def ratio(self, contender: str = "fastact", against: str = "torch") -> Spread | None:
        """How many times as fast a contender is; None where one of the two was not measured."""
        found = self.contenders.get(contender)
        return None if found is None else found.ratios.get(against)


def measure(
    case: Case, contenders: list[str], budget: Budget, workers: dict[str, Worker] | None = None
) -> Row:
    """Times one case; in a process for each contender, where there are such."""
    if not workers:
        return Row.of(case, in_turns(case.calls(contenders), budget))
    remote = {name: workers[name].call(case, name) for name in (*contenders, COPY)}
    return Row.of(case, in_turns({n: call for n, call in remote.items() if call}, budget))


@dataclass(frozen=True)
class Results:
    """One run."""

    version: int
    date: str
    machine: dict[str, Any]
    rows: list[Row]
    notes: dict[str, Any] = field(default_factory=dict)  # what a run on a GPU says beside them

    @classmethod
    def now(cls, rows: list[Row]) -> Results:
        """Dates the rows."""
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return cls(VERSION, date, machine(), rows)

    def write(self, path: Path) -> None:
        """Writes JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Reads what was written."""
        fields = json.loads(path.read_text())
        if fields["version"] != VERSION:
            raise ValueError(f"{path} has format {fields['version']}, not {VERSION}")
        return cls(**{**fields, "rows": [Row.from_json(row) for row in fields["rows"]]})


def machine() -> dict[str, Any]:
    """What the figures depend on beside the code."""
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": _system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "fastact": fastact.__version__,
        "revision": _revision(),
        "backends": {info.name: info.detail for info in fastact.backends()},
        "huge_pages": _first_line("/sys/kernel/mm/transparent_hugepage/enabled"),
        "preloaded": os.environ.get("LD_PRELOAD", ""),  # another allocator, say
    }


def _system() -> str:
    """The system, without what its builder calls the kernel."""
    release = ".".join(platform.release().split(".")[:2])
    libc = " ".join(platform.libc_ver())
    return ", ".join(filter(None, (f"{platform.system()} {release}", platform.machine(), libc)))


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().partition("\n")[0]
    except OSError:
        return ""


def _revision() -> str:
    if not (ROOT / ".git").exists():
        return ""  # installed, and not a checkout
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
