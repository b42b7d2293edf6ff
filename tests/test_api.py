"""The public surface: signatures, modules, and that every row has all it needs."""

import copy
import inspect
import pickle
import re

import pytest
import torch
import torch.nn.functional as TF
from support import ACTIVATIONS, CASES, GATES, ROOT

import fastact
from fastact import functional as F
from fastact import nn
from fastact._library import families

# As torch documents those that are builtins.
BUILTIN = {
    "gelu": "(input: Tensor, approximate: str = 'none') -> Tensor",
    "softplus": "(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor",
    "logsigmoid": "(input: Tensor) -> Tensor",
}
MODULES = {
    "GELU": [{}, {"approximate": "tanh"}], "SiLU": [{}, {"inplace": True}],
    "ReLU": [{}, {"inplace": True}], "ReLU6": [{}, {"inplace": True}],
    "LeakyReLU": [{}, {"negative_slope": 0.2}, {"inplace": True}],
    "ELU": [{}, {"alpha": 0.5, "inplace": True}], "SELU": [{}], "CELU": [{}, {"alpha": 2.0}],
    "Sigmoid": [{}], "Tanh": [{}], "Softplus": [{}, {"beta": 2.0, "threshold": 5.0}],
    "LogSigmoid": [{}], "Mish": [{}], "Hardswish": [{}], "Hardsigmoid": [{}],
    "GLU": [{}, {"dim": 0}], "Softmax": [{"dim": 1}, {"dim": -2}], "LogSoftmax": [{"dim": 1}],
    "NLLLoss": [{}, {"ignore_index": 2}, {"reduction": "none"}],
    "CrossEntropyLoss": [{}, {"label_smoothing": 0.1, "ignore_index": -1}, {"reduction": "sum"}],
    "BCEWithLogitsLoss": [{}, {"reduction": "none"}],
}  # fmt: skip
OWN_MODULES = {
    "QuickGELU": [{}], "SquaredReLU": [{}], "SwiGLU": [{}, {"dim": 0}],
    "ReGLU": [{}, {"dim": 0}], "SiLUMul": [{}],
    "ReLUMul": [{}], "GEGLU": [{}, {"approximate": "tanh", "dim": 0}],
    "GELUMul": [{}, {"approximate": "tanh"}],
}  # fmt: skip
# Names that do not follow from the symbol of the row.
MODULE_OF = {"GELUTanh": "GELU", "GELUTanhMul": "GELUMul", "SiLUGLU": "SwiGLU", "GELUGLU": "GEGLU",
             "GELUTanhGLU": "GEGLU", "ReLUGLU": "ReGLU", "SigmoidGLU": "GLU",
             "CrossEntropy": "CrossEntropyLoss", "BCEWithLogits": "BCEWithLogitsLoss"}  # fmt: skip
FUNCTION_OF = {"bce_with_logits": "binary_cross_entropy_with_logits"}


def arguments(callee):
    """Tensors for the required parameters: class indices, or probabilities, for a target."""
    signature = inspect.signature(getattr(callee, "forward", callee))
    given = {}
    for p in signature.parameters.values():
        if p.default is p.empty:
            given[p.name] = torch.randn(4, 6)
    if "target" in given:
        binary = "bce" in callee.__class__.__name__.lower() or callee is (
            F.binary_cross_entropy_with_logits
        )
        given["target"] = torch.rand(4, 6) if binary else torch.tensor([0, 5, 2, 1])
    return given


def shape_of(parameters):
    """Name, default and type of each parameter, however the annotations are written."""

    def kind(annotation):
        text = str(getattr(annotation, "__name__", annotation))
        text = str(annotation) if "|" in str(annotation) or text == "Optional" else text
        text = re.sub(r"^(?:typing\.)?Optional\[(.+)\]$", r"\1 | None", text)
        return text.replace("torch.Tensor", "Tensor").replace("torch.dtype", "dtype")

    return [
        (p.name, p.default, kind(p.annotation))
        for p in parameters if p.kind is not p.KEYWORD_ONLY
    ]  # fmt: skip


