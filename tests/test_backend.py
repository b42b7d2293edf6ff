"""Who answers a call: forcing a backend, the environment, and what "auto" leaves to torch."""

import sys
import threading

import pytest
import support
import torch
import torch.nn.functional as TF
from support import ISAS, python
from torch.utils._python_dispatch import TorchDispatchMode

import fastact
from fastact import _backend
from fastact import functional as F
from fastact._cli import explain
from fastact._cutoffs import CLASSES, CUTOFFS, OVER_CLASSES, Cutoffs
from fastact._registry import ACTIVATIONS


class Ops(TorchDispatchMode):
    """Collects the names of the ops that run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def ops_of(function, *args, **kwargs):
    with Ops() as seen, torch.no_grad():
        function(*args, **kwargs)
    return seen.names


def current():
    return _backend.STATE.choice.name


def test_context_manager_nested_and_restored():
    assert current() == "compiled"
    with fastact.backend("torch"):
        assert current() == "torch"
        with fastact.backend("auto"):
            assert current() == "auto"
            with pytest.raises(ZeroDivisionError), fastact.backend("compiled"):
                raise ZeroDivisionError
            assert current() == "auto"
        assert current() == "torch"
    assert current() == "compiled"


@pytest.mark.parametrize("row", ACTIVATIONS.values(), ids=lambda row: row.name)
def test_torchs_builtin_is_the_reference(row):
    x = torch.linspace(-8, 8, 33)
    for parameters in {row.defaults, tuple(0.5 * p for p in row.defaults)}:
        assert row.builtin(x, *parameters).equal(row.reference(x, *parameters))
    assert row.builtin(x).equal(row.reference(x, *row.defaults))


def assert_halves_are_torchs():
    x = torch.randn(2, 6)
    first, second = x.chunk(2, -1)
    for function, gate in ((F.swiglu, TF.silu), (F.reglu, TF.relu)):
        assert function(x).equal(gate(first) * second)
    assert F.glu(x).equal(TF.glu(x))


def test_tiny_tensors_go_to_torchs_builtins():
    x = torch.randn(3)
    with fastact.backend("auto"):
        assert ops_of(F.silu, x) == ["aten::silu"]
        assert ops_of(F.leaky_relu, x) == ["aten::leaky_relu"]
        assert ops_of(F.silu_mul, x, x) == ["aten::silu", "aten::mul.Tensor"]
        assert_halves_are_torchs()


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


def test_tiny_glu_is_not_dispatched():
    x = torch.randn(4)
    with fastact.backend("auto"):
        assert "fastact._dispatch" not in modules_of(lambda: F.glu(x))
        with pytest.raises(RuntimeError, match=r"glu\(\): the halved dimension must be even"):
            F.glu(x[:3])
    with fastact.backend("compiled"):
        assert "fastact._dispatch" in modules_of(lambda: F.glu(x))


def test_softplus_of_tiny_tensors_has_its_arguments():
    x = torch.linspace(-2, 2, 5)
    with fastact.backend("auto"):
        for beta, threshold in ((1.0, 20.0), (2.0, 20.0), (1.0, 0.5)):
            assert torch.equal(F.softplus(x, beta, threshold), TF.softplus(x, beta, threshold))


def test_reentrant_and_reused():
    chosen = fastact.backend("torch")
    for _ in range(2):
        with chosen, chosen:
            assert current() == "torch"
        assert current() == "compiled"


def test_blocks_of_threads_that_overlap():
    """The last one that is still open decides; nothing is left when all have ended."""
    steps = [threading.Event() for _ in range(3)]
    seen = []

    def first():
        with fastact.backend("compiled"):
            steps[0].set()
            steps[1].wait(30)
        seen.append(current())
        steps[2].set()

    before = current()
    thread = threading.Thread(target=first)
    thread.start()
    steps[0].wait(30)
    with fastact.backend("torch"):
        steps[1].set()
        steps[2].wait(30)
        seen.append(current())
    thread.join()
    assert seen == ["torch", "torch"]
    assert current() == before


def test_decorator():
    @fastact.backend("torch")
    def decorated(n):
        """Documentation."""
        assert current() == "torch"
        return decorated(n - 1) if n else "done"

    assert decorated(2) == "done"
    assert decorated.__doc__ == "Documentation."
    assert current() == "compiled"


def test_making_one_changes_nothing():
    fastact.backend("torch")
    assert current() == "compiled"


@pytest.mark.parametrize("name", ["cuda", "", "Compiled", None, 3])
def test_unknown_name(name):
    with pytest.raises(ValueError, match=f"auto, compiled, numba, torch; got {name!r}"):
        fastact.backend(name)
    assert current() == "compiled"


def test_backends_list():
    infos = fastact.backends()
    assert [info.name for info in infos] == ["compiled", "numba", "torch"]
    assert all(info.detail for info in infos)
    assert infos[0].available
    assert all(isa in infos[0].detail for isa in ISAS)
    assert infos[2].available
    assert torch.__version__ in infos[2].detail


def test_missing_backend_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(_backend.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"'numba' is not available.*pip install numba"):
        fastact.backend("numba")
    monkeypatch.setattr(_backend._library.cpu(), "error", "no compiler was found; see README.md")
    with pytest.raises(RuntimeError, match="'compiled' is not available: no compiler was found"):
        fastact.backend("compiled")
    assert not fastact.backends()[0].available
    # auto is still there, and is torch.
    with fastact.backend("auto"):
        assert ops_of(F.gelu, torch.randn(100_000)) == ["aten::gelu"]


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"PYTHONPATH": "{folder}"}, "numba cannot be imported: it needs an older NumPy"),
        ({"NUMBA_DISABLE_JIT": "1"}, "NUMBA_DISABLE_JIT is set"),
    ],
)
def test_a_numba_that_does_not_work(environment, why, tmp_path):
    """Without the compiled library, torch answers in place of it."""
    (tmp_path / "numba.py").write_text("raise ImportError('it needs an older NumPy')")
    code = f"""
