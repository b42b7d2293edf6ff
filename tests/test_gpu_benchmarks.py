"""The benchmarks for a GPU, as far as they run without one: cases, checks, targets, the file."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gpu_cases
import gpu_report
import pytest
import torch
from cases import BOTH, FORWARD, Case
from gpu_timing import GpuCall, sets_needed
from results import Contender, Results, Row
from support import ROOT
from timing import Spread

import fastact

CASES = gpu_cases.all_cases()


def tiny(name, dtype="fp32", mode=BOTH):
    op = next(case.op for case in CASES if case.op.name == name)
    shape = {1: (40,), 2: (5, 8)}.get(len(next(iter(op.shapes.values()))), (5, 8, 3))
    return Case(replace(op, shapes={"tiny": shape}), dtype, "tiny", mode)


def test_every_public_function_is_measured_at_every_size():
    assert {case.op.function for case in CASES} >= set(fastact.functional.__all__)
    assert len({case.name for case in CASES}) == len(CASES)
    assert (CASES[0].where, CASES[0].dtype) == (gpu_cases.TARGET_LOGITS, "bf16")
    gelu = [case for case in CASES if case.op.name == "gelu"]
    assert {case.dtype for case in gelu} == {"fp32", "bf16", "fp16"}
    assert {case.mode for case in gelu} == {FORWARD, BOTH}
    assert max(case.elements for case in gelu) == 2**28


@pytest.mark.parametrize("name", sorted({case.op.name for case in CASES}))
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_right_results_are_found_right(name, dtype, monkeypatch):
    monkeypatch.setattr(gpu_cases, "_PART", 16)  # several parts, the last one shorter
    assert gpu_cases.wrong(tiny(name, dtype)) == ""


@pytest.mark.parametrize(
    ("name", "function"),
    [("silu", "gelu"), ("gelu", "silu"), ("relu_mul", "silu_mul"), ("softmax", "log_softmax")],
)
def test_a_wrong_kernel_is_not_timed(name, function):
    case = tiny(name)
    assert "off by" in gpu_cases.wrong(replace(case, op=replace(case.op, function=function)))


def test_a_wrong_loss_is_not_timed():
    for name, keywords in (("cross_entropy", {"label_smoothing": 0.01}),
                           ("cross_entropy, softcap, z_loss", {"softcap": 30.0})):  # fmt: skip
        case = tiny(name)
        assert "off by" in gpu_cases.wrong(replace(case, op=replace(case.op, keywords=keywords)))


def test_rows_that_are_kept_are_timed_without_as_well():
    names = {c.op.name for c in CASES if gpu_cases.NOT_KEPT in gpu_cases.competitors(c)}
    losses = {"cross_entropy, smoothed", "cross_entropy_expected"}
    assert names == {"softmax", "log_softmax", *losses}
    assert gpu_cases.NOT_KEPT not in gpu_cases.competitors(tiny("softmax"))


def test_every_op_meets_torch_compile():
    names = {c.op.name for c in CASES if gpu_cases.COMPILE in gpu_cases.competitors(c)}
    assert names == {c.op.name for c in CASES if not c.op.overwrites}


def test_what_is_not_compiled_for_time_is_said(monkeypatch):
    import gpu

    options = SimpleNamespace(seconds=60, compile_seconds=0.0, out=Path("."))
    monkeypatch.setattr(gpu, "gpu", lambda: {"name": "none"})
    session = gpu.Session(options)
    case = next(c for c in CASES if gpu_cases.compiles(c))
    assert gpu_cases.COMPILE not in session.competitors(case)
    assert session.notes.left_out == {f"{case.name} with torch.compile": "time to compile"}


def test_classes_that_lie_apart_are_measured():
    ops = {"softmax, dim 1", "log_softmax, dim 1", "cross_entropy, images"}
    assert {c.op.name for c in CASES if len(c.shape) > 2} == ops
    assert {(32, 1000, 7, 7), (8, 50257, 2)} <= {c.shape for c in CASES if c.op.name in ops}
    row_of_three = row("softmax, dim 1", "losses", (8, 50257, 2), against=0.5)
    assert gpu_report.TARGETS[-1].line([row_of_three]).startswith("MISSED")


def test_operands_exceed_the_cache():
    cache = 50 * 2**20
    assert sets_needed(2**30, cache, 70 * 2**30) == 1
    assert sets_needed(2**22, cache, 70 * 2**30) * 2**22 >= 4 * cache - 2**22
    assert sets_needed(2**10, cache, 70 * 2**30) == 64
    assert sets_needed(2**30, cache, 2**30) == 1


def test_a_call_goes_over_all_operands():
    seen = []
    call = GpuCall([lambda i=i: seen.append(i) for i in range(3)])
    assert call.warm_up(0) == 1
    seen.clear()
    assert call.sample(2) > 0
    assert seen == [0, 1, 2, 0, 1, 2]
    assert math.isfinite(call.call_seconds)


def row(op, family, shape, dtype="bf16", percent=99.0, against=3.0):
    spread = lambda m: Spread(m, m, m)  # noqa: E731
    ours = Contender(spread(1e-3), 1000.0, percent,
                     {"torch": spread(against), "torch.compile": spread(against / 2)})  # fmt: skip
    torchs = Contender(spread(against * 1e-3), 1000.0, percent, {})
    where = "x".join(map(str, shape))
    return Row(family, op, dtype, where, list(shape), BOTH, 1, 1, 5, 1000.0,
               {"fastact": ours, "torch": torchs})  # fmt: skip


def test_targets():
    good = [
        row("gelu", "activations", (2**28,)),
        row("cross_entropy", "losses", (8192, 128256)),
        row("cross_entropy_expected", "losses", (8192, 128256)),
        row("softmax", "losses", (65536, 10)),
    ]
    bad = [
        row("gelu", "activations", (2**28,), percent=94.0, against=0.9),
        row("cross_entropy", "losses", (8192, 128256), percent=80.0, against=2.4),
        row("cross_entropy_expected", "losses", (8192, 128256), percent=80.0),
        row("softmax", "losses", (65536, 10), against=0.5),
    ]
    for target in gpu_report.TARGETS:
        assert target.line(good).startswith("reached"), target.text
        assert target.line(bad).startswith("MISSED"), target.text
        assert target.line([]).startswith("not measured")
    # Below 64 MiB the cache decides, and nothing is required of the bandwidth.
    small = [row("gelu", "activations", (2**20,), percent=10.0)]
    assert gpu_report.TARGETS[0].line(small).startswith("not measured")


def test_dry_run(tmp_path):
    """The whole command, on a few elements: it writes what it prints."""
    command = [sys.executable, "benchmarks/gpu.py", "--dry-run", "--compile-seconds", "0"]
    ran = subprocess.run(
        [*command, "--out", tmp_path, "--ops", "silu", "cross_entropy"],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr + ran.stdout
    results = Results.read(tmp_path / "dry-run.json")
    assert {r.op for r in results.rows} == {"silu", "cross_entropy"}
    assert results.notes["wrong"] == results.notes["failed"] == {}
    assert results.machine["gpu"] == results.notes["gpu"]["name"] == "dry run"
    assert {"nvcc", "copy_gbs"} <= set(results.notes["gpu"])
    assert gpu_report.summary(results) in ran.stdout


def test_a_lost_gpu_ends_one_case(tmp_path):
    """An error that a context does not survive: another process measures what is left."""
    code = "import sys, gpu; sys.argv[0] = gpu.__file__; gpu.lost = lambda: True; gpu.main()"
    ran = subprocess.run(
        [sys.executable, "-c", code, "--dry-run", "--out", tmp_path, "--compile-seconds", "0",
         "--ops", "silu"],
        cwd=ROOT / "benchmarks", capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 1, ran.stderr + ran.stdout
    results = Results.read(tmp_path / "dry-run.json")
    assert list(results.notes["failed"].values()) == ["the GPU was lost"]
    assert len({(r.op, r.dtype, r.mode) for r in results.rows}) == len(results.rows) == 6
    assert "another process goes on" in ran.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_says_so():
    ran = subprocess.run(
        [sys.executable, "benchmarks/gpu.py"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 2
    assert "no GPU kernels" in ran.stderr
