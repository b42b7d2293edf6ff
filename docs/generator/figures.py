"""Draws functions with their slopes and curvatures, as fastact computes them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

# The pictures go to files, also where there is no display.
matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor

Curve = Callable[[Tensor], Tensor]

KINDS = ("value", "slope", "curvature")
# Okabe and Ito's colours, which colour-blind readers can tell apart; both themes bear them.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
THEMES = {"light": "#303132", "dark": "#d0d3d6"}  # the colour of text and lines
LIMIT = 5.0
JUMP = 0.05  # between neighbouring points: no smooth curve here moves as fast
CLIPPED = 0.84  # of the limit: the most that is drawn to either side of zero


@contextmanager
def style(ink: str) -> Iterator[None]:
    """A theme's settings."""
    settings: dict[str, Any] = {
        "axes.edgecolor": ink,
        "axes.grid": True,
        "axes.labelcolor": ink,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlecolor": ink,
        "axes.titlesize": 11,
        "figure.constrained_layout.use": True,
        "font.size": 10,
        "grid.alpha": 0.25,
        "grid.color": ink,
        "legend.frameon": False,
        "legend.labelcolor": ink,
        "lines.linewidth": 2.2,
        "svg.hashsalt": "fastact",
        "text.color": ink,
        "xtick.color": ink,
        "ytick.color": ink,
    }
    with plt.style.context(settings):
        yield


def derivatives(function: Curve, x: Tensor) -> list[Tensor]:
    """Value, slope and curvature at each x, by autograd over fastact's own kernels."""
    x = x.clone().requires_grad_()
    found = [function(x)]
    while len(found) < len(KINDS):
        last = found[-1]
        if last.requires_grad:
            (last,) = torch.autograd.grad(last.sum(), x, create_graph=True, materialize_grads=True)
        else:
            last = torch.zeros_like(x)
        found.append(last)
    return [t.detach() for t in found]


def plot(axes: Axes, x: Tensor, y: Tensor, **options: Any) -> None:
    """A curve that has gaps where the function jumps."""
    y = y.clone()
    y[1:][(y[1:] - y[:-1]).abs() > JUMP] = torch.nan
    axes.plot(x.numpy(), y.numpy(), **options)


def panels(
    curves: Sequence[tuple[str, Curve]],
    stem: Path,
    kinds: Sequence[str] = KINDS,
    limit: float = LIMIT,
    xlabel: str = "x",
) -> None:
    """Draws one panel for each of value, slope and curvature, once for each theme.

    Args:
        curves: labels and functions; labels show where there are several.
        stem: of the files, which end in ``-light.svg`` and ``-dark.svg``.
        kinds: the panels.
        limit: x goes from ``-limit`` to it.
        xlabel: the name of the argument.
    """
    # An even number of points: none is at zero, where kinks are.
    x = torch.linspace(-limit, limit, 1000, dtype=torch.float64)
    drawn = [(label, derivatives(function, x)) for label, function in curves]
    ink = THEMES["light"]
    with style(ink):
        height = 2.5 if len(curves) == 1 else 2.9
        figure, grid = plt.subplots(1, len(kinds), figsize=(3.1 * len(kinds), height))
        for axes, kind in zip(grid, kinds, strict=True):
            for (label, ys), colour in zip(drawn, COLOURS, strict=False):
                plot(axes, x, ys[KINDS.index(kind)], color=colour, label=label)
            axes.set(title=kind, xlabel=xlabel, xlim=(-limit, limit))
            low, high = axes.get_ylim()
            most = CLIPPED * limit
            axes.set_ylim(max(min(low, -0.15), -most), min(max(high, 0.15), most))
            axes.axhline(0, color=ink, linewidth=0.7, zorder=1)
            axes.axvline(0, color=ink, linewidth=0.7, zorder=1)
        if len(curves) > 1:
            handles, labels = grid[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        drawing = io.StringIO()
        figure.savefig(drawing, format="svg", transparent=True, metadata={"Date": None})
        plt.close(figure)
    for theme, colour in THEMES.items():
        path = stem.with_name(f"{stem.name}-{theme}.svg")
        path.write_text(drawing.getvalue().replace(ink, colour))
