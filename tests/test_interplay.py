"""With the rest of torch that a training script uses: each of these in one small training run."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import support
import torch
from losses import make, targets
from torch import nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

import fastact
from fastact import functional as F


class Theirs:
    """torch's functions under fastact's names."""

    gelu = staticmethod(nn.functional.gelu)
    silu_mul = staticmethod(lambda gate, up: nn.functional.silu(gate) * up)
    cross_entropy = staticmethod(nn.functional.cross_entropy)


class Mlp(nn.Module):
    def __init__(self, module):
        super().__init__()
        torch.manual_seed(7)
        self.module = module
        self.gate, self.up, self.head = nn.Linear(8, 24), nn.Linear(8, 24), nn.Linear(24, 10)

    def hidden(self, x):
        return self.module.gelu(self.module.silu_mul(self.gate(x), self.up(x)))

    def forward(self, x, target):
        return self.module.cross_entropy(self.head(self.hidden(x)), target)


class Checkpointed(Mlp):
    def __init__(self, module, use_reentrant):
        super().__init__(module)
        self.use_reentrant = use_reentrant

    def forward(self, x, target):
        hidden = checkpoint(self.hidden, x, use_reentrant=self.use_reentrant)
        return self.module.cross_entropy(self.head(hidden), target)


BATCHES = [(make(12, 8, seed=i), targets(make(12, 10), seed=i)) for i in range(4)]


def train(net, step):
    """Losses of a few steps, and the parameters after them."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    losses = []
    for x, target in BATCHES:
        optimizer.zero_grad()
        losses.append(step(net, optimizer, x, target).detach())
    return torch.stack(losses), [p.detach() for p in net.parameters()]


def plain_step(net, optimizer, x, target):
    loss = net(x, target)
    loss.backward()
    optimizer.step()
    return loss


def assert_same_training(ours, theirs, rtol=1e-5, atol=1e-6):
    torch.testing.assert_close(ours[0], theirs[0], rtol=rtol, atol=atol)
    for a, b in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_and_grad_scaler(dtype):
    def with_scaler():
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)

        def step(net, optimizer, x, target):
            with torch.autocast("cpu", dtype):
                loss = net(x, target)
            assert loss.dtype == torch.float32
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            return loss

        return step, scaler

    (step, scaler), (their_step, _) = with_scaler(), with_scaler()
    ours = train(Mlp(F), step)
    assert scaler.get_scale() == 2.0**12  # it has grown twice: no gradient was infinite
    assert_same_training(ours, train(Mlp(Theirs), their_step), rtol=2e-2, atol=1e-2)


def test_grad_scaler_sees_an_infinite_gradient():
    net, scaler = Mlp(F), torch.amp.GradScaler("cpu", init_scale=2.0**120)
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    x, target = BATCHES[0]
    scaler.scale(net(x * 1e5, target)).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**119
    assert all(torch.equal(p, before[name]) for name, p in net.state_dict().items())


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpoint(use_reentrant):
    def step(net, optimizer, x, target):
        return plain_step(net, optimizer, x.requires_grad_(use_reentrant), target)

    assert_same_training(train(Checkpointed(F, use_reentrant), step), train(Mlp(F), plain_step))


@pytest.mark.parametrize("expected", [None, 1.0])
def test_compiled_autograd(expected):
    x = make(5, 12, dtype=torch.float64).requires_grad_()
    target = targets(x)

    def loss():
        z = F.silu_mul(F.gelu(x), x).softmax(1)
        return F.cross_entropy(z, target, expected_grad=expected)

    (want,) = torch.autograd.grad(loss(), x)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(compiled_autograd=True):
        torch.compile(loss().backward, backend="eager")()
    torch.testing.assert_close(x.grad, want)


class Tripled(TorchFunctionMode):
    """What some ops return, as a mode that replaces or watches results may change it."""

    def __init__(self, ops):
        super().__init__()
        self.ops = ops

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        if func not in self.ops:
            return result
        return result * 3 if isinstance(result, torch.Tensor) else (result[0] * 3, *result[1:])


