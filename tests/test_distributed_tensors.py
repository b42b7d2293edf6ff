"""DTensors through the ops and the loss; DDP, FSDP2 and tensor parallel training."""

import pytest
import support
import torch
import torch.distributed as dist
from losses import make, probabilities, targets, weights
from ranks import WORLD, Cases, group
from torch import nn
from torch.distributed import _functional_collectives
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

import fastact
from fastact import functional as F
from fastact.distributed import cross_entropy

cases = Cases(__name__)

# By the dimensions of the mesh.
PLACEMENTS = {
    (4,): ((Shard(0),), (Shard(1),), (Replicate(),)),
    (2, 2): ((Shard(0), Shard(1)), (Shard(1), Shard(1)), (Replicate(), Shard(0))),
}


def sharded(t, mesh, placements):
    # Every rank has all of it, so that nothing needs to be sent.
    parts = distribute_tensor(t.detach(), mesh, placements, src_data_rank=None)
    return parts.requires_grad_(t.requires_grad)


def derivatives(function, *inputs):
    """The output, the gradients, and the gradients of these."""
    y = function(*inputs)
    grads = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
    seconds = torch.autograd.grad(sum(g.square().sum() for g in grads), inputs)
    return [t.full_tensor() if isinstance(t, DTensor) else t for t in (y, *grads, *seconds)]


def compare(function, mesh, placements, *inputs):
    theirs = derivatives(function, *inputs)
    ours = derivatives(function, *(sharded(t, mesh, placements) for t in inputs))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@cases.add(shape=PLACEMENTS)
def every_op_as_on_plain_tensors(shape):
    """Uneven shards among them; value, gradient and second gradient."""
    mesh = init_device_mesh("cpu", shape)
    for placements in PLACEMENTS[shape]:
        for case in (*support.UNARY, *support.GATED):
            inputs = [make(6, 10, dtype=torch.float64, seed=i) for i in range(case.tensors)]
            compare(case.function, mesh, placements, *(t.requires_grad_() for t in inputs))


@cases.add()
def nothing_is_communicated_along_shards():
    mesh = init_device_mesh("cpu", (4,))
    for placement in (Shard(0), Shard(1)):
        x = sharded(make(8, 16).requires_grad_(), mesh, [placement])
        with CommDebugMode() as comm:
            y = F.silu_mul(F.gelu(x), F.leaky_relu(x, 0.3))
            if placement == Shard(0):
                y = F.softmax(F.swiglu(y), 1)
            assert y.placements == (placement,)
            (grad,) = torch.autograd.grad(y, x, y)
            assert grad.placements == (placement,)
        assert comm.get_total_counts() == 0


@cases.add()
def partial_sums_are_added_up_first():
    """The activation of a sum is not the sum of activations; parameters are those of each call."""
    mesh = init_device_mesh("cpu", (4,))
    parts = [make(8, 12, seed=i) for i in range(WORLD)]
    total = sum(parts)
    x = DTensor.from_local(parts[dist.get_rank()], mesh, [Partial()])
    y = distribute_tensor(total, mesh, [Shard(1)])
    for ours, theirs in (
        (F.gelu(x), F.gelu(total)),
        (F.leaky_relu(x, 0.1), F.leaky_relu(total, 0.1)),
        (F.leaky_relu(x, 0.5), F.leaky_relu(total, 0.5)),
        (F.silu_mul(x, y), F.silu_mul(total, total)),
        (F.swiglu(x), F.swiglu(total)),
        (F.softmax(x, 1), F.softmax(total, 1)),
    ):
        assert not any(p.is_partial() for p in ours.placements)
        torch.testing.assert_close(ours.full_tensor(), theirs)
    # And a partial gradient, which comes from a weight that is sharded along its input.
    leaf = sharded(total.requires_grad_(), mesh, [Replicate()])
    weight = make(12, 8)
    z = F.silu(leaf) @ distribute_tensor(weight, mesh, [Shard(1)])
    (grad,) = torch.autograd.grad(z.square().sum(), leaf)
    (expected,) = torch.autograd.grad((F.silu(total) @ weight).square().sum(), total)
    torch.testing.assert_close(grad.full_tensor(), expected)


@cases.add()
def halves_of_a_sharded_dimension():
    """No rank has a gate and its up: the dimension is made whole."""
    mesh = init_device_mesh("cpu", (4,))
    x = make(6, 24, dtype=torch.float64).requires_grad_()
    for dim in (0, 1):
        for function in (F.swiglu, lambda t: F.glu(t, 0), lambda t: F.softmax(t, 1)):
            compare(function, mesh, [Shard(dim)], x)


@cases.add()
def results_that_are_still_on_their_way():
    x = make(8, 12)
    for function in (F.gelu, F.swiglu, lambda t: F.silu_mul(t, t), lambda t: F.softmax(t, 1)):
        arriving = _functional_collectives.all_reduce(x / WORLD, "sum", dist.group.WORLD)
        assert type(arriving) is _functional_collectives.AsyncCollectiveTensor
        torch.testing.assert_close(function(arriving), function(x))


