"""Separates two circles with five hidden layers, where sigmoid's gradient vanishes."""

from __future__ import annotations

from types import ModuleType

from cli import Options, friendly_imports, launch

with friendly_imports():
    import torch
    from plots import draw_activations, draw_overview
    from report import Row, Section
    from rich.progress import Progress
    from sklearn.datasets import make_circles
    from sklearn.model_selection import train_test_split
    from torch import nn
    from training import Activation, Build, Data, Recipe, compare

ACTIVATIONS = tuple(
    Activation(name) for name in ("Sigmoid", "Tanh", "ReLU", "ReLU6", "LeakyReLU", "GELU", "SiLU")
)
HIDDEN_LAYERS = 5
WIDTH = 32
RECIPE = Recipe(epochs=60, batch_size=64)
QUICK_RECIPE = Recipe(epochs=5, batch_size=64)


def load() -> Data:
    """Draw 1024 points from two noisy circles, and split them with a fixed seed."""
    points, labels = make_circles(1024, noise=0.1, factor=0.5, random_state=0)
    train_x, test_x, train_y, test_y = train_test_split(
        torch.tensor(points, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
        train_size=768,
        stratify=labels,
        random_state=0,
    )
    return Data(train_x, train_y, test_x, test_y)


def deep_net(activation: Activation) -> Build:
    """A builder for five hidden layers with the given activation, in torch's own initialisation."""

    def build(namespace: ModuleType) -> nn.Module:
        layers: list[nn.Module] = []
        inputs = 2
        for _ in range(HIDDEN_LAYERS):
            layers += [nn.Linear(inputs, WIDTH), activation.make(namespace)]
            inputs = WIDTH
        return nn.Sequential(*layers, nn.Linear(inputs, 2))

    return build


def run(options: Options, progress: Progress) -> Section:
    """Train one network per activation with both namespaces and draw the curves."""
    data = load()
    recipe = QUICK_RECIPE if options.quick else RECIPE
    comparisons = [
        compare(activation.name, deep_net(activation), data, recipe, progress)
        for activation in ACTIVATIONS
    ]
    overview, layers = options.out / "circles.png", options.out / "circles_layers.png"
    draw_overview(comparisons, data, overview)
    draw_activations(comparisons, layers)
    return Section(
        title="Two circles, five hidden layers",
        rows=[Row(comparison) for comparison in comparisons],
        pictures=[overview, layers],
        note=f"Activations of {RECIPE.batch_size}x{WIDTH} values are so small that fastact leaves"
        " most of them to torch:\nexpect ratios near 1, and no difference at all where it does.",
    )


if __name__ == "__main__":
    launch(__doc__ or "", run)
