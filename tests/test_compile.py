"""torch.compile, export, fake tensors, and opcheck on every registered op."""

import losses
import pytest
import support
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

import fastact
from fastact import functional as F
from fastact._library import families

ops = torch.ops.fastact


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def same_with_gradients(function, compiled, *inputs):
    """Equal values and gradients, to the bit: both call the same kernels."""
    results = []
    for f in (function, compiled):
        leaves = [t.clone().requires_grad_() for t in inputs]
        outputs = f(*leaves)
        torch.manual_seed(3)
        grads = torch.autograd.grad(outputs, leaves, [torch.randn_like(y) for y in outputs])
        results.append([*outputs, *grads])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
        assert ours.stride() == theirs.stride()


def graph_nodes(function, *inputs):
    """The names of the ops in the graph that torch.compile makes of a function."""
    names = []

    def backend(graph, _):
        names.extend(str(n.target) for n in graph.graph.nodes if n.op == "call_function")
        return graph.forward

    torch.compile(function, fullgraph=True, backend=backend)(*inputs)
    return names


UNARY = [case for case in support.UNARY if case.parameters == case.row.defaults]


def test_every_unary_op_fullgraph():
    # In one graph: a compilation costs seconds. aot_eager runs everything but code generation.
    def all_of_them(x):
        return [case.function(x * 1.5) for case in UNARY]

    compiled = torch.compile(all_of_them, fullgraph=True, backend="aot_eager")
    same_with_gradients(all_of_them, compiled, torch.randn(5, 7))
    assert len([n for n in graph_nodes(all_of_them, torch.randn(3)) if "fastact" in n]) == len(
        UNARY
    )


def test_every_gated_op_fullgraph():
    def all_of_them(a, b):
        return [c.function(a, b) if c.tensors == 2 else c.function(a) for c in support.GATED]

    compiled = torch.compile(all_of_them, fullgraph=True, backend="aot_eager")
    same_with_gradients(all_of_them, compiled, torch.randn(6, 8), torch.randn(6, 8))


def test_inductor():
    def function(x, w):
        y = F.gelu(x @ w, approximate="tanh")
        return [F.swiglu(F.silu(y.sin())), F.relu(y).t() + 1]

    compiled = torch.compile(function, fullgraph=True)
    for dtype in (torch.float32, torch.bfloat16):
        leaves = [torch.randn(8, 16).to(dtype), torch.randn(16, 12).to(dtype)]
        eager = function(*leaves)
        for a, b in zip(compiled(*leaves), eager, strict=True):
            torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2)
    x = torch.randn(8, 16, requires_grad=True)
    w = torch.randn(16, 12)
    (expected,) = torch.autograd.grad(sum(t.sum() for t in function(x, w)), x)
    (got,) = torch.autograd.grad(sum(t.sum() for t in compiled(x, w)), x)
    torch.testing.assert_close(got, expected)


def test_every_unusual_parameter_fullgraph():
    """Negative slopes and alphas save another tensor, which is decided while tracing."""
    cases = [case for case in support.UNARY if case not in UNARY]

    def all_of_them(x):
        return [case.function(x * 1.5) for case in cases]

    compiled = torch.compile(all_of_them, fullgraph=True, backend="aot_eager")
    same_with_gradients(all_of_them, compiled, torch.randn(5, 7))


def test_every_inplace_variant_fullgraph():
    def all_of_them(x):
        return [case.inplace(t * 1) for case, t in zip(support.INPLACE, x.unbind(), strict=True)]

    compiled = torch.compile(all_of_them, fullgraph=True, backend="aot_eager")
    same_with_gradients(all_of_them, compiled, torch.randn(len(support.INPLACE), 4, 6))


def test_a_mutated_argument():
    def function(x):
        F.silu(x, inplace=True)
        return x + 1

    a = torch.randn(5)
    b = a.clone()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(a), function(b))
    assert torch.equal(a, b)


@pytest.mark.parametrize("inplace", [F.silu, F.leaky_relu, F.elu], ids=lambda f: f.__name__)
def test_inplace(inplace):
    def function(x):
        y = x * 2
        inplace(y, inplace=True)
        return [y + 1]

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    same_with_gradients(function, compiled, torch.randn(9))


def test_dynamic_shapes():
    compiled = torch.compile(
        lambda x: [F.gelu(x), F.geglu(x)], fullgraph=True, dynamic=True, backend="aot_eager"
    )
    for n in (4, 6, 10):
        x = torch.randn(3, n)
        a, b = compiled(x)
        assert torch.equal(a, F.gelu(x))
        assert torch.equal(b, F.geglu(x))


def test_dynamic_shapes_compile_once():
    def function(x):
        return F.gelu(x) + F.tanh(x), F.swiglu(x), F.glu(x, 0), F.silu_mul(x, x)

    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=counter)
    for shape in ((4, 6), (8, 10), (6, 32)):
        x = torch.randn(shape)
        torch.testing.assert_close(compiled(x), function(x))
    assert counter.frame_count == 1
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((4, 6), (8, 10)):
        x = torch.randn(shape, requires_grad=True)
        totals = [sum(t.square().sum() for t in f(x)) for f in (compiled, function)]
        torch.testing.assert_close(*(torch.autograd.grad(t, x)[0] for t in totals))


