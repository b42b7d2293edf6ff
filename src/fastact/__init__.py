"""Compiled activation kernels for PyTorch.

Drop-in functions and modules with fused forward, backward and second-derivative kernels:
``fastact.functional`` for torch.nn.functional, ``fastact.nn`` for torch.nn, ``fastact.autograd``
for the Functions beneath them, ``torch.ops.fastact`` for the registered ops. ``fastact.replace``
puts them into existing models, ``fastact.patched`` into the places of torch.nn.functional's.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import _backend, autograd, functional, nn
from ._backend import BackendInfo, backend, backends
from ._monitor import Record, monitor
from ._patch import patched
from ._version import __version__

__all__ = [
    "BackendInfo",
    "Record",
    "Report",
    "__version__",
    "autograd",
    "backend",
    "backends",
    "distributed",
    "functional",
    "monitor",
    "nn",
    "patched",
    "replace",
    "restore",
]

if TYPE_CHECKING:
    from . import distributed
    from ._replace import Report, replace, restore

_backend.check_environment()


def __dir__() -> list[str]:
    return sorted(__all__)  # what is loaded at its first use, too


def __getattr__(name: str) -> Any:
    # At the first use: the tables of replace() take 4 ms, distributed imports torch.distributed.
    if name in ("Report", "replace", "restore"):
        return getattr(import_module("._replace", __name__), name)
    if name == "distributed":
        return import_module(".distributed", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
