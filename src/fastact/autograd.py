"""The torch.autograd.Function of each op, over the compiled kernels.

``fastact.autograd.SiLU.apply(x)`` takes the op's tensors, then its parameters in order:
``LeakyReLU.apply(x, negative_slope)``, ``SiLUMul.apply(gate, up)``, ``SiLUGLU.apply(x, dim,
gate_first)``. Each is differentiable to any order, forward and reverse, and correct under
torch.func and torch.compile. Nothing is checked here, and no tensor is too small:
fastact.functional does that. ``<Name>Backward`` and ``<Name>DoubleBackward`` are its derivatives.
"""

from __future__ import annotations

from . import _autograd

_FUNCTIONS: dict[str, type[_autograd.Op]] = {
    function.__name__: function
    for made in _autograd.functions("fastact").values()
    for function in (made.forward, made.backward, made.double_backward)
}

__all__ = sorted(_FUNCTIONS)

globals().update(_FUNCTIONS)


def __getattr__(name: str) -> type[_autograd.Op]:
    raise AttributeError(f"module 'fastact.autograd' has no Function {name!r}")
