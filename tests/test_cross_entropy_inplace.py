"""The gradient over the logits: what it costs, and that autograd never computes nonsense."""

import os

import losses
import pytest
import torch
from losses import describe, make, probabilities, targets, weights
from support import DTYPES, python

from fastact import functional as F
from fastact._library import families

ALL = {"return_lse": True, "return_entropy": True}
LAYOUTS = [name for name in losses.layouts() if "expanded" not in name]


def gradient(x, target, before=torch.clone, **options):
    """The gradient by x, whose logits are before(x)."""
    leaf = x.detach().requires_grad_()
    outputs = losses.ours(before(leaf), target, **options)
    grads = [losses.random_like(t, i) for i, t in enumerate(outputs)]
    return torch.autograd.grad(outputs, leaf, grads)[0]


@pytest.mark.parametrize("name", LAYOUTS)
def test_gradient(name):
    """To the bit that of the ordinary call."""
    for dtype in (torch.float32, torch.bfloat16):
        x = losses.layouts(dtype)[name]
        w = weights(x.shape[losses.class_dim(x)], dtype)
        for target in (targets(x), probabilities(x)):
            for options in (
                {}, {"reduction": "none"}, {"weight": w, "label_smoothing": 0.1, **ALL},
                {"softcap": 3.0, "z_loss": 0.1, "reduction": "sum"}, {"normalizer": 3.0},
            ):  # fmt: skip
                want, got = (
                    gradient(x, target, lambda t: t * 1, inplace_backward=inplace, **options)
                    for inplace in (False, True)
                )
                assert torch.equal(got.nan_to_num(), want.nan_to_num()), (name, options)


@pytest.mark.parametrize("shape", [(6, 9), (6, 70), (2, 9, 5)], ids=str)
def test_it_is_the_logits_memory(shape):
    x = make(*shape).requires_grad_()
    logits = x * 1
    version, place = logits._version, logits.data_ptr()
    seen = []
    logits.register_hook(lambda g: seen.append(g.data_ptr()))
    F.cross_entropy(logits, targets(logits), inplace_backward=True).backward()
    assert seen == [place]
    assert logits._version > version
    torch.testing.assert_close(logits.detach(), x.grad)


@pytest.mark.parametrize("later", [
    torch.tanh, torch.exp, torch.sigmoid, lambda t: torch.softmax(t, 1), torch.sqrt,
], ids=["tanh", "exp", "sigmoid", "softmax", "sqrt"])  # fmt: skip
def test_what_saved_the_logits_upstream_is_refused(later):
    """logits = tanh(...): tanh's gradient needs what was overwritten."""
    for shape in ((4, 9), (4, 70)):
        x = make(*shape).abs().requires_grad_()
        loss = F.cross_entropy(later(x), targets(x), inplace_backward=True)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
        assert x.grad is None


def test_views_of_what_upstream_saved_are_refused():
    for view in (lambda t: t.view(8, 9), lambda t: t[1:], lambda t: t.transpose(0, 1)):
        x = make(4, 18 if view(make(4, 18)).shape == (8, 9) else 9).requires_grad_()
        logits = view(torch.tanh(x))
        loss = F.cross_entropy(logits, targets(logits), inplace_backward=True)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_what_saved_the_logits_beside_it_is_refused():
    """Another use of the logits, before or after."""
    for other in (torch.square, torch.sigmoid, lambda t: F.cross_entropy(t, targets(t))):
        x = make(4, 9).requires_grad_()
        logits = x * 1
        beside = other(logits) if other is not torch.sigmoid else logits.sin()
        loss = F.cross_entropy(logits, targets(x), inplace_backward=True)
        torch.autograd.grad(loss, x, retain_graph=True)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(beside.sum(), x)


def test_in_one_backward_pass_either_way_is_right_or_refused():
    """Two losses of the same logits: never a wrong sum."""
    x, target = make(4, 9), targets(make(4, 9))

    def run(**options):
        leaf = x.clone().requires_grad_()
        logits = leaf * 2
        total = F.cross_entropy(logits, target, **options) + logits.square().sum()
        return torch.autograd.grad(total, leaf)[0]

    want = run()
    refused = None
    try:
        torch.testing.assert_close(run(inplace_backward=True), want)
    except RuntimeError as error:
        refused = str(error)
    assert refused is None or "modified by an inplace operation" in refused


def test_a_second_backward_pass_is_refused():
    x = make(4, 70).requires_grad_()
    loss = F.cross_entropy(x * 1, targets(x), inplace_backward=True)
    torch.autograd.grad(loss, x, retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, x)


def test_a_second_derivative_is_refused():
    x = make(4, 70)
    leaf = x.clone().requires_grad_()
    logits = leaf * 1
    loss = F.cross_entropy(logits, targets(x), inplace_backward=True)
    with pytest.raises(RuntimeError, match="inplace_backward"):
        torch.autograd.grad(loss, leaf, create_graph=True)
    assert torch.equal(logits.detach(), x)


def test_leaves_and_shared_memory_are_refused():
    x = make(4, 9).requires_grad_()
    before = x.detach().clone()
    for logits in (x, x[1:], x.view(4, 9), x.t().t()):
        with pytest.raises(RuntimeError, match="leaf"):
            F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64),
                            inplace_backward=True)  # fmt: skip
    with pytest.raises(RuntimeError, match="memory"):
        F.cross_entropy((x * 1)[:1].expand(4, 9), targets(x), inplace_backward=True)
    with pytest.raises(RuntimeError, match="memory"):
        F.cross_entropy((x * 1).view(-1).as_strided((4, 9), (2, 1)), targets(x),
                        inplace_backward=True).backward()  # fmt: skip
    assert torch.equal(x.detach(), before)


