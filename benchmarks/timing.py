"""Times several calls in turns, so that a busy machine disturbs all of them alike.

A round takes one sample of every call, in an order drawn anew each time; what is compared are the
samples of one round. A sample of a fast call is the mean of many calls, so that one of a
microsecond can be measured.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from time import perf_counter, perf_counter_ns
from typing import Any, Protocol

SLICE = 1e-3  # seconds: how long a sample lasts at least
LARGEST_KEPT = 32 << 20  # bytes: glibc gives larger blocks back at once, always


def written_out(function: Callable[..., Any], *args: object) -> Callable[[], Any]:
    """Calls function(*args) as a line of a program does.

    A partial or a star enters Python's interpreter anew for each function of Python, for 40 ns that
    no program spends, and functions of C++ do not.
    """
    keywords: dict[str, object] = {}
    if isinstance(function, partial):
        args, keywords, function = (*function.args, *args), function.keywords, function.func
    names = {f"a{i}": arg for i, arg in enumerate(args)}
    line = ", ".join([*names, *(f"{name}={name}" for name in keywords)])
    call: Callable[[], Any] = eval(
        f"lambda: _function({line})", {"_function": function, **names, **keywords}
    )
    return call


@dataclass(frozen=True)
class Call:
    """What is timed, and what has to be so around it."""

    run: Callable[[], object]
    within: Callable[[], AbstractContextManager[object]] = nullcontext
    before: Callable[[], object] | None = None  # each sample, untimed

    def sample(self, number: int) -> float:
        """Seconds of one call, the mean of ``number``."""
        run, turns = self.run, repeat(None, number)
        with self.within():
            if self.before is not None:
                self.before()
            if number > 1:
                run()  # what ran before has left the caches and the allocator as it needs them
            start = perf_counter_ns()
            for _ in turns:
                run()
            return (perf_counter_ns() - start) / number * 1e-9

    def warm_up(self, shortest: float = SLICE) -> int:
        """Calls it, and says how many calls make a sample."""
        self.sample(1)  # compiles, where something compiles
        number, seconds = 1, self.sample(1)
        while seconds < 10 * shortest:
            # The least of three: an interruption would end the search too early.
            seconds = min(self.sample(number) for _ in range(3))
            enough = math.ceil(shortest / seconds)
            if number * 2 > enough:
                return enough
            number = max(2 * number, enough // 2)
        return 1


@dataclass(frozen=True)
class Budget:
    """How long a comparison takes: for ``seconds``, but within these numbers of rounds."""

    seconds: float = 0.5
    least: int = 7
    most: int = 101


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The median and quartiles of some values."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    @property
    def noise(self) -> float:
        """Half the distance of the quartiles, relative to the median."""
        return (self.high - self.low) / (2 * self.median)


def age_allocator() -> None:
    """Brings glibc's allocator to where it is in a program that has run for a while.

    How large a block has to be to get pages of its own, which are zeroed anew each time, and how
    much free memory is kept, grow with the largest block that was ever freed. Until then what a
    call costs would depend on what was measured before it.
    """
    bytearray(LARGEST_KEPT - 65536)


Samples = dict[str, list[float]]


class Timed(Protocol):
    """What can take turns: a Call, or one in another process."""

    def warm_up(self, shortest: float = SLICE) -> int:
        """How many calls make a sample."""

    def sample(self, number: int) -> float:
        """Seconds of one call, the mean of ``number``."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the garbage collector from running inside."""
    gc.collect()
    gc.freeze()  # what exists now need not be looked at by the next collection
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def in_turns(calls: Mapping[str, Timed], budget: Budget, shortest: float = SLICE) -> Samples:
    """The samples of each call, in seconds; those with the same index belong to one round."""
    order = list(calls)
    shuffle = random.Random(0).shuffle
    samples: Samples = {name: [] for name in order}
    age_allocator()
    with quiet():
        numbers = {name: call.warm_up(shortest) for name, call in calls.items()}
        end = perf_counter() + budget.seconds
        for turn in range(budget.most):
            if turn >= budget.least and perf_counter() > end:
                break
            shuffle(order)
            for name in order:
                samples[name].append(calls[name].sample(numbers[name]))
    return samples


def ratios(samples: Samples, numerator: str, denominator: str) -> list[float]:
    """How much longer one call takes than another, in each round."""
    return [a / b for a, b in zip(samples[numerator], samples[denominator], strict=True)]


def ratio(samples: Samples, numerator: str, denominator: str) -> Spread:
    """The median of ratios, with the quartiles."""
    return Spread.of(ratios(samples, numerator, denominator))


def certain(values: Sequence[float]) -> Spread:
    """The median with what it lies between in 95 of 100 cases, whatever the distribution."""
    ordered, count = sorted(values), len(values)
    rank = max(0, math.floor((count - 1.96 * math.sqrt(count)) / 2))
    return Spread(statistics.median(ordered), ordered[rank], ordered[count - 1 - rank])
