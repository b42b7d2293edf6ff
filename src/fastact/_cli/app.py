"""The commands and their options. Each command's work is in the module of its name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .._backend import STATE
from .._version import __version__
from . import exits
from .arguments import Count, Dtype


class Command(click.Command):
    """A command that needs what the environment variables ask for."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command, or says what is wrong with the variables."""
        if STATE.error is not None and self.name != "doctor":
            raise click.ClickException(f"{STATE.error}.")
        return super().invoke(ctx)


class Commands(click.Group):
    """A group whose errors are one sentence with what to do next."""

    command_class = Command

    def main(self, *args: Any, **settings: Any) -> Any:
        """Runs a command and exits with its code."""
        try:
            code = super().main(*args, **{**settings, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            code = exits.USAGE
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "fastact"
            message = error.format_message().rstrip(".")
            click.echo(f"{message}; see: {command} --help", err=True)
            code = exits.USAGE
        except click.ClickException as error:
            click.echo(error.format_message(), err=True)
            code = exits.USAGE
        except (click.Abort, KeyboardInterrupt):
            click.echo("Interrupted.", err=True)
            code = exits.INTERRUPTED
        sys.exit(code or exits.OK)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fastact")
def app() -> None:
    """Compiled activation kernels for PyTorch.

    Exit codes: 0 yes, 1 no (see the command), 2 the command could not run, 3 the kernels compute
    wrongly (doctor), 130 interrupted.
    """


@app.command()
def doctor() -> int:
    """Says what is installed, which backends work and what is missing.

    Exit codes: 0 the compiled kernels work, 1 there are none, so Numba or torch answers, 2 an
    environment variable asks for what there is not, 3 they compute wrongly.
    """
    from .doctor import run

    return run()


@app.command()
@click.argument("op")
@click.option("--dtype", type=Dtype(), default="fp32", show_default=True)
@click.option(
    "--numel",
    type=Count(0, 2**56),
    default=2**20,
    show_default=True,
    help="Elements of the (first) input.",
)
@click.option("--classes", type=Count(1, 2**56), show_default="1000, or all of fewer elements",
              help="Of each row, for softmax and losses.")  # fmt: skip
@click.option("--grad", is_flag=True, help="The input requires a gradient.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
def explain(op: str, **options: Any) -> int:
    """Says which backend would answer a call of OP, and why.

    OP is a function of fastact.functional, or gelu_tanh, gelu_mul_tanh, geglu_tanh.
    FASTACT_BACKEND is taken into account. Exit codes: 0 something answers, 1 the call would raise.
    """
    from .explain import run

    return run(op, **options)


@app.command()
@click.argument("ops", nargs=-1, metavar="[OP]...")
@click.option(
    "--step",
    type=Count(1, 2**32),
    default=32749,
    show_default=True,
    help="Takes every so many-th of the 2^32 float32 patterns.",
)
@click.option("--backend", type=click.Choice(("compiled", "numba")),
              help="Which to check.  [default: the best there is]")  # fmt: skip
def check(ops: tuple[str, ...], step: int, backend: str | None) -> int:
    """Compares values and slopes with float64 on this machine.

    Takes every bfloat16 and float16 input, a part of the float32 inputs, and logits for the losses;
    all OPs where none is named. Exit codes: 0 every error is within its bound, 1 one is not.
    """
    from .check import run

    return run(ops, step, backend)


@app.command()
@click.argument("ops", nargs=-1, metavar="[OP]...")
@click.option("--full", is_flag=True, help="Every op, dtype, size and pass, not a minute's worth.")
@click.option("--dtype", "dtypes", multiple=True, type=Dtype(), help="Only these.")
@click.option("--threads", type=Count(1), default=2, show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    default=Path("fastact-bench/results.json"),
    show_default=True,
    help="Pictures are drawn beside it.",
)
def bench(**options: Any) -> int:
    """Compares the speed with torch's: a table, JSON and pictures.

    Without OPS, those that have a required speed.
    """
    from .scripts import bench

    return bench(**options)


@app.command()
@click.option("--quick", is_flag=True, help="A few epochs, to see that everything works.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("fastact-demo"),
    show_default=True,
    help="Folder for the pictures.",
)
def demo(**options: Any) -> int:
    """Trains small nets with torch.nn and fastact.nn side by side."""
    from .scripts import demo

    return demo(**options)
