"""The examples in the docstrings run; those of README.md and docs/ by docs/code_blocks.py."""

import doctest

import pytest

from fastact import _backend, _monitor, _patch, _replace, distributed, functional
from fastact.functional import activations, gated

MODULES = (activations, gated, _backend, _monitor, _patch, _replace, distributed)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_docstrings(module):
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0


def test_every_function_has_an_example():
    for name in functional.__all__:
        assert f"fastact.functional.{name}(" in (getattr(functional, name).__doc__ or ""), name
