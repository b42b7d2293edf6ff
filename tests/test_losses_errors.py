"""Bad input to the losses: torch's type of exception, and a message that says what came."""

import pytest
import torch
import torch.nn.functional as TF
from losses import make, probabilities

import fastact
from fastact import functional as F

X = make(4, 6)
IMAGE = make(2, 6, 3)
I = torch.tensor([0, 5, 2, 1])  # noqa: E741
CE = F.cross_entropy


def ce(*args, **kwargs):
    """The same call of ours and of torch's."""
    return lambda: CE(*args, **kwargs), lambda: TF.cross_entropy(*args, **kwargs)


def nll(*args, **kwargs):
    return lambda: F.nll_loss(*args, **kwargs), lambda: TF.nll_loss(*args, **kwargs)


def bce(*args, **kwargs):
    return (lambda: F.binary_cross_entropy_with_logits(*args, **kwargs),
            lambda: TF.binary_cross_entropy_with_logits(*args, **kwargs))  # fmt: skip


def own(**kwargs):
    return lambda: CE(X, I, **kwargs), None


def bad(position, value, shape=(4,)):
    target = torch.zeros(shape, dtype=torch.int64)
    target[position] = value
    return target


# (what, (ours, torch's or None), exception, parts of the message)
TABLE = [
    ("too high", ce(X, bad(2, 6)), IndexError, ["6", "target[2]", "6 classes", "-100"]),
    ("negative", ce(X, bad(3, -1)), IndexError, ["-1", "target[3]", "6 classes"]),
    ("in an image", ce(IMAGE, bad((1, 2), 9, (2, 3))), IndexError, ["9", "target[1, 2]"]),
    ("not the one ignored", ce(X, bad(1, -100), ignore_index=-1), IndexError,
     ["-100", "target[1]", "(-1)"]),
    ("the first of several", ce(X, torch.tensor([0, 7, 8, 0])), IndexError, ["7", "target[1]"]),
    ("far off", ce(X, bad(2, 2**40)), IndexError, [str(2**40), "target[2]"]),
    ("uint8", ce(X, bad(2, 250).to(torch.uint8)), IndexError, ["250", "target[2]"]),
    ("unbatched", ce(X[0], torch.tensor(6)), IndexError, ["6", "target"]),
    ("nll", nll(X, bad(2, 6)), IndexError, ["nll_loss()", "6", "target[2]", "6 classes"]),
    ("int32", ce(X, I.int()), RuntimeError, ["int32", "Long"]),
    ("float targets", ce(X, I.float()), RuntimeError, ["float32"]),
    ("int probabilities", ce(X, X.long()), RuntimeError, ["int64"]),
    ("batch sizes", ce(X, I[:3]), ValueError, ["4", "3"]),
    ("positions", ce(IMAGE, bad(0, 0, (2, 4))), RuntimeError, ["[2, 6, 3]", "[2, 4]"]),
    ("too few dimensions", ce(IMAGE, bad(0, 0, (2,))), None, ["(2, 6, 3)", "(2,)"]),
    ("too many dimensions", ce(X, bad(0, 0, (4, 2))), None, ["(4, 6)", "(4, 2)"]),
    ("no dimension", ce(torch.tensor(1.0), torch.tensor(0)), None, ["cross_entropy()"]),
    ("unbatched targets", ce(X[0], I), None, ["(6,)", "(4,)"]),
    ("weight's size", ce(X, I, torch.ones(5)), RuntimeError, ["6 classes", "[5]"]),
    ("weight's rank", ce(X, I, torch.ones(6, 1)), RuntimeError, ["6 classes", "[6, 1]"]),
    ("weight's dtype", ce(X, I, torch.ones(6).double()), RuntimeError, ["float32", "float64"]),
    ("weight of probabilities", ce(X, probabilities(X), torch.ones(5)), RuntimeError, ["[5]"]),
    ("reduction", ce(X, I, reduction="avg"), ValueError, ["avg", "reduction"]),
    ("negative smoothing", own(label_smoothing=-0.1), RuntimeError,  # which torch takes for 0
     ["label_smoothing", "-0.1"]),
    ("smoothing above 1", ce(X, I, label_smoothing=1.1), RuntimeError, ["label_smoothing", "1.1"]),
    ("ignore_index of probabilities", ce(X, probabilities(X), ignore_index=2), RuntimeError,
     ["ignore_index", "2"]),
    ("ignore_index is a float", ce(X, I, ignore_index=1.0), TypeError, ["'ignore_index'", "float"]),
    ("smoothing is a str", ce(X, I, label_smoothing="a"), TypeError, ["'label_smoothing'", "str"]),
    ("ignore_index is a bool", ce(X, I, ignore_index=True), TypeError, ["'ignore_index'", "bool"]),
    ("nll ignore_index", nll(X, I, ignore_index=None), TypeError, ["'ignore_index'", "NoneType"]),
    ("input is a list", ce([1.0], I), TypeError, ["'input'", "list"]),
    ("target is a list", ce(X, [1, 2, 3, 4]), TypeError, ["'target'", "list"]),
    ("weight is a list", ce(X, I, [1.0] * 6), TypeError, ["'weight'", "list"]),
    ("integer logits", ce(X.long(), I), None, ["int64"]),
    ("nll reduction", nll(X, I, reduction="x"), ValueError, ["'x'", "reduction"]),
    ("nll batch", nll(X, I[:3]), ValueError, ["4", "3"]),
    ("nll weight", nll(X, I, torch.ones(5)), RuntimeError, ["[5]"]),
    ("nll floats", nll(X, X), RuntimeError, ["float32"]),
    ("bce size", bce(X, X[:3]), ValueError, ["[4, 6]", "[3, 6]"]),
    ("bce weight", bce(X, X, torch.ones(5)), RuntimeError, ["(5,)", "(4, 6)"]),
    ("bce pos_weight", bce(X, X, pos_weight=torch.ones(5)), RuntimeError, ["pos_weight", "(5,)"]),
    ("bce reduction", bce(X, X, reduction="x"), ValueError, ["'x'", "reduction"]),
    ("bce list", bce(X, [1.0]), None, ["'target'", "list"]),
    ("softmax dim", (lambda: F.softmax(X, 2), lambda: TF.softmax(X, 2)), IndexError,
     ["softmax()", "2", "[-2, 1]"]),
    ("log_softmax dim", (lambda: F.log_softmax(X, -3), lambda: TF.log_softmax(X, -3)), IndexError,
     ["log_softmax()", "-3"]),
    ("dim is a str", (lambda: F.softmax(X, "a"), lambda: TF.softmax(X, "a")), None,
     ["'dim'", "str"]),
    ("dtype is a device", (lambda: F.softmax(X, 1, dtype="cpu"),
                           lambda: TF.softmax(X, 1, dtype="cpu")), TypeError, ["'dtype'", "str"]),
    ("dim is a bool", (lambda: F.softmax(X, True), lambda: TF.softmax(X, True)), TypeError,
     ["'dim'", "bool"]),
    ("softmax of a list", (lambda: F.softmax([1.0], 0), None), TypeError, ["'input'", "list"]),
    ("integers", (lambda: F.softmax(X.long(), 1), lambda: TF.softmax(X.long(), 1)), None,
     ["int64"]),
    ("z_loss below 0", own(z_loss=-1.0), ValueError, ["z_loss", "-1"]),
    ("z_loss is a str", own(z_loss="a"), TypeError, ["z_loss", "str"]),
    ("z_loss is NaN", own(z_loss=float("nan")), ValueError, ["z_loss", "nan"]),
    ("softcap below 0", own(softcap=-1.0), ValueError, ["softcap", "-1"]),
    ("softcap 0", own(softcap=0.0), ValueError, ["softcap", "0"]),
    ("softcap without a bound", own(softcap=float("inf")), ValueError, ["softcap", "inf"]),
    ("softcap is a str", own(softcap="a"), TypeError, ["softcap", "str"]),
    ("normalizer of a sum", own(normalizer=2.0, reduction="sum"), ValueError,
     ["normalizer", "sum"]),
    ("normalizer without a reduction", own(normalizer=2.0, reduction="none"), ValueError,
     ["normalizer", "none"]),
    ("normalizers", own(normalizer=torch.ones(2)), ValueError, ["normalizer", "(2,)"]),
    ("normalizer is a str", own(normalizer="a"), TypeError, ["normalizer", "str"]),
]  # fmt: skip


