"""What Python knows of an op and its derivatives: a family.

A family is three ops, from which autograd, vmap and torch.compile are derived by one text each::

    forward(*tensors, *constants) -> outputs
    backward(*grads, *saved, *constants) -> one gradient for each primal
    double_backward(*v, *grads, *saved, *constants)
        -> (one gradient for each of grads, one for each primal)

``tensors`` are the primals, which are differentiated, and what is not: targets and weights. Of the
outputs the first few are differentiable, each with its gradient in ``grads``. ``saved`` begins with
what the derivatives are taken by: the primals, or the output in their place. ``v`` is the gradient
of the gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor


def nothing(*_args: Any) -> None:
    """The fake kernel of an op that only writes over its operands."""


def no_passive(_constants: tuple[Any, ...]) -> tuple[int, ...]:
    """All outputs are differentiable."""
    return ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Family:
    """One op with its derivatives, in one namespace."""

    name: str
    symbol: str  # of the autograd Function
    schemas: tuple[str, str, str]  # without the names
    fakes: tuple[Callable[..., Any], ...]
    # How each op maps over a batch: (op, info, in_dims, *args) -> (outputs, out_dims)
    batching: tuple[Callable[..., Any], ...]

    primals: int
    tensors: int
    outputs: int = 1  # that are differentiable
    saves: int  # how many tensors are saved, None counted
    saved: Callable[[tuple[Any, ...], tuple[Any, ...]], tuple[Any, ...]]  # of args and outputs
    # The indices of the outputs that are not differentiable, with these constants.
    passive: Callable[[tuple[Any, ...]], tuple[int, ...]] = no_passive
    # Placeholders for the incoming gradients, (saved, constants) -> grads, for forward mode, which
    # uses only those results of double_backward that do not depend on them.
    no_grads: Callable[..., tuple[Any, ...]]
    # What double_backward returns, as differentiable torch code
    composition: Callable[..., Any]
    symmetric: bool = False  # the Jacobian: forward mode is backward
    # Forward mode of backward by what is saved, (tangents, grads, saved, constants) -> gradients,
    # where the Jacobian is not its own transpose, which is what double_backward has.
    backward_tangent: Callable[..., tuple[Tensor, ...]] | None = None
    linear: bool = False  # in the primals: double_backward returns nothing for them
    # Further ops, by what follows the name: schema and fake kernel
    further: dict[str, tuple[str, Callable[..., Any]]] = field(default_factory=dict)

    def asked(self, outputs: tuple[Any, ...], constants: tuple[Any, ...]) -> Any:
        """The differentiable outputs: one tensor, or a tuple of several."""
        passive = self.passive(constants)
        asked = tuple(t for i, t in enumerate(outputs) if i not in passive)
        return asked[0] if len(asked) == 1 else asked

    def all_grads(self, grads: tuple[Any, ...], constants: tuple[Any, ...]) -> tuple[Any, ...]:
        """The gradients of all differentiable outputs, None for those that were not asked for."""
        passive, given = self.passive(constants), iter(grads)
        return tuple(None if i in passive else next(given) for i in range(self.outputs))

    # OpOverloads, once the family is defined.
    forward: Any = None
    backward: Any = None
    double_backward: Any = None
    inplace: Any = None  # that overwrites x
    others: dict[str, Any] = field(default_factory=dict)  # all further ones


AnyFamily = TypeVar("AnyFamily", bound=Family)


def define(family: AnyFamily, library: torch.library.Library) -> AnyFamily:
    """Defines the ops of a family in a library, with their fake kernels."""
    suffixes = ("", "_backward", "_double_backward")
    for suffix, schema, fake in zip(suffixes, family.schemas, family.fakes, strict=True):
        name = family.name + suffix
        library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        library.impl(name, fake, "Meta")
    ops = getattr(torch.ops, library.ns)
    forward, backward, double_backward = (
        getattr(ops, family.name + suffix).default for suffix in suffixes
    )
    others = {}
    for suffix, (schema, fake) in family.further.items():
        library.define(family.name + suffix + schema)
        library.impl(family.name + suffix, fake, "Meta")
        others[suffix] = getattr(ops, family.name + suffix).default
    return replace(
        family,
        forward=forward,
        backward=backward,
        double_backward=double_backward,
        inplace=others.get("_"),
        others=others,
    )


def as_tuple(result: Any) -> tuple[Any, ...]:
    """What an op returned, also where that is one tensor."""
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def leading(t: Tensor, dim: int | None, size: int) -> Tensor:
    """A tensor with its batch dimension first; where it has none, it is expanded."""
    return t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)


def elementwise_batching(dim_at: int | None = None) -> Callable[..., Any]:
    """The rule of ops whose tensors share one shape: batch dimensions go first.

    Args:
        dim_at: where among the arguments a dimension stands, which then moves by one.
    """

    def rule(op: Any, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
        batched = []
        for arg, dim in zip(args, in_dims, strict=True):
            is_tensor = isinstance(arg, Tensor)
            batched.append(leading(arg, dim, info.batch_size) if is_tensor else arg)
        # Elements without dimensions: the one that is meant is added, and taken off again.
        scalars = dim_at is not None and batched[0].dim() == 1
        if scalars:
            batched = [t.unsqueeze(1) if isinstance(t, Tensor) else t for t in batched]
        if dim_at is not None:
            batched[dim_at] += 1
        result = op(*batched)
        if isinstance(result, Tensor):
            return result.squeeze(1) if scalars else result, 0
        results = tuple(t.squeeze(1) for t in result) if scalars else result
        return results, (0,) * len(results)

    return rule
