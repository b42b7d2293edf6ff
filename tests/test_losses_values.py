"""Values and both derivatives of softmax, log_softmax, nll_loss and BCE with logits."""

import losses
import pytest
import torch
import torch.nn.functional as TF
from losses import assert_near, derivatives, describe, make, random_like, targets, weights
from support import DTYPES, EMULATED

import fastact
from fastact import functional as F

SOFTMAX = pytest.mark.parametrize("name", ["softmax", "log_softmax"])
SIZES = (1, 2, 10, 31, 32, 33, 64, 65, 100, 1000, 1024, 1025, 1056, 2500)
# How many exponentials of a row softmax keeps at most, by itemsize: csrc/cpu/softmax.cpp.
KEPT = {4: 4096, 8: 4096, 2: 4096} if EMULATED else {4: 32768, 8: 16384, 2: 4096}
INF = torch.inf


def check(ours, theirs, x, ulps=12, second=True):
    """Against torch's ops in float64, in ulp of the largest of what is compared."""
    with torch.no_grad():
        like = ours(x)
    g, v = random_like(like, 1), random_like(x, 2)
    got = derivatives(lambda t: (ours(t),), x, [g], v, second)
    want = derivatives(
        lambda t: (theirs(t),), x.double().contiguous(), [g.double()], v.double(), second
    )
    big = 1 + (float(v.abs().max()) if second and v.numel() else 0.0)
    for kind, a, b in zip(("value", "gradient", "by grad", "by x"), got, want, strict=False):
        assert a.dtype == x.dtype, kind
        sized = float(b.abs().max()) if b.numel() else 0.0
        scale = sized + (big * max(1, like.numel() if b.dim() == 0 else 1) if kind[:2] == "by" else
                         sized)  # fmt: skip
        assert_near(a, b.detach(), ulps, scale, f"{kind} {tuple(x.shape)} {x.dtype}")


def exact_softmax(name, dim):
    """torch's, whose own double backward in float64 is accurate."""
    return lambda t: getattr(torch, name)(t, dim)


@SOFTMAX
@pytest.mark.parametrize("size", SIZES)
def test_softmax_sizes(name, size, isa):
    for dtype in DTYPES:
        op = getattr(F, name)
        check(lambda t: op(t, 1), exact_softmax(name, 1), make(5, size, dtype=dtype), 24)  # noqa: B023


@SOFTMAX
@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
def test_softmax_of_long_rows(name, dtype, isa):
    """The longest whose exponentials are kept, and longer."""
    op = getattr(F, name)
    for size in (KEPT[dtype.itemsize], KEPT[dtype.itemsize] + 1):
        check(lambda t: op(t, 1), exact_softmax(name, 1), make(2, size, dtype=dtype), 24)


@SOFTMAX
@pytest.mark.parametrize("inner", [1, 5, 31, 32, 33, 70])
def test_softmax_inner_sizes(name, inner):
    op = getattr(F, name)
    for size in (1, 2, 31, 33, 70):
        check(lambda t: op(t, 1), exact_softmax(name, 1), make(2, size, inner), 24)


@SOFTMAX
@pytest.mark.parametrize("layout", losses.layouts())
def test_softmax_layouts_and_dimensions(name, layout):
    op = getattr(F, name)
    for dtype in (torch.float32, torch.bfloat16):
        x = losses.layouts(dtype)[layout]
        for dim in range(-x.dim(), x.dim()):
            check(lambda t: op(t, dim), exact_softmax(name, dim), x, 24)  # noqa: B023
            assert op(x, dim).stride() == getattr(torch, name)(x, dim).stride()


@SOFTMAX
def test_softmax_of_one_number_and_of_nothing(name):
    op, torchs = getattr(F, name), getattr(torch, name)
    for x in (torch.tensor(3.0), torch.randn(0, 4), torch.randn(4, 0), torch.randn(2, 0, 3)):
        for dim in (0, -1):
            assert torch.equal(op(x, dim), torchs(x, dim))


