"""The documentation is complete: what the registry and the package have is on a page."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from cases import BOTH, OPS, Case
from generator import accuracy, families, figures, pages, performance
from results import Results, measure
from support import ACTIVATIONS, GATES, ROOT, UNARY
from timing import Budget

from fastact import functional, nn
from fastact._cli import scripts

DOCS = ROOT / "docs"


@pytest.fixture
def drawn(monkeypatch):
    """Without drawing: what would have been, by the stem of the file."""
    found = {}
    monkeypatch.setattr(
        figures, "panels", lambda curves, stem, **_: found.update({stem.name: curves})
    )
    return found


def test_every_row_is_on_a_page_with_its_equation(drawn, tmp_path):
    text = "".join(pages.family(page, tmp_path) for page in families.PAGES)
    for name, row in ACTIVATIONS.items():
        assert text.count(f"(op-{name})=") == 1, name
        assert f"$$\n{row.equation}\n$$" in text, name
        assert name in drawn, name
    for page in families.PAGES:
        assert f"../_generated/{page}.md" in (DOCS / f"activations/{page}.md").read_text()


def test_a_new_row_appears_by_itself(drawn, tmp_path, monkeypatch):
    row = replace(ACTIVATIONS["squared_relu"], symbol="SquaredReLU", equation="x^{17}")
    monkeypatch.setitem(ACTIVATIONS, "squared_relu_2", row)
    assert "x^{17}" in pages.family(families.REST, tmp_path)
    assert "x^{17}" not in pages.family("rectifiers", tmp_path)


def test_every_gate_and_loss_is_on_a_page(drawn, tmp_path):
    text = pages.gated(tmp_path) + pages.losses(tmp_path)
    for name in GATES:
        assert f"(gate-{name})=" in text
    of_rows = {families.function(name)[0] for name in ACTIVATIONS}
    for name in set(functional.__all__) - of_rows:
        assert f"fastact.functional.{name}>" in text, name
    assert "$$\n\n$$" not in text


def test_every_function_is_in_the_api():
    found = re.findall(r"autofunction:: fastact\.functional\.(\w+)", pages.api())
    assert sorted(found) == sorted(functional.__all__)
    assert all(getattr(nn, name).__doc__ for name in nn.__all__)


@pytest.mark.parametrize("case", UNARY, ids=lambda case: case.label)
def test_curves_are_derivatives(case):
    """What is drawn agrees with differences of what is drawn."""
    x = torch.linspace(-5.003, 5.003, 2000, dtype=torch.float64)
    step = x[1] - x[0]
    value, slope, curvature = figures.derivatives(case.function, x)
    for y, dy in ((value, slope), (slope, curvature)):
        middle = (y[2:] - y[:-2]) / (2 * step)
        kinks = ((y[2:] - 2 * y[1:-1] + y[:-2]).abs() / step > 0.05) | (dy[2:] != dy[:-2]) & (
            (dy[2:] - dy[:-2]).abs() > 0.05
        )
        torch.testing.assert_close(dy[1:-1][~kinks], middle[~kinks], rtol=1e-3, atol=1e-3)


def test_a_jump_is_a_gap():
    class Axes:
        def plot(self, x, y, **_):
            self.y = y

    axes, x = Axes(), torch.linspace(-1, 1, 100)
    figures.plot(axes, x, (x > 0).double())
    assert torch.tensor(axes.y).isnan().sum() == 1
    figures.plot(axes, x, x)
    assert torch.tensor(axes.y).isnan().sum() == 0


def test_accuracy_has_every_row_and_says_what_it_measured(tmp_path):
    path = DOCS / "data" / "accuracy.json"
    text = accuracy.page(path)
    data = json.loads(path.read_text())
    assert set(data["ops"]) == set(ACTIVATIONS)
    for name in ACTIVATIONS:
        assert text.count(f"[{name}](#op-{name})") >= 4
    # Not the figures of a kernel that is worse than the tests allow.
    for name, by in data["ops"].items():
        for contender in ("compiled", "numba"):
            assert by[contender]["fp32"]["value"]["ulp"] <= 3.02, name
            assert by[contender]["fp32"]["slope"]["ulp"] <= 4, name
            assert not by[contender]["fp32"]["value"]["broken"], name


def test_accuracy_is_measured_as_it_says(tmp_path):
    out = tmp_path / "accuracy.json"
    script = ROOT / "benchmarks" / "accuracy.py"
    command = [sys.executable, script, "--step", "4000037", "--ops", "silu", "--out", out]
    subprocess.run(command, check=True, capture_output=True)
    by = json.loads(out.read_text())["ops"]["silu"]
    assert 0.5 <= by["compiled"]["fp32"]["value"]["ulp"] <= 3
    assert by["torch"]["bf16"]["slope"] == 18
    published = json.loads((DOCS / "data" / "accuracy.json").read_text())["ops"]["silu"]
    assert by["compiled"]["fp16"] == published["compiled"]["fp16"]


def test_performance_carries_files_of_both_kinds(tmp_path):
    assert performance.NO_GPU in performance.page([], tmp_path)
    shape = {"2^20": (8,)}
    case = Case(replace(OPS["silu"], shapes=shape), "fp32", "2^20", BOTH)
    row = measure(case, ["fastact", "torch"], Budget(seconds=0, least=2))
    results = Results.now([row])
    results.write(tmp_path / "cpu.json")
    gpu = replace(results, machine={**results.machine, "gpu": "Some GPU"})
    gpu.write(tmp_path / "gpu.json")
    text = performance.page([tmp_path / "cpu.json"], tmp_path)
    assert "| silu | 2^20 |" in text
    assert performance.NO_GPU in text
    text = performance.page([tmp_path / "cpu.json", tmp_path / "gpu.json"], tmp_path)
    assert performance.NO_GPU not in text
    assert text.index("## GPU") < text.index("### Some GPU")
    for picture in re.findall(r"_generated/(\S+\.png)", text):
        assert (tmp_path / picture).exists()


def test_extras_that_are_named_exist_and_others_are_named():
    extras = (ROOT / "pyproject.toml").read_text()
    extras = extras.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    known = set(re.findall(r"^(\w+) = \[", extras, re.MULTILINE))
    sources = [ROOT / "README.md", *ROOT.glob("src/**/*.py"), *DOCS.glob("*.md")]
    named = {
        "test", *re.findall(r"\.extra-(\w+)", (ROOT / "Makefile").read_text()),
        *re.findall(r"\bfastact\[(\w+)\]", extras),
        *(n for path in sources for n in re.findall(r"'fastact\[(\w+)\]'", path.read_text())),
        *scripts.NEEDS,
    }  # fmt: skip
    assert named == known
