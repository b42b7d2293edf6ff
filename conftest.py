"""The code in README.md and docs/ runs as a part of the tests: docs/code_blocks.py."""

from importlib.util import find_spec

if find_spec("sybil"):  # the kernels can be tested without it, on a machine with a GPU say
    from code_blocks import OPTIONS
    from sybil import Sybil

    pytest_collect_file = Sybil(**OPTIONS).pytest()
