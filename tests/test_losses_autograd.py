"""softmax, log_softmax, nll_loss and BCE with logits under autograd and transforms."""

import itertools

import pytest
import torch
import torch.nn.functional as TF
from losses import make, targets, weights
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

import fastact
from fastact import functional as F

CLOSE = torch.testing.assert_close
DOUBLE = torch.float64
T = make(3, 4, dtype=DOUBLE, seed=5).sigmoid()
W = weights(4, DOUBLE)
I = torch.tensor([2, -100, 0])  # noqa: E741
# Ours and torch's, of x (3, 4).
CASES = {
    "softmax": lambda m, x: m.softmax(x, 1),
    "softmax, dim=0": lambda m, x: m.softmax(x, 0),
    "log_softmax": lambda m, x: m.log_softmax(x, -1),
    "log_softmax, dim=0": lambda m, x: m.log_softmax(x, 0),
    "nll_loss": lambda m, x: m.nll_loss(x, I, W),
    "nll_loss, none": lambda m, x: m.nll_loss(x, I, W, reduction="none"),
    "nll_loss, sum": lambda m, x: m.nll_loss(x, I, reduction="sum"),
    "bce": lambda m, x: m.binary_cross_entropy_with_logits(x, T, W, pos_weight=W + 1),
    "bce, none": lambda m, x: m.binary_cross_entropy_with_logits(x, T, reduction="none"),
    "bce, sum": lambda m, x: m.binary_cross_entropy_with_logits(x, T, W, reduction="sum"),
}
NAMES = pytest.mark.parametrize("name", CASES)


class Exact:
    """torch's, but BCE in its own words: torch's fails in nested forward mode."""

    softmax, log_softmax, nll_loss = TF.softmax, TF.log_softmax, TF.nll_loss

    @staticmethod
    def binary_cross_entropy_with_logits(x, y, w=1.0, pos_weight=1.0, reduction="mean"):
        rows = w * ((1 - y) * TF.softplus(x) + pos_weight * y * TF.softplus(-x))
        return rows if reduction == "none" else getattr(rows, reduction)()


def pair(name):
    f = CASES[name]
    return lambda x: f(F, x), lambda x: f(Exact, x)


def leaf():
    return make(3, 4, dtype=DOUBLE).requires_grad_()


@NAMES
def test_gradcheck(name):
    assert gradcheck(
        pair(name)[0], (leaf(),), check_forward_ad=True, check_batched_grad=True,
        check_batched_forward_grad=True,
    )  # fmt: skip


@NAMES
def test_gradgradcheck(name):
    assert gradgradcheck(
        pair(name)[0], (leaf(),), check_fwd_over_rev=True, check_rev_over_rev=True,
        check_batched_grad=True,
    )  # fmt: skip


@pytest.mark.parametrize("name", [n for n in CASES if "nll" not in n])
def test_maps_over_single_elements(name):
    """Each of a 0-dim tensor, which has no dimension to reduce or to move."""
    x, y = make(5, dtype=DOUBLE), T.flatten()[:5]
    options = {"reduction": name[5:]} if name.startswith("bce,") else {}
    results = []
    for m in (F, Exact):
        if "softmax" in name:
            f = lambda x, _, m=m: getattr(m, name.split(",")[0])(x, 0)  # noqa: E731
        else:
            f = lambda x, y, m=m: m.binary_cross_entropy_with_logits(x, y, **options)  # noqa: E731
        derivatives = (f, grad(f), jacfwd(f), jacfwd(grad(f)), grad(grad(f)))
        results.append([vmap(derivative)(x, y) for derivative in derivatives])
    CLOSE(*results)


@pytest.mark.parametrize("function", [fastact.autograd.Softmax, fastact.autograd.LogSoftmax])
def test_functions_map_over_single_elements(function):
    """The rule is the op's, whoever calls it."""
    x = make(2, 3, dtype=DOUBLE)
    f = lambda x: function.apply(x, 0)  # noqa: E731
    for derivative in (f, grad(f), jacfwd(grad(f))):
        wanted = torch.full_like(x, float(derivative is f and "Log" not in function.__name__))
        CLOSE(vmap(vmap(derivative))(x), wanted)


def test_softmax_of_one_element_is_no_view():
    for f in (F.softmax, F.log_softmax):
        assert not f(torch.tensor(2.0), 0)._is_view()
        assert not f(torch.tensor(2.0, requires_grad=True), 0)._is_view()


