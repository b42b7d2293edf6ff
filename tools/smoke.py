"""Uses an installed fastact once: what a new user would notice first."""

import torch

import fastact

print("fastact", fastact.__version__, "on torch", torch.__version__)
for info in fastact.backends():
    print(f"  {info.name:9} {'yes' if info.available else 'no '}  {info.detail}")

x = torch.randn(64, 4096, requires_grad=True)
for name in ("compiled", "auto", "torch"):
    with fastact.backend(name):
        y = fastact.functional.gelu(x)
        (gradient,) = torch.autograd.grad(y.sum(), x)
    exact = torch.nn.functional.gelu(x.double())
    assert torch.allclose(y.double(), exact, atol=1e-6), name
    assert gradient.isfinite().all(), name

model = torch.nn.Sequential(torch.nn.Linear(8, 8), fastact.nn.SiLU(), torch.nn.Linear(8, 1))
model(torch.randn(4, 8)).sum().backward()
print("smoke test passed")