def test_without_a_gradient_nothing_is_written():
    x, target = make(4, 9), targets(make(4, 9))
    before = x.clone()
    F.cross_entropy(x, target, inplace_backward=True)
    with torch.no_grad():
        F.cross_entropy(x.requires_grad_(), target, inplace_backward=True)
    assert torch.equal(x.detach(), before)
    assert x._version == 0 or torch.equal(x.detach(), before)


def test_under_transforms_and_compile():
    """They leave the logits alone."""
    x, target = make(4, 9, dtype=torch.float64), targets(make(4, 9))
    want = gradient(x, target)
    f = lambda t: F.cross_entropy(t * 1, target, inplace_backward=True)  # noqa: E731
    scale = losses.random_like(torch.zeros((), dtype=torch.float64), 0)
    torch.testing.assert_close(torch.func.grad(f)(x) * scale, want)
    torch._dynamo.reset()
    leaf = x.clone().requires_grad_()
    loss = torch.compile(f, fullgraph=True, backend="aot_eager")(leaf)
    torch.testing.assert_close(torch.autograd.grad(loss, leaf)[0] * scale, want)


def test_part_of_a_buffer():
    """Only the logits are written, whatever lies between them."""
    for index in ((slice(None), slice(1, 9)), (slice(0, 6, 2),), (slice(None), slice(0, 10, 3))):
        buffer = make(6, 12)
        leaf = buffer.clone().requires_grad_()
        base = leaf * 1
        before = base.detach().clone()
        logits = base[index]
        want = gradient(logits.detach(), targets(logits), reduction="sum")
        seed = losses.random_like(torch.zeros(()), 0)
        F.cross_entropy(logits, targets(logits), reduction="sum", inplace_backward=True).backward(
            seed
        )
        now = base.detach().clone()
        torch.testing.assert_close(now[index], want)
        now[index] = before[index]
        assert torch.equal(now, before)


def test_registered_op():
    family = families("fastact")["cross_entropy"]
    overload = family.others["_backward_"]
    arguments = dict(losses.operands(family))[overload]
    x = arguments[3]
    plain = torch.ops.fastact.cross_entropy_backward(*(
        t.clone() if isinstance(t, torch.Tensor) else t for t in arguments))  # fmt: skip
    overload(*arguments)
    assert torch.equal(x, plain)


# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inplace", [False, True], ids=["gradient", "in place"])
@pytest.mark.parametrize("dtype", DTYPES, ids=describe)
def test_what_is_saved(dtype, inplace):
    """The logits themselves, the target, and two numbers for each row."""
    n, c = 64, 1000
    x = make(n, c, dtype=dtype).requires_grad_()
    logits = x * 1
    saved = []

    def pack(t):
        saved.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        F.cross_entropy(logits, targets(x), inplace_backward=inplace)
    others = [t for t in saved if t.data_ptr() != logits.data_ptr()]
    floating = sum(t.nbytes for t in others if t.is_floating_point())
    assert len(others) == len(saved) - 1
    assert floating <= n * 2 * losses.compute(dtype).itemsize + 8


MEASURE = """
import resource, torch
import losses
from fastact import functional as F
import fastact
fastact.backend("compiled").__enter__()
torch.set_num_threads(2)

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def highest():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024

def step(n, c):
    logits = torch.full((n, c), 0.5, dtype=torch.{dtype})
    leaf = torch.zeros((), dtype=logits.dtype, requires_grad=True)

    class Made(torch.autograd.Function):
        @staticmethod
        def forward(ctx, leaf):
            return logits
        @staticmethod
        def backward(ctx, grad):
            return grad[0, 0].clone()

    target = torch.zeros(n, dtype=torch.int64)
    x = Made.apply(leaf)
    open("/proc/self/clear_refs", "w").write("5")  # resets the high-water mark
    before = resident()
    {function}(x, target{options}).backward()
    return highest() - before

step(8, 64)
n, c = {n}, {c}
size = n * c * torch.{dtype}.itemsize
print(step(n, c), size, n)
"""


@pytest.mark.cpu_only
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="allocates differently")
@pytest.mark.parametrize("shape", [(2000, 20000), (1_000_000, 10)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=describe)
def test_peak_memory(dtype, shape):
    """Above the logits: the gradient and eight bytes a row; in place, the eight bytes alone.

    The gradient is there early where it is expected, and no second one.
    """
    n, c = shape
    constant = 6 * 2**20  # threads' stacks, the allocator, the operating system's pages
    peaks = {}
    for name, function, options in (
        ("ours", "F.cross_entropy", ""), ("in place", "F.cross_entropy", ", inplace_backward=True"),
        ("expected", "F.cross_entropy", ", expected_grad=1"),
        ("torch", "torch.nn.functional.cross_entropy", ""),
    ):  # fmt: skip
        run = python(MEASURE.format(dtype=describe(dtype), function=function, options=options, n=n,
                                    c=c))  # fmt: skip
        assert run.returncode == 0, run.stderr
        peak, size, rows = map(int, run.stdout.split())
        peaks[name] = peak
    state = 8 * rows
    assert peaks["ours"] <= size + state + constant, peaks
    assert peaks["expected"] <= size + state + constant, peaks
    assert peaks["in place"] <= state + constant, peaks
    # It measures: torch's gradient and log-probabilities are there.
    assert peaks["torch"] >= 1.9 * size, peaks
    assert peaks["ours"] >= 0.9 * size, peaks
