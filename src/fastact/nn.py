"""Modules: each calls the function of fastact.functional that it is named after.

Where torch.nn has a module of that name, ours subclasses it: ``isinstance``, ``repr``,
``state_dict``, pickle and ``copy.deepcopy`` work as before, and so does code that looks for
modules by type.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from . import functional as F

__all__ = [
    "CELU",
    "ELU",
    "GEGLU",
    "GELU",
    "GLU",
    "SELU",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "GELUMul",
    "Hardsigmoid",
    "Hardswish",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "NLLLoss",
    "QuickGELU",
    "ReGLU",
    "ReLU",
    "ReLU6",
    "ReLUMul",
    "SiLU",
    "SiLUMul",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "SquaredReLU",
    "SwiGLU",
    "Tanh",
]


class GELU(nn.GELU):
    """:func:`fastact.functional.gelu`; arguments as torch.nn.GELU."""

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, self.approximate)


class SiLU(nn.SiLU):
    """:func:`fastact.functional.silu`; arguments as torch.nn.SiLU."""

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(input, self.inplace)


class ReLU(nn.ReLU):
    """:func:`fastact.functional.relu`; arguments as torch.nn.ReLU."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input, self.inplace)


class ReLU6(nn.ReLU6):
    """:func:`fastact.functional.relu6`; arguments as torch.nn.ReLU6."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu6(input, self.inplace)


class LeakyReLU(nn.LeakyReLU):
    """:func:`fastact.functional.leaky_relu`; arguments as torch.nn.LeakyReLU."""

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope, self.inplace)


class ELU(nn.ELU):
    """:func:`fastact.functional.elu`; arguments as torch.nn.ELU."""

    def forward(self, input: Tensor) -> Tensor:
        return F.elu(input, self.alpha, self.inplace)


class SELU(nn.SELU):
    """:func:`fastact.functional.selu`; arguments as torch.nn.SELU."""

    def forward(self, input: Tensor) -> Tensor:
        return F.selu(input, self.inplace)


class CELU(nn.CELU):
    """:func:`fastact.functional.celu`; arguments as torch.nn.CELU."""

    def forward(self, input: Tensor) -> Tensor:
        return F.celu(input, self.alpha, self.inplace)


class Sigmoid(nn.Sigmoid):
    """:func:`fastact.functional.sigmoid`; arguments as torch.nn.Sigmoid."""

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class Tanh(nn.Tanh):
    """:func:`fastact.functional.tanh`; arguments as torch.nn.Tanh."""

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class Softplus(nn.Softplus):
    """:func:`fastact.functional.softplus`; arguments as torch.nn.Softplus."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softplus(input, self.beta, self.threshold)


class LogSigmoid(nn.LogSigmoid):
    """:func:`fastact.functional.logsigmoid`; arguments as torch.nn.LogSigmoid."""

    def forward(self, input: Tensor) -> Tensor:
        return F.logsigmoid(input)


class Mish(nn.Mish):
    """:func:`fastact.functional.mish`; arguments as torch.nn.Mish."""

    def forward(self, input: Tensor) -> Tensor:
        return F.mish(input, self.inplace)


class Hardswish(nn.Hardswish):
    """:func:`fastact.functional.hardswish`; arguments as torch.nn.Hardswish."""

    def forward(self, input: Tensor) -> Tensor:
        return F.hardswish(input, self.inplace)


class Hardsigmoid(nn.Hardsigmoid):
    """:func:`fastact.functional.hardsigmoid`; arguments as torch.nn.Hardsigmoid."""

    def forward(self, input: Tensor) -> Tensor:
        return F.hardsigmoid(input, self.inplace)


class GLU(nn.GLU):
    """:func:`fastact.functional.glu`; arguments as torch.nn.GLU."""

    def forward(self, input: Tensor) -> Tensor:
        return F.glu(input, self.dim)


class QuickGELU(nn.Module):
    """:func:`fastact.functional.quick_gelu`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.quick_gelu(input)


class SquaredReLU(nn.Module):
    """:func:`fastact.functional.squared_relu`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.squared_relu(input)


