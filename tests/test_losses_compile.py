"""torch.compile, export and autocast of softmax and of the losses."""

import losses
import pytest
import torch
import torch.nn.functional as TF
from losses import describe, make, probabilities, targets, weights
from torch._subclasses.fake_tensor import FakeTensorMode

import fastact
from fastact import functional as F

X = make(6, 9)
W = weights(9)
T, Q = targets(X), probabilities(X)
CALLS = {
    "softmax": lambda x: F.softmax(x, 1),
    "log_softmax": lambda x: F.log_softmax(x, 0, dtype=torch.float64),
    "nll_loss": lambda x: F.nll_loss(x, T, W),
    "cross_entropy": lambda x: F.cross_entropy(x, T),
    "cross_entropy, none": lambda x: F.cross_entropy(x, T, W, reduction="none"),
    "cross_entropy, all": lambda x: F.cross_entropy(
        x, T, label_smoothing=0.1, z_loss=0.1, softcap=5.0, normalizer=3.0,
        return_lse=True, return_entropy=True),
    "probabilities": lambda x: F.cross_entropy(x, Q, return_entropy=True),
    "bce": lambda x: F.binary_cross_entropy_with_logits(x, Q, W, pos_weight=W),
    "modules": lambda x: fastact.nn.CrossEntropyLoss(label_smoothing=0.1)(x, T)
    + fastact.nn.NLLLoss()(fastact.nn.LogSoftmax(1)(x), T),
    "Functions": lambda x: fastact.autograd.CrossEntropy.apply(
        fastact.autograd.Softmax.apply(x, 1), T, None, 1, -100, 0.1, 0.0, 0.0, False, False,
        False)[0],
}  # fmt: skip


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_fullgraph(name, dynamic):
    """Equal outputs and gradients, to the bit."""
    f = CALLS[name]
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    results = []
    for g in (f, compiled):
        leaf = X.clone().requires_grad_()
        outputs = g(leaf)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        total = sum((t * losses.random_like(t, i)).sum() for i, t in enumerate(outputs))
        results.append((*outputs, *torch.autograd.grad(total, leaf)))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("name", ["softmax", "cross_entropy", "probabilities", "bce"])
def test_fullgraph_of_vmap(name, gradient):
    calls = {
        "softmax": lambda x, _: F.softmax(x, 0).square().sum(),
        "cross_entropy": lambda x, _: F.cross_entropy(x, T[0]),
        "probabilities": lambda x, q: F.cross_entropy(x, q),
        "bce": lambda x, q: F.binary_cross_entropy_with_logits(x, q),
    }
    f = torch.func.grad(calls[name]) if gradient else calls[name]
    run = lambda x, q: torch.func.vmap(f)(x, q)  # noqa: E731
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(X, Q), run(X, Q))


def test_normalizer_as_an_argument():
    f = lambda x, n: F.cross_entropy(x, T, normalizer=n)  # noqa: E731
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    for n in (3, 4.5, torch.tensor(2.0), torch.tensor(7.0)):
        torch.testing.assert_close(compiled(X, n), f(X, n))


def test_ignore_index_as_an_argument():
    """The second value makes it a symbol."""
    target = T.clamp(min=0)
    for name in ("cross_entropy", "nll_loss"):
        ours, theirs = getattr(F, name), getattr(TF, name)
        compiled = torch.compile(
            lambda x, i, f=ours: f(x, target, ignore_index=i), fullgraph=True, backend="aot_eager"
        )
        for i in (2, 3, 5):
            torch.testing.assert_close(compiled(X, i), theirs(X, target, ignore_index=i))


def test_dynamic_shapes_compile_once():
    counter = torch._dynamo.testing.CompileCounter()
    f = lambda x, t: F.cross_entropy(F.log_softmax(x, 1), t, z_loss=0.1)  # noqa: E731
    compiled = torch.compile(f, fullgraph=True, dynamic=True, backend=counter)
    for shape in ((4, 6), (8, 10), (6, 70)):
        x = make(*shape)
        torch.testing.assert_close(compiled(x, targets(x)), f(x, targets(x)))
    assert counter.frame_count == 1


