"""Every kernel loop vectorises, for every instruction set: the compiler says so itself."""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
    lines = [line for line in run.stderr.splitlines() if "couldn't vectorize loop" in line]
    return sorted({line for line in lines if is_kernel_loop(line)})


# The fixed order in which a sum's lanes are added up is what keeps it from being a vector's.
SCALAR = ("sum += double(lane[l])",)


def is_kernel_loop(line: str) -> bool:
    """Whether a message is about a loop over elements, and not about a loop around one."""
    found = re.match(r"(\S+?):(\d+):", line)
    if not found:
        return False
    path = Path(found[1])
    path = path if path.is_absolute() else Path.cwd() / path
    before, text = path.read_text().splitlines()[int(found[2]) - 2 : int(found[2])]
    if before.strip() == "#pragma GCC ivdep":
        return True
    if path.parent != CPU or text.strip().endswith(SCALAR) or any(s in text for s in SCALAR):
        return False
    return bool(
        re.search(r"for \(int l = 0; l < lanes|for \(int64_t i = begin; i < end; \+\+i", text)
    )


@pytest.mark.parametrize("source", ["pointwise.cpp", "softmax.cpp", "cross_entropy.cpp", "bce.cpp"])
def test_every_loop_vectorises(source):
    version = (
        shutil.which(COMPILER)
        and subprocess.run(
            [COMPILER, "--version"], capture_output=True, text=True, check=True
        ).stdout
    )
    if not version or "Free Software Foundation" not in version or os.uname().machine != "x86_64":
        pytest.skip("needs GCC on x86-64")
    isas = ("v2", "v3", "v4")
    with ThreadPoolExecutor(2) as pool:
        for isa, lines in zip(isas, pool.map(partial(missed, source=source), isas), strict=True):
            assert not lines, (isa, lines[:5])
