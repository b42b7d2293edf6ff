"""Prints what was measured."""

from __future__ import annotations

import sys

import torch
from bars import BARS, FLOOR
from cases import FAMILIES, FORWARD
from results import Results, Row
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import fastact

# A pipe has no width of its own, and rich's default of 80 columns would fold the tables.
stdout = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
OTHERS = ("compiled", "numba", "torch.compile")  # beside "fastact" and "torch"
TITLES = {"activations": "Activations", "gated": "Gated activations", "losses": "Losses"}


def progress_bar() -> Progress:
    """A progress bar that counts cases."""
    return Progress(
        TextColumn("{task.description:<48}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=stdout,
        refresh_per_second=2,  # drawing runs beside the timed calls
        transient=True,
    )


def table(title: str, *left: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table with columns aligned left, then columns aligned right."""
    made = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for heading in left:
        made.add_column(heading, no_wrap=True)
    for heading in right:
        made.add_column(heading, justify="right", no_wrap=True)
    return made


def duration(seconds: float) -> str:
    """A time with three digits and a unit."""
    for unit, factor in (("s", 1), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def abbreviated(op: str) -> str:
    """An op as it is printed."""
    return op.replace("binary_cross_entropy", "bce")


def short(mode: str) -> str:
    """A pass as it is printed."""
    return "fwd" if mode == FORWARD else "fwd+bwd"


def print_header() -> None:
    """Says what is compared, and on what."""
    threads = torch.get_num_threads()
    stdout.print(
        f"[bold]fastact {fastact.__version__}[/] against torch {torch.__version__},"
        f" {threads} {'thread' if threads == 1 else 'threads'}"
    )
    for info in fastact.backends():
        state = "" if info.available else "not available: "
        stdout.print(f"  {info.name}: {escape(state + info.detail)}")


def print_results(results: Results) -> None:
    """Prints a table for each family, then what is required."""
    for family in FAMILIES:
        rows = [row for row in results.rows if row.family == family]
        if rows:
            stdout.print()
            stdout.print(family_table(TITLES[family], rows))
    stdout.print(
        "[dim]Times are medians of one call. Ratio: torch's time over the contender's, the median"
        " over rounds in\nwhich all were timed in turn; +-: half the distance of its quartiles."
        " fastact is what a user gets, torch for tiny\ntensors included; compiled and numba are"
        " forced. GB/s and copy: what fastact moves at least, and the percentage\nof what a copy of"
        " as many elements into mapped memory moves.[/]"
    )
    print_bars(results.rows)
    print_floor(results.rows)


def family_table(title: str, rows: list[Row]) -> Table:
    """A line for each case."""
    others = [name for name in OTHERS if any(name in row.contenders for row in rows)]
    headings = (name.removeprefix("torch.") for name in others)
    made = table(
        title, "op", "dtype", "n", "pass",
        right=("torch", "fastact", "ratio", "+-", *headings, "GB/s", "copy"),
    )  # fmt: skip
    previous = None
    for number, row in enumerate(rows):
        torchs, ours = row.contenders.get("torch"), row.contenders.get("fastact")
        following = rows[number + 1].op if number + 1 < len(rows) else None
        ratio = row.ratio()
        made.add_row(
            abbreviated(row.op) if row.op != previous else "",
            row.dtype,
            row.where,
            short(row.mode),
            duration(torchs.seconds.median) if torchs else "",
            duration(ours.seconds.median) if ours else "",
            painted(ratio.median) if ratio else "",
            f"{ratio.noise:.0%}" if ratio else "",
            *(other_ratio(row, name) for name in others),
            f"{ours.gbs:.3g}" if ours else "",
            f"{ours.percent_of_copy:.0f}%" if ours else "",
            end_section=following != row.op,
        )
        previous = row.op
    return made


def painted(ratio: float) -> str:
    """A ratio, in red where it is below the floor."""
    return f"[{'red' if ratio < FLOOR else 'bold'}]{ratio:.2f}[/]"


def other_ratio(row: Row, contender: str) -> str:
    """torch's time over another contender's."""
    ratio = row.ratio(contender)
    return f"{ratio.median:.2f}" if ratio else ""


def print_bars(rows: list[Row]) -> None:
    """Prints measured beside required, for the bars that were measured."""
    made = table(
        "Required, forward and backward", "op", "dtype", "n", "against",
        right=("required", "measured"),
    )  # fmt: skip
    made.add_column("")
    for bar in BARS:
        measured = bar.measured(rows)
        if measured is not None:
            reached = "[red]missed[/]"
            if measured.median >= bar.required:
                reached = "[green]reached[/]"
            elif measured.high >= bar.required:
                reached = "[yellow]missed by less than the noise[/]"
            made.add_row(
                bar.op, bar.dtype, bar.where, bar.against,
                f"{bar.required:g}", f"{measured.median:.2f}", reached,
            )  # fmt: skip
    if made.row_count:
        stdout.print()
        stdout.print(made)


def print_floor(rows: list[Row]) -> None:
    """Names the rows that are slower than torch, the dtypes of one in a line."""
    compared = [(row, ratio) for row in rows if (ratio := row.ratio())]
    slow: dict[tuple[str, str, str], dict[str, float]] = {}
    for row, ratio in compared:
        if ratio.median < FLOOR:
            key = (abbreviated(row.op), row.where, short(row.mode))
            slow.setdefault(key, {})[row.dtype] = ratio.median
    count = sum(len(found) for found in slow.values())
    dtypes = list(dict.fromkeys(dtype for found in slow.values() for dtype in found))
    made = table(
        f"{count} of {len(compared)} rows below {FLOOR}", "op", "n", "pass", right=tuple(dtypes)
    )
    for key, found in sorted(slow.items(), key=lambda item: min(item[1].values())):
        made.add_row(*key, *(painted(found[d]) if d in found else "" for d in dtypes))
    stdout.print()
    stdout.print(made if slow else made.title)
