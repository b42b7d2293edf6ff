"""What replace() does to the modules around what they compute: nothing."""

import copy
import io
import pickle
import sys
import warnings

import pytest
import torch
import zoo
from support import Ops
from torch import nn
from transformers import activations
from transformers.models.llama.modeling_llama import LlamaMLP
from zoo import Config, timm

import fastact
from fastact._replace._swap import Swapped


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
        with Ops() as seen:
            assert torch.equal(other(x), model(x))
        assert seen.ours == {"gelu_tanh": 2, "silu": 2}
    assert fastact.restore(copy.deepcopy(model)) == 2
    assert fastact.restore(model) == 2
    assert [type(m) for m in model] == [nn.Linear, nn.GELU, activations.SiLUActivation]


@pytest.mark.skipif(
    sys.version_info[:3] == (3, 13, 0) and torch.__version__ < "2.11",
    reason="Python 3.13.0 does not tell torch 2.10 that a module changed (CPython issue 125608)",
)
def test_compiled_code_notices():
    model = nn.Sequential(nn.GELU("tanh"), nn.Linear(4, 4))
    ops = []

    def watch(graph, _):
        ops.append(sum("fastact" in str(node.target) for node in graph.graph.nodes))
        return graph

    torch._dynamo.reset()
    compiled = torch.compile(model, backend=watch)
    x = torch.randn(2, 4)
    want = compiled(x)
    fastact.replace(compiled)
    torch.testing.assert_close(compiled(x), want)
    fastact.restore(model)
    assert torch.equal(compiled(x), want)
    assert len(ops) == 2
    assert ops[0] == 0
    assert ops[1] > 0


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


def test_a_second_report_has_nothing_to_say():
    """Though ours are subclasses that keep their functions in attributes."""
    act = activations.GELUActivation()
    assert fastact.replace(act).replaced
    again = fastact.replace(act)
    assert (again.replaced, again.left) == ([], [])


def test_a_class_on_top_of_a_swapped_one_is_kept_by_copies():
    act = nn.GELU()
    fastact.replace(act)
    act.__class__ = type("OnTop", (type(act),), {"forward": lambda self, x: x * 0})
    assert copy.deepcopy(act)(torch.ones(1)) == 0


def test_a_pickle_of_a_kind_that_is_gone(monkeypatch):
    from fastact._replace import _swap

    act = nn.GELU()
    fastact.replace(act)
    saved = pickle.dumps(act)
    monkeypatch.setattr(_swap, "KINDS", {})
    with pytest.warns(UserWarning, match="there is no .* here; it is left as it is"):
        assert type(pickle.loads(saved)) is nn.GELU


def test_pickles_look_at_the_class_that_they_meet(monkeypatch):
    mlp = LlamaMLP(Config())
    x = torch.randn(2, Config.hidden_size)
    fastact.replace(mlp)
    data = pickle.dumps(mlp)
    assert isinstance(pickle.loads(data), Swapped)

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x)) * 2

    monkeypatch.setattr(LlamaMLP, "forward", forward)
    with pytest.warns(UserWarning, match="LlamaMLP: .* another forward here"):
        found = pickle.loads(data)
    assert type(found) is LlamaMLP
    torch.testing.assert_close(found(x), 2 * mlp(x))


def test_arguments_keep_their_names():
    act, mlp = timm.layers.activations.Swish(), LlamaMLP(Config())
    x = torch.randn(4, Config.hidden_size)
    want = act(x=x), mlp(x=x)
    for module in (act, mlp):
        fastact.replace(module)
    torch.testing.assert_close((act(x=x), mlp(x=x)), want)
    with pytest.raises(TypeError):
        act(input=x)


@pytest.mark.parametrize("strict", [False, True])
def test_an_mlp_is_exported_with_a_dynamic_shape(strict):
    mlp = LlamaMLP(Config())
    x = torch.randn(4, Config.hidden_size)
    fastact.replace(mlp)
    shapes = ({0: torch.export.Dim("rows")},)
    with fastact.backend("auto"):
        program = torch.export.export(mlp, (x,), dynamic_shapes=shapes, strict=strict)
    more = torch.randn(9, Config.hidden_size)
    torch.testing.assert_close(program.module()(more), mlp(more))


def test_a_class_that_was_changed_since_is_left():
    act = nn.GELU()
    fastact.replace(act)
    act.__class__ = type("Wrapped", (type(act),), {})
    with pytest.warns(UserWarning, match="has been changed since fastact replaced it, to"):
        assert fastact.restore(act) == 0


def test_only_modules():
    for function in (fastact.replace, fastact.restore):
        with pytest.raises(TypeError, match="argument 'model' must be a Module, not int"):
            function(3)


def test_no_warning_where_nothing_is_wrong():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model in zoo.MODELS:
            fastact.replace(model.build(), dry_run=True)
