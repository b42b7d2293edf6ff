"""Every example runs from its command line and draws what it says."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest
from support import ROOT

import fastact

EXAMPLES = ROOT / "examples"
PICTURES = {
    "digits": 1, "circles": 2, "dead_units": 1, "characters": 1, "fine_tuning": 1,
}  # fmt: skip
NEEDS_REPLACE = pytest.mark.skipif(
    not hasattr(fastact, "replace") or importlib.util.find_spec("transformers") is None,
    reason="needs fastact.replace and transformers",
)


def run(*arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=NEEDS_REPLACE if n == "fine_tuning" else ()) for n in PICTURES],
)
def test_quick(name, tmp_path):
    done = run(EXAMPLES / f"{name}.py", "--quick", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.png"))) == PICTURES[name]
    # Both sides learn the same: the last column is the difference of their curves.
    differences = re.findall(r"x +(\d\.\de[-+]\d\d)", done.stdout)
    assert differences
    assert max(map(float, differences)) < 1e-3


def test_every_script_is_an_example_or_a_part_of_one():
    scripts = {p.stem for p in EXAMPLES.glob("*.py") if "launch(" in p.read_text()}
    assert scripts - {"demo", "cli"} == set(PICTURES)


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


def test_sharded_vocabulary():
    """One process and two, by python and by torchrun, see the same losses."""
    printed = []
    for ways in ((), (*TORCHRUN, "1"), (*TORCHRUN, "2")):
        done = run(*ways, EXAMPLES / "vocabulary.py")
        assert done.returncode == 0, done.stderr
        printed += re.findall(r"(\d) processes: (loss (\S+) -> (\S+))\n", done.stdout)
    assert [processes for processes, *_ in printed] == ["1", "1", "2"]
    assert len({losses for _, losses, *_ in printed}) == 1
    first, last = map(float, printed[0][2:])
    assert last < first / 10


def test_help_and_mistakes(tmp_path):
    assert "--quick" in run(EXAMPLES / "dead_units.py", "--help").stdout
    done = run(EXAMPLES / "circles.py", "--out", __file__)
    assert done.returncode == 2
    assert "Cannot create the folder" in done.stderr
