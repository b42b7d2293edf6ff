"""The tests of softmax and of the losses once more, over Numba's kernels."""

import os
import subprocess
import sys

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


def test_the_next_process_does_not_compile(tmp_path):
    code = (
        "import torch, fastact\n"
        "from fastact import _numba_cross_entropy as rows\n"
        "with fastact.backend('numba'):\n"
        "    x = torch.randn(4, 10, requires_grad=True)\n"
        "    fastact.functional.cross_entropy(x, torch.arange(4)).backward()\n"
        "kernels = rows.cross_entropy_forward, rows.cross_entropy_backward\n"
        "print(sum(sum(k.stats.cache_misses.values()) for k in kernels))"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    misses = [
        subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True,
            check=True,
        ).stdout.split()[-1]
        for _ in range(2)
    ]  # fmt: skip
    assert misses == ["2", "0"]