@cases.add()
def in_place():
    mesh = init_device_mesh("cpu", (4,))
    x = make(8, 12)
    for placement in (Shard(0), Replicate()):
        t = distribute_tensor(x.clone(), mesh, [placement])
        assert F.silu(t, inplace=True) is t
        torch.testing.assert_close(t.full_tensor(), F.silu(x))


@cases.add()
def compiled_graphs():
    """Torch's ops, which it fuses; and no others."""
    mesh = init_device_mesh("cpu", (4,))
    x = make(8, 16).requires_grad_()
    sharded_x = sharded(x, mesh, [Shard(1)])
    function = torch.compile(
        lambda t: F.silu_mul(F.gelu(t), t), fullgraph=True, backend="aot_eager"
    )
    with fastact.backend("auto"):
        y = function(sharded_x)
        (grad,) = torch.autograd.grad(y.sum(), sharded_x)
        expected = F.silu_mul(F.gelu(x), x)
    torch.testing.assert_close(y.full_tensor(), expected)
    torch.testing.assert_close(grad.full_tensor(), torch.autograd.grad(expected.sum(), x)[0])
    with pytest.raises(Exception, match="in eager code, DTensors"):
        function(sharded_x)


# --------------------------------------------------------------------------------------------------
# The loss

LOGITS = {
    (4,): ((Shard(1),), (Shard(0),), (Replicate(),), (Partial(),)),
    (2, 2): ((Shard(0), Shard(1)), (Shard(1), Shard(0)), (Replicate(), Shard(1))),
}
OPTIONS = {
    "plain": {},
    "none": {"reduction": "none", "return_entropy": True},
    "all": {"label_smoothing": 0.2, "z_loss": 0.1, "softcap": 4.0, "return_lse": True},
    "normalizer": {"normalizer": 3.0},
}


def loss_and_gradient(function, x, *args, **options):
    outputs = function(x, *args, **options)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    sum(t.sum() for t in outputs).backward()
    return [t.full_tensor() if isinstance(t, DTensor) else t for t in (*outputs, x.grad)]


@cases.add(shape=LOGITS, options=OPTIONS)
def loss_of_dtensors(shape, options):
    """Sharded by class, by row, both, or not; uneven; with targets of either kind, whole or not."""
    mesh = init_device_mesh("cpu", shape)
    x, w = make(7, 30), weights(30)
    for placements in LOGITS[shape]:
        for target in (targets(x), probabilities(x)):
            if Partial() in placements:
                part = DTensor.from_local(x / WORLD, mesh, placements)
                given = part.requires_grad_()
            else:
                given = sharded(x.clone().requires_grad_(), mesh, placements)
            found = loss_and_gradient(cross_entropy, given, target, w, **OPTIONS[options])
            leaf = x.clone().requires_grad_()
            expected = loss_and_gradient(F.cross_entropy, leaf, target, w, **OPTIONS[options])
            for a, b in zip(found, expected, strict=True):
                torch.testing.assert_close(a, b)
            both = distribute_tensor(target, mesh, [Replicate()] * mesh.ndim)
            again = cross_entropy(given, both, w, **OPTIONS[options])
            again = again[0] if isinstance(again, tuple) else again
            torch.testing.assert_close(again.full_tensor(), expected[0])


@cases.add()
def sums_over_the_batch_are_rounded_once():
    """And not each rank's, before they are added up."""
    mesh = init_device_mesh("cpu", (4,))
    for seed in range(10):
        x = make(32, 32, dtype=torch.bfloat16, scale=2.0, seed=seed)
        t = targets(x, seed=seed)
        for reduction in ("sum", "mean"):
            loss = cross_entropy(sharded(x, mesh, [Shard(0)]), t, reduction=reduction)
            assert loss.full_tensor() == F.cross_entropy(x, t, reduction=reduction)


@cases.add()
def plain_normalizers_get_plain_gradients():
    mesh, x = init_device_mesh("cpu", (4,)), make(8, 12)
    grads = []
    for logits, function in ((sharded(x, mesh, [Shard(0)]), cross_entropy), (x, F.cross_entropy)):
        normalizer = torch.tensor(3.0, requires_grad=True)
        function(logits, targets(x), normalizer=normalizer).backward()
        assert type(normalizer.grad) is torch.Tensor
        grads.append(normalizer.grad)
    torch.testing.assert_close(*grads)


