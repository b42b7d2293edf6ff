"""Bad input: torch's type of exception, a message that names the argument and shows what came,
and nothing written before the checks have passed.
"""

import pytest
import torch
import torch.nn.functional as TF
from support import ACTIVATIONS, INPLACE, labels

import fastact
from fastact import functional as F

X = torch.randn(4)
M = torch.randn(4, 6)

# (what, call, torch's call or None, exception, parts of the message)
TABLE = [
    ("list", lambda: F.gelu([1.0]), lambda: TF.gelu([1.0]), TypeError,
     ["gelu()", "'input'", "list"]),
    ("None", lambda: F.relu(None), lambda: TF.relu(None), TypeError, ["relu()", "'input'", "None"]),
    ("numpy", lambda: F.silu(X.numpy()), lambda: TF.silu(X.numpy()), TypeError,
     ["silu()", "'input'", "ndarray"]),
    ("approximate", lambda: F.gelu(X, "exact"), lambda: TF.gelu(X, approximate="exact"),
     RuntimeError, ["gelu()", "approximate", "'none'", "'tanh'", "'exact'"]),
    ("approximate of geglu", lambda: F.geglu(M, "x"), None, RuntimeError,
     ["geglu()", "approximate", "'x'"]),
    ("approximate of gelu_mul", lambda: F.gelu_mul(M, M, "x"), None, RuntimeError,
     ["gelu_mul()", "approximate", "'x'"]),
    ("approximate None", lambda: F.gelu(X, None), lambda: TF.gelu(X, approximate=None), TypeError,
     ["gelu()", "approximate", "None"]),
    ("approximate number", lambda: F.gelu(X, 3), lambda: TF.gelu(X, approximate=3), TypeError,
     ["gelu()", "approximate", "int"]),
    ("negative_slope str", lambda: F.leaky_relu(X, "a"), lambda: TF.leaky_relu(X, "a"), TypeError,
     ["leaky_relu()", "negative_slope", "str"]),
    ("negative_slope None", lambda: F.leaky_relu(X, None), lambda: TF.leaky_relu(X, None),
     TypeError, ["leaky_relu()", "negative_slope", "None"]),
    ("alpha str", lambda: F.elu(X, "a"), lambda: TF.elu(X, "a"), TypeError,
     ["elu()", "alpha", "str"]),
    ("alpha str, in place", lambda: F.elu(X.clone(), "a", True),
     lambda: TF.elu(X.clone(), "a", True), TypeError, ["elu()", "alpha", "str"]),
    ("beta list", lambda: F.softplus(X, [1]), lambda: TF.softplus(X, [1]), TypeError,
     ["softplus()", "beta", "list"]),
    ("beta of two", lambda: F.softplus(X, torch.ones(2)), lambda: TF.softplus(X, torch.ones(2)),
     TypeError, ["softplus()", "beta", "Tensor"]),
    ("alpha of two", lambda: F.celu(X, torch.ones(2)), lambda: TF.celu(X, torch.ones(2)), TypeError,
     ["celu()", "alpha", "Tensor"]),
    ("alpha of celu 0", lambda: F.celu(X, 0.0), lambda: TF.celu(X, 0.0), RuntimeError,
     ["celu()", "alpha", "zero"]),
    ("odd", lambda: F.swiglu(torch.randn(3, 5)), lambda: TF.glu(torch.randn(3, 5)), RuntimeError,
     ["swiglu()", "'input'", "(3, 5)", "even"]),
    ("odd glu", lambda: F.glu(torch.randn(3, 4), 0), lambda: TF.glu(torch.randn(3, 4), 0),
     RuntimeError, ["glu()", "'input'", "(3, 4)", "dimension 0", "3"]),
    ("no dimension", lambda: F.geglu(torch.randn(())), lambda: TF.glu(torch.randn(())),
     RuntimeError, ["geglu()", "'input'"]),
    ("dim of swiglu", lambda: F.swiglu(M, 2), lambda: TF.glu(M, 2), IndexError,
     ["swiglu()", "[-2, 1]", "2"]),
    ("odd dim", lambda: F.geglu(torch.randn(3, 4), "tanh", 0), lambda: TF.glu(torch.randn(3, 4), 0),
     RuntimeError, ["geglu()", "dimension 0", "3"]),
    ("dim too large", lambda: F.glu(M, 2), lambda: TF.glu(M, 2), IndexError, ["[-2, 1]", "2"]),
    ("dim too small", lambda: F.glu(M, -3), lambda: TF.glu(M, -3), IndexError, ["[-2, 1]", "-3"]),
    ("dim str", lambda: F.glu(M, "a"), lambda: TF.glu(M, "a"), TypeError, ["glu()", "dim", "str"]),
    ("dim float", lambda: F.glu(M, 1.0), lambda: TF.glu(M, 1.0), TypeError,
     ["glu()", "dim", "float"]),
    ("shapes", lambda: F.silu_mul(M, M[:, :5]), lambda: TF.silu(M) * M[:, :5], RuntimeError,
     ["silu_mul()", "gate", "up", "(4, 6)", "(4, 5)"]),
    ("dimensions", lambda: F.relu_mul(M, M[0]), None, RuntimeError,
     ["relu_mul()", "gate", "up", "(4, 6)", "(6,)"]),
    ("dtypes", lambda: F.gelu_mul(M, M.double()), None, RuntimeError,
     ["gelu_mul()", "gate", "up", "float32", "float64"]),
    ("up is a number", lambda: F.silu_mul(M, 2.0), None, TypeError,
     ["silu_mul()", "'up'", "float"]),
    ("gate is a list", lambda: F.silu_mul([1.0], M), None, TypeError,
     ["silu_mul()", "'gate'", "list"]),
    ("leaf in place", lambda: F.relu(X.clone().requires_grad_(), True),
     lambda: TF.relu(X.clone().requires_grad_(), True), RuntimeError, ["leaf"]),
    ("expanded in place", lambda: F.relu(X[:1].clone().expand(3), True),
     lambda: TF.relu(X[:1].clone().expand(3), True), RuntimeError, ["memory"]),
    ("module argument", lambda: fastact.nn.GELU("bad")(X), lambda: torch.nn.GELU("bad")(X),
     RuntimeError, ["approximate", "'bad'"]),
]  # fmt: skip


