"""Draws the demo's pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

# The pictures go to files, also where there is no display.
matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter
from training import Comparison, Data, History

# Okabe and Ito's colours, which colour-blind readers can tell apart, without the pale yellow.
COLOURS = ("#000000", "#E69F00", "#0072B2", "#56B4E9", "#009E73", "#D55E00", "#CC79A7")
BLUE, VERMILION = COLOURS[2], COLOURS[5]
STYLE: dict[str, Any] = {
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
SAMPLE_SCANS = 16
LOSS, ACCURACY, GRADIENT = "training loss", "test accuracy", "mean |gradient|"


def draw_pair(axes: Axes, torch_curve: Sequence[float], fast: Sequence[float], colour: str) -> None:
    """Draw fastact's curve solid and torch's dashed on top, so that both show where they agree."""
    epochs = range(1, len(fast) + 1)
    axes.plot(epochs, fast, color=colour, linewidth=3.6, alpha=0.45, solid_capstyle="round")
    axes.plot(epochs, torch_curve, color=colour, linewidth=1.3, linestyle=(0, (4, 2)))


def pair_legend() -> list[Line2D]:
    """Legend entries for the two line styles."""
    return [
        Line2D([], [], color="0.2", linewidth=1.3, linestyle=(0, (4, 2)), label="torch.nn"),
        Line2D([], [], color="0.2", linewidth=3.6, alpha=0.45, label="fastact.nn"),
    ]


def layer_colours(history: History) -> list[str]:
    """One colour per layer, dark for the first to light for the last."""
    count = len(history.gradients[0])
    shades = [0.9 * layer / max(count - 1, 1) for layer in range(count)]
    return [matplotlib.colors.to_hex(plt.get_cmap("viridis")(shade)) for shade in shades]


def layer_curves(history: History) -> list[tuple[float, ...]]:
    """The gradient curve of each layer."""
    return list(zip(*history.gradients, strict=True))


def draw_gradients(axes: Axes, comparison: Comparison) -> None:
    """Draw the mean absolute gradient of each layer on a logarithmic scale."""
    pairs = zip(layer_curves(comparison.torch), layer_curves(comparison.fastact), strict=True)
    for colour, (left, right) in zip(layer_colours(comparison.torch), pairs, strict=True):
        draw_pair(axes, left, right, colour)
    axes.set_yscale("log")


def layer_legend(comparison: Comparison) -> list[Line2D]:
    """Legend entries for the layers."""
    colours = layer_colours(comparison.torch)
    names = [f"layer {number}" for number in range(1, len(colours) + 1)]
    names[0] += " (first)"
    names[-1] += " (last)"
    return [
        Line2D([], [], color=colour, linewidth=2.5, label=name)
        for colour, name in zip(colours, names, strict=True)
    ]


def draw_digits(comparisons: Sequence[Comparison], data: Data, path: Path) -> None:
    """Draw the curves of the digit networks, and a few test scans with the answers."""
    with plt.style.context(STYLE):
        figure = plt.figure(figsize=(12, 3.1 * len(comparisons) + 1.6))
        strip, *bands = figure.subfigures(
            1 + len(comparisons), 1, height_ratios=[1.6] + [3.1] * len(comparisons)
        )
        draw_scans(strip, comparisons[-1], data)
        for band, comparison in zip(bands, comparisons, strict=True):
            band.suptitle(f"Digits: {comparison.name}", fontweight="bold")
            loss, accuracy, gradient = band.subplots(1, 3)
            draw_pair(loss, comparison.torch.loss, comparison.fastact.loss, BLUE)
            draw_pair(accuracy, comparison.torch.accuracy, comparison.fastact.accuracy, VERMILION)
            draw_gradients(gradient, comparison)
            loss.set(title=LOSS, xlabel="epoch", yscale="log")
            accuracy.set(title=ACCURACY, xlabel="epoch", ylim=(0, 1.03))
            gradient.set(title=f"{GRADIENT} of each layer", xlabel="epoch")
            loss.legend(handles=pair_legend(), frameon=False)
            # A decade of room for the legend below the curves.
            gradient.set_ylim(bottom=gradient.get_ylim()[0] / 10)
            gradient.legend(
                handles=layer_legend(comparison),
                loc="lower left",
                frameon=False,
                fontsize=8,
                ncols=2,
            )
        figure.savefig(path)
        plt.close(figure)


def draw_scans(strip: SubFigure, comparison: Comparison, data: Data) -> None:
    """Draw test scans, each with the class that the network trained with fastact sees in it."""
    strip.suptitle(f"Test scans and the answers of the network with fastact.nn ({comparison.name})")
    with torch.no_grad():
        answers = comparison.fastact_model(data.test_inputs[:SAMPLE_SCANS]).argmax(dim=1)
    cells = strip.subplots(1, SAMPLE_SCANS)
    for axes, scan, label, answer in zip(
        cells, data.test_inputs, data.test_labels, answers, strict=False
    ):
        axes.imshow(scan.reshape(8, 8), cmap="gray_r")
        axes.set_axis_off()
        right = label == answer
        axes.set_title(
            str(answer.item()) if right else f"{answer.item()}, not {label.item()}",
            color="black" if right else VERMILION,
        )


def curve_names(comparisons: Sequence[Comparison]) -> list[str]:
    """The names for a legend, with a note where a curve hides an earlier one."""
    # ReLU6 equals ReLU for as long as no input exceeds 6.
    names: list[str] = []
    for number, comparison in enumerate(comparisons):
        twins = [c.name for c in comparisons[:number] if c.torch.loss == comparison.torch.loss]
        names.append(f"{comparison.name} (= {twins[0]})" if twins else comparison.name)
    return names


def draw_overview(comparisons: Sequence[Comparison], data: Data, path: Path) -> None:
    """Draw the points, and loss, accuracy and first-layer gradient of all activations."""
    with plt.style.context(STYLE):
        figure, grid = plt.subplots(2, 2, figsize=(12, 8))
        points, loss, accuracy, gradient = grid.flat
        circles = (("outer circle", BLUE), ("inner circle", VERMILION))
        for label, (name, colour) in enumerate(circles):
            chosen = data.train_inputs[data.train_labels == label]
            points.scatter(*chosen.T, s=9, color=colour, label=name)
        points.set(title="training points", aspect="equal")
        points.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, markerscale=2)
        for comparison, colour in zip(comparisons, COLOURS, strict=False):
            left, right = comparison.torch, comparison.fastact
            draw_pair(loss, left.loss, right.loss, colour)
            draw_pair(accuracy, left.accuracy, right.accuracy, colour)
            draw_pair(gradient, layer_curves(left)[0], layer_curves(right)[0], colour)
        loss.set(title=LOSS, xlabel="epoch", ylim=(0, None))
        accuracy.set(title=ACCURACY, xlabel="epoch", ylim=(0.4, 1.02))
        gradient.set(title=f"{GRADIENT} of the first layer", xlabel="epoch", yscale="log")
        entries = [
            Line2D([], [], color=colour, linewidth=3.2, label=name)
            for name, colour in zip(curve_names(comparisons), COLOURS, strict=False)
        ]
        figure.legend(handles=entries + pair_legend(), loc="outside lower center", ncols=9)
        figure.suptitle("Two circles, five hidden layers", fontweight="bold")
        figure.savefig(path)
        plt.close(figure)


def draw_activations(comparisons: Sequence[Comparison], path: Path) -> None:
    """Draw loss, accuracy and the gradient of each layer, one column per activation."""
    with plt.style.context(STYLE):
        figure, grid = plt.subplots(
            3,
            len(comparisons),
            figsize=(2.6 * len(comparisons), 8),
            sharex=True,
            sharey="row",
            squeeze=False,
            gridspec_kw={"height_ratios": [1, 1, 1.5]},
        )
        for (loss, accuracy, gradient), comparison in zip(grid.T, comparisons, strict=True):
            draw_pair(loss, comparison.torch.loss, comparison.fastact.loss, BLUE)
            draw_pair(accuracy, comparison.torch.accuracy, comparison.fastact.accuracy, VERMILION)
            draw_gradients(gradient, comparison)
            loss.set_title(comparison.name, fontweight="bold")
            gradient.set_xlabel("epoch")
        for axes, label in zip(grid[:, 0], (LOSS, ACCURACY, GRADIENT), strict=True):
            axes.set_ylabel(label)
        grid[0, 0].set_ylim(0, None)
        grid[1, 0].set_ylim(0.4, 1.05)
        entries = layer_legend(comparisons[0]) + pair_legend()
        figure.legend(handles=entries, loc="outside lower center", ncols=len(entries))
        figure.suptitle("Two circles: five hidden layers, one column per activation")
        figure.savefig(path)
        plt.close(figure)


def draw_dead_units(
    comparisons: Sequence[Comparison], shares: Sequence[Sequence[Sequence[float]]], path: Path
) -> None:
    """Draw the share of dead units and the loss of each activation.

    Args:
        comparisons: one for each activation.
        shares: for each of them the shares with torch.nn and with fastact.nn, one for each step.
        path: of the picture.
    """
    with plt.style.context(STYLE):
        figure, (dead, loss) = plt.subplots(1, 2, figsize=(11, 4.2))
        for comparison, (theirs, ours), colour in zip(
            comparisons, shares, COLOURS[1:], strict=False
        ):
            draw_pair(dead, theirs, ours, colour)
            draw_pair(loss, comparison.torch.loss, comparison.fastact.loss, colour)
        dead.set(title="share of dead hidden units", xlabel="step", ylim=(-0.02, 1.02))
        dead.yaxis.set_major_formatter(PercentFormatter(1))
        loss.set(title=LOSS, xlabel="epoch", yscale="log")
        entries = [
            Line2D([], [], color=colour, linewidth=3.2, label=comparison.name)
            for comparison, colour in zip(comparisons, COLOURS[1:], strict=False)
        ]
        figure.legend(handles=entries + pair_legend(), loc="outside lower center", ncols=9)
        figure.suptitle("Too high a learning rate: units that no input moves", fontweight="bold")
        figure.savefig(path)
        plt.close(figure)


def draw_losses(comparison: Comparison, title: str, path: Path) -> None:
    """Draw one network's loss, test accuracy and the gradient of its first and last weights."""
    left, right = comparison.torch, comparison.fastact
    with plt.style.context(STYLE):
        figure, (loss, accuracy, gradient) = plt.subplots(1, 3, figsize=(12, 3.8))
        draw_pair(loss, left.loss, right.loss, BLUE)
        draw_pair(accuracy, left.accuracy, right.accuracy, VERMILION)
        draw_gradients(gradient, comparison)
        loss.set(title=LOSS, xlabel="epoch")
        accuracy.set(title=ACCURACY, xlabel="epoch", ylim=(0, None))
        gradient.set(title=f"{GRADIENT} of each weight", xlabel="epoch")
        loss.legend(handles=pair_legend(), frameon=False)
        figure.suptitle(title, fontweight="bold")
        figure.savefig(path)
        plt.close(figure)
