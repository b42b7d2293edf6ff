"""fastact.monitor: hand-made nets whose dead units are known."""

import copy
import gc
import math
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import fastact
from fastact._monitor import ELEMENTWISE, GATED, is_activation

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


# --------------------------------------------------------------------------------------------------
# Gated activations


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


def test_functions_are_not_seen_and_the_error_says_so():
    class Functional(nn.Module):
        def forward(self, x):
            return fastact.functional.relu(x)

    with pytest.raises(ValueError, match="calls of functions are not seen"):
        fastact.monitor(Functional())
    for activation, seen in ((nn.functional.relu, False), (nn.ReLU(), True)):
        layer = nn.TransformerEncoderLayer(8, 2, 16, activation=activation)
        assert any(map(is_activation, layer.modules())) == seen  # as the documentation says


# --------------------------------------------------------------------------------------------------


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


def test_steps_between_are_without_hooks():
    """Which a call would look for: they cost more than the rest of it."""
    model = net(nn.ReLU())
    with fastact.monitor(model, every=2) as record:
        for hooks in (2, 0, 2, 0):
            train(model, 1)
            assert len(model[1]._forward_pre_hooks) + len(model[1]._forward_hooks) == hooks
    assert record.steps == [0, 2]


def test_a_model_that_is_an_activation():
    model = fastact.nn.ReLU()
    with fastact.monitor(model, every=2) as record:
        for _ in range(4):
            model(torch.randn(16, 4, requires_grad=True)).sum().backward()
    assert record.to_dict()["layers"]["(the model)"]["gradient"] == [1, 1]


def test_compiled_within_the_block():
    model = net(nn.ReLU())
    compiled = torch.compile(model, backend="aot_eager")
    with fastact.monitor(model, every=2) as record:
        train(compiled, 5)
    assert record.steps == [0, 2, 4]
    assert dead_of(record) == [DEAD / UNITS] * 3


def test_more_records_than_a_chunk(monkeypatch):
    monkeypatch.setattr("fastact._monitor.CHUNK", 4)
    model = net(nn.ReLU())
    with fastact.monitor(model, every=1) as record:
        train(model, 11)
    assert dead_of(record) == [DEAD / UNITS] * 11


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


def test_a_layer_whose_units_change_keeps_its_history():
    model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.ReLU())
    with fastact.monitor(model, every=1) as record:
        for length in (10, 11, 12):
            model(torch.randn(2, 2, length)).sum().backward()
    layer = record.to_dict()["layers"]["1"]
    assert layer["units"] == 12
    assert not any(map(math.isnan, layer["dead"] + layer["gradient"]))


def test_nothing_is_read_back_while_training():
    """No item(), no copy to Python: a GPU would be waited for."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Ops(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.names = set()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.names.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    model = net(nn.ReLU())
    with fastact.monitor(model, every=1) as record, Ops() as seen:
        train(model)
    assert not seen.names & {"_local_scalar_dense", "nonzero", "is_nonzero", "item", "equal"}
    with Ops() as seen:
        record.to_dict()


def test_the_model_can_go():
    model = net(nn.ReLU())
    watch = weakref.ref(model)
    with fastact.monitor(model, every=1) as record:
        train(model)
    del model
    gc.collect()
    assert watch() is None
    assert "1" in str(record)


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
