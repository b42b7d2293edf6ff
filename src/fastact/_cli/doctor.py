"""``fastact doctor``: what is installed, what works, and what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import torch
from rich.markup import escape

from .. import functional
from .._backend import STATE, BackendInfo, backend, backends
from .._library import cpu
from .._version import __version__
from . import exits
from .console import stdout, table
from .machine import driver, gpus, processor

VARIABLES = ("FASTACT_BACKEND", "FASTACT_CPU_ISA", "FASTACT_LIBRARY")


def version(package: str) -> str:
    """Of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def facts() -> dict[str, str]:
    """What an answer to "it does not work here" begins with."""
    isas = cpu().isas
    found = {
        "fastact": __version__,
        "torch": str(torch.__version__),
        "Python": f"{platform.python_version()}, {platform.python_implementation()}",
        "NumPy, Numba": f"{version('numpy')}, {version('numba')}",
        "system": platform.platform(),
        "processor": f"{processor()}, {os.cpu_count()} threads, of which torch uses "
        f"{torch.get_num_threads()}",
        "instruction set": f"{cpu().isa} (usable: {', '.join(isas)})" if isas else "",
        "GPU": gpus(),
        "GPU driver": driver(),
    }
    found.update({name: os.environ.get(name, "") for name in VARIABLES})
    return {name: value for name, value in found.items() if value}


def computes(name: str) -> bool:
    """Whether a backend's value and slope of GELU are those of float64."""
    x = torch.linspace(-5, 5, 4099, requires_grad=True)
    exact = x.detach().double().requires_grad_()
    with backend(name):
        y = functional.gelu(x)
    z = torch.nn.functional.gelu(exact)
    (dy,), (dz,) = torch.autograd.grad(y.sum(), x), torch.autograd.grad(z.sum(), exact)
    return torch.allclose(y.double(), z, atol=1e-6) and torch.allclose(dy.double(), dz, atol=1e-6)


def verdict(infos: dict[str, BackendInfo]) -> tuple[str, int]:
    """A sentence and the exit code."""
    if STATE.error is not None:
        return f"fastact cannot be imported: {STATE.error}", exits.USAGE
    source = STATE.choice.source
    if source != "torch" and not computes(source):
        return (
            f"The {source} kernels compute wrongly here: set FASTACT_BACKEND=torch and report "
            "this output",
            exits.BROKEN,
        )
    if source == "compiled":
        return f"All is well: the compiled kernels answer, with {cpu().isa}", exits.OK
    answers = {"numba": "Numba's kernels answer", "torch": "torch's own ops answer"}[source]
    if STATE.choice.name != "auto":
        return (
            f"fastact works and {answers}, because FASTACT_BACKEND={STATE.choice.name} says so; "
            "unset it to have the fastest",
            exits.OK if infos["compiled"].available else exits.FAILED,
        )
    return f"fastact works, but {answers}: {infos['compiled'].detail}", exits.FAILED


def run() -> int:
    """The command."""
    shown = table("fastact doctor", "", "")
    shown.show_header = False
    for name, value in facts().items():
        shown.add_row(name, escape(value))
    stdout.print(shown)
    infos = {info.name: info for info in backends()}
    shown = table("Backends", "backend", "", "")
    shown.show_header = False
    for info in infos.values():
        state = "[green]yes[/]" if info.available else "[red]no[/]"
        shown.add_row(info.name, state, escape(info.detail))
    stdout.print(shown)
    sentence, code = verdict(infos)
    colour = {exits.OK: "green", exits.FAILED: "yellow"}.get(code, "red")
    stdout.print(f"[bold {colour}]{escape(sentence)}.[/]")
    return code
