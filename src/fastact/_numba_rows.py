"""Softmax and the losses over rows of logits, for Numba; csrc/formulas says what is computed.

Everything is at module level, so that Numba keeps what it compiled on disk for the next process.
All arithmetic is in float64. Tensors come flat: bfloat16 as uint16 and float16 as int16, of which
``load`` and ``store`` know. Row r of ``rows = (outer, classes, inner)`` begins at
``r // inner * classes * inner + r % inner``, and its classes lie ``inner`` apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

LOG2E, MAGIC = 1 / math.log(2), 1.5 * 2.0**52  # adding the second rounds to an integer
LN2_HIGH, LN2_LOW = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")
LIMIT = -745.13  # below, exp rounds to 0

_options: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}
# "contract" allows fused multiply-adds and nothing that touches infinities, NaN or -0. A sum over a
# row may be taken in any order, which is what vectors need; so may its maximum, and where NaN gets
# lost in it, the sum still has it.
_kernel: Callable[..., Any] = njit(fastmath={"contract"}, **_options)
_inline: Callable[..., Any] = njit(fastmath={"contract"}, forceinline=True, **_options)
_summing: Callable[..., Any] = njit(fastmath={"contract", "reassoc"}, **_options)
_comparing: Callable[..., Any] = njit(fastmath={"nnan", "nsz"}, **_options)


# --------------------------------------------------------------------------------------------------
# Elements


def load(x: Any) -> Any:
    """An element as float64."""


def store(like: Any, x: Any) -> Any:
    """A float64 rounded to what ``like`` is an element of."""


@_inline
def _float_bits(x: Any) -> Any:
    return np.float32(x).view(np.uint32)


@_inline
def _bits_float(x: Any) -> Any:
    return np.uint32(x).view(np.float32)


@overload(load)
def _load(x):  # type: ignore[no-untyped-def]
    if x == types.uint16:
        return lambda x: np.float64(_bits_float(np.uint32(x) << np.uint32(16)))
    if x == types.int16:
        return lambda x: _load_half(np.uint16(x))
    return lambda x: np.float64(x)


@overload(store)
def _store(like, x):  # type: ignore[no-untyped-def]  # noqa: ARG001
    if like == types.uint16:
        return lambda like, x: _store_bfloat16(x)  # noqa: ARG005
    if like == types.int16:
        return lambda like, x: np.int16(_store_half(x))  # noqa: ARG005
    if like == types.float32:
        return lambda like, x: np.float32(x)  # noqa: ARG005
    return lambda like, x: x  # noqa: ARG005


@_inline
def _load_half(x: Any) -> Any:
    # The exponent is re-biased by a multiplication, which makes subnormals right.
    magnitude = np.uint32(x & np.uint16(0x7FFF)) << np.uint32(13)
    finite = _float_bits(_bits_float(magnitude) * np.float32(2.0**112))
    special = magnitude | np.uint32(0x7F800000)
    b = special if magnitude >= np.uint32(0x0F800000) else finite
    return np.float64(_bits_float(b | (np.uint32(x & np.uint16(0x8000)) << np.uint32(16))))


@_inline
def _store_bfloat16(x: Any) -> Any:
    b = _float_bits(x)
    b += np.uint32(0x7FFF) + ((b >> np.uint32(16)) & np.uint32(1))
    return np.uint16(0x7FC0) if x != x else np.uint16(b >> np.uint32(16))


@_inline
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


_C = tuple(1 / math.factorial(n) for n in range(14))


@_inline
def exp(x: Any) -> Any:
    """The exponential of x <= 0, without a branch; 0 below LIMIT, NaN for NaN."""
    t = x if x > LIMIT else LIMIT
    magic = t * LOG2E + MAGIC
    k = magic - MAGIC
    r = (t - k * LN2_HIGH) - k * LN2_LOW
    p = _C[13]
    p = p * r + _C[12]
    p = p * r + _C[11]
    p = p * r + _C[10]
    p = p * r + _C[9]
    p = p * r + _C[8]
    p = p * r + _C[7]
    p = p * r + _C[6]
    p = p * r + _C[5]
    p = p * r + _C[4]
    p = p * r + _C[3]
    p = p * r + _C[2]
    p = p * r + _C[1]
    p = p * r + _C[0]
    # 2^k in two factors, as it may be subnormal.
    half = (k * 0.5 + MAGIC) - MAGIC
    y = p * _power_of_two(half) * _power_of_two(k - half)
    return (y if x >= LIMIT else 0.0) if x == x else x


@_inline
def _power_of_two(k: Any) -> Any:
    return np.int64((np.float64(k + MAGIC).view(np.int64) + 1023) << 52).view(np.float64)


# --------------------------------------------------------------------------------------------------
# A row


@_comparing
def _largest(row: Any) -> Any:
    top = load(row[0])
    for j in range(row.size):
        z = load(row[j])
        top = z if z > top else top
    return top


@_summing
def _rest(row: Any, top: float) -> Any:
    others, ones = 0.0, 0.0
    for j in range(row.size):
        z = load(row[j])
        e = exp(z - top)
        others += 0.0 if z == top else e
        ones += 1.0 if z == top else 0.0
    return others + (ones - 1.0)


@_inline
def _cap(x: Any, softcap: float) -> Any:
    return softcap * math.tanh(x / softcap)


@_inline
def _cap_slope(x: Any, softcap: float) -> Any:
    e = math.exp(-2.0 * abs(x / softcap))
    return 4.0 * e / ((1.0 + e) * (1.0 + e))


@_kernel
def _gather(x: Any, start: int, n: int, stride: int, softcap: float, z: Any) -> None:
    for j in range(n):
        zj = load(x[start + j * stride])
        z[j] = _cap(zj, softcap) if softcap > 0.0 else zj


@_kernel
def _sums(row: Any) -> Any:
    """The maximum, and the sum of exp(z - max) without the maximum's own term; NaN for none."""
    if row.size == 0:
        return -np.inf, np.nan
    top = _largest(row)
    if top == -np.inf or top == np.inf:
        # NaN, as in torch, for a row of nothing but -inf and one with +inf.
        return np.nan, np.nan
    return top, _rest(row, top)