@NAMES
def test_higher_orders(name):
    x = leaf()
    results = []
    for f in pair(name):
        y, found = f(x).sin().sum(), []
        for _ in range(4):
            (g,) = torch.autograd.grad(y, x, create_graph=True)
            found.append(g.detach())
            y = (g * torch.arange(12).view(3, 4)).sin().sum()
        results.append(found)
    for a, b in zip(*results, strict=True):
        CLOSE(a, b)


@NAMES
def test_transforms(name):
    x, v = make(3, 4, dtype=DOUBLE), make(3, 4, dtype=DOUBLE, seed=2)
    CLOSE(*(jvp(f, (x,), (v,)) for f in pair(name)))
    scalars = [lambda t, f=f: f(t).sin().sum() for f in pair(name)]
    for transform in (
        hessian, lambda f: jacfwd(jacfwd(f)), lambda f: jacrev(jacrev(f)),
        lambda f: jacrev(jacfwd(f)), lambda f: lambda t: jvp(grad(f), (t,), (v,))[1],
        lambda f: grad(lambda t: jvp(f, (t,), (v,))[1]),
        lambda f: lambda t: jvp(lambda s: jvp(f, (s,), (v,))[1], (t,), (v,))[1],
    ):  # fmt: skip
        CLOSE(*(transform(f)(x) for f in scalars))


@NAMES
def test_vmap(name):
    x = make(5, 3, 4, dtype=DOUBLE)
    ours, theirs = pair(name)
    scalar = lambda f: lambda t: f(t).sin().sum()  # noqa: E731
    for f, g in ((ours, theirs), (grad(scalar(ours)), grad(scalar(theirs))),
                 (jacrev(grad(scalar(ours))), jacrev(grad(scalar(theirs))))):  # fmt: skip
        want = torch.stack([g(t) for t in x])
        CLOSE(vmap(f)(x), want)
        CLOSE(vmap(f, -1, -1)(x.movedim(0, -1)), want.movedim(0, -1))


def test_vmap_over_targets_and_weights():
    x, t = make(5, 3, 4, dtype=DOUBLE), torch.randint(4, (5, 3))
    soft, w = torch.rand(5, 3, 4, dtype=DOUBLE), torch.rand(5, 4, dtype=DOUBLE)
    nll = lambda x, t, w: F.nll_loss(x, t, w)  # noqa: E731
    bce = lambda x, t, w: F.binary_cross_entropy_with_logits(x, t, w, pos_weight=w)  # noqa: E731
    for f, target in ((nll, t), (bce, soft)):
        for on in itertools.product((True, False), repeat=3):
            if not any(on):
                continue
            args = [a if b else a[0] for a, b in zip((x, target, w), on, strict=True)]
            dims = tuple(0 if b else None for b in on)
            for g in (f, grad(f)):
                want = [g(*(a[i] if b else a for a, b in zip(args, on, strict=True)))
                        for i in range(5)]  # fmt: skip
                CLOSE(vmap(g, dims)(*args), torch.stack(want))


def test_bce_by_targets():
    """In reverse and forward mode; torch differentiates by no weight, and says so, as ours."""
    x, y = leaf(), T.clone().requires_grad_()
    for r in ("none", "mean", "sum"):

        def f(x, y, r=r):
            return F.binary_cross_entropy_with_logits(x, y, W, pos_weight=W + 1, reduction=r)

        assert gradcheck(f, (x, y), check_forward_ad=True)
        assert gradgradcheck(f, (x, y))
    for name in ("weight", "pos_weight"):
        tracked = {name: W.clone().requires_grad_()}
        for m in (F, TF):
            with pytest.raises(RuntimeError, match=f"not differentiable.*{name}"):
                m.binary_cross_entropy_with_logits(x, y, **tracked)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_nll_loss_of_log_softmax_is_cross_entropy(reduction):
    for shape in ((4, 9), (4, 70), (2, 9, 3), (9,)):
        x = make(*shape, dtype=DOUBLE).requires_grad_()
        target, dim = targets(x), 0 if len(shape) == 1 else 1
        two = F.nll_loss(F.log_softmax(x, dim), target, reduction=reduction)
        one = F.cross_entropy(x, target, reduction=reduction)
        CLOSE(one, two)
        CLOSE(*(torch.autograd.grad(y.sum(), x)[0] for y in (one, two)))


def test_the_gradient_of_nll_loss_does_not_depend_on_its_input():
    """It is linear: a second derivative is 0, as torch's, and not "unused"."""
    x, target = leaf(), targets(leaf())
    for call in (F.nll_loss, TF.nll_loss):
        (grad,) = torch.autograd.grad(call(x, target), x, create_graph=True)
        (second,) = torch.autograd.grad(grad.sum(), x)
        assert torch.equal(second, torch.zeros_like(x))
