"""The command line: the program, wrong input, exit codes."""

import re
import subprocess
import sys

import pytest
from cli import fastact_process, invoke, one_sentence
from support import python

import fastact
from fastact._cli import doctor, exits
from fastact._cli.app import app

COMMANDS = ("bench", "check", "demo", "doctor", "explain")


def test_help_names_every_command():
    result = invoke("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", result.stdout, re.MULTILINE), command
    assert sorted(app.commands) == sorted(COMMANDS)
    codes = {value for name, value in vars(exits).items() if name.isupper()}
    text = result.stdout.partition("Exit codes: ")[2].partition("Options:")[0]
    assert {int(code) for code in re.findall(r"\b\d+\b", text)} == codes


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_fits(command):
    result = fastact_process(command, "--help")
    assert result.returncode == 0, result.stderr
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert f"fastact {command}" in result.stdout


def test_without_a_command():
    result = invoke()
    assert result.exit_code == exits.USAGE
    assert "Usage: fastact" in result.stdout.replace("app", "fastact")


def test_version_and_script():
    import shutil
    import sysconfig

    script = shutil.which("fastact", path=sysconfig.get_path("scripts"))
    for command in ([script], [sys.executable, "-m", "fastact"]):
        assert command[0], "the entry point is not installed"
        run = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=300)
        assert (run.returncode, run.stdout) == (0, f"fastact, version {fastact.__version__}\n")


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_a_missing_extra_is_one_sentence(missing):
    code = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['fastact', 'doctor'];"
        "from fastact._cli import main; main()"
    )
    sentence = one_sentence(python(code), exits.USAGE)
    assert missing in sentence
    assert "pip install 'fastact[cli]'" in sentence


def test_another_missing_module_is_not_taken_for_an_extra():
    code = (
        "import sys; sys.modules['fastact._cli.app'] = None; from fastact._cli import main; main()"
    )
    run = python(code)
    assert run.returncode == 1
    assert "ModuleNotFoundError" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explane"], "No such command 'explane'"),
        (["explain"], "Missing argument 'OP'"),
        (["explain", "gellu"], "there is no op 'gellu': did you mean gelu?"),
        (["explain", "zzzz"], "there is no op 'zzzz': expected one of gelu,"),
        (["explain", "gelu", "--dtype", "int8"], "'int8' is not one of 'fp32', 'bf16'"),
        (["explain", "gelu", "--numel", "-3"], "-3 is not in the range 0<=x<="),
        (["explain", "gelu", "--numel", str(2**62)], f"{2**62} is not in the range 0<=x<="),
        (["explain", "gelu", "--numel", str(10**20)], f"{10**20} is not in the range 0<=x<="),
        (["explain", "swiglu", "--numel", "7"], "swiglu halves a dimension, and --numel 7 is odd"),
        (["explain", "gelu", "--numel", "many"], "'many' is not a valid integer;"),
        (["explain", "GELU"], "there is no op 'GELU': did you mean gelu?"),
        (["explain", "gelu", "--device", "abacus"], "abacus"),
        (["explain", "gelu", "--colour"], "No such option"),
        (["explain", "softmax", "--classes", "0"], "0 is not in the range 1<=x<="),
        (
            ["explain", "cross_entropy", "--numel", "10", "--classes", "1000"],
            "cross_entropy needs at least one row, but --numel 10 is less than --classes 1000",
        ),
        (["check", "gellu"], "there is no op 'gellu': did you mean gelu?"),
        (["check", "nope"], "there is no op 'nope': expected one of gelu,"),
        (["bench", "--out", "/proc/no/r.json"], "the folder /proc/no cannot be made: No such"),
        (["bench", "--out", "/dev/null/r.json"], "the folder /dev/null cannot be made: "),
        (["check", "--step", "0"], "0 is not in the range 1<=x<="),
        (["check", "--step", str(10**20)], "is not in the range 1<=x<="),
        (["check", "--backend", "cuda"], "'cuda' is not one of"),
        (["doctor", "please"], "unexpected extra argument"),
    ],
)
def test_wrong_input_is_one_sentence(arguments, message):
    sentence = one_sentence(invoke(*arguments), exits.USAGE)
    assert message in sentence
    assert sentence.endswith("--help"), "and says where to look"


def test_wrong_input_to_a_process():
    sentence = one_sentence(fastact_process("explain", "gelu", "--numel=-1"), exits.USAGE)
    assert sentence.endswith("see: fastact explain --help")


def test_interrupted(monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "run", interrupt)
    result = invoke("doctor")
    assert (result.exit_code, result.stdout) == (exits.INTERRUPTED, "")
    assert result.stderr.strip() == "Interrupted."


def test_a_pipe_that_closes():
    command = f"{sys.executable} -m fastact explain gelu | true"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
    assert run.stderr == ""
