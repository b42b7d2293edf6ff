"""Every kernel loop vectorises, for every instruction set: the compiler says so itself."""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CPU = ROOT / "csrc" / "cpu"
COMPILER = os.environ.get("CXX", "g++")


def flags(isa: str) -> list[str]:
    """Those of cmake/Isa.cmake."""
    text = (ROOT / "cmake" / "Isa.cmake").read_text()
    found = re.search(r"FASTACT_KERNEL_FLAGS ([^)]*)\)", text)
    assert found
    wide = ["-mprefer-vector-width=512"] if isa == "v4" else []
    return [*found[1].split(), f"-march=x86-64-{isa}", *wide]


def missed(isa: str, source: str) -> list[str]:
    command = [
        COMPILER,
        "-std=c++20",
        *flags(isa),
        "-fopt-info-vec-missed",
        "-c",
        str(CPU / source),
    ]
    command += [f"-DFASTACT_ISA={isa}", "-o", os.devnull]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return [
        line
        for line in run.stderr.splitlines()
        if "couldn't vectorize loop" in line and "kernels.cpp" in line
    ]


def test_every_loop_vectorises():
    version = (
        shutil.which(COMPILER)
        and subprocess.run(
            [COMPILER, "--version"], capture_output=True, text=True, check=True
        ).stdout
    )
    if not version or "Free Software Foundation" not in version or os.uname().machine != "x86_64":
        pytest.skip("needs GCC on x86-64")
    with ThreadPoolExecutor(2) as pool:
        for isa, lines in zip(
            ("v2", "v3", "v4"), pool.map(missed, ("v2", "v3", "v4")), strict=True
        ):
            assert not lines, (isa, lines[:5])
