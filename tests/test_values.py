"""Value, gradients and second gradients against float64: dtype x layout x instruction set."""

import pytest
import support
import torch
from support import CASES, DTYPES, GATED, ISAS, UNARY, check, labels

from fastact import functional as F

MULS = [case for case in GATED if case.tensors == 2]
PACKED = [case for case in GATED if case.dim is not None]


def second(x):
    """Another tensor of the layout of x."""
    random = torch.randn(1000, generator=support.generator(3))
    size = x.untyped_storage().nbytes() // x.element_size()
    other = random.repeat(size // 1000 + 1)[:size].to(x.dtype)
    return other.as_strided(x.shape, x.stride(), x.storage_offset())


def arguments(case, x):
    return (x,) if case.tensors == 1 else (x, second(x))


@pytest.mark.parametrize("dtype", DTYPES, ids=labels)
@pytest.mark.parametrize("case", CASES, ids=labels)
def test_layouts(case, dtype):
    for name, x in support.layouts(dtype).items():
        tensors = arguments(case, x)
        grad, v = support.cotangents(case, *tensors)
        want = support.expected(case, tensors, grad, v)
        for isa in ISAS:
            with support.use_isa(isa):
                check(case, *tensors, name=f"{name} {isa}", want=want, grad=grad, v=v)


@pytest.mark.parametrize("case", CASES, ids=labels)
def test_layout_of_the_gradient(case):
    """The incoming gradient has a layout of its own: transposed, expanded, with gaps."""
    x = support.layouts(torch.float32)["contiguous"]
    tensors = arguments(case, x)
    shape = case.split(tensors)[0].shape
    grads = {
        "transposed": torch.randn(shape[::-1]).permute(3, 2, 1, 0),
        "expanded": torch.randn(()).expand(shape),
        "strided": torch.randn(*shape[:-1], 2 * shape[-1])[..., ::2],
    }
    for name, grad in grads.items():
        v = tuple(torch.randn(t.shape[::-1]).permute(3, 2, 1, 0) for t in tensors)
        check(case, *tensors, name=f"{name} gradient", grad=grad, v=v)


@pytest.mark.parametrize("case", CASES, ids=labels)
def test_without_recording(case):
    """A call that records nothing takes another way to the same kernel: equal bits and strides."""
    for dtype in DTYPES:
        everything = {**support.layouts(dtype), "long": torch.randn(150_006).to(dtype)}
        if case.dim == 0:
            del everything["long"]
        for name, x in everything.items():
            tensors = arguments(case, x)
            plain = case.function(*tensors)
            recorded = case.function(*(t.detach().requires_grad_() for t in tensors))
            assert recorded.requires_grad
            assert not plain.requires_grad
            assert torch.equal(plain, recorded), f"{case.label} {dtype} {name}"
            assert plain.stride() == recorded.stride(), f"{case.label} {dtype} {name}"


@pytest.mark.parametrize("dtype", DTYPES, ids=labels)
@pytest.mark.parametrize("case", CASES, ids=labels)
def test_lengths_around_the_vector_width(case, dtype):
    """Every length from 1 to 67 is the same as the same elements inside a longer tensor."""
    halves = 1 if case.dim is None else 2
    long = torch.randn(halves, 67).to(dtype) * 2
    other = torch.randn(halves, 67).to(dtype)

    def run(n):
        x = long[:, :n].contiguous().requires_grad_()
        rows = (x, other[:, :n].contiguous().requires_grad_())[: case.tensors]
        if case.dim == -1:
            x = long[:, :n].reshape(-1).clone().requires_grad_()
            rows = (x,)
        y = case.function(*rows)
        grads = torch.autograd.grad(y, rows, torch.ones_like(y), create_graph=True)
        again = torch.autograd.grad(
            sum(g.sum() for g in grads), rows, materialize_grads=True, allow_unused=True
        ) if any(g.requires_grad for g in grads) else ()  # fmt: skip
        return [t.detach().reshape(-1, n) for t in (y, *grads, *again)]

    for isa in ISAS:
        with support.use_isa(isa):
            whole = run(67)
            for n in range(1, 67):
                for got, all_of_it in zip(run(n), whole, strict=True):
                    torch.testing.assert_close(
                        got, all_of_it[:, :n], rtol=0, atol=0,
                        msg=lambda m, n=n, isa=isa: f"{case.label} {dtype} {isa} length {n}: {m}",
                    )  # fmt: skip


@pytest.mark.parametrize("case", [c for c in CASES if c.dim is None], ids=labels)
def test_zero_dim(case):
    for dtype in DTYPES:
        for number in (-1.5, 0.75):
            check(case, *(torch.tensor(number, dtype=dtype),) * case.tensors, name=f"{dtype}")


@pytest.mark.parametrize("layout", list(support.layouts(torch.float32)))
@pytest.mark.parametrize("case", UNARY[:1] + [c for c in CASES if c.family in
                         ("relu", "silu_mul", "silu_glu", "sigmoid_glu")], ids=labels)  # fmt: skip
def test_strides_are_torchs(case, layout):
    x = support.layouts(torch.float32)[layout]
    ours = [t.detach().requires_grad_() for t in arguments(case, x)]
    y, theirs = case.function(*ours), case.torch(*ours)
    with torch.no_grad():
        assert case.function(*ours).stride() == theirs.stride(), f"{case.label} without recording"
    assert y.stride() == theirs.stride(), f"{case.label} value"
    if case.family in ("gelu", "relu"):
        grads = [torch.autograd.grad(t, ours, torch.ones_like(t))[0] for t in (y, theirs)]
        assert grads[0].stride() == grads[1].stride(), f"{case.label} gradient"


@pytest.mark.parametrize("dtype", DTYPES, ids=labels)
@pytest.mark.parametrize("case", MULS, ids=labels)
def test_gate_and_up_of_different_layouts(case, dtype):
    everything = support.layouts(dtype)
    gate = everything["contiguous"]
    buffer = torch.randn(4, 6, 5, 16).to(dtype)
    pairs = {
        "halves of one buffer": buffer.chunk(2, -1),
        "channels last gate": (everything["channels last"], gate),
        "channels last up": (gate, everything["channels last"]),
        "strided gate": (everything["strided"], gate[..., :8].contiguous()),
        "expanded up": (gate, gate[:, :1].expand(gate.shape)),
        "transposed up": (gate, torch.randn(8, 5, 6, 4).to(dtype).permute(3, 2, 1, 0)),
        "same tensor": (gate, gate),
    }
    for name, pair in pairs.items():
        check(case, *pair, name=name)


@pytest.mark.parametrize("case", PACKED, ids=labels)
def test_packed_is_the_gate_of_its_halves(case):
    """Bitwise, and the gradient is written into the halves of one tensor."""
    x = torch.randn(6, 10, requires_grad=True)
    y = case.function(x)
    halves = case.split((x,))
    op = getattr(torch.ops.fastact, case.family.replace("_glu", "_mul")).default
    torch.testing.assert_close(y, op(*halves), rtol=0, atol=0)
    grad = torch.randn_like(y)
    (packed,) = torch.autograd.grad(y, x, grad)
    (joined,) = torch.autograd.grad(op(*halves), x, grad)
    torch.testing.assert_close(packed, joined, rtol=0, atol=0)
    assert packed.is_contiguous()


@pytest.mark.parametrize("case", [case for case in PACKED if case.dim == -1], ids=labels)
@pytest.mark.parametrize("shape", [(4, 6, 8), (2, 3, 4, 6)])
def test_halves_of_every_dim(shape, case):
    shape = tuple(2 * s for s in shape)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    for dim in range(-len(shape), len(shape)):
        y, z = case.function(x, dim=dim), case.torch(x, dim=dim)
        torch.testing.assert_close(y, z, msg=f"dim {dim}")
        grad = torch.randn_like(y)
        ours, theirs = (torch.autograd.grad(t, x, grad)[0] for t in (y, z))
        torch.testing.assert_close(ours, theirs, msg=f"gradient, dim {dim}")


def run_and_measure(run):
    """The result, and the bytes that were allocated on the way to it."""
    with torch.profiler.profile(profile_memory=True) as profile:
        result = run()
    return result, sum(max(event.self_cpu_memory_usage, 0) for event in profile.events())


@pytest.mark.cpu_only
def test_halves_are_not_copied():
    """What is allocated while a gated op runs on halves of one buffer is its results."""
    buffer = torch.randn(64, 2048, requires_grad=True)
    gate, up = buffer.detach().requires_grad_().chunk(2, -1)
    half = gate.numel() * 4
    for name, run, results in (
        ("silu_mul", lambda: F.silu_mul(gate, up), half),
        ("swiglu", lambda: F.swiglu(buffer), half),
        ("glu", lambda: F.glu(buffer), half),
    ):
        y, allocated = run_and_measure(run)
        assert allocated == results, name
        leaves = [gate, up] if name == "silu_mul" else [buffer]
        grad = torch.ones_like(y)
        _, allocated = run_and_measure(lambda y=y, t=leaves, g=grad: torch.autograd.grad(y, t, g))
        assert allocated == 2 * half, f"{name} backward"
