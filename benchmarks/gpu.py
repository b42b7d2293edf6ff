"""Compares fastact with torch on a GPU: writes JSON, prints a table and the targets.

    python benchmarks/gpu.py [--out build/gpu] [--seconds 200] [--ops gelu] [--dry-run]

benchmarks/gpu.sh builds, tests and calls this. docs/benchmarks.md says what is measured.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import gpu_cases
import gpu_report
import torch
from cases import COPY, Case
from gpu_cases import COMPILE, OURS, Operands
from gpu_timing import GpuCall, elapsed, sets_needed
from results import Results, Row, machine
from timing import Budget, in_turns

import fastact
from fastact._cli import exits

GIB = 2**30
BUDGET = Budget(seconds=0.04, least=5, most=25)
SLICE = 5e-4
START = 10.0  # seconds: what a process takes until it measures
WRITE_EVERY = 15.0  # seconds: what was measured outlives a process that is killed
# Bytes of memory a case takes, over those of its operands: float64, results, gradients.
OVERHEAD = 12


@dataclass
class Notes:
    """What a run says beside its rows; the keys are names of cases."""

    calls: dict[str, dict[str, float]] = field(default_factory=dict)  # seconds, from Python
    how: dict[str, dict[str, str]] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def on_gpu() -> bool:
    """Whether this is no dry run."""
    return torch.cuda.is_available()


def _answer(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()


def copy_bandwidth(size: int) -> float:
    """10^9 bytes a second, read and written, of torch's copy of so many bytes."""
    with on_device():
        source = torch.empty(size, dtype=torch.uint8).random_(0, 255)
    target = torch.empty_like(source)
    run = partial(target.copy_, source)
    seconds = sorted(elapsed(run, 3) / 3 for _ in range(11))[5]
    return 2 * size / seconds * 1e-9


def gpu() -> dict[str, Any]:
    """The device; its settings are read and not changed."""
    nvcc = re.search(r"release ([\d.]+)", _answer("nvcc", "--version"))
    found: dict[str, Any] = {"nvcc": nvcc.group(1) if nvcc else "", "cuda": torch.version.cuda}
    if not on_gpu():
        return {"name": "dry run", **found, "copy_gbs": copy_bandwidth(2**20)}
    properties = torch.cuda.get_device_properties(0)
    query = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit"
    said = _answer("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", "--id=0")
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory": properties.total_memory,
        "l2": properties.L2_cache_size,
        **found,
        **dict(zip(query.split(","), map(str.strip, said.split(",")), strict=False)),
        "copy_gbs": copy_bandwidth(GIB),
    }


def on_device() -> AbstractContextManager[object]:
    """Where what is made inside lies. Not around what is timed: torch's calls take longer in it."""
    return torch.device("cuda" if on_gpu() else "cpu")


def room() -> tuple[int, int]:
    """Bytes of the second-level cache, and of memory that is free."""
    if not on_gpu():
        return 2**15, GIB
    return torch.cuda.get_device_properties(0).L2_cache_size, torch.cuda.mem_get_info()[0]


def lost() -> bool:
    """Whether the process cannot use the GPU any more; else gives unused memory back."""
    if on_gpu():
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except RuntimeError:
            return True
    return False


def measure(case: Case, names: list[str], notes: Notes) -> Row:
    """Times one case."""
    cache, free = room()
    with on_device():
        first = Operands.of(case)
        sets = [first]
        while len(sets) < sets_needed(first.bytes, cache, free):
            sets.append(Operands.of(case))
    calls: dict[str, GpuCall] = {}
    for name in names:
        within = partial(gpu_cases.backend_of, name)
        # What is overwritten has a history on another stream, which a capture must not reach.
        runs = gpu_cases.run_of(case, name, sets)
        calls[name] = GpuCall(runs, within, may_capture=not case.op.overwrites)
    sources = [s.grad if s.grad is not None else s.tensors[0] for s in sets]
    targets = [torch.empty_like(t) for t in sources]
    copies = [partial(t.copy_, s) for t, s in zip(targets, sources, strict=True)]
    calls[COPY] = GpuCall(copies)
    samples = in_turns(calls, BUDGET, SLICE)
    notes.how[case.name] = {name: call.how for name, call in calls.items()}
    seconds = {n: c.call_seconds for n, c in calls.items() if c.call_seconds == c.call_seconds}
    if OURS in seconds:
        notes.calls[case.name] = seconds
    return Row.of(case, samples)


