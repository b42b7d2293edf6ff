"""Compiled activation kernels for PyTorch.

Drop-in functions and modules with fused forward, backward and second-derivative kernels:
``fastact.functional`` for torch.nn.functional, ``fastact.nn`` for torch.nn, ``fastact.autograd``
for the Functions beneath them, ``torch.ops.fastact`` for the registered ops. ``fastact.replace``
puts them into existing models, ``fastact.patched`` into the places of torch.nn.functional's.
"""

from typing import TYPE_CHECKING, Any

from . import autograd, functional, nn
from ._backend import BackendInfo, backend, backends
from ._patch import patched
from ._version import __version__

__all__ = [
    "BackendInfo",
    "__version__",
    "autograd",
    "backend",
    "backends",
    "functional",
    "nn",
    "patched",
    "replace",
    "restore",
]

if TYPE_CHECKING:
    from ._replace import replace, restore


def __getattr__(name: str) -> Any:
    if name in ("replace", "restore"):  # at the first use: its tables take 4 ms
        from . import _replace

        return getattr(_replace, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
