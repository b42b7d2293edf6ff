"""torch.func: vmap, grad, jvp, vjp, hessian, mixes of forward and reverse, per-sample gradients."""

import itertools

import losses
import pytest
import support
import torch
from support import CASES, GATED, UNARY, labels
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import fastact
from fastact import functional as F

CLOSE = torch.testing.assert_close


def tensors(case, *shape):
    random = support.generator(6)
    return tuple(
        torch.randn(shape, generator=random, dtype=torch.float64) * 2 for _ in range(case.tensors)
    )


def exact(case):
    """The case over torch's own ops, with every derivative."""
    return lambda *t: case.exact(*case.split(t))


@pytest.mark.parametrize("case", CASES, ids=labels)
def test_vmap(case):
    x = tensors(case, 4, 6, 8)
    for in_dim, out_dim in itertools.product((0, 1, 2, -1), (0, 1, -1)):
        if x[0].movedim(in_dim, 0).shape[1 if case.dim == 0 else -1] % 2:
            continue
        CLOSE(
            vmap(case.function, in_dim, out_dim)(*x), vmap(exact(case), in_dim, out_dim)(*x),
            msg=lambda m, d=(in_dim, out_dim): f"{d}: {m}",
        )  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=labels)
def test_vmap_nested(case):
    x = tensors(case, 4, 6, 8, 2)
    for dims in itertools.product((0, 1, -1), repeat=2):
        ours, theirs = (vmap(vmap(f, dims[1]), dims[0])(*x) for f in (case.function, exact(case)))
        CLOSE(ours, theirs, msg=lambda m, d=dims: f"{d}: {m}")
    CLOSE(vmap(case.function, chunk_size=3)(*x), exact(case)(*x) if case.dim != 0 else
          vmap(exact(case))(*x))  # fmt: skip


@pytest.mark.parametrize("case", [c for c in GATED if c.tensors == 2], ids=labels)
def test_vmap_with_an_operand_that_is_not_batched(case):
    gate, up = tensors(case, 4, 6)
    for a, b, dims in (
        (gate, up[0], (0, None)), (gate[0], up, (None, 0)), (gate, up.t(), (0, 1)),
        (gate.t(), up[0], (-1, None)),
    ):  # fmt: skip
        CLOSE(vmap(case.function, dims)(a, b), vmap(exact(case), dims)(a, b))
        ours, theirs = (
            vmap(grad(lambda a, b, f=f: f(a, b).sum(), (0, 1)), dims)(a, b)
            for f in (case.function, exact(case))
        )
        CLOSE(ours, theirs)


@pytest.mark.parametrize("case", CASES, ids=labels)
def test_jvp_and_vjp(case):
    x, v = tensors(case, 4, 6), tensors(case, 4, 6)[::-1]
    CLOSE(jvp(case.function, x, v), jvp(exact(case), x, v))
    (y, pull), (z, pull_exact) = vjp(case.function, *x), vjp(exact(case), *x)
    CLOSE(y, z)
    CLOSE(pull(torch.ones_like(y)), pull_exact(torch.ones_like(z)))
    # Of the backward pass, and batched.
    for f in (vmap, lambda g: g):
        ours, theirs = (
            f(lambda *t, h=h: jvp(grad(lambda *s: h(*s).sin().sum()), t, t))(
                *tensors(case, 2, 4, 6)
            )
            for h in (case.function, exact(case))
        )
        CLOSE(ours, theirs)


@pytest.mark.parametrize("case", CASES, ids=labels)
def test_jvp_of_one_operand(case):
    """The other operand has no tangent."""
    x = tensors(case, 4, 6)
    for i in range(case.tensors):

        def partial(f, i=i):
            return lambda t: f(*x[:i], t, *x[i + 1 :])

        CLOSE(*(jvp(partial(f), (x[i],), (x[i].cos(),)) for f in (case.function, exact(case))))
        CLOSE(*(jacfwd(jacrev(partial(f)))(x[i]) for f in (case.function, exact(case))))


@pytest.mark.parametrize("case", CASES, ids=labels)
def test_hessian(case):
    x = tensors(case, 2, 2)
    every = tuple(range(case.tensors))
    ours, theirs = (
        hessian(lambda *t, f=f: f(*t).square().sum(), every)(*x)
        for f in (case.function, exact(case))
    )
    CLOSE(ours, theirs)