# --------------------------------------------------------------------------------------------------
# Softmax: y is the saved output


@_kernel
def softmax_forward(x: Any, y: Any, log: bool, rows: Any, begin: int, end: int) -> None:
    _, n, inner = rows
    z = np.empty(n if inner > 1 else 1, np.float64)
    for r in range(begin, end):
        start = r // inner * n * inner + r % inner
        if inner > 1:
            _gather(x, start, n, inner, 0.0, z)
            top, rest = _sums(z)
        else:
            top, rest = _sums(x[start : start + n])
        scale = math.log1p(rest) if log else 1.0 / (1.0 + rest)
        for j in range(n):
            at = start + j * inner
            d = load(x[at]) - top
            y[at] = store(y[at], d - scale if log else exp(d) * scale)


@_kernel
def softmax_backward(
    grad: Any, y: Any, grad_x: Any, log: bool, rows: Any, begin: int, end: int
) -> None:
    _, n, inner = rows
    for r in range(begin, end):
        start = r // inner * n * inner + r % inner
        total = 0.0
        for j in range(n):
            g, yj = load(grad[start + j * inner]), load(y[start + j * inner])
            total += g if log else g * yj
        for j in range(n):
            at = start + j * inner
            g, yj = load(grad[at]), load(y[at])
            p = exp(yj) if log else 0.0
            from_sum = 0.0 if p == 0.0 else p * total
            grad_x[at] = store(grad_x[at], g - from_sum if log else yj * (g - total))


@_kernel
def softmax_double_backward(
    v: Any, grad: Any, y: Any, gg: Any, gy: Any, log: bool, rows: Any, begin: int, end: int
) -> None:
    _, n, inner = rows
    for r in range(begin, end):
        start = r // inner * n * inner + r % inner
        v_sum, grad_sum = 0.0, 0.0
        for j in range(n):
            at = start + j * inner
            vj, g, yj = load(v[at]), load(grad[at]), load(y[at])
            p = exp(yj) if log else yj
            v_sum += 0.0 if p == 0.0 else vj * p
            grad_sum += g if log else g * yj
        for j in range(n):
            at = start + j * inner
            vj, g, yj = load(v[at]), load(grad[at]), load(y[at])
            if log:
                gg[at] = store(gg[at], vj - v_sum)
                gy[at] = store(gy[at], -vj * exp(yj) * grad_sum)
            else:
                gg[at] = store(gg[at], yj * (vj - v_sum))
                gy[at] = store(gy[at], vj * (g - grad_sum) - g * v_sum)


