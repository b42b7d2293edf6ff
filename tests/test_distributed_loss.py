"""fastact.distributed.cross_entropy against the plain function on the whole logits."""

import losses
import pytest
import torch
import torch.distributed as dist
from losses import make, probabilities, targets, weights
from ranks import WORLD, Cases, group
from support import BACKENDS

import fastact
from fastact import functional as F
from fastact.distributed import cross_entropy

cases = Cases(__name__)

# Where the shards end, by the number of ranks: uneven ones, and empty ones first, amid and last.
CUTS = {
    1: ((0, 70),),
    2: ((0, 35, 70), (0, 69, 70), (0, 0, 70)),
    4: ((0, 18, 36, 54, 70), (0, 30, 30, 65, 70), (0, 0, 66, 70, 70)),
}
OPTIONS = {
    "plain": {},
    "none": {"reduction": "none"},
    "sum": {"reduction": "sum", "ignore_index": 3},
    "weight": {"weight": True},
    "smoothing": {"label_smoothing": 0.1},
    "weight, smoothing": {"weight": True, "label_smoothing": 0.3, "reduction": "none"},
    "all smoothing": {"label_smoothing": 1.0},
    "z_loss": {"z_loss": 0.1},
    "softcap": {"softcap": 4.0},
    "normalizer": {"normalizer": 3.5},
    "lse": {"return_lse": True},
    "entropy": {"return_entropy": True, "reduction": "sum"},
    "all": {"weight": True, "label_smoothing": 0.2, "z_loss": 0.1, "softcap": 4.0,
            "return_lse": True, "return_entropy": True, "normalizer": 2.0},
    "inplace": {"inplace_backward": True},
    "inplace, all": {"inplace_backward": True, "weight": True, "label_smoothing": 0.2,
                     "z_loss": 0.1, "softcap": 4.0, "return_entropy": True},
}  # fmt: skip


def as_tuple(result):
    return result if isinstance(result, tuple) else (result,)


def results(function, x, *args, **options):
    """Outputs, and the gradient by x with a gradient for every output."""
    leaf = x.detach().requires_grad_()
    # Something computes them, so that they can be overwritten.
    outputs = as_tuple(function(leaf * 1, *args, **options))
    total = sum((t * losses.random_like(t, i)).sum() for i, t in enumerate(outputs))
    return [t.detach() for t in outputs], torch.autograd.grad(total, leaf)[0]