# torch's stubs say int for a dtype.
DTYPE_IS_AN_INT = {"softmax", "log_softmax"}


@pytest.mark.parametrize("name", F.__all__)
def test_signature_is_torchs(name):
    ours = inspect.signature(getattr(F, name))
    theirs = getattr(TF, name, None)
    if theirs is None:
        assert not hasattr(torch.nn, name)
        return
    if name in BUILTIN:
        assert str(ours).replace("'Tensor'", "Tensor").replace("'str'", "str").replace(
            "'float'", "float"
        ) == BUILTIN[name]  # fmt: skip
        return
    # torch leaves `input` and the result of sigmoid and tanh without annotation.
    got, want = (
        shape_of(inspect.signature(f).parameters.values()) for f in (getattr(F, name), theirs)
    )
    assert [p[:2] for p in got] == [p[:2] for p in want]
    if name in DTYPE_IS_AN_INT:
        assert (got.pop()[2], want.pop()[2]) == ("dtype | None", "int | None")
    assert [a[2] for a, b in zip(got, want, strict=True) if b[2] != "_empty"] == [
        b[2] for b in want if b[2] != "_empty"
    ]


@pytest.mark.parametrize("name", F.__all__)
def test_keyword_arguments(name):
    """Every argument can be given by its name."""
    signature = inspect.signature(getattr(F, name))
    given = arguments(getattr(F, name))
    for p in signature.parameters.values():
        given.setdefault(p.name, p.default)
    if "dim" in given and given["dim"] is None:
        given["dim"] = 1
    assert isinstance(getattr(F, name)(**given), torch.Tensor)


def configurations(table):
    return [pytest.param(name, kwargs, id=f"{name}{kwargs or ''}")
            for name, all_of_them in table.items() for kwargs in all_of_them]  # fmt: skip


@pytest.mark.parametrize(("name", "kwargs"), configurations(MODULES))
def test_module_is_torchs(name, kwargs):
    ours, theirs = getattr(nn, name)(**kwargs), getattr(torch.nn, name)(**kwargs)
    assert isinstance(ours, getattr(torch.nn, name))
    assert repr(ours) == repr(theirs)
    by_position = [
        (p.name, p.default)
        for p in inspect.signature(type(ours)).parameters.values()
        if p.kind is not p.KEYWORD_ONLY  # CrossEntropyLoss has some of its own
    ]
    wanted = inspect.signature(type(theirs)).parameters.values()
    assert by_position == [(p.name, p.default) for p in wanted]
    given = arguments(theirs)
    torch.testing.assert_close(*(m(*(t.clone() for t in given.values())) for m in (ours, theirs)))
    if "inplace" in kwargs:
        (y,) = given.values()
        assert ours(y) is y
    assert ours.state_dict() == theirs.state_dict()
    # A checkpoint of torch's loads, and the other way round.
    torch.nn.Sequential(ours).load_state_dict(torch.nn.Sequential(theirs).state_dict())


@pytest.mark.parametrize(("name", "kwargs"), configurations(MODULES | OWN_MODULES))
def test_module_travels(name, kwargs):
    """pickle, deepcopy, torch.save, train and eval, repr and state_dict."""
    module = getattr(nn, name)(**kwargs)
    given = list(arguments(module).values())
    want = module(*(a.clone() for a in given))
    for other in (
        pickle.loads(pickle.dumps(module)), copy.deepcopy(module), copy.copy(module),
        module.eval(), module.train(), module.to(torch.float64).to("cpu"),
    ):  # fmt: skip
        assert type(other) is getattr(nn, name)
        assert repr(other) == repr(module)
        assert other.state_dict() == {}
        assert torch.equal(other(*(a.clone() for a in given)), want)
    assert repr(module).startswith(f"{name}(")
    for key, value in kwargs.items() if not name.endswith("Loss") else ():  # torch's show nothing
        assert f"{key}={value}" in repr(module) or repr(value) in repr(module)