class Session:
    """One run: what was measured, and how long it may still take."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.rows: list[Row] = []
        self.notes = Notes()
        self.gpu = gpu()
        about = machine()
        # A copy of the tree has no history to ask.
        revision = about["revision"] or os.environ.get("FASTACT_REVISION", "")
        self.machine = {**about, "revision": revision, "gpu": self.gpu["name"]}
        self.end = perf_counter() + options.seconds
        self.compiling = options.compile_seconds  # what is left for torch.compile
        self.written = perf_counter()
        name = re.sub(r"[^a-z0-9]+", "-", self.gpu["name"].lower()).strip("-")
        self.path: Path = options.out / f"{name}.json"
        self._right: dict[tuple[str, str, str], str] = {}

    @property
    def results(self) -> Results:
        """So far."""
        made = Results.now(self.rows)
        return replace(made, machine=self.machine, notes={"gpu": self.gpu, **vars(self.notes)})

    def write(self) -> None:
        """To the file."""
        self.results.write(self.path)
        self.written = perf_counter()

    def competitors(self, case: Case) -> list[str]:
        """Without torch.compile once its time is up."""
        names = gpu_cases.competitors(case)
        if COMPILE in names and self.compiling <= 0:
            names.remove(COMPILE)
            self.notes.left_out[f"{case.name} with {COMPILE}"] = "time to compile"
        return names

    def resume(self) -> None:
        """Takes what an earlier process has left, which lost the GPU."""
        found = Results.read(self.path)
        self.rows = list(found.rows)
        self.notes = Notes(**{k: v for k, v in found.notes.items() if k != "gpu"})

    def has(self, case: Case) -> bool:
        """Whether it was measured, or failed."""
        known = {(row.op, row.dtype, row.where, row.mode) for row in self.rows}
        key = (case.op.name, case.dtype, case.where, case.mode)
        return key in known or case.name in (*self.notes.failed, *self.notes.wrong)

    def go_on_in_another_process(self) -> None:
        """After an error that a CUDA context does not survive."""
        self.write()
        print(f"{len(self.rows)} rows; the GPU was lost, and another process goes on", flush=True)
        left = {
            "--seconds": self.end - perf_counter() - START,
            "--compile-seconds": self.compiling,
        }
        options = (f"{name}={max(value, 0):.0f}" for name, value in left.items())
        os.execv(sys.executable, [sys.executable, *sys.argv, *options, "--resume"])

    def _measure(self, case: Case, names: list[str]) -> None:
        notes, key = self.notes, (case.op.name, case.dtype, case.where)
        operands = sum(case.op.moves) * case.copy_bytes // 2
        if operands * OVERHEAD // 4 > room()[1]:
            notes.left_out[case.name] = "memory"
            return
        if key not in self._right:
            with on_device():
                self._right[key] = gpu_cases.wrong(case)
        if self._right[key]:
            notes.wrong[case.name] = self._right[key]
            return
        try:
            self.rows.append(measure(case, names, notes))
        except Exception as error:
            if COMPILE not in names and gpu_cases.LIGER not in names:
                raise
            notes.failed[f"{case.name} with {', '.join(names[2:])}"] = repr(error)[:300]
            self.rows.append(measure(case, names[:2], notes))

    def run(self, case: Case) -> None:
        """One case; whatever goes wrong in it is noted, and the next one follows."""
        notes = self.notes
        if perf_counter() > self.end:
            notes.left_out[case.name] = "time"
            return
        start, names = perf_counter(), self.competitors(case)
        try:
            self._measure(case, names)
        except Exception as error:
            notes.failed[case.name] = repr(error)[:300]
        finally:
            if COMPILE in names:
                self.compiling -= perf_counter() - start
        if lost():
            notes.failed.setdefault(case.name, "the GPU was lost")
            self.go_on_in_another_process()
        if perf_counter() - self.written > WRITE_EVERY:
            self.write()
            print(f"{len(self.rows)} rows, {self.end - perf_counter():.0f} s left", flush=True)


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="a folder")
    parser.add_argument("--seconds", type=float, default=200, help="no case begins after these")
    parser.add_argument("--compile-seconds", type=float, default=80, help="for torch.compile's")
    parser.add_argument("--ops", nargs="+", metavar="OP")
    parser.add_argument("--resume", action="store_true", help="adds to the file that is there")
    parser.add_argument("--show", type=Path, metavar="JSON", help="print an earlier run again")
    parser.add_argument(
        "--dry-run", action="store_true", help="a few elements, on the CPU: whether this runs"
    )
    return parser.parse_args()


def chosen(options: argparse.Namespace) -> list[Case]:
    """The cases."""
    found = gpu_cases.all_cases()
    if options.ops:
        found = [case for case in found if case.op.name in options.ops]
    if not options.dry_run:
        return found
    shapes = {1: (24,), 2: (3, 10), 3: (3, 10, 2), 4: (3, 10, 2, 2)}
    return list({
        (c.op.name, c.dtype, c.mode): Case(
            replace(c.op, shapes={"tiny": shapes[len(c.shape)]}), c.dtype, "tiny", c.mode
        )
        for c in found
    }.values())  # fmt: skip


def show(results: Results) -> None:
    """Prints everything; what matters most comes last."""
    print(gpu_report.table(results))
    about = results.notes["gpu"]
    print(
        f"\n{about['name']}, driver {about.get('driver_version', '?')}, nvcc {about['nvcc']}, "
        f"torch {results.machine['torch']}, fastact {results.machine['revision']}: a copy moves "
        f"{about['copy_gbs']:.0f} GB/s"
    )
    print(gpu_report.summary(results))


def main() -> int:
    """The command; fails where a result was wrong or could not be had."""
    options = parse()
    if options.show:
        show(Results.read(options.show))
        return 0
    if not options.dry_run and (not on_gpu() or "GPU: CUDA" not in fastact.backends()[0].detail):
        print(f"no GPU kernels: {fastact.backends()[0].detail}", file=sys.stderr)
        return 2
    session = Session(options)
    if options.resume:
        session.resume()
    left = [case for case in chosen(options) if not session.has(case)]
    code = 0
    try:
        while left:
            session.run(left[0])
            left.pop(0)
    except KeyboardInterrupt:  # at a limit of time
        session.notes.left_out |= {case.name: "interrupted" for case in left}
        code = exits.INTERRUPTED
    session.write()
    show(session.results)
    print(f"written to {session.path}")
    return code or int(bool(session.notes.wrong or session.notes.failed))


if __name__ == "__main__":
    sys.exit(main())
