"""Which rank holds which part of the logits: its classes, and of a DTensor its rows."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard

from ._compositions import class_dim
from ._shards import Rows


class Group:
    """The ranks that share the classes: those of a process group, or this one alone."""

    def __init__(self, group: dist.ProcessGroup | None, alone: bool = False) -> None:
        self._group, self._alone = group, alone

    def reduce(self, t: Tensor, op: Any = dist.ReduceOp.SUM) -> Tensor:
        """All-reduces a tensor in place."""
        if not self._alone:
            dist.all_reduce(t, op, self._group)
        return t

    def classes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """How many all ranks have, and how many those before this one, on x's device."""
        rank, ranks = 0, 1
        if not self._alone:
            rank, ranks = dist.get_rank(self._group), dist.get_world_size(self._group)
        sizes = torch.zeros(ranks, dtype=torch.int64, device=x.device)
        sizes[rank] = x.shape[class_dim(x)]
        self.reduce(sizes)
        return sizes.sum(), sizes[:rank].sum()


def as_dtensor(t: Tensor, mesh: DeviceMesh) -> DTensor:
    """A DTensor; what is none, every rank has whole."""
    if isinstance(t, DTensor):
        return t
    return DTensor.from_local(t, mesh, [Replicate()] * mesh.ndim, run_check=False)


class Layout:
    """How the logits of a DTensor are sharded, and what follows for everything else."""

    def __init__(self, op: str, x: DTensor) -> None:
        dim = class_dim(x)
        self._mesh = x.device_mesh
        # What is neither sharded nor replicated is made whole: of partial sums nothing is known.
        self._logits: list[Placement] = [
            p if type(p) is Shard else Replicate() for p in x.placements
        ]
        by_class = [i for i, p in enumerate(self._logits) if p == Shard(dim)]
        if len(by_class) > 1:
            raise NotImplementedError(
                f"{op}(): argument 'input' is sharded along the classes over several dimensions of "
                f"its mesh: {x.placements}"
            )
        self.group = Group(None, alone=True)
        if by_class:
            self.group = Group(self._mesh.get_group(by_class[0]))
        self._rows: list[Placement] = [
            Replicate()
            if not isinstance(p, Shard) or p.dim == dim
            else Shard(p.dim - (p.dim > dim))
            for p in self._logits
        ]
        self._weight: list[Placement] = [
            Shard(0) if p == Shard(dim) else Replicate() for p in self._logits
        ]
        self._shape = torch.Size(size for d, size in enumerate(x.shape) if d != dim)

    def local(
        self, x: DTensor, target: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """This rank's part of the arguments."""
        x = x.redistribute(placements=self._logits)
        of_target = self._logits if target.shape == x.shape else self._rows
        return (
            x.to_local(grad_placements=self._logits),
            self._part(target, of_target),
            None if weight is None else self._part(weight, self._weight),
        )

    def _part(self, t: Tensor, placements: list[Placement]) -> Tensor:
        return as_dtensor(t, self._mesh).redistribute(placements=placements).to_local()

    def whole(self, rows: Rows) -> Rows:
        """The rows of all ranks."""
        stride = torch.empty(self._shape, device="meta").stride()

        def of_all(t: Tensor) -> Tensor:
            return DTensor.from_local(
                t, self._mesh, self._rows, run_check=False, shape=self._shape, stride=stride
            )

        entropy = None if rows.entropy is None else of_all(rows.entropy)
        return Rows(of_all(rows.loss), of_all(rows.lse), entropy, of_all(rows.weight))
