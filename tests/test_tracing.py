"""torch.fx and torch.jit.trace: what they record is torch's own ops, which they know."""

import io
import re

import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaMLP
from zoo import Config

import fastact

CLOSE = torch.testing.assert_close
UNARY = [name for name in fastact.nn.__all__ if not name.endswith(("Loss", "Mul", "LU"))]
GATED = ["SwiGLU", "GEGLU", "ReGLU", "GLU"]
PAIRS = ["SiLUMul", "GELUMul", "ReLUMul"]
LOSSES = {
    "CrossEntropyLoss": torch.tensor([1, 0, 3]),
    "NLLLoss": torch.tensor([1, 0, 3]),
    "BCEWithLogitsLoss": torch.rand(3, 8),
}
SOFTMAX = {"Softmax": -1, "LogSoftmax": -1}


def build(name):
    return getattr(fastact.nn, name)(*([SOFTMAX[name]] if name in SOFTMAX else []))


class Outer(nn.Module):
    """Not traced as one call, as a module of torch.nn would be."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args):
        return self.inner(*args)


@pytest.mark.parametrize("backend", ["auto", "compiled"])
@pytest.mark.parametrize("name", [*UNARY, "GELU", "SiLU", "ELU", "ReLU", *GATED])
def test_fx(name, backend):
    x = torch.randn(3, 8)
    module = build(name)
    with fastact.backend(backend):
        traced = torch.fx.symbolic_trace(nn.Sequential(module))
    assert all("fastact" not in str(node.target) for node in traced.graph.nodes)
    CLOSE(traced(x), module(x))


class Pair(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, a, b):
        return self.inner(a, b)


@pytest.mark.parametrize("name", [*PAIRS, *LOSSES])
def test_fx_of_two(name):
    other = LOSSES.get(name, torch.randn(3, 8))
    x, module = torch.randn(3, 8), build(name)
    CLOSE(torch.fx.symbolic_trace(Pair(module))(x, other), module(x, other))


def test_fx_refuses_what_torch_has_not():
    class Capped(nn.Module):
        def forward(self, x, target):
            return fastact.functional.cross_entropy(x, target, softcap=5.0)

    with pytest.raises(TypeError, match="must be Tensor, not Proxy"):
        torch.fx.symbolic_trace(Capped())


def test_fx_of_what_was_replaced_and_patched():
    mlp = LlamaMLP(Config())
    x = torch.randn(2, 5, Config.hidden_size)
    want = mlp(x)
    assert fastact.replace(mlp).replaced
    CLOSE(torch.fx.symbolic_trace(mlp)(x), want)

    class Calls(nn.Module):
        def forward(self, x):
            return torch.nn.functional.gelu(x) + torch.nn.functional.softmax(x, -1)

    with fastact.patched():
        traced = torch.fx.symbolic_trace(Calls())
    CLOSE(traced(x), Calls()(x))


QUIET = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")


@QUIET
@pytest.mark.parametrize("records", [False, True])
def test_jit_trace(records):
    """Sizes that "auto" has kernels of ours for."""
    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64), nn.Softmax(-1)).eval()
    x = torch.randn(4096, 64)
    fastact.replace(model)
    with torch.set_grad_enabled(records), fastact.backend("auto"):
        traced = torch.jit.trace(model, x)
        file = io.BytesIO()
        torch.jit.save(traced, file)
        file.seek(0)
        loaded = torch.jit.load(file)
        assert not re.search(r"fastact::|PythonOp", str(traced.inlined_graph))
        CLOSE(loaded(x), model(x))


@QUIET
def test_jit_trace_of_a_loss():
    target = torch.randint(2000, (256,))

    def loss(x):
        return fastact.functional.cross_entropy(x, target)

    x = torch.randn(256, 2000, requires_grad=True)
    with fastact.backend("auto"):
        traced = torch.jit.trace(loss, x)
    assert not re.search(r"fastact::|PythonOp", str(traced.inlined_graph))
    CLOSE(traced(x), loss(x))
