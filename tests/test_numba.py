"""The Numba backend: a smaller selection, because each kernel is compiled at its first call."""

import mmap
import os
import threading

import pytest
import support
import torch
from support import ACTIVATIONS, CASES, DTYPES, INPLACE, UNARY, check, labels

import fastact
from fastact import functional as F

pytestmark = pytest.mark.skipif("numba" not in support.BACKENDS, reason="no Numba backend")

LAYOUTS = ("contiguous", "strided", "columns with gaps", "expanded", "sizes of one", "empty")
# One of each kind of formula, in every dtype.
FEW = [
    c for c in CASES if c.label in ("gelu", "tanh", "softplus", "elu,-0.5", "gelu_tanh_mul", "glu")
]


@pytest.fixture(autouse=True)
def numba(compiled):
    with fastact.backend("numba"):
        yield


def arguments(case, x):
    other = torch.randn(x.shape, generator=torch.Generator().manual_seed(3)).to(x.dtype)
    return (x,) if case.tensors == 1 else (x, other)


@pytest.mark.parametrize("case", CASES, ids=labels)
def test_values_and_gradients(case):
    for name in LAYOUTS:
        x = support.layouts(torch.float32)[name]
        check(case, *arguments(case, x), name=name)


def test_strides_are_those_of_the_compiled_kernels():
    for name in LAYOUTS:
        x = support.layouts(torch.float32)[name]
        for function in (F.silu, F.swiglu, lambda t: F.silu_mul(t, t)):
            ours = function(x)
            with fastact.backend("compiled"):
                assert ours.stride() == function(x).stride(), name


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != torch.float32], ids=labels)
@pytest.mark.parametrize("case", FEW, ids=labels)
def test_other_dtypes(case, dtype):
    for name in LAYOUTS[:3]:
        check(case, *arguments(case, support.layouts(dtype)[name]), name=name)


@pytest.mark.parametrize("case", UNARY, ids=labels)
def test_special_numbers_as_compiled(case):
    """Infinities, NaN, zeros and their signs, kinks, and infinite gradients, as in C++."""
    info = torch.finfo(torch.float32)
    x = [0.0, info.tiny, 1.0, 3.0, 6.0, 20.0, 100.0, 1e19, info.max, float("inf"), float("nan")]
    x = torch.tensor([*x, *(-t for t in x)])
    results = []
    for name in ("numba", "compiled"):
        with fastact.backend(name):
            leaf = x.clone().requires_grad_()
            y = case.function(leaf)
            # Whether a slope underflows to zero depends on the arithmetic, but not that of a
            # piecewise function.
            incoming = (1.0, float("inf")) if case.row.zero_wins else (1.0,)
            grads = [
                torch.autograd.grad(y, leaf, torch.full_like(y, g), retain_graph=True)[0]
                for g in incoming
            ]
            results.append([y.detach(), *grads])
    for what, ours, theirs in zip(("value", "slope", "infinite gradient"), *results, strict=False):
        finite = ours.isfinite() & theirs.isfinite()
        assert torch.equal(ours.isnan(), theirs.isnan()), f"{case.label} {what}: NaN"
        assert torch.equal(ours[~finite].nan_to_num(), theirs[~finite].nan_to_num()), what
        # 4 ulp of the compiled kernel; where a slope follows from the output, of that.
        scale = torch.ones_like(ours) if case.slope_from_output and what != "value" else None
        support.assert_within(
            ours[finite], theirs[finite].double(), 8, x[finite], f"{case.label} {what}",
            None if scale is None else scale[finite].double(),
        )  # fmt: skip
        zeros = (ours == 0) & (theirs == 0)
        if what == "value":
            assert torch.equal(ours[zeros].signbit(), theirs[zeros].signbit()), case.label


@pytest.mark.parametrize("case", INPLACE[::3], ids=labels)
def test_inplace(case):
    x = torch.randn(6, 12)
    want = case.function(x[:, 1:9])
    buffer = x.clone()
    version = buffer._version
    case.inplace(buffer[:, 1:9])
    assert torch.equal(buffer[:, 1:9], want)
    assert torch.equal(buffer[:, 9:], x[:, 9:])
    assert buffer._version == version + 1
    leaf = torch.randn(3000, requires_grad=True)  # longer than a block
    y = case.inplace(leaf * 1)
    torch.testing.assert_close(y, case.function(leaf))
    ours, theirs = (torch.autograd.grad(t.sum(), leaf)[0] for t in (y, case.function(leaf)))
    assert torch.equal(ours, theirs)


def test_differentiable():
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    for case in (c for c in FEW if c.dim is None):
        x = [torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(case.tensors)]
        assert torch.autograd.gradcheck(case.function, x, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(case.function, x, check_fwd_over_rev=True)


def test_transforms_and_compile():
    x = torch.randn(3, 6)
    exact = torch.func.vmap(torch.func.hessian(lambda t: torch.nn.functional.gelu(t).sum()))(x)
    ours = torch.func.vmap(torch.func.hessian(lambda t: F.gelu(t).sum()))(x)
    torch.testing.assert_close(ours, exact)
    compiled = torch.compile(lambda t: F.tanh(F.swiglu(t)) * 2, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), F.tanh(F.swiglu(x)) * 2)
    for op, arguments_ in (
        (torch.ops.fastact_numba.gelu.default, (x.clone().requires_grad_(),)),
        (torch.ops.fastact_numba.tanh_.default, (x.clone(),)),
        (torch.ops.fastact_numba.silu_glu_backward.default, (x[:, :3].contiguous(), x, 1, True)),
    ):
        torch.library.opcheck(op, arguments_)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=labels)
