"""Cross entropy of a part of the classes: what a rank computes of its own shard of the logits.

::

    statistics(x, part) -> max, rest, loss, mass, mean     of each row of the shard
    gradient(...)                                          from those of the whole rows

by a kernel (``Kernels``) or in torch's ops (``Composed``), which answers where no kernel does. The
target's own class is in neither: it belongs to one rank, which adds its term from a few numbers for
each row (``distributed.py``). What a row is described by stands in ``csrc/formulas/softmax.h``; max
is -inf where the shard holds nothing else, and inf where a logit is inf or NaN.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._compositions import NONE, capped, class_dim, compute_dtype
from ._family import Family
from ._private import below_autograd

IGNORED = -100


class Options(NamedTuple):
    """The arguments of the loss, ``reduction`` as torch's number."""

    ignore_index: int
    reduction: int
    label_smoothing: float
    inplace_backward: bool
    z_loss: float
    softcap: float | None
    normalizer: float | Tensor | None
    return_lse: bool
    return_entropy: bool


class Rows(NamedTuple):
    """What there is for each row, on every rank."""

    loss: Tensor  # without z_loss
    lse: Tensor
    entropy: Tensor | None
    weight: Tensor  # of the target; 0 where it is ignored


class Part(NamedTuple):
    """The target of a shard, in which every class has the coefficient a_j.

    With probabilities ``a_j = w_j ((1 - s) q_j + s / C)``, for C classes of the shard and
    ``label_smoothing`` s; with indices ``a_j = w_j s / C``, and s is 0 or 1.
    """

    target: Tensor  # probabilities; or indices, of which it counts only whether they are IGNORED
    weight: Tensor | None
    label_smoothing: float
    softcap: float  # 0: none
    with_entropy: bool

    @property
    def spread(self) -> bool:
        """Whether any a_j is not 0."""
        return self.label_smoothing > 0 or self.target.is_floating_point()


class Statistics(NamedTuple):
    """Numbers for each row, as vectors; the last three are None where nobody needs them."""

    max: Tensor
    rest: Tensor  # sum_j exp(z_j) = exp(max) (1 + rest)
    loss: Tensor | None  # sum_j a_j (lse - z_j)
    mass: Tensor | None  # sum_j a_j
    mean: Tensor | None  # of z - max, under the softmax


def part_of(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    classes: Tensor,
    smoothing: float,
    softcap: float,
    with_entropy: bool,
) -> Part:
    """The coefficients of this rank's classes, over which smoothing is spread with all others."""
    dtype = compute_dtype(x.dtype)
    own = x.shape[class_dim(x)]
    share: float = smoothing
    scale: Any = None
    if not target.is_floating_point():
        if not smoothing:
            weight = None  # it counts for the target's class only
        else:
            share, scale = 1.0, smoothing * own / classes.to(dtype)
    elif smoothing and own:
        # (1 - share) scale is 1 - smoothing, and share scale / own is smoothing / classes.
        scale = smoothing * own / int(classes) + 1 - smoothing
        share = 1 - (1 - smoothing) / scale
    if scale is not None:
        weight = (x.new_ones(own, dtype=dtype) if weight is None else weight.to(dtype)) * scale
    return Part(target, weight, share, softcap, with_entropy)


class Targets:
    """Class indices among the classes of all ranks, seen from one of them; vectors of rows."""

    def __init__(
        self, x: Tensor, target: Tensor, ignore_index: int, classes: Tensor, first: Tensor
    ) -> None:
        dim = class_dim(x)
        self._dim, self._shape = dim, target.shape
        target = target.long().flatten()
        asked = target != ignore_index
        is_class = (target >= 0) & (target < classes)
        self.used, self.bad = asked & is_class, asked & ~is_class
        local = target - first
        self.owned = self.used & (local >= 0) & (local < x.shape[dim])
        self.index = torch.where(self.owned, local, 0)

    def _indices(self) -> Tensor:
        return self.index.view(self._shape).unsqueeze(self._dim)

    def of_logits(self, x: Tensor) -> Tensor:
        """The logits of this rank's targets; anything for rows that are another's."""
        if not x.shape[self._dim]:
            return x.new_zeros(len(self.index))
        return x.gather(self._dim, self._indices()).flatten()

    def of_classes(self, weight: Tensor) -> Tensor:
        """The weights of this rank's targets; anything for rows that are another's."""
        return weight[self.index] if len(weight) else weight.new_zeros(len(self.index))

    def overwrite(self, t: Tensor, values: Tensor) -> None:
        """Writes over the elements of this rank's targets in something like the logits."""
        values = torch.where(self.owned, values.to(t.dtype), self.of_logits(t))
        t.scatter_(self._dim, self._indices(), values.view(self._shape).unsqueeze(self._dim))

    def for_kernels(self) -> Tensor:
        """Which rows are ignored; the others have some class."""
        return torch.where(self.used, 0, IGNORED).view(self._shape)


