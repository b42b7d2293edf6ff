"""Errors of loss and gradient beside torch's own, on the same inputs, against float64."""

import losses
import pytest
import torch
import torch.nn.functional as TF
from losses import describe, make, probabilities, targets, weights
from support import EMULATED, errors

from fastact import functional as F

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = [(64, 10), (64, 64), (32, 100), (8, 2500), (4, 12, 40), (3, 50257), (1, 20011, 3)]


def confident(margin):
    def case(shape, dtype):
        x = make(*shape, dtype=dtype)
        target = targets(x, ignored=False)
        index = target.unsqueeze(1)
        return x.scatter(1, index, torch.full_like(index, margin, dtype=dtype)), target, {}

    return case


def plain(scale, offset=0.0, **options):
    def case(shape, dtype):
        x = make(*shape, dtype=dtype, scale=scale) + offset
        return x, targets(x, ignored=False), options

    return case


def soft(sharp):
    def case(shape, dtype):
        x = make(*shape, dtype=dtype)
        return x, probabilities(x, sharp=sharp), {}

    return case


def one_hot(shape, dtype):
    """One large coefficient and many alike: no float32 sum may take them one by one."""
    x = make(*shape, dtype=dtype)
    hot = TF.one_hot(targets(x, ignored=False), shape[1]).movedim(-1, 1).to(dtype)
    return x, hot, {"label_smoothing": 0.1}


def weighted(shape, dtype):
    x = make(*shape, dtype=dtype)
    return x, targets(x), {"weight": weights(shape[1], dtype), "label_smoothing": 0.1}


CASES = {
    "randn": plain(1.0), "randn * 10": plain(10.0), "randn + 1e4": plain(1.0, 1e4),
    "randn - 1e4": plain(1.0, -1e4), "+20": confident(20.0), "+60": confident(60.0),
    "probabilities": soft(1.0), "sharp probabilities": soft(30.0),
    "one hot, smoothing": one_hot, "smoothing": plain(1.0, label_smoothing=0.1),
    "only smoothing": plain(1.0, label_smoothing=1.0), "weights, smoothing, ignored": weighted,
    "softcap": plain(20.0, softcap=15.0),
}  # fmt: skip


def torchs(x, target, softcap=None, **options):
    z = softcap * torch.tanh(x / softcap) if softcap else x
    return TF.cross_entropy(z, target, **options)


def run(f, x, target, grad, **options):
    """Loss of each row; gradient with random cotangents; the mean."""
    x = x.detach().requires_grad_()
    loss = f(x, target, reduction="none", **options)
    (first,) = torch.autograd.grad(loss, x, grad.to(loss.dtype))
    mean = f(x, target, **options)
    return loss.detach(), first, mean.detach()


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
@pytest.mark.parametrize("name", CASES)
def test_no_larger_than_torchs(name, dtype, isa):
    """The worst over rows of a case, in ulp: of the loss, and of the gradient relative to each
    element's own terms, p and a, since their difference alone may be anything.
    """
    on_cuda = EMULATED or torch.get_default_device().type == "cuda"
    for shape in SHAPES:
        x, target, options = CASES[name](shape, dtype)
        wide = {k: losses.doubled(v) for k, v in options.items()}
        grad = losses.random_like(x.sum(1), 1)
        arguments = (x.double(), losses.doubled(target), grad.double())
        want = run(lambda *a, **o: losses.exact(*a, **o)[0], *arguments, **wide)
        got = run(F.cross_entropy, x, target, grad, **options)
        theirs = run(torchs, x, target, grad, **options)
        tiny = torch.finfo(dtype).smallest_normal
        # Terms of the gradient: what cancels, where coefficients are spread over the classes.
        spread = target.is_floating_point() or options.get("label_smoothing")
        scale = tiny + (want[1].abs().amax(1, True) if spread else 0.0)
        scales = (torch.tensor(tiny), scale * torch.ones_like(want[1]), torch.tensor(tiny))
        for kind, a, b, exact, s in zip(
            ("loss", "gradient", "mean"), got, theirs, want, scales, strict=True
        ):
            mine, their = (float(errors(t, exact, s).max()) for t in (a, b))
            # Both round once, and both compute in another order: what is within one rounding of
            # the exact result is as good as it gets.
            best = 1.0 if dtype != torch.float32 else 4.0
            if name == "softcap" and dtype == torch.float32:
                best = 8.0  # our tanh is 2.5 ulp, and losses are differences of capped logits
            # The CUDA kernels round every coefficient, a product; of few classes the gradients
            # nearly cancel.
            allowed = 1.5 * their if on_cuda and name == "weights, smoothing, ignored" else their
            assert mine <= max(allowed, best), (
                f"{name} {shape} {dtype} {kind}: {mine:.3g} ulp, torch's {their:.3g}"
            )


