"""What CMake does with the CUDA compiler that is there, or is not; and outside Linux."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from support import ROOT

PATH = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
CMAKE, NINJA = (shutil.which(name, path=PATH) for name in ("cmake", "ninja"))
NVCC = shutil.which("nvcc")
pytestmark = [
    pytest.mark.cpu_only,
    pytest.mark.skipif(not (CMAKE and NINJA and shutil.which("c++")), reason="needs CMake and C++"),
]


def configure(folder, nvcc, wanted, *options):
    """The whole project, with that program for a CUDA compiler."""
    done = subprocess.run(
        [CMAKE, "-S", ROOT, "-B", folder, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={NINJA}",
         f"-DPython_EXECUTABLE={sys.executable}", f"-DFASTACT_CUDA={wanted}", *options],
        env={**os.environ, "CUDACXX": str(nvcc)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    ninja = folder / "build.ninja"
    targets = ninja.read_text() if done.returncode == 0 else ""
    assert ("libfastact_cpu.so" in targets) == (done.returncode == 0)
    return done.returncode, " ".join((done.stdout + done.stderr).split()), targets


def old_nvcc(folder, release, architectures):
    """nvcc, but for what it says of itself."""
    script = folder / "nvcc"
    listed = "\\n".join(f"compute_{a}" for a in architectures)
    script.write_text(f"""#!/bin/sh
case "$1" in
--version) echo "Cuda compilation tools, release {release}, V{release}.1" ;;
--list-gpu-arch) printf '{listed}\\n' ;;
*) exec {NVCC} "$@" ;;
esac
""")
    script.chmod(0o755)
    return script


def test_other_systems_have_no_kernels(tmp_path):
    done = subprocess.run(
        [CMAKE, "-S", ROOT, "-B", tmp_path, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={NINJA}",
         "-DCMAKE_SYSTEM_NAME=Darwin"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "installed without compiled kernels" in " ".join(done.stderr.split())


def test_without_nvcc_it_is_left_out(tmp_path):
    code, said, targets = configure(tmp_path, "/bin/false", "AUTO")
    assert code == 0, said
    assert (
        "installed without GPU kernels: no CUDA compiler was found in CUDACXX or on the PATH."
        in said
    )
    assert "libfastact_cuda.so" not in targets


def test_without_nvcc_asking_for_it_is_an_error(tmp_path):
    code, said, _ = configure(tmp_path, "/bin/false", "ON")
    assert code != 0
    assert "FASTACT_CUDA=ON, but no CUDA compiler was found" in said


def cmake_knows_cpp20_of_nvcc():
    said = subprocess.run([CMAKE, "--version"], capture_output=True, text=True).stdout
    major, minor, patch = re.search(r"(\d+)\.(\d+)\.(\d+)", said).groups()
    return (int(major), int(minor), int(patch)) >= (3, 25, 2)


needs_nvcc = pytest.mark.skipif(
    not (NVCC and CMAKE and cmake_knows_cpp20_of_nvcc()), reason="needs nvcc and CMake 3.25.2"
)


@needs_nvcc
def test_an_nvcc_without_cpp20(tmp_path):
    nvcc = old_nvcc(tmp_path, "11.5", [80, 86, 87])
    code, said, targets = configure(tmp_path / "auto", nvcc, "AUTO")
    assert code == 0, said
    reason = f"{nvcc} is nvcc 11.5, and C++20 needs 12.0 or newer"
    assert f"installed without GPU kernels: {reason}." in said
    assert "libfastact_cuda.so" not in targets
    code, said, _ = configure(tmp_path / "on", nvcc, "ON")
    assert code != 0
    assert reason in said


@needs_nvcc
def test_a_cmake_without_nvccs_cpp20(tmp_path):
    (tmp_path / "older.cmake").write_text("set(CMAKE_VERSION 3.25.1)")
    older = f"-DCMAKE_PROJECT_INCLUDE={tmp_path}/older.cmake"
    code, said, targets = configure(tmp_path / "auto", NVCC, "AUTO", older)
    assert code == 0, said
    reason = "CMake 3.25.1 does not know how to ask nvcc for C++20"
    assert f"installed without GPU kernels: {reason}" in said
    assert "libfastact_cuda.so" not in targets
    code, said, _ = configure(tmp_path / "on", NVCC, "ON", older)
    assert code != 0
    assert f"FASTACT_CUDA=ON, but {reason}" in said


@needs_nvcc
def test_an_nvcc_that_does_not_know_the_newest_gpus(tmp_path):
    nvcc = old_nvcc(tmp_path, "12.4", [80, 86, 89, 90])
    code, said, targets = configure(tmp_path / "auto", nvcc, "AUTO")
    assert code == 0, said
    reason = f"{nvcc} is nvcc 12.4, which cannot build for sm_100, 120"
    assert reason in said
    assert '\\"80 86 89 90\\"' in targets
    assert "arch=compute_90,code=[compute_90]" in targets
    assert "sm_89" in targets
    assert "sm_100" not in targets
    code, said, _ = configure(tmp_path / "on", nvcc, "ON")
    assert code != 0
    assert f"FASTACT_CUDA=ON, but {reason}" in said
    code, said, _ = configure(tmp_path / "one", nvcc, "ON", "-DFASTACT_CUDA_ARCHITECTURES=90")
    assert code == 0, said


@needs_nvcc
def test_none_of_the_gpus_that_are_asked_for(tmp_path):
    nvcc = old_nvcc(tmp_path, "12.4", [80, 86, 89, 90])
    options = "-DFASTACT_CUDA_ARCHITECTURES=120"
    code, said, targets = configure(tmp_path / "auto", nvcc, "AUTO", options)
    assert code == 0, said
    assert "installed without GPU kernels" in said
    assert "libfastact_cuda.so" not in targets
