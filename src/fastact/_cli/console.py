"""What every command prints with."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

# Without a terminal rich leaves colours out and takes 80 columns, or those of COLUMNS.
stdout = Console(highlight=False)


def table(title: str, *left: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table with columns aligned left, then columns aligned right."""
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in left:
        made.add_column(heading, overflow="fold")
    for heading in right:
        made.add_column(heading, justify="right", no_wrap=True)
    return made
