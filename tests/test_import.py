"""What `import fastact` does to a process, and what the compiled library asks of a system."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import python

import fastact
from fastact import _library

LIBRARY = _library.find("libfastact_cpu")
LIBRARIES = sorted(p for folder in fastact.__path__ for p in Path(folder, "lib").glob("*.so*"))
# What manylinux_2_28 has, for which torch's own wheels are built.
NEWEST = {"GLIBC": "2.28", "GLIBCXX": "3.4.24", "CXXABI": "1.3.11", "GCC": "7.0.0"}
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="no compiled library")


def in_a_new_process(code: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def output_of(*command: str) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_imports_nothing_that_torch_does_not():
    new = in_a_new_process(
        "import sys, torch; before = set(sys.modules); import fastact;"
        "print(*sorted({n.partition('.')[0] for n in set(sys.modules) - before}))"
    ).split()
    assert "fastact" in new
    assert not {"numba", "llvmlite", "matplotlib", "rich", "triton"} & set(new), new
    deep = in_a_new_process(
        "import sys, torch; before = set(sys.modules); import fastact;"
        "print(*sorted(n for n in set(sys.modules) - before if n.startswith('torch.')))"
    )
    heavy = {"torch._inductor", "torch._dynamo", "torch.distributed.tensor"}
    assert not heavy & set(deep.split()), deep


def test_subnormals_survive_the_import():
    code = (
        "import torch, fastact\n"
        "x = torch.full((100_000,), 1e-40)\n"
        "with fastact.backend('compiled'): fastact.functional.gelu(x)\n"
        "print((x * 0.5).max().item() > 0, 5e-324 * 1.0 > 0)"
    )
    assert in_a_new_process(code) == "True True"


def test_rounding_mode_and_threads_stay():
    code = (
        "import torch\n"
        "before = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()\n"
        "import fastact\n"
        "assert before == (torch.get_num_threads(), torch.get_default_dtype(),"
        " torch.is_grad_enabled())\n"
        "print(1.0 + 2**-53 == 1.0, 1.0 + 3 * 2**-53 == 1.0 + 2**-51)"
    )
    assert in_a_new_process(code) == "True True"


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda p: p.name)
def test_needs_only_torch_and_the_system(library):
    needed = re.findall(r"NEEDED.*\[(.*)\]", output_of("readelf", "-d", str(library)))
    allowed = {"libtorch_cpu.so", "libtorch_cuda.so", "libstdc++.so.6", "libm.so.6"}
    allowed |= {"libgcc_s.so.1", "libc.so.6", "ld-linux-x86-64.so.2"}
    allowed |= {"libpthread.so.0", "libdl.so.2", "librt.so.1"}  # glibc's, before 2.34
    # The sanitizers' runtimes are the one addition, in that build alone.
    extra = {n for n in needed if n not in allowed and not re.match(r"lib[au]b?san", n)}
    assert not extra, extra


def numbers(version):
    return tuple(map(int, version.split(".")))


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda p: p.name)
def test_loads_on_systems_as_old_as_torch_does(library):
    wanted = re.findall(
        r"(\S+)@([A-Z]+)_([\d.]+)", output_of("nm", "-D", "--undefined-only", str(library))
    )
    assert wanted
    new = [w for w in wanted if w[1] in NEWEST and numbers(w[2]) > numbers(NEWEST[w[1]])]
    assert not new, f"{new}: see csrc/torch/old_systems.cpp"


def test_no_path_of_the_machine_that_built_it():
    files = re.findall(rb"[\w./+-]+\.(?:h|cpp)\0", LIBRARY.read_bytes())
    assert any(f.startswith(b"csrc/torch/") for f in files)  # where a check stands
    absolute = [f for f in files if f.startswith(b"/")]
    assert not absolute, absolute


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda p: p.name)
def test_no_symbol_of_torchs_cpp(library):
    undefined = output_of("nm", "-D", "-C", "--undefined-only", str(library))
    names = [line.split(maxsplit=1)[-1].removeprefix("U ") for line in undefined.splitlines()]
    bad = [n for n in names if re.search(r"\b(at|c10|torch)::", n) or n.startswith("Py")]
    assert not bad, bad
    assert any(n.startswith("aoti_torch_") for n in names)  # the test sees symbols at all


def test_exports_only_the_c_interface():
    defined = output_of("nm", "-D", "--defined-only", str(LIBRARY)).splitlines()
    ours = {line.split()[-1] for line in defined if "fastact" in line}
    assert ours == {"fastact_cpu_isa", "fastact_cpu_isas", "fastact_cpu_use_isa"}


def test_each_isa_object_exports_only_names_of_that_isa():
    root = Path(__file__).parent.parent
    objects = sorted(root.glob("build/*/CMakeFiles/fastact_cpu_*.dir/csrc/cpu/*.cpp.o"))
    objects = [o for o in objects if "sanitize" not in o.parts]
    if not objects:
        pytest.skip("no build tree")
    for path in objects:
        isa = path.parts[-4].removeprefix("fastact_cpu_").removesuffix(".dir")
        lines = output_of("nm", "-C", "--defined-only", str(path)).splitlines()
        visible = [ln for ln in lines if re.search(r" [A-Z] ", ln) and "DW.ref" not in ln]
        # A template of the STL would be here, for the linker to keep one instruction set's copy.
        assert visible, path
        for line in visible:
            assert re.search(rf" fastact::cpu::\w+_{isa}(\(.*\))?$", line), (path, line)


NAMES = "FASTACT_BACKEND must be one of auto, compiled, numba, torch; got"
WRONG = [  # variables, what is said of them
    ({"FASTACT_BACKEND": "nonsense"}, f"ValueError: {NAMES} 'nonsense'"),
    ({"FASTACT_BACKEND": "Torch"}, f"ValueError: {NAMES} 'Torch'"),
    (
        {"FASTACT_BACKEND": "compiled", "FASTACT_LIBRARY": "/nowhere/libfastact_cpu.so"},
        "RuntimeError: FASTACT_BACKEND=compiled: the backend 'compiled' is not available: "
        "libfastact_cpu.so could not be loaded",
    ),
    (
        {"FASTACT_CPU_ISA": "v9"},
        f"RuntimeError: FASTACT_CPU_ISA='v9' is not available here; expected one of "
        f"{', '.join(_library.cpu().isas)}",
    ),
]


@pytest.mark.parametrize(("variables", "message"), WRONG, ids=lambda v: str(v)[:40])
def test_wrong_environment_is_refused(variables, message):
    run = python("import fastact", **variables)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith(message)
    # Of the package, the frames of the import statement and of the check: no internals.
    assert run.stderr.count("  File ") == 3, run.stderr
    assert "During handling" not in run.stderr


def test_an_empty_variable_is_none():
    assert python("import fastact", FASTACT_BACKEND="", FASTACT_CPU_ISA="").returncode == 0


def test_nothing_else_answers_where_the_environment_is_wrong():
    """Even where the import goes through, as that of the command line does."""
    code = (
        "import sys; sys.argv = ['fastact']; import fastact, torch\n"
        "assert len(fastact.backends()) == 3\n"
        "for x in (torch.ones(3), torch.ones(100_000)): \n"
        "    try: fastact.functional.gelu(x)\n"
        "    except ValueError as error: print(error)\n"
    )
    run = python(code, FASTACT_BACKEND="nonsense")
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [f"{NAMES} 'nonsense'"] * 2


def test_environment_chooses():
    for isa in _library.cpu().isas:
        code = (
            f"import os; os.environ['FASTACT_CPU_ISA'] = {isa!r}; import fastact;"
            "print(fastact._library.cpu().isa)"
        )
        assert in_a_new_process(code) == isa
    code = "import os; os.environ['FASTACT_BACKEND'] = 'torch'; import fastact;"
    assert in_a_new_process(code + "print(fastact._backend.STATE.choice.name)") == "torch"


def test_a_torch_that_lacks_a_private_name_answers_alone():
    code = (
        "import torch; del torch._C._is_fwd_grad_enabled\n"
        "import fastact\n"
        "print([b.available for b in fastact.backends()])\n"
        "x = torch.randn(100_000, requires_grad=True)\n"
        "y = fastact.functional.gelu(x); y.sum().backward()\n"
        "assert torch.equal(y, torch.nn.functional.gelu(x))\n"
        "try: fastact.backend('compiled')\n"
        "except RuntimeError as error: print('_is_fwd_grad_enabled' in str(error))\n"
    )
    assert in_a_new_process(code).splitlines() == ["[False, False, True]", "True"]


def test_a_missing_library_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(_library, "find", lambda _: None)
    assert "pip install --no-build-isolation" in (_library.CpuLibrary().error or "")


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", fastact.__version__)
