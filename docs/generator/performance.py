"""The figures of speed, from the committed results of the benchmarks."""

from __future__ import annotations

from pathlib import Path

import pictures
from cases import FAMILIES
from results import Results, Row

from .accuracy import table

NO_GPU = "Not yet measured on a GPU.\n\n"
TITLES = {
    "activations": "Activations",
    "gated": "Gated activations",
    "losses": "Softmax and losses",
}


def is_gpu(results: Results) -> bool:
    """Whether a file has figures of a GPU."""
    return bool(results.machine.get("gpu"))


def ratio(row: Row | None, contender: str = "fastact") -> str:
    """Torch's time over a contender's, or nothing where that was not measured."""
    found = row.ratio(contender) if row else None
    return f"{found.median:.2f}" if found else ""


def family(rows: list[Row]) -> str:
    """A line for each op and size, a column for each pass and dtype."""
    columns = list(dict.fromkeys((row.mode, row.dtype) for row in rows))
    by = {(row.op, row.where, row.mode, row.dtype): row for row in rows}
    lines = [
        [op, where, *(ratio(by.get((op, where, *column))) for column in columns)]
        for op, where in dict.fromkeys((row.op, row.where) for row in rows)
    ]
    head = ["op", "n", *(f"{mode.replace('+', ' + ')}, {dtype}" for mode, dtype in columns)]
    return table(head, lines, left=2)


def machine(results: Results) -> str:
    """What was measured on."""
    m = results.machine
    where = m.get("gpu") or f"{m['cpu']}, {m['threads']} threads"
    return (
        f"{where}; torch {m['torch']}, fastact {m['fastact']} ({m['revision']}), {m['system']}; "
        f"{results.date[:10]}."
    )


def run(path: Path, folder: Path) -> str:
    """One file: its tables and pictures."""
    results = Results.read(path)
    text = f"### {results.machine.get('gpu') or results.machine['cpu']}\n\n{machine(results)}\n\n"
    for drawn in pictures.draw(results, folder / path.stem):
        text += f"```{{image}} /_generated/{drawn.name}\n:alt: {drawn.stem}\n```\n\n"
    for name in FAMILIES:
        rows = [row for row in results.rows if row.family == name and row.ratio()]
        if rows:
            text += f"#### {TITLES[name]}\n\n{family(rows)}"
    return text


def page(sources: list[Path], folder: Path) -> str:
    """All files, CPUs first."""
    gpus = [path for path in sources if is_gpu(Results.read(path))]
    cpus = [path for path in sources if path not in gpus]
    text = "## CPU\n\n" + "".join(run(path, folder) for path in cpus)
    if not cpus:
        text += "No results are committed yet; README.md has figures.\n\n"
    return text + "## GPU\n\n" + ("".join(run(path, folder) for path in gpus) or NO_GPU)