def test_threads_and_positions(dtype):
    n = 3 * 32768 + 1001
    x = (torch.randn(n) * 4).to(dtype).requires_grad_()
    results = []
    for count in (1, 2, 4):
        with support.threads(count):
            y = F.gelu(x)
            results.append((y.detach(), *torch.autograd.grad(y.sum(), x)))
    for y, g in results[1:]:
        assert torch.equal(y, results[0][0])
        assert torch.equal(g, results[0][1])
    assert torch.equal(F.gelu(x.detach()[7:].clone()), results[0][0][7:])


def test_concurrent_calls():
    x = torch.randn(100_001)
    want, failures = F.silu(x), []

    def call():
        failures.extend(i for i in range(5) if not torch.equal(F.silu(x), want))

    workers = [threading.Thread(target=call) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def test_a_thread_that_ends_after_the_main_one():
    """Python starts no other threads then."""
    code = """
import threading, time, torch, fastact
torch.set_num_threads(2)
x = torch.randn(200_000)
def work():
    threading.main_thread().join()
    time.sleep(0.2)
    with fastact.backend("numba"):
        fastact.functional.gelu(x)
    print("done", flush=True)
threading.Thread(target=work).start()
"""
    result = support.python(code)
    assert result.stdout == "done\n", result.stderr


def test_registered_ops_check_what_they_read():
    ops = torch.ops.fastact_numba
    a, b = torch.randn(8), torch.randn(4)
    for bad in (
        lambda: ops.silu_backward(a, b), lambda: ops.silu_backward(a, a.double()),
        lambda: ops.silu_mul(a, b), lambda: ops.silu_glu(torch.randn(5), 0, True),
        lambda: ops.silu(torch.arange(4)),
    ):  # fmt: skip
        with pytest.raises((RuntimeError, NotImplementedError), match="fastact_numba::"):
            bad()


def test_every_row_is_registered():
    for name in ACTIVATIONS:
        for suffix in ("", "_backward", "_double_backward", "_"):
            assert torch._C._dispatch_has_kernel_for_dispatch_key(
                f"fastact_numba::{name}{suffix}", "CPU"
            ), name + suffix


@pytest.mark.parametrize("threads", ["torch's", "a pool"])
def test_parts_run_in_parallel_and_their_errors_arrive(threads, monkeypatch):
    from fastact import _numba

    if threads == "a pool":
        monkeypatch.setattr(_numba, "_torchs_threads", None)
    elif _numba._torchs_threads is None:
        pytest.skip("torch has another OpenMP")
    both, seen = threading.Barrier(2, timeout=20), []

    def part(begin, end):
        both.wait()  # broken if one thread takes both
        seen.append((begin, end))

    def fails(begin, end):
        if begin:
            raise ZeroDivisionError

    with support.threads(2):
        _numba.run_parts(2 * _numba._GRAIN, 1, part)
        with pytest.raises(ZeroDivisionError):
            _numba.run_parts(2 * _numba._GRAIN, 1, fails)
    assert sorted(seen) == [(0, _numba._GRAIN), (_numba._GRAIN, 2 * _numba._GRAIN)]


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="of Linux")
def test_large_outputs_are_asked_huge_pages_for(monkeypatch):
    from fastact import _numba

    asked = []
    monkeypatch.setattr(_numba, "_advise", lambda *arguments: asked.append(arguments))
    small, large = torch.randn(1000), torch.randn(3 << 20)  # of 12 MiB
    y = F.silu(large)
    ((begin, size, advice),) = asked
    assert advice == mmap.MADV_HUGEPAGE
    assert begin % (2 << 20) == size % (2 << 20) == 0
    assert size >= 8 << 20
    assert y.data_ptr() <= begin < begin + size <= y.data_ptr() + 4 * y.numel()
    F.silu(small)
    assert len(asked) == 1
    monkeypatch.setattr(_numba, "_advise", None)  # another system
    assert torch.equal(F.silu(large), y)


def test_float16_without_instructions(tmp_path):
    """On a processor that has none to convert it: every element to and fro, and rounded."""
    code = """
import torch, fastact
from fastact import functional as F
from fastact._numba_jit import CONVERTS_FLOAT16
x = torch.arange(-32768, 32768, dtype=torch.int32).short().view(torch.float16)
with fastact.backend("numba"):
    y, rounded = F.relu(x), F.sigmoid(x)
exact = torch.sigmoid(x.double()).half()
wrong = (rounded != exact) & ~exact.isnan()
print(CONVERTS_FLOAT16, torch.equal(y.nan_to_num(7), torch.relu(x).nan_to_num(7)),
      y.isnan().equal(x.isnan()), rounded.isnan().equal(x.isnan()), int(wrong.sum()) <= 16)
"""
    result = support.python(code, NUMBA_CPU_NAME="generic", NUMBA_CACHE_DIR=str(tmp_path))
    assert result.stdout.split() == ["False", "True", "True", "True", "True"], result.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_in_a_forked_child():
    """torch's threads are not there, and are not waited for."""
    code = """
import os, torch, fastact
torch.set_num_threads(2)
x = torch.randn(200_000)
with fastact.backend("numba"):
    y = fastact.functional.gelu(x)
    child = os.fork()
    if not child:
        z = fastact.functional.gelu(x)
        torch.set_num_threads(1)  # or torch's own op waits for them
        os._exit(not z.equal(y))
    print(os.waitpid(child, 0)[1])
"""
    result = support.python(code)
    assert result.stdout == "0\n", result.stderr
