"""The CPU kernels in Numba: the same ops, compiled at their first call, without a C++ compiler.

One vocabulary of elementary functions (_numba_vocabulary.py) turns every row's formula into machine
code, and a few loops (_numba_loops.py) make the kernels of every op of it. All arithmetic is in
float64 whatever the dtype, and rounded at the end; to 16 bits by way of float32. It is imported
where it is asked for, or the compiled library is not there.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from . import _private
from ._library import NAMESPACES, families, library
from ._pointwise import PointwiseFamily, empty_like, gate_and_up
from ._registry import DTYPES

_NAMESPACE = NAMESPACES["numba"]

_HUGE = 2 << 20  # bytes of a huge page
_advise: Any = None
if hasattr(mmap, "MADV_HUGEPAGE"):
    _advise = ctypes.CDLL(None).madvise
    _advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

# Elements below which a second thread costs more than it brings.
_GRAIN = 32768


# Numba's own threads are avoided: its portable layer aborts when two Python threads call at once,
# its OpenMP layer aborts in a forked child, and either multiplies the time to compile. torch's are
# there already, and wait for work by spinning: on two cores, threads beside them get half of one.
# Where they cannot be had, in a forked child for one, a pool of our own does.
@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="fastact")


_torchs_threads = _private.openmp_parallel()


def _after_fork() -> None:
    """A child has none of the threads."""
    global _torchs_threads
    _torchs_threads = None
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def run_parts(n: int, elements: int, body: Callable[[int, int], Any]) -> None:
    """body(begin, end) over n items of so many elements, in parallel."""
    parts = max(1, min(torch.get_num_threads(), math.ceil(n * elements / _GRAIN), n))
    step = math.ceil(n / parts)
    if elements == 1:
        step = 64 * math.ceil(step / 64)  # no cache line is written by two threads
    _run_all([partial(body, i, min(i + step, n)) for i in range(0, n, step)])


def _run_all(parts: list[Callable[[], Any]]) -> None:
    count, errors = len(parts), []

    def work(_: Any = None) -> None:
        """What each thread does: the next part, as long as there is one."""
        while True:
            try:
                part = parts.pop()
            except IndexError:
                return
            try:
                part()
            except BaseException as error:
                errors.append(error)

    if count > 1 and _torchs_threads is not None:
        _torchs_threads(work, count)
    else:
        others: list[Future[None]] = []
        with contextlib.suppress(RuntimeError):  # Python ends, and starts no threads any more
            while len(others) < count - 1:
                others.append(_pool().submit(work))
        work()
        for other in others:
            other.result()
    if errors:
        raise errors[0]


def advised(t: Tensor) -> Tensor:
    """A new output, for which the system is asked for huge pages: as csrc/torch/allocate.cpp."""
    size = t.numel() * t.element_size()
    if size >= 4 << 20 and _advise is not None:
        begin, end = -(-t.data_ptr() // _HUGE) * _HUGE, (t.data_ptr() + size) // _HUGE * _HUGE
        if begin < end:
            _advise(begin, end - begin, mmap.MADV_HUGEPAGE)
    return t


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.stride() == b.stride() or (a.is_contiguous() and b.is_contiguous())


def array(flat: Tensor) -> Any:
    """As NumPy, of 16 bits as the integers that _numba_storage.py tells apart."""
    if flat.dtype is torch.bfloat16:
        return flat.view(torch.uint16).numpy()
    return (flat.view(torch.int16) if flat.dtype is torch.float16 else flat).numpy()


def _run(loop: Any, inputs: Sequence[Tensor], outputs: Sequence[Tensor], p: Sequence[Any]) -> None:
    """Runs a loop over tensors of one shape, flat, in the memory order of the first output."""
    like = outputs[0]
    if not like.is_contiguous():
        dense = torch.empty_like(like)  # keeps the strides of a tensor without gaps, and only those
        like = like if _alike(like, dense) else dense
    sources = [t if _alike(t, like) else torch.empty_like(like).copy_(t) for t in inputs]
    targets = [t if _alike(t, like) else torch.empty_like(like) for t in outputs]
    n = like.numel()
    arrays = [array(t.as_strided((n,), (1,))) for t in (*sources, *targets)]
    run_parts(n, 1, lambda begin, end: loop(*(a[begin:end] for a in arrays), p))
    for target, output in zip(targets, outputs, strict=True):
        if target is not output:
            output.copy_(target)


def _kernels(family: PointwiseFamily) -> tuple[Callable[..., Any], ...]:
    """Forward, backward, double_backward, and the kernel in place if there is one."""
    n = family.primals

    @cache
    def compiled(order: int, double: bool) -> Any:
        from . import _numba_loops

        loop = _numba_loops.unary if family.inplace is not None else _numba_loops.gated
        return loop(family.activation, order, double)

    def loop(order: int, dtype: torch.dtype) -> Any:
        if dtype not in DTYPES:
            raise NotImplementedError(f"{_NAMESPACE}::{family.name}: no kernel for {dtype}")
        return compiled(order, dtype is torch.float64)

    def run(
        order: int, inputs: Sequence[Tensor], outputs: Sequence[Tensor], p: Sequence[Any]
    ) -> None:
        like = outputs[0]
        for t in (*inputs, *outputs):
            if t.shape != like.shape or t.dtype != like.dtype:
                raise RuntimeError(
                    f"{_NAMESPACE}::{family.name}: expected all tensors to have one shape and one "
                    f"dtype; got {tuple(t.shape)} {t.dtype} and {tuple(like.shape)} {like.dtype}"
                )
        if like.numel() > 0:
            _run(loop(order, like.dtype), inputs, outputs, () if family.packed else p)

    def operands(tensors: Sequence[Tensor], constants: Sequence[Any]) -> Sequence[Tensor]:
        if not family.packed:
            return tensors
        if tensors[0].shape[constants[0]] % 2:
            raise RuntimeError(f"{_NAMESPACE}::{family.name}: expected a dimension of even size")
        return [half for t in tensors for half in gate_and_up(t, *constants)]

    def forward(*args: Any) -> Tensor:
        constants = args[n:]
        y = advised(empty_like(family.like(*args)))
        run(0, operands(args[:n], constants), (y,), constants)
        return y

    def backward(grad: Tensor, *args: Any) -> Any:
        saved, constants = args[:n], args[n:]
        grads = tuple(advised(empty_like(t)) for t in saved)
        run(1, (grad, *operands(saved, constants)), operands(grads, constants), constants)
        return grads if n > 1 else grads[0]

    def double_backward(*args: Any) -> tuple[Tensor, ...]:
        v, grad, saved, constants = args[:n], args[n], args[n + 1 : 2 * n + 1], args[2 * n + 1 :]
        grad_grad = advised(empty_like(family.like(*saved, *constants)))
        grads = tuple(advised(empty_like(t)) for t in saved)
        inputs = (*operands(v, constants), grad, *operands(saved, constants))
        run(2, inputs, (grad_grad, *operands(grads, constants)), constants)
        return grad_grad, *grads

    def inplace(x: Tensor, *p: float) -> None:
        run(3, (x,), (x,), p)

    return forward, backward, double_backward, *((inplace,) if family.inplace is not None else ())


@cache
def register() -> None:
    """Registers the kernels of every activation; none is compiled before its first call."""
    lib = library(_NAMESPACE)
    for name, family in families(_NAMESPACE).items():
        if not isinstance(family, PointwiseFamily):
            continue  # _numba_losses.py
        suffixes = ("", "_backward", "_double_backward", "_")
        for suffix, kernel in zip(suffixes, _kernels(family), strict=False):
            lib.impl(name + suffix, kernel, "CPU")
