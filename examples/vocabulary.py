"""Trains a head whose vocabulary is sharded over the ranks; no rank ever has all of the logits.

python examples/vocabulary.py
torchrun --standalone --nproc-per-node 2 examples/vocabulary.py
"""

from __future__ import annotations

import argparse
import os

import torch
import torch.distributed as dist

# Imported later, by an optimizer for instance, its functions' defaults keep the group alive to the
# end of the process, where gloo's threads may abort it (torch 2.13).
import torch.distributed.nn.functional

import fastact.distributed

ROWS, WIDTH, STEPS = 256, 32, 20


def shard(vocabulary: int) -> slice:
    """The classes of this rank; the last rank may have fewer."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    size = -(-vocabulary // ranks)
    return slice(rank * size, min((rank + 1) * size, vocabulary))


def train(vocabulary: int) -> list[float]:
    """The losses of a few steps of gradient descent, which are the same on every rank."""
    torch.manual_seed(0)  # every rank draws the same, and keeps its part of the head
    hidden = torch.randn(ROWS, WIDTH)
    target = torch.randint(vocabulary, (ROWS,))
    head = torch.randn(vocabulary, WIDTH)[shard(vocabulary)].mul(0.1).requires_grad_()
    optimizer = torch.optim.SGD([head], lr=5.0)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        logits = hidden @ head.t()  # (ROWS, the classes of this rank)
        loss = fastact.distributed.cross_entropy(logits, target)
        loss.backward()  # the gradient of this rank's classes; nothing is communicated
        optimizer.step()
        losses.append(loss.item())
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=1001, help="default: %(default)s")
    vocabulary = parser.parse_args().vocabulary
    if "RANK" in os.environ:  # set by torchrun
        dist.init_process_group("gloo")
    else:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    losses = train(vocabulary)
    if dist.get_rank() == 0:
        print(f"{dist.get_world_size()} processes: loss {losses[0]:.4f} -> {losses[-1]:.4f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
