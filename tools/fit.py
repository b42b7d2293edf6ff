"""Prints the coefficients of csrc/formulas/math.h, with the error of each approximation.

    python tools/fit.py

Polynomials interpolate at Chebyshev nodes, which is within a factor of two of the best. The
rational for R(t) = Phi(-t) exp(t^2/2) interpolates in double precision, and is made minimax by
Lawson's iteration in single. Needs mpmath, numpy and scipy.
"""

from collections.abc import Callable

import mpmath as mp
import numpy as np
from scipy import special

mp.mp.dps = 60


def show(name: str, error: object, *rows: list) -> None:
    print(f"{name}: {mp.nstr(mp.mpf(error), 2)}")
    for row in rows:
        print("   ", ", ".join(mp.nstr(mp.mpf(c), 19) for c in row))


def polynomial(f: Callable, low: object, high: object, degree: int) -> tuple[object, list]:
    """Interpolates at Chebyshev nodes; returns the largest relative error and the coefficients."""
    middle, radius = (low + high) / 2, (high - low) / 2
    nodes = [
        middle + radius * mp.cos(mp.pi * (2 * k + 1) / (2 * degree + 2)) for k in range(degree + 1)
    ]
    matrix = mp.matrix([[x**j for j in range(degree + 1)] for x in nodes])
    c = list(mp.lu_solve(matrix, mp.matrix([f(x) for x in nodes])))
    grid = [low + (high - low) * k / 400 for k in range(401)]
    return max(abs(mp.polyval(c[::-1], x) / f(x) - 1) for x in grid), c


def rational_interpolated(f: Callable, high: object, m: int, n: int) -> tuple[object, list, list]:
    count = m + n + 1
    nodes = []
    for k in range(count):
        s = (1 + mp.cos(mp.pi * (2 * k + 1) / (2 * count))) / 2
        nodes.append(3 * s / (1 + 3 / high - s))  # denser near zero
    matrix = mp.matrix(
        [[t**j / f(t) for j in range(m + 1)] + [-(t**j) for j in range(1, n + 1)] for t in nodes]
    )
    c = list(mp.lu_solve(matrix, mp.matrix([1] * count)))
    num, den = c[: m + 1], [mp.mpf(1), *c[m + 1 :]]
    grid = [high * (mp.mpf(k) / 600) ** 2 for k in range(1, 600)]
    error = max(abs(mp.polyval(num[::-1], t) / mp.polyval(den[::-1], t) / f(t) - 1) for t in grid)
    return error, num, den


def rational_minimax(f: Callable, high: float, m: int, n: int) -> tuple[float, list, list]:
    angle = np.pi * (np.arange(4000) + 0.5) / 4000
    t = high * ((1 + np.cos(angle)) / 2) ** 2
    y, weights, den, best = f(t), np.ones_like(t), np.ones_like(t), (np.inf, [], [])
    for _ in range(200):
        columns = [t**j / (y * den) for j in range(m + 1)]
        columns += [-(t**j) / den for j in range(1, n + 1)]
        a = np.stack(columns, 1)
        scale = np.abs(a).max(0)
        root = np.sqrt(weights)
        c = np.linalg.lstsq(a / scale * root[:, None], root / den, rcond=None)[0] / scale
        num, den_c = c[: m + 1], np.r_[1, c[m + 1 :]]
        den = np.polyval(den_c[::-1], t)
        error = np.abs(np.polyval(num[::-1], t) / den / y - 1)
        if error.max() < best[0]:
            best = (error.max(), list(num), list(den_c))
        weights = weights * (error / error.max() + 1e-3)
        weights /= weights.sum()
    return best


def expm1_tail(r: object) -> object:
    return (mp.expm1(r) - r) / r**2 if abs(r) > 1e-25 else mp.mpf(1) / 2


def atanh_over(z: object) -> object:
    s = mp.sqrt(z)
    return mp.atanh(s) / s if s > 1e-15 else mp.mpf(1)


def mills(t: object) -> object:
    return mp.erfc(t / mp.sqrt(2)) * mp.exp(t * t / 2) / 2


if __name__ == "__main__":
    half_ln2 = mp.log(2) / 2 * mp.mpf("1.001")
    for degree in (4, 9):
        show(f"expm1, degree {degree}", *polynomial(expm1_tail, -half_ln2, half_ln2, degree))
    for degree in (4, 10):
        show(f"atanh, degree {degree}", *polynomial(atanh_over, mp.mpf(0), mp.mpf(1) / 9, degree))
    single = rational_minimax(lambda t: special.erfcx(t / np.sqrt(2)) / 2, 14.6, 4, 5)
    show("mills, 4/5", *single)
    show("mills, 10/11", *rational_interpolated(mills, mp.mpf(39), 10, 11))
