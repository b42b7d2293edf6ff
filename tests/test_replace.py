"""What replace() recognises, what it leaves, and that nothing else about a module changes."""

import copy
import io
import pickle
import warnings

import pytest
import torch
import zoo
from support import assert_within
from timm.layers import create_act
from timm.layers import mlp as timm_mlp
from torch import nn
from transformers import activations
from transformers.models.llama.modeling_llama import LlamaMLP

import fastact

TORCH = [
    nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.SiLU(inplace=True), nn.ReLU(), nn.ReLU6(),
    nn.LeakyReLU(0.2), nn.ELU(1.3), nn.SELU(), nn.CELU(0.7), nn.Sigmoid(), nn.Tanh(),
    nn.Softplus(2.0, 5.0), nn.LogSigmoid(), nn.Mish(), nn.Hardswish(), nn.Hardsigmoid(),
    nn.GLU(0), nn.Softmax(-1), nn.LogSoftmax(0),
]  # fmt: skip
HUGGING_FACE = {
    "gelu": "gelu", "gelu_fast": "gelu_tanh", "gelu_new": "gelu_tanh", "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh", "gelu_python_tanh": "gelu_tanh",
    "gelu_accurate": "gelu_tanh", "hardswish": "hardswish", "leaky_relu": "leaky_relu",
    "mish": "mish", "quick_gelu": "quick_gelu", "relu": "relu", "relu2": "squared_relu",
    "relu6": "relu6", "sigmoid": "sigmoid", "silu": "silu", "swish": "silu", "tanh": "tanh",
}  # fmt: skip
NO_SUCH_OP = {"gelu_10", "laplace", "linear", "sqrtsoftplus", "prelu", "xielu"}
TIMM = {
    "Swish": "silu", "Mish": "mish", "Sigmoid": "sigmoid", "Tanh": "tanh",
    "HardSwish": "hardswish", "HardSigmoid": "hardsigmoid", "GELU": "gelu",
    "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu",
}  # fmt: skip


def result(module, x):
    """Value and gradient; of a clone, since some work in place."""
    leaf = x.clone().requires_grad_()
    y = module(leaf * 1)
    (grad,) = torch.autograd.grad(y, leaf, torch.ones_like(y))
    return y.detach(), grad


def check_against_float64(module, op):
    """A module is replaced, calls op, and computes what it did, in float32 and float64."""
    x = torch.linspace(-5, 5, 512)
    exact = result(copy.deepcopy(module).double(), x.double())
    before = type(module)
    fastact.replace(module)
    with zoo.counted() as ops:
        ours = result(module, x)
    assert {name.removesuffix("_") for name in ops} == {op, f"{op}_backward"}
    for got, want in zip(ours, exact, strict=True):
        assert_within(got, want, 4, x, op, torch.ones_like(want))
    for got, want in zip(result(module, x.double()), exact, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-15)
    assert fastact.restore(module) == 1
    assert type(module) is before


@pytest.mark.parametrize("module", TORCH, ids=repr)
def test_modules_of_torch(module):
    module = copy.deepcopy(module)
    x = torch.randn(6, 8)
    want = result(module, x)
    before = type(module)
    report = fastact.replace(module)
    assert [(r.name, r.was, r.now) for r in report.replaced] == [
        ("", before.__name__, f"fastact.nn.{before.__name__}")
    ]
    assert isinstance(module, getattr(fastact.nn, before.__name__))
    with zoo.counted() as ops:
        got = result(module, x)
    assert ops.total() == 2
    torch.testing.assert_close(got, want)
    assert fastact.restore(module) == 1
    assert type(module) is before


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.CrossEntropyLoss(torch.rand(5), ignore_index=2, label_smoothing=0.1),
        lambda: nn.NLLLoss(torch.rand(5), reduction="sum"),
    ],
)
def test_losses_of_torch(make):
    loss = make()
    x, target = torch.randn(7, 5), torch.randint(5, (7,))
    want = loss(x, target)
    assert not fastact.replace(loss, losses=False).replaced
    assert len(fastact.replace(loss).replaced) == 1
    with zoo.counted() as ops:
        torch.testing.assert_close(loss(x, target), want)
    assert ops.total() == 1
    assert list(loss.state_dict()) == ["weight"]
    with zoo.counted() as ops:
        torch.testing.assert_close(pickle.loads(pickle.dumps(loss))(x, target), want)
    assert ops.total() == 1


