"""How Numba compiles here, and how what it compiled is kept on disk for the next process.

Numba's own cache asks for functions at module level: its key takes in the cells of a closure, and a
compiled function in a cell has another identity in every process. It also knows a function by its
file alone, and not by those that it calls. So kernels are kept under their name, which the caller
makes unique, and hold good as long as all texts that they are made of do.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba

# How machine code is taken out of a process and put into another, and which folder is for it
# (NUMBA_CACHE_DIR, __pycache__, the user's). None of this is public: where it changes, kernels are
# compiled in each process.
try:
    from numba.core import caching, serialize

    _FunctionCache: Any = caching.FunctionCache
    _dumps: Any = serialize.dumps
except (ImportError, AttributeError):
    _FunctionCache = object

Jit = Callable[..., Any]


def _converts_float16() -> bool:
    """Whether LLVM may be told to convert from and to float16: with F16C in one instruction.

    Where it finds none for a conversion (from double, say), it calls a function of libgcc's, since
    GCC 12, by the conventions of LLVM 15 and later. Numba brings none, and calling what is not
    there ends the process: so they are named here.
    """
    try:
        from numba.core.registry import cpu_target

        _, _, features = cpu_target.target_context.codegen().magic_tuple()
        if "+f16c" not in features.split(",") or llvm.llvm_version_info < (15,):
            return False
        libgcc = ctypes.CDLL("libgcc_s.so.1")
        functions = {
            name: ctypes.cast(getattr(libgcc, name), ctypes.c_void_p).value
            for name in ("__extendhfsf2", "__truncsfhf2", "__truncdfhf2")
        }
    except (ImportError, OSError, AttributeError, TypeError, ValueError):
        return False
    for name, address in functions.items():
        llvm.add_symbol(name, address)
    return True


CONVERTS_FLOAT16 = _converts_float16()

# "contract" allows fused multiply-adds and nothing that touches infinities, NaN or -0.
CONTRACT = {"contract"}


def inline(function: Any) -> Any:
    """Compiles what kernels call, into each of them."""
    return _jit(function, CONTRACT, forceinline=True)


def part(fastmath: set[str]) -> Jit:
    """Compiles a loop that kernels call, with its own rules of arithmetic."""
    return lambda function: _jit(function, fastmath)


def _jit(function: Any, fastmath: set[str], **options: Any) -> Any:
    return numba.njit(nogil=True, error_model="numpy", fastmath=fastmath, **options)(function)


def kernel(function: Any, name: str = "", made_of: tuple[Any, ...] = ()) -> Any:
    """Compiles a kernel, from disk where it is there.

    A closure is given a name of its own, which no other kernel has, and what it is made of beside
    the files of this backend: functions, known by their file, and anything whose repr says it all.
    """
    # Numba makes symbols of these and of a number, which each process counts from 1: so that no two
    # kernels out of several processes define one symbol.
    function.__name__ = function.__qualname__ = name or function.__name__
    compiled = _jit(function, CONTRACT)
    with contextlib.suppress(OSError, RuntimeError, AttributeError, TypeError):
        compiled._cache = _DiskCache(function, _stamp(made_of))
    return compiled


@cache
def _texts() -> bytes:
    files = sorted(Path(__file__).parent.glob("_numba*.py"))
    return b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)


def _stamp(made_of: tuple[Any, ...]) -> bytes:
    """Changes with everything that a kernel is made of; an OSError where that cannot be read."""
    digest = hashlib.sha256(_texts())
    for ingredient in made_of:
        code = getattr(ingredient, "__code__", None)
        digest.update(Path(code.co_filename).read_bytes() if code else repr(ingredient).encode())
    return digest.digest()


SIGNED = 64  # bytes before what is pickled


class _File:
    """One file for each kernel, signature and processor, replaced as a whole.

    Numba's index of several files may name what another process has just replaced.
    """

    def __init__(self, folder: str, name: str, stamp: bytes) -> None:
        self._folder, self._name, self._stamp = Path(folder), name, stamp

    def _path(self, key: Any) -> Path:
        about = (numba.__version__, sys.version, key)
        return self._folder / f"{self._name}-{hashlib.sha256(repr(about).encode()).hexdigest()}.nbc"

    def load(self, key: Any) -> Any:
        try:
            content = self._path(key).read_bytes()
            if content[:SIGNED] != self._signature(content[SIGNED:]):
                return None
            return pickle.loads(content[SIGNED:])
        except Exception:
            return None

    def _signature(self, pickled: bytes) -> bytes:
        """What a file begins with: of another text or damaged, it is not to be unpickled.

        That imports modules by their names, and hands machine code to LLVM.
        """
        return self._stamp + hashlib.sha256(pickled).digest()

    def save(self, key: Any, data: Any) -> None:
        # A full disk is no reason to fail.
        with contextlib.suppress(OSError):
            handle, temporary = tempfile.mkstemp(dir=self._folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    pickled = _dumps(data)
                    file.write(self._signature(pickled) + pickled)
                Path(temporary).replace(self._path(key))
            except OSError:
                Path(temporary).unlink(missing_ok=True)
                raise


class _DiskCache(_FunctionCache):  # type: ignore[misc]
    def __init__(self, function: Any, stamp: bytes) -> None:
        super().__init__(function)  # RuntimeError: no folder to write to
        self._cache_file = _File(self.cache_path, f"fastact.{function.__name__}", stamp)

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):  # of a folder that is gone
            super().save_overload(sig, data)

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return sig, codegen.magic_tuple(), CONVERTS_FLOAT16
