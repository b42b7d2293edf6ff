"""How the ops that keep a shape are sharded, told to torch.distributed.tensor.

Nothing here is imported or registered before a DTensor exists: ``is_dtensor`` looks for the module
that its class comes from, and registers the rules with the first one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from ._family import Family
from ._library import NAMESPACES, families
from ._pointwise import PointwiseFamily

SOFTMAX = ("softmax", "log_softmax")


def is_dtensor(x: object) -> bool:
    """Whether x is a DTensor that the ops know how to shard; compilers are not asked about any."""
    if torch.compiler.is_compiling():
        return False
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor) and registered()


def is_arriving(x: object) -> bool:
    """Whether x is what a collective returns before it has ended; the dispatcher waits for it."""
    # A private class, without which such a tensor is one that no kernel serves.
    module = sys.modules.get("torch.distributed._functional_collectives")
    return module is not None and isinstance(x, getattr(module, "AsyncCollectiveTensor", ()))


def has_rules(family: Family) -> bool:
    """Whether the ops of a family take DTensors."""
    return isinstance(family, PointwiseFamily) or family.name in SOFTMAX


def _rule(overload: Any) -> Callable[..., list[tuple[list[Any], list[Any]]]]:
    """Every operand and result is sharded alike, but not along a dimension that is worked along.

    Partial sums are not among the placements: these ops are not linear, so DTensor adds them up.
    """
    from torch.distributed.tensor import Replicate, Shard

    arguments = overload._schema.arguments
    is_tensor = [isinstance(a.type, torch.TensorType) for a in arguments]
    results = len(overload._schema.returns)
    dim_at = next((i for i, a in enumerate(arguments) if a.name == "dim"), None)

    def rule(*args: Any) -> list[tuple[list[Any], list[Any]]]:
        rank = args[0].ndim
        whole = None if dim_at is None else args[dim_at] % max(rank, 1)
        placements = [Replicate(), *(Shard(d) for d in range(rank) if d != whole)]
        return [([p] * results, [p if t else None for t in is_tensor]) for p in placements]

    return rule


@cache
def registered() -> bool:
    """Registers the rules; False where this torch has no way to."""
    try:
        from torch.distributed.tensor.experimental import register_sharding
    except ImportError:  # it is experimental: DTensors then go to torch's own ops
        return False
    for namespace in NAMESPACES.values():
        for family in families(namespace).values():
            if has_rules(family):
                for overload in (family.forward, family.backward, family.double_backward):
                    register_sharding(overload)(_rule(overload))
    return True
