"""fastact.monitor: what it counts and shows, of nets whose dead units are known."""

import math

import pytest
import torch
from dead_units import DEAD, UNITS, dead_of, layer_with_dead_units, net, train
from torch import nn

import fastact
from fastact._monitor import ELEMENTWISE, is_activation


@pytest.mark.parametrize("namespace", [nn, fastact.nn], ids=["torch", "fastact"])
@pytest.mark.parametrize("name", ["ReLU", "ReLU6", "SiLU", "GELU", "Sigmoid", "Tanh", "Hardswish"])
def test_counts_the_dead_units(namespace, name):
    model = net(getattr(namespace, name)())
    with fastact.monitor(model, every=1) as record:
        train(model)
    assert record.steps == [0, 1, 2]
    assert record.to_dict()["layers"]["1"]["units"] == UNITS
    assert dead_of(record) == [DEAD / UNITS] * 3


@pytest.mark.parametrize("name", ["LeakyReLU", "Softsign", "LogSigmoid"])
def test_what_has_a_slope_is_not_dead(name):
    model = net(getattr(nn, name)())
    with fastact.monitor(model, every=1) as record:
        train(model)
    assert dead_of(record) == [0.0] * 3


def test_the_threshold_is_on_the_slope():
    model = net(nn.LeakyReLU(0.01))
    for threshold, share in ((0.009, 0.0), (0.011, DEAD / UNITS)):
        with fastact.monitor(model, every=1, threshold=threshold) as record:
            train(model)
        assert dead_of(record) == [share] * 3


def test_a_unit_is_alive_by_one_sample_of_the_window():
    model = nn.Sequential(nn.ReLU(), nn.Linear(1, 1))
    with fastact.monitor(model, every=1, window=3) as record:
        for x in (-1, 1, -1, -1, -1, -1, 1):
            model(torch.tensor([[-2.0], [float(x)]])).sum().backward()
    assert dead_of(record, "0") == [1, 0, 0, 0, 1, 1, 0]


def test_the_gradient_is_that_of_the_output():
    model = net(nn.Tanh())
    x = torch.randn(16, 4)
    with fastact.monitor(model, every=1) as record:
        y = model(x)
        y.square().mean().backward()
    hidden = model[1](model[0](x)).detach().requires_grad_()
    model[2](hidden).square().mean().backward()
    (gradient,) = record.to_dict()["layers"]["1"]["gradient"]
    assert gradient == pytest.approx(hidden.grad.abs().mean().item(), rel=1e-5)


def test_an_empty_batch_is_passed_over():
    model = net(nn.ReLU())
    with fastact.monitor(model, every=1) as record:
        model(torch.randn(0, 4)).sum().backward()
        train(model, 1)
    assert record.steps == [0, 1]
    assert math.isnan(dead_of(record)[0])
    assert dead_of(record)[1] == DEAD / UNITS


def test_channels_are_the_units_of_images():
    convolution = nn.Conv2d(3, UNITS, 3)
    with torch.no_grad():
        convolution.weight[:DEAD] = 0
        convolution.bias[:DEAD] = -1
    model = nn.Sequential(convolution, nn.ReLU())
    with fastact.monitor(model, every=1) as record:
        train(model, shape=(4, 3, 6, 6))
    assert record.to_dict()["layers"]["1"]["units"] == UNITS
    assert dead_of(record) == [DEAD / UNITS] * 3


def test_sequences_have_units_in_their_last_dimension():
    model = net(nn.ReLU())
    with fastact.monitor(model, every=1) as record:
        train(model, shape=(2, 5, 4))
    assert dead_of(record) == [DEAD / UNITS] * 3


def test_every():
    model = net(nn.ReLU())
    with fastact.monitor(model, every=3) as record:
        train(model, 8)
        model.eval()
        train(model, 4)  # not looked at, and not counted
        model.train()
        train(model, 2)
    assert record.steps == [0, 3, 6, 9]
    assert len(dead_of(record)) == 4
    assert not any(map(math.isnan, record.to_dict()["layers"]["1"]["gradient"]))


def test_a_model_that_is_an_activation():
    model = fastact.nn.ReLU()
    with fastact.monitor(model, every=2) as record:
        for _ in range(4):
            model(torch.randn(16, 4, requires_grad=True)).sum().backward()
    assert record.to_dict()["layers"]["(the model)"]["gradient"] == [1, 1]


def test_more_records_than_a_chunk(monkeypatch):
    monkeypatch.setattr("fastact._monitor.CHUNK", 4)
    model = net(nn.ReLU())
    with fastact.monitor(model, every=1) as record:
        train(model, 11)
    assert dead_of(record) == [DEAD / UNITS] * 11


def test_a_layer_whose_units_change_keeps_its_history():
    model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.ReLU())
    with fastact.monitor(model, every=1) as record:
        for length in (10, 11, 12):
            model(torch.randn(2, 2, length)).sum().backward()
    layer = record.to_dict()["layers"]["1"]
    assert layer["units"] == 12
    assert not any(map(math.isnan, layer["dead"] + layer["gradient"]))


