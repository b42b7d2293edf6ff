"""Runs fastact's command line, in this process and as one of its own."""

import os
import subprocess
import sys

from click.testing import CliRunner

from fastact._cli.app import app


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