def forward(f):
    return lambda x: jvp(f, (x,), (torch.ones_like(x),))[1]


@pytest.mark.parametrize("case", UNARY, ids=labels)
def test_mixes_of_forward_and_reverse(case):
    """Derivatives to the third order, each step forward or reverse."""
    x = torch.tensor(0.7, dtype=torch.float64)
    for sign in (1, -1):
        for order in (1, 2, 3):
            exactly = case.exact
            for _ in range(order):
                exactly = grad(exactly)
            want = exactly(sign * x)
            for steps in itertools.product((forward, grad), repeat=order):
                f = case.function
                for step in steps:
                    f = step(f)
                names = " of ".join(s.__name__ for s in steps[::-1])
                CLOSE(f(sign * x), want, msg=lambda m, n=names: f"{n}: {m}")


@pytest.mark.parametrize("name", ["silu", "tanh"])
def test_mixes_of_the_fourth_order(name):
    x = torch.tensor(0.7, dtype=torch.float64)
    want = grad(grad(grad(grad(getattr(torch, name, torch.nn.functional.silu)))))(x)
    for steps in itertools.product((forward, grad), repeat=4):
        f = support.public(name)
        for step in steps:
            f = step(f)
        CLOSE(f(x), want)


@pytest.mark.parametrize("case", [c for c in CASES if c.family in
                         ("silu", "tanh", "elu", "silu_mul", "gelu_glu")], ids=labels)  # fmt: skip
def test_mixes_of_jacobians(case):
    x = tensors(case, 2, 2)

    def total(f):
        return lambda t: f(t, *x[1:]).pow(2).sum()

    want = jacrev(jacrev(jacrev(total(exact(case)))))(x[0])
    for steps in itertools.product((jacfwd, jacrev), repeat=3):
        f = total(case.function)
        for step in steps:
            f = step(f)
        CLOSE(f(x[0]), want, msg=lambda m, s=steps: f"{[t.__name__ for t in s]}: {m}")


def families():
    return [(name, getattr(fastact.autograd, name)) for name in fastact.autograd.__all__
            if "Backward" not in name]  # fmt: skip


def test_functions_under_transforms():
    """fastact.autograd.<Symbol>.apply, with a case for each."""
    functions = dict(families())
    seen = set()
    for case in CASES:
        made = fastact._autograd.functions("fastact")[case.family]
        symbol = made.forward.__name__
        seen.add(symbol)
        assert functions[symbol] is made.forward
        x = tensors(case, 4, 6)

        def f(*t, case=case, symbol=symbol):
            return functions[symbol].apply(*t, *case.constants(t[0]))

        CLOSE(f(*x), case.function(*x), rtol=0, atol=0)
        leaves = [t.clone().requires_grad_() for t in x]
        CLOSE(
            torch.autograd.grad(f(*leaves).sum(), leaves),
            torch.autograd.grad(case.function(*leaves).sum(), leaves),
        )
        CLOSE(
            grad(lambda *t, f=f: f(*t).sum())(*x), torch.autograd.grad(f(*leaves).sum(), leaves)[0]
        )
        CLOSE(jvp(f, x, x), jvp(exact(case), x, x))
        if case.dim is None:
            CLOSE(vmap(f)(*x), f(*x))
        CLOSE(jacfwd(jacrev(f))(*x), jacfwd(jacrev(exact(case)))(*x))
    for symbol, arguments in losses.APPLY.items():
        seen.add(symbol)
        x = torch.randn(3, 4, dtype=torch.float64)
        assert torch.autograd.gradcheck(
            lambda t, s=symbol, a=arguments: [
                y for y in fastact._family.as_tuple(functions[s].apply(t, *a)) if y.requires_grad
            ],
            (x.log_softmax(1).requires_grad_(),),
        )  # fmt: skip
        f = lambda t, s=symbol, a=arguments: (  # noqa: E731
            fastact._family.as_tuple(functions[s].apply(t, *a))[0].sin().sum()
        )
        CLOSE(jvp(f, (x,), (x,))[1], (grad(f)(x) * x).sum())
        CLOSE(vmap(f)(torch.stack([x, x])), torch.stack([f(x), f(x)]))
        CLOSE(jacfwd(jacrev(f))(x), jacrev(jacfwd(f))(x))
    # Gates without a public function of two tensors.
    for symbol in set(functions) - seen:
        a, b = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
        assert torch.autograd.gradcheck(functions[symbol].apply, (a, b), check_forward_ad=True)


