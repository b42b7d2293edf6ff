"""Classifies the handwritten-digit scans that ship with scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType

from cli import Options, friendly_imports, launch

with friendly_imports():
    import torch
    from plots import draw_digits
    from report import Row, Section
    from rich.progress import Progress
    from shares import activation_shares
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from torch import nn
    from training import Activation, Data, Recipe, compare

GELU_TANH = Activation("GELU", {"approximate": "tanh"})
SILU = Activation("SiLU")
MISH = Activation("Mish")

# Both batch sizes divide it, which leaves 261 of the 1797 scans for the test.
TRAIN_SCANS = 1536
PIXEL_MAXIMUM = 16
QUICK_EPOCHS = 3


def load() -> Data:
    """Load the 8x8 scans with pixels in 0..1, and split them with a fixed seed."""
    pixels, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        torch.tensor(pixels / PIXEL_MAXIMUM, dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
        train_size=TRAIN_SCANS,
        stratify=labels,
        random_state=0,
    )
    return Data(train_x, train_y, test_x, test_y)


def mlp(namespace: ModuleType, activation: Activation, widths: tuple[int, ...]) -> nn.Module:
    """A multilayer perceptron with hidden layers of these widths."""
    layers: list[nn.Module] = []
    before = 64
    for width in widths:
        layers += [nn.Linear(before, width), activation.make(namespace)]
        before = width
    return nn.Sequential(*layers, nn.Linear(before, 10))


def conv_net(namespace: ModuleType, activation: Activation) -> nn.Module:
    """Two 3x3 convolutions of 32 and 64 channels, a pooling and a linear layer."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 32, kernel_size=3, padding=1),
        activation.make(namespace),
        nn.Conv2d(32, 64, kernel_size=3, padding=1),
        activation.make(namespace),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 10),
    )


# Two of each kind, because the gain is the activations' share of a step: small where wide matrix
# products dominate or torch's own kernel is fast (SiLU), large where neither is so.
NETWORKS: tuple[tuple[str, Callable[..., nn.Module], Activation, Recipe], ...] = (
    (
        "wide MLP, GELU (tanh)",
        partial(mlp, activation=GELU_TANH, widths=(1024, 1024)),
        GELU_TANH,
        Recipe(epochs=40, batch_size=512),
    ),
    (
        "narrow MLP, GELU (tanh)",
        partial(mlp, activation=GELU_TANH, widths=(256, 256, 256)),
        GELU_TANH,
        Recipe(epochs=80, batch_size=512),
    ),
    ("conv net, SiLU", partial(conv_net, activation=SILU), SILU, Recipe(40, batch_size=256)),
    ("conv net, Mish", partial(conv_net, activation=MISH), MISH, Recipe(40, batch_size=256)),
)


def run(options: Options, progress: Progress) -> Section:
    """Train every network with both namespaces and draw the curves."""
    data = load()
    rows = []
    for name, build, activation, recipe in NETWORKS:
        if options.quick:
            recipe = Recipe(QUICK_EPOCHS, recipe.batch_size)
        comparison = compare(name, build, data, recipe, progress)
        batch = data.train_inputs[: recipe.batch_size]
        rows.append(Row(comparison, activation_shares(comparison, activation, batch)))
    picture = options.out / "digits.png"
    draw_digits([row.comparison for row in rows], data, picture)
    return Section(
        title="Handwritten digits",
        rows=rows,
        pictures=[picture],
        note="Act. share: the activations alone, forward and backward, over the median step.",
    )


if __name__ == "__main__":
    launch(__doc__ or "", run)
