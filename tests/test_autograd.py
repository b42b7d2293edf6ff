"""Differentiation by torch.autograd: orders, what is saved, in-place, checkpoints, threads."""

import gc
import threading
import weakref

import pytest
import support
import torch
from support import CASES, GATED, UNARY, labels
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.checkpoint import checkpoint

from fastact import functional as F


def leaves(case, *shape, dtype=torch.float64):
    random = support.generator(5)
    x = [torch.randn(shape, generator=random, dtype=dtype) * 2 for _ in range(case.tensors)]
    return tuple(t.requires_grad_() for t in x)


@pytest.mark.parametrize("case", CASES, ids=labels)
def test_gradcheck(case):
    assert gradcheck(
        case.function, leaves(case, 4, 4), check_forward_ad=True, check_batched_grad=True,
        check_batched_forward_grad=True,
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=labels)
def test_gradgradcheck(case):
    assert gradgradcheck(
        case.function, leaves(case, 4, 2), check_fwd_over_rev=True, check_rev_over_rev=True,
        check_batched_grad=True,
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=labels)
def test_third_derivative(case):
    def second(*tensors):
        g = torch.autograd.grad(case.function(*tensors).sum(), tensors, create_graph=True)
        total = sum((t * t).sum() if t.requires_grad else t.sum() for t in g)
        if not total.requires_grad:
            return tensors
        return torch.autograd.grad(total, tensors, create_graph=True)

    assert gradcheck(second, leaves(case, 2, 4))


@pytest.mark.parametrize("case", CASES, ids=labels)
def test_fourth_derivative(case):
    """Against torch's own, where torch has four."""

    def derivative(function, order, x):
        g = function(*x).sin().sum()
        for _ in range(order):
            g = sum(t.sin().sum() for t in torch.autograd.grad(g, x, create_graph=True))
        return torch.autograd.grad(g, x)

    x = leaves(case, 2, 4)
    ours = derivative(case.function, 3, x)
    theirs = derivative(lambda *t: case.exact(*case.split(t)), 3, x)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("case", [c for c in GATED if c.tensors == 2], ids=labels)
def test_only_one_operand_requires_grad(case):
    for which in (0, 1):
        tensors = [t.detach() for t in leaves(case, 3, 4)]
        tensors[which].requires_grad_()
        y = case.function(*tensors)
        y.sum().backward()
        want = torch.autograd.grad(case.torch(*tensors).sum(), tensors[which])[0]
        torch.testing.assert_close(tensors[which].grad, want)
        assert tensors[1 - which].grad is None


@pytest.mark.parametrize("case", CASES, ids=labels)
def test_undefined_incoming_gradients(case):
    """Second derivatives where only one of the first derivatives was used."""
    tensors = leaves(case, 4, 6)
    ours = torch.autograd.grad(case.function(*tensors).sum(), tensors, create_graph=True)
    theirs = torch.autograd.grad(case.exact(*case.split(tensors)).sum(), tensors, create_graph=True)
    for a, b in zip(ours, theirs, strict=True):
        if not b.requires_grad:
            continue
        options = {"allow_unused": True, "materialize_grads": True, "retain_graph": True}
        for x, y in zip(
            torch.autograd.grad(a.sum(), tensors, **options),
            torch.autograd.grad(b.sum(), tensors, **options), strict=True,
        ):  # fmt: skip
            torch.testing.assert_close(x, y)


def saved_by(function, tensors):
    """What autograd is given to keep."""
    saved = []

    def pack(t):
        saved.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = function(*tensors)
    return y, saved


@pytest.mark.parametrize("case", CASES, ids=labels)
def test_saves_what_the_row_says(case):
    tensors = leaves(case, 8, 16, dtype=torch.float32)
    y, saved = saved_by(case.function, tensors)
    if case in UNARY and case.row.saves_its_output(case.parameters):
        expected = {y.data_ptr()}
    else:
        expected = {t.data_ptr() for t in tensors}
    assert {t.data_ptr() for t in saved} == expected
    assert len(saved) == len(expected)


@pytest.mark.parametrize("case", CASES, ids=labels)
def test_saves_no_more_bytes_than_torch(case):
    tensors = leaves(case, 8, 16, dtype=torch.float32)

    def bytes_of(function):
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
                    for t in saved_by(function, tensors)[1]}.values())  # fmt: skip

    assert bytes_of(case.function) <= bytes_of(case.torch)


