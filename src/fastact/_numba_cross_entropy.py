"""Cross entropy over rows of logits, for Numba; csrc/formulas says what is computed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._numba_jit import CONTRACT, inline, kernel, part
from ._numba_rows import cap_slope, compute, exp, exp_lifted, gather, logit, sums, unlift
from ._numba_storage import load, store
from ._numba_vocabulary import vocabulary

expm1 = vocabulary(double=True).expm1
LIMIT = -745.13  # below, exp rounds to 0

# Of each row `results` has these, and `stats` what its derivatives need: the maximum, the rest of
# the sum, the mass where there is one, and last the mean where the entropy is asked for.
LOSS, WEIGHT, LSE, ENTROPY, RESULTS = range(5)
# `given` has the gradients of loss, lse, entropy. options: ignore_index, label_smoothing, z_loss,
# softcap; whether the logits are normalized already, targets indices, weights given, coefficients
# other than the target's there (has_mass), and the entropy is asked for.


@inline
def _coefficient(j: int, q: float, weight: Any, smoothing: float, n: int, weighted: bool) -> Any:
    """Of class j, without the target's index; q is its probability."""
    a = (1.0 - smoothing) * q + smoothing / n
    return a * weight[j] if weighted else a


@inline
def _kept(stats: Any, r: int, has_mass: bool, entropy: bool) -> Any:
    """The maximum, the rest, the mass and the mean."""
    mass = np.float64(stats[2, r]) if has_mass else 0.0
    mean = np.float64(stats[stats.shape[0] - 1, r]) if entropy else 0.0
    return np.float64(stats[0, r]), np.float64(stats[1, r]), mass, mean


@kernel
def cross_entropy_forward(
    x: Any, target: Any, q: Any, weight: Any, results: Any, stats: Any, options: Any, rows: Any,
    begin: int, end: int,
) -> None:  # fmt: skip
    ignore_index, smoothing, z_loss, softcap, normalized, indexed, weighted, has_mass, entropy = (
        options
    )
    _, n, inner = rows
    gathered = softcap > 0.0 or inner > 1  # what is not to be read as it lies
    z = np.empty(n if gathered else 1, np.float64)
    for r in range(begin, end):
        start = r // inner * n * inner + r % inner
        if indexed and target[r] == ignore_index:
            results[:, r] = 0.0
            stats[:, r] = 0.0
            continue
        top, rest, mass, mean, dot = 0.0, 0.0, 0.0, 0.0, 0.0
        if not normalized:
            if gathered:
                gather(x, start, n, inner, softcap, z)
                top, rest = sums(z)
            else:
                top, rest = sums(x[start : start + n])
        if entropy or has_mass:
            for j in range(n):
                at = start + j * inner
                d = logit(x[at], softcap) - top
                if entropy:
                    mean += exp(d) * (LIMIT if d < LIMIT else d)
                if has_mass:
                    a = _coefficient(
                        j, 0.0 if indexed else load(q[at]), weight, smoothing, n, weighted
                    )
                    dot += 0.0 if a == 0.0 else a * d
                    mass += a
        log_sum = math.log1p(rest)
        lse = top + log_sum
        mean /= 1.0 + rest
        loss = mass * log_sum - dot + z_loss * lse * lse
        w = 1.0
        if indexed:
            own = logit(x[start + target[r] * inner], softcap)
            if weighted:
                w = weight[target[r]]
            loss += (1.0 - smoothing) * w * (log_sum + (top - own))
        results[LOSS, r], results[WEIGHT, r] = loss, w
        results[LSE, r], results[ENTROPY, r] = lse, log_sum - mean
        stats[0, r], stats[1, r] = top, rest
        if has_mass:
            stats[2, r] = mass
        if entropy:
            stats[stats.shape[0] - 1, r] = mean


@part(CONTRACT)
def _scaled_exponentials(row: Any, grad: Any, top: float, factor: float) -> None:
    largest, scale = compute(row[0], top), compute(row[0], factor * unlift(row[0]))
    for j in range(row.size):
        e = exp_lifted(row[j], compute(row[j], load(row[j])) - largest)
        grad[j] = store(grad[j], e * scale)


@inline
def _at_target(
    d: float, rest: float, u: float, kappa: float, own: float, uniform: float, h: float, mean: float
) -> Any:
    """The gradient by the target's logit, where p - 1 would cancel."""
    p = exp(d) / (1.0 + rest)
    one_minus_p = 1.0 - p if p < 0.5 else (rest - expm1(d)) / (1.0 + rest)
    others = kappa - u * own - (0.0 if h == 0.0 or p == 0.0 else h * (d - mean))
    return p * others - u * own * one_minus_p - u * uniform


@inline
def _by_z(d: float, rest: float, u: float, kappa: float, h: float, mean: float, a: float) -> Any:
    """The gradient by a logit that is not the target's, of coefficient a."""
    p = exp(d) / (1.0 + rest)
    return p * kappa - (0.0 if h == 0.0 or p == 0.0 else p * h * (d - mean)) - u * a


