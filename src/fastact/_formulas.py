"""The activations' formulas in Python: value, slope and curvature over a vocabulary.

A formula is a function of its vocabulary ``m``, which holds exp, expm1, erfc, tanh, sigmoid,
sigmoids, softplus, where, full and jit. Over :class:`TorchMath` it is differentiable torch code,
from which third and higher derivatives come; over that of ``_numba_vocabulary.py`` it is compiled
for scalars. As in C++, slope and curvature take the tensor that autograd saves (x, or the output y
where the row says so), and curvature is the derivative of slope by it. Equations and sources
stand in ``csrc/formulas/activations.h``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

Formula = tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]


class TorchMath:
    """The vocabulary over tensors."""

    exp, expm1, erfc = torch.exp, torch.expm1, torch.erfc
    tanh, sigmoid, softplus = torch.tanh, torch.sigmoid, F.softplus

    @staticmethod
    def sigmoids(x: Any) -> tuple[Any, Any]:
        """Of x and of -x."""
        return torch.sigmoid(x), torch.sigmoid(-x)

    @staticmethod
    def where(condition: Any, a: Any, b: Any) -> Any:
        return torch.where(condition, a, b)

    @staticmethod
    def full(x: Any, value: float) -> Any:
        """A constant, of x's shape."""
        return torch.full_like(x, value)

    @staticmethod
    def jit(function: Callable[..., Any]) -> Callable[..., Any]:
        """Marks a helper that a formula calls, for vocabularies that compile."""
        return function


def gelu(m: Any) -> Formula:
    sqrt_half, inv_sqrt_2pi = math.sqrt(0.5), 1 / math.sqrt(2 * math.pi)
    cdf = m.jit(lambda x: 0.5 * m.erfc(-x * sqrt_half))
    density = m.jit(lambda x: inv_sqrt_2pi * m.exp(-0.5 * x * x))
    return (
        lambda x: x * cdf(x),
        lambda x: cdf(x) + x * density(x),
        lambda x: density(x) * (2.0 - x * x),
    )


def _sigmoid_gated(m: Any, w: Any, dw: Any, xddw: Any) -> Formula:
    """X sigmoid(w(x)), from w, w' and x w''."""
    w, dw, xddw = m.jit(w), m.jit(dw), m.jit(xddw)

    def slope(x: Any) -> Any:
        s, r = m.sigmoids(w(x))
        return s * (1.0 + x * dw(x) * r)

    def curvature(x: Any) -> Any:
        s, r = m.sigmoids(w(x))
        return s * r * (2.0 * dw(x) + xddw(x) + x * dw(x) * dw(x) * (r - s))

    return lambda x: x * m.sigmoid(w(x)), slope, curvature


def gelu_tanh(m: Any) -> Formula:
    b0 = math.sqrt(8 / math.pi)
    b1 = 0.044715 * b0
    return _sigmoid_gated(
        m,
        lambda x: x * (b0 + b1 * x * x),
        lambda x: b0 + 3.0 * b1 * x * x,
        lambda x: 6.0 * b1 * x * x,
    )


def quick_gelu(m: Any) -> Formula:
    return _sigmoid_gated(m, lambda x: 1.702 * x, lambda _: 1.702, lambda _: 0.0)


def silu(m: Any) -> Formula:
    return _sigmoid_gated(m, lambda x: x, lambda _: 1.0, lambda _: 0.0)


def sigmoid(m: Any) -> Formula:
    return lambda x: m.sigmoid(x), lambda y: y * (1.0 - y), lambda y: 1.0 - 2.0 * y


def tanh(m: Any) -> Formula:
    return lambda x: m.tanh(x), lambda y: (1.0 - y) * (1.0 + y), lambda y: -2.0 * y


def softplus(m: Any) -> Formula:
    def value(x: Any, beta: float, threshold: float) -> Any:
        return m.where(x * beta > threshold, x, m.softplus(x * beta) / beta)

    def slope(x: Any, beta: float, threshold: float) -> Any:
        return m.where(x * beta > threshold, 1.0, m.sigmoid(x * beta))

    def curvature(x: Any, beta: float, threshold: float) -> Any:
        inside = beta * m.sigmoid(x * beta) * m.sigmoid(-x * beta)
        return m.where(x * beta > threshold, 0.0, inside)

    return value, slope, curvature


def logsigmoid(m: Any) -> Formula:
    return (
        lambda x: 0.0 - m.softplus(-x),  # +0 where it underflows, as torch
        lambda x: m.sigmoid(-x),
        lambda x: -m.sigmoid(x) * m.sigmoid(-x),
    )