import fastact, torch
from fastact._backend import STATE
assert fastact.backends()[1].detail == {why!r}, fastact.backends()[1]
assert STATE.choice.source == "torch"
fastact.functional.gelu(torch.randn(2**20), approximate="tanh")
try:
    fastact.backend("numba")
except RuntimeError as error:
    assert {why!r} in str(error)
else:
    raise AssertionError
"""
    settings = {name: value.format(folder=tmp_path) for name, value in environment.items()}
    result = python(code, FASTACT_LIBRARY="/nowhere/libfastact_cpu.so", **settings)
    assert result.returncode == 0, result.stderr


def test_forced_backends_answer():
    x = torch.randn(3)
    assert ops_of(F.gelu, x) == ["fastact::gelu"]
    with fastact.backend("torch"):
        assert ops_of(F.gelu, x) == ["aten::gelu"]
        assert ops_of(F.silu_mul, x, x) == ["aten::silu", "aten::mul.Tensor"]
        assert_halves_are_torchs()
        assert ops_of(F.swiglu, torch.randn(4))[-2:] == ["aten::silu", "aten::mul.Tensor"]
        assert ops_of(F.glu, torch.randn(4)) == ["aten::glu"]
        assert ops_of(F.relu, x, inplace=True) == ["aten::relu_"]


@pytest.mark.parametrize("name", support.BACKENDS)
def test_no_cutoff_when_forced(name):
    namespace = "fastact" if name == "compiled" else "fastact_numba"
    with fastact.backend(name):
        for case in support.CASES:
            if case.dim is None:
                x = [torch.randn(2, 2)] * case.tensors
                assert ops_of(case.function, *x) == [f"{namespace}::{case.family}"]


def test_every_torch_fallback_is_torchs_result():
    with fastact.backend("torch"):
        for case in support.CASES:
            x = [torch.randn(4, 4, requires_grad=True) for _ in range(case.tensors)]
            y, z = case.function(*x), case.torch(*x)
            torch.testing.assert_close(y, z, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(*(torch.autograd.grad(t.sum(), x) for t in (y, z)))


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


def test_parameters_are_served():
    parameter = torch.nn.Parameter(torch.randn(5))
    assert ops_of(F.gelu, parameter) == ["fastact::gelu"]


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
      STATE.choice.cutoffs is CUTOFFS["numba"])
"""
    result = python(code, FASTACT_LIBRARY="/nowhere/libfastact_cpu.so", FASTACT_BACKEND="auto")
    assert result.stdout == "[False, True, True] numba True\n", result.stderr


def test_choice_is_the_whole_processs():
    seen = []
    with fastact.backend("torch"):
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join()
    assert seen == ["torch"]


def test_environment_with_a_missing_library():
    """Without compiled kernels everything still works, and says why they are not there."""
    code = """
import fastact, torch
info = fastact.backends()[0]
assert not info.available and info.detail, info
y = fastact.functional.gelu(torch.randn(100_000))
try:
    fastact.backend("compiled")
except RuntimeError as error:
    print(error)
"""
    result = python(code, FASTACT_LIBRARY="/nowhere/libfastact_cpu.so", FASTACT_BACKEND="auto")
    assert result.returncode == 0, result.stderr
    assert "'compiled' is not available" in result.stdout


def test_use_isa():
    cpu = support.cpu()
    best = cpu.isa
    for isa in ISAS:
        with support.use_isa(isa):
            assert cpu.isa == isa
            assert fastact.backends()[0].detail.startswith(f"CPU, {isa}")
    with pytest.raises(RuntimeError, match="v9"):
        cpu.use_isa("v9")
    assert cpu.isa == best
