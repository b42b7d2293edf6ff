"""Zeros, subnormals, kinks, the largest numbers, infinities and NaN: torch's results, where the
exact ones are not representable; the exact ones where torch's are wrong (docs/design.md).
"""

import math

import exact
import pytest
import support
import torch
from support import DTYPES, GATED, UNARY, labels
from torch import Tensor

import fastact
from fastact import functional as F
from fastact._registry import ACTIVATIONS

# Whose slope is zero on one side. (That of leaky_relu is a factor on both.)
EXPONENTIAL = {"elu", "selu", "celu"}
PIECEWISE = {"relu", "relu6", "hardswish", "hardsigmoid", "squared_relu"}


def special(dtype: torch.dtype) -> Tensor:
    info = torch.finfo(dtype)
    positive = [
        0.0, info.smallest_normal * info.eps, info.smallest_normal * (1 - info.eps),
        info.smallest_normal, info.eps, 0.5, 1.0, 2.999, 3.0, 5.99, 6.0, 20.0, 20.1, 50.0, 100.0,
        1000.0, math.sqrt(info.max), 1e-2 * info.max, 0.25 * info.max, 0.6 * info.max, info.max,
        math.inf, math.nan,
    ]  # fmt: skip
    x = torch.tensor(positive, dtype=torch.float64).to(dtype)
    # Inside a vector and in the tail after it.
    return torch.cat([x, -x]).repeat(3)


def run(function, x, grad=1.0):
    x = x.clone().requires_grad_()
    y = function(x)
    (slope,) = torch.autograd.grad(y, x, torch.full_like(y, grad))
    return y.detach(), slope


def describe(x, got, want, wrong):
    return ", ".join(
        f"at {a!r} {g!r}, expected {w!r}"
        for a, g, w in list(
            zip(x[wrong].tolist(), got[wrong].tolist(), want[wrong].tolist(), strict=True)
        )[:6]
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=labels)
@pytest.mark.parametrize("case", UNARY, ids=labels)
def test_not_finite(case, dtype, isa):
    """Infinite and NaN inputs give torch's value and slope.

    Those of its scalar code: torch.nn.functional.gelu(inf) is inf for one float32 and NaN for two,
    the slope of relu6 at NaN is 1 for one and 0 inside a vector.
    """
    x = special(dtype)
    x = x[~x.isfinite()]
    theirs = [
        torch.cat(parts) for parts in zip(*(run(case.torch, t) for t in x.split(1)), strict=True)
    ]
    value, slope = run(case.function, x)
    wrong = (value != theirs[0]) & ~(value.isnan() & theirs[0].isnan())
    assert not wrong.any(), f"{case.label} value: {describe(x, value, theirs[0], wrong)}"
    # A slope that follows from a saturated output is as exact as that is rounded.
    scale = value.double().abs().clamp(max=2) if case.slope_from_output else None
    wrong = support.errors(slope, theirs[1].double(), scale) > 1
    assert not wrong.any(), f"{case.label} slope: {describe(x, slope, theirs[1], wrong)}"


@pytest.mark.parametrize("dtype", DTYPES, ids=labels)
@pytest.mark.parametrize("case", UNARY, ids=labels)
def test_finite_inputs(case, dtype, isa):
    """Exact to a few ulp wherever the input is finite, so finite where the exact result is."""
    x = special(dtype)
    x = x[x.isfinite()]
    value, slope = run(case.function, x)
    exact_x = x.double().requires_grad_()
    want = support.exact_of(case.row, case.parameters)(exact_x)
    (want_slope,) = torch.autograd.grad(want.sum(), exact_x)
    if case.row.name in exact.VALUES:
        want = exact.value(case.row.name, case.parameters, x)
    support.assert_within(value, want.detach(), 10, x, f"{case.label} value")
    # The float64 reference underflows, or has no more digits than we have, in float64's tails.
    finite = want_slope.abs() < torch.finfo(dtype).max
    assert slope[finite].isfinite().all(), f"{case.label} slope"
    known = finite & ((x.abs() < 5) | (dtype != torch.float64))
    scale = want.detach().abs().clamp(max=2) if case.slope_from_output else None
    support.assert_within(
        slope[known], want_slope[known], 10, x[known], f"{case.label} slope",
        None if scale is None else scale[known],
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=labels)
@pytest.mark.parametrize("case", UNARY, ids=labels)
def test_sign_of_zero(case, dtype, isa):
    """-0 and +0 give torch's zeros; results that underflow to zero keep their sign."""
    x = torch.tensor([0.0, -0.0, -1000.0, 1000.0] * 17, dtype=dtype)
    y, want = case.function(x), case.torch(x)
    wrong = (want == 0) & (y == 0) & (y.signbit() != want.signbit())
    assert not wrong.any(), f"{case.label}: {describe(x, y, want, wrong)}"
    assert (y[:2] == want[:2]).all() or not (want[:2] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=labels)