@SOFTMAX
def test_dtype_is_honoured(name):
    op = getattr(F, name)
    for source in (torch.bfloat16, torch.float16, torch.float32, torch.int64):
        x = make(4, 70, dtype=torch.float64).to(source)
        for dtype in DTYPES:
            got, want = (f(x, 1, dtype=dtype) for f in (op, getattr(TF, name)))
            assert got.dtype == dtype
            torch.testing.assert_close(got, want)
        if source.is_floating_point:
            leaf = x.requires_grad_()
            op(leaf, 1, dtype=torch.float64).square().sum().backward()
            assert leaf.grad.dtype == source
    # Converted first, not last: what float32 resolves and bfloat16 does not.
    x = torch.full((1, 1000), 0.5, dtype=torch.bfloat16)
    assert op(x, 1, dtype=torch.float32)[0, 0] == getattr(torch, name)(x.float(), 1)[0, 0]


@SOFTMAX
def test_no_dimension(name):
    for x in (torch.randn(4), torch.randn(3, 4), torch.randn(2, 3, 4)):
        with pytest.warns(UserWarning, match="Implicit dimension"):
            got = getattr(F, name)(x)
        with pytest.warns(UserWarning, match="Implicit dimension"):
            want = getattr(TF, name)(x)
        torch.testing.assert_close(got, want)
        module = getattr(fastact.nn, {"softmax": "Softmax", "log_softmax": "LogSoftmax"}[name])()
        with pytest.warns(UserWarning, match="Implicit dimension"):
            got = module(x)
        torch.testing.assert_close(got, want)


@SOFTMAX
@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
def test_softmax_at_the_limits(name, dtype, isa):
    """Infinities, huge numbers, NaN: as torch in float64, and no neighbour notices."""
    op, limit = getattr(F, name), torch.finfo(dtype).max
    for size in (8, 100, 2100, KEPT[dtype.itemsize] + 1):
        x = make(9, size, dtype=dtype)
        x[0, : size - 1] = -INF
        x[1] = -INF
        x[2, 3] = INF
        x[3, 5] = torch.nan
        x[4] += 1e4
        x[5, ::2], x[5, 1::2] = 1e4, -1e4
        x[6] = limit
        x[7] = -limit
        got, want = op(x, 1), getattr(torch, name)(x.double(), 1)
        assert_near(got, want, 8, 8 if name == "log_softmax" else 1e-3, f"{size}")
        assert torch.equal(op(x[8:], 1), got[8:])
        for dim, t in ((0, x.t()), (1, x[:, None, :].transpose(1, 2))):
            y = op(t, dim).reshape(size, 9).t() if dim == 0 else op(t, dim)[..., 0]
            assert_near(y, want, 8, 8 if name == "log_softmax" else 1e-3, f"{size} {dim}")


def test_softmax_sums_to_one():
    for size in (10, 100, 50257):
        x = make(3, size, scale=5.0)
        torch.testing.assert_close(F.softmax(x, 1).double().sum(1), torch.ones(3).double(),
                                   rtol=1e-6, atol=0)  # fmt: skip


# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("layout", losses.layouts())
def test_nll_loss(layout, reduction):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = losses.layouts(dtype)[layout]
        w = weights(x.shape[losses.class_dim(x)], dtype)
        for target in (targets(x), targets(x, ignore_index=-1)):
            ignore = -1 if (target == -1).any() else -100
            for weight in (None, w):
                check(
                    lambda t: F.nll_loss(t, target, weight, None, ignore, reduction=reduction),  # noqa: B023
                    lambda t: TF.nll_loss(
                        t, target, losses.doubled(weight), None, ignore, reduction=reduction),  # noqa: B023
                    x, 8,
                )  # fmt: skip


