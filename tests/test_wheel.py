"""What an installed package carries beside code: types, a version, scripts."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import fastact

ROOT = Path(__file__).parent.parent
USER = """
import torch
import fastact

x: torch.Tensor = fastact.functional.gelu(torch.ones(3), approximate="tanh")
model = torch.nn.Sequential(fastact.nn.SiLU(), fastact.nn.LeakyReLU(0.1))
with fastact.backend("torch"):
    y: torch.Tensor = model(x)
names: list[str] = [info.name for info in fastact.backends()]
"""


def mypy(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = folder / "user.py"
    path.write_text(code)
    environment = dict(os.environ)
    if Path(fastact.__file__).parent == ROOT / "src" / "fastact":
        environment["MYPYPATH"] = str(ROOT / "src")  # editable: mypy runs no import hooks
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", str(path)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def test_types_are_shipped(tmp_path):
    run = mypy(USER, tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    wrong = mypy(USER + "z: int = fastact.functional.gelu(torch.ones(3))\n", tmp_path)
    assert wrong.returncode == 1
    assert 'expression has type "Tensor"' in wrong.stdout


def test_the_version_is_in_one_place():
    assert importlib.metadata.version("fastact") == fastact.__version__
    literal = re.compile(rf"""["']{re.escape(fastact.__version__)}["']""")
    places = [p for p in (ROOT / "src").rglob("*.py") if literal.search(p.read_text())]
    assert [p.name for p in places] == ["_version.py"]
    assert fastact.__version__ not in (ROOT / "pyproject.toml").read_text()
