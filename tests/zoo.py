"""Real models of transformers and timm with random weights, small, and what counts our ops."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import transformers
from support import Ops
from torchvision_cpu import timm

import fastact

transformers.logging.set_verbosity_error()

VOCABULARY = 97
_TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_DECODER = {**_TEXT, "num_key_value_heads": 2, "head_dim": 8}


def _causal(name: str) -> Callable[[], torch.nn.Module]:
    config = getattr(transformers, f"{name}TextConfig", None) or getattr(
        transformers, f"{name}Config"
    )
    model = getattr(transformers, f"{name}ForCausalLM")
    options = {k: v for k, v in _DECODER.items() if k != "head_dim" or name != "Phi3"}
    return lambda: model(config(**options))


def _gpt2():
    names = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer",
             "num_attention_heads": "n_head", "max_position_embeddings": "n_positions",
             "intermediate_size": "n_inner"}  # fmt: skip
    options = {names.get(k, k): v for k, v in _TEXT.items()}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**options))


def _vit():
    config = transformers.ViTConfig(
        hidden_size=32, intermediate_size=72, num_hidden_layers=2, num_attention_heads=4,
        image_size=32, patch_size=8, num_labels=5,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config)


@dataclass(frozen=True)
class Model:
    name: str
    make: Callable[[], torch.nn.Module]
    replaced: dict[str, int]  # how many modules and losses of which class
    ops: dict[str, int]  # how often a training step calls which of our ops
    side: int = 0  # of its images; 0: it reads text

    def build(self) -> torch.nn.Module:
        torch.manual_seed(0)
        return self.make()

    def batch(self) -> dict[str, torch.Tensor]:
        g = torch.Generator().manual_seed(1)
        if self.side:
            images = torch.randn(6, 3, self.side, self.side, generator=g)
            return {"images": images, "labels": torch.randint(5, (6,), generator=g)}
        tokens = torch.randint(3, VOCABULARY, (3, 12), generator=g)
        labels = tokens.clone()
        labels[0, 7:] = -100
        return {"input_ids": tokens, "labels": labels}

    def loss(self, model: torch.nn.Module, **options) -> torch.Tensor:
        torch.manual_seed(2)  # of dropout
        batch = self.batch()
        if not self.side:
            return model(**batch, **options).loss
        out = model(batch["images"].to(next(model.parameters()).dtype))
        return torch.nn.functional.cross_entropy(getattr(out, "logits", out), batch["labels"])


def _gated(mlp: str, act: str, op: str) -> tuple[dict[str, int], dict[str, int]]:
    ops = {op: 2, f"{op}_backward": 2, "cross_entropy": 1, "cross_entropy_backward": 1}
    return {mlp: 2, act: 2, "ForCausalLMLoss": 1}, ops


def _of(op: str, count: int) -> dict[str, int]:
    return {op: count, f"{op}_backward": count}


MODELS = [
    Model("Llama", _causal("Llama"), *_gated("LlamaMLP", "SiLUActivation", "silu_mul")),
    Model("Mistral", _causal("Mistral"), *_gated("MistralMLP", "SiLUActivation", "silu_mul")),
    Model("Qwen2", _causal("Qwen2"), *_gated("Qwen2MLP", "SiLUActivation", "silu_mul")),
    Model("Qwen3", _causal("Qwen3"), *_gated("Qwen3MLP", "SiLUActivation", "silu_mul")),
    Model("Gemma", _causal("Gemma"), *_gated("GemmaMLP", "GELUTanh", "gelu_tanh_mul")),
    Model("Gemma2", _causal("Gemma2"), *_gated("Gemma2MLP", "GELUTanh", "gelu_tanh_mul")),
    Model("Gemma3", _causal("Gemma3"), *_gated("Gemma3MLP", "GELUTanh", "gelu_tanh_mul")),
    Model("Phi3", _causal("Phi3"), *_gated("Phi3MLP", "SiLUActivation", "silu_glu")),
    Model(
        "GPT2",
        _gpt2,
        {"NewGELUActivation": 2, "ForCausalLMLoss": 1},
        _of("gelu_tanh", 2) | _of("cross_entropy", 1),
    ),
    Model(
        "BERT",
        lambda: transformers.BertForMaskedLM(transformers.BertConfig(**_TEXT)),
        {"GELUActivation": 3},
        _of("gelu", 3),
    ),
    Model("ViT", _vit, {"GELUActivation": 2}, _of("gelu", 2), side=32),
    Model(
        "ConvNeXt",
        lambda: timm.models.ConvNeXt(depths=(1, 1, 2, 1), dims=(8, 12, 16, 24), num_classes=5),
        {"GELU": 5},
        _of("gelu", 5),
        side=32,
    ),
    Model(
        "EfficientNet",
        lambda: timm.create_model("test_efficientnet", num_classes=5),
        {"SiLU": 11, "Sigmoid": 2},
        _of("sigmoid", 2) | {"silu_": 11, "silu_backward": 11},
        side=64,
    ),
    Model(
        "MobileNetV3",
        lambda: timm.create_model("mobilenetv3_small_050", num_classes=5),
        {"Hardswish": 19, "ReLU": 14, "Hardsigmoid": 9},
        _of("hardsigmoid", 9)
        | {"hardswish_": 19, "hardswish_backward": 19, "relu_": 14, "relu_backward": 14},
        side=64,
    ),
]
CAUSAL = [m for m in MODELS if "ForCausalLMLoss" in m.replaced]


# --------------------------------------------------------------------------------------------------
# Gated MLPs by themselves


class Config:
    """What LlamaMLP asks of a configuration."""

    hidden_size, intermediate_size, mlp_bias = 8, 12, False

    def __init__(self, act="silu"):
        self.hidden_act = act


def fused(module: torch.nn.Module, x: torch.Tensor) -> bool:
    """Whether a call goes to a gated op; its result is that of the original."""
    original = copy.deepcopy(module)
    fastact.restore(original)
    want = original(x)
    with Ops() as seen:
        torch.testing.assert_close(module(x), want)
    return any(op.endswith(("_mul", "_glu")) for op in seen.ours)
