"""Runs cases on every rank of one gloo group of processes, which is started once for a file.

A file of tests makes a ``Cases``, adds functions to it, and lets pytest ask for their outcomes::

    cases = Cases(__name__)

    @cases.add(ranks=(1, 2, 4))
    def a_case(ranks): ...

    test_on_every_rank = cases.test()
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

import fastact

WORLD = 4
PRELOAD = [
    "fastact.distributed", "pytest", "torch.distributed.fsdp", "torch.distributed.tensor.debug",
    "torch.distributed.tensor.parallel", "torch.nn.parallel",
]  # fmt: skip


class Cases:
    """The cases of one file, by name."""

    def __init__(self, module: str, world: int = WORLD) -> None:
        self.module, self.world = module, world
        self.by_name: dict[str, Callable[[], None]] = {}

    def add(self, **choices: Sequence[Any]) -> Callable[..., Any]:
        """Adds a function for every combination of arguments."""

        def decorate(function: Callable[..., None]) -> Callable[..., None]:
            for values in product(*choices.values()):
                arguments = dict(zip(choices, values, strict=True))
                label = ",".join(str(v).removeprefix("torch.") for v in values)
                name = f"{function.__name__}[{label}]" if label else function.__name__
                self.by_name[name] = partial(function, **arguments)
            return function

        return decorate

    @cache  # noqa: B019
    def outcomes(self) -> dict[str, dict[int, str]]:
        """What went wrong in each case, by rank."""
        failed: dict[str, dict[int, str]] = {name: {} for name in self.by_name}
        with tempfile.TemporaryDirectory() as folder:
            # From a process that has imported what takes long, once for all ranks of all files.
            multiprocessing.set_forkserver_preload(PRELOAD)
            with contextlib.suppress(torch.multiprocessing.ProcessExitedException):
                torch.multiprocessing.start_processes(
                    _rank, (self.module, folder, self.world), self.world, start_method="forkserver"
                )
            for rank in range(self.world):
                file = Path(folder, str(rank))
                found = json.loads(file.read_text()) if file.exists() else {}
                for name in self.by_name:
                    if error := found.get(name, "not run: see the first that failed"):
                        failed[name][rank] = error
        return failed

    def test(self) -> Callable[[str], None]:
        """The test that pytest collects."""

        @pytest.mark.parametrize("name", self.by_name)
        def test_on_every_rank(name: str) -> None:
            for rank, error in self.outcomes()[name].items():
                pytest.fail(f"on rank {rank}:\n{error}", pytrace=False)

        return test_on_every_rank


def _rank(rank: int, module: str, folder: str, world: int) -> None:
    """One of the processes."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world,
        timeout=timedelta(seconds=90),
    )  # fmt: skip
    outcomes = {}
    for name, case in importlib.import_module(module).cases.by_name.items():
        torch.manual_seed(0)
        try:
            with fastact.backend("compiled"):
                case()
            outcomes[name] = ""
        except Exception:
            outcomes[name] = traceback.format_exc()
        written = Path(folder, f"{rank}.new")
        written.write_text(json.dumps(outcomes))
        written.rename(Path(folder, str(rank)))  # whole, even if another rank's end ends this one
        if outcomes[name]:
            # The others may be waiting inside a collective: nothing that follows counts, and
            # leaving in order would wait for them.
            os._exit(1)
    dist.barrier()
    dist.destroy_process_group()


@cache
def group(ranks: int) -> dist.ProcessGroup | None:
    """The group of the first few ranks, None for others; every rank has to ask."""
    made = [dist.new_group(list(range(n))) for n in (1, 2, WORLD)]
    found = made[(1, 2, WORLD).index(ranks)]
    return found if dist.get_rank() < ranks else None
