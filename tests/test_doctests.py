"""The examples in the docstrings and in the README run."""

import doctest
import re
from pathlib import Path

import pytest
import torch

import fastact
from fastact import _backend, _patch, _replace, functional
from fastact.functional import activations, gated

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.parametrize(
    "module", [activations, gated, _backend, _patch, _replace], ids=lambda m: m.__name__
)
def test_docstrings(module):
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0


def test_every_function_has_an_example():
    for name in functional.__all__:
        assert f"fastact.functional.{name}(" in (getattr(functional, name).__doc__ or ""), name


def test_readme():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        if ">>>" in block:
            parsed = doctest.DocTestParser().get_doctest(
                block, {"torch": torch, "fastact": fastact}, "README", None, 0
            )
            for example in parsed.examples:
                exec(compile(example.source, "README.md", "single"), parsed.globs)
        else:
            exec(compile(block, "README.md", "exec"), {})
