"""A replaced model where other parts of torch take it over: torch.export, DDP and FSDP2."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from collections import Counter

import pytest
import torch
import torch.distributed as dist
from ranks import Cases
from support import Ops
from torch.ao.quantization import fuse_modules
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.jit.frontend import NotSupportedError
from torch.nn.parallel import DistributedDataParallel
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


def exported(net, x):
    """For any number of rows, of the backend that is in force."""
    rows = torch.export.Dim("rows", min=2)
    return torch.export.export(
        net,
        (),
        {"input_ids": x, "labels": x, "use_cache": False},
        dynamic_shapes={"input_ids": {0: rows}, "labels": {0: rows}, "use_cache": None},
    )


def assert_like_torch(loaded):
    theirs = llama().eval()
    for batch in (tokens(4, 0), tokens(3, 1)):
        want = theirs(input_ids=batch, labels=batch, use_cache=False)
        got = loaded(input_ids=batch, labels=batch, use_cache=False)
        torch.testing.assert_close(got["loss"], want.loss)
        torch.testing.assert_close(got["logits"], want.logits)


@pytest.mark.parametrize("name", ["auto", "compiled"])
def test_export(name, tmp_path):
    with fastact.backend(name):
        program = exported(replaced(llama()).eval(), tokens(4, 0))
    graphs = [m for m in program.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
    found = Counter(
        str(node.target).partition(".")[2]
        for graph in graphs  # the loss has one of its own: autocast is on in it
        for node in graph.graph.nodes
        if str(node.target).startswith("fastact")
    )
    assert found == (
        {"silu_mul.default": 2, "cross_entropy.default": 1} if name == "compiled" else {}
    )
    torch.export.save(program, tmp_path / "llama.pt2")
    assert_like_torch(torch.export.load(tmp_path / "llama.pt2").module())


@pytest.mark.parametrize("name", ["auto", "compiled"])
def test_ahead_of_time_inductor(name, tmp_path):
    with fastact.backend(name), torch.no_grad():
        program = exported(replaced(llama()).eval(), tokens(4, 0))
        path = torch._inductor.aoti_compile_and_package(
            program, package_path=str(tmp_path / "llama.pt2")
        )
    assert_like_torch(torch._inductor.aoti_load_package(path))


# --------------------------------------------------------------------------------------------------
# What docs/models.md says does not work, and what to do


def by_exact_type(net):
    assert type(net[2]) is torch.nn.ReLU


@pytest.mark.parametrize(
    ("use", "error"),
    [
        (torch.jit.script, (NotSupportedError, RuntimeError)),
        (lambda net: fuse_modules(net, [["0", "1", "2"]]), AssertionError),
        (by_exact_type, AssertionError),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_works_after_restore_only(use, error):
    conv = torch.nn.Conv2d(3, 4, 1)
    net = torch.nn.Sequential(conv, torch.nn.BatchNorm2d(4), torch.nn.ReLU()).eval()
    fastact.replace(net)
    with pytest.raises(error):
        use(net)
    assert isinstance(net[2], torch.nn.ReLU)
    fastact.restore(net)
    use(net)


def test_patched_leaves_functions_in_place_to_torch():
    names = ("relu_", "elu_", "celu_", "selu_", "leaky_relu_")
    theirs = [getattr(torch.nn.functional, name) for name in names]
    with fastact.patched():
        assert [getattr(torch.nn.functional, name) for name in names] == theirs
        with Ops() as seen:
            torch.nn.functional.relu(torch.randn(8), inplace=True)
    assert seen.ours == {"relu_": 1}


# --------------------------------------------------------------------------------------------------
# Data parallel


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
    with Ops() as seen:
        losses, parameters = train(net, lambda x: x.chunk(WORLD)[dist.get_rank()])
    dist.all_reduce(losses)
    want_losses, want = train(llama(), lambda x: x)
    torch.testing.assert_close(losses / WORLD, want_losses, rtol=1e-5, atol=1e-6)
    assert parameters.keys() == want.keys()
    for name, p in want.items():
        torch.testing.assert_close(parameters[name], p, rtol=1e-4, atol=1e-5)
    assert {"silu_mul", "silu_mul_backward", "cross_entropy"} <= set(seen.ours), seen.ours


@cases.add()
def restore_leaves_what_fsdp2_has_changed():
    net = replaced(llama())
    mesh = init_device_mesh("cpu", (WORLD,))
    fully_shard(net.model.layers[0].mlp, mesh=mesh)
    with pytest.warns(UserWarning, match=r"model\.layers\.0\.mlp.*FSDPLlamaMLP; it is left"):
        assert fastact.restore(net) == 4
    # After it, the class is another one.
    net = llama()
    fully_shard(net.model.layers[0].mlp, mesh=mesh)
    report = fastact.replace(net)
    assert [(left.name, left.was) for left in report.left] == [
        ("model.layers.0.mlp", "FSDPLlamaMLP")
    ]


test_on_every_rank = cases.test()
