"""Calls with rows kept in shared memory and without (csrc/cuda/keep.h)."""

import ctypes
import os

import support

from fastact import _library


def kept_or_not(function):
    """The results of both, and how many launches have kept rows in each."""
    path = os.environ["FASTACT_LIBRARY"] if support.EMULATED else _library.find("libfastact_cuda")
    library = ctypes.CDLL(str(path))
    library.fastact_cuda_rows_kept.restype = ctypes.c_longlong
    results, counts = [], []
    try:
        for keep in (True, False):
            library.fastact_cuda_keep_rows(ctypes.c_bool(keep))
            before = library.fastact_cuda_rows_kept()
            results.append(function())
            counts.append(library.fastact_cuda_rows_kept() - before)
    finally:
        library.fastact_cuda_keep_rows(ctypes.c_bool(True))
    return results, counts
