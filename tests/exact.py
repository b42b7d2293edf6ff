"""Value, slope and curvature of the activations in 200-digit arithmetic.

Slopes and curvatures are numerical derivatives of the values, so nothing of the package, and no
formula for a derivative, is trusted. Points keep away from kinks; test_edges.py has those.
"""

from functools import cache

import mpmath as mp
import torch
from mpmath import mpf

DIGITS = 200


def _sigmoid(w):
    return 1 / (1 + mp.exp(-w))


def _softplus(u):
    # log1p(exp(u)) for u > 0 would need as many digits as exp(u) has.
    return max(u, 0) + mp.log1p(mp.exp(-abs(u)))


def _clip(x, low, high):
    return min(max(x, mpf(low)), mpf(high))


def _selu(x):
    scale = mpf("1.0507009873554804934193349852946")
    alpha = mpf("1.6732632423543772848170429916717")
    return scale * (x if x > 0 else alpha * mp.expm1(x))


VALUES = {
    "gelu": lambda x: x * mp.erfc(_clip(-x / mp.sqrt(2), -1e6, 1e6)) / 2,
    "gelu_tanh": lambda x: x * _sigmoid(mp.sqrt(8 / mp.pi) * (x + mpf("0.044715") * x**3)),
    "quick_gelu": lambda x: x * _sigmoid(mpf("1.702") * x),
    "silu": lambda x: x * _sigmoid(x),
    "sigmoid": _sigmoid,
    "tanh": mp.tanh,
    "softplus": lambda x, b, t: x if x * b > t else _softplus(x * b) / b,
    "logsigmoid": lambda x: -_softplus(-x),
    "mish": lambda x: x * mp.tanh(_softplus(x)),
    "elu": lambda x, a: x if x > 0 else a * mp.expm1(x),
    "selu": _selu,
    "celu": lambda x, a: x if x > 0 else a * mp.expm1(x / a),
    "relu": lambda x: max(x, mpf(0)),
    "relu6": lambda x: _clip(x, 0, 6),
    "leaky_relu": lambda x, a: x if x > 0 else a * x,
    "squared_relu": lambda x: max(x, mpf(0)) ** 2,
    "hardswish": lambda x: x * _clip(x + 3, 0, 6) / 6,
    "hardsigmoid": lambda x: _clip(x + 3, 0, 6) / 6,
}


@cache
def points(dtype: torch.dtype) -> torch.Tensor:
    """Around zero, where the functions bend, and into the tails to where they underflow."""
    tail = 800.0 if dtype == torch.float64 else 110.0
    generator = torch.Generator().manual_seed(4)
    bend = torch.rand(160, generator=generator, dtype=torch.float64) * 40 - 20
    tails = torch.linspace(-tail, tail, 60, dtype=torch.float64) + 0.37
    small = torch.logspace(-36, -1, 40, dtype=torch.float64)
    x = torch.cat([bend, tails, small, -small]).to(dtype).double()
    kinks = torch.tensor([0.0, -3.0, 3.0, 6.0], dtype=torch.float64)
    return x[((x[:, None] - kinks).abs() > 1e-37).all(1)]


def _float(number) -> float:
    try:
        return float(number)
    except OverflowError:
        return float(mp.sign(number) * mp.inf)


def _split(numbers) -> tuple[torch.Tensor, torch.Tensor]:
    """As the sum of two float64 tensors."""
    high = [_float(number) for number in numbers]
    low = [float(n - h) if abs(h) < mp.inf else 0.0 for n, h in zip(numbers, high, strict=True)]
    return torch.tensor(high, dtype=torch.float64), torch.tensor(low, dtype=torch.float64)


@cache
def _value(name: str, parameters: tuple[float, ...], x: float) -> float:
    with mp.workdps(DIGITS):
        return _float(VALUES[name](mpf(x), *map(mpf, parameters)))


def value(name: str, parameters: tuple[float, ...], x: torch.Tensor) -> torch.Tensor:
    """The value at each x, as float64."""
    return torch.tensor([_value(name, parameters, t) for t in x.tolist()], dtype=torch.float64)


@cache
def derivatives(name: str, parameters: tuple[float, ...], dtype: torch.dtype):
    """Value, slope and curvature at the points, each in two float64."""
    with mp.workdps(DIGITS):
        p = [mpf(number) for number in parameters]

        def function(x):
            return VALUES[name](x, *p)

        at = [mpf(x) for x in points(dtype).tolist()]
        return [
            _split(
                [function(x) if n == 0 else mp.diff(function, x, n, h=mpf(10) ** -60) for x in at]
            )
            for n in range(3)
        ]
