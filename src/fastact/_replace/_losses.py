"""The losses of transformers' language models.

A model of transformers takes its loss from its property ``loss_function``, which can be set. The
ones below do the same as the functions that they replace, without the copy of the logits in
float32: the fused loss computes in float32 from 16-bit logits.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from .. import functional as F
from .._private import WITHOUT_AUTOCAST
from ._source import says

Loss = Callable[..., Tensor]


def _cross_entropy(
    logits: Tensor,
    labels: Tensor,
    vocab_size: int,
    num_items_in_batch: Tensor | float | None,
    ignore_index: int,
) -> Tensor:
    """The loss of logits (..., vocab_size), in float32."""
    logits = logits.reshape(-1, vocab_size)  # a slice of a sequence has no view of that shape
    labels = labels.view(-1).to(logits.device)
    # Autocast is what makes a loss of 16-bit logits a float32.
    context: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    device = logits.device.type
    if logits.dtype in (torch.bfloat16, torch.float16) and device not in WITHOUT_AUTOCAST:
        context = torch.autocast(device, torch.bfloat16)
    else:
        logits = logits.float()
    normalizer = num_items_in_batch
    if isinstance(normalizer, Tensor):
        normalizer = normalizer.to(logits.device)
    with context:
        if isinstance(normalizer, Tensor) and normalizer.dim() > 0:
            # One for each device, say: the loss takes their shape.
            loss = F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="sum")
            return loss / normalizer
        return F.cross_entropy(logits, labels, ignore_index=ignore_index, normalizer=normalizer)


def causal_lm_loss(
    logits: Tensor,
    labels: Tensor,
    vocab_size: int,
    num_items_in_batch: Tensor | float | None = None,
    ignore_index: int = -100,
    shift_labels: Tensor | None = None,
    **_: Any,
) -> Tensor:
    """What transformers' ForCausalLMLoss computes: a token's logits predict the next token.

    Args:
        logits: (batch, length, vocab_size).
        labels: (batch, length), token i to be predicted at i - 1.
        vocab_size: the number of classes.
        num_items_in_batch: what the sum is divided by, in place of the number of labels that count.
        ignore_index: the label of tokens that do not count.
        shift_labels: labels that are shifted already.
    """
    if shift_labels is None:
        shift_labels = torch.nn.functional.pad(labels, (0, 1), value=ignore_index)
        shift_labels = shift_labels[..., 1:].contiguous()
    return _cross_entropy(logits, shift_labels, vocab_size, num_items_in_batch, ignore_index)


def masked_lm_loss(
    logits: Tensor,
    labels: Tensor,
    vocab_size: int,
    num_items_in_batch: Tensor | float | None = None,
    ignore_index: int = -100,
    **_: Any,
) -> Tensor:
    """What transformers' ForMaskedLMLoss computes: :func:`causal_lm_loss` without the shift."""
    return _cross_entropy(logits, labels, vocab_size, num_items_in_batch, ignore_index)


_FIXED = """
def fixed_cross_entropy(source, target, num_items_in_batch=None, ignore_index=-100, **kwargs):
    reduction = "sum" if num_items_in_batch is not None else "mean"
    loss = nn.functional.cross_entropy(
        source, target, ignore_index=ignore_index, reduction=reduction)
    if reduction == "sum":
        if torch.is_tensor(num_items_in_batch):
            num_items_in_batch = num_items_in_batch.to(loss.device)
        loss = loss / num_items_in_batch
    return loss
"""
_SETTER = """
@loss_function.setter
def loss_function(self, value):
    self._loss_function = value
"""
_CAUSAL = """
def f(logits, labels, vocab_size, num_items_in_batch=None, ignore_index=-100, shift_labels=None,
      **kwargs):
    logits = logits.float()
    if shift_labels is None:
        labels = nn.functional.pad(labels, (0, 1), value=ignore_index)
        shift_labels = labels[..., 1:].contiguous()
    logits = logits.view(-1, vocab_size)
    shift_labels = shift_labels.view(-1)
    shift_labels = shift_labels.to(logits.device)
    loss = fixed_cross_entropy(logits, shift_labels, num_items_in_batch, ignore_index, **kwargs)
    return loss
"""
_MASKED = """
def f(logits, labels, vocab_size, num_items_in_batch=None, ignore_index=-100, **kwargs):
    logits = logits.float()
    logits = logits.view(-1, vocab_size)
    labels = labels.view(-1)
    labels = labels.to(logits.device)
    loss = fixed_cross_entropy(logits, labels, num_items_in_batch, ignore_index, **kwargs)
    return loss
"""

# By name: what it says in the versions that we know, and ours.
KNOWN: dict[str, tuple[str, Loss]] = {
    "ForCausalLMLoss": (_CAUSAL, causal_lm_loss),
    "ForMaskedLMLoss": (_MASKED, masked_lm_loss),
}
OURS = frozenset(ours for _, ours in KNOWN.values())


def loss_of(module: Module) -> Loss | None:
    """The loss function of a model of transformers whose forward calls it; else None."""
    cls = type(module)
    descriptor = getattr(cls, "loss_function", None)
    if not isinstance(descriptor, property) or not says(descriptor.fset, _SETTER):
        return None
    code = getattr(inspect.unwrap(cls.forward), "__code__", None)
    if code is None or "loss_function" not in code.co_names:
        return None
    loss: Loss = module.loss_function  # type: ignore[assignment]
    return loss


def ours_for(loss: Loss) -> Loss | None:
    """Our equivalent of a loss function of transformers; None where it is not as we know it."""
    name = getattr(loss, "__name__", "")
    helper = getattr(loss, "__globals__", {}).get("fixed_cross_entropy")
    if name not in KNOWN or not says(helper, _FIXED) or not says(loss, KNOWN[name][0]):
        return None
    return KNOWN[name][1]


def is_set(module: Module) -> bool:
    """Whether a model has a loss function of its own, set by somebody."""
    return "_loss_function" in module.__dict__


def unset(module: Module) -> None:
    """Gives a model back the loss function that its class chooses."""
    del module._loss_function
