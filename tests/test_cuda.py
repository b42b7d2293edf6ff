"""The CUDA kernels: results, and what only a GPU has: alignment, streams, graphs, no waiting.

They run on a GPU where there is one, else on the CPU by emulation:
FASTACT_LIBRARY=build/emulation/libfastact_emulated.so. test_cuda_runtime.py has what needs a GPU.
"""

import itertools

import losses
import pytest
import support
import torch
import torch.nn.functional as TF
from kept import kept_or_not
from losses import describe, make, probabilities, targets, weights
from support import CASES, DTYPES, check, labels

from fastact import functional as F

pytestmark = pytest.mark.usefixtures("on_gpu")

ALL = {"return_lse": True, "return_entropy": True}
# Rows of so many 16-byte chunks: on both sides of where csrc/cuda/plan.h takes more threads.
CHUNKS = (0, 1, 2, 4, 8, 16, 32, 63, 64, 511, 512, 1024, 1025, 2049)
FEW = [case for case in CASES if case.label in ("gelu", "leaky_relu", "relu", "silu_mul", "swiglu")]


def bits(t):
    """For comparisons in which NaN equals NaN, and -0 is not 0."""
    return (
        t.detach().contiguous().view({8: torch.int64, 4: torch.int32, 2: torch.int16}[t.itemsize])
    )


def assert_same(got, want, name=""):
    for a, b in zip(got, want, strict=True):
        assert torch.equal(bits(a), bits(b)), name


def misaligned(t, offset):
    """t's numbers that many elements past a multiple of 16 bytes, between NaN."""
    buffer = torch.full((t.numel() + 64,), torch.nan, dtype=t.dtype)
    view = buffer[16 + offset : 16 + offset + t.numel()].view(t.shape)
    return view.copy_(t)


# --------------------------------------------------------------------------------------------------
# Elementwise


@pytest.mark.parametrize("dtype", DTYPES, ids=labels)
@pytest.mark.parametrize("case", CASES, ids=labels)
def test_values_and_derivatives(case, dtype):
    everything = support.layouts(dtype)
    names = everything if case in FEW else ("contiguous", "transposed", "offset", "rows with gaps")
    for name in names:
        x = everything[name]
        other = (torch.randn(x.shape, dtype=torch.float64) * 2).to(dtype)
        check(case, *(x, other)[: case.tensors], name=name)


def evaluate(case, tensors, grad):
    tensors = [t.detach().requires_grad_() for t in tensors]
    y = case.function(*tensors)
    return (y.detach(), *torch.autograd.grad(y, tensors, grad))


@pytest.mark.parametrize("dtype", DTYPES, ids=labels)
@pytest.mark.parametrize("case", FEW, ids=labels)
def test_every_alignment(case, dtype):
    """Each operand anywhere: the bits of aligned ones. Sizes around chunks and blocks."""
    width = 16 // dtype.itemsize
    halves = 1 if case.dim is None else 2
    for n in (1, width - 1, width, width + 1, 3 * width + 1, 256 * width, 512 * width + 1):
        shape = (halves * n,)
        x = [make(*shape, dtype=dtype, seed=i) for i in range(case.tensors)]
        grad = make(n, dtype=dtype, seed=9)
        want = evaluate(case, x, grad)
        offsets = itertools.product(range(width), (0, 1)) if n <= 4 * width else [(1, 0), (0, 3)]
        for first, second in offsets:
            moved = [misaligned(t, first + i * second) for i, t in enumerate(x)]
            got = evaluate(case, moved, misaligned(grad, second))
            assert_same(got, want, f"{case.label} {n} at {first}, {second}")


@pytest.mark.parametrize("dtype", DTYPES, ids=labels)
def test_nothing_is_written_beside_a_view(dtype):
    for offset, n in itertools.product(range(9), (1, 7, 8, 9, 40)):
        x = make(n, dtype=dtype)
        view = misaligned(x, offset)
        F.silu(view, inplace=True)
        assert_same([view], [F.silu(x)])
        assert int(view._base.isnan().sum()) == 64
        rows = misaligned(make(6, n, dtype=dtype), offset)[1::2]
        want = F.silu(rows)
        F.silu(rows, inplace=True)
        assert_same([rows], [want])
        assert int(view._base.isnan().sum()) == 64


@pytest.mark.parametrize("case", FEW, ids=labels)
def test_gradients_that_are_expanded(case):
    """y.sum().backward() hands in one number for all."""
    x = [make(6, 10, seed=i) for i in range(case.tensors)]
    ones = torch.ones_like(case.function(*x))
    assert_same(evaluate(case, x, torch.ones(()).expand(ones.shape)), evaluate(case, x, ones))


# --------------------------------------------------------------------------------------------------
# Rows


