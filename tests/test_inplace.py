"""In-place variants: value, gradient, version counter, and what autograd has to refuse."""

import pytest
import support
import torch
from support import DTYPES, INPLACE, labels

BACKWARDS = [case for case in INPLACE if case.label != "leaky_relu,-0.3"]


@pytest.mark.parametrize("case", INPLACE, ids=labels)
def test_value_and_identity(case, isa):
    for dtype in DTYPES:
        for name, x in support.layouts(dtype).items():
            if "expanded" in name or name in ("one number", "overlapping"):
                continue
            want = case.function(x)
            x = x.clone(memory_format=torch.preserve_format)
            version = x._version
            y = case.inplace(x)
            assert y is x, name
            assert torch.equal(x.nan_to_num(), want.nan_to_num()), f"{dtype} {name}"
            assert x._version == version + 1, name


@pytest.mark.parametrize("case", INPLACE, ids=labels)
def test_strided_in_place(case):
    """Only the elements of a view with gaps are written, and the rest of its buffer is not."""
    for index in ((slice(None), slice(1, 9)), (slice(None), slice(0, 10, 3)), (slice(0, 4, 2),)):
        buffer = torch.randn(6, 12)
        before = buffer.clone()
        view = buffer[index]
        want = case.function(view)
        case.inplace(view)
        assert torch.equal(buffer[index], want)
        buffer[index] = before[index]
        assert torch.equal(buffer, before)


@pytest.mark.parametrize("case", INPLACE, ids=labels)
def test_expanded_is_refused(case):
    x = torch.ones(3) * -0.5
    with pytest.raises(RuntimeError, match="memory"):
        case.inplace(x.expand(4, 3))
    assert torch.equal(x, torch.ones(3) * -0.5)


@pytest.mark.parametrize("case", INPLACE, ids=labels)
def test_gradient(case):
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    want = torch.autograd.grad((case.function(x) * 3).sum(), x)[0]
    y = case.inplace(x * 1)
    assert y.requires_grad
    torch.testing.assert_close(torch.autograd.grad((y * 3).sum(), x)[0], want)


@pytest.mark.parametrize("case", INPLACE, ids=labels)
def test_second_and_third_gradient(case):
    def second(function):
        (g,) = torch.autograd.grad(function(x * 1).square().sum(), x, create_graph=True)
        (gg,) = torch.autograd.grad(g.square().sum(), x, create_graph=True)
        return gg, torch.autograd.grad(gg.square().sum(), x)[0]

    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    for a, b in zip(second(case.inplace), second(case.function), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("case", INPLACE, ids=labels)
def test_leaf_is_refused_and_untouched(case):
    x = torch.randn(4, requires_grad=True)
    before = x.detach().clone()
    with pytest.raises(RuntimeError, match="leaf"):
        case.inplace(x)
    assert torch.equal(x, before)
    view = x[1:]
    with pytest.raises(RuntimeError, match="leaf"):
        case.inplace(view)
    assert torch.equal(x, before)
    with torch.no_grad():
        case.inplace(x)
    assert torch.equal(x, case.function(before))


@pytest.mark.parametrize("case", INPLACE, ids=labels)
def test_view_of_a_graph(case):
    """The gradient finds its way through a base of which a part was overwritten."""
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    grads = []
    for function in (case.inplace, lambda v: v.copy_(case.torch(v.clone()))):
        base = x * 1
        function(base[1:3])
        grads.append(torch.autograd.grad((base * torch.arange(5)).sum(), x)[0])
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("case", INPLACE, ids=labels)
def test_upstream_saved_tensor_is_protected(case):
    """An earlier op that needs the overwritten tensor makes autograd refuse, not answer wrongly."""
    x = torch.randn(4, requires_grad=True)
    y = x.sin()
    z = y.square()  # saves y
    case.inplace(y)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


@pytest.mark.parametrize("case", INPLACE, ids=labels)
def test_overwritten_afterwards_is_refused(case):
    """The result, where it is what was saved, must not change before the backward pass."""
    x = torch.randn(4, requires_grad=True)
    y = case.inplace(x * 1)
    if not case.row.saves_its_output(case.parameters):
        y.mul_(2)  # the input was kept in a clone
        y.sum().backward()
        return
    y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_registered_op_bumps_the_version_and_refuses_gradients():
    x = torch.randn(4)
    version = x._version
    torch.ops.fastact.silu_(x)
    assert x._version == version + 1
    leaf = torch.randn(4, requires_grad=True)
    before = leaf.detach().clone()
    for t in (leaf, leaf * 1):
        with pytest.raises(RuntimeError, match="silu_"):
            torch.ops.fastact.silu_(t)
    assert torch.equal(leaf, before)


def test_inference_tensors():
    with torch.inference_mode():
        x = torch.randn(4)
        want = torch.nn.functional.silu(x)
        support.public("silu")(x, inplace=True)
        torch.testing.assert_close(x, want)
    before = x.clone()
    with pytest.raises(RuntimeError, match=r"[Ii]n-?place.*inference tensor"):
        support.public("silu")(x, inplace=True)
    assert torch.equal(x, before)


def test_negative_bit():
    """Of views whose elements are the negatives of what is stored."""
    for name in ("silu", "relu"):
        x = torch.randn(5, 6, dtype=torch.complex64).conj().imag
        assert x.is_neg()
        want = support.public(name)(x.clone())
        support.public(name)(x, inplace=True)
        assert torch.equal(x, want)


@pytest.mark.parametrize("case", BACKWARDS, ids=labels)
def test_in_a_network(case):
    """As torch's in-place op, between two layers."""
    torch.manual_seed(1)
    layers = torch.nn.Linear(6, 8), torch.nn.Linear(8, 2)
    x = torch.randn(3, 6)
    parameters = [p for layer in layers for p in layer.parameters()]
    ours = torch.autograd.grad(layers[1](case.inplace(layers[0](x))).sum(), parameters)
    theirs = torch.autograd.grad(layers[1](case.torch(layers[0](x))).sum(), parameters)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
