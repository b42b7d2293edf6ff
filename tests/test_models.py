"""Real models of transformers and timm, before and after replace()."""

import copy
import pickle
from collections import Counter
from functools import partial

import pytest
import torch
from support import Ops
from timing import Spread
from zoo import CAUSAL, MODELS

import fastact
from fastact._replace import _gated

EVERY = pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
LANGUAGE = pytest.mark.parametrize("model", [m for m in MODELS if not m.side], ids=lambda m: m.name)
SOME = pytest.mark.parametrize(
    "model", [m for m in MODELS if m.name in ("Gemma", "Phi3", "GPT2", "ViT", "EfficientNet")],
    ids=lambda m: m.name,
)  # fmt: skip


def step(model, net, **options):
    """The loss of a training step, and the gradient of every parameter that has one."""
    net.zero_grad()
    loss = model.loss(net, **options)
    loss.backward()
    grads = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
    return loss.detach(), grads


def assert_as_exact(ours, theirs, exact, dtype):
    """Ours is as near to the model in float64 as theirs, up to a few roundings.

    Either error is one sample of what roundings give, and another one on each processor: where
    torch's is small by chance, ours is not. A wrong derivative is off by orders of magnitude.
    """
    eps = torch.finfo(dtype).eps
    error, allowed = abs(ours[0] - exact[0]), abs(theirs[0] - exact[0])
    assert ours[0].dtype == theirs[0].dtype
    assert error <= 2 * allowed + 4 * eps * abs(exact[0]), (ours[0], theirs[0], exact[0])
    assert ours[1].keys() == theirs[1].keys() == exact[1].keys()
    scale = max(g.abs().max() for g in exact[1].values())
    for name, grad in exact[1].items():
        error = (ours[1][name].double() - grad).abs().max()
        allowed = (theirs[1][name].double() - grad).abs().max()
        size = max(grad.abs().max(), 1e-3 * scale)
        assert error <= 4 * allowed + 16 * eps * size, (name, error, allowed, size)


@EVERY
def test_what_is_replaced_and_called(model):
    net = model.build()
    report = fastact.replace(net)
    assert Counter(r.was for r in report.replaced) == model.replaced
    assert not report.left
    with Ops() as seen:
        model.loss(net).backward()
    assert seen.ours == model.ops
    fastact.restore(net)
    with Ops() as seen:
        model.loss(net).backward()
    assert not seen.ours


@EVERY
def test_loss_and_gradients(model):
    net = model.build()
    exact = step(model, copy.deepcopy(net).double())
    theirs = step(model, net)
    fastact.replace(net)
    assert_as_exact(step(model, net), theirs, exact, torch.float32)
    assert len(exact[1]) == len(list(net.parameters()))


@SOME
def test_loss_and_gradients_in_bfloat16(model):
    net = model.build().bfloat16()
    if any(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules()):
        net.eval()  # the statistics of four images amplify bfloat16's roundings
    exact = step(model, copy.deepcopy(net).double())
    theirs = step(model, net)
    fastact.replace(net)
    assert_as_exact(step(model, net), theirs, exact, torch.bfloat16)


@EVERY
def test_ten_steps_of_training(model):
    def curve(replaced):
        net = model.build()
        if replaced:
            fastact.replace(net)
        # Batch normalisation of a few images is chaotic at larger steps.
        lr = 5e-4 if model.side else 0.02
        optimiser = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
        losses = []
        for _ in range(10):
            optimiser.zero_grad()
            loss = model.loss(net)
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        return losses

    theirs, ours = curve(False), curve(True)
    assert ours == pytest.approx(theirs, rel=1e-3 if model.side else 1e-5)
    assert theirs[-1] < 0.99 * theirs[0]


@EVERY
def test_restored_objects_are_the_same(model):
    net = model.build()
    modules = dict(net.named_modules())
    classes = {name: type(m) for name, m in modules.items()}
    parameters = dict(net.named_parameters())
    keys = list(net.state_dict())
    text = repr(net)
    before = model.loss(net)
    report = fastact.replace(net)
    assert repr(net) == text
    assert list(net.state_dict()) == keys
    for _ in range(2):
        assert all(m is modules[name] for name, m in net.named_modules())
        assert all(p is parameters[name] for name, p in net.named_parameters())
        assert all(isinstance(m, classes[name]) for name, m in modules.items())
    assert fastact.restore(net) == len(report.replaced)
    assert {name: type(m) for name, m in net.named_modules()} == classes
    assert all(m is modules[name] for name, m in net.named_modules())
    assert not any("fastact" in key for m in net.modules() for key in vars(m))
    assert not any(key == "_loss_function" for m in net.modules() for key in vars(m))
    if not any(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules()):
        assert torch.equal(model.loss(net), before)


@SOME
def test_copies_and_pickles(model):
    net = model.build()
    report = fastact.replace(net)
    want = step(model, net)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        with Ops() as seen:
            got = step(model, other)
        assert seen.ours == model.ops
        assert torch.equal(got[0], want[0]) or model.name == "EfficientNet"  # whose state moved
        assert got[1].keys() == want[1].keys()
        assert fastact.restore(other) == len(report.replaced)
    assert [type(m) for m in other.modules()] == [type(m) for m in model.build().modules()]
    with Ops() as seen:
        model.loss(net)
    assert seen.ours  # the original is as it was


