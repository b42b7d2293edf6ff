"""fastact.monitor and what else a training step does: it changes nothing, and goes on."""

import copy
import gc
import math
import pickle
import weakref

import pytest
import torch
from dead_units import DEAD, UNITS, dead_of, layer_with_dead_units, net, train
from support import Ops
from torch import nn
from torch.utils.checkpoint import checkpoint

import fastact


def test_steps_between_are_without_hooks():
    """Which a call would look for: they cost more than the rest of it."""
    model = net(nn.ReLU())
    with fastact.monitor(model, every=2) as record:
        for hooks in (2, 0, 2, 0):
            train(model, 1)
            assert len(model[1]._forward_pre_hooks) + len(model[1]._forward_hooks) == hooks
    assert record.steps == [0, 2]


def test_compiled_within_the_block():
    model = net(nn.ReLU())
    compiled = torch.compile(model, backend="aot_eager")
    with fastact.monitor(model, every=2) as record:
        train(compiled, 5)
    assert record.steps == [0, 2, 4]
    assert dead_of(record) == [DEAD / UNITS] * 3


class Twice(nn.Module):
    """One activation after two layers, the second of which has dead units."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, UNITS)
        self.second = layer_with_dead_units(UNITS)
        self.act = nn.Sigmoid()

    def forward(self, x):
        return self.act(self.second(self.act(self.first(x))))


def test_a_shared_module_is_a_layer_for_each_call():
    model = Twice()
    with fastact.monitor(model, every=1) as record:
        train(model)
    layers = record.to_dict()["layers"]
    assert set(layers) == {"act", "act#2"}
    assert layers["act"]["dead"] == [0.0] * 3
    assert layers["act#2"]["dead"] == [DEAD / UNITS] * 3
    assert layers["act"]["gradient"] != layers["act#2"]["gradient"]


class Checkpointed(nn.Module):
    def __init__(self, body, **options):
        super().__init__()
        self.body, self.options = body, options

    def forward(self, x):
        return checkpoint(self.body, x, **self.options) if self.options else self.body(x)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("make", [lambda: net(nn.ReLU()), Twice], ids=["net", "shared"])
def test_gradient_checkpointing(reentrant, make):
    body, seen = make(), []
    for options in ({}, {"use_reentrant": reentrant}):
        torch.manual_seed(1)
        model = Checkpointed(copy.deepcopy(body), **options)
        with fastact.monitor(model, every=1) as record:
            for _ in range(3):
                model(torch.randn(16, 4, requires_grad=True)).square().mean().backward()
        seen.append(record.to_dict())
    plain, checkpointed = seen
    assert plain["steps"] == checkpointed["steps"]
    assert set(plain["layers"]) == set(checkpointed["layers"])
    for name, layer in plain["layers"].items():
        other = checkpointed["layers"][name]
        assert other["dead"] == layer["dead"]
        if make is Twice and reentrant:
            assert all(map(math.isnan, other["gradient"]))  # as the documentation says
        else:
            assert other["gradient"] == pytest.approx(layer["gradient"])


@pytest.mark.parametrize("namespace", [nn, fastact.nn], ids=["torch", "fastact"])
def test_in_place_modules_and_training_is_unchanged(namespace):
    models = [net(namespace.ReLU(inplace=True)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    x = torch.randn(16, 4)
    with fastact.monitor(models[0], every=1) as record:
        models[0](x).sum().backward()
    models[1](x).sum().backward()
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    assert dead_of(record) == [DEAD / UNITS]


def test_parameters_of_an_activation_get_no_gradient_from_it():
    model = net(nn.PReLU(UNITS))
    with fastact.monitor(model, every=1):
        y = model(torch.randn(16, 4))
    assert model[1].weight.grad is None
    y.sum().backward()


def hooks(model):
    return [
        h
        for m in model.modules()
        for h in (*m._forward_hooks, *m._forward_pre_hooks, *m._backward_hooks)
    ]


def test_hooks_go_also_after_an_exception():
    model = net(nn.ReLU())
    record = None

    def fails():
        nonlocal record
        with fastact.monitor(model, every=1) as record:
            train(model, 1)
            assert hooks(model)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert not hooks(model)
    train(model, 1)
    assert record.steps == [0]


def test_goes_on_after_a_forward_that_failed():
    model = net(nn.ReLU())
    with fastact.monitor(model, every=1) as record:
        with pytest.raises(RuntimeError, match="shape"):
            model(torch.randn(2, 5))
        train(model, 2)
    assert record.steps == [0, 1, 2]
    assert dead_of(record)[1:] == [DEAD / UNITS] * 2
    assert math.isnan(dead_of(record)[0])


def test_goes_on_after_a_hook_that_failed():
    """One that comes before the monitor's, which then does not see the call begin, but end."""
    model, calls = net(nn.ReLU()), iter(range(9))

    def fail(*_):
        if next(calls) == 1:
            raise ZeroDivisionError

    model.register_forward_pre_hook(fail)
    with fastact.monitor(model, every=1) as record:
        train(model, 1)
        with pytest.raises(ZeroDivisionError):
            model(torch.randn(2, 4))
        train(model, 2)
    assert record.steps == [0, 1, 2]
    assert dead_of(record) == [DEAD / UNITS] * 3