# --------------------------------------------------------------------------------------------------
# Cross entropy. `number` has what each row keeps and gives, in this order:
MAX, REST, MASS, MEAN, LOSS, LSE, ENTROPY, WEIGHT, NUMBERS = range(9)
# `given` has the gradients of loss, lse, entropy. options: ignore_index, label_smoothing, z_loss,
# softcap; whether the logits are normalized already, targets indices, weights given, and the
# entropy is asked for.


@_inline
def _coefficient(j: int, q: float, weight: Any, smoothing: float, n: int, weighted: bool) -> Any:
    """Of class j, without the target's index; q is its probability."""
    a = (1.0 - smoothing) * q + smoothing / n
    return a * weight[j] if weighted else a


@_kernel
def cross_entropy_forward(
    x: Any, target: Any, q: Any, weight: Any, number: Any, options: Any, rows: Any,
    begin: int, end: int,
) -> None:  # fmt: skip
    ignore_index, smoothing, z_loss, softcap, normalized, indexed, weighted, entropy = options
    _, n, inner = rows
    gathered = softcap > 0.0 or inner > 1  # what is not to be read as it lies
    z = np.empty(n if gathered else 1, np.float64)
    for r in range(begin, end):
        start = r // inner * n * inner + r % inner
        for i in range(NUMBERS):
            number[i, r] = 0.0
        if indexed and target[r] == ignore_index:
            continue
        top, rest, mass, mean, dot = 0.0, 0.0, 0.0, 0.0, 0.0
        if not normalized:
            if gathered:
                _gather(x, start, n, inner, softcap, z)
                top, rest = _sums(z)
            else:
                top, rest = _sums(x[start : start + n])
        if entropy or smoothing > 0.0 or not indexed:
            for j in range(n):
                at = start + j * inner
                zj = load(x[at])
                d = (_cap(zj, softcap) if softcap > 0.0 else zj) - top
                if entropy:
                    mean += exp(d) * (LIMIT if d < LIMIT else d)
                if smoothing > 0.0 or not indexed:
                    a = _coefficient(
                        j, 0.0 if indexed else load(q[at]), weight, smoothing, n, weighted
                    )
                    dot += 0.0 if a == 0.0 else a * d
                    mass += a
        log_sum = math.log1p(rest)
        lse = top + log_sum
        mean /= 1.0 + rest
        loss = mass * log_sum - dot + z_loss * lse * lse
        number[WEIGHT, r] = 1.0
        if indexed:
            own = load(x[start + target[r] * inner])
            own = _cap(own, softcap) if softcap > 0.0 else own
            w = weight[target[r]] if weighted else 1.0
            loss += (1.0 - smoothing) * w * (log_sum + (top - own))
            number[WEIGHT, r] = w
        number[MAX, r], number[REST, r], number[MASS, r] = top, rest, mass
        number[MEAN, r], number[LOSS, r], number[LSE, r] = mean, loss, lse
        number[ENTROPY, r] = log_sum - mean


@_kernel
def _scaled_exponentials(row: Any, grad: Any, top: float, factor: float) -> None:
    for j in range(row.size):
        grad[j] = store(grad[j], exp(load(row[j]) - top) * factor)


@_inline
def _at_target(
    d: float, rest: float, u: float, kappa: float, own: float, uniform: float, h: float, mean: float
) -> Any:
    """The gradient by the target's logit, where p - 1 would cancel."""
    p = math.exp(d) / (1.0 + rest)
    one_minus_p = 1.0 - p if p < 0.5 else (rest - math.expm1(d)) / (1.0 + rest)
    others = kappa - u * own - (0.0 if h == 0.0 or p == 0.0 else h * (d - mean))
    return p * others - u * own * one_minus_p - u * uniform


@_inline
def _by_z(d: float, rest: float, u: float, kappa: float, h: float, mean: float, a: float) -> Any:
    """The gradient by a logit that is not the target's, of coefficient a."""
    p = exp(d) / (1.0 + rest)
    return p * kappa - (0.0 if h == 0.0 or p == 0.0 else p * h * (d - mean)) - u * a


