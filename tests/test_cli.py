"""The command line: every command in this process and as a real one, wrong input, exit codes."""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cases
import pytest
import torch
from click.testing import CliRunner
from support import python
from torch.utils._python_dispatch import TorchDispatchMode

import fastact
from fastact import _backend
from fastact import functional as F
from fastact._cli import check, doctor, exits, explain, scripts
from fastact._cli.app import app
from fastact._cutoffs import CUTOFFS

COMMANDS = ("bench", "check", "demo", "doctor", "explain")


@pytest.fixture
def auto(compiled):
    with fastact.backend("auto"):
        yield


def invoke(*arguments, **environment):
    """In this process."""
    return CliRunner(env={"COLUMNS": "80", **environment}).invoke(app, arguments)


def fastact_process(*arguments, columns="80", **environment):
    """As a process of its own, its output a pipe."""
    return subprocess.run(
        [sys.executable, "-m", "fastact", *arguments],
        env={**os.environ, "COLUMNS": columns, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def one_sentence(result, code):
    """Nothing but one line on stderr, and the exit code."""
    status = result.exit_code if hasattr(result, "exit_code") else result.returncode
    assert status == code, result
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr.strip()


# --------------------------------------------------------------------------------------------------
# The program


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


# --------------------------------------------------------------------------------------------------
# doctor


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


# --------------------------------------------------------------------------------------------------
# explain


class Ops(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.ours = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.ours |= func.namespace.startswith("fastact")
        return func(*args, **(kwargs or {}))


def call(op, x, classes):
    """What the question is about."""
    if op in ("softmax", "log_softmax"):
        return getattr(F, op)(x.view(-1, classes), 1)
    if op in ("nll_loss", "cross_entropy"):
        x = x.view(-1, classes)
        return getattr(F, op)(x, torch.zeros(len(x), dtype=torch.int64))
    if op == "binary_cross_entropy_with_logits":
        return F.binary_cross_entropy_with_logits(x, torch.zeros_like(x))
    options = {"approximate": "tanh"} if op.endswith("_tanh") else {}
    operands = (x, x) if op in explain.PAIRS else (x,)
    return getattr(F, op.removesuffix("_tanh"))(*operands, **options)


@pytest.mark.parametrize("op", explain.OPS)
def test_explain_says_what_happens(op, auto):
    """At sizes around each op's cutoffs; the answer is compared with the ops that run."""
    classes = 16
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.int32):
        limits = explain.limits(op, dtype, classes)
        sizes = {classes, 2**12} | {n + d for n in limits if n <= 2**19 for d in (-classes, 0)}
        for numel in sorted(n for n in sizes if n > 0):
            for grad in {False, dtype.is_floating_point}:
                found = explain.answer(op, explain.example(dtype, numel, grad, "cpu"), classes)
                x = torch.zeros(numel, dtype=dtype, requires_grad=grad)
                with Ops() as seen:
                    try:
                        call(op, x, classes)
                    except (RuntimeError, NotImplementedError):
                        assert dtype == torch.int32  # by torch: it has no such op
                assert (found.backend != "torch") == seen.ours, (numel, dtype, grad, found)


@pytest.mark.parametrize("op", explain.OPS)
def test_explain_every_op(op, auto):
    result = invoke("explain", op)
    assert result.exit_code == 0, result
    assert re.match(rf"(compiled|torch) answers {op} of 1,048,576 elements", result.stdout)
    assert result.stdout.endswith(".\n")


def test_explain_knows_the_example_of_the_issue(auto):
    arguments = ("explain", "gelu", "--dtype", "bf16", "--numel", "4096")
    assert invoke(*arguments).stdout == (
        "compiled answers gelu of 4,096 elements of torch.bfloat16 on cpu, without a gradient: it "
        "is measured to be faster at every size.\n"
    )
    plain, grad = CUTOFFS["compiled"]["silu"].of[torch.bfloat16]
    result = invoke("explain", "silu", *arguments[2:])
    assert result.stdout == (
        "torch answers silu of 4,096 elements of torch.bfloat16 on cpu, without a gradient: torch "
        f"is measured to be as fast below {plain:,} elements.\n"
    )
    silu = ("explain", "silu", "--dtype", "bf16", "--grad", "--numel")
    result = invoke(*silu, str(2 * grad))
    assert result.stdout.startswith("compiled answers silu")
    assert f"from {grad:,} elements on" in result.stdout
    for numel, who in ((grad, "compiled"), (grad - 1, "torch")):
        result = invoke(*silu, str(numel))
        assert result.stdout.startswith(f"{who} answers")


def test_explain_takes_torchs_names_of_dtypes(auto):
    for short, name in (("bf16", "bfloat16"), ("fp32", "float32")):
        sentence = invoke("explain", "gelu", "--dtype", name).stdout
        assert f"torch.{name}" in sentence
        assert sentence == invoke("explain", "gelu", "--dtype", short).stdout


@pytest.mark.parametrize("forced", [False, True])
def test_explain_a_device_that_is_not_there(auto, forced, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with fastact.backend("compiled" if forced else "auto"):
        result = invoke("explain", "gelu", "--device", "cuda")
    assert "on cuda:0" in result.stdout
    assert "But torch cannot use cuda:0 on this machine: its build is for " in result.stdout


def test_explain_one_device_too_many(auto, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    end = "But torch cannot use cuda:2 on this machine: there are 2 of them.\n"
    assert invoke("explain", "gelu", "--device", "cuda:2").stdout.endswith(end)
    assert "cannot" not in invoke("explain", "gelu", "--device", "cuda:1").stdout


def test_explain_small_numbers(auto):
    sentence = invoke("explain", "silu", "--numel", "0").stdout
    assert sentence.startswith("torch answers silu of 0 elements of ")
    assert sentence.endswith(": there is nothing to compute.\n")
    sentence = invoke("explain", "softmax", "--numel", "1").stdout
    assert "softmax of 1 element of" in sentence
    assert "in rows of 1 class," in sentence
    sentence = invoke("explain", "softmax", "--numel", "10").stdout
    assert "in rows of 10 classes," in sentence
    assert "in rows of 1,000 classes," in invoke("explain", "softmax").stdout


def test_explain_takes_no_memory(auto):
    assert invoke("explain", "silu", "--numel", str(2**50)).stdout.startswith("compiled answers")


def test_explain_in_a_process():
    starts = {
        "auto": "compiled answers silu_mul",
        "compiled": "compiled answers silu_mul",
        "numba": "numba answers silu_mul",
        "torch": "torch answers silu_mul",
    }
    with ThreadPoolExecutor() as pool:
        runs = pool.map(
            lambda name: fastact_process("explain", "silu_mul", FASTACT_BACKEND=name), starts
        )
    for (backend, start), run in zip(starts.items(), runs, strict=True):
        assert run.returncode == 0, run.stderr
        assert run.stdout.startswith(start)
        assert run.stdout.endswith("it is forced.\n") == (backend != "auto")
        assert run.stdout.count("\n") == 1


def test_explain_what_a_forced_backend_refuses():
    result = invoke("explain", "gelu", "--device", "meta")  # the tests force "compiled"
    assert result.exit_code == exits.FAILED
    assert result.stdout.startswith("Nobody answers gelu")
    assert result.stdout.endswith(
        "the backend 'compiled' is forced, and there are no kernels for meta.\n"
    )
    assert "Fake" not in result.stdout


def test_explain_why_there_are_no_kernels(monkeypatch):
    nothing = [_backend.BackendInfo("compiled", False, "lost"), fastact.backends()[2]]
    monkeypatch.setattr(explain, "backends", lambda: nothing)
    monkeypatch.setattr(_backend.STATE, "choice", _backend.Choice("auto", {}, False))
    assert invoke("explain", "gelu").stdout.endswith(
        "no backend with kernels is available; compiled: lost.\n"
    )


# --------------------------------------------------------------------------------------------------
# check


def test_check_in_a_process():
    run = fastact_process("check", "gelu", "cross_entropy", "--step", "5000011")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "\x1b" not in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 80
    assert "All 12 bounds are kept." in run.stdout
    assert re.search(r"^ gelu +fp32 +[\d.]+ +\S+ +3\.02 +[\d.]+ +\S+ +4\.00 *$", run.stdout, re.M)


def test_check_takes_every_op_and_numba(monkeypatch):
    monkeypatch.setattr(check, "HALVES", {})  # 16 bits take their time
    result = invoke("check", "--step", "50000017", "--backend", "numba", "silu", "softplus")
    assert result.exit_code == 0, result.stdout
    assert "the backend 'numba'" in result.stdout
    result = invoke("check", "--step", "50000017")
    assert result.exit_code == 0, result.stdout
    for op in explain.OPS:
        assert f" {op.replace('binary_cross_entropy', 'bce')} " in result.stdout, op


def test_check_takes_kernels_where_torch_is_forced(monkeypatch):
    """Torch against torch would not keep our bounds, and be reported as an error of ours."""
    with fastact.backend("torch"):
        result = invoke("check", "--step", "50000017", "gelu")
        assert result.exit_code == 0, result.stdout
        assert "the backend 'compiled'" in result.stdout
        lost = [_backend.BackendInfo(name, False, "lost") for name in ("compiled", "numba")]
        monkeypatch.setattr(check, "backends", lambda: [*lost, fastact.backends()[2]])
        assert one_sentence(invoke("check", "gelu"), exits.USAGE).startswith(
            "Invalid value for --backend: no backend with kernels is available; compiled: lost;"
        )


def test_check_goes_over_the_floats_in_blocks(monkeypatch):
    monkeypatch.setattr(check, "BLOCK", 64)
    blocks = [x for x in check.floats(2**21) if x.numel() <= 64]
    found = torch.cat(blocks).view(torch.int32)
    # All that are finite, of the exponents 0 to 254 and either sign.
    assert found.unique().numel() == found.numel() == 2 * 255 * 2**23 // 2**21


@pytest.mark.parametrize("op", check.GATED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_check_finds_a_wrong_gated_op(op, dtype, monkeypatch):
    monkeypatch.setattr(check, "HALVES", {"fp16": torch.float16})
    right = check.run_both

    def wrong(function, x, grad=None):
        y, dx = right(function, x, grad)
        if function.__name__ == "call" and x.dtype == dtype:
            dx = dx.clone()
            dx[1] *= 1 + 32 * torch.finfo(dtype).eps  # the gradient by what is gated
        return y, dx

    assert invoke("check", "--step", "50000017", op).exit_code == 0
    monkeypatch.setattr(check, "run_both", wrong)
    result = invoke("check", "--step", "50000017", op)
    assert result.exit_code == exits.FAILED
    assert "1 of 4 bounds are exceeded" in result.stdout


@pytest.mark.parametrize("where", ["value", "slope", "bf16"])
def test_check_finds_what_is_wrong(where, monkeypatch):
    monkeypatch.setattr(check, "HALVES", {"bf16": torch.bfloat16})
    right = check.run_both

    def wrong(function, x, grad=None):
        y, dx = right(function, x, grad)
        if function.__name__ == "call" and x.dtype != torch.float64:
            if where == "value" and x.dtype == torch.float32:
                y = y * (1 + 2**-20)
            if where == "slope" and x.dtype == torch.float32:
                dx = torch.where(x == x.max(), torch.nan, dx)
            if where == "bf16" and x.dtype == torch.bfloat16:
                y = torch.nextafter(y, torch.full_like(y, 9.0))
        return y, dx

    monkeypatch.setattr(check, "run_both", wrong)
    result = invoke("check", "silu", "--step", "5000011")
    assert result.exit_code == exits.FAILED
    assert re.search(r"\d of 4 bounds are exceeded, first silu in (fp32|bf16)", result.stdout)
    assert "FASTACT_BACKEND=torch" in result.stdout


# --------------------------------------------------------------------------------------------------
# bench and demo


def test_bench(tmp_path):
    out = tmp_path / "new" / "results.json"
    run = fastact_process("bench", "relu6", "--dtype", "bf16", "--out", str(out))
    assert run.returncode == 0, run.stderr
    assert "\x1b" not in run.stdout
    rows = json.loads(out.read_text())["rows"]
    assert {(row["op"], row["dtype"]) for row in rows} == {("relu6", "bf16")}
    pictures = [line.strip() for line in run.stdout.splitlines() if line.endswith(".png")]
    assert pictures
    assert all(Path(picture).stat().st_size > 1000 for picture in pictures)


def test_bench_quick_takes_what_has_a_bar(monkeypatch, tmp_path):
    called = []
    monkeypatch.chdir(tmp_path)  # where the default of --out is made
    monkeypatch.setattr(scripts.subprocess, "call", lambda c, **_: called.append(c[2:]) or 0)
    for arguments, options in (
        ([], {"--quick", "--compile", "none"}),
        (["--full"], set()),
        (["gelu"], {"--ops", "gelu", "--seconds"}),
    ):
        assert invoke("bench", *arguments).exit_code == 0
        assert set(called[-1]) >= options
        assert ("--quick" in called[-1]) == ("--quick" in options)


@pytest.fixture
def no_benchmark(monkeypatch):
    monkeypatch.setattr(scripts.subprocess, "call", lambda *_, **__: 0)


def test_bench_says_that_the_machine_is_busy(no_benchmark, monkeypatch, tmp_path):
    arguments = ("bench", "--out", str(tmp_path / "r.json"), "--threads", "2")
    monkeypatch.setattr(scripts.os, "cpu_count", lambda: 4)
    for load, warned in ((0.2, False), (2.1, False), (3.7, True)):
        monkeypatch.setattr(scripts.os, "getloadavg", lambda load=load: (load, 0, 0))
        result = invoke(*arguments)
        assert result.exit_code == 0
        assert (f"Warning: the load average is {load}" in result.stderr) == warned
        assert result.stderr.count("\n") == warned
    monkeypatch.delattr(scripts.os, "getloadavg")  # as on Windows
    assert invoke(*arguments).stderr == ""


def test_bench_that_lacks_a_package_makes_no_folder(monkeypatch, tmp_path):
    monkeypatch.setitem(scripts.NEEDS, "bench", ("no_such_package",))
    out = tmp_path / "new" / "results.json"
    one_sentence(invoke("bench", "--out", str(out)), exits.USAGE)
    assert not out.parent.exists()


def test_bench_into_a_folder_that_is_not_writable(monkeypatch, tmp_path):
    monkeypatch.setattr(scripts.os, "access", lambda path, mode: path != tmp_path)
    sentence = one_sentence(invoke("bench", "--out", str(tmp_path / "r.json")), exits.USAGE)
    assert f"the folder {tmp_path} is not writable" in sentence


def test_bench_of_what_is_not_there(tmp_path):
    run = fastact_process("bench", "gellu", "--out", str(tmp_path / "r.json"))
    sentence = one_sentence(run, exits.USAGE)
    assert "there is no op 'gellu': did you mean gelu?" in sentence
    assert not list(tmp_path.iterdir())


def test_bench_takes_what_the_benchmarks_know():
    assert set(scripts.MEASURED) == set(cases.OPS)


@pytest.mark.parametrize("command", ["bench", "demo"])
def test_scripts_that_lack_a_package(command, monkeypatch):
    monkeypatch.setitem(scripts.NEEDS, command, ("no_such_package",))
    sentence = one_sentence(invoke(command), exits.USAGE)
    assert f"pip install 'fastact[{command}]'" in sentence


def test_demo_runs_the_script(monkeypatch, tmp_path):
    called = []
    monkeypatch.setattr(scripts.subprocess, "call", lambda c, **_: called.append(c) or 7)
    monkeypatch.setitem(scripts.NEEDS, "demo", ())
    assert invoke("demo", "--quick", "--out", str(tmp_path)).exit_code == 7
    _, script, *arguments = called[0]
    assert Path(script).is_file()
    assert arguments == ["--out", str(tmp_path), "--quick"]


def test_scripts_are_found_in_a_wheel_and_in_a_checkout(monkeypatch, tmp_path):
    assert (scripts.folder("benchmarks") / "bench.py").is_file()
    package = tmp_path / "src" / "fastact"
    (package / "_scripts" / "examples").mkdir(parents=True)
    monkeypatch.setattr(scripts, "PACKAGE", package)
    assert scripts.folder("examples") == package / "_scripts" / "examples"
    assert scripts.folder("benchmarks") == tmp_path / "benchmarks"