@pytest.mark.parametrize("classes", [2, 10, 64, 65, 100, 1000, 2500, 50257, 128257])
def test_rows_within_4_ulp(classes, isa):
    """Moderate logits: in float32 by ulp of the exact loss; 16 bits round a float32 once."""
    for dtype in DTYPES:
        for scale in (0.5, 1.0, 3.0):
            x = make(max(4, 4000 // classes), classes, dtype=dtype, scale=scale)
            target = targets(x, ignored=False)
            want = losses.exact(x.double(), target, reduction="none")[0]
            got = F.cross_entropy(x, target, reduction="none")
            theirs = TF.cross_entropy(x, target, reduction="none")
            # The loss of a confident row is an exponential, to which the rounding of the difference
            # d of two logits adds |d| / 2 ulp: more than 4 where it is below exp(-8).
            rows = want > 0.02
            mine, their = (float(errors(t, want)[rows].max()) for t in (got, theirs))
            bound = 4.0 if dtype == torch.float32 else 0.51
            assert mine <= bound, f"{dtype} {scale}: {mine:.3g} ulp, torch's {their:.3g}"


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_beside_torchs(name, isa):
    for dtype in DTYPES:
        for shape in ((64, 10), (32, 100), (8, 2500)):
            for scale, offset in ((1.0, 0.0), (10.0, 0.0), (1.0, 1e4)):
                x = make(*shape, dtype=dtype, scale=scale) + offset
                g = losses.random_like(x, 1)
                results = []
                for f, t in ((getattr(F, name), x), (getattr(torch, name), x),
                             (getattr(torch, name), x.double())):  # fmt: skip
                    t = t.detach().requires_grad_()
                    y = f(t, 1)
                    results.append((y.detach(), *torch.autograd.grad(y, t, g.to(t.dtype))))
                for i, kind in enumerate(("value", "gradient")):
                    exact = results[2][i]
                    # The gradient is a difference of terms of this size.
                    terms = results[2][0] if name == "softmax" else torch.ones_like(exact)
                    size = (terms * g.double().abs()).amax(1, True).expand_as(exact) if i else None
                    mine, their = (float(errors(r[i], exact, size).max()) for r in results[:2])
                    best = 1.0 if dtype != torch.float32 else 4.0
                    # Half an ulp: the sum of the exponentials rounds in another order.
                    assert mine <= max(their + 0.5, best), (
                        f"{name} {kind} {dtype} {shape} {scale} {offset}: {mine:.3g} ulp, "
                        f"torch's {their:.3g}"
                    )


def test_bce_beside_torchs(isa):
    for dtype in DTYPES:
        x = torch.linspace(-90, 90, 20001, dtype=torch.float64).to(dtype)
        for target in (0.0, 1.0, 0.3):
            y = torch.full_like(x, target)
            results = []
            for f, t in ((F, x), (TF, x)):
                t = t.detach().requires_grad_()
                loss = f.binary_cross_entropy_with_logits(t, y, reduction="none")
                results.append((loss.detach(), torch.autograd.grad(loss.sum(), t)[0]))
            z, p = x.double(), y.double()
            value = (1 - p) * TF.softplus(z, threshold=700) + p * TF.softplus(-z, threshold=700)
            slope = (1 - p) * torch.sigmoid(z) - p * torch.sigmoid(-z)
            scale = torch.sigmoid(-z.abs()) + torch.finfo(dtype).smallest_normal
            for i, exact in enumerate((value, slope)):
                mine, their = (float(errors(r[i], exact, scale if i else None).max())
                               for r in results)  # fmt: skip
                best = 1.0 if dtype != torch.float32 else 4.0
                assert mine <= max(their, best), f"{dtype} {target} {i}: {mine:.3g}, {their:.3g}"
