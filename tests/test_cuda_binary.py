"""What nvcc made of the CUDA kernels, read from the library: no GPU is needed."""

import re
import shutil
import subprocess
from collections import defaultdict
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from fastact import _library
from fastact._registry import ACTIVATIONS, GATES

LIBRARY = _library.find("libfastact_cuda")
ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="no CUDA library")

DTYPES = 4
PASSES = 3
# Activations; softmax and log_softmax; cross entropy forward, forward with gradient and backward,
# each with and without options, double backward, and the sums before and after; BCE
KERNELS = PASSES * (len(ACTIVATIONS) + len(GATES)) + 2 * PASSES + 3 * 2 + 1 + 2 + PASSES
# Ungated activations forward and backward, where operands are aligned; not in double
FLAT = 2 * len(ACTIVATIONS)
# softmax and log_softmax, forward and backward, and cross entropy forward with options and with
# gradient
KEEPING = 2 * 2 + 1 + 2
# Of softmax and cross entropy every one again for rows whose classes lie apart
STRIDED = 2 * PASSES + 3 * 2 + 1
OF_ROWS = re.compile("5weigh|6finish")  # kernels that add up a number for each row, or block
# forward of cross entropy: plain and with_gradient are its template's arguments
FORWARD = re.compile(r"7forwardI\w*?Lb(?P<plain>[01])ELb(?P<with_gradient>[01])E")
# Their names end in a template argument that says so, of csrc/cuda/plan.h.
KEEPS, IS_STRIDED = (re.compile(rf"RowKindE{number}E") for number in (1, 2))


def tool(name):
    """A program of the CUDA toolkit, from NVIDIA's own packages or the PATH."""
    spec = find_spec("nvidia")
    for folder in spec.submodule_search_locations if spec else ():
        for path in Path(folder).glob(f"**/bin/{name}"):
            path.chmod(path.stat().st_mode | 0o111)
            return str(path)
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; run: pip install nvidia-cuda-{name}")
    return found


