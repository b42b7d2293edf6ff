"""Compiled activation kernels for PyTorch.

Drop-in functions and modules with fused forward, backward and second-derivative kernels:
``fastact.functional`` for torch.nn.functional, ``fastact.nn`` for torch.nn, ``fastact.autograd``
for the Functions beneath them, ``torch.ops.fastact`` for the registered ops.
"""

from . import autograd, functional, nn
from ._backend import BackendInfo, backend, backends
from ._patch import patched
from ._replace import replace, restore
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
