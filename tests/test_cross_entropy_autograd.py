"""Cross entropy under autograd: checks by finite differences, forward mode, vmap, higher orders."""

import itertools

import losses
import pytest
import torch
from losses import describe, grid, make, probabilities, targets, weights
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.utils.checkpoint import checkpoint

import fastact
from fastact import functional as F

CLOSE = torch.testing.assert_close
DOUBLE = torch.float64
ALL = {"return_lse": True, "return_entropy": True}
CHOICES = [
    {}, {"reduction": "none"}, {"reduction": "sum", "label_smoothing": 0.2},
    {"softcap": 3.0}, {"z_loss": 0.1, "reduction": "none"}, {"return_entropy": True},
    {"return_lse": True, "reduction": "sum"}, {"normalizer": 3.0},
    {"softcap": 2.0, "z_loss": 0.1, "label_smoothing": 0.1, **ALL},
]  # fmt: skip
SHAPES = [(3, 4), (2, 66), (2, 3, 2), (4,)]


def cases():
    for shape, options in itertools.product(SHAPES, CHOICES):
        if shape != (2, 66) or options in CHOICES[-1:]:
            yield pytest.param(shape, options, id=f"{shape}-{describe(options)}")


def kinds(x):
    """The targets of each kind, with a weight for one of them."""
    w = weights(x.shape[losses.class_dim(x)], x.dtype)
    return [(targets(x), None), (targets(x), w), (probabilities(x), w)]


def exactly(target, weight, options):
    """torch's own ops in place of the kernels."""

    def f(x, target=target, weight=weight):
        result = losses.exact(x, target, weight, **options)
        return result if len(result) > 1 else result[0]

    return f


@pytest.mark.parametrize(("shape", "options"), list(cases()))
def test_gradcheck(shape, options):
    x = make(*shape, dtype=DOUBLE).requires_grad_()
    for target, weight in kinds(x)[1:] if shape[-1] > 60 else kinds(x):
        assert gradcheck(
            lambda t: F.cross_entropy(t, target, weight, **options), (x,),  # noqa: B023
            check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True,
            fast_mode=shape[-1] > 60,
        )  # fmt: skip


@pytest.mark.parametrize(("shape", "options"), list(cases()))
def test_gradgradcheck(shape, options):
    x = make(*shape, dtype=DOUBLE).requires_grad_()
    for target, weight in kinds(x)[1:]:
        assert gradgradcheck(
            lambda t: F.cross_entropy(t, target, weight, **options), (x,),  # noqa: B023
            check_fwd_over_rev=True, check_rev_over_rev=True, check_batched_grad=True,
            fast_mode=shape[-1] > 60,
        )  # fmt: skip


def test_gradients_by_targets_and_weights():
    """They go to torch's ops, and are differentiable there: at any order, and forward."""
    for shape in ((3, 4), (2, 3, 2), (4,)):
        x = make(*shape, dtype=DOUBLE)
        w = weights(x.shape[losses.class_dim(x)], DOUBLE)
        for options in ({}, {"label_smoothing": 0.1, "reduction": "none"}, {"z_loss": 0.1, **ALL}):
            for leaf in (False, True):
                inputs = tuple(t.clone().requires_grad_() for t in (probabilities(x), w))
                x = x.detach().requires_grad_(leaf)
                f = lambda t, w: F.cross_entropy(x, t, w, **options)  # noqa: B023, E731
                assert gradcheck(f, inputs, check_forward_ad=True, fast_mode=True)
                assert gradgradcheck(f, inputs, fast_mode=True)
                CLOSE(f(*inputs), exactly(*inputs, options)(x))
    with pytest.raises(RuntimeError, match="weight"):  # as torch: not without probabilities
        F.cross_entropy(x, targets(x), inputs[1][:4])


