"""Gated MLPs under replace(): which are fused, and what else they do as before."""

import itertools

import pytest
import torch
from support import Ops
from torch import nn
from transformers.models.llama.modeling_llama import LlamaMLP
from transformers.models.phi3.configuration_phi3 import Phi3Config
from transformers.models.phi3.modeling_phi3 import Phi3MLP
from zoo import Config, fused, timm

import fastact


@pytest.mark.parametrize("act", ["silu", "swish", "relu", "gelu", "gelu_new", "gelu_pytorch_tanh"])
def test_gates(act):
    mlp = LlamaMLP(Config(act))
    report = fastact.replace(mlp)
    assert [r.was for r in report.replaced] == ["LlamaMLP", type(mlp.act_fn).__name__]
    op = {"silu": "silu_mul", "swish": "silu_mul", "relu": "relu_mul", "gelu": "gelu_mul"}
    assert report.replaced[0].now == "fastact.functional." + op.get(act, "gelu_mul, tanh")
    assert fused(mlp, torch.randn(3, 8))


@pytest.mark.parametrize("act", [nn.GELU("tanh"), nn.GELU(), nn.SiLU(inplace=True)], ids=repr)
def test_gates_of_torch(act):
    mlp = LlamaMLP(Config())
    mlp.act_fn = act
    fastact.replace(act)  # before the rest
    assert len(fastact.replace(mlp).replaced) == 1
    x = torch.randn(64, 8) * 9
    assert fused(mlp, x)
    fastact.restore(mlp)
    want = mlp.double()(x.double())
    assert fastact.replace(mlp).replaced
    torch.testing.assert_close(mlp(x.double()), want, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("act", "op"),
    [
        (fastact.nn.SiLU(), "silu_mul"),
        (fastact.nn.ReLU(), "relu_mul"),
        (fastact.nn.GELU(), "gelu_mul"),
        (fastact.nn.GELU("tanh"), "gelu_mul, tanh"),
    ],
    ids=repr,
)
def test_gates_of_fastact(act, op):
    mlp = LlamaMLP(Config())
    mlp.act_fn = act
    report = fastact.replace(mlp)
    assert [(r.was, r.now) for r in report.replaced] == [("LlamaMLP", f"fastact.functional.{op}")]
    assert fused(mlp, torch.randn(3, 8))
    x = torch.randn(3, 8)
    compiled = torch.compile(mlp, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), mlp(x))

    class Other(type(act)):
        def forward(self, input):
            return super().forward(input) + 1

    mlp.act_fn = Other()  # which is called, as it is seen at each call
    assert not fused(mlp, torch.randn(3, 8))
    fastact.restore(mlp)
    assert fastact.replace(mlp).left[0].why == f"no gated op for {Other.__qualname__}"


@pytest.mark.parametrize("act", ["mish", "quick_gelu", "tanh", "linear", "gelu_fast"])
def test_no_such_gate(act):
    mlp = LlamaMLP(Config(act))
    report = fastact.replace(mlp)
    name = type(mlp.act_fn).__name__
    assert report.left[0] == fastact._replace.Left("", "LlamaMLP", f"no gated op for {name}")
    assert not fused(mlp, torch.randn(3, 8))


@pytest.mark.parametrize(
    "make",
    [
        lambda: timm.layers.mlp.SwiGLU(8, 12, drop=0.2),
        lambda: timm.layers.mlp.SwiGLU(8, 12, norm_layer=nn.LayerNorm),
        lambda: timm.layers.mlp.GluMlp(8, 12, act_layer=nn.SiLU),
        lambda: timm.layers.mlp.GluMlp(8, 12, act_layer=nn.GELU, gate_last=False),
    ],
)
def test_gated_mlps_of_timm(make):
    mlp = make().eval()
    assert len(fastact.replace(mlp).replaced) == 2
    assert fused(mlp, torch.randn(3, 8))


