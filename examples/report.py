"""Prints the demo's header, progress bars and result tables."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from training import Comparison, History

import fastact

# A pipe has no width of its own, and rich's default of 80 columns would fold the tables.
stdout = Console(width=None if sys.stdout.isatty() else 100, highlight=False)


@dataclass(frozen=True)
class Row:
    """A comparison and, where measured, the activations' share of a step on either side."""

    comparison: Comparison
    shares: tuple[float, float] | None = None


@dataclass(frozen=True)
class Section:
    """What one problem adds to the report."""

    title: str
    rows: list[Row]
    pictures: list[Path]
    note: str


def print_header() -> None:
    """Say what is compared, and on what."""
    version = getattr(fastact, "__version__", "unknown")
    threads = torch.get_num_threads()
    stdout.print(
        f"[bold]fastact {version}[/] against torch {torch.__version__},"
        f" {threads} {'thread' if threads == 1 else 'threads'}, float32 on the CPU"
    )
    for line in backend_lines():
        stdout.print(f"  {escape(line)}")
    stdout.print("Both sides start from the same weights, see the same batches and step in turn.\n")


def backend_lines() -> list[str]:
    """One line for each backend fastact reports."""
    lines = []
    for backend in fastact.backends():
        name = getattr(backend, "name", str(backend))
        state = "available" if getattr(backend, "available", True) else "not available"
        detail = getattr(backend, "detail", "")
        lines.append(f"{name}: {state}" + (f" ({detail})" if detail else ""))
    return lines


def progress_bars() -> Progress:
    """Progress bars that count epochs."""
    return Progress(
        TextColumn("{task.description:<18}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs"),
        TimeElapsedColumn(),
        console=stdout,
        # Drawing runs beside the timed steps, so it is kept rare.
        refresh_per_second=2,
    )


def print_sections(sections: list[Section]) -> None:
    """Print a table and a note for each problem, then where the pictures are."""
    for section in sections:
        stdout.print()
        stdout.print(build_table(section))
        stdout.print(f"[dim]{escape(section.note)}[/]")
    stdout.print(
        "\n[dim]Loss: mean over the last training epoch. Step: median time of a whole training"
        " step.\nRatio: torch's step over fastact's, above 1 fastact is faster."
        " Largest diff.: between the\ntwo training loss curves, over all epochs.[/]"
    )
    stdout.print("\n[bold]Pictures[/]")
    for section in sections:
        for picture in section.pictures:
            stdout.print(f"  {escape(str(picture.resolve()))}", soft_wrap=True)


def build_table(section: Section) -> Table:
    """A table with two lines per comparison, torch's above fastact's."""
    shares = any(row.shares for row in section.rows)
    table = Table(title=section.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Network" if shares else "Activation")
    table.add_column("Module")
    for heading in ("Loss", "Accuracy", "Step", *(["Act. share"] if shares else [])):
        table.add_column(heading, justify="right")
    table.add_column("Ratio", justify="right")
    table.add_column("Largest diff.", justify="right")
    for row in section.rows:
        comparison = row.comparison
        left, right = row.shares or (None, None)
        table.add_row(comparison.name, "torch.nn", *cells(comparison.torch, left, shares), "", "")
        table.add_row(
            "",
            "fastact.nn",
            *cells(comparison.fastact, right, shares),
            f"[bold]{comparison.ratio:.2f}x[/]",
            f"{comparison.largest_difference:.1e}",
            end_section=True,
        )
    return table


def cells(history: History, share: float | None, with_share: bool) -> list[str]:
    """The table cells of one side of a comparison."""
    values = [
        f"{history.loss[-1]:.4f}",
        f"{history.accuracy[-1]:.1%}",
        f"{history.median_step * 1e3:.2f} ms",
    ]
    if with_share:
        values.append("" if share is None else f"{share:.0%}")
    return values