@pytest.mark.parametrize("options", CHOICES, ids=describe)
def test_higher_orders(options):
    """The third derivative by finite differences, the fourth against torch's ops."""
    x = make(2, 3, dtype=DOUBLE).requires_grad_()
    for target, weight in kinds(x)[1:]:

        def scalar(f, x):
            y = f(x)
            return sum(t.sin().sum() for t in y) if isinstance(y, tuple) else y.sin().sum()

        def derivative(f, order, x):
            g = scalar(f, x)
            for _ in range(order):
                (g,) = torch.autograd.grad(g, x, create_graph=True)
                g = g.sin().sum() if _ + 1 < order else g
            return g

        ours = lambda t: F.cross_entropy(t, target, weight, **options)  # noqa: B023, E731
        theirs = exactly(target, weight, options)
        for order in (1, 2, 3, 4):
            CLOSE(derivative(ours, order, x), derivative(theirs, order, x))
        assert gradcheck(lambda t: derivative(ours, 2, t), x)  # noqa: B023


@pytest.mark.parametrize("options", CHOICES, ids=describe)
def test_transforms(options):
    for shape in ((3, 4), (2, 3, 2), (4,)):
        x, v = make(*shape, dtype=DOUBLE), make(*shape, dtype=DOUBLE, seed=9)
        for target, weight in kinds(x):
            ours = lambda t: F.cross_entropy(t, target, weight, **options)  # noqa: B023, E731
            theirs = exactly(target, weight, options)
            CLOSE(jvp(ours, (x,), (v,)), jvp(theirs, (x,), (v,)))
            (y, pull), (z, pull_exact) = vjp(ours, x), vjp(theirs, x)
            CLOSE(y, z)
            ones = torch.utils._pytree.tree_map(torch.ones_like, z)
            CLOSE(pull(ones), pull_exact(ones))
            total = [
                lambda t, f=f: sum(o.sin().sum() for o in f(t)) if isinstance(f(t), tuple)
                else f(t).sin().sum() for f in (ours, theirs)
            ]  # fmt: skip
            CLOSE(*(hessian(f)(x) for f in total))
            if len(shape) == 1:
                CLOSE(*(jacfwd(jacfwd(f))(x) for f in total))
                CLOSE(*(jacrev(jacrev(f))(x) for f in total))
            CLOSE(*(jvp(grad(f), (x,), (v,)) for f in total))


@pytest.mark.parametrize("options", CHOICES, ids=describe)
def test_vmap(options):
    """Over logits, targets and weights, each with and without a batch, at any dimension."""
    for shape in ((3, 5), (2, 4, 2), (4,)):
        one = make(*shape, dtype=DOUBLE)
        c = one.shape[losses.class_dim(one)]
        x = make(3, *shape, dtype=DOUBLE)
        w = torch.stack([weights(c, DOUBLE) * (i + 1) for i in range(3)])
        for make_target in (targets, probabilities):
            target = torch.stack([make_target(t, seed=i) for i, t in enumerate(x)])

            def f(x, target, w):
                return F.cross_entropy(x, target, w, **options)

            def gradients(x, target, w):
                return grad(lambda t: sum(
                    o.sin().sum() for o in losses.ours(t, target, w, **options)))(x)  # noqa: B023  # fmt: skip

            def twice(x, target, w):
                return grad(lambda t: gradients(t, target, w).sin().sum())(x)  # noqa: B023

            every = [on for on in itertools.product((True, False), repeat=3) if any(on)]
            for on, g in itertools.product(every if len(shape) == 2 else every[:1],
                                           (f, gradients, twice)):  # fmt: skip
                args = [t if b else t[0] for t, b in zip((x, target, w), on, strict=True)]
                dims = tuple(0 if b else None for b in on)
                want = [g(*(t[i] if b else t for t, b in zip(args, on, strict=True)))
                        for i in range(3)]  # fmt: skip
                want = (torch.stack(want) if isinstance(want[0], torch.Tensor) else
                        tuple(map(torch.stack, zip(*want, strict=True))))  # fmt: skip
                CLOSE(vmap(g, dims)(*args), want, msg=lambda m, s=(on, g, shape): f"{s}: {m}")
            moved = vmap(lambda x, t: f(x, t, None), (-1, -1))(
                x.movedim(0, -1), target.movedim(0, -1)
            )
            CLOSE(moved, vmap(lambda x, t: f(x, t, None))(x, target))


