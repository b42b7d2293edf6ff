"""fastact bench and fastact demo: the scripts that they run."""

import json
from pathlib import Path

import cases
import pytest
from cli import fastact_process, invoke, one_sentence

from fastact._cli import exits, scripts


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
