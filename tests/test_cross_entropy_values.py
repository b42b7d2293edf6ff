"""Cross entropy against float64: every size, layout, dtype and option, with both derivatives."""

import itertools

import losses
import pytest
import torch
import torch.nn.functional as TF
from losses import check, describe, grid, make, probabilities, targets, weights
from support import DTYPES, Ops

import fastact
from fastact import functional as F

ALL = {"return_lse": True, "return_entropy": True}
OPTIONS = grid(
    reduction=("none", "mean", "sum"), label_smoothing=(None, 0.1), z_loss=(None, 0.05),
    softcap=(None, 3.0), return_lse=(False, True), return_entropy=(False, True),
)  # fmt: skip


@pytest.mark.parametrize("classes", losses.CLASSES)
def test_classes(classes, isa):
    for dtype in DTYPES:
        x = make(7, classes, dtype=dtype)
        check(x, targets(x), reduction="none")
        check(x, targets(x), label_smoothing=0.2, weight=weights(classes, dtype), **ALL)
        check(x, probabilities(x), reduction="sum", softcap=4.0, z_loss=0.01)


@pytest.mark.parametrize("classes", [50257, 128257])
def test_vocabularies(classes):
    for dtype in (torch.float32, torch.bfloat16):
        x = make(3, classes, dtype=dtype)
        check(x, targets(x), reduction="none", **ALL)
        check(x, targets(x), label_smoothing=0.1, z_loss=1e-4, softcap=30.0)


@pytest.mark.parametrize("inner", [1, 5, 31, 32, 33, 70])
@pytest.mark.parametrize("classes", [1, 2, 31, 33, 100])
def test_inner_sizes(classes, inner):
    for outer in (1, 3):
        x = make(outer, classes, inner)
        check(x, targets(x), reduction="none", **ALL)
        check(x, targets(x), label_smoothing=0.2, weight=weights(classes))
    check(x.to(torch.bfloat16), targets(x), reduction="sum", softcap=2.0)
    check(x, probabilities(x), weight=weights(classes), reduction="none", **ALL)


@pytest.mark.parametrize("rows", [0, 1, 2, 31, 33, 70])
@pytest.mark.parametrize("classes", [10, 64, 65, 200])
def test_rows(rows, classes):
    x = make(rows, classes)
    for reduction in ("none", "sum", "mean"):
        check(x, targets(x), reduction=reduction, **ALL)
        check(x, probabilities(x), reduction=reduction, label_smoothing=0.1)


@pytest.mark.parametrize("name", losses.layouts())
def test_layouts(name):
    for dtype in (torch.float32, torch.bfloat16):
        x = losses.layouts(dtype)[name]
        w = weights(x.shape[losses.class_dim(x)], dtype)
        check(x, targets(x), reduction="none", weight=w, softcap=5.0, **ALL)
        check(x, targets(x), label_smoothing=0.3, weight=w)
        check(x, probabilities(x), reduction="sum", weight=w, **ALL)
        if x.dim() > 1 and x.numel():
            strided = probabilities(x).transpose(0, 1).contiguous().transpose(0, 1)
            check(x, strided, reduction="none")


@pytest.mark.parametrize("name", losses.layouts())
def test_layout_of_the_gradient(name):
    """Of the logits' own layout wherever torch keeps it."""
    x = losses.layouts()[name]
    grads = []
    for f in (F.cross_entropy, TF.cross_entropy):
        leaf = x.detach().requires_grad_()
        grads.append(torch.autograd.grad(f(leaf, targets(x, ignored=False)), leaf)[0])
    assert grads[0].shape == grads[1].shape
    dense = torch.empty_like(x)
    assert grads[0].stride() in (grads[1].stride(), dense.stride())


@pytest.mark.parametrize("options", OPTIONS, ids=describe)
@pytest.mark.parametrize("shape", [(5, 9), (2, 70), (2, 5, 3)], ids=str)
def test_options(options, shape):
    w = weights(shape[1])
    x = make(*shape)
    check(x, targets(x), **options)
    check(x, probabilities(x), weight=w, **options)
    check(x.to(torch.float16), targets(x), weight=w.half(), **options)


@pytest.mark.parametrize("shape", [(6, 9), (6, 70), (3, 5, 4)], ids=str)
def test_weight_smoothing_and_negative_ignore_index(shape):
    """Together: the mean divides by the weights of the rows in use, smoothed or not."""
    x, w = make(*shape, dtype=torch.float64), weights(shape[1], torch.float64)
    for ignore_index in (-1, -100, 0, shape[1] - 1, 1000):
        target = targets(x, ignore_index=ignore_index)
        for reduction in ("none", "mean", "sum"):
            options = {"weight": w, "ignore_index": ignore_index, "label_smoothing": 0.3}
            check(x, target, reduction=reduction, **options)
            ours, theirs = (
                f(x, target, reduction=reduction, **options)
                for f in (F.cross_entropy, TF.cross_entropy)
            )
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64], ids=describe)
def test_integer_targets(dtype):
    for x in (make(6, 9), make(6, 70), make(2, 9, 3)):
        target = targets(x, ignored=False).to(dtype)
        check(x, target, reduction="none")
        if x.dim() == 2 or dtype == torch.int64:  # torch has no kernel for images
            torch.testing.assert_close(F.cross_entropy(x, target), TF.cross_entropy(x, target))
        ignored = int(target.flatten()[0])
        check(x, target, ignore_index=ignored)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8, torch.bool], ids=describe)