@EVERY
def test_state_dict_goes_both_ways(model, tmp_path):
    ours, theirs = model.build().eval(), model.build().eval()
    fastact.replace(ours)
    for source, sink in ((ours, theirs), (theirs, ours)):
        before = model.loss(sink)
        with torch.no_grad():
            for p in source.parameters():
                p.add_(0.01)
        torch.save(source.state_dict(), tmp_path / "state.pt")
        sink.load_state_dict(torch.load(tmp_path / "state.pt"))
        torch.testing.assert_close(model.loss(source), model.loss(sink), rtol=1e-4, atol=1e-5)
        assert not torch.equal(model.loss(sink), before)


@LANGUAGE
def test_save_and_load_pretrained(model, tmp_path):
    net = model.build().eval()
    fastact.replace(net)
    net.save_pretrained(tmp_path)
    loaded = type(net).from_pretrained(tmp_path).eval()
    assert loaded.config.architectures == [type(net).__name__]
    report = fastact.replace(loaded)
    assert len(report.replaced) == sum(model.replaced.values())
    assert torch.equal(model.loss(net), model.loss(loaded))


@LANGUAGE
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(model, reentrant):
    net = model.build()
    fastact.replace(net)
    want = step(model, net, use_cache=False) if model.name != "BERT" else step(model, net)
    net.gradient_checkpointing_enable({"use_reentrant": reentrant})
    net.train()
    with Ops() as seen:
        got = step(model, net)
    mlps = [op for op in model.ops if "backward" not in op and op != "cross_entropy"]
    assert sum(seen.ours[op] for op in mlps) > sum(model.ops[op] for op in mlps)  # computed again
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_gradient_checkpointing_of_a_timm_model():
    (model,) = (m for m in MODELS if m.name == "ConvNeXt")
    net = model.build()
    fastact.replace(net)
    want = step(model, net)
    net.set_grad_checkpointing()
    torch.testing.assert_close(step(model, net), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", [m for m in CAUSAL if m.name in ("Llama", "GPT2")],
                         ids=lambda m: m.name)  # fmt: skip
def test_generation(model):
    net = model.build().eval()
    tokens = model.batch()["input_ids"]

    def generate():
        return net.generate(tokens, max_new_tokens=8, do_sample=False, pad_token_id=0)

    want = generate()
    fastact.replace(net)
    with Ops() as seen:
        assert torch.equal(generate(), want)
    assert sum(seen.ours.values()) == 16


@pytest.mark.parametrize("name", ["Llama", "Phi3"])
def test_compiled(name):
    (model,) = (m for m in MODELS if m.name == name)
    net = model.build()
    want = step(model, net)
    fastact.replace(net)
    torch._dynamo.reset()
    tokens = model.batch()
    mlp = net.model.layers[0].mlp
    compiled = torch.compile(mlp, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 4, 32, requires_grad=True)
    torch.testing.assert_close(compiled(x), mlp(x))
    whole = torch.compile(net, backend="aot_eager")
    loss = whole(**tokens).loss
    torch.testing.assert_close(loss, want[0])
    fastact.restore(net)
    torch.testing.assert_close(torch.compile(mlp, backend="aot_eager")(x), mlp(x))


def ops_of_graphs(net, batch):
    """The nodes of each graph that Dynamo makes of a model."""
    graphs = []

    def backend(graph, _):
        graphs.append([(n.op, getattr(n.target, "__name__", "")) for n in graph.graph.nodes])
        return graph.forward

    torch._dynamo.reset()
    torch.compile(net, backend=backend)(**batch)
    return graphs


@pytest.mark.parametrize("name", ["Llama", "Phi3"])
def test_compiled_models_have_the_graph_of_the_original(name, monkeypatch):
    """In "auto"; nothing is asked of the MLP's activation, which each call would be guarded by."""
    (model,) = (m for m in MODELS if m.name == name)
    net, batch = model.build(), model.batch()
    del batch["labels"]
    with fastact.backend("auto"):
        before = ops_of_graphs(net, batch)
        fastact.replace(net)
        asked = []
        monkeypatch.setattr(_gated, "gate_of", lambda act: asked.append(act) or "silu")
        after = ops_of_graphs(net, batch)
        assert len(before) == len(after) == 1
        # Phi-3's product is written the other way round, which makes no difference to the nodes.
        assert Counter(after[0]) == Counter(before[0])
        assert not asked
    with fastact.backend("compiled"):
        assert Counter(ops_of_graphs(net, batch)[0]) != Counter(before[0])
        assert asked


def test_the_benchmark_of_compiled_models(monkeypatch):
    import models

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr(models, "ratio", lambda s, *names: seen.append(s) or Spread(1.0, 1.0, 1.0))
    seen = []
    (llama,) = (m for m in MODELS if m.name == "Llama")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of a busy machine, many wait for each other
    try:
        with fastact.backend("auto"):
            row = models.measure_compiled(models.Model("Llama", llama.build, 97, count=1), 0.0)
    finally:
        torch.set_num_threads(threads)
    assert "| 1.000 (1.000 to 1.000) | 1 (0) / 1 (0) |" in row
    assert {name: len(times) for name, times in seen[0].items()} == {
        "before": 5, "after": 5, "again": 5
    }  # fmt: skip
