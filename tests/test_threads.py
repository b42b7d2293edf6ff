"""Results depend neither on the number of threads nor on an element's position."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import support
import torch

from fastact import functional as F
from fastact._registry import ACTIVATIONS, DTYPES

N = 3 * 32768 + 1001  # several threads' worth, and no multiple of anything


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def results(dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(1)
    x = (torch.randn(N, dtype=torch.float32) * 4).to(dtype).requires_grad_()
    up = torch.randn(N, dtype=torch.float32).to(dtype).requires_grad_()
    grad = torch.randn(N, dtype=torch.float32).to(dtype)
    found = []
    for name, row in ACTIVATIONS.items():
        y = support.public(name)(x, *row.defaults)
        found += [y.detach(), *torch.autograd.grad(y, x, grad)]
    y = F.silu_mul(x, up)
    found += [y.detach(), *torch.autograd.grad(y, (x, up), grad)]
    y = F.geglu(x[: N - 1].view(4, -1))
    found += [y.detach(), *torch.autograd.grad(y.sum(), x)]
    # Rows with gaps, columns, and the kernels of the second derivative.
    found.append(F.gelu(x.detach()[:99_300].view(100, -1)[:, 1:]))
    found.append(F.tanh(x.detach()[:99_300].view(100, -1).t()))
    for y, leaves in ((F.gelu(x), [x]), (F.silu_mul(x, up), [x, up])):
        first = torch.autograd.grad(y, leaves, grad, create_graph=True)
        found += torch.autograd.grad(first, leaves, [grad] * len(leaves))
    return found


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bitwise_equal_for_any_number_of_threads(dtype, threads):
    threads(1)
    one = results(dtype)
    for count in sorted({2, 3, os.cpu_count() or 4}):
        threads(count)
        for a, b in zip(one, results(dtype), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bitwise_equal_at_any_position(dtype, isa):
    x = (torch.randn(211) * 4).to(dtype)
    for name, row in ACTIVATIONS.items():
        op = support.public(name)
        whole = op(x, *row.defaults)
        for start in (1, 3, 7, 16, 31):
            assert torch.equal(whole[start:], op(x[start:].clone(), *row.defaults)), name
        for element in (0, 5, 210):
            alone = op(x[element : element + 1].clone(), *row.defaults)
            assert torch.equal(whole[element : element + 1], alone), name


def test_concurrent_calls():
    x = [torch.randn(50_001) for _ in range(8)]
    expected = [F.gelu(t) for t in x]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for got, want in zip(pool.map(F.gelu, x), expected, strict=True):
                assert torch.equal(got, want)


def test_backward_in_another_thread():
    x = torch.randn(70_001, requires_grad=True)
    y = F.silu(x)
    with ThreadPoolExecutor(1) as pool:
        (there,) = pool.submit(torch.autograd.grad, y.sum(), x).result()
    (here,) = torch.autograd.grad(F.silu(x).sum(), x)
    assert torch.equal(there, here)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_computes():
    x = torch.randn(1001)
    expected = F.gelu(x)
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        os._exit(0 if torch.equal(F.gelu(x), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
