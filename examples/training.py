"""Trains a network twice, with torch.nn's and with fastact.nn's activations and loss, in step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean, median
from time import perf_counter
from types import ModuleType
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn

import fastact.nn

Build = Callable[[ModuleType], nn.Module]


def class_loss(namespace: ModuleType) -> nn.Module:
    """The loss of class labels, from torch.nn or fastact.nn."""
    loss: nn.Module = namespace.CrossEntropyLoss()
    return loss


SEED = 0
WARM_UP_STEPS = 5


@dataclass(frozen=True)
class Activation:
    """An activation by its name in torch.nn, with the arguments of its constructor."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def make(self, namespace: ModuleType) -> nn.Module:
        """Create the module from the given namespace, torch.nn or fastact.nn."""
        module: nn.Module = getattr(namespace, self.name)(**self.arguments)
        return module


@dataclass(frozen=True)
class Data:
    """Inputs and class labels, split once into a training and a test part."""

    train_inputs: Tensor
    train_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor


@dataclass(frozen=True)
class Recipe:
    """How a network is trained."""

    epochs: int
    batch_size: int
    learning_rate: float = 1e-3


@dataclass
class History:
    """What one training run left behind: a value per epoch, and a time per step."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    gradients: list[list[float]] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)

    @property
    def median_step(self) -> float:
        """The median time of a step, in seconds, after the warm-up."""
        # The first steps pay for allocations; a run too short for a warm-up counts them all.
        return median(self.step_seconds[WARM_UP_STEPS:] or self.step_seconds)


@dataclass
class Trainee:
    """A network in training, with the history it writes."""

    model: nn.Module
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    history: History = field(default_factory=History)

    @classmethod
    def create(
        cls, build: Build, loss: Build, namespace: ModuleType, learning_rate: float
    ) -> Trainee:
        """Build a network from the common seed, so that both sides start from equal weights."""
        torch.manual_seed(SEED)
        model = build(namespace)
        optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
        return cls(model, loss(namespace), optimizer)

    def step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Take one timed training step and return its loss."""
        start = perf_counter()
        self.optimizer.zero_grad()
        loss: Tensor = self.loss(self.model(inputs), labels)
        loss.backward()
        self.optimizer.step()
        self.history.step_seconds.append(perf_counter() - start)
        return loss.detach()

    def mean_gradients(self) -> Tensor:
        """The mean absolute gradient of each layer's weight, first layer first."""
        weights = (p for p in self.model.parameters() if p.ndim > 1)
        return torch.stack([p.grad.abs().mean() for p in weights if p.grad is not None])

    @torch.no_grad()
    def accuracy(self, inputs: Tensor, labels: Tensor) -> float:
        """The share of inputs whose label the network gets right."""
        hits = self.model(inputs).argmax(dim=1) == labels
        return float(hits.float().mean())


@dataclass(frozen=True)
class Comparison:
    """The two histories of one network, and the trained networks."""

    name: str
    torch: History
    fastact: History
    torch_model: nn.Module
    fastact_model: nn.Module

    @property
    def ratio(self) -> float:
        """How many times as long torch's median step takes; above 1, fastact is faster."""
        return self.torch.median_step / self.fastact.median_step

    @property
    def largest_difference(self) -> float:
        """The largest difference between the two training loss curves."""
        pairs = zip(self.torch.loss, self.fastact.loss, strict=True)
        return max(abs(left - right) for left, right in pairs)


def compare(
    name: str,
    build: Build,
    data: Data,
    recipe: Recipe,
    progress: Progress,
    loss: Build = class_loss,
) -> Comparison:
    """Train a network with both namespaces on the same batches, one step each in turn."""
    sides = [
        Trainee.create(build, loss, namespace, recipe.learning_rate)
        for namespace in (torch.nn, fastact.nn)
    ]
    order = torch.Generator().manual_seed(SEED)
    step = 0
    for _ in progress.track(range(recipe.epochs), description=name):
        losses: list[list[Tensor]] = [[], []]
        gradients: list[list[Tensor]] = [[], []]
        for rows in batches(len(data.train_labels), recipe.batch_size, order):
            inputs, labels = data.train_inputs[rows], data.train_labels[rows]
            # Whoever goes second may find warmer caches, so the sides take turns at it.
            for side in (0, 1) if step % 2 == 0 else (1, 0):
                losses[side].append(sides[side].step(inputs, labels))
                gradients[side].append(sides[side].mean_gradients())
            step += 1
        for side, trainee in enumerate(sides):
            history = trainee.history
            history.loss.append(fmean(loss.item() for loss in losses[side]))
            history.gradients.append(torch.stack(gradients[side]).mean(dim=0).tolist())
            history.accuracy.append(trainee.accuracy(data.test_inputs, data.test_labels))
    left, right = sides
    return Comparison(name, left.history, right.history, left.model, right.model)


def batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Shuffle the row numbers and cut them into full batches, so that every step costs the same."""
    shuffled = torch.randperm(count, generator=generator)
    for start, stop in pairwise(range(0, count + 1, size)):
        yield shuffled[start:stop]
