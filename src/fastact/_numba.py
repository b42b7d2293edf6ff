"""The CPU kernels in Numba: the same ops, compiled at their first call, without a C++ compiler.

One vocabulary of elementary functions turns every row's formula into machine code, and six loops,
three for one operand and three for a gate, make the kernels of every op. All arithmetic is in
float64 whatever the dtype, so that float32 and 16-bit results round once, at the end.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ._library import NAMESPACES, families, library
from ._pointwise import PointwiseFamily, empty_like, gate_and_up
from ._registry import DTYPES, Activation

_NAMESPACE = NAMESPACES["numba"]

# Elements below which a second thread costs more than it brings.
_GRAIN = 32768

# Phi(-t) exp(t^2/2) for 0 <= t <= 39, a ratio of polynomials: csrc/formulas/math.h.
_MILLS_NUM = (
    0.5, 0.8106527557732642833, 0.6527055819749111866, 0.3366220518417720046,
    0.1219039231150041005, 0.03222513481436846431, 0.006285652036800922398,
    0.0008938235487977431232, 0.00008894056469191476001, 5.623867092993770775e-6,
    1.732637662771394512e-7,
)  # fmt: skip
_MILLS_DEN = (
    1.0, 2.419190072349393926, 2.735645572324970448, 1.912339953763284437, 0.920223053640060834,
    0.3208820600803727246, 0.0829887242185342141, 0.01597786541665669285, 0.002254580324751680762,
    0.0002233752420649001367, 0.00001409694426815704351, 4.343078555189087724e-7,
)  # fmt: skip


# --------------------------------------------------------------------------------------------------
# What Numba compiles. Numba itself is imported by the first kernel that is asked for.


def _jit(**options: Any) -> Callable[..., Any]:
    # No on-disk cache: Numba's key takes in the closure's cells, and a compiled function in a cell
    # has another identity in every process, so the cache would only ever grow.
    import numba

    # "contract" allows fused multiply-adds and nothing that touches infinities, NaN or -0.
    jit: Callable[..., Any] = numba.njit(
        nogil=True, error_model="numpy", fastmath={"contract"}, **options
    )
    return jit


@cache
def _vocabulary(double: bool) -> Any:
    """The functions of a formula for one float64, branch-free, so that loops over them vectorise.

    A module, because that is what Numba looks attributes up in at compile time.
    """
    import numpy as np

    jit = _jit(forceinline=True)
    log2e, round_magic = 1 / math.log(2), 1.5 * 2.0**52  # adding the second rounds to an integer
    ln2_high, ln2_low = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")
    sqrt_2 = math.sqrt(2)

    # LLVM unrolls the loop, and with it vectorises what calls it, up to 15 coefficients.
    def polynomial(coefficients: Iterable[float]) -> Any:
        descending = tuple(coefficients)[::-1]

        @jit
        def horner(x: float) -> float:
            total = 0.0
            for c in descending:
                total = total * x + c
            return total

        return horner

    # (exp(r) - 1 - r) / r^2, for |r| <= ln(2) / 2: 4e-18, or 2e-10 of the exponential
    expm1_tail = polynomial(1 / math.factorial(n) for n in range(2, 15 if double else 9))
    # atanh(s) / s in s^2, for s <= 1/3: 2e-16, or 1e-9
    atanh_ratio = polynomial(1 / n for n in range(1, 31 if double else 17, 2))
    mills_num, mills_den = polynomial(_MILLS_NUM), polynomial(_MILLS_DEN)

    clamp = jit(lambda x, low, high: low if x < low else high if x > high else x)  # NaN stays
    bits = jit(lambda x: np.float64(x).view(np.int64))
    power_of_two = jit(lambda k: np.int64((bits(k) + 1023) << 52).view(np.float64))

    @jit
    def reduce(x: float) -> tuple[float, float]:
        # exp(x) = 2^k (1 + p); k comes as k + round_magic, whose low bits are the integer.
        magic = x * log2e + round_magic
        k = magic - round_magic
        r = (x - k * ln2_high) - k * ln2_low
        return r + r * r * expm1_tail(r), magic

    @jit
    def exp(x: float) -> Any:
        p, magic = reduce(clamp(x, -746.0, 710.0))
        # In two factors, as 2^k alone may overflow or be subnormal.
        half = (magic - round_magic) * 0.5 + round_magic
        rest = (magic - round_magic) - (half - round_magic) + round_magic
        return (1.0 + p) * power_of_two(half) * power_of_two(rest)

    @jit
    def expm1(x: float) -> Any:
        p, magic = reduce(clamp(x, -40.0, 710.0))
        half = power_of_two(magic - 1.0)  # half of 2^k: 2^1024 is infinite
        return (half * p + (half - 0.5)) * 2.0

    @jit
    def tanh(x: float) -> Any:
        m = expm1(-2.0 * abs(x))
        return math.copysign(m / (2.0 + m), x)

    @jit
    def sigmoid(x: float) -> Any:
        e = exp(-abs(x))
        return (e if x < 0.0 else 1.0) / (1.0 + e)

    @jit
    def softplus(x: float) -> Any:
        e = exp(-abs(x))
        s = e / (2.0 + e)  # log(1 + e) = 2 atanh(s)
        return (x if x > 0.0 else 0.0) + 2.0 * s * atanh_ratio(s * s)

    @jit
    def erfc(x: float) -> Any:
        t = clamp(abs(x) * sqrt_2, 0.0, 40.0)
        tail = 2.0 * exp(-x * x) * (mills_num(t) / mills_den(t))
        return 2.0 - tail if x < 0.0 else tail

    m: Any = ModuleType("vocabulary")
    m.where = jit(lambda condition, a, b: a if condition else b)
    m.full = jit(lambda _, value: value)
    m.exp, m.expm1, m.erfc, m.jit = exp, expm1, erfc, jit
    m.tanh, m.sigmoid, m.softplus = tanh, sigmoid, softplus
    return m


@cache
def _storage(dtype: torch.dtype) -> tuple[Any, Any]:
    """How an element becomes a float64, and is rounded back, to nearest even; as cpu/storage.h."""
    import numpy as np

    jit = _jit(forceinline=True)
    if dtype is torch.float64:
        return jit(lambda x: x), jit(lambda x: x)
    if dtype is torch.float32:
        return jit(lambda x: np.float64(x)), jit(lambda x: np.float32(x))

    bits = jit(lambda x: np.float32(x).view(np.uint32))
    value = jit(lambda x: np.uint32(x).view(np.float32))

    if dtype is torch.bfloat16:
        load = jit(lambda x: np.float64(value(np.uint32(x) << np.uint32(16))))

        @jit
        def store(x: Any) -> Any:
            b = bits(x)
            b += np.uint32(0x7FFF) + ((b >> np.uint32(16)) & np.uint32(1))
            return np.uint16(0x7FC0) if x != x else np.uint16(b >> np.uint32(16))

        return load, store

    two_112 = np.float32(2.0**112)

    @jit
    def load_half(x: Any) -> Any:
        # The exponent is re-biased by a multiplication, which makes subnormals right.
        magnitude = np.uint32(x & 0x7FFF) << np.uint32(13)
        finite = bits(value(magnitude) * two_112)
        special = magnitude | np.uint32(0x7F800000)
        b = special if magnitude >= np.uint32(0x0F800000) else finite
        return np.float64(value(b | (np.uint32(x & 0x8000) << np.uint32(16))))

    @jit
    def store_half(x: Any) -> Any:
        b = bits(x)
        magnitude = b & np.uint32(0x7FFFFFFF)
        odd = (magnitude >> np.uint32(13)) & np.uint32(1)
        normal = (magnitude - np.uint32((112 << 23) - 0xFFF) + odd) >> np.uint32(13)
        # Adding 1/2 aligns a subnormal's last bit with the float's, and rounds.
        aligned = bits(value(magnitude) + np.float32(0.5)) - np.uint32(0x3F000000)
        result = aligned if magnitude < np.uint32(113 << 23) else normal
        result = np.uint32(0x7C00) if magnitude >= np.uint32(143 << 23) else result
        result = np.uint32(0x7E00) if magnitude > np.uint32(0x7F800000) else result
        return np.uint16(result | ((b >> np.uint32(16)) & np.uint32(0x8000)))

    return load_half, store_half


@cache
def _scaled(zero_wins: bool) -> Any:
    """Factor * slope."""
    jit = _jit(forceinline=True)
    if zero_wins:
        return jit(lambda factor, slope: 0.0 if slope == 0.0 else factor * slope)
    return jit(lambda factor, slope: factor * slope)


def _unary_loop(row: Activation, order: int, dtype: torch.dtype) -> Any:
    import numpy as np

    inline, (load, store) = _jit(forceinline=True), _storage(dtype)
    value, slope, curvature = map(inline, row.formula(_vocabulary(dtype is torch.float64)))
    scaled = _scaled(row.zero_wins)

    def forward(x: Any, y: Any, p: Any) -> None:
        for i in range(x.size):
            y[i] = store(value(load(x[i]), *p))

    def backward(grad: Any, saved: Any, grad_x: Any, p: Any) -> None:
        for i in range(saved.size):
            grad_x[i] = store(scaled(load(grad[i]), slope(load(saved[i]), *p)))

    def double_backward(v: Any, grad: Any, saved: Any, gg: Any, gs: Any, p: Any) -> None:
        for i in range(saved.size):
            vi, gi, si = load(v[i]), load(grad[i]), load(saved[i])
            gg[i] = store(scaled(vi, slope(si, *p)))
            gs[i] = store(scaled(vi * gi, curvature(si, *p)))

    def inplace(x: Any, y: Any, p: Any) -> None:
        # By way of a buffer: a loop that may overwrite what it has yet to read does not vectorise.
        block = np.empty(1024, y.dtype)
        for start in range(0, x.size, 1024):
            part = x[start : start + 1024]
            for i in range(part.size):
                block[i] = store(value(load(part[i]), *p))
            y[start : start + 1024] = block[: part.size]

    return _jit()((forward, backward, double_backward, inplace)[order])


def _gated_loop(row: Activation, order: int, dtype: torch.dtype) -> Any:
    inline, (load, store) = _jit(forceinline=True), _storage(dtype)
    value, slope, curvature = map(inline, row.formula(_vocabulary(dtype is torch.float64)))
    if row.saves_output is not None:  # the gate's derivatives are by its input all the same
        by_y, by_yy = slope, curvature
        slope = inline(lambda x: by_y(value(x)))
        curvature = inline(lambda x: by_yy(value(x)) * by_y(value(x)))
    scaled = _scaled(row.zero_wins)

    def forward(gate: Any, up: Any, y: Any, _: Any) -> None:
        for i in range(gate.size):
            y[i] = store(value(load(gate[i])) * load(up[i]))

    def backward(grad: Any, gate: Any, up: Any, grad_gate: Any, grad_up: Any, _: Any) -> None:
        for i in range(gate.size):
            g, a, b = load(grad[i]), load(gate[i]), load(up[i])
            grad_gate[i] = store(scaled(g * b, slope(a)))
            grad_up[i] = store(g * value(a))

    # Of (g, a, b) -> (g b f'(a), g f(a)), applied to (v, w).
    def double_backward(
        v_gate: Any, v_up: Any, grad: Any, gate: Any, up: Any, gg: Any, ga: Any, gb: Any, _: Any
    ) -> None:
        for i in range(gate.size):
            v, w = load(v_gate[i]), load(v_up[i])
            g, a, b = load(grad[i]), load(gate[i]), load(up[i])
            s = slope(a)
            gg[i] = store(scaled(v * b, s) + w * value(a))
            ga[i] = store(g * (scaled(v * b, curvature(a)) + scaled(w, s)))
            gb[i] = store(scaled(v * g, s))

    return _jit()((forward, backward, double_backward)[order])


# --------------------------------------------------------------------------------------------------
# Tensors


# Numba's own threads are avoided: its portable layer aborts when two Python threads call at once,
# its OpenMP layer aborts in a forked child, and either multiplies the time to compile.
@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="fastact")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of the threads


def run_parts(n: int, elements: int, body: Callable[[int, int], Any]) -> None:
    """body(begin, end) over n items of so many elements, in parallel."""
    parts = max(1, min(torch.get_num_threads(), math.ceil(n * elements / _GRAIN), n))
    step = math.ceil(n / parts)
    if elements == 1:
        step = 64 * math.ceil(step / 64)  # no cache line is written by two threads
    first, *others = (partial(body, i, min(i + step, n)) for i in range(0, n, step))
    pending = [_pool().submit(part) for part in others]
    first()
    for future in pending:
        future.result()


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.stride() == b.stride() or (a.is_contiguous() and b.is_contiguous())


def _array(x: Tensor) -> Any:
    flat = x.as_strided((x.numel(),), (1,))
    return (flat.view(torch.uint16) if x.itemsize == 2 else flat).numpy()


def _run(loop: Any, inputs: Sequence[Tensor], outputs: Sequence[Tensor], p: Sequence[Any]) -> None:
    """Runs a loop over tensors of one shape, flat, in the memory order of the first output."""
    like = outputs[0]
    if not like.is_contiguous():
        dense = torch.empty_like(like)  # keeps the strides of a tensor without gaps, and only those
        like = like if _alike(like, dense) else dense
    sources = [t if _alike(t, like) else torch.empty_like(like).copy_(t) for t in inputs]
    targets = [t if _alike(t, like) else torch.empty_like(like) for t in outputs]
    arrays = [_array(t) for t in (*sources, *targets)]
    n = like.numel()
    run_parts(n, 1, lambda begin, end: loop(*(a[begin:end] for a in arrays), p))
    for target, output in zip(targets, outputs, strict=True):
        if target is not output:
            output.copy_(target)


def _kernels(family: PointwiseFamily) -> tuple[Callable[..., Any], ...]:
    """Forward, backward, double_backward, and the kernel in place if there is one."""
    n = family.primals
    loops = _unary_loop if family.inplace is not None else _gated_loop

    @cache
    def loop(order: int, dtype: torch.dtype) -> Any:
        if dtype not in DTYPES:
            raise NotImplementedError(f"{_NAMESPACE}::{family.name}: no kernel for {dtype}")
        return loops(family.activation, order, dtype)

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
        y = empty_like(family.like(*args))
        run(0, operands(args[:n], constants), (y,), constants)
        return y

    def backward(grad: Tensor, *args: Any) -> Any:
        saved, constants = args[:n], args[n:]
        grads = tuple(empty_like(t) for t in saved)
        run(1, (grad, *operands(saved, constants)), operands(grads, constants), constants)
        return grads if n > 1 else grads[0]

    def double_backward(*args: Any) -> tuple[Tensor, ...]:
        v, grad, saved, constants = args[:n], args[n], args[n + 1 : 2 * n + 1], args[2 * n + 1 :]
        grad_grad = empty_like(family.like(*saved, *constants))
        grads = tuple(empty_like(t) for t in saved)
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