def nothing(x: Tensor) -> Statistics:
    """Of a shard without elements."""
    rows = math.prod(size for d, size in enumerate(x.shape) if d != class_dim(x))
    zeros = x.new_zeros(rows, dtype=compute_dtype(x.dtype))
    return Statistics(zeros - torch.inf, zeros - 1, zeros, zeros, zeros)


def slope_of_cap(x: Tensor, softcap: float) -> Tensor:
    """Of ``softcap tanh(x / softcap)``, without the cancellation of ``1 - tanh^2``."""
    e = torch.exp(x.abs() * (-2 / softcap))
    return 4 * e / (1 + e).square()


def target_gradient(
    own: Tensor,
    others: Tensor,
    grad_entropy: Tensor | None,
    rest: Tensor,
    mean: Tensor,
    from_top: Tensor,
) -> Tensor:
    """What the gradient is at the target, where p - 1 would cancel; the uniform part left out."""
    log_p = from_top - rest.log1p()
    p = log_p.exp()
    if grad_entropy is not None:
        others = others - torch.where(p == 0, 0.0, grad_entropy * (from_top - mean))
    return p * others + own * torch.expm1(log_p)


class Kernels:
    """By the kernels of cross entropy."""

    def __init__(self, cross_entropy: Family, tanh: Family, in_double: bool) -> None:
        self._family, self._tanh = cross_entropy, tanh
        self._in_double = in_double  # whether they compute the cap in float64

    def capped(self, x: Tensor, softcap: float) -> Tensor:
        """As the kernels do it, to the bit."""
        if softcap == 0:
            return x
        scaled = x.double() / softcap if self._in_double else x * (1 / softcap)
        with below_autograd():
            y: Tensor = self._tanh.forward(scaled)
        return (softcap * y).to(x.dtype)

    def _target(self, x: Tensor, part: Part) -> Tensor:
        """Indices for the kernels: of a finite logit, where their term is 0 times it."""
        if not part.label_smoothing or part.target.is_floating_point():
            return part.target
        dim = class_dim(x)
        if not bool((x.select(dim, 0) == -torch.inf).any()):
            return part.target
        return torch.where(part.target == IGNORED, IGNORED, x.argmax(dim))

    def statistics(self, x: Tensor, part: Part) -> Statistics:
        with below_autograd():
            loss, _, _, stats, _ = self._family.forward(
                x, self._target(x, part), part.weight, NONE, IGNORED, part.label_smoothing, 0.0,
                part.softcap, True, False, part.with_entropy,
            )  # fmt: skip
        top, rest, *others = stats
        # The kernels' max of a row without a softmax is NaN, and rest -1 if it was all -inf.
        empty = rest == -1
        top = torch.where(top.isnan(), torch.where(empty, -torch.inf, torch.inf), top)
        mass = others.pop(0) if part.spread else None
        if mass is not None:
            loss = torch.where(empty, torch.where(mass > 0, torch.inf, 0.0), loss.flatten())
        return Statistics(top, rest, loss if part.spread else None, mass, *others or [None])

    def gradient(
        self,
        grad_loss: Tensor | None,
        grad_lse: Tensor,
        grad_entropy: Tensor | None,
        x: Tensor,
        part: Part,
        whole: Statistics,
        overwrite: bool,
    ) -> Tensor:
        """``p (grad_lse - grad_entropy (z - max - mean)) - grad_loss a``, by x."""
        planes = [whole.max, whole.rest]
        if part.spread:
            planes.append(torch.zeros_like(whole.max))  # grad_lse has it all
        if grad_entropy is not None and whole.mean is not None:
            planes.append(whole.mean)
        grads = (grad_loss if part.spread else None, grad_lse, grad_entropy)
        args = (
            *grads, x, part.target, part.weight, torch.stack(planes), whole.max.new_ones([]), NONE,
            IGNORED, part.label_smoothing, 0.0, part.softcap, True, True, grad_entropy is not None,
        )  # fmt: skip
        with below_autograd():
            if overwrite:
                self._family.others["_backward_"](*args)
                return x
            grad: Tensor = self._family.backward(*args)
        return grad