def test_transforms_inside():
    def function(x):
        return torch.func.vmap(torch.func.grad(lambda t: F.silu(t).sum()))(x)

    x = torch.randn(3, 4)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), function(x))


def test_modules_and_autograd_functions():
    net = torch.nn.Sequential(
        torch.nn.Linear(6, 8), fastact.nn.Mish(), fastact.nn.SwiGLU(), fastact.nn.ReLU(inplace=True)
    )

    def function(x):
        return [net(x), fastact.autograd.GELU.apply(x), fastact.autograd.LeakyReLU.apply(x, 0.2)]

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    same_with_gradients(function, compiled, torch.randn(5, 6))


def test_auto_leaves_no_graph_break():
    x = torch.randn(1000, requires_grad=True)
    with fastact.backend("auto"):
        assert graph_nodes(lambda x: F.gelu(x) + F.silu(x, inplace=False), x)
        # Neither do those that torch answers.
        assert graph_nodes(lambda i: F.relu(i) + F.sigmoid(i), torch.arange(100_000))
        assert graph_nodes(lambda z: F.silu(z), torch.randn(100_000, dtype=torch.complex64))


@pytest.mark.parametrize("strict", [False, True])
def test_export(strict):
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), fastact.nn.SiLU(), fastact.nn.GEGLU("tanh"))
    x = torch.randn(5, 6)
    program = torch.export.export(net, (x,), strict=strict)
    torch.testing.assert_close(program.module()(x), net(x))
    targets = {str(n.target) for n in program.graph.nodes}
    assert "fastact.silu.default" in targets


def test_fake_tensors():
    layouts = [
        torch.randn(2, 4, 6, 8),
        torch.randn(2, 4, 6, 8).to(memory_format=torch.channels_last),
        torch.randn(4, 6).t(),
        torch.randn(4, 12)[:, ::2],
        torch.randn(1, 6).expand(4, 6),
        torch.randn(0, 4),
        torch.randn(1, 1, 6).as_strided((1, 1, 6), (100, 3, 1)),
    ]
    for x in layouts:
        for case in (*UNARY, *(c for c in support.GATED if c.tensors == 1)):
            if case.dim == 0 and x.shape[0] % 2:
                continue
            real = case.function(x)
            with FakeTensorMode() as mode:
                fake = case.function(mode.from_tensor(x))
            assert (fake.shape, fake.stride(), fake.dtype) == (
                real.shape, real.stride(), real.dtype,
            ), (case.label, x.shape, x.stride())  # fmt: skip


def operands(family, dtype=torch.float32):
    """Arguments for the ops of a family."""
    if family.symbol in losses.APPLY:
        return losses.operands(family, dtype)
    n = family.primals
    defaults = family.activation.defaults
    constants = (1, True) if family.packed else defaults
    saved = [torch.randn(3, 4, dtype=dtype) for _ in range(n)]
    grad = torch.randn(3, 2 if family.packed else 4, dtype=dtype)
    v = [torch.randn(3, 4, dtype=dtype) for _ in range(n)]
    for t in (*saved, grad, *v):
        t.requires_grad_()
    found = [
        (family.forward, (*saved, *constants)),
        (family.backward, (grad, *saved, *constants)),
        (family.double_backward, (*v, grad, *saved, *constants)),
    ]
    if family.inplace is not None:
        found.append((family.inplace, (torch.randn(3, 4), *defaults)))
    return found


@pytest.mark.parametrize("name", sorted(families("fastact")))
def test_opcheck(name):
    family = families("fastact")[name]
    for overload, arguments in operands(family):
        opcheck(overload, arguments)


def test_opcheck_covers_every_op():
    covered = set()
    for family in families("fastact").values():
        covered |= {overload.name() for overload, _ in operands(family)}
    registered = torch._C._dispatch_get_all_op_names()
    assert {n.removesuffix(".default") for n in covered} == {
        n for n in registered if n.startswith("fastact::")
    }


def test_direct_calls_are_differentiable():
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ops.gelu, (x,))
    assert torch.autograd.gradgradcheck(ops.gelu, (x,))
    with pytest.raises(RuntimeError, match="does not record gradients"):
        ops.silu_(x.clone())


def test_direct_calls_check_what_would_crash():
    with pytest.raises(RuntimeError, match="one shape"):
        ops.silu_mul(torch.randn(3), torch.randn(4))
    with pytest.raises(RuntimeError, match="one dtype"):
        ops.silu_backward(torch.randn(3), torch.randn(3).double())
    with pytest.raises(RuntimeError, match="even size"):
        ops.silu_glu(torch.randn(3), 0, True)
    with pytest.raises(RuntimeError, match="expected float32"):
        ops.silu(torch.ones(3, dtype=torch.int32))
