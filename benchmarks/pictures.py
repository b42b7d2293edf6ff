"""Draws what was measured: bars of the ratio to torch, and how near everything is to a copy."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import matplotlib

# The pictures go to files, also where there is no display.
matplotlib.use("Agg")

import matplotlib.pyplot as plt
from bars import FLOOR
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from results import Results, Row
from tables import abbreviated, short

# Okabe and Ito's colours, which colour-blind readers can tell apart.
DTYPE_COLOURS = {"fp32": "#0072B2", "bf16": "#E69F00", "fp16": "#009E73", "fp64": "#CC79A7"}
OURS, THEIRS = "#0072B2", "#D55E00"
STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.07,
    "font.size": 10,
    "grid.alpha": 0.3,
    "savefig.dpi": 130,
}
BAR = 0.16  # inches
TICKS = (0.125, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 8, 16, 32)


def draw(results: Results, stem: Path) -> list[Path]:
    """Draws every picture that the rows give; returns the files."""
    paths = []
    rows = [row for row in results.rows if row.ratio()]
    elementwise = [row for row in rows if row.family != "losses"]
    losses = [row for row in rows if row.family == "losses"]
    with plt.style.context(STYLE):
        for mode in dict.fromkeys(row.mode for row in elementwise):
            path = stem.with_name(f"{stem.name}-ratios-{short(mode).replace('+', '-')}.png")
            draw_ratios([row for row in elementwise if row.mode == mode], results, path)
            paths.append(path)
        if losses:
            paths.append(stem.with_name(f"{stem.name}-ratios-losses.png"))
            draw_losses(losses, results, paths[-1])
        if rows:
            paths.append(stem.with_name(f"{stem.name}-roofline.png"))
            draw_roofline(rows, results, paths[-1])
    return paths


def setting(results: Results) -> str:
    """The machine, for a title."""
    machine = results.machine
    return f"{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}"


def draw_ratios(rows: list[Row], results: Results, path: Path) -> None:
    """One panel for each size, one group of bars for each op, one bar for each dtype."""
    names = list(dict.fromkeys(row.op for row in rows))
    wheres = list(dict.fromkeys(row.where for row in rows))
    dtypes = list(dict.fromkeys(row.dtype for row in rows))
    height = len(names) * (len(dtypes) + 1) * BAR + 1.6
    figure, grid = plt.subplots(
        1, len(wheres), figsize=(2.4 + 2.9 * len(wheres), height), sharey=True, squeeze=False
    )
    for axes, where in zip(grid[0], wheres, strict=True):
        draw_bars(axes, [(row.op, row) for row in rows if row.where == where], names, dtypes)
        base, _, power = where.partition("^")
        axes.set_title(f"$n = {base}^{{{power}}}$")
    finish(figure, grid[0][0], names, dtypes)
    figure.suptitle(
        f"Times as fast as torch, {rows[0].mode.replace('+', ' + ')}\n{setting(results)}"
    )
    figure.savefig(path)
    plt.close(figure)


def draw_losses(rows: list[Row], results: Results, path: Path) -> None:
    """One panel for each pass, one group of bars for each loss and shape."""

    def name(row: Row) -> str:
        return f"{abbreviated(row.op)}\n{row.where}"

    names = list(dict.fromkeys(name(row) for row in rows))
    modes = list(dict.fromkeys(row.mode for row in rows))
    dtypes = list(dict.fromkeys(row.dtype for row in rows))
    height = len(names) * (len(dtypes) + 1.3) * BAR + 1.6
    figure, grid = plt.subplots(
        1, len(modes), figsize=(2.6 + 4 * len(modes), height), sharey=True, squeeze=False
    )
    for axes, mode in zip(grid[0], modes, strict=True):
        draw_bars(axes, [(name(row), row) for row in rows if row.mode == mode], names, dtypes)
        axes.set_title(mode.replace("+", " + "))
    finish(figure, grid[0][0], names, dtypes)
    figure.suptitle(f"Times as fast as torch\n{setting(results)}")
    figure.savefig(path)
    plt.close(figure)


def draw_bars(axes: Axes, rows: list[tuple[str, Row]], names: list[str], dtypes: list[str]) -> None:
    """Bars from 1 to the ratio, with the quartiles as whiskers and the ratio beside them."""
    thickness = 1 / (len(dtypes) + 0.6)
    values = [ratio.median for _, row in rows if (ratio := row.ratio())]
    low, high = min([0.8, *values]) / 1.1, max([1.6, *values]) * 1.1
    edge = high * (high / low) ** 0.16  # beyond it is room for the figures
    for name, row in rows:
        ratio = row.ratio()
        assert ratio is not None
        y = names.index(name) + (dtypes.index(row.dtype) - (len(dtypes) - 1) / 2) * thickness
        colour = DTYPE_COLOURS[row.dtype]
        axes.barh(y, ratio.median - 1, thickness * 0.92, left=1, color=colour)
        axes.plot([ratio.low, min(ratio.high, high)], [y, y], color="0.15", linewidth=0.9)
        axes.annotate(
            f"{ratio.median:.2f}" if ratio.median < 9.95 else f"{ratio.median:.0f}",
            (min(max(ratio.high, 1), high), y),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=6.5,
            va="center",
            color="#B00000" if ratio.median < FLOOR else "0.25",
        )
    axes.axvline(1, color="0.15", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(low, edge)
    ticks = [t for t in TICKS if low <= t <= high]
    if high / low > 4:
        ticks = [t for t in ticks if math.log2(t).is_integer()]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(False, axis="y")


def finish(figure: Any, first: Axes, names: list[str], dtypes: list[str]) -> None:
    """Labels what the panels share."""
    first.set_yticks(range(len(names)), names)
    first.set_ylim(len(names) - 0.4, -0.6)
    entries = [
        Line2D([], [], color=DTYPE_COLOURS[dtype], linewidth=6, label=dtype) for dtype in dtypes
    ]
    figure.legend(handles=entries, loc="outside lower center", ncols=len(entries), frameon=False)


def draw_roofline(rows: list[Row], results: Results, path: Path) -> None:
    """Bytes moved a second over the bytes of a call, and those of a copy as a line."""
    dtypes = list(dict.fromkeys(row.dtype for row in rows))
    modes = list(dict.fromkeys(row.mode for row in rows))
    figure, grid = plt.subplots(
        len(modes),
        len(dtypes),
        figsize=(1 + 4.4 * len(dtypes), 1.3 + 3.5 * len(modes)),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for mode, line in zip(modes, grid, strict=True):
        for dtype, axes in zip(dtypes, line, strict=True):
            roofline(axes, [r for r in rows if r.dtype == dtype and r.mode == mode])
            axes.set_title(f"{dtype}, {mode.replace('+', ' + ')}")
    for axes in grid[-1]:
        axes.set_xlabel("bytes that a call has to move")
    for axes in grid[:, 0]:
        axes.set_ylabel("GB/s")
    entries = [
        Line2D([], [], color="0.15", linewidth=1.6, label="copy of as many bytes"),
        Line2D([], [], color=OURS, marker="o", linestyle="", label="fastact"),
        Line2D([], [], color=THEIRS, marker="D", markersize=5, linestyle="", label="torch"),
    ]
    figure.legend(handles=entries, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(f"Each op, and a copy as the roof\n{setting(results)}")
    figure.savefig(path)
    plt.close(figure)


def roofline(axes: Axes, rows: list[Row]) -> None:
    """One panel: a point for each case, torch's a little to the right of fastact's."""
    copies: dict[int, list[float]] = {}
    for row in rows:
        # Gated shapes are whole rows near the sizes of the others.
        near = next((b for b in copies if abs(b - row.copy_bytes) < 0.05 * b), row.copy_bytes)
        copies.setdefault(near, []).append(row.copy_gbs)
    roof = [(size, statistics.median(speeds)) for size, speeds in sorted(copies.items())]
    roof.append((max(row.bytes for row in rows), roof[-1][1]))
    axes.plot(*zip(*roof, strict=True), color="0.15", linewidth=1.6)
    for name, colour, marker, shift in (("fastact", OURS, "o", 0.9), ("torch", THEIRS, "D", 1.11)):
        places = [row.bytes * shift for row in rows]
        speeds = [row.contenders[name].gbs for row in rows]
        axes.scatter(places, speeds, s=14, color=colour, marker=marker, alpha=0.5, linewidths=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=1000, numticks=6))
    axes.xaxis.set_major_formatter(FuncFormatter(size_label))
    axes.xaxis.set_minor_locator(NullLocator())


def size_label(size: float, _: object) -> str:
    """A number of bytes with its unit."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:g} {unit}"
    return f"{size:g} B"
