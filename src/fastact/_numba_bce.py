"""Binary cross entropy of the logit x with target t, for Numba; w and p weigh all and t."""

from __future__ import annotations

from typing import Any

from ._numba_jit import inline, kernel
from ._numba_storage import load, store
from ._numba_vocabulary import vocabulary

exp, softplus = vocabulary(double=True).exp, vocabulary(double=True).softplus


@kernel
def bce_forward(x: Any, t: Any, w: Any, p: Any, loss: Any) -> None:
    for i in range(x.size):
        xi, ti = load(x[i]), load(t[i])
        negative = 1.0 - ti
        positive = ti * load(p[i]) if p.size else ti
        value = 0.0 if negative == 0.0 else negative * softplus(xi)
        value += 0.0 if positive == 0.0 else positive * softplus(-xi)
        value = value if xi == xi else xi
        loss[i] = value * load(w[i]) if w.size else value


@inline
def _bce_slopes(xi: Any, ti: Any, pi: Any) -> Any:
    """The first and the second derivative."""
    negative, positive = 1.0 - ti, ti * pi
    e = exp(-abs(xi))
    big = 1.0 / (1.0 + e)
    small = e * big
    slope = negative * small - positive * big if xi < 0.0 else negative * big - positive * small
    return slope, (negative + positive) * big * small


@kernel
def bce_backward(grad: Any, x: Any, t: Any, w: Any, p: Any, grad_x: Any) -> None:
    for i in range(x.size):
        slope, _ = _bce_slopes(load(x[i]), load(t[i]), load(p[i]) if p.size else 1.0)
        wi, gi = load(w[i]) if w.size else 1.0, grad[i] if grad.size == x.size else grad[0]
        grad_x[i] = store(grad_x[i], gi * wi * slope)


@kernel
def bce_double_backward(
    v: Any, grad: Any, x: Any, t: Any, w: Any, p: Any, by_grad: Any, grad_x: Any
) -> None:
    for i in range(x.size):
        slope, curvature = _bce_slopes(load(x[i]), load(t[i]), load(p[i]) if p.size else 1.0)
        wi, vi = load(w[i]) if w.size else 1.0, load(v[i])
        gi = grad[i] if grad.size == x.size else grad[0]
        by_grad[i] = vi * wi * slope
        grad_x[i] = store(grad_x[i], vi * gi * wi * curvature)
