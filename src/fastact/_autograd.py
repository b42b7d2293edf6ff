"""Differentiation: one torch.autograd.Function for each op, and what the dispatcher needs of it.

Two ways lead to a kernel. Eager code records a Function through torch's C entry point, which costs
half of ``Function.apply`` with ``setup_context`` (docs/design.md). Everything else, functorch
transforms, forward AD, torch.compile, a direct call of ``torch.ops.fastact.*``, goes through the
dispatcher, where the same Function is the op's Autograd kernel and finds the transforms further in
already peeled off; so no Function needs ``setup_context`` or a vmap rule of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from . import _private
from ._library import Family, families, library
from ._private import below_autograd, dual_level_active, functorch_active


def transforms_active() -> bool:
    """Whether a call has to go through the dispatcher: compiling, functorch, or dual numbers."""
    return torch.compiler.is_compiling() or functorch_active() or dual_level_active()


class Op(Function):
    """An autograd Function over one registered op; ``apply`` is correct everywhere.

    ``record`` is the C entry point beneath ``Function.apply``: that of a class that torch's own
    functorch code derives from, and whose apply does without the checks for transforms.
    """

    symbol: str
    overload: Any
    record: Callable[..., Any]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.__name__ = cls.__qualname__ = cls.symbol
        cls.__module__ = "fastact.autograd"
        methods = ("forward", "backward", "jvp")
        body = {method: cls.__dict__[method] for method in methods if method in cls.__dict__}
        recorder: Any = type(cls.symbol, (_private.SingleLevelFunction,), body)
        cls.record = recorder.apply
        if "jvp" in body:
            # torch.compile does not look at apply but into the Function, and refuses one with a
            # jvp. It never needs it: what it traces is differentiated by the dispatcher.
            del cls.jvp

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Calls the op, and records it where a gradient may be asked for."""
        return (cls.overload if transforms_active() else cls.record)(*args)


def _run(overload: Any, *args: Any) -> Any:
    """The op itself, from within a Function's forward."""
    if torch.compiler.is_dynamo_compiling():  # forward is being traced, not run
        return overload(*args)
    if functorch_active():
        # The transforms further out have to record it, and forward has switched recording off.
        with torch.enable_grad(), _private.set_forward_ad(True), below_autograd():
            return overload(*args)
    with below_autograd():
        return overload(*args)


def _save(ctx: Any, tensors: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*tensors)
    if not torch.compiler.is_dynamo_compiling() and dual_level_active():
        ctx.save_for_forward(*tensors)


def _call(overload: Any, function: type[Op], *args: Any) -> Any:
    """An op on tensors that may need anything: what backward formulas call."""
    if transforms_active():
        return overload(*args)
    if torch.is_grad_enabled():
        return function.record(*args)
    with below_autograd():
        return overload(*args)


def _materialize(tangents: tuple[Any, ...], like: Any) -> list[Tensor]:
    return [torch.zeros_like(s) if t is None else t for t, s in zip(tangents, like, strict=True)]


def _sum(terms: list[Any]) -> Any:
    """The elementwise sum of tuples of tensors, inside a jvp.

    There torch has switched forward AD off, for this level's sake and by accident for the levels
    further out; the terms carry no tangent of this level, so it can be on.
    """
    total = terms[0]
    with _private.set_forward_ad(True):
        for term in terms[1:]:
            total = tuple(a + b for a, b in zip(total, term, strict=True))
    return total