@pytest.mark.parametrize("shape", [(0, 5), (0, 3, 5), (0, 3, 5, 2), (2, 0, 5)], ids=str)
def test_vmap_over_nothing(shape):
    x = torch.randn(shape)
    target = x.movedim(2 if len(shape) > 2 else 1, -1)[..., 0].long()
    for reduction in ("none", "sum", "mean"):
        loss = vmap(lambda *a, r=reduction: F.cross_entropy(*a, reduction=r))(x, target)
        assert loss.shape == (target.shape if reduction == "none" else shape[:1])
        of_sum = vmap(grad(lambda *a, r=reduction: F.cross_entropy(*a, reduction=r).sum()))
        assert of_sum(x, target).shape == x.shape


def test_vmap_over_no_targets_or_weights():
    """One of the cases that have no rule of their own."""
    x, target, weight = torch.randn(4, 5), torch.zeros(4, dtype=torch.int64), torch.ones(5)
    for dims, args in (
        ((None, 0, None), (x, target.expand(0, 4), weight)),
        ((None, None, 0), (x, target, weight.expand(0, 5))),
        ((0, 0, 0), (x.expand(0, 4, 5), target.expand(0, 4), weight.expand(0, 5))),
    ):
        for options in ({}, {"reduction": "none", "return_lse": True}):
            with fastact.backend("compiled"):
                got = vmap(lambda *a, o=options: F.cross_entropy(*a, **o), dims)(*args)
            if options:
                assert [t.shape for t in got] == [(0, 4), (0, 4)]
            else:
                assert got.shape == (0,)
    no_rows = torch.randn(0, 4)
    bce = F.binary_cross_entropy_with_logits
    with fastact.backend("compiled"):
        got = vmap(grad(lambda t: bce(t, torch.ones(4))))(no_rows)
    assert got.shape == (0, 4)


def test_vmap_nested():
    x, target = make(2, 3, 4, 5, dtype=DOUBLE), torch.randint(5, (2, 3, 4))
    got = vmap(vmap(F.cross_entropy))(x, target)
    for i, j in itertools.product(range(2), range(3)):
        CLOSE(got[i, j], F.cross_entropy(x[i, j], target[i, j]))
    CLOSE(vmap(vmap(grad(F.cross_entropy)))(x, target)[1, 2],
          grad(F.cross_entropy)(x[1, 2], target[1, 2]))  # fmt: skip


def test_only_some_outputs_have_a_gradient():
    """Each alone, from a call that returned all, with and without the graph."""
    x, target = make(4, 70, dtype=DOUBLE).requires_grad_(), targets(make(4, 70))
    options = {"reduction": "none", "z_loss": 0.1, **ALL}
    for chosen in range(3):
        got, want = F.cross_entropy(x, target, **options), losses.exact(x, target, **options)
        g = losses.random_like(got[chosen], 1)
        first = [torch.autograd.grad(o[chosen], x, g, create_graph=True)[0] for o in (got, want)]
        CLOSE(*first)
        CLOSE(*(torch.autograd.grad(t.sin().sum(), x)[0] for t in first))


def test_random_cotangents_without_a_reduction():
    """Rows of a gradient of zero, negative and huge ones, expanded and strided."""
    for shape in ((6, 9), (6, 70), (2, 9, 6)):
        x = make(*shape).requires_grad_()
        target = targets(x)
        y = F.cross_entropy(x, target, reduction="none")
        want = losses.exact(x.double(), target, reduction="none")[0]
        for g in (
            losses.random_like(y, 1) * torch.logspace(-20, 20, y.shape[-1]),
            torch.tensor(0.5).expand(y.shape), losses.random_like(y, 2).repeat(2, 1)[::2]
            if y.dim() == 2 else losses.random_like(y, 2).repeat_interleave(2)[::2],
            torch.zeros_like(y),
        ):  # fmt: skip
            g = g[: y.shape[0]]
            (got,) = torch.autograd.grad(y, x, g, retain_graph=True)
            (exact,) = torch.autograd.grad(want, x, g.double(), retain_graph=True)
            losses.assert_near(got, exact.double(), 8, exact.abs().amax(1, True).double(), "grad")


