"""What "auto" leaves to torch: tensors below a cutoff, and those of which there is no kernel."""

import sys

import pytest
import torch
import torch.nn.functional as TF
from support import Ops, ops_of, python

import fastact
from fastact import functional as F
from fastact._cli import explain
from fastact._cutoffs import CLASSES, CUTOFFS, OVER_CLASSES, Cutoffs
from fastact._registry import ACTIVATIONS


@pytest.mark.parametrize("row", ACTIVATIONS.values(), ids=lambda row: row.name)
def test_torchs_builtin_is_the_reference(row):
    x = torch.linspace(-8, 8, 33)
    for parameters in {row.defaults, tuple(0.5 * p for p in row.defaults)}:
        assert row.builtin(x, *parameters).equal(row.reference(x, *parameters))
    assert row.builtin(x).equal(row.reference(x, *row.defaults))


def test_tiny_tensors_go_to_torchs_builtins():
    x = torch.randn(3)
    with fastact.backend("auto"):
        assert ops_of(F.silu, x) == ["aten::silu"]
        assert ops_of(F.leaky_relu, x) == ["aten::leaky_relu"]
        assert ops_of(F.silu_mul, x, x) == ["aten::silu", "aten::mul.Tensor"]


def modules_of(run):
    """The modules whose functions a call enters."""
    entered = set()

    def note(frame, event, _):
        if event == "call":
            entered.add(frame.f_globals["__name__"])

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return entered


# (Of the others ours is faster from one element on.)
@pytest.mark.parametrize(
    "name",
    [op for op in (*ACTIVATIONS, "softmax", "log_softmax") if CUTOFFS["compiled"][op].least > 3],
)
def test_tiny_tensors_are_not_dispatched(name):
    """Where torch answers whatever the dtype, the public function calls it itself."""
    function, arguments = getattr(F, name.removesuffix("_tanh")), ()
    if name.endswith("softmax"):
        arguments = (0,)
    elif name == "gelu_tanh":
        arguments = ("tanh",)
    x, dispatchers = torch.randn(3), {"fastact._dispatch", "fastact._loss_dispatch"}
    with fastact.backend("auto"):
        assert not dispatchers & modules_of(lambda: function(x, *arguments))
    with fastact.backend("compiled"):
        assert dispatchers & modules_of(lambda: function(x, *arguments))


@pytest.mark.parametrize(
    ("function", "arguments"),
    [(F.silu_mul, ()), (F.relu_mul, ()), (F.gelu_mul, ("tanh",))],
)
def test_tiny_gated_tensors_are_not_dispatched(function, arguments):
    x, y = torch.randn(4), torch.randn(4)
    with fastact.backend("auto"):
        assert "fastact._dispatch" not in modules_of(lambda: function(x, y, *arguments))
        # Which torch would broadcast and promote.
        for other in (y[None], y.double()):
            with pytest.raises(RuntimeError, match="to have the same"):
                function(x, other, *arguments)
    with fastact.backend("compiled"):
        assert "fastact._dispatch" in modules_of(lambda: function(x, y, *arguments))


@pytest.mark.parametrize(
    ("function", "keywords"),
    [(F.glu, {}), (F.swiglu, {}), (F.reglu, {}), (F.geglu, {"approximate": "tanh"})],
)
def test_tiny_halves_are_not_dispatched(function, keywords):
    x = torch.randn(2, 4)
    with fastact.backend("auto"):
        assert "fastact._dispatch" not in modules_of(lambda: function(x, **keywords))
        # Which torch would cut into parts that broadcast, or into one.
        for odd in (x[:, :3], x[:, :1]):
            with pytest.raises(RuntimeError, match=r"\(\): the halved dimension must be even"):
                function(odd, **keywords)
        with pytest.raises(RuntimeError, match=r"\(\): argument 'input' has no dimension"):
            function(x[0, 0], **keywords)
    with fastact.backend("compiled"):
        assert "fastact._dispatch" in modules_of(lambda: function(x, **keywords))


def test_softplus_of_tiny_tensors_has_its_arguments():
    x = torch.linspace(-2, 2, 5)
    with fastact.backend("auto"):
        for beta, threshold in ((1.0, 20.0), (2.0, 20.0), (1.0, 0.5)):
            assert torch.equal(F.softplus(x, beta, threshold), TF.softplus(x, beta, threshold))


def subclass():
    class Mine(torch.Tensor):
        pass

    return torch.randn(100_000).as_subclass(Mine)