def test_table_dictionary_and_picture(tmp_path):
    model = nn.Sequential(net(nn.ReLU()), nn.Tanh())
    with fastact.monitor(model, every=1) as record:
        assert "no step" in str(record)
        train(model)
    lines = str(record).splitlines()
    assert lines[0] == "fastact.monitor: step 2, 3 recorded"
    assert lines[2].split()[:3] == ["0.1", str(UNITS), "37.5%"]
    assert len(lines) == 4
    figure = record.plot()
    left, right = figure.axes
    assert len(left.lines) == len(right.lines) == 2
    assert list(left.lines[0].get_ydata()) == [DEAD / UNITS] * 3
    figure.savefig(tmp_path / "dead.png")
    assert (tmp_path / "dead.png").stat().st_size > 1000


def test_select():
    class Cube(nn.Module):
        def forward(self, x):
            return x.clamp(min=0) ** 3

    model = net(Cube())
    assert not is_activation(model[1])
    with fastact.monitor(model, every=1, select=lambda m: isinstance(m, Cube)) as record:
        train(model)
    assert dead_of(record) == [DEAD / UNITS] * 3


def test_select_what_has_more_arguments():
    class Scaled(nn.Module):
        def forward(self, x, scale, *, mask=None):
            return (x * scale).relu() * mask

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.act = layer_with_dead_units(), Scaled()

        def forward(self, x):
            scale = torch.full((UNITS,), 2.0)
            return self.act(self.first(x), scale, mask=torch.ones(UNITS, dtype=torch.bool))

    model = Model()
    with fastact.monitor(model, every=1, select=lambda m: isinstance(m, Scaled)) as record:
        train(model)
    assert dead_of(record, "act") == [DEAD / UNITS] * 3


def test_select_what_is_not_elementwise():
    model = nn.Sequential(nn.ReLU(), nn.Linear(4, 5))
    record = fastact.monitor(model, every=1, select=lambda m: isinstance(m, nn.Linear))
    with record, pytest.raises(ValueError, match=r"'1' \(Linear\) was selected, but its output"):
        train(model, 1)


def test_what_is_not_elementwise_is_passed_over():
    """Where nobody has selected it."""

    class CReLU(nn.ReLU):
        def forward(self, x):
            return torch.cat((super().forward(x), super().forward(-x)), -1).relu()

    class Both(nn.ReLU):
        def forward(self, x):
            return x.relu(), x

    for module, result in ((CReLU(), lambda y: y), (Both(), lambda y: y[0])):
        model = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), module)
        with fastact.monitor(model, every=1) as record:
            result(model(torch.randn(2, 4))).sum().backward()
        assert list(record.to_dict()["layers"]) == ["1"]
    with (
        fastact.monitor(model, every=1, select=lambda m: isinstance(m, Both)),
        pytest.raises(ValueError, match=r"'2' \(Both\) was selected, but its output"),
    ):
        model(torch.randn(2, 4))


def test_a_negative_slope_is_one():
    class Negative(nn.Module):
        def forward(self, x):
            return torch.where(x > 0, -x, 0.0)

    model = net(Negative())
    with fastact.monitor(model, every=1, select=lambda m: isinstance(m, Negative)) as record:
        train(model)
    assert dead_of(record) == [DEAD / UNITS] * 3


def test_functions_are_not_seen_and_the_error_says_so():
    class Functional(nn.Module):
        def forward(self, x):
            return fastact.functional.relu(x)

    with pytest.raises(ValueError, match="calls of functions are not seen"):
        fastact.monitor(Functional())
    for activation, seen in ((nn.functional.relu, False), (nn.ReLU(), True)):
        layer = nn.TransformerEncoderLayer(8, 2, 16, activation=activation)
        assert any(map(is_activation, layer.modules())) == seen  # as the documentation says


def test_wrong_arguments():
    with pytest.raises(TypeError, match="model must be a Module, not function"):
        fastact.monitor(lambda x: x)
    with pytest.raises(TypeError, match="window must be an int, not float"):
        fastact.monitor(net(nn.ReLU()), window=2.5)
    with pytest.raises(ValueError, match="every must be at least 1; got 0"):
        fastact.monitor(net(nn.ReLU()), every=0)
    with pytest.raises(ValueError, match="window must be at least 1; got -1"):
        fastact.monitor(net(nn.ReLU()), window=-1)
    with pytest.raises(ValueError, match="Linear has no module that is an activation"):
        fastact.monitor(nn.Linear(2, 2))
    active = fastact.monitor(net(nn.ReLU()))
    with active, pytest.raises(RuntimeError, match="active already"):
        active.__enter__()


@pytest.mark.parametrize("kind", ELEMENTWISE, ids=lambda k: k.__name__)
def test_every_kind_is_elementwise(kind):
    arguments = {nn.Threshold: (0.0, 0.0)}.get(kind, ())
    model = nn.Sequential(nn.Linear(4, UNITS), kind(*arguments))
    with fastact.monitor(model, every=1) as record:
        train(model, 1)
    assert 0 <= dead_of(record)[0] <= 1
