"""fastact check: what it goes over, and that it finds what is wrong."""

import re

import pytest
import torch
from cli import fastact_process, invoke, one_sentence

import fastact
from fastact import _backend
from fastact._cli import check, exits, explain


def test_check_in_a_process():
    run = fastact_process("check", "gelu", "cross_entropy", "--step", "5000011")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "\x1b" not in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 80
    assert "All 12 bounds are kept." in run.stdout
    assert re.search(r"^ gelu +fp32 +[\d.]+ +\S+ +3\.02 +[\d.]+ +\S+ +4\.00 *$", run.stdout, re.M)


def test_check_takes_every_op_and_numba(monkeypatch):
    monkeypatch.setattr(check, "HALVES", {})  # 16 bits take their time
    result = invoke("check", "--step", "50000017", "--backend", "numba", "silu", "softplus")
    assert result.exit_code == 0, result.stdout
    assert "the backend 'numba'" in result.stdout
    result = invoke("check", "--step", "50000017")
    assert result.exit_code == 0, result.stdout
    for op in explain.OPS:
        assert f" {op.replace('binary_cross_entropy', 'bce')} " in result.stdout, op


def test_check_takes_kernels_where_torch_is_forced(monkeypatch):
    """Torch against torch would not keep our bounds, and be reported as an error of ours."""
    with fastact.backend("torch"):
        result = invoke("check", "--step", "50000017", "gelu")
        assert result.exit_code == 0, result.stdout
        assert "the backend 'compiled'" in result.stdout
        lost = [_backend.BackendInfo(name, False, "lost") for name in ("compiled", "numba")]
        monkeypatch.setattr(check, "backends", lambda: [*lost, fastact.backends()[2]])
        assert one_sentence(invoke("check", "gelu"), exits.USAGE).startswith(
            "Invalid value for --backend: no backend with kernels is available; compiled: lost;"
        )


def test_check_goes_over_the_floats_in_blocks(monkeypatch):
    monkeypatch.setattr(check, "BLOCK", 64)
    blocks = [x for x in check.floats(2**21) if x.numel() <= 64]
    found = torch.cat(blocks).view(torch.int32)
    # All that are finite, of the exponents 0 to 254 and either sign.
    assert found.unique().numel() == found.numel() == 2 * 255 * 2**23 // 2**21


@pytest.mark.parametrize("op", check.GATED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_check_finds_a_wrong_gated_op(op, dtype, monkeypatch):
    monkeypatch.setattr(check, "HALVES", {"fp16": torch.float16})
    right = check.run_both

    def wrong(function, x, grad=None):
        y, dx = right(function, x, grad)
        if function.__name__ == "call" and x.dtype == dtype:
            dx = dx.clone()
            dx[1] *= 1 + 32 * torch.finfo(dtype).eps  # the gradient by what is gated
        return y, dx

    assert invoke("check", "--step", "50000017", op).exit_code == 0
    monkeypatch.setattr(check, "run_both", wrong)
    result = invoke("check", "--step", "50000017", op)
    assert result.exit_code == exits.FAILED
    assert "1 of 4 bounds are exceeded" in result.stdout


@pytest.mark.parametrize("where", ["value", "slope", "bf16"])
def test_check_finds_what_is_wrong(where, monkeypatch):
    monkeypatch.setattr(check, "HALVES", {"bf16": torch.bfloat16})
    right = check.run_both

    def wrong(function, x, grad=None):
        y, dx = right(function, x, grad)
        if function.__name__ == "call" and x.dtype != torch.float64:
            if where == "value" and x.dtype == torch.float32:
                y = y * (1 + 2**-20)
            if where == "slope" and x.dtype == torch.float32:
                dx = torch.where(x == x.max(), torch.nan, dx)
            if where == "bf16" and x.dtype == torch.bfloat16:
                y = torch.nextafter(y, torch.full_like(y, 9.0))
        return y, dx

    monkeypatch.setattr(check, "run_both", wrong)
    result = invoke("check", "silu", "--step", "5000011")
    assert result.exit_code == exits.FAILED
    assert re.search(r"\d of 4 bounds are exceeded, first silu in (fp32|bf16)", result.stdout)
    assert "FASTACT_BACKEND=torch" in result.stdout