@cases.add()
def all_ranks_refuse_the_same():
    """What is wrong with the whole is said of the whole, before anybody waits for another."""
    mesh, x = init_device_mesh("cpu", (4,)), make(8, 12)
    for placement in (Shard(0), Shard(1)):
        logits = sharded(x, mesh, [placement])
        with pytest.raises(ValueError, match=r"input batch_size \(8\).*target batch_size \(7\)"):
            cross_entropy(logits, torch.zeros(7, dtype=torch.int64))
        with pytest.raises(RuntimeError, match=r"all 12 classes.*shape: \[11\]"):
            cross_entropy(logits, targets(x), torch.ones(11))
        with pytest.raises(TypeError, match="'target' must be Tensor, not int"):
            cross_entropy(logits, 3)
        target = torch.zeros(8, dtype=torch.int64)
        target[5] = 12
        with pytest.raises(
            IndexError, match=r"Target 12 is out of bounds: target\[5\].* 12 classes"
        ):
            cross_entropy(logits, target)


@cases.add()
def softmax_of_a_number():
    x = sharded(torch.tensor(2.0), init_device_mesh("cpu", (4,)), [Replicate()])
    assert F.softmax(x, 0).full_tensor() == 1


@cases.add()
def what_the_loss_refuses():
    mesh = init_device_mesh("cpu", (2, 2))
    x = distribute_tensor(make(4, 8), mesh, [Shard(1), Shard(1)])
    with pytest.raises(NotImplementedError, match="several dimensions of its mesh"):
        cross_entropy(x, torch.zeros(4, dtype=torch.int64))
    x = distribute_tensor(make(4, 8), mesh, [Shard(0), Shard(1)])
    with pytest.raises(ValueError, match="'group' must be None"):
        cross_entropy(x, torch.zeros(4, dtype=torch.int64), group=dist.group.WORLD)
    with pytest.raises(NotImplementedError, match=r"fastact\.distributed\.cross_entropy"):
        F.cross_entropy(x, torch.zeros(4, dtype=torch.int64))
    with fastact.backend("auto"):  # torch's own
        z = make(4, 8)
        t = targets(z, ignored=False)  # torch takes the mean of the shards' means
        y, u = (distribute_tensor(v, mesh, [Shard(0), Replicate()]) for v in (z, t))
        torch.testing.assert_close(F.cross_entropy(y, u).full_tensor(), F.cross_entropy(z, t))


# --------------------------------------------------------------------------------------------------
# Training


class Mlp(nn.Module):
    def __init__(self, width=8, hidden=16):
        super().__init__()
        self.gate, self.up = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.act = fastact.nn.GELU()

    def forward(self, x):
        return x + self.act(self.down(F.silu_mul(self.gate(x), self.up(x))))


def network(classes=12):
    torch.manual_seed(5)
    return nn.Sequential(Mlp(), Mlp(), nn.Linear(8, classes))


def train(net, batches, loss):
    """Three steps; every parameter, whole."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    for x, t in batches:
        optimizer.zero_grad()
        loss(net(x), t).backward()
        optimizer.step()
    return {
        name.removeprefix("module."): p.full_tensor() if isinstance(p, DTensor) else p.detach()
        for name, p in net.named_parameters()
    }


BATCHES = [(make(8, 8, seed=i), targets(make(8, 12), False, seed=i)) for i in range(3)]


def assert_same_parameters(found, expected):
    assert found.keys() == expected.keys()
    for name, p in expected.items():
        torch.testing.assert_close(found[name], p, rtol=1e-5, atol=1e-6)


@cases.add(kind=("ddp", "fsdp2"))
def data_parallel_training(kind):
    """Two ranks with half of each batch: the parameters of one process with all of it."""
    two = group(2)
    if two is None:
        return
    rank, net = dist.get_rank(two), network()
    if kind == "ddp":
        net = DistributedDataParallel(net, process_group=two)
    else:
        mesh = DeviceMesh.from_group(two, "cpu")
        for layer in net:
            fully_shard(layer, mesh=mesh)
        fully_shard(net, mesh=mesh)
    halves = [(x.chunk(2)[rank], t.chunk(2)[rank]) for x, t in BATCHES]
    found = train(net, halves, F.cross_entropy)
    assert_same_parameters(found, train(network(), BATCHES, F.cross_entropy))


@cases.add()
def tensor_parallel_training():
    """The hidden layer and the vocabulary are sharded; nothing is gathered for the loss."""
    mesh = init_device_mesh("cpu", (4,))
    plan = {}
    for layer in ("0", "1"):
        plan |= {
            f"{layer}.gate": ColwiseParallel(use_local_output=False),
            f"{layer}.up": ColwiseParallel(use_local_output=False),
            f"{layer}.down": RowwiseParallel(),
        }
    plan["2"] = ColwiseParallel(use_local_output=False)
    net = parallelize_module(network(), mesh, plan)
    found = train(net, BATCHES, cross_entropy)
    assert_same_parameters(found, train(network(), BATCHES, F.cross_entropy))
    # The same with the local part of the logits.
    plan["2"] = ColwiseParallel()
    net = parallelize_module(network(), mesh, plan)
    found = train(net, BATCHES, lambda x, t: cross_entropy(x, t, group=mesh.get_group()))
    assert_same_parameters(found, train(network(), BATCHES, F.cross_entropy))


test_on_every_rank = cases.test()