class _OfHalves(nn.Module):
    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class SwiGLU(_OfHalves):
    """:func:`fastact.functional.swiglu`.

    Args:
        dim: the dimension to halve.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.swiglu(input, self.dim)


class ReGLU(_OfHalves):
    """:func:`fastact.functional.reglu`.

    Args:
        dim: the dimension to halve.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.reglu(input, self.dim)


class SiLUMul(nn.Module):
    """:func:`fastact.functional.silu_mul`."""

    def forward(self, gate: Tensor, up: Tensor) -> Tensor:
        return F.silu_mul(gate, up)


class ReLUMul(nn.Module):
    """:func:`fastact.functional.relu_mul`."""

    def forward(self, gate: Tensor, up: Tensor) -> Tensor:
        return F.relu_mul(gate, up)


class GEGLU(_OfHalves):
    """:func:`fastact.functional.geglu`.

    Args:
        approximate: ``"none"`` or ``"tanh"``.
        dim: the dimension to halve.
    """

    def __init__(self, approximate: str = "none", dim: int = -1) -> None:
        super().__init__(dim)
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        return F.geglu(input, self.approximate, self.dim)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}, {super().extra_repr()}"


class GELUMul(nn.Module):
    """:func:`fastact.functional.gelu_mul`.

    Args:
        approximate: ``"none"`` or ``"tanh"``.
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, gate: Tensor, up: Tensor) -> Tensor:
        return F.gelu_mul(gate, up, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class Softmax(nn.Softmax):
    """:func:`fastact.functional.softmax`; arguments as torch.nn.Softmax."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim, _stacklevel=5)


class LogSoftmax(nn.LogSoftmax):
    """:func:`fastact.functional.log_softmax`; arguments as torch.nn.LogSoftmax."""

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim, _stacklevel=5)


class NLLLoss(nn.NLLLoss):
    """:func:`fastact.functional.nll_loss`; arguments as torch.nn.NLLLoss."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.nll_loss(
            input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction
        )


class CrossEntropyLoss(nn.CrossEntropyLoss):
    """:func:`fastact.functional.cross_entropy`; arguments as torch.nn.CrossEntropyLoss.

    By keyword it takes ``inplace_backward``, ``expected_grad``, ``z_loss``, ``softcap``,
    ``return_lse`` and ``return_entropy``, too: see the function.
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        *,
        inplace_backward: bool = False,
        expected_grad: float | Tensor | None = None,
        z_loss: float = 0.0,
        softcap: float | None = None,
        return_lse: bool = False,
        return_entropy: bool = False,
    ) -> None:
        super().__init__(weight, size_average, ignore_index, reduce, reduction, label_smoothing)
        self.inplace_backward = inplace_backward
        self.expected_grad = expected_grad
        self.z_loss = z_loss
        self.softcap = softcap
        self.return_lse = return_lse
        self.return_entropy = return_entropy

    def forward(
        self, input: Tensor, target: Tensor, *, normalizer: float | Tensor | None = None
    ) -> Any:
        """Returns the loss, or a tuple that begins with it; normalizer: see the function."""
        return F.cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
            inplace_backward=self.inplace_backward,
            expected_grad=self.expected_grad,
            z_loss=self.z_loss,
            softcap=self.softcap,
            normalizer=normalizer,
            return_lse=self.return_lse,
            return_entropy=self.return_entropy,
        )

    def extra_repr(self) -> str:
        """What differs from the defaults among the arguments that torch's loss does not have."""
        defaults = CrossEntropyLoss.__init__.__kwdefaults__ or {}
        given = {name: getattr(self, name) for name in defaults}
        return ", ".join(f"{k}={v!r}" for k, v in given.items() if v != defaults[k])


class BCEWithLogitsLoss(nn.BCEWithLogitsLoss):
    """:func:`fastact.functional.binary_cross_entropy_with_logits`; arguments as torch's module."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(
            input,
            target,
            self.weight,
            pos_weight=self.pos_weight,
            reduction=self.reduction,
        )
