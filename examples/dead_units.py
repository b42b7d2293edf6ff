"""Trains at a rate that is too high, and counts the units that stop to learn."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from circles import load
from cli import Options, friendly_imports, launch

with friendly_imports():
    import torch
    from plots import draw_dead_units
    from report import Row, Section
    from rich.progress import Progress
    from torch import Tensor, nn
    from training import Activation, Build, Recipe, compare

ACTIVATIONS = tuple(Activation(name) for name in ("ReLU", "LeakyReLU", "ELU", "GELU"))
HIDDEN_LAYERS = 3
WIDTH = 64
# A batch is the whole training set, so that a unit which is dead in it is dead everywhere.
RECIPE = Recipe(epochs=150, batch_size=768, learning_rate=0.1)
QUICK_RECIPE = Recipe(epochs=10, batch_size=768, learning_rate=0.1)
# Of the slope, at every input: whatever arrives at a unit, next to nothing goes through.
DEAD = 1e-3


class DeadUnits:
    """Counts, at every training step, the units whose slope is nearly zero at every input."""

    def __init__(self, model: nn.Module, kind: type[nn.Module]) -> None:
        self.shares: list[float] = []
        self._counts: list[float] = []
        self._layers = [module for module in model.modules() if isinstance(module, kind)]
        for layer in self._layers:
            layer.register_forward_hook(self._count)

    def _count(self, layer: nn.Module, arguments: tuple[Tensor, ...], _output: Tensor) -> None:
        if not torch.is_grad_enabled():
            return  # a test
        x = arguments[0].detach().requires_grad_()
        # forward, as a call would come here again
        (slope,) = torch.autograd.grad(layer.forward(x).sum(), x)
        self._counts.append(float((slope.abs().amax(dim=0) < DEAD).float().mean()))
        if len(self._counts) == len(self._layers):
            self.shares.append(sum(self._counts) / len(self._counts))
            self._counts.clear()


def net(activation: Activation, counters: list[DeadUnits]) -> Build:
    """A builder for three hidden layers whose dead units are counted."""

    def build(namespace: ModuleType) -> nn.Module:
        layers: list[nn.Module] = []
        inputs = 2
        for _ in range(HIDDEN_LAYERS):
            layers += [nn.Linear(inputs, WIDTH), activation.make(namespace)]
            inputs = WIDTH
        model = nn.Sequential(*layers, nn.Linear(inputs, 2))
        kind: Any = getattr(nn, activation.name)
        counters.append(DeadUnits(model, kind))
        return model

    return build


def run(options: Options, progress: Progress) -> Section:
    """Train one network per activation with both namespaces and draw the shares."""
    data = load()
    recipe = QUICK_RECIPE if options.quick else RECIPE
    comparisons, shares = [], []
    for activation in ACTIVATIONS:
        counters: list[DeadUnits] = []
        comparisons.append(
            compare(activation.name, net(activation, counters), data, recipe, progress)
        )
        shares.append([counter.shares for counter in counters])
    picture = options.out / "dead_units.png"
    draw_dead_units(comparisons, shares, picture)
    dead = ", ".join(
        f"{c.name} {both[1][-1]:.0%}" for c, both in zip(comparisons, shares, strict=True)
    )
    return Section(
        title=f"Dead units at a learning rate of {recipe.learning_rate:g}",
        rows=[Row(comparison) for comparison in comparisons],
        pictures=[picture],
        note=f"Dead in the end, of all hidden units, with fastact.nn: {dead}.\n"
        "The step's time includes the counting.",
    )


if __name__ == "__main__":
    launch(__doc__ or "", run)