def test_binary_loss_of_torch():
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.rand(5))
    x, target = torch.randn(7, 5), torch.rand(7, 5)
    want = loss(x, target)
    fastact.replace(loss)
    with zoo.counted() as ops:
        torch.testing.assert_close(loss(x, target), want)
    assert ops.total() == 1


def test_every_activation_of_transformers_is_known():
    assert set(activations.ACT2CLS) == set(HUGGING_FACE) | NO_SUCH_OP


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_activations_of_transformers(name):
    check_against_float64(activations.ACT2FN[name], HUGGING_FACE[name])


@pytest.mark.parametrize("name", sorted(NO_SUCH_OP))
def test_other_activations_of_transformers_are_left(name):
    module = activations.ACT2FN[name]
    report = fastact.replace(module)
    assert not report.replaced
    assert [r.why for r in report.left] == ["fastact has no such op"]


@pytest.mark.parametrize("name", TIMM)
def test_activations_of_timm(name):
    check_against_float64(getattr(create_act, name)(), TIMM[name])


@pytest.mark.parametrize("name", ["Swish", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid"])
def test_activations_of_timm_in_place(name):
    module = getattr(create_act, name)(inplace=True)
    x = torch.randn(99)
    want = module(x.clone())
    fastact.replace(module)
    y = module(x)
    assert y is x
    torch.testing.assert_close(y, want)


# --------------------------------------------------------------------------------------------------
# Gated MLPs


class Config:
    hidden_size, intermediate_size, mlp_bias = 8, 12, False

    def __init__(self, act="silu"):
        self.hidden_act = act


def fused(module, x):
    """Whether a call goes to a gated op; its result is that of the original."""
    original = copy.deepcopy(module)
    fastact.restore(original)
    want = original(x)
    with zoo.counted() as ops:
        torch.testing.assert_close(module(x), want)
    return any(op.endswith(("_mul", "_glu")) for op in ops)


@pytest.mark.parametrize("act", ["silu", "swish", "relu", "gelu", "gelu_new", "gelu_pytorch_tanh"])
def test_gates(act):
    mlp = LlamaMLP(Config(act))
    report = fastact.replace(mlp)
    assert [r.was for r in report.replaced] == ["LlamaMLP", type(mlp.act_fn).__name__]
    assert fused(mlp, torch.randn(3, 8))


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
        lambda: timm_mlp.SwiGLU(8, 12, drop=0.2),
        lambda: timm_mlp.SwiGLU(8, 12, norm_layer=nn.LayerNorm),
        lambda: timm_mlp.GluMlp(8, 12, act_layer=nn.SiLU),
        lambda: timm_mlp.GluMlp(8, 12, act_layer=nn.GELU, gate_last=False),
    ],
)
def test_gated_mlps_of_timm(make):
    mlp = make().eval()
    assert len(fastact.replace(mlp).replaced) == 2
    assert fused(mlp, torch.randn(3, 8))


def test_gated_mlp_of_timm_over_channels():
    mlp = timm_mlp.GluMlp(8, 12, act_layer=nn.SiLU, use_conv=True)
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


# --------------------------------------------------------------------------------------------------
# What is left


class Loud(nn.GELU):
    def forward(self, input):
        return super().forward(input) + 1


class Quiet(LlamaMLP):
    pass