def classes_of(chunks, dtype):
    """An odd number, so that every row begins at an address of its own."""
    return max(3, (chunks * 16 // dtype.itemsize) | 1)


def rows_of(dtype, chunks, rows=5):
    return make(rows, classes_of(chunks, dtype), dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
@pytest.mark.parametrize("chunks", CHUNKS)
def test_cross_entropy(chunks, dtype):
    x = rows_of(dtype, chunks)
    losses.check(x, targets(x), reduction="none", **ALL)
    losses.check(x, targets(x), weight=weights(x.shape[1], dtype), label_smoothing=0.1, z_loss=1e-3)
    losses.check(x, probabilities(x), softcap=5.0, reduction="sum", **ALL)
    losses.check(x[:, :-1], targets(x[:, :-1]))  # rows with gaps


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_softmax(op, chunks, dtype):
    ours, theirs = getattr(F, op), getattr(TF, op)
    for x in (rows_of(dtype, chunks), rows_of(dtype, chunks).t().contiguous()):
        dim = 1 if x.shape[0] == 5 else 0
        grads, v = [losses.random_like(x, 3)], losses.random_like(x, 4)
        got = losses.derivatives(lambda t: [ours(t, dim)], x, grads, v, True)  # noqa: B023
        want = losses.derivatives(
            lambda t: [theirs(t, dim)], x.double(), [g.double() for g in grads], v.double(), True  # noqa: B023
        )  # fmt: skip
        for a, b in zip(got, want, strict=True):
            # 16 bits: what is saved is rounded.
            losses.assert_near(a, b, 16, float(b.abs().max()), f"{op} {tuple(x.shape)}")


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
def test_binary_cross_entropy(dtype):
    for n, reduction in itertools.product((0, 1, 33, 8191, 8193, 20001), ("none", "mean", "sum")):
        x, y = make(n, dtype=dtype), torch.sigmoid(make(n, dtype=dtype, seed=2))
        leaf, wide = x.clone().requires_grad_(), x.double().requires_grad_()
        args = (y, y + 0.5)
        got = F.binary_cross_entropy_with_logits(leaf, *args, reduction=reduction, pos_weight=y)
        want = TF.binary_cross_entropy_with_logits(
            wide, *(t.double() for t in args), reduction=reduction, pos_weight=y.double()
        )
        losses.assert_near(got, want.detach(), 8, 1, f"{n} {reduction}")
        grad = losses.random_like(got, 5)
        got, want = (torch.autograd.grad(t, u, grad.to(t.dtype))[0]
                     for t, u in ((got, leaf), (want, wide)))  # fmt: skip
        losses.assert_near(got, want, 8, float(grad.abs().max()) if n else 0, f"{n} {reduction}")


@pytest.mark.parametrize("classes", [50257, 128257])
def test_vocabularies(classes):
    for dtype in (torch.float32, torch.bfloat16):
        x = make(3, classes, dtype=dtype)
        losses.check(x, targets(x), second=False, reduction="none", **ALL)
        losses.check(x, targets(x), second=False, label_smoothing=0.1, softcap=30.0)


def loss_and_gradient(x, target, reduction="none", **options):
    x = x.detach().requires_grad_()
    loss = F.cross_entropy(x, target, reduction=reduction, **options)
    return loss.detach(), torch.autograd.grad(loss.sum(), x)[0]


def of_rows(x, target):
    """What rows of logits give, with options and without."""
    loss, grad = loss_and_gradient(x, target, label_smoothing=0.1, z_loss=0.01)
    return [loss, grad, *loss_and_gradient(x, target), F.softmax(x, 1), F.log_softmax(x, 1)]


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
@pytest.mark.parametrize("chunks", [1, 8, 64, 2049])
def test_ignored_rows_are_not_read(chunks, dtype):
    x = rows_of(dtype, chunks, rows=6)
    target = targets(x, ignored=False)
    target[::2] = -100
    poisoned = x.clone()
    poisoned[::2] = torch.nan
    for options in ({}, {"label_smoothing": 0.1, "softcap": 9.0}):
        for reduction in ("none", "mean", "sum"):
            want = loss_and_gradient(x, target, reduction, **options)
            got = loss_and_gradient(poisoned, target, reduction, **options)
            assert_same(got, want)
            assert (got[1][::2] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
@pytest.mark.parametrize("chunks", [0, 8, 64, 1025])
def test_a_target_out_of_range(chunks, dtype):
    """NaN in that row's loss, a zero gradient, and the neighbours do not notice."""
    x = rows_of(dtype, chunks, rows=7)
    target = targets(x, ignored=False)
    alone = loss_and_gradient(x, target)
    for number in (x.shape[1], -1, -101, 2**31, 2**40, -(2**63)):
        broken = target.clone()
        broken[3] = number
        for options in ({}, {"label_smoothing": 0.1}):
            loss, grad = loss_and_gradient(x, broken, **options)
            assert loss[3].isnan()
            assert (grad[3] == 0).all()
            if not options:
                keep = [0, 1, 2, 4, 5, 6]
                assert_same((loss[keep], grad[keep]), (alone[0][keep], alone[1][keep]))
        assert loss_and_gradient(x, broken, "mean")[0].isnan()


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
@pytest.mark.parametrize("chunks", CHUNKS)
def test_infinities_and_nan(chunks, dtype):
    """Rows that begin with -inf; rows of it, and NaN, give NaN, in no other row."""
    x = rows_of(dtype, chunks, rows=4)
    target = torch.full((4,), x.shape[1] - 1)
    x[1, :-1] = -torch.inf
    x[2, : x.shape[1] // 2] = -torch.inf
    losses.check(x, target, second=False, reduction="none")
    before = loss_and_gradient(x, target)
    for number in (torch.nan, -torch.inf, torch.inf):
        for place in (slice(None), slice(0, 1), slice(x.shape[1] - 1, None)):
            if number == -torch.inf and place != slice(None):
                continue
            broken = x.clone()
            broken[3, place] = number
            loss, grad = loss_and_gradient(broken, target)
            assert loss[3].isnan(), (number, place)
            assert grad[3].isnan().any(), (number, place)
            assert_same((loss[:3], grad[:3]), (before[0][:3], before[1][:3]))
            for y in (F.softmax(broken, 1), F.log_softmax(broken, 1)):
                assert y[3].isnan().any(), (number, place)
                assert not y[0].isnan().any()


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
@pytest.mark.parametrize("op", ["silu", "gelu", "sigmoid", "softplus", "mish", "elu", "tanh"])
def test_nan_comes_out_as_nan(op, dtype):
    """A GPU's NaN has all bits set, which tricks with exponents have to survive."""
    x = torch.full((37,), torch.nan, dtype=dtype).requires_grad_()
    y = getattr(F, op)(x)
    assert y.isnan().all()
    if op != "elu":  # 1, as torch
        assert torch.autograd.grad(y.sum(), x)[0].isnan().all()
    ones = torch.ones_like(x)
    loss = F.binary_cross_entropy_with_logits(x, ones, reduction="none")
    assert loss.isnan().all()
    assert torch.autograd.grad(loss.sum(), x)[0].isnan().all()


@pytest.mark.parametrize("chunks", [0, 8, 2049])
def test_all_rows_ignored(chunks):
    x = rows_of(torch.float32, chunks)
    target = torch.full((5,), -100)
    loss, grad = loss_and_gradient(x, target, "mean")
    assert loss.isnan()
    loss, grad = loss_and_gradient(x, target, "sum")
    assert loss == 0
    assert (grad == 0).all()


def test_nothing_to_do():
    """No rows, no classes, no elements."""
    assert F.silu(torch.empty(0, 3)).shape == (0, 3)
    for shape in ((0, 5), (0, 0), (3, 0)):
        assert F.softmax(torch.empty(shape), 1).shape == shape
        assert F.log_softmax(torch.empty(shape), 0).shape == shape
    x = torch.empty(0, 5, requires_grad=True)
    target = torch.empty(0, dtype=torch.int64)
    assert F.cross_entropy(x, target).isnan()
    loss = F.cross_entropy(x, target, reduction="sum")
    assert loss == 0
    assert torch.autograd.grad(loss, x)[0].shape == (0, 5)
    assert F.cross_entropy(torch.empty(3, 0), torch.full((3,), -100), reduction="sum") == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
@pytest.mark.parametrize("chunks", CHUNKS)
def test_a_rows_bits_depend_on_nothing_else(chunks, dtype):
    """Its place, its address and its neighbours; and twice the same is the same."""
    x = rows_of(dtype, chunks, rows=9)
    target = targets(x, ignored=False)
    want = of_rows(x, target)
    order = torch.randperm(9)
    assert_same(of_rows(x[order], target[order]), [t[order] for t in want], "permuted")
    for r in (0, 4, 8):
        row, one = misaligned(x[r : r + 1], r + 1), target[r : r + 1]
        assert_same(of_rows(row, one), [t[r : r + 1] for t in want], f"row {r} alone")
    for reduction in ("mean", "sum"):
        first, second = (loss_and_gradient(x, target, reduction) for _ in range(2))
        assert_same(first, second, reduction)


def can_be_kept(chunks, x, tensors):
    """Whether rows of so many tensors are: those longer than 64 KiB by clusters, from sm_90 on."""
    has_clusters = support.EMULATED or torch.cuda.get_device_capability() >= (9, 0)
    return chunks > 511 and (has_clusters or tensors * x[0].nbytes <= 65536)


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
# (The last in eight parts; parts are smaller under emulation.)
@pytest.mark.parametrize("chunks", [511, 512, 600, 1025, 2049 if support.EMULATED else 16385])
def test_rows_kept_in_shared_memory(chunks, dtype):
    """By one block to eight, or not: the same bits, at any address. Rows of 8 KiB and more."""
    x = misaligned(make(5, classes_of(chunks, dtype), dtype=dtype), 1)
    once, twice = (can_be_kept(chunks, x, tensors) for tensors in (1, 2))
    target, q, grad = targets(x), probabilities(x), make(*x.shape, dtype=dtype, seed=7)
    x[0, :-2] = -torch.inf
    for op in (F.softmax, F.log_softmax):
        results, counts = kept_or_not(lambda: derivatives_of(op, x, grad))  # noqa: B023
        assert counts == [once + twice, 0]
        assert_same(*results)
    for t, options in (
        (target, {"label_smoothing": 0.1}),
        (target, {"softcap": 5.0, **ALL}),
        (q, {"label_smoothing": 0.1, "reduction": "sum"}),
    ):
        given = {"reduction": "none", **options}
        results, counts = kept_or_not(lambda: F.cross_entropy(x, t, **given))  # noqa: B023
        assert counts == [once, 0]
        assert_same(*([r] if isinstance(r, torch.Tensor) else r for r in results))


def derivatives_of(function, x, grad):
    x = x.detach().requires_grad_()
    y = function(x, 1)
    return y.detach(), torch.autograd.grad(y, x, grad)[0]


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
@pytest.mark.parametrize("chunks", [1, 8, 64, 2049])
def test_inplace_backward(chunks, dtype):
    """To the bit the ordinary gradient, in the logits' memory, aligned or not."""
    x = rows_of(dtype, chunks)
    target = targets(x)
    for offset in (0, 1):
        for options in ({}, {"softcap": 4.0, "label_smoothing": 0.1}):
            buffer = misaligned(x, offset)._base.requires_grad_() * 1
            logits = buffer[16 + offset :][: x.numel()].view(x.shape)
            want = loss_and_gradient(x, target, "mean", **options)[1]
            F.cross_entropy(logits, target, inplace_backward=True, **options).backward()
            assert_same([logits], [want])
            assert int(buffer.isnan().sum()) == 64


@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
# (The last in eight parts.)
@pytest.mark.parametrize("chunks", [0, 8, 64, 511, 600, 1025, 4000 if support.EMULATED else 16385])
def test_gradient_in_the_forward_pass(chunks, dtype):
    """The ordinary one, from a single reading of rows that can be kept; the same from two."""
    x = misaligned(make(5, classes_of(chunks, dtype), dtype=dtype), 1)
    x[0, 1:] = -torch.inf
    once = can_be_kept(chunks, x, 1)
    in_parts = x[0].nbytes > (16384 if support.EMULATED else 65536)  # which the ordinary sum is not
    target = targets(x)
    target[1], target[4] = -100, x.shape[1]  # which is out of range
    for t, options in (
        (target, {}), (target, {"label_smoothing": 0.1, "weight": weights(x.shape[1], dtype)}),
        (target, {"softcap": 5.0, "z_loss": 0.1}), (probabilities(x), {"reduction": "sum"}),
    ):  # fmt: skip
        for reduction in ("mean", "none"):
            given = {"reduction": reduction, **options}
            want = loss_and_gradient(x, t, **given)
            results, counts = kept_or_not(
                lambda: loss_and_gradient(x, t, expected_grad=1, **given)  # noqa: B023
            )
            assert counts == [once, 0]
            assert_same(*results)
            # And where another gradient comes than was expected.
            assert_same(loss_and_gradient(x, t, expected_grad=10, **given), results[0])
            if in_parts:
                near = {"rtol": 4 * losses.eps(x), "atol": 1e-7, "equal_nan": True}
                torch.testing.assert_close(results[0], want, **near)
            else:
                assert_same(results[0], want, options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=describe)
@pytest.mark.parametrize("chunks", [0, 8, 64, 2049])
def test_nan_with_all_bits_set(chunks, dtype):
    """What a GPU's arithmetic gives for NaN, also as a logit."""
    x = rows_of(dtype, chunks)
    every = {torch.float32: torch.int32, torch.float64: torch.int64}[dtype]
    x.view(every)[3, 1] = torch.iinfo(every).max
    loss, grad = loss_and_gradient(x, targets(x, ignored=False))
    assert loss[3].isnan()
    assert grad[3].isnan().any()
    assert F.softmax(x, 1)[3].isnan().any()
    y = x.clone().requires_grad_()
    loss = F.binary_cross_entropy_with_logits(y, torch.ones_like(y), reduction="none")
    assert loss[3, 1].isnan()
    assert torch.autograd.grad(loss.sum(), y)[0][3, 1].isnan()
