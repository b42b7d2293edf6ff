"""Uses an installed fastact once: what a new user would notice first.

    python tools/smoke.py compiled|numba

The argument is the backend that has to answer.
"""

import subprocess
import sys

import torch

import fastact

print("fastact", fastact.__version__, "on torch", torch.__version__)
for info in fastact.backends():
    print(f"  {info.name:9} {'yes' if info.available else 'no '}  {info.detail}")

torch.manual_seed(0)
x = torch.randn(64, 4096, requires_grad=True)
best = sys.argv[1]
available = [info.name for info in fastact.backends() if info.available]
assert available[0] == best, f"expected {best} to be the best backend"
for name in (*available, "auto"):
    with fastact.backend(name):
        y = fastact.functional.gelu(x)
        (gradient,) = torch.autograd.grad(y.sum(), x)
    exact = torch.nn.functional.gelu(x.double())
    assert torch.allclose(y.double(), exact, atol=1e-5), name  # torch's own is up to 1.1e-6 off
    assert gradient.isfinite().all(), name

model = torch.nn.Sequential(torch.nn.Linear(8, 8), fastact.nn.SiLU(), torch.nn.Linear(8, 1))
model(torch.randn(4, 8)).sum().backward()

# Without the extra the command line says in a sentence what it lacks.
run = subprocess.run(
    [sys.executable, "-m", "fastact", "doctor"], capture_output=True, text=True, check=False
)
assert (run.returncode, run.stdout) == (2, ""), run
assert run.stderr.count("\n") == 1, run
assert "pip install 'fastact[cli]'" in run.stderr, run
print("smoke test passed")
