"""What replace() recognises, what it leaves, and that nothing else about a module changes."""

import copy
import pickle

import pytest
import torch
from support import Ops, assert_within
from torch import nn
from transformers import activations
from zoo import timm

import fastact

create_act = timm.layers.create_act

TORCH = [
    nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.SiLU(inplace=True), nn.ReLU(), nn.ReLU6(),
    nn.LeakyReLU(0.2), nn.ELU(1.3), nn.SELU(), nn.CELU(0.7), nn.Sigmoid(), nn.Tanh(),
    nn.Softplus(2.0, 5.0), nn.LogSigmoid(), nn.Mish(), nn.Hardswish(), nn.Hardsigmoid(),
    nn.GLU(0), nn.Softmax(-1), nn.LogSoftmax(0),
]  # fmt: skip
HUGGING_FACE = {
    "gelu": "gelu", "gelu_fast": "gelu_tanh", "gelu_new": "gelu_tanh", "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh", "gelu_python_tanh": "gelu_tanh",
    "gelu_accurate": "gelu_tanh", "hardswish": "hardswish", "leaky_relu": "leaky_relu",
    "mish": "mish", "quick_gelu": "quick_gelu", "relu": "relu", "relu2": "squared_relu",
    "relu6": "relu6", "sigmoid": "sigmoid", "silu": "silu", "swish": "silu", "tanh": "tanh",
}  # fmt: skip
NO_SUCH_OP = {"gelu_10", "laplace", "linear", "sqrtsoftplus", "prelu", "xielu"}
TIMM = {
    "Swish": "silu", "Mish": "mish", "Sigmoid": "sigmoid", "Tanh": "tanh",
    "HardSwish": "hardswish", "HardSigmoid": "hardsigmoid", "GELU": "gelu",
    "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu",
}  # fmt: skip


def result(module, x):
    """Value and gradient; of a clone, since some work in place."""
    leaf = x.clone().requires_grad_()
    y = module(leaf * 1)
    (grad,) = torch.autograd.grad(y, leaf, torch.ones_like(y))
    return y.detach(), grad


def check_against_float64(module, op):
    """A module is replaced, calls op, and computes what it did, in float32 and float64."""
    x = torch.linspace(-5, 5, 512)
    exact = result(copy.deepcopy(module).double(), x.double())
    before = type(module)
    fastact.replace(module)
    with Ops() as seen:
        ours = result(module, x)
    assert {name.removesuffix("_") for name in seen.ours} == {op, f"{op}_backward"}
    for got, want in zip(ours, exact, strict=True):
        assert_within(got, want, 4, x, op, torch.ones_like(want))
    for got, want in zip(result(module, x.double()), exact, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-15)
    assert fastact.restore(module) == 1
    assert type(module) is before


@pytest.mark.parametrize("module", TORCH, ids=repr)
def test_modules_of_torch(module):
    module = copy.deepcopy(module)
    x = torch.randn(6, 8)
    want = result(module, x)
    before = type(module)
    report = fastact.replace(module)
    assert [(r.name, r.was, r.now) for r in report.replaced] == [
        ("", before.__name__, f"fastact.nn.{before.__name__}")
    ]
    assert isinstance(module, getattr(fastact.nn, before.__name__))
    with Ops() as seen:
        got = result(module, x)
    assert seen.ours.total() == 2
    torch.testing.assert_close(got, want)
    assert fastact.restore(module) == 1
    assert type(module) is before


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.CrossEntropyLoss(torch.rand(5), ignore_index=2, label_smoothing=0.1),
        lambda: nn.NLLLoss(torch.rand(5), reduction="sum"),
    ],
)
def test_losses_of_torch(make):
    loss = make()
    x, target = torch.randn(7, 5), torch.randint(5, (7,))
    want = loss(x, target)
    assert not fastact.replace(loss, losses=False).replaced
    assert len(fastact.replace(loss).replaced) == 1
    with Ops() as seen:
        torch.testing.assert_close(loss(x, target), want)
    assert seen.ours.total() == 1
    assert list(loss.state_dict()) == ["weight"]
    with Ops() as seen:
        torch.testing.assert_close(pickle.loads(pickle.dumps(loss))(x, target), want)
    assert seen.ours.total() == 1


def test_binary_loss_of_torch():
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.rand(5))
    x, target = torch.randn(7, 5), torch.rand(7, 5)
    want = loss(x, target)
    fastact.replace(loss)
    with Ops() as seen:
        torch.testing.assert_close(loss(x, target), want)
    assert seen.ours.total() == 1


def test_every_activation_of_transformers_is_known():
    assert set(activations.ACT2CLS) == set(HUGGING_FACE) | NO_SUCH_OP


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_activations_of_transformers(name):
    check_against_float64(activations.ACT2FN[name], HUGGING_FACE[name])


@pytest.mark.parametrize("name", sorted(NO_SUCH_OP))
def test_other_activations_of_transformers_are_left(name):
    module = activations.ACT2FN[name]
    report = fastact.replace(module)
    assert not report.replaced
    assert [r.why for r in report.left] == ["fastact has no such op"]


@pytest.mark.parametrize("name", TIMM)
def test_activations_of_timm(name):
    check_against_float64(getattr(create_act, name)(), TIMM[name])


@pytest.mark.parametrize("name", ["Swish", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid"])
def test_activations_of_timm_in_place(name):
    module = getattr(create_act, name)(inplace=True)
    x = torch.randn(99)
    want = module(x.clone())
    fastact.replace(module)
    y = module(x)
    assert y is x
    torch.testing.assert_close(y, want)
