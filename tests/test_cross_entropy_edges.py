"""Cross entropy where others fail: infinities, huge logits, confident targets, ignored rows,
no rows, one class.
"""

import itertools

import losses
import pytest
import torch
import torch.nn.functional as TF
from losses import assert_near, compute, describe, make, probabilities, targets, weights
from support import DTYPES, EMULATED

from fastact import functional as F

INF = torch.inf
# The layouts of a kernel: a row in each lane, rows over all lanes, rows whose classes lie apart.
SHAPES = [(6, 10), (40, 64), (6, 70), (5, 2500), (3, 12, 5), (2, 70, 33)]
REDUCTIONS = ("none", "mean", "sum")


def loss_and_gradient(f, x, target, grad=None, **options):
    x = x.detach().requires_grad_()
    loss = f(x, target, **options)
    grad = torch.ones_like(loss) if grad is None else grad.to(loss.dtype)
    return loss.detach(), torch.autograd.grad(loss, x, grad)[0]


def compare(x, target, ulps=8, **options):
    """With the row formulas in float64; every element of the gradient by itself."""
    wide = {k: losses.doubled(v) for k, v in options.items()}
    got = loss_and_gradient(F.cross_entropy, x, target, **options)
    want = loss_and_gradient(
        lambda *a, **o: losses.exact(*a, **o)[0], x.double(), losses.doubled(target), **wide
    )
    ulps *= 4 if x.dtype == torch.float64 else 1  # the reference has as much
    assert_near(got[0], want[0], ulps, 0, f"loss {x.shape} {x.dtype}")
    assert_near(got[1], want[1], ulps, 0, f"gradient {x.shape} {x.dtype}")


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_that_begin_with_infinities(shape, dtype, isa):
    """Whole blocks of -inf before the first finite logit."""
    c = shape[1]
    for first in {1, c // 2, c - 1}:
        x = make(*shape, dtype=dtype)
        x[:, :first] = -INF
        target = torch.full(TF.cross_entropy(x, x.argmax(1), reduction="none").shape, c - 1)
        compare(x, target, reduction="none")
        loss, lse, entropy = F.cross_entropy(
            x, target, reduction="none", return_lse=True, return_entropy=True
        )
        want = losses.exact(x[:, first:].double(), target - first, reduction="none",
                            return_lse=True, return_entropy=True)  # fmt: skip
        for a, b in zip((loss, lse, entropy), want, strict=True):
            assert_near(a, b, 8, 1, "beside the infinities")
        # A target of no probability: an infinite loss, and -1 for gradient.
        loss, grad = loss_and_gradient(F.cross_entropy, x, target * 0, reduction="none")
        assert (loss == INF).all()
        assert_near(grad[:, 0], -torch.ones_like(grad[:, 0]).double(), 2, 0, "at the target")
        assert (grad[:, 1:first] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_of_nothing_but_infinities(shape, dtype):
    """NaN, as torch; and the neighbours do not notice."""
    x = make(*shape, dtype=dtype)
    target = targets(x, ignored=False)
    alone = loss_and_gradient(F.cross_entropy, x, target, reduction="none")
    for value in (-INF, INF, torch.nan):
        broken = x.clone()
        broken[1] = value
        loss, grad = loss_and_gradient(F.cross_entropy, broken, target, reduction="none")
        theirs = loss_and_gradient(TF.cross_entropy, broken, target, reduction="none")
        assert loss[1].isnan().all()
        assert theirs[0][1].isnan().all()
        assert grad[1].isnan().all()
        keep = [i for i in range(shape[0]) if i != 1]
        assert torch.equal(loss[keep], alone[0][keep])
        assert torch.equal(grad[keep], alone[1][keep])


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_huge_logits(shape, dtype, isa):
    """+-1e4, and the dtype's maximum: one term counts, and nothing overflows."""
    limit = torch.finfo(dtype).max
    x = make(*shape, dtype=dtype)
    target = targets(x, ignored=False)
    for offset in (1e4, -1e4):
        compare(x + offset, target, reduction="none")
    signs = torch.where(x > 1, 1e4, -1e4).to(dtype)
    compare(signs, target, reduction="none")
    quarter = min(limit / 4, 1e150)  # the reference is in float64 itself
    sign = torch.where(x > 1, 1.0, -1.0).double()
    high = (sign * quarter).to(dtype).where(x.abs() > 0.1, 0)
    compare(high, target, reduction="none")
    for full in (limit, -limit):
        same = torch.full(shape, full, dtype=dtype)
        loss, grad = loss_and_gradient(F.cross_entropy, same, target, reduction="none")
        c = shape[1]
        assert_near(loss, torch.full_like(loss, c).double().log(), 4, 0, "all equal")
        one = torch.zeros(shape, dtype=torch.float64).scatter(1, target.unsqueeze(1), 1.0)
        assert_near(grad, 1 / c - one, 4, 0, "all equal")


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
@pytest.mark.parametrize("margin", [5, 10, 20, 60, 100])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_confident_targets(shape, margin, dtype):
    """p - 1 at the target is what the others hold, to the last bit, not a difference from 1."""
    x = (make(*shape, dtype=torch.float64) / 4).to(dtype)
    target = targets(x, ignored=False)
    index = target.unsqueeze(1)
    x.scatter_(1, index, torch.full_like(index, margin, dtype=dtype))
    # The difference of two logits is rounded, as in torch, by up to this part of an exponential.
    ulps = 8 + (margin + 4) / 2
    compare(x, target, ulps, reduction="none")
    compare(x, target, ulps, reduction="none", weight=weights(shape[1], dtype))
    _, grad = loss_and_gradient(F.cross_entropy, x, target, reduction="none")
    if margin <= 60 and dtype != torch.float16:
        assert (grad.gather(1, index) < 0).all()  # it did not vanish


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_only_class_of_any_probability(shape, dtype):
    x = torch.full(shape, -INF, dtype=dtype)
    x[:, 1] = 3
    target = torch.ones(x.sum(1).shape, dtype=torch.int64)
    loss, grad = loss_and_gradient(F.cross_entropy, x, target, reduction="none")
    assert (loss == 0).all()
    assert (grad == 0).all()
    assert not torch.signbit(loss).any()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_rows_ignored(shape):
    x = make(*shape)
    target = torch.full_like(targets(x), -100)
    for reduction in REDUCTIONS:
        for w in (None, weights(shape[1])):
            ours, theirs = (
                loss_and_gradient(f, x, target, reduction=reduction, weight=w)
                for f in (F.cross_entropy, TF.cross_entropy)
            )
            assert torch.equal(ours[0].isnan(), theirs[0].isnan())
            assert ours[0].isnan().all() == (reduction == "mean")
            assert_near(*(r[0].nan_to_num() for r in (ours, theirs)), 0, 0, "loss")
            torch.testing.assert_close(ours[1], theirs[1], equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ignored_rows_are_not_read(shape, dtype):
    """NaN in them is nowhere else, and their results and gradients are exactly 0."""
    x = make(*shape, dtype=dtype)
    target = targets(x)
    ignored = (target == -100).unsqueeze(1).expand(shape)
    w = weights(shape[1], dtype)
    all_options = {"label_smoothing": 0.1, "softcap": 5.0, "z_loss": 0.1, "weight": w,
                   "return_lse": True, "return_entropy": True}  # fmt: skip
    for reduction, options in itertools.product(REDUCTIONS, ({}, all_options)):
        results = []
        for poison in (0.0, torch.nan, INF, -INF):
            leaf = x.masked_fill(ignored, poison).requires_grad_()
            outputs = F.cross_entropy(leaf, target, reduction=reduction, **options)
            outputs = outputs if options else (outputs,)
            grads = [torch.ones_like(t, requires_grad=True) for t in outputs]
            (first,) = torch.autograd.grad(outputs, leaf, grads, create_graph=True)
            second = torch.autograd.grad(first, (*grads, leaf), losses.random_like(x, 3))
            results.append([*outputs, first, *second])
            assert (first[ignored] == 0).all()
            assert (second[-1][ignored] == 0).all()
            for of_row in outputs[1:]:
                assert (of_row[target == -100] == 0).all()
        for other in results[1:]:
            assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize("inside", [(), (3,)], ids=str)
@pytest.mark.parametrize("classes", [1, 10, 70])
def test_no_rows(classes, inside):
    x = torch.randn(0, classes, *inside)
    for target in (torch.zeros(0, *inside, dtype=torch.int64), torch.randn(0, classes, *inside)):
        for reduction in REDUCTIONS:
            ours, theirs = (
                loss_and_gradient(f, x, target, reduction=reduction)
                for f in (F.cross_entropy, TF.cross_entropy)
            )
            for a, b in zip(ours, theirs, strict=True):
                torch.testing.assert_close(a, b, equal_nan=True)


@pytest.mark.parametrize("shape", [(5, 1), (5, 1, 3), (40, 1, 33), (1,)], ids=str)
def test_one_class(shape):
    """Its probability is 1: no loss, no gradient."""
    for dtype in DTYPES:
        x = make(*shape, dtype=dtype)
        loss, grad = loss_and_gradient(F.cross_entropy, x, targets(x), reduction="none")
        assert (loss == 0).all()
        assert (grad == 0).all()
        _, lse, entropy = F.cross_entropy(
            x, targets(x, ignored=False), return_lse=True, return_entropy=True
        )
        assert_near(lse, x.double().sum(losses.class_dim(x)), 1, 0, "lse")
        assert (entropy == 0).all()


def test_no_classes():
    """As torch: nothing can be the target; no rows are no loss."""
    for target in (torch.zeros(0, dtype=torch.int64), torch.zeros(0, 0)):
        ours, theirs = (
            f(torch.zeros(0, 0), target, reduction="sum")
            for f in (F.cross_entropy, TF.cross_entropy)
        )
        assert torch.equal(ours, theirs)


@pytest.mark.cpu_only
@pytest.mark.skipif(EMULATED, reason="a GPU gives NaN instead")
def test_no_class_for_a_target():
    with pytest.raises(IndexError):
        F.cross_entropy(torch.zeros(2, 0), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_infinite_logit_of_no_target_probability(shape):
    """Classes that are masked out on both sides do not count."""
    x, c = make(*shape), shape[1]
    target = probabilities(x)
    target[:, c // 2 :] = 0
    target /= target.sum(1, keepdim=True)
    x[:, c // 2 :] = -INF
    loss, grad = loss_and_gradient(F.cross_entropy, x, target, reduction="none")
    want = loss_and_gradient(
        TF.cross_entropy, x[:, : c // 2], target[:, : c // 2], reduction="none"
    )
    torch.testing.assert_close(loss, want[0])
    torch.testing.assert_close(grad[:, : c // 2], want[1])
    assert (grad[:, c // 2 :] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_infinities_in_every_option(shape, dtype):
    """-inf besides finite logits: no NaN in any result, first or second derivative."""
    x = make(*shape, dtype=dtype)
    x[:, 1::3] = -INF
    target = (targets(x, ignored=False) // 3) * 3
    for softcap in (None, 5.0):
        leaf = x.clone().requires_grad_()
        outputs = F.cross_entropy(
            leaf, target, z_loss=0.1, softcap=softcap, return_lse=True, return_entropy=True
        )
        (first,) = torch.autograd.grad(
            outputs, leaf, [torch.ones_like(t) for t in outputs], create_graph=True
        )
        (second,) = torch.autograd.grad(first, leaf, losses.random_like(x, 3))
        for t in (*outputs, first, second):
            assert t.isfinite().all(), (softcap, t)
        if softcap is None:
            assert (first[:, 1::3] == 0).all()
    # As if they were not there.
    kept = [i for i in range(shape[1]) if i % 3 != 1]
    moved = torch.searchsorted(torch.tensor(kept), target)
    for a, b in zip(
        F.cross_entropy(x, target, reduction="none", return_lse=True, return_entropy=True),
        losses.exact(x[:, kept].double(), moved, reduction="none", return_lse=True,
                     return_entropy=True), strict=True,
    ):  # fmt: skip
        assert_near(a, b, 8, 1, "without the classes")


def test_softcap_at_its_limits():
    """Far above the cap the logits are +-cap, with no gradient; far below they are themselves."""
    for dtype in DTYPES:
        x = torch.tensor([[1e4, -1e4, 0.5], [-INF, INF, 0.0]], dtype=dtype)
        loss, grad = loss_and_gradient(
            F.cross_entropy, x, torch.tensor([0, 2]), softcap=10.0, reduction="none"
        )
        z = 10 * torch.tanh(x.double() / 10)
        assert_near(loss, losses.exact(z, torch.tensor([0, 2]), reduction="none")[0], 8, 0, "loss")
        assert (grad[:, :2] == 0).all()
        assert grad.isfinite().all()
    x = make(5, 70)
    torch.testing.assert_close(
        F.cross_entropy(x, targets(x), softcap=1e6), F.cross_entropy(x, targets(x))
    )


@pytest.mark.parametrize("shape", [(3, 10), (3, 100), (2, 10, 5)], ids=str)
def test_16_bits_accumulate_in_float32(shape):
    """The loss of 16-bit logits is that of the same numbers in float32, rounded once."""
    for dtype in losses.HALF:
        x = make(*shape, dtype=dtype)
        target = targets(x)
        for reduction in REDUCTIONS:
            wide = F.cross_entropy(x.float(), target, reduction=reduction)
            assert torch.equal(F.cross_entropy(x, target, reduction=reduction), wide.to(dtype))
        _, lse = F.cross_entropy(x, target, return_lse=True)
        assert lse.dtype == compute(dtype)
    many = torch.zeros(4000, 4, dtype=torch.bfloat16)
    loss = F.cross_entropy(many, torch.zeros(4000, dtype=torch.int64), reduction="sum")
    assert loss.item() == pytest.approx(4000 * 1.3862944, rel=2**-8)
