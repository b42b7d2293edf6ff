"""For code that calls torch.nn.functional directly: our functions in the places of torch's."""

from __future__ import annotations

import threading
from typing import Any

import torch.nn.functional as torch_functional

from . import functional
from ._backend import Block

# Ours with a name of torch's, whose signature they share: tests/test_patched.py.
NAMES = tuple(name for name in functional.__all__ if hasattr(torch_functional, name))

_lock = threading.Lock()
_depth = 0
_saved: dict[str, Any] = {}


class patched(Block):
    """Puts fastact's functions in the places of torch.nn.functional's, and back on leaving.

    Reaches every call that looks its function up in torch.nn.functional (``F.gelu(x)``), those of
    torch.nn's modules and of other libraries included. Does not reach a function that was taken out
    before (``from torch.nn.functional import gelu``, ``self.act = F.gelu``), torch's own operators
    (``torch.tanh``) and code that torch.compile compiled before. A function that is taken out
    inside stays fastact's afterwards: of a module that keeps it (torch.nn.TransformerEncoderLayer)
    and is pickled whole, the file needs fastact. Whole modules that keep one of torch's cannot be
    pickled inside of the block, and torch.jit.script cannot compile; both belong outside.

    A ``with`` block or a decorator; nested and repeated at will. Holds for the whole process: other
    threads see it too, until the last block ends. What else was put in torch's places meanwhile
    stays there.

    Raises:
        TypeError: what is decorated is a generator or coroutine function, which runs later.

    Example:
        >>> import fastact, torch
        >>> with fastact.patched():
        ...     y = torch.nn.functional.silu(torch.ones(3))
    """

    def __enter__(self) -> patched:
        global _depth
        with _lock:
            if _depth == 0:
                for name in NAMES:
                    _saved[name] = getattr(torch_functional, name)
                    setattr(torch_functional, name, getattr(functional, name))
            _depth += 1
        return self

    def __exit__(self, *_: Any) -> None:
        global _depth
        with _lock:
            _depth -= 1
            if _depth == 0:
                for name, original in _saved.items():
                    if getattr(torch_functional, name) is getattr(functional, name):
                        setattr(torch_functional, name, original)
                _saved.clear()
