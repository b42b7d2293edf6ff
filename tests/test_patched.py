"""fastact.patched(): torch.nn.functional with our functions, and pristine afterwards."""

import inspect
import threading

import pytest
import torch
import torch.nn.functional as TF
import zoo
from support import Ops
from torch import nn

import fastact
from fastact import _patch


def contents():
    # A warning that is raised there leaves a note of it.
    return {k: v for k, v in vars(TF).items() if k != "__warningregistry__"}


ORIGINALS = contents()
LOSSES = ("cross_entropy", "nll_loss", "binary_cross_entropy_with_logits")


@pytest.fixture(autouse=True)
def pristine():
    yield
    assert contents() == ORIGINALS


def test_names_are_those_that_both_have():
    both = {n for n in fastact.functional.__all__ if hasattr(TF, n)}
    assert set(_patch.NAMES) == both
    assert {"gelu", "silu", "relu", "leaky_relu", "elu", "softmax", *LOSSES} <= both


@pytest.mark.parametrize("name", _patch.NAMES)
def test_signatures(name):
    try:
        theirs = inspect.signature(ORIGINALS[name])
    except ValueError:  # a builtin of torch's, which shows its own in its docstring
        line = ORIGINALS[name].__doc__.split("->")[0]
        for parameter in inspect.signature(getattr(fastact.functional, name)).parameters:
            assert parameter in line
        return
    ours = inspect.signature(getattr(fastact.functional, name))
    shared = list(ours.parameters.values())[: len(theirs.parameters)]
    for mine, other in zip(shared, theirs.parameters.values(), strict=True):
        assert (mine.name, mine.default, mine.kind) == (other.name, other.default, other.kind)
    assert all(p.kind is p.KEYWORD_ONLY for p in list(ours.parameters.values())[len(shared) :])


def arguments(name):
    x = torch.randn(6, 8, requires_grad=True)
    if name == "binary_cross_entropy_with_logits":
        return x, torch.rand(6, 8)
    if name in LOSSES:
        return x, torch.randint(8, (6,))
    return (x, 1) if name in ("softmax", "log_softmax") else (x,)


@pytest.mark.parametrize("backend", ["compiled", "auto", "torch"])
@pytest.mark.parametrize("name", _patch.NAMES)
def test_every_name(name, backend):
    """Ours answers inside, and what it leaves to torch comes to an end there."""
    args = arguments(name)
    want = ORIGINALS[name](*args)
    with fastact.backend(backend), fastact.patched():
        assert getattr(TF, name) is getattr(fastact.functional, name)
        with Ops() as seen:
            got = getattr(TF, name)(*args)
        torch.testing.assert_close(got, want)
        got.sum().backward()
        # Too small for "auto", which nothing is for GELU.
        ours = backend == "compiled" or (backend == "auto" and name == "gelu")
        assert (seen.ours.total() > 0) == ours
    assert getattr(TF, name) is ORIGINALS[name]


def test_what_has_no_kernel():
    """Every way from our functions back to torch's."""
    x = torch.randn(6, 8)
    target = torch.randint(8, (6,))

    class Sub(torch.Tensor):
        pass

    calls = {
        **{n: (lambda f, n=n: f(*arguments(n))) for n in _patch.NAMES},
        "softmax of no dim": lambda f: TF.softmax(x, None, 3),
    }
    with fastact.backend("auto"), fastact.patched():
        for name, call in calls.items():
            if name in _patch.NAMES:
                call(getattr(TF, name))
        with pytest.warns(UserWarning, match="Implicit dimension choice"):
            TF.softmax(x)
        assert isinstance(TF.gelu(x.as_subclass(Sub), approximate="tanh"), Sub)
        assert isinstance(TF.silu(x.as_subclass(Sub)), Sub)
        assert isinstance(TF.cross_entropy(x.as_subclass(Sub), target), Sub)
        with torch.device("cpu"):
            TF.relu(x)
        assert fastact.functional.squared_relu(x).shape == x.shape
        TF.cross_entropy(x, target, z_loss=0.1)
        torch.func.vmap(TF.gelu)(x)
    assert TF.gelu(x.to(torch.float64).to("meta")).is_meta
    with fastact.patched(), fastact.backend("auto"):
        assert TF.gelu(x.to("meta")).is_meta
        assert TF.glu(x.to("meta")).is_meta
        assert TF.log_softmax(x.to("meta"), -1).is_meta
        with pytest.raises(RuntimeError):
            TF.relu(torch.ones(3, dtype=torch.complex64))


