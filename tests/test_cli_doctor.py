"""fastact doctor: what is there, and what is wrong with it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cli import fastact_process, invoke, one_sentence

import fastact
from fastact._cli import doctor, exits


def test_doctor():
    run = fastact_process("doctor")
    assert run.returncode == 0, run.stderr
    assert "\x1b" not in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 80
    for text in (fastact.__version__, torch.__version__, "processor", "GPU", "compiled", "numba"):
        assert text in run.stdout
    assert run.stdout.splitlines()[-1].startswith("All is well: the compiled kernels answer, with")


def test_doctor_in_40_columns():
    run = fastact_process("doctor", columns="40")
    assert run.returncode == 0
    assert max(map(len, run.stdout.splitlines())) <= 40


def test_doctor_in_colours():
    assert "\x1b" in fastact_process("doctor", FORCE_COLOR="1").stdout


def test_doctor_without_the_compiled_library(tmp_path):
    path = tmp_path / "libfastact_cpu.so"
    path.write_bytes(b"nothing")
    run = fastact_process("doctor", FASTACT_LIBRARY=str(path))
    assert run.returncode == exits.FAILED, run.stderr
    assert "FASTACT_LIBRARY" in run.stdout
    last = " ".join(run.stdout.split("fastact works, but ")[1].split())
    assert last.startswith("Numba's kernels answer: libfastact_cpu.so could not be loaded")


@pytest.mark.parametrize("name", ["torch", "numba"])
def test_doctor_when_another_backend_is_forced(name):
    run = fastact_process("doctor", FASTACT_BACKEND=name)
    assert run.returncode == 0, run.stderr
    assert f"FASTACT_BACKEND={name} says so" in " ".join(run.stdout.split())


WRONG = {
    "FASTACT_BACKEND": "FASTACT_BACKEND must be one of auto, compiled, numba, torch; got 'v9'.",
    "FASTACT_CPU_ISA": "FASTACT_CPU_ISA='v9' is not available here; expected one of",
}


@pytest.mark.parametrize("variable", WRONG)
def test_doctor_says_which_variable_is_wrong(variable):
    run = fastact_process("doctor", **{variable: "v9"})
    assert run.returncode == exits.USAGE, run.stderr
    assert run.stderr == ""
    assert f"{variable}" in run.stdout
    verdict = " ".join(run.stdout.split()).partition("fastact cannot be imported: ")[2]
    assert verdict.startswith(WRONG[variable])


def test_a_wrong_variable_is_one_sentence():
    from sysconfig import get_path

    script = [str(Path(get_path("scripts"), "fastact")), "check"]
    for command in (script, [sys.executable, "-mfastact", "explain", "gelu"]):
        run = subprocess.run(
            command, env={**os.environ, "FASTACT_BACKEND": "v9"}, capture_output=True, text=True,
            timeout=300,
        )  # fmt: skip
        assert one_sentence(run, exits.USAGE) == WRONG["FASTACT_BACKEND"]


def test_doctor_finds_kernels_that_are_wrong(auto, monkeypatch):
    monkeypatch.setattr(doctor.functional, "gelu", lambda x: torch.nn.functional.gelu(x) + 1e-3)
    result = invoke("doctor")
    assert result.exit_code == exits.BROKEN
    assert "compute wrongly" in result.stdout