def compare(x, target, cuts, ulps=8, **options):
    """The loss of shards against that of the whole, and against float64 no worse than it."""
    dim = losses.class_dim(x)
    ranks = len(cuts) - 1
    among = group(ranks)
    if among is None:
        return
    rank = dist.get_rank(among)

    def shard(t, dim):
        return t.narrow(dim, cuts[rank], cuts[rank + 1] - cuts[rank])

    weight = options.pop("weight", None)
    if weight is True:
        weight = weights(x.shape[dim], x.dtype)
    theirs, their_grad = results(F.cross_entropy, x, target, weight, **options)
    own_target = shard(target, dim) if target.is_floating_point() else target
    own_weight = None if weight is None else shard(weight, 0)
    own, own_grad = results(
        cross_entropy, shard(x, dim), own_target, own_weight, group=among, **options
    )
    for a, b in zip((*own, own_grad), (*theirs, shard(their_grad, dim)), strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        finite = b[b.isfinite()].abs().double()
        scale = finite.max().item() if finite.numel() else 0.0
        losses.assert_near(a, b.double(), ulps, scale, f"rank {rank}")


@cases.add(ranks=(1, 2, 4), dtype=(torch.float32, torch.float64, torch.bfloat16), options=OPTIONS)
def indices(ranks, dtype, options):
    x = make(7, 70, dtype=dtype, scale=3.0)
    choices = OPTIONS[options]
    target = targets(x, ignore_index=choices.get("ignore_index", -100))
    for cuts in CUTS[ranks]:
        compare(x, target, cuts, **choices)


@cases.add(
    ranks=(2, 4),
    options=("plain", "weight", "weight, smoothing", "all smoothing", "all", "inplace, all"),
)
def class_probabilities(ranks, options):
    for dtype in (torch.float32, torch.bfloat16):
        x = make(7, 70, dtype=dtype)
        for cuts in CUTS[ranks]:
            compare(x, probabilities(x), cuts, **OPTIONS[options])


@cases.add(backend=("torch", "auto", *BACKENDS[1:]), options=("plain", "all", "inplace, all"))
def other_backends(backend, options):
    """In torch's ops, where no kernel serves, and by Numba's kernels."""
    with fastact.backend(backend):
        for dtype in (torch.float32, torch.float64):
            x = make(7, 70, dtype=dtype)
            for cuts in CUTS[4]:
                compare(x, targets(x), cuts, ulps=32, **OPTIONS[options])
                compare(x, probabilities(x), cuts, ulps=32, **OPTIONS[options])


@cases.add()
def shapes():
    """K dimensions, unbatched, many classes, no rows, strides."""
    for options in ("plain", "none", "all"):
        choices = OPTIONS[options]
        for shape in ((2, 70, 3, 5), (70,), (3, 70, 1), (0, 70), (2, 70, 0)):
            x = make(*shape)
            compare(x, targets(x), CUTS[4][1], **choices)
        x = make(5, 3000, scale=5.0)
        compare(x, targets(x), (0, 1500, 1500, 1501, 3000), **choices)
        x = make(70, 6).t()
        compare(x, targets(x).to(torch.uint8), CUTS[4][0], **(choices | {"ignore_index": 156}))


@cases.add(backend=BACKENDS)
def extreme_rows(backend):
    """-inf, inf, NaN, a maximum that every rank has, confident targets, huge logits."""
    with fastact.backend(backend):
        compare_extreme_rows()


def compare_extreme_rows():
    inf, nan = float("inf"), float("nan")
    for dtype in (torch.float32, torch.bfloat16):
        x = make(12, 70, dtype=dtype)
        target = torch.arange(12) * 6
        x[0] = -inf
        x[1, :30] = -inf
        x[2, 30:] = -inf
        x[3, 40] = inf
        x[4, 50] = nan
        x[5] = 1.5
        x[6, 36] = 40.0
        x[7, 0] = 40.0
        x[8] *= 1e4
        x[9] = -inf
        x[9, 69] = 0.0
        x[10, 60] = -inf
        for options in ("none", "all", "entropy", "z_loss"):
            for cuts in CUTS[4]:
                compare(x, target, cuts, **(OPTIONS[options] | {"reduction": "none",
                                                               "normalizer": None}))  # fmt: skip
        compare(x, torch.full((12,), -100), CUTS[4][0])
    # Masked classes without weight count for nothing, also where smoothing reaches them.
    x = make(4, 70)
    x[:, :30] = -inf
    weight = weights(70)
    weight[:30] = 0.0
    for cuts in CUTS[4]:
        compare(x, torch.tensor([30, 69, 40, 50]), cuts, weight=weight, label_smoothing=0.1)


@cases.add()
def confident_targets_keep_their_digits():
    """Losses down to 1e-10, whose maximum is on another rank than the rest."""
    x = torch.zeros(4, 8)
    x[:, 2] = torch.tensor([12.0, 16.0, 20.0, 24.0])
    target = torch.full((4,), 2)
    exact = losses.exact(x.double(), target, reduction="none")[0]
    rank = dist.get_rank()
    shard = x[:, 2 * rank : 2 * rank + 2].clone().requires_grad_()
    loss = cross_entropy(shard, target, reduction="none")
    loss.sum().backward()
    torch.testing.assert_close(loss.double(), exact, rtol=5e-7, atol=0)
    if rank == 1:
        torch.testing.assert_close(
            shard.grad[:, 0].double(), torch.expm1(-exact), rtol=5e-7, atol=0
        )


@cases.add(backend=BACKENDS)
def capped_targets_keep_their_digits(backend):
    """As a kernel caps it, the target's logit is the row's maximum, and their difference 0."""
    x = torch.full((4, 8), -100.0)
    x[:, 2] = torch.tensor([20.0, 25.0, 31.0, 77.0])
    target = torch.full((4,), 2)
    rank = dist.get_rank()
    with fastact.backend(backend):
        whole = F.cross_entropy(x, target, reduction="none", softcap=30.0)
        shard = x.chunk(4, 1)[rank].clone().requires_grad_()
        loss = cross_entropy(shard, target, reduction="none", softcap=30.0)
        loss.sum().backward()
    torch.testing.assert_close(loss, whole, rtol=1e-5, atol=0)
    if rank == 1:
        assert (shard.grad[:, 0] < 0).all()


@cases.add()
def dtypes_are_the_plain_functions():
    """Probabilities and weights of a wider dtype are promoted to."""
    x, rank = make(5, 8, dtype=torch.bfloat16), dist.get_rank()
    q, weight = probabilities(x).float(), weights(8, torch.float64)
    for w in (None, weight):
        expected = F.cross_entropy(x, q, w)
        own = None if w is None else w.chunk(4)[rank]
        loss = cross_entropy(x.chunk(4, 1)[rank], q.chunk(4, 1)[rank], own)
        assert loss.dtype == expected.dtype == (torch.float32 if w is None else torch.float64)
        torch.testing.assert_close(loss, expected)


@cases.add()
def operands_that_were_overwritten_are_refused():
    x, rank = make(5, 8), dist.get_rank()
    q, weight = probabilities(x), weights(8)
    for overwritten in range(2):
        shard = x.chunk(4, 1)[rank].clone().requires_grad_()
        operands = q.chunk(4, 1)[rank].clone(), weight.chunk(4)[rank].clone()
        loss = cross_entropy(shard, *operands)
        operands[overwritten].zero_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@cases.add()
def every_rank_gets_the_same_bits():
    x = make(9, 70)
    rank = dist.get_rank()
    found = cross_entropy(x.chunk(4, 1)[rank], targets(x), reduction="none", return_lse=True)
    for t in found:
        everybodys = [torch.empty_like(t) for _ in range(WORLD)]
        dist.all_gather(everybodys, t)
        assert all(torch.equal(t, other) for other in everybodys)


@cases.add()
def two_small_all_reduces_and_nothing_backward():
    """Beside one number for each rank; nothing like the logits travels."""
    sent = []
    original = dist.all_reduce

    def counted(t, *args, **kwargs):
        sent.append(t.numel())
        return original(t, *args, **kwargs)

    x = make(50, 4000).chunk(4, 1)[dist.get_rank()].requires_grad_()
    dist.all_reduce = counted
    try:
        loss = cross_entropy(x, torch.arange(50))
        assert sent == [WORLD, 50, 3 * 50]
        loss.backward()
        assert len(sent) == 3
    finally:
        dist.all_reduce = original


@cases.add()
def overwrites_the_logits():
    rank = dist.get_rank()
    leaf = make(6, 70).chunk(4, 1)[rank].clone().requires_grad_()
    logits = leaf * 1
    other = (logits * logits).sum()
    cross_entropy(logits, targets(make(6, 70)), inplace_backward=True).backward(retain_graph=True)
    assert torch.equal(logits, leaf.grad)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        other.backward()
    with pytest.raises(RuntimeError, match="is a leaf"):
        cross_entropy(leaf, targets(make(6, 70)), inplace_backward=True)


@cases.add()
def autocast_and_differentiable_normalizer():
    rank = dist.get_rank()
    x, target = make(6, 70, dtype=torch.bfloat16), targets(make(6, 70))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_entropy(x.chunk(4, 1)[rank], target)
        expected = F.cross_entropy(x, target)
    assert loss.dtype == expected.dtype == torch.float32
    torch.testing.assert_close(loss, expected)
    found = []
    for function, logits in ((cross_entropy, x.chunk(4, 1)[rank]), (F.cross_entropy, x)):
        normalizer = torch.tensor(3.0, requires_grad=True)
        function(logits, target, normalizer=normalizer).backward()
        found.append(normalizer.grad)
    torch.testing.assert_close(*found, rtol=1e-2, atol=0)


@cases.add()
def bad_input():
    """Refused on every rank, with the names and values that the plain function gives."""
    x, t = make(6, 10).chunk(4, 1)[dist.get_rank()], targets(make(6, 10))
    with pytest.raises(IndexError, match=r"Target 10 is out of bounds: target\[2\].* 10 classes"):
        cross_entropy(x, torch.tensor([0, 1, 10, 2, 3, 4]))
    with pytest.raises(ValueError, match="batch_size"):
        cross_entropy(x, t[:3])
    with pytest.raises(ValueError, match="reduction"):
        cross_entropy(x, t, reduction="max")
    with pytest.raises(RuntimeError, match="label_smoothing"):
        cross_entropy(x, t, label_smoothing=2.0)
    with pytest.raises(RuntimeError, match="weight tensor should be defined"):
        cross_entropy(x, t, torch.ones(10))
    with pytest.raises(ValueError, match="normalizer"):
        cross_entropy(x, t, normalizer=2, reduction="sum")
    with pytest.raises(TypeError, match="'target' must be Tensor"):
        cross_entropy(x, 3)
    leaf = x.clone().requires_grad_()
    with pytest.raises(RuntimeError, match="'weight' cannot require a gradient"):
        cross_entropy(x, t, torch.ones(x.shape[1], requires_grad=True))
    loss = cross_entropy(leaf, t)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        torch.autograd.grad(loss, leaf, create_graph=True)


test_on_every_rank = cases.test()
