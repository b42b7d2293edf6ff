"""How an element becomes a float64, and is rounded back; as csrc/formulas/storage.h.

Numba knows neither 16-bit type: bfloat16 comes as uint16 and float16 as int16.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from ._numba_jit import CONVERTS_FLOAT16, inline

OPTIONS: Any = {"nogil": True, "error_model": "numpy", "forceinline": True}


def load(x: Any) -> Any:
    """An element as float64."""


def store(like: Any, x: Any) -> Any:
    """A float64 rounded to what ``like`` is an element of; to 16 bits by way of float32."""


def rounded(like: Any, x: Any) -> Any:
    """A float64 rounded to what is computed in elsewhere: float32, if ``like`` is no float64."""


def order(x: Any) -> Any:
    """An integer that is the larger, the larger the element; NaN are beyond the infinities.

    LLVM takes the maximum of integers on vectors, that of floats one by one.
    """


def ordered(like: Any, k: Any) -> Any:
    """The element with that integer, as float64."""


@overload(order, jit_options=OPTIONS)
def _order(x):  # type: ignore[no-untyped-def]
    if x == types.float64:
        return lambda x: _flip_double(np.float64(x).view(np.int64))
    if x == types.float32:
        return lambda x: _flip_single(np.float32(x).view(np.int32))
    return lambda x: _flip_half(np.int16(x))


@overload(ordered, jit_options=OPTIONS)
def _ordered(like, k):  # type: ignore[no-untyped-def]  # noqa: ARG001
    if like == types.float64:
        return lambda like, k: np.int64(_flip_double(k)).view(np.float64)  # noqa: ARG005
    if like == types.float32:
        return lambda like, k: np.float64(np.int32(_flip_single(k)).view(np.float32))  # noqa: ARG005
    if like == types.uint16:
        return lambda like, k: load(np.uint16(_flip_half(k)))  # noqa: ARG005
    return lambda like, k: load(np.int16(_flip_half(k)))  # noqa: ARG005


# The bits of a negative float grow with its magnitude.
@inline
def _flip_half(b: Any) -> Any:
    return np.int16(b ^ (b >> np.int16(15) & np.int16(0x7FFF)))


@inline
def _flip_single(b: Any) -> Any:
    return np.int32(b ^ (b >> 31 & np.int32(0x7FFFFFFF)))


@inline
def _flip_double(b: Any) -> Any:
    return b ^ (b >> 63 & 0x7FFFFFFFFFFFFFFF)


@overload(rounded, jit_options=OPTIONS)
def _rounded(like, x):  # type: ignore[no-untyped-def]  # noqa: ARG001
    if like == types.float64:
        return lambda like, x: x  # noqa: ARG005
    return lambda like, x: np.float64(np.float32(x))  # noqa: ARG005


@inline
def _float_bits(x: Any) -> Any:
    return np.float32(x).view(np.uint32)


@inline
def _bits_float(x: Any) -> Any:
    return np.uint32(x).view(np.float32)


@overload(load, jit_options=OPTIONS)
def _load(x):  # type: ignore[no-untyped-def]
    if x == types.uint16:
        return lambda x: np.float64(_bits_float(np.uint32(x) << np.uint32(16)))
    if x == types.int16:
        if CONVERTS_FLOAT16:
            return lambda x: np.float64(_widened(x))
        return lambda x: _load_half(np.uint16(x))
    return lambda x: np.float64(x)


@overload(store, jit_options=OPTIONS)
def _store(like, x):  # type: ignore[no-untyped-def]  # noqa: ARG001
    if like == types.uint16:
        return lambda like, x: _store_bfloat16(x)  # noqa: ARG005
    if like == types.int16:
        if CONVERTS_FLOAT16:
            return lambda like, x: _narrowed(np.float32(x))  # noqa: ARG005
        return lambda like, x: np.int16(_store_half(x))  # noqa: ARG005
    if like == types.float32:
        return lambda like, x: np.float32(x)  # noqa: ARG005
    return lambda like, x: x  # noqa: ARG005


def _instruction(operand: Any, result: Any, build: Callable[[Any, Any], Any]) -> Any:
    """What kernels call as a function: LLVM's instructions, made by a builder."""

    @intrinsic
    def compiled(_, x):  # type: ignore[no-untyped-def]  # noqa: ARG001
        return result(operand), lambda _, builder, __, arguments: build(builder, arguments[0])

    return compiled


_widened = _instruction(
    types.int16, types.float32, lambda b, x: b.fpext(b.bitcast(x, ir.HalfType()), ir.FloatType())
)
_narrowed = _instruction(
    types.float32, types.int16, lambda b, x: b.bitcast(b.fptrunc(x, ir.HalfType()), ir.IntType(16))
)


@inline
def _load_half(x: Any) -> Any:
    # The exponent is re-biased by a multiplication, which makes subnormals right.
    magnitude = np.uint32(x & np.uint16(0x7FFF)) << np.uint32(13)
    finite = _float_bits(_bits_float(magnitude) * np.float32(2.0**112))
    special = magnitude | np.uint32(0x7F800000)
    b = special if magnitude >= np.uint32(0x0F800000) else finite
    return np.float64(_bits_float(b | (np.uint32(x & np.uint16(0x8000)) << np.uint32(16))))


@inline
def _store_bfloat16(x: Any) -> Any:
    b = _float_bits(x)
    b += np.uint32(0x7FFF) + ((b >> np.uint32(16)) & np.uint32(1))
    return np.uint16(0x7FC0) if x != x else np.uint16(b >> np.uint32(16))


@inline
def _store_half(x: Any) -> Any:
    b = _float_bits(x)
    magnitude = b & np.uint32(0x7FFFFFFF)
    odd = (magnitude >> np.uint32(13)) & np.uint32(1)
    normal = (magnitude - np.uint32((112 << 23) - 0xFFF) + odd) >> np.uint32(13)
    # Adding 1/2 aligns a subnormal's last bit with the float's, and rounds.
    aligned = _float_bits(_bits_float(magnitude) + np.float32(0.5)) - np.uint32(0x3F000000)
    result = aligned if magnitude < np.uint32(113 << 23) else normal
    result = np.uint32(0x7C00) if magnitude >= np.uint32(143 << 23) else result
    result = np.uint32(0x7E00) if magnitude > np.uint32(0x7F800000) else result
    return np.uint16(result | ((b >> np.uint32(16)) & np.uint32(0x8000)))
