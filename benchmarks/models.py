"""Times a training step of models of transformers and timm before and after fastact.replace().

    python benchmarks/models.py [--models llama ...] [--compile] [--threads N] [--seconds S] [--cpu]

Two copies of a model with random weights take turns: forward, loss, backward, a step of SGD. The
last column is the original under fastact.patched(), which also reaches functions and losses that a
model calls directly. With --compile both copies are compiled by torch.compile, and the last column
is a second copy of the original: how far from 1 its ratio is says what the others mean. "graphs"
counts what was compiled before and after, and "breaks" how often Python answered in between. --cpu
counts processor time, with one thread: for a busy machine.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass
from time import process_time_ns

import timing
import torch
import transformers
from timing import Budget, Call, Spread, in_turns, ratio
from torchvision_cpu import timm

import fastact

transformers.logging.set_verbosity_error()

WIDE = {
    "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 4,
    "num_attention_heads": 8, "max_position_embeddings": 256,
}  # fmt: skip
GPT2 = {"n_embd": 512, "n_layer": 4, "n_head": 8, "n_positions": 256}
NARROW = {**WIDE, "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 2,
          "num_attention_heads": 4}  # fmt: skip


@dataclass(frozen=True)
class Model:
    title: str
    make: Callable[[], torch.nn.Module]
    vocabulary: int = 0  # of text; 0: images
    side: int = 0
    count: int = 2  # of texts of 128 tokens, or of images
    dtype: torch.dtype = torch.float32

    def loss(self, net: torch.nn.Module) -> Callable[[], torch.Tensor]:
        """What computes the loss of one batch."""
        torch.manual_seed(1)
        if self.vocabulary:
            tokens = torch.randint(5, self.vocabulary, (self.count, 128))
            return lambda: net(input_ids=tokens, labels=tokens).loss
        images = torch.randn(self.count, 3, self.side, self.side, dtype=self.dtype)
        labels = torch.randint(1000, (self.count,))

        def loss() -> torch.Tensor:
            out = net(images)
            return torch.nn.functional.cross_entropy(getattr(out, "logits", out), labels)

        return loss

    def step(self, net: torch.nn.Module) -> Callable[[], object]:
        loss = self.loss(net)
        optimiser = torch.optim.SGD(net.parameters(), lr=1e-4)

        def step() -> None:
            optimiser.zero_grad()
            loss().backward()
            optimiser.step()

        return step


def _llama(vocabulary: int, size: dict[str, int] = WIDE) -> torch.nn.Module:
    config = transformers.LlamaConfig(vocab_size=vocabulary, num_key_value_heads=4, **size)
    return transformers.LlamaForCausalLM(config)


def _gpt2(**options: int) -> torch.nn.Module:
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**GPT2, **options}))


def _gemma() -> torch.nn.Module:
    config = transformers.GemmaConfig(vocab_size=32000, num_key_value_heads=4, head_dim=64, **WIDE)
    return transformers.GemmaForCausalLM(config)


MODELS = {
    "llama": Model("Llama, 32k words", lambda: _llama(32000), 32000),
    "llama-bf16": Model(
        "Llama, 32k words, bfloat16", lambda: _llama(32000), 32000, dtype=torch.bfloat16
    ),
    "llama-128k": Model("Llama, 128k words", lambda: _llama(128256), 128256),
    "gemma": Model("Gemma, 32k words", _gemma, 32000),
    "gpt2": Model(
        "GPT-2, 50k words", _gpt2, 50257
    ),
    "llama-small": Model("Llama, 128 wide, 2k words", lambda: _llama(2000, NARROW), 2000),
    "gpt2-small": Model(
        "GPT-2, 128 wide, 2k words",
        lambda: _gpt2(n_embd=128, n_layer=2, n_head=4, vocab_size=2000,
                      bos_token_id=0, eos_token_id=0),
        2000,
    ),
    "bert": Model(
        "BERT, 30k words",
        lambda: transformers.BertForMaskedLM(transformers.BertConfig(**WIDE)),
        30522,
    ),
    "vit": Model(
        "ViT",
        lambda: transformers.ViTForImageClassification(
            transformers.ViTConfig(image_size=128, num_labels=1000, **{
                k: v for k, v in WIDE.items() if k != "max_position_embeddings"})
        ),
        side=128, count=4,
    ),
    "convnext": Model(
        "ConvNeXt-atto", lambda: timm.create_model("convnext_atto"), side=128, count=4
    ),
    "efficientnet": Model(
        "EfficientNet-B0", lambda: timm.create_model("efficientnet_b0"), side=128, count=4
    ),
    "mobilenet": Model(
        "MobileNetV3-large", lambda: timm.create_model("mobilenetv3_large_100"), side=128, count=4
    ),
}  # fmt: skip


def measure(model: Model, seconds: float) -> str:
    """A row of the table."""
    torch.manual_seed(0)
    net = model.make().to(model.dtype)
    ours = copy.deepcopy(net)
    fastact.replace(ours)
    calls = {
        "before": Call(model.step(net)),
        "after": Call(model.step(ours)),
        "patched": Call(model.step(net), within=fastact.patched),
    }
    samples = in_turns(calls, Budget(seconds, least=5))
    before, after = (sorted(samples[k])[len(samples[k]) // 2] * 1e3 for k in ("before", "after"))
    gain, patched = ratio(samples, "before", "after"), ratio(samples, "before", "patched")
    return (
        f"| {model.title} | {before:.0f} ms | {after:.0f} ms | {gain.median:.2f} "
        f"({gain.low:.2f} to {gain.high:.2f}) | {patched.median:.2f} |"
    )


@dataclass
class Compiled:
    """A compiled step, and what compiling it took."""

    step: Callable[[], object]
    graphs: int
    breaks: int

    @classmethod
    def of(cls, model: Model, net: torch.nn.Module) -> Compiled:
        """Compiles a model and runs its first steps."""
        counters = torch._dynamo.utils.counters
        counters.clear()
        step = model.step(torch.compile(net))
        for _ in range(3):
            step()
        return cls(step, counters["stats"]["unique_graphs"], sum(counters["graph_break"].values()))


def measure_compiled(model: Model, seconds: float) -> str:
    """A row of the table of compiled models."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    net = model.make().to(model.dtype)
    ours, again = copy.deepcopy(net), copy.deepcopy(net)
    fastact.replace(ours)
    made = {
        "before": Compiled.of(model, net),
        "after": Compiled.of(model, ours),
        "again": Compiled.of(model, again),
    }
    calls = {name: Call(compiled.step) for name, compiled in made.items()}
    samples = in_turns(calls, Budget(seconds, least=5, most=1001))
    times = [sorted(samples[k])[len(samples[k]) // 2] * 1e3 for k in ("before", "after")]
    gain, noise = ratio(samples, "before", "after"), ratio(samples, "before", "again")
    graphs = " / ".join(f"{made[k].graphs} ({made[k].breaks})" for k in ("before", "after"))
    return (
        f"| {model.title} | {times[0]:.1f} ms | {times[1]:.1f} ms | {spread(gain)} | {graphs} "
        f"| {spread(noise)} |"
    )


def spread(found: Spread) -> str:
    """A ratio with its quartiles."""
    return f"{found.median:.3f} ({found.low:.3f} to {found.high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each model")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--compile", action="store_true", help="compares compiled models")
    args = parser.parse_args()
    if args.cpu:
        args.threads, timing.perf_counter_ns = 1, process_time_ns
    torch.set_num_threads(args.threads)
    clock = "processor time" if args.cpu else "wall time"
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, "
          f"timm {timm.__version__}, {args.threads} threads, {clock}")  # fmt: skip
    if args.compile:
        print("| compiled | before | after | ratio (quartiles) | graphs (breaks) | before twice |")
    else:
        print("| model | before | after | ratio (quartiles) | patched |")
    print("|---" * (6 if args.compile else 5) + "|")
    row = measure_compiled if args.compile else measure
    for name in args.models:
        print(row(MODELS[name], args.seconds), flush=True)


if __name__ == "__main__":
    main()