FOREIGN = {
    "complex": lambda: torch.randn(100_000, dtype=torch.complex64),
    "integer": lambda: torch.arange(100_000),
    "boolean": lambda: torch.ones(100_000, dtype=torch.bool),
    "sparse": lambda: torch.eye(1000).to_sparse(),
    "quantised": lambda: torch.quantize_per_tensor(torch.randn(100_000), 0.1, 0, torch.qint8),
    "meta": lambda: torch.ones(100_000, device="meta"),
    "subclass": subclass,
}
WORKS = {"complex": "silu", "boolean": "sigmoid"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FOREIGN)
def test_auto_leaves_foreign_tensors_to_torch(kind):
    x = FOREIGN[kind]()
    name = WORKS.get(kind, "relu")
    with fastact.backend("auto"):
        ours, theirs = getattr(F, name)(x), getattr(TF, name)(x)
        assert type(ours) is type(theirs)
        assert ours.dtype == theirs.dtype
        assert ours.layout == theirs.layout
        if kind not in ("meta", "sparse"):
            assert torch.equal(ours, theirs)
    message = "subclass|Mine" if kind == "subclass" else str(x.dtype)
    with pytest.raises(NotImplementedError, match=rf"relu\(\).*'compiled'.*'input'.*({message})"):
        F.relu(x)


@pytest.mark.filterwarnings("ignore")
def test_nested_tensors_go_to_torch():
    x = torch.nested.nested_tensor([torch.randn(3), torch.randn(5)])
    with fastact.backend("auto"):
        assert all(map(torch.equal, F.gelu(x).unbind(), TF.gelu(x).unbind()))


def test_auto_gives_torchs_error_where_torch_fails():
    with fastact.backend("auto"), pytest.raises(NotImplementedError, match="Long"):
        F.gelu(torch.arange(3))


def calls(x):
    return (
        lambda: F.silu(x),
        lambda: F.silu(x * 1, inplace=True),
        lambda: F.silu_mul(x, x.detach()),
        lambda: F.swiglu(torch.cat([x, x])),
    )


def test_cutoffs(monkeypatch):
    """In auto a tensor below the op's cutoff goes to torch, with and without a gradient."""
    for op in ("silu", "silu_mul", "silu_glu"):
        cutoffs = Cutoffs(fp32=(10, 20), bf16=(7, 7), fp16=(15, 15))
        monkeypatch.setitem(CUTOFFS["compiled"], op, cutoffs)
    with fastact.backend("auto"):
        for dtype, limit in ((torch.float32, 10), (torch.float64, 10), (torch.bfloat16, 7)):
            for n, wants in ((limit - 1, "aten"), (limit, "fastact"), (20, "fastact")):
                for run in calls(torch.randn(n, dtype=dtype)):
                    assert ops_of(run)[-1].startswith(wants), (dtype, n)
        for n, wants in ((14, "aten"), (15, "fastact")):
            for run in calls(torch.randn(n, dtype=torch.float16)):
                assert ops_of(run)[-1].startswith(wants), n
        for n, wants in ((19, "aten"), (20, "fastact")):
            for run in calls(torch.randn(n, requires_grad=True)):
                with Ops() as seen:
                    run()
                assert any(s.startswith("fastact") for s in seen.names) == (wants == "fastact"), n


@pytest.mark.parametrize("source", list(CUTOFFS))
def test_cutoffs_are_of_ops(source):
    """No line is forgotten, when an op goes or gets another name."""
    lines = {explain.line(op, classes) for op in explain.OPS for classes in CLASSES}
    assert set(CUTOFFS[source]) <= {*lines, *OVER_CLASSES}


def test_numba_has_cutoffs_of_its_own():
    """Where there is no compiled library, "auto" leaves to torch what Numba is slower at."""
    code = """
import fastact
from fastact._backend import STATE
from fastact._cutoffs import CUTOFFS
print([info.available for info in fastact.backends()], STATE.choice.source,
      STATE.choice.cutoffs is CUTOFFS["LINE"])
"""
    for cpu, line in (({}, "numba"), ({"NUMBA_CPU_NAME": "generic"}, "numba without float16")):
        result = python(
            code.replace("LINE", line),
            FASTACT_LIBRARY="/nowhere/libfastact_cpu.so", FASTACT_BACKEND="auto", **cpu,
        )  # fmt: skip
        assert result.stdout == "[False, True, True] numba True\n", result.stderr