def test_the_record_keeps_no_graph():
    model = net(nn.Tanh())
    x = torch.randn(8, 4, requires_grad=True)
    with fastact.monitor(model, every=1) as record:
        (grad,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        grad.square().sum().backward()
    (layer,) = record._layers.values()
    assert not layer.rows[0].requires_grad
    assert record.to_dict()["layers"]["1"]["gradient"][0] > 0


def test_a_copy_of_the_model_records_nothing():
    model = net(nn.ReLU())
    with fastact.monitor(model, every=1) as record:
        train(model, 1)
        copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        for other in copies:
            train(other, 1)
        train(model, 1)
    assert record.steps == [0, 1]
    assert len(pickle.dumps(copies[0])) < len(pickle.dumps(model)) + 2000
    for other in copies:
        train(other, 1)
    assert record.steps == [0, 1]


def test_calls_in_which_no_slope_can_be_taken():
    """Those of transforms, in inference mode and while tracing go on, and are not recorded."""
    model, x = net(nn.ReLU()), torch.randn(3, 4)
    parameters = dict(model.named_parameters())
    calls = [
        lambda: torch.func.grad(
            lambda p: torch.func.functional_call(model, p, (x,)).square().sum()
        )(parameters),
        lambda: torch.func.vmap(model)(x),
        lambda: torch.jit.trace(model, x, check_trace=False),
        lambda: torch.inference_mode()(model)(x),
    ]
    with fastact.monitor(model, every=1) as record:
        for call in calls:
            call()
        train(model, 1)
    assert [math.isnan(share) for share in dead_of(record)] == [True] * 4 + [False]


def test_nothing_is_read_back_while_training():
    """No item(), no copy to Python: a GPU would be waited for."""
    model = net(nn.ReLU())
    with fastact.monitor(model, every=1), Ops() as seen:
        train(model)
    assert not seen.reads
    with Ops() as seen:
        torch.ones(1).item()
    assert seen.reads  # they would have been seen


def test_the_model_can_go():
    model = net(nn.ReLU())
    watch = weakref.ref(model)
    with fastact.monitor(model, every=1) as record:
        train(model)
    del model
    gc.collect()
    assert watch() is None
    assert "1" in str(record)


def test_half_precision_and_autocast():
    model = net(nn.ReLU()).bfloat16()
    with fastact.monitor(model, every=1) as record:
        model(torch.randn(16, 4, dtype=torch.bfloat16)).sum().backward()
    assert dead_of(record) == [DEAD / UNITS]
    model = net(nn.GELU())
    with fastact.monitor(model, every=1) as record, torch.autocast("cpu", torch.bfloat16):
        train(model, 1)
    assert dead_of(record) == [DEAD / UNITS]


def test_after_freezing_and_without_gradients():
    model = net(nn.ReLU()).requires_grad_(False)
    with fastact.monitor(model, every=1) as record, torch.no_grad():
        model(torch.randn(16, 4))
    assert dead_of(record) == [DEAD / UNITS]
    assert math.isnan(record.to_dict()["layers"]["1"]["gradient"][0])
