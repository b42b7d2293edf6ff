"""What torch.compile and torch.export are given: torch's ops in "auto", ours where forced."""

import pytest
import torch
from losses import make, targets

import fastact
from fastact import functional as F

OURS = {"gelu", "leaky_relu", "silu_mul", "silu_glu", "softmax", "log_softmax", "bce_with_logits",
        "cross_entropy"}  # fmt: skip


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def traced(function, **options):
    """A compiled function, and the fastact ops of each graph that was made of it."""
    graphs = []

    def backend(graph, _):
        nodes = (str(n.target) for n in graph.graph.nodes if n.op == "call_function")
        graphs.append({n.split(".")[1] for n in nodes if n.startswith("fastact.")})
        return graph.forward

    return torch.compile(function, fullgraph=True, backend=backend, **options), graphs


class Net(torch.nn.Module):
    """Pointwise, gated and loss ops; in-place ones and parameters among them."""

    def __init__(self, classes=8):
        super().__init__()
        self.linear = torch.nn.Linear(8, 4 * classes)

    def forward(self, x, target):
        hidden = F.leaky_relu(F.gelu(self.linear(x)), 0.2, inplace=True)
        gated = F.silu_mul(*F.swiglu(hidden).chunk(2, -1))
        loss = F.cross_entropy(gated, target, label_smoothing=0.1)
        others = F.softmax(gated, 1), F.log_softmax(gated, 1)
        return loss, *others, F.binary_cross_entropy_with_logits(gated, torch.full_like(gated, 0.3))


def arguments(rows, classes=8):
    return make(rows, 8, seed=rows), targets(make(rows, classes), seed=rows)


def assert_like_eager(compiled, net, rows, classes=8):
    args = arguments(rows, classes)
    for got, want in zip(compiled(*args), net(*args), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("name", ["auto", "compiled", "torch"])
def test_ops_in_the_graph(name):
    net = Net()
    compiled, graphs = traced(net)
    with fastact.backend(name):
        assert_like_eager(compiled, net, 5)
    assert graphs == [OURS if name == "compiled" else set()]


def test_a_large_cross_entropy_stays_ours():
    compiled, graphs = traced(lambda x, t: (F.cross_entropy(x, t), F.softmax(x, 1)))
    with fastact.backend("auto"):
        for shape in ((600, 500), (512, 512), (3, 100_000)):
            torch._dynamo.reset()
            x = make(*shape)
            compiled(x, targets(x))
    assert graphs == [set(), {"cross_entropy"}, {"cross_entropy"}]


@pytest.mark.parametrize("mark", [True, False])
def test_dynamic_shapes(mark):
    """One graph for all sizes; of cross entropy one for large and one for small ones."""
    net = Net()
    compiled, graphs = traced(net, dynamic=None if mark else True)
    with fastact.backend("auto"):
        for rows in (5, 9, 3000, 40_000):
            x, target = arguments(rows)
            if mark:
                torch._dynamo.mark_dynamic(x, 0)
                torch._dynamo.mark_dynamic(target, 0)
            for got, want in zip(compiled(x, target), net(x, target), strict=True):
                torch.testing.assert_close(got, want)
        assert graphs == [set()]

        loss, graphs = traced(F.cross_entropy, dynamic=None if mark else True)
        for rows in (300, 400, 10, 20, 500):
            x = make(rows, 1000)
            target = targets(x)
            if mark:
                torch._dynamo.mark_dynamic(x, 0)
                torch._dynamo.mark_dynamic(target, 0)
            torch.testing.assert_close(loss(x, target), F.cross_entropy(x, target))
        assert graphs == [{"cross_entropy"}, set()]


@torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)
def test_sizes_that_depend_on_data():
    def function(x, target, kept):
        return F.cross_entropy(F.gelu(x[kept]), target[kept])

    compiled, graphs = traced(function)
    x = make(600, 1000)
    args = x, targets(x), torch.arange(600) % 3 > 0
    with fastact.backend("auto"):
        torch.testing.assert_close(compiled(*args), function(*args))
    assert graphs == [set()]


def test_another_backend_compiles_anew():
    compiled, graphs = traced(F.gelu)
    x = make(100)
    for name in ("auto", "compiled", "auto", "torch", "compiled"):
        with fastact.backend(name):
            torch.testing.assert_close(compiled(x), F.gelu(x))
    assert graphs[:2] == [set(), {"gelu"}]
    assert len(graphs) <= 3  # each choice once


def test_inductor_trains_the_same():
    """With generated code, forward and backward, in both."""
    net = Net()
    found = []
    for name in ("torch", "auto", "compiled"):
        torch._dynamo.reset()
        with fastact.backend(name):
            compiled = torch.compile(net, fullgraph=True)
            grads = torch.autograd.grad(
                sum(t.square().sum() for t in compiled(*arguments(6))), list(net.parameters())
            )
            found.append(grads)
    for other in found[1:]:
        for a, b in zip(other, found[0], strict=True):
            torch.testing.assert_close(a, b)


@pytest.fixture(params=["auto", "compiled"])
def forced(request):
    with fastact.backend(request.param):
        yield request.param


def exported(net, strict):
    rows = torch.export.Dim("rows")
    return torch.export.export(
        net, arguments(6), dynamic_shapes=({0: rows}, {0: rows}), strict=strict
    )


@pytest.mark.parametrize("strict", [False, True])
def test_export_save_and_load(forced, strict, tmp_path):
    """For any number of rows; in "auto" a program that needs no fastact where it runs."""
    net = Net()
    program = exported(net, strict)
    torch.export.save(program, tmp_path / "net.pt2")
    loaded = torch.export.load(tmp_path / "net.pt2")
    for p in (program, loaded):
        targets_ = {str(n.target) for n in p.graph.nodes}
        found = {n.split(".")[1] for n in targets_ if n.startswith("fastact.")}
        assert found == (OURS if forced == "compiled" else set())
        for rows in (6, 9, 300):
            assert_like_eager(p.module(), net, rows)


class Loss(torch.nn.Module):
    def forward(self, x, target):
        return F.cross_entropy(x, target)


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_loss_is_torchs_for_every_size(strict):
    """Large enough for ours, were it compiled; and no guard on the number of rows."""
    x, rows = make(512, 1000), torch.export.Dim("rows")
    with fastact.backend("auto"):
        program = torch.export.export(
            Loss(), (x, targets(x)), dynamic_shapes=({0: rows}, {0: rows}), strict=strict
        )
        assert not [n for n in program.graph.nodes if "fastact" in str(n.target)]
        torch.testing.assert_close(
            program.module()(x[:9], targets(x)[:9]), F.cross_entropy(x[:9], targets(x)[:9])
        )


def test_ahead_of_time_inductor(forced, tmp_path):
    net = Net()
    path = torch._inductor.aoti_compile_and_package(
        exported(net, strict=False), package_path=str(tmp_path / "net.pt2")
    )
    loaded = torch._inductor.aoti_load_package(path)
    for rows in (6, 9, 300):
        assert_like_eager(loaded, net, rows)
