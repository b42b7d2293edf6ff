"""Rows of logits for Numba, and softmax over them; csrc/formulas says what is computed.

All arithmetic is in float64 where nothing else is said. Tensors come flat. Row r of
``rows = (outer, classes, inner)`` begins at ``r // inner * classes * inner + r % inner``, and its
classes lie ``inner`` apart.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from ._numba_jit import CONTRACT, inline, kernel, part
from ._numba_storage import OPTIONS, load, order, ordered, rounded, store
from ._numba_vocabulary import (
    UNLIFT_SINGLE,
    exp_lifted_short,
    exp_lifted_single,
    vocabulary,
)

exp, tanh = vocabulary(double=True).exp, vocabulary(double=True).tanh
_short_exp = vocabulary(double=False).exp


def exp_for(like: Any, x: Any) -> Any:
    """The exponential to as many digits as the dtype of ``like`` asks for."""


@overload(exp_for, jit_options=OPTIONS)
def _exp_for(like, x):  # type: ignore[no-untyped-def]  # noqa: ARG001
    if like == types.float64:
        return lambda like, x: exp(x)  # noqa: ARG005
    return lambda like, x: _short_exp(x)  # noqa: ARG005


# What is done to every logit of a row is done in float32 where that is what logits have at most.


def compute(like: Any, x: float) -> Any:
    """A number as what the elements of a row are computed in: float64 or float32."""


def exp_lifted(like: Any, x: Any) -> Any:
    """exp(x) / unlift() for x <= 0, both in what the elements of a row are computed in."""


def unlift(like: Any) -> Any:
    """What an exponential has to be multiplied with."""


@overload(compute, jit_options=OPTIONS)
def _compute(like, x):  # type: ignore[no-untyped-def]  # noqa: ARG001
    if like == types.float64:
        return lambda like, x: x  # noqa: ARG005
    return lambda like, x: np.float32(x)  # noqa: ARG005


@overload(exp_lifted, jit_options=OPTIONS)
def _exp_lifted(like, x):  # type: ignore[no-untyped-def]  # noqa: ARG001
    if like == types.float64:
        return lambda like, x: exp(x)  # noqa: ARG005
    if like == types.float32:
        return lambda like, x: exp_lifted_single(np.float32(x))  # noqa: ARG005
    return lambda like, x: exp_lifted_short(np.float32(x))  # noqa: ARG005


@overload(unlift, jit_options=OPTIONS)
def _unlift(like):  # type: ignore[no-untyped-def]
    factor = 1.0 if like == types.float64 else UNLIFT_SINGLE
    return lambda like: factor  # noqa: ARG005


# A sum over a row may be taken in any order, which is what vectors need.
_plain = part(CONTRACT)
_summing = part({"contract", "reassoc"})


# --------------------------------------------------------------------------------------------------
# A row


@_plain
def _largest(row: Any) -> Any:
    top = order(row[0])
    for j in range(row.size):
        z = order(row[j])
        top = z if z > top else top
    return ordered(row[0], top)


@_summing
def _exponentials(row: Any, top: Any) -> Any:
    """The sum of exp(z - top), lifted, over all that is not top, and how often that is."""
    others = ones = zero = compute(row[0], 0.0)
    one = compute(row[0], 1.0)
    for j in range(row.size):
        z = compute(row[j], load(row[j]))
        e = exp_lifted(row[j], z - top)
        others += zero if z == top else e
        ones += one if z == top else zero
    return others, ones


@_plain
def _rest(row: Any, top: float) -> Any:
    total, count = 0.0, 0.0
    # In blocks, so that sums in float32 stay short.
    for begin in range(0, row.size, 1024):
        others, ones = _exponentials(row[begin : begin + 1024], compute(row[0], top))
        total += others
        count += ones
    return total * unlift(row[0]) + (count - 1.0)


@inline
def logit(element: Any, softcap: float) -> Any:
    """An element, capped if asked for: then rounded, as the maximum is where it is kept.

    The difference of the two is exactly 0 at the maximum, and what is left of 1 - p depends on it.
    """
    z = load(element)
    return rounded(element, softcap * tanh(z / softcap)) if softcap > 0.0 else z


@inline
def cap_slope(x: Any, softcap: float) -> Any:
    e = exp(-2.0 * abs(x / softcap))
    return 4.0 * e / ((1.0 + e) * (1.0 + e))


@_plain
def gather(x: Any, start: int, n: int, stride: int, softcap: float, z: Any) -> None:
    for j in range(n):
        z[j] = logit(x[start + j * stride], softcap)


@_plain
def sums(row: Any) -> Any:
    """The maximum, and the sum of exp(z - max) without the maximum's own term; NaN for none.

    -1 for a row of nothing but -inf: distributed.py asks for it.
    """
    if row.size == 0:
        return -np.inf, np.nan
    top = _largest(row)
    if top == -np.inf or top == np.inf:
        # NaN, as in torch, for a row of nothing but -inf and one with +inf.
        return np.nan, -1.0 if top == -np.inf else np.nan
    return top, _rest(row, top)


# --------------------------------------------------------------------------------------------------
# Softmax: y is the saved output


@_plain
def _softmax(x: Any, y: Any, log: bool, top: float, rest: float) -> None:
    scale = math.log1p(rest) if log else 1.0 / (1.0 + rest)
    for j in range(x.size):
        d = load(x[j]) - top
        y[j] = store(y[j], d - scale if log else exp_for(y[j], d) * scale)


@kernel
def softmax_forward(x: Any, y: Any, log: bool, rows: Any, begin: int, end: int) -> None:
    _, n, inner = rows
    z = np.empty(n if inner > 1 else 1, np.float64)
    for r in range(begin, end):
        start = r // inner * n * inner + r % inner
        stop = start + n * inner
        if inner > 1:
            gather(x, start, n, inner, 0.0, z)
            top, rest = sums(z)
            _softmax(x[start:stop:inner], y[start:stop:inner], log, top, rest)
        else:
            top, rest = sums(x[start:stop])
            _softmax(x[start:stop], y[start:stop], log, top, rest)


@_summing
def _total(grad: Any, y: Any, log: bool) -> Any:
    total = 0.0
    for j in range(grad.size):
        total += load(grad[j]) if log else load(grad[j]) * load(y[j])
    return total


@_plain
def _softmax_slope(grad: Any, y: Any, grad_x: Any, log: bool) -> None:
    total = _total(grad, y, log)
    for j in range(grad.size):
        g, yj = load(grad[j]), load(y[j])
        p = exp_for(y[j], yj) if log else 0.0
        from_sum = 0.0 if p == 0.0 else p * total
        grad_x[j] = store(grad_x[j], g - from_sum if log else yj * (g - total))


@kernel
def softmax_backward(
    grad: Any, y: Any, grad_x: Any, log: bool, rows: Any, begin: int, end: int
) -> None:
    _, n, inner = rows
    for r in range(begin, end):
        start = r // inner * n * inner + r % inner
        stop = start + n * inner
        if inner > 1:
            strided = slice(start, stop, inner)
            _softmax_slope(grad[strided], y[strided], grad_x[strided], log)
        else:
            _softmax_slope(grad[start:stop], y[start:stop], grad_x[start:stop], log)


@kernel
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
            p = exp_for(y[at], yj) if log else yj
            v_sum += 0.0 if p == 0.0 else vj * p
            grad_sum += g if log else g * yj
        for j in range(n):
            at = start + j * inner
            vj, g, yj = load(v[at]), load(grad[at]), load(y[at])
            if log:
                gg[at] = store(gg[at], vj - v_sum)
                gy[at] = store(gy[at], -vj * exp_for(y[at], yj) * grad_sum)
            else:
                gg[at] = store(gg[at], yj * (vj - v_sum))
                gy[at] = store(gy[at], vj * (g - grad_sum) - g * v_sum)
