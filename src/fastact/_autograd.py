"""Differentiation: one torch.autograd.Function for each op, and what the dispatcher needs of it.

Two ways lead to a kernel. Eager code records a Function through torch's C entry point, which costs
half of ``Function.apply`` with ``setup_context`` (docs/design.md). Everything else, functorch
transforms, forward AD, torch.compile, a direct call of ``torch.ops.fastact.*``, goes through the
dispatcher, where the same Function is the op's Autograd kernel and finds the transforms further in
already peeled off; so no Function needs ``setup_context`` or a vmap rule of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.compiler import is_dynamo_compiling

from . import _private
from ._family import Family, as_tuple, no_passive
from ._library import families, library
from ._private import below_autograd, dual_level_active, functorch_active


def transforms_active() -> bool:
    """Whether a call has to go through the dispatcher: compiling, functorch, or dual numbers."""
    return torch.compiler.is_compiling() or functorch_active() or dual_level_active()


def may_be_tracked(t: Tensor | None) -> bool:
    """Whether anybody may differentiate by a tensor, at any level."""
    if t is None or t.requires_grad:
        return t is not None
    if functorch_active():
        if is_dynamo_compiling():  # which cannot look into a tensor
            return True
        while _private.is_functorch_wrapped(t):
            if _private.is_grad_tracking(t):
                return True
            t = _private.unwrapped(t)
        return bool(t.requires_grad)
    return dual_level_active() and forward_ad.unpack_dual(t).tangent is not None


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
        if _private.compiled_autograd_key is not None:
            body["_compiled_autograd_key"] = staticmethod(_private.compiled_autograd_key)
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


def _save(ctx: Any, tensors: tuple[Tensor | None, ...]) -> None:
    ctx.save_for_backward(*tensors)
    if not torch.compiler.is_dynamo_compiling() and dual_level_active():
        ctx.save_for_forward(*tensors)


def call(overload: Any, function: type[Op], *args: Any) -> Any:
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
        n, m, tensors = family.primals, family.outputs, family.tensors
        forward_op, backward_op = family.forward, family.backward
        double_op = family.double_backward
        find_saved, find_passive = family.saved, family.passive

        class Forward(Op):
            symbol = family.symbol
            overload = forward_op

            @staticmethod
            def forward(ctx: Any, *args: Any) -> Any:
                result = _run(forward_op, *args)
                outputs = as_tuple(result)
                ctx.constants = constants = args[tensors:]
                _save(ctx, find_saved(args, outputs))
                if passive := find_passive(constants):
                    ctx.mark_non_differentiable(*(outputs[i] for i in passive))
                    ctx.set_materialize_grads(False)
                ctx.count = len(outputs)
                return result

            @staticmethod
            def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
                saved, constants = ctx.saved_tensors, ctx.constants
                rest = (None,) * (tensors - n + len(constants))
                if all(grad is None for grad in grads[:m]):
                    return (*(None,) * n, *rest)
                result = call(backward_op, Backward, *grads[:m], *saved, *constants)
                return (*as_tuple(result), *rest)

            @staticmethod
            def jvp(ctx: Any, *tangents: Any) -> Any:
                saved, constants = ctx.saved_tensors, ctx.constants
                if family.symmetric:
                    return Backward.apply(tangents[0], *saved, *constants)
                v = _materialize(tangents[:n], saved[:n])
                no_grads = family.no_grads(saved, constants)
                result = as_tuple(Double.apply(*v, *no_grads, *saved, *constants))
                if ctx.count == 1:
                    return result[0]
                passive = find_passive(constants)
                return tuple(None if i in passive else result[i] for i in range(ctx.count))

        class Backward(Op):
            symbol = f"{family.symbol}Backward"
            overload = backward_op

            @staticmethod
            def forward(ctx: Any, *args: Any) -> Any:
                grads = _run(backward_op, *args)
                count = m + family.saves
                _save(ctx, args[:count])
                ctx.constants = args[count:]
                return grads

            @staticmethod
            def backward(ctx: Any, *v: Tensor) -> tuple[Any, ...]:
                inputs, constants = ctx.saved_tensors, ctx.constants
                result = as_tuple(call(double_op, Double, *v, *inputs, *constants))
                by_grads = (
                    None if grad is None else by
                    for by, grad in zip(result[:m], inputs, strict=False)
                )
                by_saved = result[m:]
                if family.linear:  # 0, as torch has it, and not "unused"
                    by_saved = tuple(
                        torch.zeros_like(s) if needed else None
                        for s, needed in zip(
                            inputs[m : m + n], ctx.needs_input_grad[m:], strict=False
                        )
                    )
                return (*by_grads, *by_saved, *(None,) * (family.saves - n + len(constants)))

            @staticmethod
            def jvp(ctx: Any, *tangents: Any) -> Any:
                inputs, constants = ctx.saved_tensors, ctx.constants
                grads, saved = inputs[:m], inputs[m:]
                terms = []
                if any(t is not None for t in tangents[:m]):
                    moved = tangents[:m] if m > 1 else _materialize(tangents[:1], grads)
                    terms.append(as_tuple(Backward.apply(*moved, *saved, *constants)))
                if any(t is not None for t in tangents[m : m + n]) and not family.linear:
                    v = _materialize(tangents[m : m + n], saved[:n])
                    if family.backward_tangent is None:
                        terms.append(Double.apply(*v, *grads, *saved, *constants)[m:])
                    else:
                        # For the levels further out, as in _sum, without this one's tangents.
                        with _private.set_forward_ad(True):
                            primals = [forward_ad.unpack_dual(s).primal for s in (*grads, *saved)]
                            terms.append(
                                family.backward_tangent(v, primals[:m], primals[m:], constants)
                            )
                if not terms:
                    return None if n == 1 else (None,) * n
                total = _sum(terms)
                return total[0] if n == 1 else total

        class Double(Op):
            symbol = f"{family.symbol}DoubleBackward"
            overload = double_op

            @staticmethod
            def forward(ctx: Any, *args: Any) -> Any:
                result = _run(double_op, *args)
                count = n + m + family.saves
                ctx.save_for_backward(*args[:count])
                ctx.constants = args[count:]
                return result

            # The third derivative and above, by composition.
            @staticmethod
            def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
                inputs, constants = ctx.saved_tensors, ctx.constants
                moving = [i for i in range(n + m + n) if inputs[i] is not None]

                def composed(*tensors: Tensor) -> tuple[Tensor, ...]:
                    args = list(inputs)
                    for i, tensor in zip(moving, tensors, strict=True):
                        args[i] = tensor
                    return as_tuple(family.composition(*args, *constants))

                pullback = torch.func.vjp(composed, *(inputs[i] for i in moving))[1]
                grads = [None] * (len(inputs) + len(constants))
                for i, grad in zip(moving, pullback(cotangents), strict=True):
                    grads[i] = grad
                return tuple(grads)

        class Eager(Op):
            """Forward, without the outputs nobody asked for: each costs a microsecond."""

            symbol = family.symbol
            overload = forward_op

            @staticmethod
            def forward(ctx: Any, *args: Any) -> Any:
                with below_autograd():
                    outputs = forward_op(*args)
                ctx.constants = constants = args[tensors:]
                ctx.save_for_backward(*find_saved(args, outputs))
                ctx.set_materialize_grads(False)
                return family.asked(outputs, constants)

            @staticmethod
            def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
                return Forward.backward(ctx, *family.all_grads(grads, ctx.constants))

        self.forward, self.backward, self.double_backward = Forward, Backward, Double
        # What an eager call records.
        self.eager = Forward if find_passive is no_passive else Eager
        self.inplace = None
        if family.inplace is not None:
            self.inplace = self._inplace(Backward)

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
                grad_x = call(backward_op, backward, grad, *ctx.saved_tensors, *constants)
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
        if x.is_inference() and not torch.is_inference_mode_enabled():
            raise RuntimeError(
                f"{name}: in-place update of an inference tensor outside InferenceMode is not "
                "allowed; clone it first"
            )
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
        ops = (made.forward, made.backward, made.double_backward)
        for function, rule in zip(ops, family.batching, strict=True):
            overload = function.overload
            third = family.composition if function is made.double_backward else None
            lib.impl(overload._opname, _autograd_kernel(function, third), "Autograd")
            torch.library.register_vmap(overload.name(), partial(rule, overload), lib=lib)
        if family.inplace is not None:
            autograd, version = _inplace_kernels(family.inplace)
            lib.impl(f"{name}_", autograd, "Autograd")
            lib.impl(f"{name}_", version, "ADInplaceOrView", with_keyset=True)
    return result