def test_inductor():
    f = lambda x, w: F.cross_entropy(x @ w, T, label_smoothing=0.1)  # noqa: E731
    compiled = torch.compile(f, fullgraph=True)
    x, w = make(6, 4).requires_grad_(), make(4, 9).requires_grad_()
    a, b = (g(x, w) for g in (f, compiled))
    torch.testing.assert_close(a, b)
    for p, q in zip(*(torch.autograd.grad(t, (x, w)) for t in (a, b)), strict=True):
        torch.testing.assert_close(p, q)


def test_one_op_in_the_graph():
    """What is compiled is the fused op, not its parts."""
    names = []

    def backend(graph, _):
        names.extend(str(n.target) for n in graph.graph.nodes if n.op == "call_function")
        return graph.forward

    torch.compile(lambda x: F.cross_entropy(x, torch.zeros(6, dtype=torch.int64)), fullgraph=True,
                  backend=backend)(X)  # fmt: skip
    assert any("fastact.cross_entropy" in n for n in names)
    assert not [n for n in names if "softmax" in n or "nll" in n]


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict):
    class Net(torch.nn.Module):
        def forward(self, x, t):
            return F.cross_entropy(x, t, softcap=5.0), F.softmax(x, 1)

    t = targets(X)
    program = torch.export.export(Net(), (X, t), strict=strict)
    torch.testing.assert_close(program.module()(X, t), Net()(X, t))


@pytest.mark.parametrize("name", losses.layouts())
def test_fake_tensors(name):
    """Shapes, strides and dtypes of outputs and gradient as the kernels'."""
    for dtype in (torch.float32, torch.bfloat16):
        x = losses.layouts(dtype)[name]
        t = targets(x)

        def run(x, t):
            leaf = x.detach().requires_grad_()
            outputs = F.cross_entropy(leaf, t, reduction="none", return_lse=True,
                                      return_entropy=True)  # fmt: skip
            (g,) = torch.autograd.grad([o.sum() for o in outputs], leaf, create_graph=True)
            (gg,) = torch.autograd.grad(g.sum(), leaf)
            return [(o.shape, o.stride(), o.dtype) for o in (*outputs, g, gg, F.softmax(x, 0),
                                                            F.log_softmax(x, -1))]  # fmt: skip

        real = run(x, t)
        with FakeTensorMode() as mode:
            assert run(mode.from_tensor(x), mode.from_tensor(t)) == real


# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", losses.HALF, ids=describe)
@pytest.mark.parametrize("source", [torch.float32, *losses.HALF], ids=describe)
def test_autocast_as_torch(half, source):
    """The losses come in float32, whatever the logits; what is not on torch's list is as it was."""
    x, w = X.to(source), W.to(source)
    y, t = probabilities(X), targets(X)
    pairs = [
        (F.cross_entropy(x, t), TF.cross_entropy(x, t)),
        (F.cross_entropy(x, t, w, reduction="none"), TF.cross_entropy(x, t, w, reduction="none")),
    ]
    with torch.autocast("cpu", dtype=half):
        for name, args, options in (
            ("cross_entropy", (x, t), {}), ("cross_entropy", (x, t, w), {"reduction": "none"}),
            ("cross_entropy", (x, y.to(source)), {}),
            ("cross_entropy", (x, t), {"label_smoothing": 0.1}),
            ("nll_loss", (x, t), {}), ("nll_loss", (x, t, w), {"reduction": "sum"}),
            ("binary_cross_entropy_with_logits", (x, y.to(source)), {}),
            ("softmax", (x, 1), {}), ("log_softmax", (x, 1), {}),
        ):  # fmt: skip
            results = []
            for m in (F, TF):
                leaf = args[0].detach().requires_grad_()
                out = getattr(m, name)(leaf, *args[1:], **options)
                (g,) = torch.autograd.grad(out.float().square().sum(), leaf)
                results.append((out.detach(), g))
            (a, p), (b, q) = results
            assert a.dtype == b.dtype, (name, options)
            assert p.dtype == q.dtype
            if a.dtype == torch.float32:
                torch.testing.assert_close(a, b)
                torch.testing.assert_close(p, q)
            else:
                torch.testing.assert_close(a, b, rtol=2 * losses.eps(a), atol=losses.eps(a))
        loss, lse = F.cross_entropy(x, t, normalizer=3.0, return_lse=True)
        assert loss.dtype == lse.dtype == torch.float32
        if source != torch.float32:  # not rounded on the way
            assert loss != loss.to(source).float()
    assert pairs[0][0].dtype == pairs[0][1].dtype
