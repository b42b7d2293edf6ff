"""The tests of accuracy, edges, threads, errors and compilation once more, over Numba's kernels."""

from functools import partial

import pytest
import references
import test_accuracy
import test_compile
import test_edges
import test_errors
import test_losses_accuracy
import test_losses_compile
import test_losses_errors
import test_losses_threads
import test_threads
import torch
from support import DTYPES, UNARY, borrowed, labels
from test_threads import threads  # noqa: F401  the fixture of its tests
from torch.library import opcheck

import fastact
from fastact._library import families

pytest.importorskip("numba")

# What does not run again as it is. Float64 is bounded in test_numba.py, where the bound takes in
# how the rounding of a formula's argument grows through an exponential.
LEFT_OUT = {
    test_accuracy: {
        "test_all_of_float32",  # of all backends already
        "test_against_200_digits",  # below, in float32
    },
    test_edges: {"test_finite_inputs"},  # below, but for float64
    test_threads: {"test_bitwise_equal_for_any_number_of_threads"},  # below, less of it
    test_errors: {"test_bad_input"},  # below; it takes its own backends
    test_compile: {
        "test_auto_leaves_no_graph_break",
        # Of ops of the namespace fastact, whose kernels are compiled.
        "test_export", "test_opcheck", "test_opcheck_covers_every_op",
        "test_direct_calls_are_differentiable", "test_direct_calls_check_what_would_crash",
    },
    test_losses_compile: {"test_export", "test_one_op_in_the_graph"},  # as above
    test_losses_errors: {
        "test_bad_input",  # as above
        "test_registered_ops_check_what_they_read",
        "test_registered_derivatives_check_what_they_read",
    },
    test_losses_threads: {"test_bitwise_equal_for_any_number_of_threads"},  # below, less of it
    test_losses_accuracy: set(),
}  # fmt: skip

globals().update(borrowed(LEFT_OUT))


@pytest.fixture(autouse=True)
def numba(compiled, monkeypatch):
    monkeypatch.setattr(test_accuracy, "results", partial(references.results, backend="numba"))
    # Numba's kernels know a parameter to all its digits.
    monkeypatch.setattr(
        test_accuracy, "exact_64", lambda row, p, x: references.exact_64(row, p, x.double())
    )
    with fastact.backend("numba"):
        yield


@pytest.fixture
def isa():
    """Numba compiles for the machine at hand."""


@pytest.mark.parametrize("case", test_accuracy.KNOWN, ids=labels)
def test_against_200_digits(case):
    test_accuracy.test_against_200_digits(case, torch.float32, None)


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != torch.float64], ids=labels)
@pytest.mark.parametrize("case", UNARY, ids=labels)
def test_finite_inputs(case, dtype):
    test_edges.test_finite_inputs(case, dtype, None)


def test_activations_for_any_number_of_threads(threads):  # noqa: F811
    test_threads.test_bitwise_equal_for_any_number_of_threads(torch.float32, threads)


@pytest.mark.parametrize(
    ("dtype", "shape"), [(torch.float32, (1003, 70)), (torch.bfloat16, (5, 100, 301))], ids=str
)
def test_losses_for_any_number_of_threads(dtype, shape):
    test_losses_threads.test_bitwise_equal_for_any_number_of_threads(dtype, shape)


TABLE = [
    (row[1] if callable(row[1]) else row[1][0], *row[-2:])
    for row in test_errors.TABLE + test_losses_errors.TABLE
]


@pytest.mark.parametrize(("call", "error", "parts"), TABLE)
def test_bad_input(call, error, parts):
    with pytest.raises(error or (RuntimeError, ValueError, TypeError, LookupError)) as caught:
        call()
    missing = [part for part in parts if part not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


@pytest.mark.parametrize(
    "name", ["gelu", "tanh", "silu_mul", "gelu_glu", "softmax", "log_softmax", "nll_loss",
             "cross_entropy", "bce_with_logits"],
)  # fmt: skip
def test_opcheck(name):
    for overload, arguments in test_compile.operands(families("fastact_numba")[name]):
        opcheck(overload, arguments)


def test_registered_losses_check_what_they_read():
    """Direct calls are refused, not read out of bounds."""
    ops = torch.ops.fastact_numba
    x, i = torch.randn(4, 6), torch.tensor([0, 5, 2, 1])
    high, wide = i + 1, x.double()
    y = x.softmax(1)
    none, options = (None,), (0, -100, 0.0, 0.0, 0.0, False, False, False)
    loss, _, _, stats, total = ops.cross_entropy(x, i, None, *options)
    calls = [
        partial(op, *args, *rest)
        for op, rest in ((ops.cross_entropy, options), (ops.nll_loss, options[:2]))
        for args in (
            (x, high, None),
            (x, i - 1, None),
            (x, i[:3], None),
            (x, i, torch.ones(5)),
            (x, i.int(), None),
            (x, wide, None),
            (torch.tensor(1.0), i[0], None),
            (x.long(), i, None),
            (x, i, torch.ones(6, 1)),
        )
    ]
    for args in (
        (loss[:3], *none * 2, x, i, None, stats, total),
        (loss, *none * 2, x, high, None, stats, total),
        (loss, *none * 2, x, i, None, stats[:1], total),
        (loss, *none * 2, x, i, None, stats.double(), total),
        (loss, *none * 2, x[:, :5], i[:3], None, stats, total),
        (loss, loss[:2], None, x, i, None, stats, total),
    ):
        calls.append(partial(ops.cross_entropy_backward, *args, *options))
        calls.append(partial(ops.cross_entropy_double_backward, x, *args, *options))
    for op in ("softmax", "log_softmax"):
        forward, backward, double = (
            getattr(ops, op + suffix) for suffix in ("", "_backward", "_double_backward")
        )
        calls += [
            partial(forward, x, 2),
            partial(forward, x, -1),
            partial(backward, x[:3], y, 1),
            partial(backward, wide, y, 1),
            partial(double, x[:3], x, y, 1),
        ]
    calls += [
        partial(ops.bce_with_logits, x, x[:3], None, None, 1),
        partial(ops.bce_with_logits, x, x, torch.ones(6), None, 1),
        partial(ops.bce_with_logits_backward, x[:3], x, x, None, None, 0),
        partial(ops.bce_with_logits_backward, x, x, x, None, None, 1),
    ]
    for call in calls:
        with pytest.raises((RuntimeError, NotImplementedError), match="fastact_numba::"):
            call()
