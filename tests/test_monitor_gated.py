"""fastact.monitor of gated activations, and of every module of fastact.nn."""

import pytest
import torch
from dead_units import DEAD, UNITS, dead_of, layer_with_dead_units, net, train
from torch import nn

import fastact
from fastact._monitor import GATED

PAIRS = (fastact.nn.SiLUMul, fastact.nn.ReLUMul, fastact.nn.GELUMul)
HALVES = (fastact.nn.SwiGLU, fastact.nn.ReGLU, fastact.nn.GEGLU)


class Gated(nn.Module):
    """``act(gate) * up``, of two tensors by position or by name, or of the halves of one."""

    def __init__(self, act, gate, up, dim=-1, named=False):
        super().__init__()
        self.gate, self.up, self.act = gate, up, act
        self.dim, self.named = dim, named

    def forward(self, x):
        gate, up = self.gate(x), self.up(x)
        if self.named:
            return self.act(up=up, gate=gate)
        return (
            self.act(gate, up)
            if isinstance(self.act, PAIRS)
            else self.act(torch.cat([gate, up], self.dim))
        )


def gated(act, bias=-100.0, **options):
    return Gated(act, layer_with_dead_units(bias=bias), nn.Linear(4, UNITS), **options)


def test_all_gated_modules_are_tested():
    assert {*PAIRS, *HALVES, nn.GLU} == set(GATED)


@pytest.mark.parametrize("kind", [*PAIRS, *HALVES], ids=lambda k: k.__name__)
def test_a_gated_unit_is_dead_where_its_gate_is_shut(kind):
    model = gated(kind())
    with fastact.monitor(model, every=1) as record:
        train(model)
    assert record.to_dict()["layers"]["act"]["units"] == UNITS
    assert dead_of(record, "act") == [DEAD / UNITS] * 3


@pytest.mark.parametrize("namespace", [nn, fastact.nn], ids=["torch", "fastact"])
def test_glu_gates_by_its_second_half(namespace):
    # Shut, it is dead; wide open, sigmoid is as flat, but all of the other half's gradient passes.
    for bias, share in ((-100.0, DEAD / UNITS), (100.0, 0.0)):
        model = gated(namespace.GLU())
        model.gate, model.up = nn.Linear(4, UNITS), layer_with_dead_units(bias=bias)
        with fastact.monitor(model, every=1) as record:
            train(model)
        assert dead_of(record, "act") == [share] * 3


@pytest.mark.parametrize("kind", [*PAIRS, *HALVES], ids=lambda k: k.__name__)
def test_a_gated_unit_whose_other_factor_is_zero_is_alive(kind):
    model = gated(kind(), bias=1.0)
    with torch.no_grad():
        model.up.weight.zero_()
        model.up.bias.zero_()
    with fastact.monitor(model, every=1) as record:
        train(model)
    assert dead_of(record, "act") == [0.0] * 3


def test_gated_operands_by_name():
    model = gated(fastact.nn.GELUMul("tanh"), named=True)
    with fastact.monitor(model, every=1) as record:
        train(model)
    assert dead_of(record, "act") == [DEAD / UNITS] * 3


def test_channels_of_a_gated_activation():
    gate = nn.Conv2d(3, UNITS, 3)
    with torch.no_grad():
        gate.weight[:DEAD] = 0
        gate.bias[:DEAD] = -200
    model = Gated(fastact.nn.GLU(1), nn.Conv2d(3, UNITS, 3), gate, dim=1)
    with fastact.monitor(model, every=1) as record:
        train(model, shape=(4, 3, 6, 6))
    assert record.to_dict()["layers"]["act"]["units"] == UNITS
    assert dead_of(record, "act") == [DEAD / UNITS] * 3


def test_training_of_gated_modules_is_unchanged():
    models = [gated(fastact.nn.SwiGLU()) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    x = torch.randn(16, 4)
    with fastact.monitor(models[0], every=1) as record:
        models[0](x).square().mean().backward()
    y = models[1](x)
    y.retain_grad()
    y.square().mean().backward()
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    (gradient,) = record.to_dict()["layers"]["act"]["gradient"]
    assert gradient == pytest.approx(y.grad.abs().mean().item(), rel=1e-5)


@pytest.mark.parametrize("name", sorted(set(fastact.nn.__all__) - {
    "Softmax", "LogSoftmax", "NLLLoss", "CrossEntropyLoss", "BCEWithLogitsLoss"}))  # fmt: skip
def test_every_activation_of_fastact_is_seen(name):
    kind = getattr(fastact.nn, name)
    model = gated(kind()) if kind in PAIRS else net(kind())
    if kind in (*HALVES, fastact.nn.GLU):
        model[2] = nn.Linear(UNITS // 2, 2)
    with fastact.monitor(model, every=1) as record:
        train(model, 1)
    (layer,) = record.to_dict()["layers"].values()
    assert layer["gradient"][0] > 0
