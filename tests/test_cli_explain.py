"""fastact explain: its answers are compared with the ops that run."""

import re
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from cli import fastact_process, invoke
from support import Ops

import fastact
from fastact import _backend
from fastact import functional as F
from fastact._cli import exits, explain, machine
from fastact._cutoffs import CUTOFFS


def call(op, x, classes):
    """What the question is about."""
    if op in ("softmax", "log_softmax"):
        return getattr(F, op)(x.view(-1, classes), 1)
    if op in ("nll_loss", "cross_entropy"):
        x = x.view(-1, classes)
        return getattr(F, op)(x, torch.zeros(len(x), dtype=torch.int64))
    if op == "binary_cross_entropy_with_logits":
        return F.binary_cross_entropy_with_logits(x, torch.zeros_like(x))
    options = {"approximate": "tanh"} if op.endswith("_tanh") else {}
    operands = (x, x) if op in explain.PAIRS else (x,)
    return getattr(F, op.removesuffix("_tanh"))(*operands, **options)


@pytest.mark.parametrize("op", explain.OPS)
def test_explain_says_what_happens(op, auto):
    """At sizes around each op's cutoffs; the answer is compared with the ops that run."""
    classes = 16
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.int32):
        limits = explain.limits(op, dtype, classes)
        sizes = {classes, 2**12} | {n + d for n in limits if n <= 2**19 for d in (-classes, 0)}
        for numel in sorted(n for n in sizes if n > 0):
            for grad in {False, dtype.is_floating_point}:
                found = explain.answer(op, explain.example(dtype, numel, grad, "cpu"), classes)
                x = torch.zeros(numel, dtype=dtype, requires_grad=grad)
                with Ops() as seen:
                    try:
                        call(op, x, classes)
                    except (RuntimeError, NotImplementedError):
                        assert dtype == torch.int32  # by torch: it has no such op
                assert (found.backend != "torch") == bool(seen.ours), (numel, dtype, grad, found)


@pytest.mark.parametrize("op", explain.OPS)
def test_explain_every_op(op, auto):
    result = invoke("explain", op)
    assert result.exit_code == 0, result
    assert re.match(rf"(compiled|torch) answers {op} of 1,048,576 elements", result.stdout)
    assert result.stdout.endswith(".\n")


def test_explain_knows_the_example_of_the_issue(auto):
    arguments = ("explain", "gelu", "--dtype", "bf16", "--numel", "4096")
    assert invoke(*arguments).stdout == (
        "compiled answers gelu of 4,096 elements of torch.bfloat16 on cpu, without a gradient: it "
        "is measured to be faster at every size.\n"
    )
    plain, grad = CUTOFFS["compiled"]["silu"].of[torch.bfloat16]
    result = invoke("explain", "silu", *arguments[2:])
    assert result.stdout == (
        "torch answers silu of 4,096 elements of torch.bfloat16 on cpu, without a gradient: torch "
        f"is measured to be as fast below {plain:,} elements.\n"
    )
    silu = ("explain", "silu", "--dtype", "bf16", "--grad", "--numel")
    result = invoke(*silu, str(2 * grad))
    assert result.stdout.startswith("compiled answers silu")
    assert f"from {grad:,} elements on" in result.stdout
    for numel, who in ((grad, "compiled"), (grad - 1, "torch")):
        result = invoke(*silu, str(numel))
        assert result.stdout.startswith(f"{who} answers")


def test_explain_takes_torchs_names_of_dtypes(auto):
    for short, name in (("bf16", "bfloat16"), ("fp32", "float32")):
        sentence = invoke("explain", "gelu", "--dtype", name).stdout
        assert f"torch.{name}" in sentence
        assert sentence == invoke("explain", "gelu", "--dtype", short).stdout


@pytest.mark.parametrize("forced", [False, True])
def test_explain_a_device_that_is_not_there(auto, forced, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with fastact.backend("compiled" if forced else "auto"):
        result = invoke("explain", "gelu", "--device", "cuda")
    assert "on cuda:0" in result.stdout
    assert "But torch cannot use cuda:0 on this machine: its build is for " in result.stdout


def test_explain_one_device_too_many(auto, monkeypatch):
    """As the command sees it: a fake tensor of torch 2.10 would start a CUDA that is not there."""
    cuda = SimpleNamespace(is_available=lambda: True, device_count=lambda: 2)
    monkeypatch.setattr(machine, "torch", SimpleNamespace(cuda=cuda, version=torch.version))
    end = "But torch cannot use cuda:2 on this machine: there are 2 of them.\n"
    assert invoke("explain", "gelu", "--device", "cuda:2").stdout.endswith(end)
    assert "cannot" not in invoke("explain", "gelu", "--device", "cuda:1").stdout


def test_explain_small_numbers(auto):
    sentence = invoke("explain", "silu", "--numel", "0").stdout
    assert sentence.startswith("torch answers silu of 0 elements of ")
    assert sentence.endswith(": there is nothing to compute.\n")
    sentence = invoke("explain", "softmax", "--numel", "1").stdout
    assert "softmax of 1 element of" in sentence
    assert "in rows of 1 class," in sentence
    sentence = invoke("explain", "softmax", "--numel", "10").stdout
    assert "in rows of 10 classes," in sentence
    assert "in rows of 1,000 classes," in invoke("explain", "softmax").stdout


def test_explain_takes_no_memory(auto):
    assert invoke("explain", "silu", "--numel", str(2**50)).stdout.startswith("compiled answers")


def test_explain_in_a_process():
    starts = {
        "auto": "compiled answers silu_mul",
        "compiled": "compiled answers silu_mul",
        "numba": "numba answers silu_mul",
        "torch": "torch answers silu_mul",
    }
    with ThreadPoolExecutor() as pool:
        runs = pool.map(
            lambda name: fastact_process("explain", "silu_mul", FASTACT_BACKEND=name), starts
        )
    for (backend, start), run in zip(starts.items(), runs, strict=True):
        assert run.returncode == 0, run.stderr
        assert run.stdout.startswith(start)
        assert run.stdout.endswith("it is forced.\n") == (backend != "auto")
        assert run.stdout.count("\n") == 1


def test_explain_what_a_forced_backend_refuses():
    result = invoke("explain", "gelu", "--device", "meta")  # the tests force "compiled"
    assert result.exit_code == exits.FAILED
    assert result.stdout.startswith("Nobody answers gelu")
    assert result.stdout.endswith(
        "the backend 'compiled' is forced, and there are no kernels for meta.\n"
    )
    assert "Fake" not in result.stdout


def test_explain_why_there_are_no_kernels(monkeypatch):
    nothing = [_backend.BackendInfo("compiled", False, "lost"), fastact.backends()[2]]
    monkeypatch.setattr(explain, "backends", lambda: nothing)
    monkeypatch.setattr(_backend.STATE, "choice", _backend.Choice("auto", {}, False))
    assert invoke("explain", "gelu").stdout.endswith(
        "no backend with kernels is available; compiled: lost.\n"
    )