@pytest.mark.parametrize("backend", ["compiled", "auto", "torch"])
@pytest.mark.parametrize(("call", "theirs", "error", "parts"), [row[1:] for row in TABLE],
                         ids=[row[0] for row in TABLE])  # fmt: skip
def test_bad_input(call, theirs, error, parts, backend):
    if theirs is not None:
        with pytest.raises(error):
            theirs()
    with fastact.backend(backend), pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error or backend != "compiled"
    if backend == "compiled":
        missing = [part for part in parts if part not in str(caught.value)]
        assert not missing, f"{missing} not in: {caught.value}"
        # One readable line: no C++ file, no stack.
        assert ".cpp" not in str(caught.value)
        assert "\n" not in str(caught.value).strip()


def test_alpha_of_celu_may_be_a_tensor_but_not_zero():
    """torch's refuses one with a dimension."""
    torch.testing.assert_close(F.celu(X, torch.tensor(0.5)), TF.celu(X, 0.5))
    with pytest.raises(RuntimeError, match=r"alpha.*zero"):
        F.celu(X, torch.zeros(1))


def test_devices():
    other = torch.ones(4, 6, device="meta")
    for gate, up, name in ((M, other, "up"), (other, M, "gate")):
        with fastact.backend("auto"), pytest.raises(RuntimeError, match=r"(?s)(?=.*cpu)(?=.*meta)"):
            F.silu_mul(gate, up)
        with pytest.raises((RuntimeError, NotImplementedError), match=f"silu_mul.*{name}.*meta"):
            F.silu_mul(gate, up)


def test_large_tensors_get_the_same_errors_in_auto():
    """Above the cutoff our kernels answer, below torch does."""
    large = torch.randn(1000, 1000)
    with fastact.backend("auto"):
        for bad in (
            lambda: F.leaky_relu(large, "a"),
            lambda: F.gelu(large, 3),
            lambda: F.elu(large, None),
        ):
            with pytest.raises(TypeError):
                bad()
        with pytest.raises(RuntimeError, match="celu"):
            F.celu(large, 0.0)


@pytest.mark.parametrize("value", [1, True, torch.tensor(0.25), torch.tensor(0.25).double()])
def test_parameters_that_are_numbers_in_torch(value):
    """Whatever torch takes for a number is taken."""
    x = torch.randn(5, requires_grad=True)
    y, z = F.leaky_relu(x, value), TF.leaky_relu(x, value)
    torch.testing.assert_close(y, z)
    torch.testing.assert_close(*(torch.autograd.grad(t.sum(), x) for t in (y, z)))


@pytest.mark.parametrize("case", [c for c in INPLACE if c.parameters], ids=labels)
def test_nothing_is_written_before_the_checks(case):
    x = torch.full((4,), -0.5)
    with pytest.raises(TypeError):
        getattr(F, case.family)(x, *["bad"] * len(case.parameters), inplace=True)
    assert torch.equal(x, torch.full((4,), -0.5))
    i = torch.full((4,), -5)
    with pytest.raises(NotImplementedError):
        case.inplace(i)
    assert torch.equal(i, torch.full((4,), -5))


def test_registered_ops_check_what_they_read():
    """A direct call with mismatched tensors is refused, not read out of bounds."""
    ops = torch.ops.fastact
    a, b, d = torch.randn(8), torch.randn(4), torch.randn(8).double()
    for bad in (
        lambda: ops.silu_backward(a, b), lambda: ops.silu_backward(a, d),
        lambda: ops.silu_mul(a, b), lambda: ops.silu_mul(a, d),
        lambda: ops.silu_double_backward(b, a, a), lambda: ops.silu_mul_backward(b, a, a),
        lambda: ops.silu_mul_double_backward(a, a, b, a, a),
        lambda: ops.silu_glu(torch.randn(5), 0, True), lambda: ops.silu_glu(a, 1, True),
        lambda: ops.silu_glu(a, -2, True), lambda: ops.silu_glu_backward(a, a, 0, True),
        lambda: ops.silu_glu_double_backward(b, b, a, 0, True), lambda: ops.silu(torch.arange(4)),
        lambda: ops.silu(torch.randn(4, dtype=torch.complex64)),
        lambda: ops.silu_backward(a, a[:1]), lambda: ops.silu_backward(a[:1], a),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="fastact::"):
            bad()


def test_every_function_checks_its_input():
    for name in F.__all__:
        function = getattr(F, name)
        two = name.endswith(("_mul", "_loss", "entropy", "with_logits"))
        arguments = [torch.ones(4)] if two else [1] if name.endswith("softmax") else []
        with pytest.raises(TypeError, match=rf"{name}\(\): argument '(input|gate)'.*not str"):
            function("text", *arguments)
    assert len(ACTIVATIONS) <= len(F.__all__)