@_kernel
def cross_entropy_backward(
    x: Any, target: Any, q: Any, weight: Any, number: Any, given: Any, grad: Any, options: Any,
    rows: Any, begin: int, end: int,
) -> None:  # fmt: skip
    ignore_index, smoothing, z_loss, softcap, normalized, indexed, weighted, _ = options
    _, n, inner = rows
    for r in range(begin, end):
        start = r // inner * n * inner + r % inner
        ignored = indexed and target[r] == ignore_index
        if ignored or normalized:
            for j in range(n):
                grad[start + j * inner] = store(grad[start + j * inner], 0.0)
            if ignored:
                continue
        u, lse_grad, h = given[0, r], given[1, r], given[2, r]
        top, rest, mass, mean = number[MAX, r], number[REST, r], number[MASS, r], number[MEAN, r]
        label = target[r] if indexed else 0
        w = weight[label] if indexed and weighted else 1.0
        own = (1.0 - smoothing) * w if indexed else 0.0
        place = start + label * inner
        if normalized:
            grad[place] = store(grad[place], -u * own)
            continue
        raw = load(x[place])  # before it is written over, where the gradient goes to x
        lse = top + math.log1p(rest)
        kappa = u * (own + mass) + lse_grad + 2.0 * z_loss * u * lse
        if softcap == 0.0 and h == 0.0 and smoothing == 0.0 and indexed and inner == 1:
            part = slice(start, start + n)
            _scaled_exponentials(x[part], grad[part], top, kappa / (1.0 + rest))
        else:
            for j in range(n):
                at = start + j * inner
                zj = load(x[at])
                slope = _cap_slope(zj, softcap) if softcap > 0.0 else 1.0
                d = (_cap(zj, softcap) if softcap > 0.0 else zj) - top
                a = 0.0
                if smoothing > 0.0 or not indexed:
                    a = _coefficient(
                        j, 0.0 if indexed else load(q[at]), weight, smoothing, n, weighted
                    )
                grad[at] = store(grad[at], _by_z(d, rest, u, kappa, h, mean, a) * slope)
        if indexed:
            d = (_cap(raw, softcap) if softcap > 0.0 else raw) - top
            slope = _cap_slope(raw, softcap) if softcap > 0.0 else 1.0
            g = _at_target(d, rest, u, kappa, own, smoothing / n * w, h, mean)
            grad[place] = store(grad[place], g * slope)


