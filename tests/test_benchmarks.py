"""The benchmarks measure what they say: every op is there, and both sides compute the same."""

import json
from dataclasses import replace
from functools import partial

import cases
import pictures
import pytest
import readme
import tables
import torch
from bars import BARS
from cases import BOTH, COPY, FORWARD, OPS, Case
from results import Results, measure
from timing import Budget, Call, Spread, certain, in_turns, ratio, written_out
from workers import started

import fastact
from fastact._registry import ACTIVATIONS, GATES

TINY = Budget(seconds=0, least=2)


def tiny(op, mode, dtype="fp32"):
    """A case of a few elements."""
    shape = next(iter(op.shapes.values()))
    small = (3, 8) if len(shape) == 2 else (8,)
    return Case(replace(op, shapes={"tiny": small}), dtype, "tiny", mode)


def test_every_public_function_and_row_is_measured():
    assert {op.function for op in OPS.values()} >= set(fastact.functional.__all__)
    assert set(OPS) >= set(ACTIVATIONS)
    assert {op.gate for op in OPS.values()} >= set(GATES)


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_contenders_compute_the_same(op):
    for mode in op.modes:
        calls = tiny(op, mode).calls(["torch", "fastact", "compiled"])
        assert set(calls) == {"torch", "fastact", "compiled", COPY}
        expected = calls["torch"].run()
        for name in ("fastact", "compiled"):
            call = calls[name]
            with call.within():
                if call.before is not None:
                    call.before()
                actual = call.run()
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6, msg=name)


def test_a_forced_backend_answers():
    seen = []
    call = cases.Case(OPS["silu"], "fp32", "16", FORWARD).calls(["numba"])["numba"]
    Call(lambda: seen.append(fastact._backend.STATE.choice.name), call.within).sample(1)
    assert seen == ["numba"]
    assert fastact._backend.STATE.choice.name == "compiled"  # as the tests have it


@pytest.mark.parametrize(
    ("name", "mode", "bytes_per_element"),
    [("silu", FORWARD, 8), ("silu", BOTH, 20), ("silu_mul", FORWARD, 12), ("swiglu", BOTH, 32)],
)
def test_bytes(name, mode, bytes_per_element):
    case = Case(OPS[name], "fp32", "2^20", mode)
    assert case.bytes == bytes_per_element * case.elements
    assert abs(case.elements / 2**20 - 1) < 0.01


def test_samples_are_of_one_call():
    calls = []
    call = Call(lambda: calls.append(1))
    number = call.warm_up(shortest=1e-4)
    assert number > 10
    del calls[:]
    seconds = call.sample(number)
    assert len(calls) == number + 1  # the first is not timed
    assert seconds < 1e-4


def test_calls_are_written_out():
    """With what a partial has of them."""

    def function(*args, **keywords):
        return args, keywords

    assert written_out(partial(function, 0, c=3), 1, 2)() == ((0, 1, 2), {"c": 3})


def test_what_comes_before_a_sample_is_not_timed():
    order = []
    call = Call(lambda: order.append("run"), before=lambda: order.append("before"))
    call.sample(2)
    assert order == ["before", "run", "run", "run"]


def test_ratios_are_of_one_round():
    # A neighbour makes a round ten times as slow: the ratio does not notice.
    samples = {"torch": [2.0, 20.0, 2.0], "fastact": [1.0, 10.0, 1.0]}
    assert ratio(samples, "torch", "fastact") == Spread(2.0, 2.0, 2.0)


def test_the_interval_of_a_median():
    assert certain(range(101)) == Spread(50, 40, 60)
    assert certain([1.0, 2.0, 9.0]) == Spread(2.0, 1.0, 9.0)  # too few to say anything


def test_rounds_take_every_call():
    samples = in_turns({"a": Call(int), "b": Call(int)}, Budget(0, least=3), shortest=1e-5)
    assert [len(times) for times in samples.values()] == [3, 3]


@pytest.fixture(scope="module")
def results():
    contenders = ["fastact", "torch"]
    rows = [
        measure(Case(OPS["silu"], dtype, size, mode), contenders, TINY)
        for dtype, size in (("fp32", "16"), ("bf16", "4096"))
        for mode in (FORWARD, BOTH)
    ]
    return Results.now(rows)


def test_json(results, tmp_path):
    path = tmp_path / "folder" / "results.json"
    results.write(path)
    assert Results.read(path) == results
    written = json.loads(path.read_text())
    assert set(written) == {"version", "date", "machine", "rows", "notes"}
    assert {"cpu", "threads", "torch", "fastact", "revision", "backends"} <= set(written["machine"])
    row = written["rows"][1]
    assert (row["op"], row["dtype"], row["where"], row["mode"]) == ("silu", "fp32", "16", BOTH)
    assert (row["family"], row["shape"], row["bytes"]) == ("activations", [16], 5 * 4 * 16)
    assert row["rounds"] >= 2
    assert row["copy_gbs"] > 0
    ours = row["contenders"]["fastact"]
    assert set(ours) == {"seconds", "gbs", "percent_of_copy", "ratios"}
    assert set(ours["ratios"]["torch"]) == set(ours["seconds"]) == {"median", "low", "high"}
    assert ours["gbs"] == pytest.approx(row["bytes"] / ours["seconds"]["median"] / 1e9)


def test_a_process_of_its_own():
    case = Case(OPS["silu"], "fp32", "16", BOTH)
    with started(1, None) as (worker,):
        assert worker.call(replace(case, op=replace(case.op, name="absent")), "fastact") is None
        for contender in ("fastact", COPY):
            call = worker.call(case, contender)
            samples = in_turns({contender: call}, TINY)
            assert 0 < samples[contender][0] < 1


def test_another_format_is_refused(results, tmp_path):
    path = tmp_path / "results.json"
    replace(results, version=0).write(path)
    with pytest.raises(ValueError, match="format 0"):
        Results.read(path)


def test_tables_and_pictures(results, tmp_path, capsys):
    tables.print_results(results)
    printed = capsys.readouterr().out
    assert "silu" in printed
    assert "of 4 rows below" in printed
    paths = pictures.draw(results, tmp_path / "run")
    assert len(paths) == 3
    assert all(path.stat().st_size > 1000 for path in paths)


def test_bars_name_cases():
    known = {(c.op.name, c.where, c.dtype) for c in cases.select(modes=[BOTH])}
    for bar in BARS:
        if bar.op in OPS:
            assert (bar.op, bar.where, bar.dtype) in known, bar


def test_a_bar_finds_its_row(results):
    bar = replace(BARS[0], op="silu", where="4096", dtype="bf16")
    (row,) = [r for r in results.rows if (r.where, r.dtype, r.mode) == ("4096", "bf16", BOTH)]
    assert bar.measured(results.rows) == row.ratio()
    assert replace(bar, where="2^24").measured(results.rows) is None


def test_the_readme_has_the_committed_figures():
    text = readme.README.read_text()
    assert readme.rewritten(text, Results.read(readme.RESULTS)) == text