def test_integer_targets_that_torch_refuses(dtype):
    x = make(6, 2)
    target = targets(x, ignored=False).to(dtype)
    for f in (TF.cross_entropy, F.cross_entropy):
        with pytest.raises(RuntimeError):
            f(x, target)


def test_targets_of_every_layout():
    x = make(6, 9, 4)
    dense = targets(x)
    for target in (
        dense.t().contiguous().t(), dense.repeat_interleave(2, 1)[:, ::2],
        dense.repeat_interleave(2, 0)[::2], dense.flip(1).flip(1),
        torch.full((1, 1), 3).expand(6, 4),
    ):  # fmt: skip
        check(x, target, reduction="none")
        check(x, target)
    flat = make(6, 70)
    check(flat, torch.arange(12)[::2], reduction="none")


@pytest.mark.parametrize("normalizer", [7, 3.5, torch.tensor(2.5), torch.tensor([4.0])], ids=str)
def test_normalizer(normalizer):
    for dtype in DTYPES:
        for x in (make(6, 9, dtype=dtype), make(6, 70, dtype=dtype)):
            for target in (targets(x), probabilities(x)):
                got = F.cross_entropy(x, target, normalizer=normalizer, z_loss=0.1)
                number = float(normalizer)
                want = losses.exact(x.double(), losses.doubled(target), z_loss=0.1,
                                    normalizer=number)[0]  # fmt: skip
                losses.assert_near(got, want, 4, 0, f"{dtype}")
    check(make(6, 9), targets(make(6, 9)), normalizer=5.0, **ALL)


def test_accumulating_over_parts_gives_the_gradient_of_the_whole():
    x, target = make(12, 70), targets(make(12, 70))
    whole = x.clone().requires_grad_()
    F.cross_entropy(whole, target).backward()
    count = (target != -100).sum()
    part = x.clone().requires_grad_()
    for rows in (slice(0, 5), slice(5, 12)):
        F.cross_entropy(part[rows], target[rows], normalizer=count).backward()
    torch.testing.assert_close(part.grad, whole.grad)


def test_a_normalizer_is_differentiable():
    n = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    x = make(5, 9, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, n: F.cross_entropy(x, targets(x), normalizer=n), (x, n), check_forward_ad=True
    )


def test_a_normalizer_is_not_read():
    """No sync: its value is not asked for on the way to the loss and the gradient."""
    x, n = make(5, 70).requires_grad_(), torch.tensor(3.0)
    with Ops() as seen:
        F.cross_entropy(x, targets(x), normalizer=n).backward()
    assert not seen.reads
    with Ops() as seen:
        n.item()
    assert seen.reads  # it would have been seen


@pytest.mark.parametrize("options", OPTIONS[::3], ids=describe)
def test_the_torch_backend_agrees(options):
    for shape in ((6, 9), (5, 70), (2, 6, 5), (9,)):
        x = make(*shape, dtype=torch.float64)
        w = weights(shape[-1] if len(shape) == 1 else shape[1], torch.float64)
        for target in (targets(x), probabilities(x)):
            for weight in (None, w):
                results = []
                for name in ("compiled", "torch"):
                    with fastact.backend(name):
                        grads = [losses.random_like(t, i) for i, t in enumerate(
                            losses.ours(x, target, weight, **options))]  # fmt: skip
                        results.append(losses.derivatives(
                            lambda t: losses.ours(t, target, weight, **options),  # noqa: B023
                            x, grads, losses.random_like(x, 7), True))  # fmt: skip
                for a, b in zip(*results, strict=True):
                    torch.testing.assert_close(a, b, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
def test_dtypes_of_the_torch_backend(dtype):
    x = make(6, 9, dtype=dtype)
    options = {"z_loss": 0.1, "normalizer": 3.0, **ALL}
    results = []
    for name in ("compiled", "torch"):
        with fastact.backend(name):
            results.append(F.cross_entropy(x, targets(x), **options))
    for a, b in zip(*results, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b)


def test_deprecated_arguments():
    x, target = make(4, 9), targets(make(4, 9))
    for size_average, reduce in (
        (True, True), (False, True), (None, False), (False, None), (1, 0), (0, 1),
    ):  # fmt: skip
        with pytest.warns(UserWarning, match="size_average and reduce") as caught:
            got = F.cross_entropy(x, target, size_average=size_average, reduce=reduce)
        assert caught[0].filename == __file__
        with pytest.warns(UserWarning, match="size_average and reduce"):
            want = TF.cross_entropy(x, target, size_average=size_average, reduce=reduce)
        torch.testing.assert_close(got, want)


def test_targets_of_another_dtype():
    """Probabilities in float64 for logits in float32, or weights: as torch promotes."""
    x = make(5, 9)
    for dtype in (torch.float64, torch.bfloat16):
        target = probabilities(x).to(dtype)
        for weight in (None, weights(9, torch.float64), weights(9, torch.bfloat16)):
            got, want = (f(x, target, weight) for f in (F.cross_entropy, TF.cross_entropy))
            torch.testing.assert_close(got, want, check_dtype=True)


def test_the_reference_is_right():
    """The exact functions of losses.py against torch's own in float64."""
    for shape in ((5, 9), (2, 6, 5), (9,)):
        x = make(*shape, dtype=torch.float64)
        w = weights(x.shape[losses.class_dim(x)], torch.float64)
        for target in (targets(x), probabilities(x)):
            for r, s, t in itertools.product(("none", "mean", "sum"), (0.0, 0.2), (None, w)):
                options = {"reduction": r, "label_smoothing": s, "weight": t}
                torch.testing.assert_close(
                    losses.exact(x, target, **options)[0], TF.cross_entropy(x, target, **options)
                )
