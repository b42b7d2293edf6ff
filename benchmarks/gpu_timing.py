"""Times calls on a GPU by its own clock: a captured graph where calls are short, else one by one.

Each call has a set of operands of its own, and there are as many as it takes to exceed the
second-level cache; nothing is found there that an earlier call left. On the CPU, for a dry run, the
host's clock stands in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter

import torch
from timing import SLICE

Run = Callable[[], object]
SHORT = 1e-3  # seconds: below, launches would show, and a graph is replayed


def elapsed(run: Run, number: int = 1) -> float:
    """Seconds that the device spends in ``number`` calls."""
    if not torch.cuda.is_available():
        start = perf_counter()
        for _ in range(number):
            run()
        return perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(number):
        run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1e-3


def in_order(runs: list[Run]) -> Run:
    """All of them; the results of all stay alive, so that each writes to memory of its own."""

    def together() -> object:
        return [run() for run in runs]

    return together


def captured(runs: list[Run]) -> tuple[torch.cuda.CUDAGraph, object]:
    """A graph of all of them, and what keeps its memory."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for run in runs[:2]:
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = in_order(runs)()
    return graph, results


class GpuCall:
    """What takes turns with others in timing.in_turns: one competitor's calls."""

    def __init__(
        self,
        runs: list[Run],
        within: Callable[[], AbstractContextManager[object]] = nullcontext,
        may_capture: bool = True,
    ) -> None:
        self.runs, self.within, self.may_capture = runs, within, may_capture
        self.how = "events"
        self.call_seconds = math.nan  # of a call from Python, launch included
        self._unit: Run = runs[0]
        self._calls = 1  # in a unit
        self._kept: object = None

    def warm_up(self, shortest: float = SLICE) -> int:
        """Compiles what compiles, chooses how to time, and says how many units make a sample."""
        with self.within():
            for run in (*self.runs[:2], self.runs[0]):
                run()
            one = min(elapsed(self.runs[0]) for _ in range(3))
            self._unit, self._calls = in_order(self.runs), len(self.runs)
            if one < SHORT:
                self.call_seconds = elapsed(in_order(self.runs * 2)) / (2 * len(self.runs))
                if self.may_capture and torch.cuda.is_available():
                    self._capture()
            unit = min(elapsed(self._unit) for _ in range(2))
        return max(1, math.ceil(shortest / max(unit, 1e-7)))

    def _capture(self) -> None:
        try:
            graph, self._kept = captured(self.runs)
        except RuntimeError:  # something in it cannot be captured
            torch.cuda.synchronize()
            return
        self._unit, self.how = graph.replay, "graph"

    def sample(self, number: int) -> float:
        """Seconds of one call, the mean of ``number`` units."""
        with self.within():
            return elapsed(self._unit, number) / (number * self._calls)


def sets_needed(bytes_of_one: int, cache: int, free: int) -> int:
    """How many sets of operands exceed the cache, within a part of the memory that is free."""
    enough = math.ceil(4 * cache / max(1, bytes_of_one))
    return max(1, min(enough, 64, free // (8 * max(1, bytes_of_one))))
