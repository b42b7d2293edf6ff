"""Calls that are timed in processes of their own, so that they can take turns with others.

For two revisions that is the only way; for contenders of one it keeps each from the memory that
another one freed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any

from cases import Case
from timing import SLICE

# Seconds. When a process has had its turn, its threads spin for a while (GNU's OpenMP: some
# milliseconds) before they sleep, and would take the next one's processors.
PAUSE = 5e-3


class Worker:
    """A process that times what it is told; see worker.py.

    Args:
        threads: how many torch uses.
        site: the folder to import fastact from; None: as this process does.
    """

    def __init__(self, threads: int, site: Path | None = None) -> None:
        command, environment = [sys.executable], dict(os.environ)
        if site is not None:
            # -S: without it a .pth file of an editable install puts the working tree first.
            command.append("-S")
            paths = [str(site), sysconfig.get_path("purelib")]
            environment["PYTHONPATH"] = os.pathsep.join(paths)
        script = Path(__file__).with_name("worker.py")
        self.process = subprocess.Popen(
            [*command, str(script), str(threads)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        where = Path(self.ask(do="where"))
        if site is not None and site.resolve() not in where.resolve().parents:
            raise RuntimeError(f"the worker for {site} imported {where}")

    def ask(self, **request: object) -> Any:
        """Sends a request and waits for the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with status {self.process.wait()}")
        return json.loads(line)

    def call(self, case: Case, contender: str) -> Remote | None:
        """Makes a case ready; None where there is no such op, or the contender does not take it."""
        key = [case.op.name, case.dtype, case.where, case.mode]
        ready = self.ask(do="prepare", case=key, contender=contender)
        return Remote(self) if ready else None

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@dataclass(frozen=True)
class Remote:
    """The case that a worker has ready, as something to take turns with."""

    worker: Worker

    def warm_up(self, shortest: float = SLICE) -> int:
        """How many calls make a sample."""
        return int(self.worker.ask(do="warm_up", shortest=max(shortest, PAUSE)))

    def sample(self, number: int) -> float:
        """Seconds of one call."""
        sleep(PAUSE)
        return float(self.worker.ask(do="sample", number=number))


@contextmanager
def started(threads: int, *sites: Path | None) -> Iterator[list[Worker]]:
    """A process for each folder."""
    workers: list[Worker] = []
    try:
        for site in sites:
            workers.append(Worker(threads, site))
        yield workers
    finally:
        for worker in workers:
            worker.close()
