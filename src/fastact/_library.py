"""The registered ops, and where their kernels come from.

The families of ``_pointwise.py`` and ``_losses.py`` are ops in the namespace ``fastact``, whose
kernels are in the compiled library, and in ``fastact_numba``, whose kernels are in ``_numba.py``.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

import torch

from ._family import Family, define
from ._losses import loss_families
from ._pointwise import pointwise_families

NAMESPACES = {"compiled": "fastact", "numba": "fastact_numba"}

# torch.library.Library objects unregister their ops when they are collected.
_libraries: dict[str, torch.library.Library] = {}


@cache
def families(namespace: str) -> dict[str, Family]:
    """Defines the ops of a namespace, with their fake kernels, and returns them by name."""
    library = _libraries[namespace] = torch.library.Library(namespace, "DEF")
    made: list[Family] = [*pointwise_families(), *loss_families()]
    return {family.name: define(family, library) for family in made}


def library(namespace: str) -> torch.library.Library:
    """The torch.library.Library that defined a namespace."""
    families(namespace)
    return _libraries[namespace]


def find(name: str) -> Path | None:
    """A library of this package; in an editable install it has two folders, sources and built."""
    from . import __path__ as folders

    for folder in folders:
        for path in sorted(Path(folder, "lib").glob(f"{name}.*")):
            return path
    return None


class CpuLibrary:
    """``libfastact_cpu.so``, or the reason why there is none."""

    def __init__(self) -> None:
        self.error: str | None = None
        self.wrong_isa = ""  # what is wrong with FASTACT_CPU_ISA
        self._c: ctypes.CDLL | None = None
        named = os.environ.get("FASTACT_LIBRARY")  # a build under sanitizers, say
        path = Path(named) if named else find("libfastact_cpu")
        if path is None:
            self.error = (
                "fastact was installed without compiled kernels; to get them (on Linux), install a "
                "C++20 compiler and torch >= 2.10, then run: pip install --no-build-isolation "
                "--force-reinstall --no-deps --no-binary fastact fastact"
            )
            return
        families("fastact")  # the schemas come first
        try:
            torch.ops.load_library(str(path))
            self._c = ctypes.CDLL(str(path))
        except OSError as error:
            self.error = f"{path.name} could not be loaded: {error}"
            return
        self._c.fastact_cpu_isas.restype = ctypes.c_char_p
        self._c.fastact_cpu_isa.restype = ctypes.c_char_p
        self._c.fastact_cpu_use_isa.restype = ctypes.c_bool
        self._c.fastact_cpu_use_isa.argtypes = [ctypes.c_char_p]
        if not self.isas:
            self.error = "the compiled kernels need a processor with at least x86-64-v2"
            self._c = None
            return
        if forced := os.environ.get("FASTACT_CPU_ISA"):
            try:
                self.use_isa(forced)
            except RuntimeError as error:
                self.error = self.wrong_isa = str(error)

    @property
    def isas(self) -> tuple[str, ...]:
        """The instruction sets that can be used here, best first."""
        if self._c is None:
            return ()
        return tuple(self._c.fastact_cpu_isas().decode().split())

    @property
    def isa(self) -> str:
        """The instruction set in use."""
        return "" if self._c is None else str(self._c.fastact_cpu_isa().decode())

    def use_isa(self, name: str) -> None:
        """Uses the kernels built for an instruction set from now on, in the whole process."""
        if self._c is None or not self._c.fastact_cpu_use_isa(name.encode()):
            raise RuntimeError(
                f"FASTACT_CPU_ISA={name!r} is not available here; expected one of "
                f"{', '.join(self.isas) or 'none: there are no compiled kernels'}"
            )


class CudaLibrary:
    """``libfastact_cuda.so``, or the reason why it is of no use here. Starts no CUDA context."""

    def __init__(self) -> None:
        self.error: str | None = None
        self.detail = ""
        self._architectures: list[int] = []
        self._refusals: dict[int, str] = {}  # by the number of the device
        path = find("libfastact_cuda")
        if path is None:
            self.error = "fastact was installed without CUDA kernels"
        elif torch.version.cuda is None:
            self.error = f"torch {torch.__version__} is built without CUDA"
        elif cpu().error:
            self.error = cpu().error
        else:
            self._load(path)

    def _load(self, path: Path) -> None:
        try:
            library = ctypes.CDLL(str(path))
        except OSError as error:
            self.error = f"{path.name} could not be loaded: {error}"
            return
        library.fastact_cuda_problem.restype = ctypes.c_char_p
        library.fastact_cuda_architectures.restype = ctypes.c_char_p
        version = library.fastact_cuda_version()
        self._architectures = [int(a) for a in library.fastact_cuda_architectures().split()]
        self.detail = f"CUDA {version // 1000}.{version % 1000 // 10} for sm_" + ", ".join(
            map(str, self._architectures)
        )
        problem = library.fastact_cuda_problem()
        if problem is not None:
            self.error = f"the CUDA kernels cannot run: {problem.decode()}"

    def refusal(self, device: torch.device) -> str:
        """Why no kernel runs on a device whose CUDA context exists; empty where one does."""
        if self.error is not None:
            return self.error
        # What a compiler traces has to be Python that it knows: nothing is loaded or kept here.
        refusal = self._refusals.get(device.index)
        if refusal is None:
            found = torch.cuda.get_device_properties(device.index)
            refusal = self._refusal_of(10 * found.major + found.minor)
            if not torch.compiler.is_compiling():
                self._refusals[device.index] = refusal
        return refusal

    def _refusal_of(self, capability: int) -> str:
        """Machine code runs where the minor number is as high, or higher; PTX on what is newer."""
        for built in self._architectures:
            if capability // 10 == built // 10 and capability >= built:
                return ""
        if capability >= self._architectures[-1]:
            return ""
        return f"the CUDA kernels are built for other GPUs than sm_{capability}: {self.detail}"


@cache
def cuda() -> CudaLibrary:
    """Loads the compiled CUDA library, once."""
    return CudaLibrary()


@cache
def cpu() -> CpuLibrary:
    """Loads the compiled CPU library, once."""
    return CpuLibrary()
