"""The CUDA kernels over rows whose classes lie apart, (N, C, d1); run as test_cuda.py is."""

import ctypes
import itertools
import os

import losses
import pytest
import support
import torch
import torch.nn.functional as TF
from losses import describe, make, probabilities, targets, weights
from support import DTYPES
from test_cuda import ALL, assert_same, loss_and_gradient, misaligned, of_rows

from fastact import functional as F

pytestmark = pytest.mark.usefixtures("on_gpu")

# Classes and inner sizes on both sides of where csrc/cuda/plan.h takes more threads, and runs.
STRIDED = [(3, 49), (63, 2), (64, 2), (65, 5), (128, 9), (256, 3), (257, 17), (1000, 2), (1025, 9)]


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
@pytest.mark.parametrize(("classes", "inner"), STRIDED)
def test_strided_rows(classes, inner, dtype):
    x = make(3, classes, inner, dtype=dtype)
    w = weights(classes, dtype)
    losses.check(x, targets(x), reduction="none", **ALL)
    losses.check(x, targets(x), weight=w, label_smoothing=0.1, z_loss=1e-3)
    losses.check(x, probabilities(x), softcap=5.0, reduction="sum", **ALL)
    for op in ("softmax", "log_softmax"):
        ours, theirs = getattr(F, op), getattr(TF, op)
        grads, v = [losses.random_like(x, 3)], losses.random_like(x, 4)
        got = losses.derivatives(lambda t: [ours(t, 1)], x, grads, v, True)  # noqa: B023
        want = losses.derivatives(
            lambda t: [theirs(t, 1)], x.double(), [g.double() for g in grads], v.double(), True  # noqa: B023
        )  # fmt: skip
        for a, b in zip(got, want, strict=True):
            losses.assert_near(a, b, 16, float(b.abs().max()), op)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=describe)
@pytest.mark.parametrize("shape", [(2, 50257, 2), (1, 20011, 9)], ids=str)
def test_long_strided_rows_keep_their_digits(shape, dtype):
    """One float for thousands of equal terms loses three digits: these add up to 0.1 and to 1."""
    x = make(*shape, dtype=dtype, scale=0.1)
    target = targets(x, ignored=False)
    one_hot = torch.zeros_like(x).scatter(1, target.unsqueeze(1), 1)
    options = {"label_smoothing": 0.1, "reduction": "none", "return_lse": True}
    for t in (one_hot, target):
        losses.check(x, t, second=False, ulps=8, **options)
        losses.check(torch.ones_like(x), t, second=False, ulps=8, **options)
    for op, theirs in ((F.softmax, TF.softmax), (F.log_softmax, TF.log_softmax)):
        y = op(x.float(), 1)
        losses.assert_near(y, theirs(x.double(), 1), 8, 0, op.__name__)


def test_a_lane_begins_anew():
    """785 equal terms in each lane: one sum of them is off by their roundings, all one way."""
    x = torch.zeros(1, 50257, 9)
    target = torch.full((1, 9), 3)
    one_hot = torch.zeros_like(x)
    one_hot[:, 3] = 1
    want = losses.exact(x[:, :, :1].double(), target[:, :1], label_smoothing=0.1, reduction="none")
    got = F.cross_entropy(x, one_hot, label_smoothing=0.1, reduction="none")
    losses.assert_near(got, want[0].expand(1, 9), 10, 0, "loss")


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
@pytest.mark.parametrize(("classes", "inner"), STRIDED)
def test_a_strided_rows_bits_depend_on_nothing_else(classes, inner, dtype):
    """Not on the batch, its place in it, its neighbours' numbers, or the address."""
    x = make(4, classes, inner, dtype=dtype)
    target = targets(x, ignored=False)
    want = of_rows(x, target)
    for name, choose in {
        "batch": lambda t: t[torch.tensor([3, 1, 0, 2])],
        "one": lambda t: t[2:3],
        "inner": lambda t: t.flip(-1),
    }.items():
        got = of_rows(misaligned(choose(x).contiguous(), 1), choose(target).contiguous())
        assert_same(got, [choose(t) for t in want], name)
    # Neighbours that are ignored, or not numbers.
    x[:, :, 1:], target[:, 1:] = torch.nan, -100
    got = of_rows(x, target)
    assert_same([t[..., 0] for t in got], [t[..., 0] for t in want], "neighbours")


@pytest.mark.parametrize("classes", [10, 64, 1000])
def test_strided_rows_that_are_ignored_or_out_of_range(classes):
    """Beside others in one block, whose threads all come to its barriers; in place, too."""
    x = make(5, classes, 7)
    target = targets(x)
    target[2, 3], target[4, :], target[0, 5] = classes, -100, -1
    poisoned = torch.where((target == -100).unsqueeze(1), torch.nan, x)
    bad = (target == classes) | (target == -1)
    for options in ({}, {"label_smoothing": 0.1, "softcap": 9.0}):
        loss, grad = loss_and_gradient(poisoned, target, **options)
        want, want_grad = loss_and_gradient(x, target.masked_fill(bad, -100), **options)
        assert torch.equal(loss.isnan(), bad)
        assert_same([loss.nan_to_num(0), grad], [want, want_grad])
        logits = (poisoned * 1).requires_grad_() * 1
        F.cross_entropy(
            logits, target, reduction="sum", inplace_backward=True, **options
        ).backward()
        assert_same([logits], [want_grad])
        early = loss_and_gradient(poisoned, target, expected_grad=1, **options)
        assert_same([early[0].nan_to_num(0), early[1]], [want, want_grad])


class Shared(ctypes.Structure):
    """What tests/emulation/interface.cpp says of csrc/cuda/plan.h."""

    _fields_ = [(name, ctypes.c_int) for name in
                ("lanes", "across", "threads", "rows_per_block", "parts")]  # fmt: skip


@pytest.mark.skipif(not support.EMULATED, reason="of the emulation")
def test_strided_rows_fill_a_gpu():
    library = ctypes.CDLL(os.environ["FASTACT_LIBRARY"])
    library.emulation_plan.restype = Shared

    def plan(outer, classes, inner, itemsize):
        sizes = map(ctypes.c_int64, (outer, classes, inner, itemsize))
        found = library.emulation_plan(*sizes)
        blocks = -(-outer * inner // found.rows_per_block)
        return found, blocks, blocks * found.threads

    _, blocks, threads = plan(8, 50257, 2, 4)
    assert (blocks, threads) == (16, 8192)
    _, blocks, threads = plan(32, 1000, 49, 4)
    assert blocks >= 132
    assert threads >= 32 * 1568
    for itemsize, classes, inner in itertools.product(
        (2, 4, 8), (2, 10, 64, 150, 1000, 50257, 2**20), (2, 3, 4, 8, 9, 49, 2**18)
    ):
        found, _, _ = plan(8, classes, inner, itemsize)
        assert 128 <= found.threads <= (512 if itemsize < 8 else 256)
        # A sector of memory in one access, or half of what there is.
        assert found.across * itemsize >= 32 or found.across * 2 >= inner
        assert found.lanes == 1 or found.across <= 16
        # No batch decides on a row's sums.
        again, _, _ = plan(1, classes, inner, itemsize)
        assert (again.lanes, again.across, again.parts) == (found.lanes, found.across, found.parts)