@pytest.mark.parametrize("case", CASES, ids=labels)
def test_registered_op_called_directly(case):
    """torch.ops.fastact.* records gradients and serves transforms on its own."""
    op = getattr(torch.ops.fastact, case.family).default
    x = tensors(case, 4, 6)

    def f(*t):
        return op(*t, *case.constants(t[0]))

    leaves = [t.clone().requires_grad_() for t in x]
    y = f(*leaves)
    assert y.grad_fn is not None
    g = torch.autograd.grad(y.sin().sum(), leaves, create_graph=True)
    theirs = torch.autograd.grad(exact(case)(*leaves).sin().sum(), leaves, create_graph=True)
    CLOSE(g, theirs)
    CLOSE(
        torch.autograd.grad(sum(t.square().sum() for t in g), leaves),
        torch.autograd.grad(sum(t.square().sum() for t in theirs), leaves),
    )
    CLOSE(jvp(f, x, x), jvp(exact(case), x, x))
    CLOSE(grad(lambda *t: f(*t).sum())(*x), grad(lambda *t: exact(case)(*t).sum())(*x))
    CLOSE(vmap(lambda *t: op(*t, *case.constants(t[0])))(*tensors(case, 2, 4, 6)),
          vmap(exact(case))(*tensors(case, 2, 4, 6)))  # fmt: skip
    with torch.autograd.forward_ad.dual_level():
        dual = [torch.autograd.forward_ad.make_dual(t, t) for t in x]
        tangent = torch.autograd.forward_ad.unpack_dual(f(*dual)).tangent
    CLOSE(tangent, jvp(exact(case), x, x)[1])


def test_registered_backward_called_directly():
    ops = torch.ops.fastact
    g, v, x = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(3))
    assert torch.autograd.gradcheck(ops.gelu_backward, (g, x), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(ops.gelu_backward, (g, x), check_fwd_over_rev=True)
    assert torch.autograd.gradcheck(ops.gelu_double_backward, (v, g, x))
    assert torch.autograd.gradcheck(ops.silu_mul_backward, (g, x, v), check_forward_ad=True)
    assert torch.autograd.gradcheck(
        ops.tanh_backward, (g, x.detach().tanh().requires_grad_()), check_forward_ad=True
    )


def network():
    return torch.nn.Sequential(
        torch.nn.Linear(4, 6), fastact.nn.GELU(), torch.nn.Linear(6, 8), fastact.nn.SwiGLU(),
        fastact.nn.LeakyReLU(0.1, inplace=True), torch.nn.Linear(4, 1),
    ).double()  # fmt: skip


def test_per_sample_gradients():
    """vmap over grad over functional_call: the gradient of each sample by itself."""
    net, x = network(), torch.randn(5, 4, dtype=torch.float64)
    parameters = dict(net.named_parameters())

    def loss(p, sample):
        return functional_call(net, p, sample).square().sum()

    ours = vmap(grad(loss), (None, 0))({k: p.detach() for k, p in parameters.items()}, x)
    for i in range(5):
        one = torch.autograd.grad(loss(parameters, x[i]), list(parameters.values()))
        for got, want in zip(ours.values(), one, strict=True):
            CLOSE(got[i], want)


def test_ensemble_of_models():
    nets = [network() for _ in range(3)]
    parameters, buffers = torch.func.stack_module_state(nets)
    x = torch.randn(5, 4, dtype=torch.float64)
    ours = vmap(lambda p, b: functional_call(nets[0], (p, b), x))(parameters, buffers)
    for got, net in zip(ours, nets, strict=True):
        CLOSE(got, net(x))


def test_linearize_and_functionalize():
    x = torch.randn(4, dtype=torch.float64)
    y, push = torch.func.linearize(F.gelu, x)
    CLOSE((y, push(x)), jvp(F.gelu, (x,), (x,)))
    CLOSE(torch.func.functionalize(lambda t: F.silu(t * 1, inplace=True))(x), F.silu(x))


def test_inplace_under_transforms():
    x = torch.randn(4, 6, dtype=torch.float64)
    for case in support.INPLACE:
        CLOSE(vmap(lambda t, c=case: c.inplace(t * 1))(x), case.function(x))
        CLOSE(
            grad(lambda t, c=case: c.inplace(t * 1).sin().sum())(x),
            grad(lambda t, c=case: c.exact(t).sin().sum())(x),
        )
