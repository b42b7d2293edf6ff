"""Forcing a backend: by name, for a block, by the environment."""

import threading

import pytest
import support
import torch
import torch.nn.functional as TF
from support import ISAS, Ops, ops_of, python

import fastact
from fastact import _backend, _dispatch, _loss_dispatch
from fastact import functional as F


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


@pytest.mark.parametrize(
    ("module", "last_question"), [(_dispatch, "is_small"), (_loss_dispatch, "loss_why_torch")]
)
def test_another_thread_chooses_torch_meanwhile(module, last_question, monkeypatch):
    """After it was found that a kernel serves a call, and before it is called."""
    ask = getattr(module, last_question)

    def ask_first(*args):
        found = ask(*args)
        _backend.STATE.use(_backend.Choice("torch", {}))
        return found

    monkeypatch.setattr(module, last_question, ask_first)
    x = torch.randn(4, 6, requires_grad=True)
    target = torch.tensor([1, 0, 4, 2])
    calls = {
        _dispatch: [
            lambda: F.gelu(x),
            lambda: F.relu(x * 1, inplace=True),
            lambda: F.silu_mul(x, x),
            lambda: F.swiglu(x),
        ],
        _loss_dispatch: [
            lambda: F.softmax(x, 1),
            lambda: F.nll_loss(x, target),
            lambda: F.binary_cross_entropy_with_logits(x, x.detach()),
            lambda: F.cross_entropy(x, target),
            lambda: F.cross_entropy(x * 1, target, inplace_backward=True),
        ],
    }
    for call in calls[module]:
        with fastact.backend("compiled"), Ops() as seen:
            call()
        assert seen.ours.total() == 1


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
        assert ops_of(F.swiglu, torch.randn(4))[-2:] == ["aten::silu", "aten::mul.Tensor"]
        assert ops_of(F.glu, torch.randn(4)) == ["aten::glu"]
        assert ops_of(F.relu, x, inplace=True) == ["aten::relu_"]


@pytest.mark.parametrize("name", ["auto", "torch"])
def test_torch_answers_for_halves(name):
    x = torch.randn(2, 6)
    first, second = x.chunk(2, -1)
    with fastact.backend(name):
        for function, gate in ((F.swiglu, TF.silu), (F.reglu, TF.relu)):
            assert function(x).equal(gate(first) * second)
        assert F.glu(x).equal(TF.glu(x))


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


def test_parameters_are_served():
    parameter = torch.nn.Parameter(torch.randn(5))
    assert ops_of(F.gelu, parameter) == ["fastact::gelu"]


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