@pytest.mark.parametrize("backend", ["compiled", "auto", "torch"])
@pytest.mark.parametrize(("calls", "error", "parts"), [row[1:] for row in TABLE],
                         ids=[row[0] for row in TABLE])  # fmt: skip
def test_bad_input(calls, error, parts, backend):
    ours, theirs = calls
    if theirs is not None:
        with pytest.raises(error or Exception):
            theirs()
    with fastact.backend(backend), pytest.raises(error or Exception) as caught:
        ours()
    assert isinstance(caught.value, (RuntimeError, ValueError, TypeError, LookupError))
    if backend == "compiled" or "target[2]" in parts or (backend, error) == ("auto", TypeError):
        message = str(caught.value)
        # The softmax of torch 2.10 and 2.11 lists the types of all arguments and names none.
        listed = "softmax() received an invalid combination"
        lists = backend == "auto" and message.startswith(listed)
        missing = [part for part in parts[lists:] if part not in message]
        assert not missing, f"{missing} not in: {message}"
        assert ".cpp" not in message
        assert lists or "\n" not in message.strip()


@pytest.mark.parametrize("rows", [10, 100_000])
def test_the_first_target_out_of_range_among_many(rows):
    """Whichever thread found one first."""
    x, target = torch.zeros(rows, 3), torch.zeros(rows, dtype=torch.int64)
    target[rows // 2 :] = 7
    target[rows // 2] = 5
    with pytest.raises(IndexError, match=rf"5 .*target\[{rows // 2}\]"):
        CE(x, target)


@pytest.mark.parametrize("call", [F.cross_entropy, F.nll_loss])
def test_a_target_out_of_range_under_transforms(call):
    target = bad(2, 6)
    message = rf"Target 6 is out of bounds: target\[2\] .* {X.shape[1]} classes"
    with pytest.raises(IndexError, match=message):
        torch.func.grad(lambda x: call(x, target))(X)
    with pytest.raises(IndexError, match=message):
        torch.func.jvp(lambda x: call(x, target), (X,), (X,))
    with pytest.raises(IndexError, match=message):
        torch.vmap(lambda x: call(x, target))(torch.stack([X, X]))
    # The position would be that of the batch, which the function does not see.
    with pytest.raises(IndexError, match=r"Target 6 is out of bounds: target is not .* 6 classes"):
        torch.vmap(call)(X[:, None], target[:, None])
    with pytest.raises(IndexError, match="Target 6 is out of bounds: target is not"):
        torch.vmap(torch.func.grad(call))(X[:, None], target[:, None])


def test_a_strided_target_is_named_by_its_own_position():
    target = torch.zeros(6, 4, dtype=torch.int64)
    target[2, 3] = 8
    with pytest.raises(IndexError, match=r"target\[3, 2\]"):
        CE(make(4, 6, 6), target.t())


def test_nothing_is_written_and_nothing_recorded_before_the_checks():
    x = X.clone().requires_grad_()
    logits = x * 1
    for options in ({}, {"reduction": "none", "softcap": 2.0}):
        with pytest.raises(IndexError):
            CE(logits, bad(2, 6), inplace_backward=True, **options)
    assert torch.equal(logits, x)
    assert logits._version == 0


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_registered_ops_check_what_they_read(name):
    """A direct call is refused, not read out of bounds."""
    op = getattr(torch.ops.fastact, name)
    rest = (1, -100) + ((0.0, 0.0, 0.0, False, False, False) if name == "cross_entropy" else ())
    for args in (
        (X, bad(2, 6), None), (X, bad(2, -1), None), (X, I[:3], None), (X, I, torch.ones(5)),
        (X, I.int(), None), (X, X.double(), None), (torch.tensor(1.0), torch.tensor(0), None),
        (X.long(), I, None), (X, I, torch.ones(6, 1)),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="fastact::"):
            op(*args, *rest)


def test_registered_derivatives_check_what_they_read():
    ops = torch.ops.fastact
    constants = (0, -100, 0.0, 0.0, 0.0, False, False, False)
    loss, _, _, stats, total = ops.cross_entropy(X, I, None, *constants)
    short = (loss[:3], None, None, X, I, None, stats, total)
    for args in (
        short, (loss, None, None, X, bad(2, 6), None, stats, total),
        (loss, None, None, X, I, None, stats[:1], total),
        (loss, None, None, X, I, None, stats.double(), total),
        (loss, None, None, X[:, :5], I[:3], None, stats, total),
        (loss, loss[:2], None, X, I, None, stats, total),
    ):  # fmt: skip
        for op in (ops.cross_entropy_backward, lambda *a: ops.cross_entropy_double_backward(X, *a)):
            with pytest.raises(RuntimeError, match="fastact::"):
                op(*args, *constants)
    y = X.softmax(1)
    for name in ("softmax", "log_softmax"):
        for call in (
            lambda n=name: getattr(ops, n)(X, 2), lambda n=name: getattr(ops, n)(X, -1),
            lambda n=name: getattr(ops, n + "_backward")(X[:3], y, 1),
            lambda n=name: getattr(ops, n + "_backward")(X.double(), y, 1),
            lambda n=name: getattr(ops, n + "_double_backward")(X[:3], X, y, 1),
        ):  # fmt: skip
            with pytest.raises(RuntimeError, match="fastact::"):
                call()
    for call in (
        lambda: ops.bce_with_logits(X, X[:3], None, None, 1),
        lambda: ops.bce_with_logits(X, X, torch.ones(6), None, 1),
        lambda: ops.bce_with_logits_backward(X[:3], X, X, None, None, 0),
        lambda: ops.bce_with_logits_backward(X, X, X, None, None, 1),
    ):
        with pytest.raises(RuntimeError, match="fastact::"):
            call()


def test_meta_tensors_go_to_torch():
    """There autocast cannot even be asked for."""
    x = torch.empty(40, 60, device="meta")
    target = torch.empty(40, dtype=torch.int64, device="meta")
    for backend in ("auto", "torch"):
        with fastact.backend(backend):
            for loss in (CE(x, target), CE(x, x), CE(x, target, z_loss=0.1), F.nll_loss(x, target),
                         F.binary_cross_entropy_with_logits(x, x)):  # fmt: skip
                assert loss.shape == ()
                assert loss.is_meta


def test_devices():
    other = torch.zeros(4, dtype=torch.int64, device="meta")
    with pytest.raises(RuntimeError, match=r"(?s)(?=.*cpu)(?=.*meta)"):
        CE(X, other)
    with pytest.raises(RuntimeError, match=r"(?s)(?=.*cpu)(?=.*meta)"):
        CE(X, I, torch.ones(6, device="meta"))
