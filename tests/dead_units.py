"""Nets whose dead units are known, for the tests of fastact.monitor."""

import torch
from torch import nn

UNITS, DEAD = 8, 3


def layer_with_dead_units(inputs=4, units=UNITS, dead=DEAD, bias=-100.0):
    """A linear layer whose first few units are at ``bias`` whatever comes in, the others near 0."""
    layer = nn.Linear(inputs, units)
    with torch.no_grad():
        layer.weight[:dead] = 0
        layer.bias[:dead] = bias
        layer.bias[dead:] = 0
    return layer


def net(activation, **options):
    return nn.Sequential(layer_with_dead_units(**options), activation, nn.Linear(UNITS, 2))


def train(model, steps=3, shape=(16, 4)):
    for _ in range(steps):
        model(torch.randn(shape)).square().mean().backward()


def dead_of(record, name="1"):
    return record.to_dict()["layers"][name]["dead"]