def mish(m: Any) -> Formula:
    # With s = sigmoid(x) and r = 1 - s, tanh(softplus(x)) = (1 - r^2) / (1 + r^2).
    def gate(s: Any, r: Any) -> Any:
        return s * (1.0 + r) / (1.0 + r * r)

    def gate_slope(s: Any, r: Any) -> Any:
        return 4.0 * s * (r / (1.0 + r * r)) * (r / (1.0 + r * r))

    gate, gate_slope = m.jit(gate), m.jit(gate_slope)

    def slope(x: Any) -> Any:
        s, r = m.sigmoids(x)
        return gate(s, r) + x * gate_slope(s, r)

    def curvature(x: Any) -> Any:
        s, r = m.sigmoids(x)
        return gate_slope(s, r) * (2.0 + x * (r - 2.0 * gate(s, r) * s))

    return lambda x: x * gate(m.sigmoid(x), m.sigmoid(-x)), slope, curvature


def _exponential_unit(m: Any, negative: Any, positive: float, scale: Any) -> Formula:
    """Positive x above zero, and negative (exp(scale x) - 1) below; negative and scale by alpha."""
    negative, scale = m.jit(negative), m.jit(scale)
    # An exponential that overflows where it is not wanted has no derivative that could be masked.
    argument = m.jit(lambda x, *p: m.where(x < 0.0, x, 0.0) * scale(*p))
    left_slope = m.jit(lambda x, *p: negative(*p) * scale(*p) * m.exp(argument(x, *p)))
    return (
        lambda x, *p: m.where(x < 0.0, negative(*p) * m.expm1(argument(x, *p)), positive * x),
        lambda x, *p: m.where(x <= 0.0, left_slope(x, *p), positive),
        lambda x, *p: m.where(x < 0.0, scale(*p) * left_slope(x, *p), 0.0),
    )


def elu(m: Any) -> Formula:
    return _exponential_unit(m, lambda a: a, 1.0, lambda _: 1.0)


def selu(m: Any) -> Formula:
    scale = 1.0507009873554804934193349852946
    scaled_alpha = 1.6732632423543772848170429916717 * scale
    return _exponential_unit(m, lambda: scaled_alpha, scale, lambda: 1.0)


def celu(m: Any) -> Formula:
    return _exponential_unit(m, lambda a: a, 1.0, lambda a: 1.0 / a)


def relu(m: Any) -> Formula:
    return (
        lambda x: m.where(x < 0.0, 0.0, x),
        lambda y: m.where(y <= 0.0, 0.0, m.full(y, 1.0)),
        lambda y: m.full(y, 0.0),
    )


def _clipped(m: Any) -> Callable[..., Any]:
    return lambda x: m.where(x < 0.0, 0.0, m.where(x > 6.0, 6.0, x))


def relu6(m: Any) -> Formula:
    return (
        _clipped(m),
        lambda y: m.where((y <= 0.0) | (y >= 6.0), 0.0, m.full(y, 1.0)),
        lambda y: m.full(y, 0.0),
    )


def leaky_relu(m: Any) -> Formula:
    return (
        lambda x, a: m.where(x > 0.0, x, a * x),
        lambda s, a: m.where(s > 0.0, 1.0, m.full(s, a)),
        lambda s, _: m.full(s, 0.0),
    )


def squared_relu(m: Any) -> Formula:
    return (
        lambda x: m.where(x < 0.0, 0.0, x * x),
        lambda x: m.where(x < 0.0, 0.0, 2.0 * x),
        lambda x: m.where(x > 0.0, m.full(x, 2.0), 0.0),
    )


def hardswish(m: Any) -> Formula:
    relu6 = m.jit(_clipped(m))
    return (
        lambda x: x * (relu6(x + 3.0) / 6.0),
        lambda x: m.where(x <= -3.0, 0.0, m.where(x < 3.0, x / 3.0 + 0.5, 1.0)),
        lambda x: m.where((x > -3.0) & (x < 3.0), m.full(x, 1.0 / 3.0), 0.0),
    )


def hardsigmoid(m: Any) -> Formula:
    relu6 = m.jit(_clipped(m))
    return (
        lambda x: relu6(x + 3.0) / 6.0,
        lambda x: m.where((x > -3.0) & (x < 3.0), m.full(x, 1.0 / 6.0), 0.0),
        lambda x: m.full(x, 0.0),
    )
