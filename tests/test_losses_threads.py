"""Results of softmax and of the losses depend neither on threads nor on a row's neighbours."""

import os
from concurrent.futures import ThreadPoolExecutor

import losses
import pytest
import torch
from losses import describe, make, probabilities, targets, weights
from support import DTYPES, threads

from fastact import functional as F

ALL = {"return_lse": True, "return_entropy": True}
SHAPES = [(7001, 10), (1003, 70), (150, 2501), (3, 33, 3001), (5, 100, 301)]


def results(x):
    """Outputs, first and second gradients."""
    c, found = x.shape[1], []
    w = weights(c, x.dtype)
    for reduction in ("none", "mean", "sum"):
        for target, options in (
            (targets(x), {}), (targets(x), {"weight": w, "label_smoothing": 0.1, "softcap": 5.0}),
            (probabilities(x), ALL),
        ):  # fmt: skip
            outputs = losses.ours(x, target, reduction=reduction, **options)
            grads = [losses.random_like(t, 1) for t in outputs]
            found += losses.derivatives(
                lambda t: losses.ours(t, target, reduction=reduction, **options),  # noqa: B023
                x, grads, losses.random_like(x, 2), True,
            )  # fmt: skip
        y = probabilities(x)
        bce = lambda t: (F.binary_cross_entropy_with_logits(t, y, reduction=reduction),)  # noqa: B023, E731
        nll = lambda t: (F.nll_loss(t, targets(x), w, reduction=reduction),)  # noqa: B023, E731
        for f in (bce, nll):
            found += losses.derivatives(f, x, [losses.random_like(f(x)[0], 1)],
                                        losses.random_like(x, 2), True)  # fmt: skip
    for op in (F.softmax, F.log_softmax):
        found += losses.derivatives(lambda t: (op(t, 1),), x, [losses.random_like(x, 1)],  # noqa: B023
                                    losses.random_like(x, 2), True)  # fmt: skip
    return found


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES[::2], ids=describe)
def test_bitwise_equal_for_any_number_of_threads(dtype, shape):
    x = make(*shape, dtype=dtype)
    with threads(1):
        one = results(x)
    for count in sorted({2, 3, os.cpu_count() or 4}):
        with threads(count):
            for a, b in zip(one, results(x), strict=True):
                assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
@pytest.mark.parametrize("shape", [(70, 10), (70, 64), (40, 65), (35, 1100), (2, 40, 35)], ids=str)
def test_a_row_does_not_depend_on_its_neighbours(shape, dtype, isa):
    """Alone, at another place, and beside rows of huge numbers, infinities and NaN."""
    x = make(*shape, dtype=dtype)
    rows = x.movedim(1, -1).reshape(-1, shape[1])
    t = targets(rows, ignored=False)
    w = weights(shape[1], dtype)

    def run(x, t):
        leaf = x.detach().requires_grad_()
        outputs = F.cross_entropy(leaf, t, w, reduction="none", label_smoothing=0.1, z_loss=0.1,
                                  softcap=20.0, **ALL)  # fmt: skip
        grads = [torch.ones_like(o) for o in outputs]
        (first,) = torch.autograd.grad(outputs, leaf, grads, create_graph=True)
        (second,) = torch.autograd.grad(first, leaf, x)
        soft = [f(x, 1) for f in (F.softmax, F.log_softmax)]
        return [y.detach().movedim(1, -1).reshape(-1, shape[1]) if y.shape == x.shape else
                y.detach().reshape(-1) for y in (*outputs, first, second, *soft)]  # fmt: skip

    position = t.view(x.sum(1).shape)
    whole = run(x, position)
    for start in (1, 31, 33):
        for a, b in zip(run(rows[start:].clone(), t[start:].clone()), whole, strict=True):
            if x.dim() == 2:
                assert torch.equal(a, b[start:])
    for row in (0, 5, len(rows) - 1):
        if x.dim() == 2:
            for a, b in zip(run(x[row : row + 1].clone(), t[row : row + 1]), whole, strict=True):
                assert torch.equal(a, b[row : row + 1])
        for poison in (torch.nan, torch.inf, -torch.inf, 1e4):
            mask = torch.ones_like(position, dtype=torch.bool)
            mask.view(-1)[row] = False
            spoiled = x.masked_fill(mask.unsqueeze(1), poison)
            for a, b in zip(run(spoiled, position), whole, strict=True):
                assert torch.equal(a[row], b[row]), poison


def test_concurrent_calls():
    x = [make(200, 500, seed=i) for i in range(8)]
    t = targets(x[0])
    want = [F.cross_entropy(a, t) for a in x]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for a, b in zip(pool.map(lambda a: F.cross_entropy(a, t), x), want, strict=True):
                assert torch.equal(a, b)


def test_backward_in_another_thread():
    x = make(200, 500).requires_grad_()
    loss = F.cross_entropy(x, targets(x))
    with ThreadPoolExecutor(1) as pool:
        (there,) = pool.submit(torch.autograd.grad, loss, x).result()
    assert torch.equal(there, torch.autograd.grad(F.cross_entropy(x, targets(x)), x)[0])
