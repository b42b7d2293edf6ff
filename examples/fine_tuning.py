"""Trains a small transformers model as it is, and beside it one after fastact.replace()."""

from __future__ import annotations

from pydoc_data.topics import topics
from types import ModuleType

from cli import Options, friendly_imports, launch

with friendly_imports():
    import torch
    from plots import draw_losses
    from report import Row, Section
    from rich.progress import Progress
    from torch import Tensor, nn
    from training import Data, Recipe, compare
    from transformers import LlamaConfig, LlamaForCausalLM

    import fastact

# The shape of a Llama with bytes as its tokens, and random weights: nothing is loaded.
SHAPE = {
    "vocab_size": 256,
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
CONTEXT = 64  # bytes
WINDOWS = 320
TEST_WINDOWS = 64
RECIPE = Recipe(epochs=10, batch_size=16, learning_rate=2e-3)
QUICK_RECIPE = Recipe(epochs=1, batch_size=16, learning_rate=2e-3)


class CausalModel(nn.Module):
    """A model of transformers, which in training computes its loss by itself."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, codes: Tensor) -> Tensor:
        """Classes (N, T) to the loss, or without gradients to logits (N, classes, T)."""
        if torch.is_grad_enabled():
            loss: Tensor = self.model(input_ids=codes, labels=codes).loss
            return loss
        logits: Tensor = self.model(input_ids=codes).logits
        return logits.transpose(1, 2)


class OwnLoss(nn.Module):
    """Hands on the loss that the model has computed."""

    def forward(self, loss: Tensor, _labels: Tensor) -> Tensor:
        """The same."""
        return loss


def load() -> Data:
    """Windows of the texts of Python's help() in bytes, and what comes after each byte."""
    text = "\n".join(topics[name] for name in sorted(topics)).encode()
    codes = torch.tensor(list(text[: WINDOWS * CONTEXT + 1]))
    inputs, targets = (part.view(WINDOWS, CONTEXT) for part in (codes[:-1], codes[1:]))
    order = torch.randperm(WINDOWS, generator=torch.Generator().manual_seed(0))
    train, test = order[:-TEST_WINDOWS], order[-TEST_WINDOWS:]
    return Data(inputs[train], targets[train], inputs[test], targets[test])


def run(options: Options, progress: Progress) -> Section:
    """Train both, say what was replaced and draw the curves."""
    reports = []

    def build(namespace: ModuleType) -> nn.Module:
        model = LlamaForCausalLM(LlamaConfig(**SHAPE))
        if namespace is fastact.nn:
            reports.append(fastact.replace(model))
        return CausalModel(model)

    recipe = QUICK_RECIPE if options.quick else RECIPE
    comparison = compare("Llama", build, load(), recipe, progress, loss=lambda _: OwnLoss())
    fastact.restore(comparison.fastact_model.model)
    picture = options.out / "fine_tuning.png"
    draw_losses(comparison, "A small Llama before and after fastact.replace()", picture)
    sides = "torch.nn: the model as it is. fastact.nn: after fastact.replace(model)."
    return Section(
        title="Fine-tuning a model of transformers",
        rows=[Row(comparison)],
        pictures=[picture],
        note=f"{sides}\n{reports[0]}",
    )


if __name__ == "__main__":
    launch(__doc__ or "", run)