@pytest.mark.parametrize("case", CASES, ids=labels)
def test_graph_is_freed(case):
    """No reference cycle keeps the output, the graph or what was saved alive."""
    gc.collect()
    gc.disable()
    try:
        tensors = leaves(case, 8, 16)
        watched = []
        y = case.function(*tensors)
        g = torch.autograd.grad(y.sum(), tensors, create_graph=True)
        watched += [weakref.ref(t) for t in (y, *g)]
        del y, g
        assert all(reference() is None for reference in watched)
        watched = [weakref.ref(t) for t in tensors]
        del tensors
        assert all(reference() is None for reference in watched)
    finally:
        gc.enable()


@pytest.mark.parametrize("case", CASES, ids=labels)
def test_retain_graph(case):
    tensors = leaves(case, 4, 4)
    y = case.function(*tensors).sum()
    first = torch.autograd.grad(y, tensors, retain_graph=True)
    again = torch.autograd.grad(y, tensors)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(y, tensors)


@pytest.mark.parametrize("case", CASES, ids=labels)
def test_nothing_is_recorded_without_need(case):
    tensors = leaves(case, 4, 4)
    with torch.no_grad():
        assert case.function(*tensors).grad_fn is None
    with torch.inference_mode():
        assert case.function(*tensors).is_inference()
    assert case.function(*(t.detach() for t in tensors)).grad_fn is None
    y = case.function(*tensors)
    (g, *_) = torch.autograd.grad(y.sum(), tensors)
    assert g.grad_fn is None


@pytest.mark.parametrize("case", CASES, ids=labels)
def test_overwriting_a_saved_tensor_is_refused(case):
    """A backward pass never reads a tensor that was changed in the meantime."""
    tensors = tuple(t * 1 for t in leaves(case, 4, 4))
    y = case.function(*tensors)
    saves_output = case in UNARY and case.row.saves_its_output(case.parameters)
    with torch.no_grad():
        (y if saves_output else tensors[-1]).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("case", CASES, ids=labels)
def test_checkpoint(case, use_reentrant):
    tensors = leaves(case, 4, 4)
    want = torch.autograd.grad((case.function(*tensors) * 2).sum(), tensors)
    y = checkpoint(lambda *t: case.function(*t) * 2, *tensors, use_reentrant=use_reentrant)
    y.sum().backward()
    for t, g in zip(tensors, want, strict=True):
        assert torch.equal(t.grad, g)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=labels)
@pytest.mark.parametrize("case", CASES, ids=labels)
def test_autocast_gives_torchs_dtype(case, dtype):
    for given in (torch.float32, dtype):
        tensors = leaves(case, 4, 4, dtype=given)
        with torch.autocast("cpu", dtype):
            ours, theirs = case.function(*tensors), case.torch(*tensors)
            assert ours.dtype == theirs.dtype, given
        ours.sum().backward()
        assert all(t.grad.dtype == given for t in tensors)


@pytest.mark.parametrize("case", [c for c in GATED if c.tensors == 2], ids=labels)
def test_autocast_promotes_mixed_dtypes(case):
    gate = torch.randn(4, 4, dtype=torch.bfloat16, requires_grad=True)
    up = torch.randn(4, 4, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"bfloat16.*float32"):
        case.function(gate, up)
    with torch.autocast("cpu", torch.bfloat16):
        y = case.function(gate, up)
        assert y.dtype == torch.float32
        y.sum().backward()
    torch.testing.assert_close(y, case.torch(gate.float(), up))
    assert gate.grad.dtype == torch.bfloat16
    assert up.grad.dtype == torch.float32


@pytest.mark.parametrize("case", CASES, ids=labels)
def test_backward_in_another_thread(case):
    tensors = leaves(case, 64, 64)
    y = case.function(*tensors).sum()
    thread = threading.Thread(target=y.backward)
    thread.start()
    thread.join()
    want = torch.autograd.grad(case.function(*tensors).sum(), tensors)
    assert all(torch.equal(t.grad, g) for t, g in zip(tensors, want, strict=True))


def test_hooks_and_accumulation():
    x = torch.randn(5, requires_grad=True)
    seen = []
    x.register_hook(lambda g: seen.append(g.clone()))
    for _ in range(2):
        F.gelu(x).sum().backward()
    torch.testing.assert_close(x.grad, 2 * seen[0])
    y = F.silu(x)
    assert type(y.grad_fn).__name__ == "SiLUBackward"
    y.retain_grad()
    y.sum().backward()
    assert torch.equal(y.grad, torch.ones(5))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_anomaly_mode_names_the_op():
    x = torch.tensor([float("nan")], requires_grad=True)
    with pytest.raises(RuntimeError, match="GELUBackward"), torch.autograd.detect_anomaly(True):
        F.gelu(x).sum().backward()