class Functions:
    """The three Functions of a family, and their Autograd and vmap kernels."""

    def __init__(self, family: Family) -> None:
        self.family = family
        n = family.primals
        forward_op, backward_op = family.forward, family.backward
        double_op = family.double_backward
        saves_output = family.saves_output
        composition = family.composition

        def as_tuple(result: Any) -> tuple[Tensor, ...]:
            return (result,) if isinstance(result, Tensor) else tuple(result)

        class Forward(Op):
            symbol = family.symbol
            overload = forward_op

            @staticmethod
            def forward(ctx: Any, *args: Any) -> Tensor:
                y: Tensor = _run(forward_op, *args)
                ctx.constants = constants = args[n:]
                _save(ctx, (y,) if saves_output(*constants) else args[:n])
                return y

            @staticmethod
            def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
                constants = ctx.constants
                grads = _call(backward_op, Backward, grad, *ctx.saved_tensors, *constants)
                return (*as_tuple(grads), *(None,) * len(constants))

            @staticmethod
            def jvp(ctx: Any, *tangents: Any) -> Any:
                saved, constants = ctx.saved_tensors, ctx.constants
                if n == 1 and not family.packed:
                    return Backward.apply(tangents[0], *saved, *constants)
                # What forward-mode AD asks for is double_backward's first result, which does not
                # depend on grad.
                v = _materialize(tangents[:n], saved)
                grad = torch.zeros_like(family.like(*saved, *constants))
                return Double.apply(*v, grad, *saved, *constants)[0]

        class Backward(Op):
            symbol = f"{family.symbol}Backward"
            overload = backward_op

            @staticmethod
            def forward(ctx: Any, *args: Any) -> Any:
                grads = _run(backward_op, *args)
                _save(ctx, args[: n + 1])
                ctx.constants = args[n + 1 :]
                return grads

            @staticmethod
            def backward(ctx: Any, *v: Tensor) -> tuple[Any, ...]:
                constants = ctx.constants
                grads = _call(double_op, Double, *v, *ctx.saved_tensors, *constants)
                return (*grads, *(None,) * len(constants))

            @staticmethod
            def jvp(ctx: Any, grad_tangent: Any, *tangents: Any) -> Any:
                (grad, *saved), constants = ctx.saved_tensors, ctx.constants
                terms = []
                if grad_tangent is not None:
                    terms.append(as_tuple(Backward.apply(grad_tangent, *saved, *constants)))
                if any(t is not None for t in tangents[:n]):
                    v = _materialize(tangents[:n], saved)
                    terms.append(Double.apply(*v, grad, *saved, *constants)[1:])
                total = _sum(terms)
                return total[0] if n == 1 else total

        class Double(Op):
            symbol = f"{family.symbol}DoubleBackward"
            overload = double_op

            @staticmethod
            def forward(ctx: Any, *args: Any) -> Any:
                grads = _run(double_op, *args)
                ctx.save_for_backward(*args[: 2 * n + 1])
                ctx.constants = args[2 * n + 1 :]
                return grads

            # The third derivative and above, by composition.
            @staticmethod
            def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
                constants = ctx.constants

                def composed(*tensors: Tensor) -> tuple[Tensor, ...]:
                    return composition(*tensors, *constants)

                pullback = torch.func.vjp(composed, *ctx.saved_tensors)[1]
                return (*pullback(cotangents), *(None,) * len(constants))

        self.forward, self.backward, self.double_backward = Forward, Backward, Double
        self.inplace = None if family.inplace is None else self._inplace(Backward)

    def _inplace(self, backward: type[Op]) -> type[Op]:
        family = self.family
        inplace_op, backward_op = family.inplace, family.backward

        class Inplace(Op):
            """x is overwritten; where the input is needed later, it comes as ``original`` too."""

            symbol = f"{family.symbol}Inplace"
            overload = inplace_op

            @staticmethod
            def forward(ctx: Any, x: Tensor, original: Tensor | None, *constants: float) -> Tensor:
                _run(inplace_op, x, *constants)
                ctx.mark_dirty(x)
                ctx.save_for_backward(x if original is None else original)
                ctx.constants = constants
                ctx.through_original = original is not None
                return x

            @staticmethod
            def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
                constants = ctx.constants
                grad_x = _call(backward_op, backward, grad, *ctx.saved_tensors, *constants)
                slots = (None, grad_x) if ctx.through_original else (grad_x, None)
                return (*slots, *(None,) * len(constants))

        return Inplace


def _may_be_differentiated(args: tuple[Any, ...]) -> bool:
    """Whether the level of differentiation that is now entered may follow one of these."""
    return _private.forward_ad_enabled() or (
        torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in args)
    )


def _autograd_kernel(function: type[Op], composition: Any = None) -> Callable[..., Any]:
    def kernel(*args: Any) -> Any:
        if composition is not None and transforms_active():
            # torch.func.vjp cannot start inside a transform that is half entered: what is
            # differentiated a third time is left to this level's own autograd.
            if _may_be_differentiated(args):
                return composition(*args)
            return _run(function.overload, *args)
        # Inside a functorch transform torch allows a Function only where it knows that the
        # transform's level has been entered already; an Autograd kernel is such a place.
        with _private.allow_single_level():
            return function.record(*args)

    return kernel


def _vmap_rule(overload: Any, family: Family) -> Callable[..., Any]:
    """Every op is elementwise: batch dimensions go first, and a packed dimension moves by one."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
        batched = []
        for arg, dim in zip(args, in_dims, strict=True):
            if not isinstance(arg, Tensor):
                batched.append(arg)
            elif dim is None:
                batched.append(arg.expand(info.batch_size, *arg.shape))
            else:
                batched.append(arg.movedim(dim, 0))
        if family.packed:
            batched[-2] += 1
        result = overload(*batched)
        return result, (0 if isinstance(result, Tensor) else (0,) * len(result))

    return rule


def _inplace_kernels(overload: Any) -> tuple[Callable[..., None], Callable[..., None]]:
    name = overload.name()

    def autograd(x: Tensor, *constants: float) -> None:
        if torch.is_grad_enabled() and x.requires_grad:
            raise RuntimeError(
                f"{name} does not record gradients; call fastact.functional with inplace=True"
            )
        with below_autograd():
            overload(x, *constants)

    def version(keyset: Any, x: Tensor, *constants: float) -> None:
        torch.autograd.graph.increment_version(x)
        with _private.below_version_counter():
            overload.redispatch(keyset & _private.after_version_counter, x, *constants)

    return autograd, version


@cache
def functions(namespace: str) -> dict[str, Functions]:
    """Registers autograd and vmap for every op of a namespace; returns its Functions by name."""
    lib = library(namespace)
    result = {}
    for name, family in families(namespace).items():
        made = result[name] = Functions(family)
        for function in (made.forward, made.backward, made.double_backward):
            overload = function.overload
            third = family.composition if function is made.double_backward else None
            lib.impl(overload._opname, _autograd_kernel(function, third), "Autograd")
            torch.library.register_vmap(overload.name(), _vmap_rule(overload, family), lib=lib)
        if family.inplace is not None:
            autograd, version = _inplace_kernels(family.inplace)
            lib.impl(f"{name}_", autograd, "Autograd")
            lib.impl(f"{name}_", version, "ADInplaceOrView", with_keyset=True)
    return result
