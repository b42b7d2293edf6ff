"""Where the CUDA library cannot be used, backends() says why in a sentence, and torch answers."""

import os
import shutil
import subprocess

import pytest
import torch
from support import python

import fastact
from fastact import _library

LIBRARY = _library.find("libfastact_cuda")


@pytest.fixture
def with_cuda(monkeypatch):
    """As in a torch that is built with CUDA."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")


@pytest.mark.parametrize(
    ("content", "why"), [(b"", "file too short"), (b"\x7fELF", "file too short"),
                         (b"no library at all" * 99, "invalid ELF header")],
)  # fmt: skip
def test_a_damaged_library(content, why, with_cuda, tmp_path, monkeypatch):
    path = tmp_path / "libfastact_cuda.so"
    path.write_bytes(content)
    monkeypatch.setattr(_library, "find", lambda _: path)
    made = _library.CudaLibrary()
    monkeypatch.setattr(_library, "cuda", lambda: made)
    detail = fastact.backends()[0].detail
    assert f"GPU: libfastact_cuda.so could not be loaded: {path}: {why}" in detail
    with fastact.backend("compiled"):  # on the CPU all is well
        assert fastact.functional.gelu(torch.ones(3)).isfinite().all()


def test_no_library(with_cuda, monkeypatch):
    monkeypatch.setattr(_library, "find", lambda _: None)
    assert _library.CudaLibrary().error == "fastact was installed without CUDA kernels"


# A driver that says its version and may not be started, or no child of the process could use it;
# and the library that a torch for CPUs does not have.
DRIVER = """
extern "C" {
int cuDriverGetVersion(int* version) { *version = VERSION; return 0; }
int cuInit(unsigned) { __builtin_trap(); }
int cuGetProcAddress_v2(const char*, void**, int, unsigned long long, void*) { __builtin_trap(); }
int cuGetProcAddress(const char*, void**, int, unsigned long long) { __builtin_trap(); }
}
"""
TORCH = 'extern "C" int aoti_torch_get_current_cuda_stream(int, void**) { return 1; }'

ASK = """
import torch
torch.version.cuda = "13.0"
import fastact
print(fastact.backends()[0].detail)
print(fastact._library.cuda().detail)
with fastact.backend("compiled"):
    print(fastact.functional.gelu(torch.zeros(2)).sum().item())
"""


def build(folder, name, text, **defined):
    (folder / f"{name}.cpp").write_text(text)
    options = [f"-D{k}={v}" for k, v in defined.items()]
    command = ["c++", "-shared", "-fPIC", *options, f"{name}.cpp", "-o", name]
    subprocess.run(command, cwd=folder, check=True)


@pytest.mark.cpu_only
@pytest.mark.skipif(LIBRARY is None or not shutil.which("c++"), reason="no CUDA library, or no C++")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a driver")
@pytest.mark.parametrize("version", [None, 11040, 12080, 13000, 13010, 14000])
def test_drivers(version, tmp_path):
    """None, too old, as old as the kernels, newer."""
    if torch.version.cuda is None:
        build(tmp_path, "libtorch_cuda.so", TORCH)
    if version is not None:
        build(tmp_path, "libcuda.so.1", DRIVER, VERSION=version)
    ran = python(ASK, LD_LIBRARY_PATH=os.pathsep.join([str(tmp_path), os.environ.get(
        "LD_LIBRARY_PATH", "")]))  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    detail, built_with, result = ran.stdout.splitlines()
    built = int(built_with.removeprefix("CUDA ").split(".")[0])
    assert result == "0.0"
    said = detail.split("GPU: ")[1]
    if version is None:
        assert said == "the CUDA kernels cannot run: no CUDA driver was found"
    elif version // 1000 < built:
        assert said.startswith(
            f"the CUDA kernels cannot run: the driver supports CUDA {version // 1000}."
            f"{version % 1000 // 10}, and the kernels were built with CUDA {built}."
        )
        assert said.endswith("; update the driver")
    else:
        assert said.startswith(f"CUDA {built}.")
        assert "sm_" in said