def test_modules_and_other_code_of_torch():
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation=lambda x: TF.gelu(x), dropout=0.0)
    x = torch.randn(3, 2, 8)
    want = layer(x)
    with fastact.patched(), Ops() as seen:
        torch.testing.assert_close(layer(x), want)
        nn.GELU("tanh")(x)
        nn.LeakyReLU(0.1)(x)
        nn.CrossEntropyLoss()(x[0], torch.tensor([1, 2]))
    assert seen.ours == {"gelu": 1, "gelu_tanh": 1, "leaky_relu": 1, "cross_entropy": 1}


def test_the_loss_inside_bert():
    (bert,) = (m for m in zoo.MODELS if m.name == "BERT")
    net = bert.build()
    want = bert.loss(net)
    with fastact.patched(), Ops() as seen:
        torch.testing.assert_close(bert.loss(net), want)
    assert seen.ours["cross_entropy"] == 1


def test_exceptions_nesting_and_repetition():
    block = fastact.patched()

    def nested():
        with block, fastact.patched():
            with block:
                assert TF.gelu is fastact.functional.gelu
            assert TF.gelu is fastact.functional.gelu
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            nested()
        assert TF.gelu is ORIGINALS["gelu"]


def test_a_decorator():
    @fastact.patched()
    def inside(n):
        return TF.silu is fastact.functional.silu and (n == 0 or inside(n - 1))

    assert inside(3)
    assert TF.silu is ORIGINALS["silu"]


@pytest.mark.parametrize("block", [fastact.patched, lambda: fastact.backend("torch")])
def test_what_runs_later_is_not_decorated(block):
    """Nothing would hold any more when it does."""

    def generator():
        yield

    async def coroutine():
        pass

    async def both():
        yield

    for function in (generator, coroutine, both):
        with pytest.raises(TypeError, match=r"cannot decorate .*, which runs after it"):
            block()(function)


def test_blocks_of_several_threads_overlap():
    inside, leave = threading.Event(), threading.Event()
    seen = []

    def work():
        with fastact.patched():
            inside.set()
            leave.wait(10)
            seen.append(TF.gelu)

    thread = threading.Thread(target=work)
    with fastact.patched():
        thread.start()
        inside.wait(10)
    assert TF.gelu is fastact.functional.gelu  # the other block goes on
    leave.set()
    thread.join()
    assert seen == [fastact.functional.gelu]


def test_others_patches_stay(monkeypatch):
    def mine(x):
        return x

    with monkeypatch.context() as m:
        m.setattr(TF, "gelu", mine)
        with fastact.patched():
            assert TF.gelu is fastact.functional.gelu
        assert TF.gelu is mine
    with monkeypatch.context() as m:
        with fastact.patched():
            m.setattr(TF, "silu", mine)
        assert TF.silu is mine
        m.setattr(TF, "silu", ORIGINALS["silu"])
    TF.silu = ORIGINALS["silu"]


def test_under_compile():
    def f(x):
        return TF.gelu(x, approximate="tanh") + TF.leaky_relu(x, 0.2)

    x = torch.randn(4, 8)
    want = f(x)
    torch._dynamo.reset()
    with fastact.patched():
        got = torch.compile(f, backend="aot_eager", fullgraph=True)(x)
    torch.testing.assert_close(got, want)