def test_what_a_function_mode_adds_is_differentiated():
    ops = torch.ops.fastact
    loss = ops.cross_entropy.default
    x, target = make(5, 12, dtype=torch.float64), targets(make(5, 12))
    for call, op in (
        (F.gelu, ops.gelu.default),
        (lambda x: F.silu_mul(x, x), ops.silu_mul.default),
        (F.swiglu, ops.silu_glu.default),
        (lambda x: F.softmax(x, 1), ops.softmax.default),
        (lambda x: F.nll_loss(x, target), ops.nll_loss.default),
        (lambda x: F.cross_entropy(x, target, expected_grad=1), loss),
        (lambda x: F.cross_entropy(x * 1, target, inplace_backward=True), loss),
    ):
        plain, changed = x.clone().requires_grad_(), x.clone().requires_grad_()
        want = call(plain)
        want.square().sum().backward()
        with Tripled([op]):
            got = call(changed)
            got.square().sum().backward()
        torch.testing.assert_close(got, want * 3)
        torch.testing.assert_close(changed.grad, plain.grad * 9)


def test_functional_call():
    net, other = Mlp(F), Mlp(F)
    for p in other.parameters():
        p.data.mul_(1.5)
    x, target = BATCHES[0]
    parameters = dict(other.named_parameters())
    loss = functional_call(net, parameters, (x, target))
    grads = torch.autograd.grad(loss, list(parameters.values()))
    expected = other(x, target)
    assert torch.equal(loss, expected)
    for a, b in zip(grads, torch.autograd.grad(expected, list(other.parameters())), strict=True):
        assert torch.equal(a, b)
    by_transform = torch.func.grad(lambda p: functional_call(net, p, (x, target)))(
        {name: p.detach() for name, p in parameters.items()}
    )
    for name, grad in zip(parameters, grads, strict=True):
        torch.testing.assert_close(by_transform[name], grad)


def test_channels_last():
    """The format goes through a net and back, and nothing is converted on the way."""

    def net(activation, gated):
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), activation, nn.Conv2d(8, 8, 3), gated,
            nn.Conv2d(4, 6, 1), nn.Flatten(2),
        ).to(memory_format=torch.channels_last)  # fmt: skip

    formats = []

    def watch(module, _, output):
        formats.append(output.is_contiguous(memory_format=torch.channels_last))
        output.register_hook(
            lambda g: formats.append(g.is_contiguous(memory_format=torch.channels_last))
        )

    results = []
    for made in (net(fastact.nn.SiLU(), fastact.nn.GLU(1)), net(nn.SiLU(), nn.GLU(1))):
        for layer in made[:4]:
            layer.register_forward_hook(watch)
        x = make(2, 3, 9, 7).to(memory_format=torch.channels_last).requires_grad_()
        loss = F.cross_entropy(made(x), targets(make(2, 6, 35)))
        loss.backward()
        assert x.grad.is_contiguous(memory_format=torch.channels_last)
        if not results:  # ours: torch's glu returns a contiguous gradient
            assert all(formats)
            assert len(formats) == 8
        results.append((loss.detach(), [x.grad, *(p.grad for p in made.parameters())]))
    assert_same_training(*results)


@pytest.mark.parametrize("name", support.BACKENDS)
def test_multi_threaded_inference(name):
    """One model, several Python threads: each gets the answer to its own question."""
    net = nn.Sequential(nn.Linear(16, 64), fastact.nn.GELU("tanh"), fastact.nn.SwiGLU()).eval()
    questions = [make(n, 16, seed=n) for n in range(1, 400, 13)]
    with fastact.backend(name), torch.inference_mode():
        expected = [net(x) for x in questions]
        with ThreadPoolExecutor(4) as pool:
            for _ in range(5):
                for got, want in zip(pool.map(net, questions), expected, strict=True):
                    assert torch.equal(got, want)


class Samples(Dataset):
    """Samples that are computed where they are asked for."""

    def __init__(self, backend):
        self.backend = backend

    def __len__(self):
        return 6

    def __getitem__(self, index):
        with fastact.backend(self.backend):
            x = make(3000, 8, seed=index)
            y = F.swiglu(F.gelu(x))
            loss = F.cross_entropy(x, targets(x)) if self.backend == "compiled" else x.sum()
            return y, loss, torch.tensor(torch.utils.data.get_worker_info() is not None)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("name", support.BACKENDS)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_data_loader_workers(method, name):
    if method not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    samples = Samples(name)
    expected = [samples[i] for i in range(len(samples))]  # threads exist before the fork
    loader = DataLoader(samples, batch_size=None, num_workers=1, multiprocessing_context=method)
    for (y, loss, in_worker), (want, want_loss, _) in zip(loader, expected, strict=True):
        assert in_worker
        assert torch.equal(y, want)
        assert torch.equal(loss, want_loss)