@_kernel
def cross_entropy_double_backward(
    v: Any, x: Any, target: Any, q: Any, weight: Any, number: Any, given: Any, by_given: Any,
    grad: Any, with_grad: bool, options: Any, rows: Any, begin: int, end: int,
) -> None:  # fmt: skip
    ignore_index, smoothing, z_loss, softcap, _, indexed, weighted, _ = options
    _, n, inner = rows
    for r in range(begin, end):
        start = r // inner * n * inner + r % inner
        by_given[0, r] = by_given[1, r] = by_given[2, r] = by_given[3, r] = 0.0
        if indexed and target[r] == ignore_index:
            if with_grad:
                for j in range(n):
                    grad[start + j * inner] = store(grad[start + j * inner], 0.0)
            continue
        u, lse_grad, h = given[0, r], given[1, r], given[2, r]
        top, rest, mass, mean = number[MAX, r], number[REST, r], number[MASS, r], number[MEAN, r]
        label = target[r] if indexed else 0
        w = weight[label] if indexed and weighted else 1.0
        own = (1.0 - smoothing) * w if indexed else 0.0
        lse = top + math.log1p(rest)
        kappa = u * (own + mass) + lse_grad + 2.0 * z_loss * u * lse
        # y = v dz/dx, counted from its value at the target: the loss depends on differences only.
        origin = 0.0
        if indexed:
            raw = load(x[start + label * inner])
            slope = _cap_slope(raw, softcap) if softcap > 0.0 else 1.0
            origin = load(v[start + label * inner]) * slope
        y_mean, covariance, dot = 0.0, 0.0, 0.0
        for j in range(n):
            at = start + j * inner
            zj = load(x[at])
            slope = _cap_slope(zj, softcap) if softcap > 0.0 else 1.0
            d = (_cap(zj, softcap) if softcap > 0.0 else zj) - top
            y = load(v[at]) * slope - origin
            p = exp(d) / (1.0 + rest)
            y_mean += 0.0 if p == 0.0 else p * y
            covariance += 0.0 if p == 0.0 else p * (d - mean) * y
            if smoothing > 0.0 or not indexed:
                a = _coefficient(j, 0.0 if indexed else load(q[at]), weight, smoothing, n, weighted)
                dot += a * y
        by_lse = y_mean + origin
        by_given[0, r] = (own + mass) * y_mean - dot + 2.0 * z_loss * lse * by_lse
        by_given[1, r] = by_lse
        by_given[2, r] = -covariance
        by_given[3, r] = w
        if not with_grad:
            continue
        for j in range(n):
            at = start + j * inner
            zj = load(x[at])
            slope = _cap_slope(zj, softcap) if softcap > 0.0 else 1.0
            d = (_cap(zj, softcap) if softcap > 0.0 else zj) - top
            p = exp(d) / (1.0 + rest)
            centred = load(v[at]) * slope - origin - y_mean
            of_entropy = (d - mean + 1.0) * centred - covariance
            g = kappa * centred + 2.0 * z_loss * u * by_lse - h * of_entropy
            g = 0.0 if p == 0.0 else p * g
            if softcap > 0.0:
                a = 0.0
                if smoothing > 0.0 or not indexed:
                    a = _coefficient(
                        j, 0.0 if indexed else load(q[at]), weight, smoothing, n, weighted
                    )
                if indexed and j == label:
                    by_z = _at_target(d, rest, u, kappa, own, smoothing / n * w, h, mean)
                else:
                    by_z = _by_z(d, rest, u, kappa, h, mean, a)
                curvature = -2.0 / (softcap * softcap) * (d + top) * slope
                g = g * slope + load(v[at]) * curvature * by_z
            grad[at] = store(grad[at], g)


# --------------------------------------------------------------------------------------------------
# Binary cross entropy of the logit x with target t; w and p are the weights, of all and of t.


@_inline
def _softplus(x: Any) -> Any:
    return (x if x > 0.0 else 0.0) + math.log1p(exp(-abs(x)))


@_kernel
def bce_forward(x: Any, t: Any, w: Any, p: Any, loss: Any, begin: int, end: int) -> None:
    for i in range(begin, end):
        xi, ti = load(x[i]), load(t[i])
        negative = 1.0 - ti
        positive = ti * load(p[i]) if p.size else ti
        value = 0.0 if negative == 0.0 else negative * _softplus(xi)
        value += 0.0 if positive == 0.0 else positive * _softplus(-xi)
        value = value if xi == xi else xi
        loss[i] = value * load(w[i]) if w.size else value


@_inline
def _bce_slopes(xi: Any, ti: Any, pi: Any) -> Any:
    """The first and the second derivative."""
    negative, positive = 1.0 - ti, ti * pi
    e = exp(-abs(xi))
    big = 1.0 / (1.0 + e)
    small = e * big
    slope = negative * small - positive * big if xi < 0.0 else negative * big - positive * small
    return slope, (negative + positive) * big * small


@_kernel
def bce_backward(
    grad: Any, x: Any, t: Any, w: Any, p: Any, grad_x: Any, begin: int, end: int
) -> None:
    for i in range(begin, end):
        slope, _ = _bce_slopes(load(x[i]), load(t[i]), load(p[i]) if p.size else 1.0)
        wi = load(w[i]) if w.size else 1.0
        grad_x[i] = store(grad_x[i], grad[i if grad.size > 1 else 0] * wi * slope)


@_kernel
def bce_double_backward(
    v: Any, grad: Any, x: Any, t: Any, w: Any, p: Any, by_grad: Any, grad_x: Any, begin: int,
    end: int,
) -> None:  # fmt: skip
    for i in range(begin, end):
        slope, curvature = _bce_slopes(load(x[i]), load(t[i]), load(p[i]) if p.size else 1.0)
        wi, vi = load(w[i]) if w.size else 1.0, load(v[i])
        by_grad[i] = vi * wi * slope
        grad_x[i] = store(grad_x[i], vi * grad[i if grad.size > 1 else 0] * wi * curvature)
