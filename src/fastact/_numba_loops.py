"""The loops that make kernels of a row's formula: three for one operand, three for a gate."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ._numba_jit import inline, kernel
from ._numba_storage import load, store
from ._numba_vocabulary import vocabulary
from ._registry import Activation


@cache
def _scaled(zero_wins: bool) -> Any:
    """Factor * slope."""
    if zero_wins:
        return inline(lambda factor, slope: 0.0 if slope == 0.0 else factor * slope)
    return inline(lambda factor, slope: factor * slope)


def _compile(loop: Any, row: Activation, kind: str, double: bool) -> Any:
    flags = (row.zero_wins, row.saves_output is not None)
    name = f"{row.name}_{kind}_{'double' if double else 'single'}"
    return kernel(loop, name, (row.formula, flags))


def unary(row: Activation, order: int, double: bool) -> Any:
    """The kernel of an order of derivative, or in place, of one operand; in float64 to its end."""
    value, slope, curvature = map(inline, row.formula(vocabulary(double)))
    scaled = _scaled(row.zero_wins)

    def forward(x: Any, y: Any, p: Any) -> None:
        for i in range(x.size):
            y[i] = store(y[i], value(load(x[i]), *p))

    def backward(grad: Any, saved: Any, grad_x: Any, p: Any) -> None:
        for i in range(saved.size):
            grad_x[i] = store(grad_x[i], scaled(load(grad[i]), slope(load(saved[i]), *p)))

    def double_backward(v: Any, grad: Any, saved: Any, gg: Any, gs: Any, p: Any) -> None:
        for i in range(saved.size):
            vi, gi, si = load(v[i]), load(grad[i]), load(saved[i])
            gg[i] = store(gg[i], scaled(vi, slope(si, *p)))
            gs[i] = store(gs[i], scaled(vi * gi, curvature(si, *p)))

    def inplace(x: Any, y: Any, p: Any) -> None:
        # By way of a buffer: a loop that may overwrite what it has yet to read does not vectorise.
        block = np.empty(1024, y.dtype)
        for start in range(0, x.size, 1024):
            part = x[start : start + 1024]
            for i in range(part.size):
                block[i] = store(block[i], value(load(part[i]), *p))
            y[start : start + 1024] = block[: part.size]

    loop = (forward, backward, double_backward, inplace)[order]
    return _compile(loop, row, loop.__name__, double)


def gated(row: Activation, order: int, double: bool) -> Any:
    """The kernel of an order of derivative of value(gate) * up."""
    value, slope, curvature = map(inline, row.formula(vocabulary(double)))
    if row.saves_output is not None:  # the gate's derivatives are by its input all the same
        by_y, by_yy = slope, curvature
        slope = inline(lambda x: by_y(value(x)))
        curvature = inline(lambda x: by_yy(value(x)) * by_y(value(x)))
    scaled = _scaled(row.zero_wins)

    def forward(gate: Any, up: Any, y: Any, _: Any) -> None:
        for i in range(gate.size):
            y[i] = store(y[i], value(load(gate[i])) * load(up[i]))

    def backward(grad: Any, gate: Any, up: Any, grad_gate: Any, grad_up: Any, _: Any) -> None:
        for i in range(gate.size):
            g, a, b = load(grad[i]), load(gate[i]), load(up[i])
            grad_gate[i] = store(grad_gate[i], scaled(g * b, slope(a)))
            grad_up[i] = store(grad_up[i], g * value(a))

    # Of (g, a, b) -> (g b f'(a), g f(a)), applied to (v, w).
    def double_backward(
        v_gate: Any, v_up: Any, grad: Any, gate: Any, up: Any, gg: Any, ga: Any, gb: Any, _: Any
    ) -> None:
        for i in range(gate.size):
            v, w = load(v_gate[i]), load(v_up[i])
            g, a, b = load(grad[i]), load(gate[i]), load(up[i])
            s = slope(a)
            gg[i] = store(gg[i], scaled(v * b, s) + w * value(a))
            ga[i] = store(ga[i], g * (scaled(v * b, curvature(a)) + scaled(w, s)))
            gb[i] = store(gb[i], scaled(v * g, s))

    loop = (forward, backward, double_backward)[order]
    return _compile(loop, row, f"gated_{loop.__name__}", double)