def test_forward_mode_beside_recorded_gradients():
    x, target = make(4, 9, dtype=DOUBLE).requires_grad_(), targets(make(4, 9))
    v = make(4, 9, dtype=DOUBLE, seed=3)
    with torch.autograd.forward_ad.dual_level():
        loss, lse = F.cross_entropy(torch.autograd.forward_ad.make_dual(x, v), target,
                                    return_lse=True)  # fmt: skip
        tangents = [torch.autograd.forward_ad.unpack_dual(t).tangent for t in (loss, lse)]
    want = jvp(lambda t: losses.exact(t, target, return_lse=True), (x,), (v,))[1]
    CLOSE(tuple(tangents), want)


def test_checkpoint_and_anomaly_mode():
    x, target = make(4, 70).requires_grad_(), targets(make(4, 70))
    (want,) = torch.autograd.grad(F.cross_entropy(x, target), x)
    loss = checkpoint(F.cross_entropy, x, target, use_reentrant=False)
    assert torch.equal(torch.autograd.grad(loss, x)[0], want)
    with torch.autograd.detect_anomaly(check_nan=True):
        assert torch.equal(torch.autograd.grad(F.cross_entropy(x, target), x)[0], want)


def test_calls_that_record_nothing():
    x, target = make(4, 70), targets(make(4, 70))
    assert not F.cross_entropy(x, target).requires_grad
    leaf = x.clone().requires_grad_()
    with torch.no_grad():
        assert not F.cross_entropy(leaf, target).requires_grad
    with torch.inference_mode():
        assert torch.equal(F.cross_entropy(x.clone(), target), F.cross_entropy(x, target))


def test_the_outputs_that_were_not_asked_for_are_not_there():
    x, target = make(4, 70).requires_grad_(), targets(make(4, 70))
    for lse, entropy in itertools.product((False, True), repeat=2):
        for leaf in (x, x.detach()):
            result = F.cross_entropy(leaf, target, return_lse=lse, return_entropy=entropy)
            count = len(result) if isinstance(result, tuple) else 1
            assert count == 1 + lse + entropy
    _, entropy = F.cross_entropy(x, target, return_entropy=True)
    CLOSE(entropy, losses.exact(x.double(), target, return_entropy=True)[1].float())


REDUCED = grid(reduction=("none", "mean", "sum"), label_smoothing=(None, 0.2))


@pytest.mark.parametrize("options", REDUCED, ids=describe)
def test_function_and_registered_ops(options):
    """The autograd Function and the op take the same arguments, and serve autograd themselves."""
    number = ("none", "mean", "sum").index(options["reduction"])
    x = make(3, 5, dtype=DOUBLE).requires_grad_()
    w = weights(5, DOUBLE)
    constants = (number, -100, options.get("label_smoothing", 0.0), 0.1, 3.0, False, True, True)
    want = F.cross_entropy(x, targets(x), w, z_loss=0.1, softcap=3.0, **ALL, **options)
    for call in (fastact.autograd.CrossEntropy.apply, torch.ops.fastact.cross_entropy):
        got = call(x, targets(x), w, *constants)[:3]
        CLOSE(tuple(got), tuple(want))
        totals = [sum(t.sin().sum() for t in outputs) for outputs in (got, want)]
        firsts = [torch.autograd.grad(t, x, create_graph=True)[0] for t in totals]
        CLOSE(*firsts)
        CLOSE(*(torch.autograd.grad(t.sin().sum(), x, retain_graph=True)[0] for t in firsts))
