"""The tests of softmax and of the losses once more, over Numba's kernels."""

import pytest
import test_cross_entropy_autograd
import test_cross_entropy_edges
import test_cross_entropy_inplace
import test_cross_entropy_values
import test_losses_autograd
import test_losses_values

import fastact

pytest.importorskip("numba")

# What is about something else than the kernels, takes its own backend, or much memory.
ELSEWHERE = (
    "deprecated", "reference", "torch_backend", "peak_memory", "anomaly", "function_and_registered",
    "calls_that_record", "does_not_care", "no_class_for_a_target", "no_classes",
)  # fmt: skip

for _module in (
    test_losses_values, test_losses_autograd, test_cross_entropy_values, test_cross_entropy_edges,
    test_cross_entropy_autograd, test_cross_entropy_inplace,
):  # fmt: skip
    for _name, _test in vars(_module).items():
        if _name.startswith("test_") and not any(word in _name for word in ELSEWHERE):
            globals()[_name + _module.__name__.removeprefix("test")] = _test


@pytest.fixture(autouse=True)
def numba(compiled):
    with fastact.backend("numba"):
        yield


@pytest.fixture
def isa():
    """Numba compiles for the machine at hand."""