def test_functional_and_nn_are_complete():
    assert set(nn.__all__) == set(MODULES) | set(OWN_MODULES)
    for name in nn.__all__:
        assert hasattr(torch.nn, name) == (name in MODULES), name
    for module in (F, nn, fastact, fastact.autograd):
        assert all(hasattr(module, name) for name in module.__all__), module
        assert list(module.__all__) == sorted(set(module.__all__)) or module is nn


def test_every_row_has_a_function_a_module_and_a_kernel():
    covered = {case.family for case in CASES}
    for name, row in ACTIVATIONS.items():
        assert name in covered, f"{name}: no test case"
        public = "gelu" if name == "gelu_tanh" else name
        assert public in F.__all__, f"{name}: no function"
        assert MODULE_OF.get(row.symbol, row.symbol) in nn.__all__, f"{name}: no module"
        assert len(row.parameters) == len(row.defaults), name
        # Its parameters are the function's, in this order.
        parameters = inspect.signature(getattr(F, public)).parameters
        assert tuple(p for p in parameters if p not in ("input", "inplace", "approximate")) == (
            row.parameters
        ), name
        assert tuple(parameters[p].default for p in row.parameters) == row.defaults
    for family in families("fastact").values():
        for op in (
            family.forward, family.backward, family.double_backward, *family.others.values()
        ):  # fmt: skip
            if op is not None:
                assert torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "CPU"), op
                assert torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "Meta"), op
        for suffix in ("", "Backward", "DoubleBackward"):
            function = getattr(fastact.autograd, family.symbol + suffix)
            assert issubclass(function, torch.autograd.Function)
        symbol = MODULE_OF.get(family.symbol, family.symbol)
        assert symbol in nn.__all__ or family.name == "sigmoid_mul", family.symbol
        if not hasattr(family, "activation"):
            assert FUNCTION_OF.get(family.name, family.name) in F.__all__, family.name
    assert set(GATES) <= set(ACTIVATIONS)


def test_every_struct_has_a_row():
    """The list in activations.h, by the names in its structs, is the registry's."""
    text = (ROOT / "csrc/formulas/activations.h").read_text()
    names = dict(re.findall(r"struct (\w+) :[^}]*?name = \"(\w+)\"", text))

    def listed(which):
        (body,) = re.findall(rf"using {which} = List<([^>]+)>", text)
        return [names[struct.strip()] for struct in body.split(",")]

    assert sorted(listed("Activations")) == sorted(ACTIVATIONS)
    assert sorted(listed("Gates")) == sorted(GATES)
    assert sorted(names.values()) == sorted(ACTIVATIONS)
    for name, row in ACTIVATIONS.items():
        struct = text[text.index(f'name = "{name}"') :].split("\n};")[0]
        arity = re.search(r"arity = (\d)", struct)
        assert int(arity[1] if arity else 0) == len(row.parameters), name


def test_every_name_is_documented():
    """CONTRIBUTING, README and docs name what exists; a name in none of them is missing there."""
    texts = [p for p in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if p.exists()]
    text = "".join(p.read_text() for p in texts)
    if len(text) < 1000:
        pytest.skip("the documentation is not written yet")
    # Prose says "leaky ReLU", tables and code say leaky_relu.
    text = text.lower().replace("_", "").replace(" ", "")
    assert not [n for n in F.__all__ if n.replace("_", "") not in text]


def test_docstrings():
    """One sentence, arguments, errors, an example and a source, for every function."""
    for name in F.__all__:
        doc = inspect.getdoc(getattr(F, name))  # without indentation in every Python
        for part in ("Args:", "Raises:", "Example:", ">>>", "float32"):
            assert part in doc, f"{name}: {part}"
        assert re.search(r"Sources?:", doc), f"{name}: Source"
        for parameter in inspect.signature(getattr(F, name)).parameters:
            if parameter.startswith("_"):  # torch's own, of softmax
                continue
            assert f"    {parameter}:" in doc, f"{name}: {parameter}"
    for name in nn.__all__:
        assert getattr(nn, name).__doc__, name


def test_the_package_offers_what_is_loaded_later_too():
    assert dir(fastact) == sorted(fastact.__all__)
    assert {"replace", "restore", "distributed"} <= set(dir(fastact))