def test_halves_of_timm_are_gated_where_they_are():
    """Of the last dimension, or of channels; as two tensors where the second half gates."""
    for gate_last, conv in itertools.product((False, True), repeat=2):
        mlp = timm.layers.mlp.GluMlp(8, 12, act_layer=nn.SiLU, gate_last=gate_last, use_conv=conv)
        fastact.replace(mlp.eval())
        with Ops() as seen:
            mlp(torch.randn(2, 8, 3, 3) if conv else torch.randn(2, 8))
        assert seen.ours == {"silu_mul" if gate_last else "silu_glu": 1}


@pytest.mark.parametrize("packed", [False, True])
def test_the_monitor_sees_the_gates_of_fused_mlps(packed):
    seen = []
    for replaced in (False, True):
        torch.manual_seed(0)
        options = {"hidden_size": 8, "intermediate_size": 16}
        mlp = Phi3MLP(Phi3Config(pad_token_id=0, **options)) if packed else LlamaMLP(Config("relu"))
        if replaced:
            fastact.replace(mlp)
        with fastact.monitor(mlp, every=1) as record:
            mlp(torch.randn(3, 8)).sum().backward()
        seen.append(record.to_dict()["layers"])
        assert not replaced or fused(mlp, torch.randn(3, 8))  # again, without the monitor
    before, after = (next(iter(layers.values())) for layers in seen)
    assert after["dead"] == before["dead"]
    assert packed or before["dead"][0] > 0
    assert after["gradient"] == pytest.approx(before["gradient"], rel=1e-5)


def test_gated_mlp_of_timm_over_channels():
    mlp = timm.layers.mlp.GluMlp(8, 12, act_layer=nn.SiLU, use_conv=True)
    fastact.replace(mlp)
    assert fused(mlp, torch.randn(2, 8, 3, 5))


def test_a_gated_mlp_calls_what_it_is_given():
    """Adapters, hooks on the activation, another activation: all count as before."""
    mlp = LlamaMLP(Config())
    x = torch.randn(3, 8)
    fastact.replace(mlp)
    assert fused(mlp, x)
    assert fused(mlp, x.bfloat16().float())
    torch.testing.assert_close(mlp(x=x), mlp(x))

    mlp.gate_proj = nn.Sequential(mlp.gate_proj, nn.Tanh())
    assert fused(mlp, x)

    handle = mlp.act_fn.register_forward_hook(lambda m, args, y: y * 2)
    assert not fused(mlp, x)
    handle.remove()
    assert fused(mlp, x)
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: seen.append(m))
    mlp(x)
    handle.remove()
    assert mlp.act_fn in seen
    mlp.act_fn.forward = torch.sin
    assert not fused(mlp, x)
    del mlp.act_fn.forward
    mlp.act_fn = nn.Hardtanh()
    assert not fused(mlp, x)


def test_the_packed_form_calls_its_activation_where_it_is_hooked():
    mlp = Phi3MLP(Phi3Config(hidden_size=8, intermediate_size=12))
    x = torch.randn(3, 8)
    fastact.replace(mlp)
    assert fused(mlp, x)
    with mlp.activation_fn.register_forward_hook(lambda m, args, y: y * 2):
        assert not fused(mlp, x)
    mlp.activation_fn = nn.Tanh()
    assert not fused(mlp, x)


class Doubled(nn.Linear):
    def forward(self, input):
        return super().forward(input).double()


def test_a_gated_mlp_whose_projections_differ():
    mlp = LlamaMLP(Config())
    mlp.up_proj, mlp.down_proj = Doubled(8, 12), nn.Linear(12, 8).double()
    fastact.replace(mlp)
    assert not fused(mlp, torch.randn(3, 8))
    mlp.up_proj = nn.Linear(8, 1)
    mlp.down_proj = nn.Linear(12, 8)
    assert not fused(mlp, torch.randn(3, 8))