class SameLines(nn.Module):
    """Somebody's own copy of the lines of LlamaMLP."""

    def __init__(self):
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(8, 12), nn.Linear(8, 12)
        self.down_proj, self.act_fn = nn.Linear(12, 8), nn.SiLU()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Another name for the argument, and words."""
        down_proj = self.down_proj(self.act_fn(self.gate_proj(tokens)) * self.up_proj(tokens))
        return down_proj


class OtherLines(SameLines):
    def forward(self, x):
        return self.down_proj(self.act_fn(self.up_proj(x)) * self.gate_proj(x) + 0)


def test_subclasses_and_others_are_left():
    model = nn.ModuleDict({"loud": Loud(), "mlp": Quiet(Config()), "own": OtherLines()})
    x = torch.randn(3, 8)
    want = [m(x) for m in model.values()]
    report = fastact.replace(model)
    assert {(r.name, r.was, r.why) for r in report.left} == {
        ("loud", "Loud", "derives from torch.nn.GELU"),
        ("mlp", "Quiet", "a subclass of an MLP that fastact knows"),
    }
    assert [r.name for r in report.replaced] == ["mlp.act_fn", "own.act_fn"]
    torch.testing.assert_close([m(x) for m in model.values()], want)


def test_the_same_lines_are_the_same():
    mlp = SameLines()
    assert len(fastact.replace(mlp).replaced) == 2
    assert fused(mlp, torch.randn(3, 8))
    torch.testing.assert_close(mlp(tokens=torch.ones(8)), mlp(torch.ones(8)))


def test_a_forward_of_its_own_is_left():
    model = nn.Sequential(nn.GELU(), LlamaMLP(Config()))
    for module in model:
        module.forward = lambda x: x
    report = fastact.replace(model)
    assert [(r.name, r.why) for r in report.left] == [
        ("0", "this one has a forward of its own"),
        ("1", "this one has a forward of its own"),
    ]


def changed(self, x):
    return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x) * 1.0)


def changed_act(self, input):
    return nn.functional.silu(input) + 0.0


def test_unknown_versions_are_left_with_a_warning(monkeypatch):
    monkeypatch.setattr(LlamaMLP, "forward", changed)
    monkeypatch.setattr(activations.SiLUActivation, "forward", changed_act)
    mlp = LlamaMLP(Config())
    with pytest.warns(UserWarning, match="not the one that fastact knows") as caught:
        report = fastact.replace(mlp)
    assert not report.replaced
    assert [(r.name, r.why) for r in report.left] == [
        ("", "not as fastact knows it"),
        ("act_fn", "not as fastact knows it"),
    ]
    texts = [str(w.message) for w in caught]
    assert "LlamaMLP.forward of transformers" in texts[0]
    assert "SiLUActivation of transformers" in texts[1]
    assert all(w.filename == __file__ for w in caught)


def test_helpers_and_globals_count_too(monkeypatch):
    module = create_act.QuickGELU()
    monkeypatch.setitem(type(module).forward.__globals__, "quick_gelu", lambda x: x)
    with pytest.warns(UserWarning, match="QuickGELU of timm"):
        assert not fastact.replace(module).replaced
    module = create_act.GELU()
    monkeypatch.setitem(type(module).forward.__globals__, "F", nn)
    with pytest.warns(UserWarning, match="GELU of timm"):
        assert not fastact.replace(module).replaced


def test_state_counts_too():
    module = activations.GELUActivation()
    module.act = torch.sin
    with pytest.warns(UserWarning, match="GELUActivation of transformers"):
        assert not fastact.replace(module).replaced
    module = activations.AccurateGELUActivation()
    module.precomputed_constant = 1.0
    with pytest.warns(UserWarning, match="AccurateGELUActivation of transformers"):
        assert not fastact.replace(module).replaced


def test_without_sources_nothing_is_known(monkeypatch):
    from fastact._replace import _source

    _source._normal_of.cache_clear()
    monkeypatch.setattr(_source.inspect, "getsource", lambda _: (_ for _ in ()).throw(OSError))
    with pytest.warns(UserWarning, match="SiLUActivation of transformers"):
        assert not fastact.replace(activations.SiLUActivation()).replaced
    _source._normal_of.cache_clear()


# --------------------------------------------------------------------------------------------------
# The rest of a module


def test_shared_modules_and_containers():
    act = nn.GELU()
    model = nn.ModuleDict(
        {"a": nn.Sequential(nn.Linear(4, 4), act), "b": nn.ModuleList([act, nn.SiLU()])}
    )
    report = fastact.replace(model)
    assert [r.name for r in report.replaced] == ["a.1", "b.1"]
    assert model["a"][1] is act is model["b"][0]
    assert fastact.restore(model) == 2
    assert type(act) is nn.GELU


def test_hooks_flags_buffers_and_attributes_stay():
    act = nn.GELU().eval()
    act.register_buffer("note", torch.ones(2))
    act.mine = "x"
    calls = []
    act.register_forward_pre_hook(lambda m, args: calls.append("before"))
    act.register_forward_hook(lambda m, args, y: calls.append("after"))
    act.register_full_backward_hook(lambda m, gi, go: calls.append("backward"))
    fastact.replace(act)
    act(torch.randn(3, requires_grad=True) * 1).sum().backward()
    assert calls == ["before", "after", "backward"]
    assert (act.training, act.mine, list(act.state_dict())) == (False, "x", ["note"])
    fastact.restore(act)
    assert (act.training, act.mine, list(act.state_dict())) == (False, "x", ["note"])


def test_whole_modules_are_saved_and_copied():
    model = nn.Sequential(nn.Linear(4, 4), nn.GELU("tanh"), activations.SiLUActivation())
    fastact.replace(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    x = torch.randn(2, 4)
    for other in (
        torch.load(file, weights_only=False),
        copy.deepcopy(model),
        copy.copy(model),
        pickle.loads(pickle.dumps(model, protocol=2)),
    ):
        with zoo.counted() as ops:
            assert torch.equal(other(x), model(x))
        assert ops == {"gelu_tanh": 2, "silu": 2}
    assert fastact.restore(copy.deepcopy(model)) == 2
    assert fastact.restore(model) == 2
    assert [type(m) for m in model] == [nn.Linear, nn.GELU, activations.SiLUActivation]


def test_a_dry_run_changes_nothing():
    model = nn.Sequential(nn.GELU(), LlamaMLP(Config()), nn.CrossEntropyLoss())
    classes = [type(m) for m in model.modules()]
    dry = fastact.replace(model, dry_run=True)
    assert [type(m) for m in model.modules()] == classes
    assert fastact.restore(model) == 0
    real = fastact.replace(model)
    assert dry.replaced == real.replaced
    assert len(real.replaced) == 4
    assert str(dry).startswith("fastact would replace 4, left 0\n")


def test_twice_is_once():
    model = nn.Sequential(nn.GELU(), fastact.nn.SiLU())
    classes = [type(m) for m in model]
    assert len(fastact.replace(model).replaced) == 1
    again = fastact.replace(model)
    assert (again.replaced, again.left) == ([], [])
    assert fastact.restore(model) == 1
    assert fastact.restore(model) == 0
    assert [type(m) for m in model] == classes


def test_a_class_that_was_changed_since_is_left():
    act = nn.GELU()
    fastact.replace(act)
    act.__class__ = type("Wrapped", (type(act),), {})
    with pytest.warns(UserWarning, match="has been changed since fastact replaced it, to"):
        assert fastact.restore(act) == 0


def test_the_report_prints_as_a_table():
    model = nn.Sequential(*(nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(3)), Loud())
    assert str(fastact.replace(model)).splitlines() == [
        "fastact replaced 3, left 1",
        "  count  where  was   now",
        "  3      *.*    ReLU  fastact.nn.ReLU",
        "  count  where  left  why",
        "  1      *      Loud  derives from torch.nn.GELU",
    ]
    assert str(fastact.replace(nn.Linear(2, 2))) == "fastact replaced 0, left 0"


def test_only_modules():
    for function in (fastact.replace, fastact.restore):
        with pytest.raises(TypeError, match="argument 'model' must be a Module, not int"):
            function(3)


def test_no_warning_where_nothing_is_wrong():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model in zoo.MODELS:
            fastact.replace(model.build(), dry_run=True)
