"""What replace() leaves: subclasses, other versions, other forms; and how the report says so."""

import functools

import pytest
import torch
import transformers
from torch import nn
from transformers import activations
from transformers.models.llama.modeling_llama import LlamaMLP
from zoo import Config, fused, timm

import fastact

create_act = timm.layers.create_act


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
        ("own", "OtherLines", "gated, but not in a way that fastact knows"),
    }
    assert [r.name for r in report.replaced] == ["mlp.act_fn", "own.act_fn"]
    torch.testing.assert_close([m(x) for m in model.values()], want)


def test_the_same_lines_are_the_same():
    mlp = SameLines()
    assert len(fastact.replace(mlp).replaced) == 2
    assert fused(mlp, torch.randn(3, 8))
    torch.testing.assert_close(mlp(tokens=torch.ones(8)), mlp(torch.ones(8)))


def test_gated_mlps_of_other_forms_are_named():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate_up_proj = nn.Parameter(torch.zeros(2, 8, 12))

    t5 = transformers.T5Config(
        d_model=8, d_ff=12, feed_forward_proj="gated-gelu", num_layers=1, num_heads=2
    )
    gated = transformers.models.t5.modeling_t5.T5DenseGatedActDense(t5)
    report = fastact.replace(nn.ModuleDict({"t5": gated, "experts": Experts()}))
    why = "gated, but not in a way that fastact knows"
    assert {(r.name, r.why) for r in report.left} == {("t5", why), ("experts", why)}
    assert [r.name for r in report.replaced] == ["t5.act"]


def test_a_forward_of_its_own_is_left():
    model = nn.Sequential(nn.GELU(), LlamaMLP(Config()))
    for module in model:
        module.forward = lambda x: x
    report = fastact.replace(model)
    assert [(r.name, r.why) for r in report.left] == [
        ("0", "this one has a forward of its own"),
        ("1", "this one has a forward of its own"),
    ]


WHY = f"transformers {transformers.__version__} has another one than fastact knows"


def changed(self, x):
    return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x) * 1.0)


def changed_act(self, input):
    return nn.functional.silu(input) + 0.0


def test_unknown_versions_are_left_with_a_warning(monkeypatch):
    monkeypatch.setattr(LlamaMLP, "forward", changed)
    monkeypatch.setattr(activations.SiLUActivation, "forward", changed_act)
    mlp = LlamaMLP(Config())
    with pytest.warns(UserWarning, match="another one than fastact knows") as caught:
        report = fastact.replace(mlp)
    assert not report.replaced
    assert [(r.name, r.why) for r in report.left] == [
        ("", WHY),
        ("act_fn", WHY),
    ]
    texts = [str(w.message) for w in caught]
    assert texts == [
        f"{name}: {WHY}; it is left as it is. A newer fastact may know it."
        for name in ("LlamaMLP", "SiLUActivation")
    ]
    assert all(w.filename == __file__ for w in caught)


def test_a_decorated_forward_is_another(monkeypatch):
    plain = LlamaMLP.forward

    @functools.wraps(plain)
    def louder(self, x):
        return plain(self, x) * 2

    monkeypatch.setattr(LlamaMLP, "forward", louder)
    with pytest.warns(UserWarning, match="^LlamaMLP: transformers .* has another one"):
        report = fastact.replace(LlamaMLP(Config()))
    assert [r.name for r in report.replaced] == ["act_fn"]


def test_helpers_and_globals_count_too(monkeypatch):
    module = create_act.QuickGELU()
    monkeypatch.setitem(type(module).forward.__globals__, "quick_gelu", lambda x: x)
    with pytest.warns(UserWarning, match="^QuickGELU: timm .* has another one"):
        assert not fastact.replace(module).replaced
    module = create_act.GELU()
    monkeypatch.setitem(type(module).forward.__globals__, "F", nn)
    with pytest.warns(UserWarning, match="^GELU: timm .* has another one"):
        assert not fastact.replace(module).replaced


def test_state_counts_too():
    module = activations.GELUActivation()
    module.act = torch.sin
    with pytest.warns(UserWarning, match="^GELUActivation: transformers .* has another one"):
        assert not fastact.replace(module).replaced
    module = activations.AccurateGELUActivation()
    module.precomputed_constant = 1.0
    with pytest.warns(
        UserWarning, match="^AccurateGELUActivation: transformers .* has another one"
    ):
        assert not fastact.replace(module).replaced


def test_without_sources_nothing_is_known(monkeypatch):
    from fastact._replace import _source

    _source._normal_of.cache_clear()
    monkeypatch.setattr(_source.inspect, "getsource", lambda _: (_ for _ in ()).throw(OSError))
    with pytest.warns(UserWarning, match="^SiLUActivation: transformers .* has another one"):
        assert not fastact.replace(activations.SiLUActivation()).replaced
    _source._normal_of.cache_clear()


def test_the_text_has_to_be_that_of_the_code(tmp_path, monkeypatch):
    """A file that was edited since it was imported says something else than what runs."""
    before = """
from torch import nn
class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (nn.Linear(4, 4) for _ in range(3))
        self.act_fn = nn.SiLU()
    def forward(self, x):
        return self.down_proj(2 * self.act_fn(self.gate_proj(x)) * self.up_proj(x))
"""
    text = tmp_path / "edited_since.py"
    text.write_text(before)
    monkeypatch.syspath_prepend(tmp_path)
    from edited_since import Gated

    from fastact._replace import _source

    for now in ("", "2 * ("):  # the second is no Python
        text.write_text(before.replace("2 * ", now))
        model, x = Gated(), torch.randn(2, 4)
        want = model(x)
        report = fastact.replace(model)
        assert [r.name for r in report.replaced] == ["act_fn"]
        assert [left.was for left in report.left] == ["Gated"]
        torch.testing.assert_close(model(x), want)
        assert type(model) is Gated
        _source._normal_of.cache_clear()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_scripted_and_traced_parts_are_passed_over():
    part = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    for scripted in (torch.jit.script(part), torch.jit.trace(part, torch.ones(1, 2))):
        model = nn.Sequential(scripted, nn.GELU())
        assert [r.name for r in fastact.replace(model).replaced] == ["1"]


def test_functions_in_attributes_are_left():
    model = nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, activation="gelu"))
    report = fastact.replace(model)
    assert [(r.name, r.was, r.why) for r in report.left] == [
        ("0.activation", "torch.nn.functional.gelu", "a function in an attribute")
    ]
    assert model[0].activation is nn.functional.gelu


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
