"""The tests of softmax and of the losses once more, over Numba's kernels."""

import losses
import pytest
import test_cross_entropy_autograd
import test_cross_entropy_edges
import test_cross_entropy_expected
import test_cross_entropy_inplace
import test_cross_entropy_values
import test_losses_autograd
import test_losses_values
import torch
from support import borrowed

import fastact
from fastact import functional as F
from fastact._library import families

pytest.importorskip("numba")

# What does not run again.
LEFT_OUT = {
    test_losses_values: set(),
    test_losses_autograd: set(),
    test_cross_entropy_values: {
        # Of the compiled backend beside torch's, each forced.
        "test_the_torch_backend_agrees", "test_dtypes_of_the_torch_backend",
        "test_the_reference_is_right",  # of the tests themselves
    },
    test_cross_entropy_edges: set(),
    test_cross_entropy_autograd: {
        "test_function_and_registered_ops",  # of the namespace fastact; test_numba_again.py
    },
    test_cross_entropy_expected: {
        "test_registered_ops", "test_errors",  # of the namespace fastact; test_numba_again.py
    },
    test_cross_entropy_inplace: {
        "test_registered_op",  # of the namespace fastact; below
        "test_peak_memory",  # of the compiled kernels: these keep four doubles for each row
    },
}  # fmt: skip

globals().update(borrowed(LEFT_OUT))


@pytest.fixture(autouse=True)
def numba(compiled):
    with fastact.backend("numba"):
        yield


@pytest.fixture
def isa():
    """Numba compiles for the machine at hand."""


def test_registered_op_in_place():
    family = families("fastact_numba")["cross_entropy"]
    overload = family.others["_backward_"]
    arguments = dict(losses.operands(family))[overload]
    x = arguments[3]
    plain = torch.ops.fastact_numba.cross_entropy_backward(
        *(t.clone() if isinstance(t, torch.Tensor) else t for t in arguments)
    )
    overload(*arguments)
    assert torch.equal(x, plain)


def test_probabilities_over_no_classes():
    """Nothing is read: there is no logit of a target."""
    x = torch.zeros(1, 0, 10_000_000, requires_grad=True)
    loss = F.cross_entropy(x, torch.zeros(1, 0, 10_000_000), reduction="none")
    loss.sum().backward()
    assert x.grad.shape == x.shape