@pytest.mark.parametrize("case", UNARY, ids=labels)
def test_slopes_at_kinks_are_torchs(case, dtype, isa):
    x = torch.tensor([0.0, -0.0, 3.0, -3.0, 6.0] * 7, dtype=dtype)
    _, slope = run(case.function, x)
    _, want = run(case.torch, x)
    error = support.errors(slope, want.double(), torch.ones_like(slope, dtype=torch.float64))
    # torch has 1/6, and CELU's 1/alpha, in float32 even where the tensor is float64.
    coarse = dtype == torch.float64 and case.family in ("hardsigmoid", "celu")
    bound = 2.0**34 if coarse else 4
    wrong = error > bound
    assert not wrong.any(), f"{case.label}: {describe(x, slope, want, wrong)}"


@pytest.mark.parametrize("case", [c for c in UNARY if c.family in EXPONENTIAL], ids=labels)
def test_second_derivatives_at_kinks_are_torchs(case, isa):
    def second(function):
        x = torch.tensor([0.0, -0.0, -1.0, 1.0] * 7, requires_grad=True)
        (slope,) = torch.autograd.grad(function(x).sum(), x, create_graph=True)
        return torch.autograd.grad(slope.sum(), x)[0]

    torch.testing.assert_close(second(case.function), second(case.torch))


@pytest.mark.parametrize("dtype", DTYPES, ids=labels)
@pytest.mark.parametrize("case", [c for c in UNARY if c.family in PIECEWISE], ids=labels)
def test_infinite_gradient_meets_a_zero_slope(case, dtype, isa):
    """A branch that was not taken lets no infinite or NaN gradient through, as in torch."""
    x = torch.tensor([-7.0, -3.5, -1.0, 1.0, 3.5, 7.0] * 7, dtype=dtype)
    for grad in (math.inf, -math.inf, math.nan):
        _, slope = run(case.function, x, grad)
        _, want = run(case.torch, x, grad)
        wrong = (slope != want) & ~(slope.isnan() & want.isnan())
        assert not wrong.any(), f"{case.label} {grad}: {describe(x, slope, want, wrong)}"


@pytest.mark.parametrize("case", [c for c in GATED if c.row.name == "relu"], ids=labels)
def test_gates_let_no_infinite_gradient_through(case):
    gate, up = torch.tensor([-2.0, -1.0]), torch.tensor([1.0, 3.0])
    tensors = case.join((gate, up)) if case.dim is not None else (gate, up)
    tensors = [t.clone().requires_grad_() for t in tensors]
    grads = torch.autograd.grad(case.function(*tensors), tensors, torch.tensor([math.inf, 1.0]))
    assert case.split(grads)[0].tolist() == [0.0, 0.0]


def test_where_torch_is_wrong():
    """Values that torch overflows, flushes or cancels (measured with torch 2.13)."""
    for function, x, want in (
        (F.gelu, -6.0, -5.919525870188e-09),
        (F.gelu, 3e38, 3e38),
        (lambda t: F.gelu(t, "tanh"), -7.9, -5.2e-20),
        (F.silu, -90.5, -4.5e-38),
    ):
        y = function(torch.tensor(x)).item()
        assert y == pytest.approx(want, rel=0.5 if want < 0 and want > -1e-18 else 1e-6), x
    x = torch.tensor([1.85e19, 3e38, -1.85e19, -3e38], requires_grad=True)
    F.gelu(x, "tanh").sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_subnormals_survive(dtype, isa):
    info = torch.finfo(dtype)
    x = torch.tensor(
        [info.smallest_normal * info.eps * k for k in (1, 2, 3, 5, 7)] * 5, dtype=dtype
    )
    assert (x != 0).all()
    for name in ("relu", "leaky_relu", "elu", "tanh"):
        assert torch.equal(support.public(name)(x), x), name
    assert torch.equal(F.leaky_relu(-x, 1.0), -x)
    assert torch.equal(F.relu_mul(x, torch.ones_like(x)), x)


def test_nan_payloads_and_quiet_results():
    """Any NaN comes out as NaN, from every op and in every operand."""
    for dtype in DTYPES:
        nan = torch.full((37,), math.nan, dtype=dtype)
        one = torch.ones_like(nan)
        for name, row in ACTIVATIONS.items():
            op = getattr(torch.ops.fastact, name)
            assert op(nan, *row.defaults).isnan().all(), (name, dtype)
        assert F.silu_mul(nan, one).isnan().all()
        assert F.silu_mul(one, nan).isnan().all()
        assert F.relu_mul(nan, one).isnan().all()
    assert fastact.functional.hardswish(torch.tensor(math.nan)).isnan()