@inline
def _of_row(
    r: int, target: Any, weight: Any, given: Any, top: float, rest: float, mass: float,
    smoothing: float, z_loss: float, indexed: bool, weighted: bool,
) -> Any:  # fmt: skip
    """The target, its class weight and coefficient, log-sum-exp, and what p is multiplied by."""
    label = target[r] if indexed else 0
    w = weight[label] if indexed and weighted else 1.0
    own = (1.0 - smoothing) * w if indexed else 0.0
    u, lse_grad = given[0, r], given[1, r]
    lse = top + math.log1p(rest)
    return label, w, own, lse, u * (own + mass) + lse_grad + 2.0 * z_loss * u * lse


@kernel
def cross_entropy_backward(
    x: Any, target: Any, q: Any, weight: Any, stats: Any, given: Any, grad: Any, options: Any,
    rows: Any, begin: int, end: int,
) -> None:  # fmt: skip
    ignore_index, smoothing, z_loss, softcap, normalized, indexed, weighted, has_mass, entropy = (
        options
    )
    _, n, inner = rows
    for r in range(begin, end):
        start = r // inner * n * inner + r % inner
        ignored = indexed and target[r] == ignore_index
        if ignored or normalized:
            for j in range(n):
                grad[start + j * inner] = store(grad[start + j * inner], 0.0)
            if ignored:
                continue
        u, h = given[0, r], given[2, r]
        top, rest, mass, mean = _kept(stats, r, has_mass, entropy)
        label, w, own, _, kappa = _of_row(
            r, target, weight, given, top, rest, mass, smoothing, z_loss, indexed, weighted
        )
        place = start + label * inner
        if normalized:
            grad[place] = store(grad[place], -u * own)
            continue
        # Before it is written over, where the gradient goes to x.
        own_slope, own_d = 1.0, 0.0
        if indexed:
            own_slope = cap_slope(load(x[place]), softcap) if softcap > 0.0 else 1.0
            own_d = logit(x[place], softcap) - top
        if softcap == 0.0 and h == 0.0 and not has_mass and inner == 1:
            part = slice(start, start + n)
            _scaled_exponentials(x[part], grad[part], top, kappa / (1.0 + rest))
        else:
            for j in range(n):
                at = start + j * inner
                slope = cap_slope(load(x[at]), softcap) if softcap > 0.0 else 1.0
                d = logit(x[at], softcap) - top
                a = 0.0
                if has_mass:
                    a = _coefficient(
                        j, 0.0 if indexed else load(q[at]), weight, smoothing, n, weighted
                    )
                grad[at] = store(grad[at], _by_z(d, rest, u, kappa, h, mean, a) * slope)
        if indexed:
            g = _at_target(own_d, rest, u, kappa, own, smoothing / n * w, h, mean)
            grad[place] = store(grad[place], g * own_slope)


@kernel
def cross_entropy_double_backward(
    v: Any, x: Any, target: Any, q: Any, weight: Any, stats: Any, given: Any, by_given: Any,
    grad: Any, with_grad: bool, options: Any, rows: Any, begin: int, end: int,
) -> None:  # fmt: skip
    ignore_index, smoothing, z_loss, softcap, _, indexed, weighted, has_mass, entropy = options
    _, n, inner = rows
    for r in range(begin, end):
        start = r // inner * n * inner + r % inner
        if indexed and target[r] == ignore_index:
            if with_grad:
                for j in range(n):
                    grad[start + j * inner] = store(grad[start + j * inner], 0.0)
            continue
        u, h = given[0, r], given[2, r]
        top, rest, mass, mean = _kept(stats, r, has_mass, entropy)
        label, w, own, lse, kappa = _of_row(
            r, target, weight, given, top, rest, mass, smoothing, z_loss, indexed, weighted
        )
        # y = v dz/dx, counted from its value at the target: the loss depends on differences only.
        origin = 0.0
        if indexed:
            slope = cap_slope(load(x[start + label * inner]), softcap) if softcap > 0.0 else 1.0
            origin = load(v[start + label * inner]) * slope
        y_mean, covariance, dot = 0.0, 0.0, 0.0
        for j in range(n):
            at = start + j * inner
            slope = cap_slope(load(x[at]), softcap) if softcap > 0.0 else 1.0
            d = logit(x[at], softcap) - top
            y = load(v[at]) * slope - origin
            p = exp(d) / (1.0 + rest)
            y_mean += 0.0 if p == 0.0 else p * y
            covariance += 0.0 if p == 0.0 else p * (d - mean) * y
            if has_mass:
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
            slope = cap_slope(load(x[at]), softcap) if softcap > 0.0 else 1.0
            d = logit(x[at], softcap) - top
            p = exp(d) / (1.0 + rest)
            centred = load(v[at]) * slope - origin - y_mean
            of_entropy = (d - mean + 1.0) * centred - covariance
            g = kappa * centred + 2.0 * z_loss * u * by_lse - h * of_entropy
            g = 0.0 if p == 0.0 else p * g
            if softcap > 0.0:
                a = 0.0
                if has_mass:
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
