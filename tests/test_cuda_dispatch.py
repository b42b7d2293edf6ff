"""Who answers a CUDA tensor, and in which dtype: by fake tensors, on any machine."""

import enum
import types

import pytest
import torch
import torch.nn.functional as TF
from torch._subclasses.fake_tensor import FakeTensorMode

import fastact
from fastact import _library
from fastact import functional as F


@pytest.fixture
def gpu(monkeypatch):
    """Tensors without memory on a GPU that is not there, and a library that says it serves it."""
    library = _library.cuda()
    monkeypatch.setattr(library, "error", None)
    monkeypatch.setattr(library, "_refusals", {0: ""})
    with fastact.backend("compiled"), FakeTensorMode(allow_non_fake_inputs=True):
        yield library


def empty(*shape, dtype=torch.float32):
    return torch.empty(*shape, dtype=dtype, device="cuda")


FUNCTIONS = {
    "gelu": lambda x: F.gelu(x),
    "silu_mul": lambda x: F.silu_mul(x, x),
    "softmax": lambda x: F.softmax(x, 1),
    "cross_entropy": lambda x: F.cross_entropy(x, x.argmax(1)),
}


@pytest.mark.parametrize("fullgraph", [True, False])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_forced_kernels_are_traced_without_a_break(name, fullgraph, gpu):
    graphs = []

    def backend(graph, _):
        nodes = (str(n.target) for n in graph.graph.nodes if n.op == "call_function")
        graphs.append({n.split(".")[1] for n in nodes if n.startswith("fastact.")})
        return graph.forward

    torch._dynamo.reset()
    torch.compile(FUNCTIONS[name], fullgraph=fullgraph, backend=backend)(empty(8, 16))
    torch._dynamo.reset()
    assert graphs == [{name}]


HALF = (torch.bfloat16, torch.float16)
OPS = {
    "softmax": lambda module, x: module.softmax(x, 1),
    "softmax, dtype": lambda module, x: module.softmax(x, 1, dtype=x.dtype),
    "log_softmax": lambda module, x: module.log_softmax(x, 1),
    "nll_loss": lambda module, x: module.nll_loss(x, x.argmax(1)),
    "cross_entropy": lambda module, x: module.cross_entropy(x, x.argmax(1)),
    "binary_cross_entropy_with_logits":
        lambda module, x: module.binary_cross_entropy_with_logits(x, x),
} | {
    name: lambda module, x, name=name: getattr(module, name)(x)
    for name in sorted(fastact._registry.ACTIVATIONS)
    if hasattr(TF, name) and hasattr(F, name)
}  # fmt: skip


@pytest.mark.parametrize("dtype", [*HALF, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("op", OPS)
def test_dtypes_under_autocast_are_torchs(op, dtype, gpu):
    x = empty(8, 16, dtype=dtype)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", True)  # torch.autocast disables itself where there is no GPU
    try:
        results = [OPS[op](module, x).dtype for module in (F, TF)]
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()
    assert results[0] == results[1]


def test_auto_leaves_gpus_to_torch(gpu):
    with fastact.backend("auto"):
        assert "until our kernels are measured" in fastact._dispatch.refusal(empty(3))
    assert fastact._dispatch.refusal(empty(3)) == ""


# --------------------------------------------------------------------------------------------------
# GPUs that the kernels are not built for


@pytest.fixture
def built(gpu, monkeypatch):
    """For these, on a GPU whose capability is set."""
    monkeypatch.setattr(gpu, "_architectures", [80, 86, 89, 90, 100, 120])
    monkeypatch.setattr(gpu, "detail", "CUDA 13.0 for sm_80, 86, 89, 90, 100, 120")
    monkeypatch.setattr(gpu, "_refusals", {})

    def set_capability(major, minor):
        properties = types.SimpleNamespace(major=major, minor=minor)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)

    return set_capability


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 7), (9, 0), (10, 3), (12, 1), (13, 0)])
def test_gpus_with_a_kernel_image(capability, built, gpu):
    built(*capability)
    assert gpu.refusal(torch.device("cuda:0")) == ""


# Too old for any; and 11.0, whose machine code is no other's and which is older than the PTX.
@pytest.mark.parametrize("capability", [(6, 1), (7, 0), (7, 5), (11, 0)])
def test_gpus_without_one_are_refused_before_a_launch(capability, built, gpu):
    built(*capability)
    message = f"other GPUs than sm_{capability[0]}{capability[1]}: CUDA 13.0 for sm_80"
    with pytest.raises(NotImplementedError, match=message):
        F.gelu(empty(3))


class Properties(enum.Enum):
    """What is asked of torch.cuda's own."""

    H200, T4 = (9, 0), (7, 5)

    @property
    def major(self):
        return self.value[0]

    @property
    def minor(self):
        return self.value[1]


@pytest.mark.parametrize("properties", Properties)
def test_a_first_call_that_is_traced(properties, gpu, monkeypatch):
    """Its GPU is asked by what Dynamo knows."""
    monkeypatch.setattr(gpu, "_architectures", [80, 90])
    monkeypatch.setattr(gpu, "_refusals", {})
    for name, stand_in in (("_lazy_init", lambda: None), ("device_count", lambda: 1),
                           ("_get_device_properties", lambda _: properties)):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in, raising=False)
    torch._dynamo.utils.common_constant_types.add(Properties)  # as torch.cuda's own class is
    torch._dynamo.reset()
    call = torch.compile(lambda x: F.gelu(x) + 1, fullgraph=True, backend="eager")
    if properties is Properties.H200:
        assert call(empty(4)).shape == (4,)
    else:
        with pytest.raises(Exception, match="other GPUs than sm_75"):
            call(empty(4))
    torch._dynamo.reset()


def test_a_gpu_is_asked_once(built, gpu, monkeypatch):
    built(7, 5)
    first = gpu.refusal(torch.device("cuda:0"))
    built(9, 0)
    assert gpu.refusal(torch.device("cuda:0")) == first
    assert gpu.refusal(torch.device("cuda:1")) == ""


def test_backends_name_the_gpus_that_are_refused(built, gpu, monkeypatch):
    """Once CUDA is in use: the question would start it."""
    built(7, 5)
    assert "sm_75" not in fastact.backends()[0].detail
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert "cuda:0: the CUDA kernels are built for other GPUs than sm_75" in (
        fastact.backends()[0].detail
    )
