"""The cases as a pytest-benchmark suite, a group for each: its selection, storage and comparison.

    python -m pytest benchmarks -k "gelu-fp32-1048576" --benchmark-columns=median,iqr,rounds

pytest-benchmark times one function after the other, and a busy machine would decide between them.
So a case is measured as everywhere here, all contenders in turns, and its samples are handed to
pytest-benchmark on a clock that they move.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import bench
import cases
import pytest
import torch
from cases import COPY, Case
from pytest_benchmark.fixture import BenchmarkFixture
from results import Row
from timing import Budget, Samples, in_turns


class Clock:
    """A clock that stands still but for what it is told."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        """What pytest-benchmark reads."""
        return self.time

    def advance(self, seconds: float) -> None:
        """What pytest-benchmark believes to be timing."""
        self.time += seconds


CLOCK = Clock()
OPTIONS = argparse.Namespace(contenders=None, quick=False, compile="some")


@lru_cache(maxsize=1)
def measured(case: Case) -> Samples:
    """Every contender's samples; the tests of a group come one after another."""
    return in_turns(case.calls(bench.contenders(case, OPTIONS)), Budget())


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def parameters() -> Iterator[Any]:
    for case in cases.select():
        for contender in (*bench.contenders(case, OPTIONS), COPY):
            mark = pytest.mark.benchmark(group=case.name, timer=CLOCK.now)
            # -k takes no "^".
            shape = "x".join(map(str, case.shape))
            name = f"{case.op.name}-{case.dtype}-{shape}-{case.mode}-{contender}"
            yield pytest.param(case, contender, id=name, marks=mark)


@pytest.mark.parametrize(("case", "contender"), [*parameters()])
def test_speed(benchmark: BenchmarkFixture, case: Case, contender: str) -> None:
    samples = measured(case)
    if contender not in samples:
        pytest.skip(f"{contender} does not take {case.name}")
    seconds = iter(samples[contender])
    benchmark.pedantic(
        CLOCK.advance,
        setup=lambda: ((next(seconds),), {}),
        rounds=len(samples[contender]),
    )
    row = Row.of(case, samples)
    benchmark.extra_info["copy_gbs"] = row.copy_gbs
    if contender != COPY:
        found = row.contenders[contender]
        benchmark.extra_info.update(
            gbs=found.gbs,
            percent_of_copy=found.percent_of_copy,
            ratio_to_torch=found.ratios["torch"].median,
        )
