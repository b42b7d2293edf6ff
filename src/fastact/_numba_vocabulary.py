"""The elementary functions of formulas and losses for Numba, in float64 and without a branch.

That is what lets LLVM put the loops over them on vectors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from ._numba_jit import inline

# Phi(-t) exp(t^2/2) for 0 <= t <= 39, a ratio of polynomials.
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
# 1 / that less t sqrt(2 pi), (2 + t num) / (1 + t den), twice the fraction of Wide in
# csrc/formulas/constants.h: 4e-8
_MILLS_NUM_SINGLE = (2.0, 0.87849209732, 0.21651471446, 0.021842364709, 3.4375491029e-6)
_MILLS_DEN_SINGLE = (1.0, 0.89467544753, 0.37910204963, 0.085304900987, 0.0087728767637)


_LOG2E, _LN2_HIGH, _LN2_LOW, _ROUND_MAGIC, _UNDERFLOW, _ONE = np.array(
    [1 / math.log(2), 0.693359375, -2.12194440e-4, 1.5 * 2.0**23, -103.97, 1.0], np.float32
)
UNLIFT_SINGLE = 2.0**-24


def _polynomial(coefficients: Iterable[float], number: type = float) -> Any:
    # LLVM unrolls the loop, and with it vectorises what calls it, up to 15 coefficients.
    first, *others = (number(c) for c in reversed(tuple(coefficients)))
    rest = tuple(others)

    @inline
    def horner(x: Any) -> Any:
        total = first
        for c in rest:
            total = total * x + c
        return total

    return horner


_expm1_tail_single = _polynomial((1 / math.factorial(n) for n in range(2, 8)), np.float32)


@inline
def exp_lifted_single(x: Any) -> Any:
    """exp(x) / UNLIFT_SINGLE in float32 for a float32 x <= 0, within 1 ulp.

    Lifted, what would be subnormal keeps its digits.
    """
    magic = x * _LOG2E + _ROUND_MAGIC  # whose low bits are the exponent
    k = magic - _ROUND_MAGIC
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    biased = np.float32(magic).view(np.uint32) + np.uint32(127 + 24)
    power = np.uint32(biased << np.uint32(23)).view(np.float32)
    result = (_ONE + (r + r * r * _expm1_tail_single(r))) * power
    return np.float32(0.0) if x < _UNDERFLOW else result


# 2^f for |f| <= 1/2, as in csrc/formulas/softmax.h: 2.6e-6
_exp2_short = _polynomial(
    (0.999999261442, 0.693121814743, 0.240247448315, 0.0559178603406, 0.0095701018633), np.float32
)
_BIASED_MAGIC = _ROUND_MAGIC + np.float32(127 + 24)


@inline
def exp_lifted_short(x: Any) -> Any:
    """The same for logits of 16 bits: within 3e-6, and 7e-8 |x| more, as a product is rounded."""
    magic = x * _LOG2E + _BIASED_MAGIC
    power = np.uint32(np.float32(magic).view(np.uint32) << np.uint32(23)).view(np.float32)
    result = _exp2_short(x * _LOG2E + (_BIASED_MAGIC - magic)) * power
    return np.float32(0.0) if x < _UNDERFLOW else result


@cache
def vocabulary(double: bool) -> Any:
    """The functions of a formula for one float64, branch-free, so that loops over them vectorise.

    A module, because that is what Numba looks attributes up in at compile time.
    """
    jit = inline
    log2e, round_magic = 1 / math.log(2), 1.5 * 2.0**52  # adding the second rounds to an integer
    ln2_high, ln2_low = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")
    sqrt_2, sqrt_2pi = math.sqrt(2), math.sqrt(2 * math.pi)

    # (exp(r) - 1 - r) / r^2, for |r| <= ln(2) / 2: 4e-18, or 2e-10 of the exponential
    expm1_tail = _polynomial(1 / math.factorial(n) for n in range(2, 15 if double else 9))
    # atanh(s) / s in s^2, for s <= 1/3: 2e-16, or 1e-9
    atanh_ratio = _polynomial(1 / n for n in range(1, 31 if double else 17, 2))
    mills_num = _polynomial(_MILLS_NUM if double else _MILLS_NUM_SINGLE)
    mills_den = _polynomial(_MILLS_DEN if double else _MILLS_DEN_SINGLE)

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

    def exp_double(x: float) -> Any:
        p, magic = reduce(clamp(x, -746.0, 710.0))
        # In two factors, as 2^k alone may overflow or be subnormal.
        half = (magic - round_magic) * 0.5 + round_magic
        rest = (magic - round_magic) - (half - round_magic) + round_magic
        return (1.0 + p) * power_of_two(half) * power_of_two(rest)

    def exp_single(x: float) -> Any:
        p, magic = reduce(clamp(x, -700.0, 700.0))
        result = (1.0 + p) * power_of_two(magic)
        return 0.0 if x < -700.0 else result

    exp = jit(exp_double if double else exp_single)

    @jit
    def expm1(x: float) -> Any:
        p, magic = reduce(clamp(x, -40.0, 710.0))
        half = power_of_two(magic - 1.0)  # half of 2^k: 2^1024 is infinite
        return (half * p + (half - 0.5)) * 2.0

    @jit
    def tanh(x: float) -> Any:
        m = expm1(-2.0 * abs(x))
        q = abs(m) / (2.0 + m)
        # Not copysign, whose result LLVM would round from double to float16 by a call.
        return -q if bits(x) < 0 else q

    @jit
    def sigmoid(x: float) -> Any:
        e = exp(-abs(x))
        return (e if x < 0.0 else 1.0) / (1.0 + e)

    @jit
    def sigmoids(x: float) -> Any:
        e = exp(-abs(x))
        larger = 1.0 / (1.0 + e)
        smaller = e * larger
        return (smaller, larger) if x < 0.0 else (larger, smaller)

    @jit
    def softplus(x: float) -> Any:
        e = exp(-abs(x))
        s = e / (2.0 + e)  # log(1 + e) = 2 atanh(s)
        return (x if x > 0.0 else 0.0) + 2.0 * s * atanh_ratio(s * s)

    def mills_double(t: float) -> Any:
        return mills_num(t) / mills_den(t)

    def mills_single(t: float) -> Any:
        d = mills_den(t)
        return d / (t * d * sqrt_2pi + mills_num(t))

    mills = jit(mills_double if double else mills_single)

    @jit
    def erfc(x: float) -> Any:
        t = clamp(abs(x) * sqrt_2, 0.0, 40.0)
        tail = 2.0 * exp(-x * x) * mills(t)
        return 2.0 - tail if x < 0.0 else tail

    m: Any = ModuleType("vocabulary")
    m.where = jit(lambda condition, a, b: a if condition else b)
    m.full = jit(lambda _, value: value)
    m.exp, m.expm1, m.erfc, m.jit = exp, expm1, erfc, jit
    m.tanh, m.sigmoid, m.sigmoids, m.softplus = tanh, sigmoid, sigmoids, softplus
    return m
