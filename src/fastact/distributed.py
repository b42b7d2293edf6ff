"""Losses of logits that are sharded by class, and DTensors.

A language model trained in tensor parallel ends in logits of which each rank holds a part of the
vocabulary. :func:`cross_entropy` needs no more of them than that part. In outline, of what
``examples/vocabulary.py`` has in full::

    import fastact.distributed
    torch.distributed.init_process_group()
    logits = hidden @ head_shard.t()            # (N, the classes of this rank)
    loss = fastact.distributed.cross_entropy(logits, target)
    loss.backward()                             # the gradient of this rank's logits

The elementwise and gated functions of ``fastact.functional``, softmax and log_softmax take DTensors
as they are, in eager code by our kernels and under torch.compile by torch's ops.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.distributed.tensor import DTensor, Replicate

from . import _private
from ._backend import STATE
from ._compositions import MEAN, NONE, class_dim, compute_dtype, joint_dtype
from ._loss_checks import (
    check_cross_entropy,
    check_inplace,
    raise_for_target,
    reduction_number,
)
from ._loss_dispatch import answers
from ._ranks import Group, Layout, as_dtensor
from ._shards import (
    Composed,
    Kernels,
    Options,
    Part,
    Rows,
    Statistics,
    Targets,
    nothing,
    part_of,
    slope_of_cap,
    target_gradient,
)

__all__ = ["cross_entropy"]

OP = "distributed.cross_entropy"


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    group: dist.ProcessGroup | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    inplace_backward: bool = False,
    z_loss: float = 0.0,
    softcap: float | None = None,
    normalizer: float | Tensor | None = None,
    return_lse: bool = False,
    return_entropy: bool = False,
) -> Tensor | tuple[Tensor, ...]:
    r"""Cross entropy of logits whose classes are sharded over the ranks of a group.

    The same on every rank, and equal to :func:`fastact.functional.cross_entropy` of the whole
    logits, which exist nowhere: the ranks add up a few numbers for each row, and the backward pass
    communicates nothing. The shards follow each other in the order of the ranks; they may differ in
    size and be empty. Every rank of the group has to call it.

    Shapes: ``input`` (N, c), (N, c, d1, ...) or (c,), with the c classes of this rank; ``target``
    (N,), (N, d1, ...) or (), the same on every rank; or probabilities, sharded like ``input``.

    A DTensor says itself how it is sharded: along the classes over one dimension of its mesh, along
    the batch over others, or not at all. Target and weight are then DTensors too, or whole tensors
    that every rank has; the results are DTensors.

    Args:
        input: logits; float32, float64, bfloat16 or float16.
        target: class indices among the classes of all ranks, int64 or uint8; or probabilities.
        weight: a weight for each class of this rank, (c,), of input's dtype.
        group: the ranks that share the classes; None: all. Not with a DTensor.
        ignore_index: the target of rows that do not count.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        label_smoothing: how much of the target is spread evenly over the classes of all ranks.
        inplace_backward: whether the gradient overwrites the logits, as in the plain function.
        z_loss: adds ``z_loss * lse**2`` to the loss of each row.
        softcap: bounds the logits first, to ``softcap * tanh(input / softcap)``.
        normalizer: by what ``"mean"`` divides, in place of the sum of the weights.
        return_lse: whether to return the log-sum-exp of each row too.
        return_entropy: whether to return the entropy of each row's softmax too.

    Returns:
        As the plain function, but differentiable by ``input`` only once.

    Raises:
        IndexError: a target is neither a class nor ``ignore_index``. Nobody looks where the logits
            are not on the CPU: the row's loss is NaN there, and its gradient 0.
        ValueError: batch sizes differ; there is no such reduction; a number is out of its range;
            ``group`` comes with a DTensor; there is no process group.
        RuntimeError: other shapes or dtypes do not fit; target or weight require a gradient;
            ``inplace_backward`` would overwrite a leaf; a gradient is to be differentiated again.
        NotImplementedError: the classes of a DTensor are sharded over several dimensions of a mesh.
        TypeError: an argument is not a tensor.

    One rank is in the example below; ``torchrun --standalone --nproc-per-node 2
    examples/vocabulary.py`` starts two, each with half of the logits and the same loss.

    Example:
        >>> import torch, fastact.distributed
        >>> store = torch.distributed.HashStore()
        >>> torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        >>> logits = torch.tensor([[1.0, 2.0, 0.5, 3.0]])
        >>> fastact.distributed.cross_entropy(logits, torch.tensor([3]))
        tensor(0.4608)
        >>> torch.distributed.destroy_process_group()

    Source: Shoeybi et al. 2019, arXiv:1909.08053, section 3.
    """
    options = Options(
        ignore_index, reduction_number(OP, reduction), label_smoothing, inplace_backward, z_loss,
        softcap, normalizer, return_lse, return_entropy,
    )  # fmt: skip
    if isinstance(input, DTensor) and group is not None:
        raise ValueError(f"{OP}(): a DTensor has groups of its own; argument 'group' must be None")
    # Of a DTensor the whole is looked at, so that all ranks raise, and say the same.
    probabilities = check_cross_entropy(
        OP, input, target, weight, ignore_index, options.reduction, label_smoothing, z_loss,
        softcap, normalizer,
    )  # fmt: skip
    if not isinstance(input, DTensor):
        rows = _rows(input, target, weight, probabilities, Group(group), options)
    else:
        layout = Layout(OP, input)
        if input.is_cpu and not (probabilities or isinstance(target, DTensor)):
            classes = input.shape[class_dim(input)]
            raise_for_target(OP, classes, target.long(), options.ignore_index)
        local = layout.local(input, target, weight)
        rows = layout.whole(_rows(*local, probabilities, layout.group, options))
    found = _results(joint_dtype(input, target, weight), rows, options)
    return found if len(found) > 1 else found[0]


def _results(dtype: torch.dtype, rows: Rows, options: Options) -> tuple[Tensor, ...]:
    """The loss, and what was asked for beside it."""
    loss, wide = rows.loss, rows.loss.dtype
    if options.z_loss:
        loss = loss + options.z_loss * rows.lse.square()
    normalizer = options.normalizer
    if options.reduction != NONE:
        loss = loss.sum(dtype=torch.float64)
    if isinstance(normalizer, Tensor):
        normalizer = normalizer.reshape(())
        if isinstance(loss, DTensor):
            normalizer = as_dtensor(normalizer, loss.device_mesh)
    if normalizer is not None:
        loss = loss / normalizer
    elif options.reduction == MEAN:
        loss = loss / rows.weight.sum(dtype=torch.float64)
    if options.reduction != NONE and isinstance(loss, DTensor):
        # Before it is rounded.
        loss = loss.redistribute(placements=[Replicate()] * loss.device_mesh.ndim)
    loss = loss.to(wide if _private.autocasts(loss.device) else dtype)
    asked = ((rows.lse, options.return_lse), (rows.entropy, options.return_entropy))
    return (loss, *(t for t, is_asked in asked if is_asked and t is not None))


# --------------------------------------------------------------------------------------------------
# The loss of each row


class Problem(NamedTuple):
    """A loss of sharded logits."""

    group: Group
    kernels: Kernels | Composed
    part: Part
    targets: Targets | None  # None: probabilities
    weight: Tensor | None  # of this rank's classes
    share: float  # of the target's own class
    uniform: Tensor  # of each class
    overwrite: bool


def _rows(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    probabilities: bool,
    group: Group,
    options: Options,
) -> Rows:
    for name, t in (("target", target), ("weight", weight)):
        if t is not None and t.requires_grad:
            raise RuntimeError(f"{OP}(): argument {name!r} cannot require a gradient; detach it")
    overwrite = options.inplace_backward and x.requires_grad and torch.is_grad_enabled()
    if overwrite:
        check_inplace(OP, x)
    classes, first = group.classes(x)
    targets = None
    if probabilities:
        dtype = joint_dtype(x, target, weight)
        x, target = x.to(dtype), target.to(dtype)
        weight = None if weight is None else weight.to(dtype)
    else:
        row_shape = [size for d, size in enumerate(x.shape) if d != class_dim(x)]
        targets = Targets(x, target.reshape(row_shape), options.ignore_index, classes, first)
        if x.is_cpu:
            raise_for_target(OP, int(classes), target.long(), options.ignore_index)
        target = targets.for_kernels()
    kernels: Kernels | Composed = Composed()
    if answers("cross_entropy", False, x, None, (target, weight)):
        choice = STATE.kernels
        families = choice.functions["cross_entropy"].family, choice.functions["tanh"].family
        kernels = Kernels(*families, in_double=choice.source == "numba")
    uniform = options.label_smoothing / classes.to(compute_dtype(x.dtype))
    part = part_of(
        x, target, weight, classes, options.label_smoothing, options.softcap or 0.0,
        options.return_entropy,
    )  # fmt: skip
    problem = Problem(
        group, kernels, part, targets, weight, 1 - options.label_smoothing, uniform, overwrite
    )
    results = _Rows.apply(x, problem)  # type: ignore[no-untyped-call]
    loss, lse, entropy, row_weight = results
    shape = x.select(class_dim(x), 0).shape if x.shape[class_dim(x)] else x.sum(class_dim(x)).shape
    found = [t.view(shape) for t in (loss, lse, row_weight)]
    return Rows(
        found[0], found[1], entropy.view(shape) if options.return_entropy else None, found[2]
    )


class _Rows(Function):
    """The fields of Rows as vectors, differentiable by x.

    Two all-reduces: the maximum, then all that is a sum. The backward pass needs none.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, problem: Problem) -> tuple[Tensor, ...]:
        part, targets = problem.part, problem.targets
        own = problem.kernels.statistics(x, part) if x.numel() else nothing(x)
        top = problem.group.reduce(own.max.clone(), dist.ReduceOp.MAX)
        sums = iter(problem.group.reduce(torch.stack(_sums(x, own, top, problem))))

        # As the kernels: a row of nothing but -inf, or one with inf, has no softmax.
        top = torch.where(top.isfinite(), top, torch.nan)
        rest = next(sums) + (next(sums) - 1)
        log_sum = torch.where(top.isnan(), torch.nan, rest.log1p())
        loss, mass = torch.zeros_like(top), None
        if part.spread:
            loss, mass = next(sums), next(sums)
            loss = loss + mass * log_sum
        mean = next(sums) / (1 + rest) if part.with_entropy else None
        from_top, weight = None, torch.ones_like(top)
        if targets is not None:
            from_top = next(sums) - top
            weight = weight if problem.weight is None else next(sums)
            loss = loss + problem.share * weight * (log_sum - from_top)
        results: list[Any] = [
            loss,
            top + log_sum,
            log_sum - mean if mean is not None else mean,
            weight,
        ]
        if targets is not None:
            results = [r if r is None else torch.where(targets.used, r, 0.0) for r in results]
            results[0] = torch.where(targets.bad, torch.nan, results[0])
        # (Probabilities and weights are the caller's, who may overwrite them.)
        ctx.save_for_backward(x, top, rest, mass, mean, from_top, weight, part.target, part.weight)
        ctx.problem = problem
        ctx.mark_non_differentiable(results[3])
        ctx.set_materialize_grads(False)
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                f"{OP}(): the gradient of sharded logits cannot be differentiated again; leave out "
                "create_graph"
            )
        problem: Problem = ctx.problem
        x, top, rest, mass, mean, from_top, weight, *of_part = ctx.saved_tensors
        part = problem.part._replace(target=of_part[0], weight=of_part[1])
        if not x.numel():
            return torch.zeros_like(x), None
        u, q, h, _ = (torch.zeros_like(top) if grad is None else grad for grad in grads)
        if mean is None:
            h = None
        # The gradient is p (own + others - h (z - max - mean)) - u a, less own at the target.
        own = u * problem.share * weight if problem.targets is not None else torch.zeros_like(u)
        others = q if mass is None else q + u * mass
        whole = Statistics(top, rest, None, None, mean)
        logits, at_target = x.detach(), torch.empty(0)
        if problem.targets is not None:  # first: the logits may be gone afterwards
            at_target = target_gradient(own, others, h, rest, mean, from_top)
            at_target = at_target - u * problem.uniform * weight
            if part.softcap:
                raw = problem.targets.of_logits(logits).to(top.dtype)
                at_target = at_target * slope_of_cap(raw, part.softcap)
        grad = problem.kernels.gradient(u, own + others, h, logits, part, whole, problem.overwrite)
        if problem.targets is not None:
            problem.targets.overwrite(grad, at_target)
        if problem.overwrite:
            # Whoever else has saved the logits is refused them from now on.
            torch.autograd.graph.increment_version(logits)
        return grad, None


def _sums(x: Tensor, own: Statistics, top: Tensor, problem: Problem) -> list[Tensor]:
    """What this rank contributes to the sums over all ranks, given the maximum of all."""
    part, targets = problem.part, problem.targets
    drop, is_top = top - own.max, own.max == top
    total = torch.where(is_top, 1.0, torch.exp(-drop)) * (1 + own.rest)
    # A maximum that several ranks have is the maximum once, and in the rest otherwise.
    sums = [torch.where(is_top, own.rest, total), is_top.to(top.dtype)]
    if part.spread:
        assert own.loss is not None
        assert own.mass is not None
        counted = own.loss + own.mass * (drop - own.rest.log1p())
        sums += [torch.where(own.mass == 0, own.loss, counted), own.mass]
    if part.with_entropy:
        assert own.mean is not None
        sums.append(torch.where(total > 0, total * (own.mean - drop), 0.0))
    if targets is not None:
        logits = problem.kernels.capped(targets.of_logits(x).to(top.dtype), part.softcap)
        sums.append(torch.where(targets.owned, logits, 0.0))
        if problem.weight is not None:
            weights = targets.of_classes(problem.weight).to(top.dtype)
            sums.append(torch.where(targets.owned, weights, 0.0))
    return sums
