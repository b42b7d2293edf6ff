"""Trains a small GPT on the characters of the texts of Python's own help()."""

from __future__ import annotations

from pydoc_data.topics import topics
from types import ModuleType

from cli import Options, friendly_imports, launch

with friendly_imports():
    import torch
    import torch.nn.functional as TF
    from plots import draw_losses
    from report import Row, Section
    from rich.progress import Progress
    from torch import Tensor, nn
    from training import Comparison, Data, Recipe, compare

CONTEXT = 64  # characters
WIDTH = 64
HEADS = 4
LAYERS = 2
# help("topics") ships with every Python, in English and under Python's licence. So many of its
# characters: an epoch is the training part once.
CHARACTERS = 60_000
TEST_WINDOWS = 64
RECIPE = Recipe(epochs=7, batch_size=8, learning_rate=2e-3)
QUICK_RECIPE = Recipe(epochs=1, batch_size=8, learning_rate=2e-3)
QUICK_CHARACTERS = 10_000
SAMPLE = 160  # characters
PROMPT = "The "


class Text:
    """A text as class indices, cut into windows whose targets are the next characters."""

    def __init__(self, text: str) -> None:
        self.alphabet = sorted({*text, *PROMPT})
        self._index = {character: n for n, character in enumerate(self.alphabet)}
        self._codes = self.encode(text)

    def encode(self, text: str) -> Tensor:
        """The class of each character."""
        return torch.tensor([self._index[character] for character in text])

    def decode(self, codes: Tensor) -> str:
        """The characters of classes."""
        return "".join(self.alphabet[code] for code in codes.tolist())

    def data(self) -> Data:
        """Windows in an order drawn with a fixed seed, the last ones for the test."""
        count = (len(self._codes) - 1) // CONTEXT
        inputs = self._codes[: count * CONTEXT].view(count, CONTEXT)
        targets = self._codes[1 : count * CONTEXT + 1].view(count, CONTEXT)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
        train, test = order[:-TEST_WINDOWS], order[-TEST_WINDOWS:]
        return Data(inputs[train], targets[train], inputs[test], targets[test])


class Block(nn.Module):
    """Attention to what came before, then two linear layers around an activation."""

    def __init__(self, namespace: ModuleType) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH),
            namespace.GELU(approximate="tanh"),
            nn.Linear(4 * WIDTH, WIDTH),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, WIDTH) to the same."""
        q, k, v = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in self.qkv(self.before_attention(x)).chunk(3, dim=-1)
        )
        seen = TF.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        y: Tensor = x + self.mlp(self.before_mlp(x))
        return y


class GPT(nn.Module):
    """A decoder of some blocks; its head shares the embedding's weights."""

    def __init__(self, namespace: ModuleType, characters: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, WIDTH)
        self.position = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block(namespace) for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        for embedding in (self.embedding, self.position):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, codes: Tensor) -> Tensor:
        """Classes (N, T) to logits (N, characters, T), as the loss takes them."""
        x = self.embedding(codes) + self.position.weight[: codes.shape[1]]
        logits = TF.linear(self.norm(self.blocks(x)), self.embedding.weight)
        return logits.transpose(1, 2)

    @torch.inference_mode()
    def write(self, codes: Tensor, count: int, temperature: float = 0.8) -> Tensor:
        """Goes on from some characters, each drawn by its probability, with a fixed seed."""
        generator = torch.Generator().manual_seed(0)
        for _ in range(count):
            logits = self(codes[None, -CONTEXT:])[0, :, -1] / temperature
            drawn = torch.multinomial(logits.softmax(dim=0), 1, generator=generator)
            codes = torch.cat([codes, drawn])
        return codes


def sample(model: nn.Module, text: Text) -> str:
    """What a model writes, on one line."""
    assert isinstance(model, GPT)
    return " ".join(text.decode(model.write(text.encode(PROMPT), SAMPLE)).split())


def note(comparison: Comparison, text: Text) -> str:
    """What both sides write in the end."""
    models = {"torch.nn": comparison.torch_model, "fastact.nn": comparison.fastact_model}
    lines = (f"{name} writes: {sample(model, text)}" for name, model in models.items())
    return "Accuracy: of the next character.\n" + "\n".join(lines)


def run(options: Options, progress: Progress) -> Section:
    """Train it with both namespaces, draw the curves and let it write."""
    count = QUICK_CHARACTERS if options.quick else CHARACTERS
    text = Text("\n".join(topics[name] for name in sorted(topics))[:count])
    recipe = QUICK_RECIPE if options.quick else RECIPE

    def build(namespace: ModuleType) -> nn.Module:
        return GPT(namespace, len(text.alphabet))

    comparison = compare("GPT, GELU (tanh)", build, text.data(), recipe, progress)
    picture = options.out / "characters.png"
    draw_losses(comparison, "A small GPT on the texts of help()", picture)
    return Section(
        title="Characters",
        rows=[Row(comparison)],
        pictures=[picture],
        note=note(comparison, text),
    )


if __name__ == "__main__":
    launch(__doc__ or "", run)
