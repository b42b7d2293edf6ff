"""cross_entropy in eager code alone: the gradient over the logits, or from the forward pass."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from . import _private
from ._autograd import Op, call, functions, transforms_active
from ._library import families
from ._private import below_autograd


@cache
def inplace_cross_entropy(namespace: str) -> type[Op]:
    """cross_entropy whose backward writes the gradient over the logits, in eager code."""
    family = families(namespace)["cross_entropy"]
    overwrite = family.others["_backward_"]
    eager = functions(namespace)["cross_entropy"].eager

    class InplaceBackward(Op):
        symbol = "CrossEntropyInplaceBackward"
        overload = family.forward

        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            return eager.forward(ctx, *args)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
            saved, constants = ctx.saved_tensors, ctx.constants
            rest = (None,) * (2 + len(constants))
            if all(grad is None for grad in grads):
                return (None, *rest)
            grads = family.all_grads(grads, constants)
            if torch.is_grad_enabled():
                raise RuntimeError(
                    "cross_entropy(): with inplace_backward=True the gradient overwrites the "
                    "logits, and cannot be differentiated again; leave out either "
                    "inplace_backward or create_graph"
                )
            logits = saved[0].detach()
            with below_autograd():
                overwrite(*grads, logits, *saved[1:], *constants)
            # Whoever else has saved the logits is refused them from now on.
            torch.autograd.graph.increment_version(logits)
            return (logits, *rest)

    return InplaceBackward


@cache
def cross_entropy_with_grad(namespace: str) -> type[Op]:
    """cross_entropy that computes its gradient in the forward pass, in eager code alone.

    Its first argument is the gradient that the loss is expected to receive.
    """
    family = families(namespace)["cross_entropy"]
    with_grad, correct_grad_ = family.others["_with_grad"], family.others["_correct_grad_"]
    plain = functions(namespace)["cross_entropy"]

    class WithGrad(Op):
        symbol = "CrossEntropyWithGrad"
        overload = with_grad

        @staticmethod
        def forward(ctx: Any, expected: Tensor, *args: Any) -> Any:
            with below_autograd():
                *outputs, grad = with_grad(expected, *args)
            ctx.constants = constants = args[family.tensors :]
            ctx.save_for_backward(expected, grad, *family.saved(args, tuple(outputs)))
            ctx.set_materialize_grads(False)
            ctx.is_handed_out = False
            return family.asked(tuple(outputs), constants)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
            constants = ctx.constants
            expected, grad, *saved = ctx.saved_tensors
            rest = (None,) * (2 + len(constants))
            if all(t is None for t in grads):
                return (None, None, *rest)
            grads = family.all_grads(grads, constants)
            # Nothing may be written over what an earlier pass has returned, nor by an op that is
            # itself differentiated or mapped over a batch.
            if (
                ctx.is_handed_out
                or torch.is_grad_enabled()
                or transforms_active()
                or any(t is not None and _private.is_legacy_batched(t) for t in grads)
            ):
                args = (*grads, *saved, *constants)
                return (None, call(family.backward, plain.backward, *args), *rest)
            ctx.is_handed_out = True
            with below_autograd():
                correct_grad_(grad, expected, *grads, *saved, *constants)
            # With a version of its own: who changes what is returned has not changed what is saved.
            return (None, grad.data, *rest)

    return WithGrad
