"""The gradient that the forward pass computes: the ordinary one, whatever comes; here to the bit.

(On a GPU rows of more than 64 KiB are added up otherwise: test_cuda.py.)
"""

from fractions import Fraction

import losses
import pytest
import torch
from losses import describe, make, probabilities, targets, weights
from support import DTYPES
from torch.utils.checkpoint import checkpoint

import fastact
from fastact import functional as F
from fastact._library import families

ALL = {"return_lse": True, "return_entropy": True}
SHAPES = [(6, 9), (6, 70), (3, 2500), (2, 9, 5), (9,)]
OPTIONS = {
    "mean": {},
    "none": {"reduction": "none"},
    "sum": {"reduction": "sum"},
    "weights": {"weight": True},
    "smoothing": {"label_smoothing": 0.1, "weight": True},
    "cap, z loss": {"softcap": 3.0, "z_loss": 0.1},
    "number": {"normalizer": 3.0},
    "tensor": {"normalizer": torch.tensor([7.0])},
    "double": {"normalizer": torch.tensor(7.0, dtype=torch.float64)},
    "entropy": ALL,
}


def given(x, options):
    return {**options, "weight": weights(x.shape[losses.class_dim(x)], x.dtype)
            if "weight" in options else None}  # fmt: skip


def loss_and_gradient(x, target, grad=1.0, **options):
    """Of a loss, or of one for each row, that receives `grad`."""
    leaf = x.detach().requires_grad_()
    loss, *_ = losses.ours(leaf, target, **options)
    return loss.detach(), torch.autograd.grad(loss, leaf, torch.full_like(loss, grad))[0]


def same(got, want):
    return all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("name", losses.layouts())
def test_gradient(name):
    """Expected or not: no bit differs, of the loss either."""
    for dtype in (torch.float32, torch.bfloat16):
        x = losses.layouts(dtype)[name]
        for target in (targets(x), probabilities(x)):
            for options in OPTIONS.values():
                if "weight" in options and target.dtype == torch.int64 and name == "0 classes":
                    continue
                options = given(x, options)
                want = loss_and_gradient(x, target, 0.75, **options)
                for expected in (0.75, 1.0):
                    got = loss_and_gradient(x, target, 0.75, expected_grad=expected, **options)
                    assert same(got, want), (name, options, expected)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
def test_it_is_not_computed_again(dtype, shape, name):
    """Unless another gradient comes."""
    x = make(*shape, dtype=dtype)
    target, options = targets(x), given(x, OPTIONS[name])

    def gradient(expected, grad):
        leaf = x.clone().requires_grad_()
        loss, *_ = losses.ours(leaf, target, expected_grad=expected, **options)
        node = loss.grad_fn
        while "WithGrad" not in node.name():  # below the division by a normalizer
            node = node.next_functions[0][0]
        node.saved_tensors[1].data.fill_(7)  # what has been computed, behind autograd's back
        return torch.autograd.grad(loss, leaf, torch.full_like(loss, grad))[0]

    sevens = torch.full_like(x, 7)
    third = torch.tensor([1 / 3], dtype=torch.float64)
    for expected, grad in ((1, 1.0), (1 / 3, 1 / 3), (third, 1 / 3)):
        assert torch.equal(gradient(expected, grad), sevens)
    for expected, grad in ((1, 0.5), (1 / 3, 0.33), (float("nan"), 1.0)):
        want = loss_and_gradient(x, target, grad, **options)[1]
        assert torch.equal(gradient(expected, grad), want)


def test_scaled():
    """As gradients are accumulated; and as a program comes by gradients of one row."""
    x = make(6, 70)
    target = targets(x)

    def gradient(make_loss, **options):
        leaf = x.clone().requires_grad_()
        make_loss(F.cross_entropy(leaf, target, **options)).backward()
        return leaf.grad

    for make_loss, reduction in (
        (lambda t: t / 4, "mean"), (lambda t: 1024 * t, "sum"), (lambda t: t.sum(), "none"),
        (lambda t: t[2], "none"), (lambda t: t.square().mean(), "none"),
    ):  # fmt: skip
        want = gradient(make_loss, reduction=reduction)
        for expected in (1, 0.25, 1024):
            got = gradient(make_loss, reduction=reduction, expected_grad=expected)
            assert torch.equal(got, want)