def output_of(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def architectures():
    text = (ROOT / "cmake" / "Cuda.cmake").read_text()
    return re.search(r"FASTACT_CUDA_ARCHITECTURES ([\d ]+) CACHE", text)[1].split()


@pytest.fixture(scope="module")
def resources():
    """(architecture, kernel) -> its registers, and so on."""
    found, architecture, kernel = {}, None, None
    for line in output_of(tool("cuobjdump"), "-res-usage", str(LIBRARY)).splitlines():
        if line.startswith("arch = "):
            architecture = line.removeprefix("arch = sm_")
        elif "Function" in line:
            kernel = line.split()[1].rstrip(":")
        elif "REG:" in line:
            found[architecture, kernel] = {
                name: int(value) for name, value in re.findall(r"(\w+):(\d+)", line)
            }
    return found


def test_every_kernel_for_every_architecture(resources):
    counts = defaultdict(int)
    for architecture, _ in resources:
        counts[architecture] += 1
    expected = (KERNELS + KEEPING + STRIDED) * DTYPES + FLAT * (DTYPES - 1)
    if set(counts) != set(architectures()):
        pytest.skip(f"built for {', '.join(counts)} alone")
    assert set(counts.values()) == {expected}, dict(counts)


def test_ptx_of_the_newest():
    listed = output_of(tool("cuobjdump"), "-lptx", str(LIBRARY))
    assert f"sm_{architectures()[-1]}.ptx" in listed


def test_no_stack_and_no_spills(resources):
    bad = {k: r for k, r in resources.items() if r["STACK"] or r["LOCAL"]}
    assert not bad, list(bad.items())[:3]


def test_registers_leave_room(resources):
    """For 1024 threads of the kernels that matter, and 512 of any: 65,536 registers are there."""
    for (architecture, kernel), used in resources.items():
        arguments = re.sub(r"LNS\d*_4cuda7RowKindE\dE", "", kernel)
        is_double = re.search(r"I\w*d(Lb\d)?E?E", arguments)
        often = re.search(r"(pointwise|flat).*(Forward|Backward).*Lb0|softmax_forward", kernel)
        # 512 threads, two blocks at once; for a gradient with options there is not room enough
        forward = FORWARD.search(kernel)
        kept = KEEPS.search(kernel) and not (forward and forward.groups() == ("0", "1"))
        often = often or kept
        often = often or (IS_STRIDED.search(kernel) and "softmax_backward" in kernel)
        limit = 64 if often and not is_double and "DoubleBackward" not in kernel else 128
        if "double_backward" in kernel or is_double:
            limit = 168
        assert used["REG"] <= limit, (architecture, kernel, used)


@cache
def disassembled(architecture):
    """Each kernel's name and its instructions."""
    tool("nvdisasm")  # which cuobjdump calls
    listing = output_of(tool("cuobjdump"), "-sass", "-arch", f"sm_{architecture}", str(LIBRARY))
    return [(text.split(None, 1)[0], text) for text in listing.split("Function : ")[1:]]


@pytest.mark.parametrize("architecture", ["80", "90", "120"])
def test_128_bit_accesses(architecture, resources):
    """All kernels read and write 16 bytes at a time, but for rows' numbers and strided rows."""
    if architecture not in {a for a, _ in resources}:
        pytest.skip(f"not built for sm_{architecture}")
    names, keeping = [], 0
    for name, text in disassembled(architecture):
        if OF_ROWS.search(name) or IS_STRIDED.search(name):
            continue
        names.append(name)
        assert re.search(r"\bLDG\.E\S*\.128\b", text), name
        forward = FORWARD.search(name)
        if not forward or forward["with_gradient"] == "1":  # else it gives a row's few numbers
            assert re.search(r"\bSTG\.E\S*\.128\b", text), name
        if KEEPS.search(name):
            keeping += 1
            assert re.search(r"\bSTS\S*\.128\b", text), name
            assert re.search(r"\bLDS\S*\.128\b", text), name
            if "softmax" in name or (forward and forward["plain"] == "1"):
                # No load of any memory: the compiler knows which it is.
                assert not re.search(r"\bLD\.E", text), name
            assert ("UCGABAR_WAIT" in text) == (int(architecture) >= 90), (
                name
            )  # a cluster's barrier
    assert keeping == KEEPING * DTYPES
    expected = {k for a, k in resources if a == architecture and not OF_ROWS.search(k)}
    assert len(names) == len({k for k in expected if not IS_STRIDED.search(k)})


@pytest.mark.parametrize("architecture", ["80", "90", "120"])
def test_strided_rows_have_several_loads_under_way(architecture, resources):
    """Four, none of which is used before the last is asked for."""
    if architecture not in {a for a, _ in resources}:
        pytest.skip(f"not built for sm_{architecture}")
    seen = 0
    for name, text in disassembled(architecture):
        if not IS_STRIDED.search(name):
            continue
        seen += 1
        most = several_loads(text)
        assert most >= 4, (name, most)
    assert seen == STRIDED * DTYPES


def several_loads(text):
    """The most global loads in a row whose results nothing has waited for yet."""
    most, pending = 0, set()
    for line in text.splitlines():
        found = re.search(r"/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\w+\s+)?(\S+)\s*(.*?);", line)
        if not found:
            continue
        operation, operands = found[1], found[2]
        registers = [f"R{number}" for number in re.findall(r"\bR(\d+)\b", operands)]
        if operation.startswith("LDG"):
            pending -= set(registers[1:])
            pending.add(registers[0])
            most = max(most, len(pending))
        elif pending & set(registers):
            pending.clear()
        if operation.startswith("BRA"):
            pending.clear()
    return most


def test_needs_only_torch_and_the_system():
    needed = re.findall(r"NEEDED.*\[(.*)\]", output_of("readelf", "-d", str(LIBRARY)))
    torch = {"libtorch_cpu.so", "libtorch_cuda.so"}
    system = {"libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6", "ld-linux-x86-64.so.2",
              "libdl.so.2", "librt.so.1", "libpthread.so.0"}  # fmt: skip
    assert set(needed) <= torch | system, needed


def test_no_symbol_of_torchs_cpp():
    undefined = output_of("nm", "-D", "-C", "--undefined-only", str(LIBRARY))
    names = [line.split(maxsplit=1)[-1].removeprefix("U ") for line in undefined.splitlines()]
    bad = [n for n in names if re.search(r"\b(at|c10|torch)::", n) or n.startswith("Py")]
    assert not bad, bad
