"""Prints the coefficients of csrc/formulas/constants.h, with the error of each approximation.

    python tools/fit.py

Polynomials interpolate at Chebyshev nodes, which is within a factor of two of the best. The
rational for 1 / (2 R(t)) - t sqrt(pi / 2), with R(t) = Phi(-t) exp(t^2/2), interpolates in double
precision, and is made minimax by Lawson's iteration in single. Needs mpmath and numpy.
"""

from collections.abc import Callable

import mpmath as mp
import numpy as np

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


def rational_minimax(
    f: Callable, high: float, m: int, n: int, emphasis: float
) -> tuple[float, list, list]:
    """(1 + t p(t)) / (1 + t q(t)) for 1 / (2 R) - t sqrt(pi / 2); the error is relative to 1 / R.

    It is smaller where the kernels' roundings add up: by the emphasis below 0.4, by 3 below 2.5.
    """
    angle = np.pi * (np.arange(900) + 0.5) / 900
    t = high * ((1 + np.cos(angle)) / 2) ** 2
    y = np.array([float(f(mp.mpf(x))) for x in t])
    whole = (y + t * float(mp.sqrt(mp.pi / 2))) / np.where(
        t < 0.4, emphasis, np.where(t < 2.5, min(emphasis, 3.0), 1.0)
    )
    weights, den, best = np.ones_like(t), np.ones_like(t), (np.inf, [], [])
    for _ in range(400):
        columns = [t**j for j in range(1, m + 1)] + [-(t**j) * y for j in range(1, n + 1)]
        a = np.stack(columns, 1) / (den * whole)[:, None]
        scale = np.abs(a).max(0)
        root = np.sqrt(weights)
        right = (y - 1) / (den * whole) * root
        c = np.linalg.lstsq(a / scale * root[:, None], right, rcond=None)[0] / scale
        den = np.polyval(np.r_[1, c[m:]][::-1], t)
        error = np.abs(np.polyval(np.r_[1, c[:m]][::-1], t) / den - y) / whole
        if error.max() < best[0]:
            best = (error.max(), list(c[:m]), list(c[m:]))
        weights = weights * (error / error.max() + 1e-3)
        weights /= weights.sum()
    return best


def exp2_over(f: object) -> object:
    return mp.expm1(f * mp.log(2)) / f if abs(f) > 1e-25 else mp.log(2)


def expm1_tail(r: object) -> object:
    return (mp.expm1(r) - r) / r**2 if abs(r) > 1e-25 else mp.mpf(1) / 2


def atanh_over(z: object) -> object:
    s = mp.sqrt(z)
    return mp.atanh(s) / s if s > 1e-15 else mp.mpf(1)


def mills_rest(t: object) -> object:
    return 1 / (mp.erfc(t / mp.sqrt(2)) * mp.exp(t * t / 2)) - t * mp.sqrt(mp.pi / 2)


if __name__ == "__main__":
    half, half_ln2 = mp.mpf("0.502"), mp.log(2) / 2 * mp.mpf("1.001")
    for degree in (3, 5, 10):
        show(f"exp2, degree {degree}", *polynomial(exp2_over, -half, half, degree))
    for degree in (4, 9):
        show(f"expm1, degree {degree}", *polynomial(expm1_tail, -half_ln2, half_ln2, degree))
    for degree in (2, 4, 10):
        # The first coefficient is 1 in the kernels, which the error includes.
        show(f"atanh, degree {degree}", *polynomial(atanh_over, mp.mpf(0), mp.mpf(1) / 9, degree))
    for m, n, emphasis in ((2, 3, 1), (4, 4, 12)):
        show(f"mills, {m}/{n}", *rational_minimax(mills_rest, 14.6, m, n, emphasis))
    show("mills, 9/10", *rational_interpolated(mills_rest, mp.mpf(39), 9, 10))
