"""Estimates how much of a training step is spent in the activations."""

from __future__ import annotations

from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn
from training import Activation, Comparison

REPEATS = 30


def activation_shares(
    comparison: Comparison, activation: Activation, inputs: Tensor
) -> tuple[float, float]:
    """The activations' forward and backward time alone over that of a step, torch then fastact."""
    models = (comparison.torch_model, comparison.fastact_model)
    calls = [activation_calls(model, activation, inputs) for model in models]
    rounds = [[sum(seconds(*call) for call in side) for side in calls] for _ in range(REPEATS)]
    alone = [median(times) for times in zip(*rounds, strict=True)]
    return (
        alone[0] / comparison.torch.median_step,
        alone[1] / comparison.fastact.median_step,
    )


def activation_calls(
    model: nn.Module, activation: Activation, inputs: Tensor
) -> list[tuple[nn.Module, Tensor]]:
    """Run the model once and note each activation module with the input it got."""
    calls: list[tuple[nn.Module, Tensor]] = []

    def note(module: nn.Module, arguments: tuple[Tensor, ...], _output: Tensor) -> None:
        calls.append((module, arguments[0].detach().requires_grad_()))

    # fastact's modules derive from torch's, so one class finds the activations of both sides.
    kind = getattr(nn, activation.name)
    handles = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, kind)]
    with torch.no_grad():
        model(inputs)
    for handle in handles:
        handle.remove()
    return calls


def seconds(module: nn.Module, inputs: Tensor) -> float:
    """Time one forward and one backward pass of a module."""
    gradient = torch.ones_like(inputs)
    start = perf_counter()
    torch.autograd.grad(module(inputs), inputs, gradient)
    return perf_counter() - start
