"""A replaced model where other parts of torch take it over: torch.export, DDP and FSDP2."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from collections import Counter

import pytest
import torch
import torch.distributed as dist
from ranks import Cases
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

import fastact

WORLD, STEPS = 2, 3
cases = Cases(__name__, WORLD)


def llama():
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=97, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16,
        )
    )  # fmt: skip


def replaced(net):
    # Of each of the two layers the MLP and its activation, and the loss.
    assert len(fastact.replace(net).replaced) == 5
    return net


def tokens(rows, seed):
    return torch.randint(97, (rows, 8), generator=torch.Generator().manual_seed(seed))


# --------------------------------------------------------------------------------------------------
# torch.export


@pytest.mark.parametrize("backend", ["auto", "compiled"])
def test_export(backend, tmp_path):
    net, theirs = replaced(llama()).eval(), llama().eval()
    x, rows = tokens(4, 0), torch.export.Dim("rows", min=2)
    with fastact.backend(backend):
        program = torch.export.export(
            net,
            (),
            {"input_ids": x, "labels": x, "use_cache": False},
            dynamic_shapes={"input_ids": {0: rows}, "labels": {0: rows}, "use_cache": None},
        )
    graphs = [m for m in program.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
    found = Counter(
        str(node.target).partition(".")[2]
        for graph in graphs  # the loss has one of its own: autocast is on in it
        for node in graph.graph.nodes
        if str(node.target).startswith("fastact")
    )
    assert found == (
        {"silu_mul.default": 2, "cross_entropy.default": 1} if backend == "compiled" else {}
    )
    torch.export.save(program, tmp_path / "llama.pt2")
    loaded = torch.export.load(tmp_path / "llama.pt2").module()
    for batch in (x, tokens(3, 1)):
        want = theirs(input_ids=batch, labels=batch, use_cache=False)
        got = loaded(input_ids=batch, labels=batch, use_cache=False)
        torch.testing.assert_close(got["loss"], want.loss)
        torch.testing.assert_close(got["logits"], want.logits)


# --------------------------------------------------------------------------------------------------
# Data parallel


class Ours(TorchDispatchMode):
    """Which of our ops run."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace.startswith("fastact"):
            self.names.add(func._schema.name.partition("::")[2])
        return func(*args, **(kwargs or {}))


def train(net, part):
    """A few steps on a part of each batch; losses and every parameter, whole."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    losses = []
    for step in range(STEPS):
        x = part(tokens(4, step))
        optimizer.zero_grad()
        loss = net(input_ids=x, labels=x, use_cache=False).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    parameters = {
        name.removeprefix("module."): p.full_tensor() if isinstance(p, DTensor) else p.detach()
        for name, p in net.named_parameters()
    }
    return torch.stack(losses), parameters


def shard(net):
    mesh = init_device_mesh("cpu", (WORLD,))
    for layer in net.model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(net, mesh=mesh)


WAYS = {
    "ddp": lambda: DistributedDataParallel(replaced(llama())),
    "ddp, replaced after": lambda: replaced(DistributedDataParallel(llama())),
    "fsdp2": lambda: shard(replaced(llama())),
    "fsdp2, replaced after": lambda: replaced(shard(llama())),
}


@cases.add(way=tuple(WAYS))
def as_one_process_with_torch(way):
    """Each rank with its part of a batch gets the parameters of one process with all of it."""
    net = WAYS[way]()
    with Ours() as seen:
        losses, parameters = train(net, lambda x: x.chunk(WORLD)[dist.get_rank()])
    dist.all_reduce(losses)
    want_losses, want = train(llama(), lambda x: x)
    torch.testing.assert_close(losses / WORLD, want_losses, rtol=1e-5, atol=1e-6)
    assert parameters.keys() == want.keys()
    for name, p in want.items():
        torch.testing.assert_close(parameters[name], p, rtol=1e-4, atol=1e-5)
    assert seen.names >= {"silu_mul", "silu_mul_backward", "cross_entropy"}, seen.names


test_on_every_rank = cases.test()