class Composed:
    """In torch's ops."""

    capped = staticmethod(capped)

    @staticmethod
    def _rows(x: Tensor) -> Tensor:
        """The logits or the like as (rows, classes), in the dtype that is calculated in."""
        x = x.to(compute_dtype(x.dtype))
        return x.movedim(1, -1).flatten(0, -2) if x.dim() > 1 else x.unsqueeze(0)

    def _coefficients(self, z: Tensor, part: Part) -> Tensor:
        share = part.label_smoothing
        a = torch.full_like(z, share / max(z.shape[1], 1))
        if part.target.is_floating_point():
            a = a + (1 - share) * self._rows(part.target)
        return a if part.weight is None else a * part.weight.to(z.dtype)

    def _logits(self, x: Tensor, part: Part) -> Tensor:
        z = capped(self._rows(x), part.softcap)
        if part.target.is_floating_point():
            return z
        return z.masked_fill((part.target == IGNORED).reshape(-1, 1), 0.0)

    def statistics(self, x: Tensor, part: Part) -> Statistics:
        z = self._logits(x, part)
        top = z.amax(1)
        top = torch.where(top.isnan(), torch.inf, top)
        empty = (top == -torch.inf).unsqueeze(1)
        centred = z - top.unsqueeze(1).masked_fill(empty, 0.0)
        is_top = z == top.unsqueeze(1)
        e = centred.exp()
        rest = e.masked_fill(is_top, 0.0).sum(1) + (is_top & ~empty).sum(1) - 1
        loss = mass = mean = None
        if part.spread:
            a = self._coefficients(z, part)
            mass = a.sum(1)
            log_sum = torch.where(empty, 0.0, rest.log1p().unsqueeze(1))
            loss = torch.where(a == 0, 0.0, a * (log_sum - centred)).sum(1)
        if part.with_entropy:
            moments = torch.where(e == 0, 0.0, e * centred).sum(1)
            mean = moments / (1 + rest)
        return Statistics(top, rest, loss, mass, mean)

    def gradient(
        self,
        grad_loss: Tensor | None,
        grad_lse: Tensor,
        grad_entropy: Tensor | None,
        x: Tensor,
        part: Part,
        whole: Statistics,
        overwrite: bool,
    ) -> Tensor:
        """The same as the kernels'."""
        z = self._logits(x, part)
        centred = z - whole.max.unsqueeze(1)
        p = centred.exp() / (1 + whole.rest).unsqueeze(1)
        grad = p * grad_lse.unsqueeze(1)
        if grad_entropy is not None and whole.mean is not None:
            moved = grad_entropy.unsqueeze(1) * p * (centred - whole.mean.unsqueeze(1))
            grad = grad - torch.where(p == 0, 0.0, moved)
        if part.spread and grad_loss is not None:
            grad = grad - grad_loss.unsqueeze(1) * self._coefficients(z, part)
        if part.softcap:
            grad = grad * slope_of_cap(self._rows(x), part.softcap)
        if not part.target.is_floating_point():
            grad = grad.masked_fill((part.target == IGNORED).reshape(-1, 1), 0.0)
        dim = class_dim(x)
        sizes = [size for d, size in enumerate(x.shape) if d != dim]
        grad = grad.unflatten(0, sizes).movedim(-1, dim) if sizes else grad.squeeze(0)
        return x.copy_(grad) if overwrite else grad.to(x.dtype)