def test_other_results_are_differentiated():
    """Their gradients are not expected: with them, and with them alone, it is computed anew."""
    x = make(6, 70)
    target = targets(x)
    for pick in (lambda r: r[0] + r[1].sum(), lambda r: r[2].sum(), lambda r: r[0] - r[2].mean()):
        grads = []
        for expected in (None, 1):
            leaf = x.clone().requires_grad_()
            results = F.cross_entropy(leaf, target, expected_grad=expected, **ALL)
            grads += torch.autograd.grad(pick(results), leaf)
        assert torch.equal(*grads)


def test_a_second_backward_pass():
    """It leaves what the first has returned alone."""
    x = make(6, 70)
    target = targets(x)
    for expected in (1, 2):
        leaf = x.clone().requires_grad_()
        loss = F.cross_entropy(leaf * 1, target, expected_grad=expected)
        passes = [torch.autograd.grad(loss, leaf, torch.tensor(g), retain_graph=True)[0]
                  for g in (1.0, 0.3, 1.0)]  # fmt: skip
        for got, g in zip(passes, (1.0, 0.3, 1.0), strict=True):
            assert torch.equal(got, loss_and_gradient(x, target, g)[1])
    loss = F.cross_entropy(leaf, target, expected_grad=1)
    (first,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    want = first.clone()
    first.mul_(2)  # which is nobody else's business
    assert torch.equal(torch.autograd.grad(loss, leaf, retain_graph=True)[0], want)
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_second_derivatives():
    x = make(3, 9, dtype=torch.float64)
    target = targets(x, ignored=False)
    assert torch.autograd.gradgradcheck(
        lambda t: F.cross_entropy(t, target, expected_grad=1, z_loss=0.1), x.requires_grad_()
    )


def test_batched_gradients():
    """One backward pass for several gradients, by vmap."""
    x = make(4, 9)
    grads = []
    for expected in (None, 1):
        leaf = x.clone().requires_grad_()
        loss = F.cross_entropy(leaf, targets(x), reduction="none", expected_grad=expected)
        eye = torch.eye(4)
        grads += torch.autograd.grad(loss, leaf, eye, is_grads_batched=True, retain_graph=True)
        grads += torch.autograd.grad(loss, leaf, torch.ones(4))
    assert same(grads[:2], grads[2:])


def test_under_transforms_and_compile():
    """They go the ordinary way."""
    x = make(4, 9, dtype=torch.float64)
    target = targets(x)
    want = loss_and_gradient(x, target)[1]
    f = lambda t: F.cross_entropy(t, target, expected_grad=1)  # noqa: E731
    torch.testing.assert_close(torch.func.grad(f)(x), want)
    tangent = make(4, 9, dtype=torch.float64, seed=1)
    torch.testing.assert_close(torch.func.jvp(f, (x,), (tangent,))[1], (want * tangent).sum())
    torch._dynamo.reset()
    leaf = x.clone().requires_grad_()
    torch.compile(f, fullgraph=True, backend="aot_eager")(leaf).backward()
    torch.testing.assert_close(leaf.grad, want)


def test_checkpoint_and_saved_tensors_hooks():
    """What is computed early is saved as autograd saves: it can be dropped and comes anew."""
    x = make(6, 70)
    target = targets(x)
    want = loss_and_gradient(x, target)[1]
    f = lambda t: F.cross_entropy(t * 1, target, expected_grad=1)  # noqa: E731
    leaf = x.clone().requires_grad_()
    checkpoint(f, leaf, use_reentrant=False).backward()
    assert torch.equal(leaf.grad, want)
    leaf.grad = None
    with torch.autograd.graph.save_on_cpu():
        loss = f(leaf)
    loss.backward()
    assert torch.equal(leaf.grad, want)


def test_two_losses_of_the_same_logits():
    x = make(6, 70)
    first, second = targets(x, seed=1), targets(x, seed=2)
    sums = []
    for options in ({}, {"expected_grad": 1}):
        leaf = x.clone().requires_grad_()
        total = F.cross_entropy(leaf, first, **options) + F.cross_entropy(leaf, second, **options)
        sums += torch.autograd.grad(total, leaf)
    assert torch.equal(*sums)


def test_numbers_of_any_size_and_kind():
    """GradScaler begins with 65536, which is too large for float16: infinite, as what comes."""
    x = make(6, 70, dtype=torch.float16)
    for expected, grad in ((65536, 65536.0), (1e39, 1.0), (Fraction(1, 4), 0.25), (True, 1.0)):
        got = loss_and_gradient(x, targets(x), grad, expected_grad=expected)
        assert same(got, loss_and_gradient(x, targets(x), grad))


def test_module():
    x = make(6, 70)
    loss = fastact.nn.CrossEntropyLoss(expected_grad=0.5)
    assert "expected_grad=0.5" in repr(loss)
    leaf = x.clone().requires_grad_()
    result = loss(leaf, targets(x))
    assert "WithGrad" in result.grad_fn.name()
    (got,) = torch.autograd.grad(result / 2, leaf)
    assert torch.equal(got, loss_and_gradient(x, targets(x), 0.5)[1])


def test_negated_view():
    """Of memory that autograd has to negate first."""
    x = make(6, 70, dtype=torch.complex64).conj().imag
    assert x.is_neg()
    for grad in (1.0, 0.5):
        got = loss_and_gradient(x, targets(x), grad, expected_grad=1)
        assert same(got, loss_and_gradient(x.resolve_neg(), targets(x), grad))


def test_symbolic_trace():
    """torch's own op is recorded: the option changes no result."""
    graph = torch.fx.symbolic_trace(lambda x, t: F.cross_entropy(x, t, expected_grad=1)).graph
    assert torch.nn.functional.cross_entropy in [node.target for node in graph.nodes]


def test_without_a_gradient_there_is_none():
    x = make(4, 9)
    assert F.cross_entropy(x, targets(x), expected_grad=1).grad_fn is None
    with torch.no_grad():
        assert F.cross_entropy(x.requires_grad_(), targets(x), expected_grad=1).grad_fn is None


def test_logits_that_change_are_refused():
    """As in the ordinary call, for it may have to read them again."""
    x = make(4, 9).requires_grad_()
    logits = x * 1
    loss = F.cross_entropy(logits, targets(x), expected_grad=1)
    logits.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_autocast():
    """The loss is float32 there, and so is the gradient that it receives."""
    x = make(6, 70, dtype=torch.bfloat16)
    grads = []
    for expected in (None, 1 / 3):
        leaf = x.clone().requires_grad_()
        with torch.autocast(x.device.type, torch.bfloat16):
            loss = F.cross_entropy(leaf, targets(x), expected_grad=expected)
        assert loss.dtype == torch.float32
        grads += torch.autograd.grad(loss / 3, leaf)
    assert torch.equal(*grads)


def test_registered_ops():
    family = families("fastact")["cross_entropy"]
    found = dict(losses.operands(family))
    arguments = found[family.others["_with_grad"]]
    *results, grad = family.others["_with_grad"](*arguments)
    expected, inputs, constants = arguments[0], arguments[1:4], arguments[4:]
    assert same(results, family.forward(*inputs, *constants))
    backward = (expected, None, None, *inputs, *results[3:], *constants)
    want = family.backward(*backward)
    assert torch.equal(grad, want)
    for grads, answers in (((expected, None, None), 0), ((expected * 2, None, None), want * 2)):
        place = torch.zeros_like(grad)
        family.others["_correct_grad_"](place, expected, *grads, *backward[3:])
        torch.testing.assert_close(place, place * 0 + answers)


def test_errors():
    x = make(4, 9).requires_grad_()
    with pytest.raises(TypeError, match="'expected_grad' must be a number or a Tensor, not str"):
        F.cross_entropy(x, targets(x), expected_grad="a")
    with pytest.raises(ValueError, match=r"expected_grad must be a number .* got shape \(2,\)"):
        F.cross_entropy(x, targets(x), expected_grad=torch.ones(2))
    with pytest.raises(ValueError, match="inplace_backward=True"):
        F.cross_entropy(x * 1, targets(x), expected_grad=1, inplace_backward=True)
    args = losses.operands(families("fastact")["cross_entropy"])[-1][1]
    correct = families("fastact")["cross_entropy"].others["_correct_grad_"]
    for grad, expected in (
        (args[0][:2], args[1]), (args[0].double(), args[1]), (args[0].t(), args[1]),
        (args[0], torch.ones(2)),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="fastact::"):
            correct(grad, expected, args[2], None, None, *args[5:])