def test_nll_loss_does_not_care_what_it_is_given():
    """Not log-probabilities, infinities, ignored NaN: the formula is -w x."""
    x = torch.tensor([[INF, -3.0], [torch.nan, 2.0], [-INF, 5.0]])
    t = torch.tensor([1, -100, 0])
    for r in ("none", "sum", "mean"):
        torch.testing.assert_close(F.nll_loss(x, t, reduction=r), TF.nll_loss(x, t, reduction=r))
    for r in ("none", "sum", "mean"):
        ignored = torch.full((3,), -100)
        got, want = (f(x, ignored, reduction=r) for f in (F.nll_loss, TF.nll_loss))
        torch.testing.assert_close(got, want, equal_nan=True)
    target = torch.tensor([1, 0, 1], dtype=torch.uint8)
    torch.testing.assert_close(
        F.nll_loss(x[:, 1:] * 1, target * 0), TF.nll_loss(x[:, 1:], target * 0)
    )


BCE_SHAPES = [(), (0,), (1,), (7,), (31, 3), (5, 1025), (2, 3, 4, 5)]


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("shape", BCE_SHAPES, ids=str)
def test_bce(shape, reduction, isa):
    for dtype in DTYPES:
        x = make(*shape, dtype=dtype, scale=3.0)
        y = make(*shape, dtype=torch.float64, seed=1).sigmoid().to(dtype)
        last = shape[-1:]
        for w, p in ((None, None), (weights(1, dtype), None), (None, weights(last[0], dtype) if last
                     else weights(1, dtype)[0]), (y + 1, y + 0.5)):  # fmt: skip
            if w is not None and not last:
                w = w.reshape(())
            options = {"weight": w, "pos_weight": p, "reduction": reduction}
            wide = {k: losses.doubled(v) for k, v in options.items()}
            check(
                lambda t: F.binary_cross_entropy_with_logits(t, y, **options),  # noqa: B023
                lambda t: TF.binary_cross_entropy_with_logits(t, y.double(), **wide),  # noqa: B023
                x, second=x.numel() > 0 or reduction != "mean",
            )  # fmt: skip


@pytest.mark.parametrize("layout", losses.layouts())
def test_bce_layouts(layout):
    x = losses.layouts()[layout]
    y = make(*x.shape, seed=4).sigmoid()
    strided = y.transpose(0, -1).contiguous().transpose(0, -1)
    for target in (y, strided):
        check(
            lambda t: F.binary_cross_entropy_with_logits(t, target, target + 1, reduction="none"),  # noqa: B023
            lambda t: TF.binary_cross_entropy_with_logits(
                t, target.double(), target.double() + 1, reduction="none"), x,  # noqa: B023
        )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
def test_bce_at_the_limits(dtype, isa):
    """Large logits: the loss is linear or nothing, and no confident answer cancels."""
    limit = torch.finfo(dtype).max
    values = [0.0, -0.0, 5.0, -5.0, 20.0, -20.0, 80.0, -80.0, 1e4, -1e4, limit, -limit, INF, -INF]
    x = torch.tensor(values, dtype=dtype).repeat_interleave(3)
    y = torch.tensor([0.0, 1.0, 0.25], dtype=dtype).repeat(len(values))
    loss = F.binary_cross_entropy_with_logits(x, y, reduction="none")
    z, t = x.double(), y.double()
    tail = (-z.abs()).exp().log1p()
    part = lambda a, b: torch.where(a == 0, 0.0, a * b)  # noqa: E731
    want = part(1 - t, z.clamp(min=0) + tail) + part(t, (-z).clamp(min=0) + tail)
    assert_near(loss, want, 4, 0, "loss")
    leaf = x.clone().requires_grad_()
    F.binary_cross_entropy_with_logits(leaf, y, reduction="sum").backward()
    slope = (1 - t) * torch.sigmoid(z) - t * torch.sigmoid(-z)
    assert_near(leaf.grad, slope, 4, torch.sigmoid(-z.abs()) * (t == 0.25), "gradient")
    assert F.binary_cross_entropy_with_logits(torch.tensor([torch.nan]), y[:1].float()).isnan()
