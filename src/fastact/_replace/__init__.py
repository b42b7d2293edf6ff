"""replace() and restore(): fastact inside existing models."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from types import BuiltinFunctionType, FunctionType

from torch.nn import Module

from . import _activations, _gated, _losses
from ._report import Left, Replaced, Report
from ._swap import KINDS, Swapped, become, gate_of, gate_once_swapped, swapped

__all__ = ["Left", "Replaced", "Report", "replace", "restore"]


FUNCTION_TYPES = (FunctionType, BuiltinFunctionType)


UNKNOWN = "has another one than fastact knows"


def _unknown(cls: type, what: str) -> Left:
    """A class or function of another library that is not as we know it; replace() warns of it."""
    library = cls.__module__.partition(".")[0]
    version = getattr(sys.modules.get(library), "__version__", "?")
    return Left("", what, f"{library} {version} {UNKNOWN}")


def _activation(module: Module) -> str | Left | None:
    """The kind of an activation or loss module, or why it is left."""
    cls = type(module)
    name = cls.__qualname__
    if cls in _activations.TORCH:
        return _activations.TORCH[cls]
    row = _activations.KNOWN.get((cls.__module__, name))
    if row is not None:
        if _activations.is_as_known(module, row):
            return row.kind
        return _unknown(cls, name)
    if cls.__module__.startswith("fastact."):
        return None
    for parent in cls.__mro__[1:]:
        if parent in _activations.TORCH and not issubclass(cls, Swapped):
            return Left("", name, f"derives from torch.nn.{parent.__name__}")
    if cls.__module__ in _activations.PLACES and not any(True for _ in module.children()):
        return Left("", name, "fastact has no such op")
    return None


def _mlp(module: Module) -> str | Left | None:
    """The kind of a gated MLP, or why it is left."""
    cls = type(module)
    form = _gated.form_of(module)
    if form is None:
        known = _gated.form_once_known(module)
        if known is None:
            unknown = Left("", cls.__qualname__, "gated, but not in a way that fastact knows")
            return unknown if _gated.looks_gated(module) else None
        if cls.__name__ in known.classes:
            return _unknown(cls, cls.__qualname__)
        return Left("", cls.__qualname__, "a subclass of an MLP that fastact knows")
    act = getattr(module, form.act)
    kind = _activation(act)
    if gate_of(act) or (isinstance(kind, str) and gate_once_swapped(act, kind)):
        return form.kind
    return Left("", cls.__qualname__, f"no gated op for {type(act).__qualname__}")


def _recognised(module: Module, losses: bool) -> str | Left | None:
    """The kind that a module becomes; why it is left; or None, if it has nothing to do with us."""
    if type(module).__dict__.get("_fastact"):
        return None
    found = _activation(module) or _mlp(module)
    if isinstance(found, str):
        if not losses and found.removeprefix("torch.nn.") in _activations.LOSSES:
            return None
        if "forward" in module.__dict__:
            return Left("", type(module).__qualname__, "this one has a forward of its own")
    return found


def _now(module: Module, kind: str) -> str:
    """What will compute a module of a kind, for the report."""
    if kind not in _gated.ACTS:
        return KINDS[kind].label
    act = getattr(module, _gated.ACTS[kind])
    gate = gate_of(act) or gate_once_swapped(act, str(_activation(act)))
    return _gated.label(kind, str(gate))


def _functions(name: str, module: Module) -> list[Left]:
    """The functions of torch's that a module keeps in attributes, to do what it likes with."""
    return [
        Left(
            f"{name}.{key}" if name else key,
            f"torch.nn.functional.{_activations.FUNCTIONS[value]}",
            "a function in an attribute",
        )
        for key, value in vars(module).items()
        if isinstance(value, FUNCTION_TYPES) and value in _activations.FUNCTIONS
    ]


def _lm_loss(name: str, module: Module, report: Report) -> _losses.Loss | None:
    """What replaces the loss of a model of transformers."""
    loss = _losses.loss_of(module)
    if loss is None or loss in _losses.OURS:
        return None
    label = getattr(loss, "__name__", type(loss).__name__)
    if _losses.is_set(module):
        report.left.append(Left(name, label, "somebody has set it"))
        return None
    ours = _losses.ours_for(loss)
    if ours is not None:
        now = f"fastact.functional.cross_entropy, in {ours.__name__}"
        report.replaced.append(Replaced(name, label, now))
    elif label in _losses.KNOWN:
        report.left.append(dataclasses.replace(_unknown(type(module), label), name=name))
    return ours


def replace(model: Module, *, losses: bool = True, dry_run: bool = False) -> Report:
    """Lets fastact compute what it can in an existing model, in place; :func:`restore` undoes it.

    Replaced are torch.nn's modules that fastact.nn has too, the activation classes of transformers
    and timm, gated MLPs (``down(act(gate(x)) * up(x))``: Llama, Mistral, Qwen, Gemma, Phi-3 and all
    that say the same), and the loss of transformers' language models.

    Every module stays the same object, with its parameters, buffers, hooks, ``state_dict`` keys,
    dtype, device and training flag; its class becomes a subclass of its own that differs in
    ``forward``. Models can be replaced before or after they are loaded, copied, pickled, compiled,
    wrapped for checkpointing or in DDP; before they are wrapped in FSDP. What is not known exactly
    is left: subclasses, other versions' classes, functions kept in attributes.

    Args:
        model: any module, the activation itself included.
        losses: whether losses are replaced too.
        dry_run: whether to report only, and change nothing.

    Returns:
        What was replaced, what was left and why; prints as a table.

    Raises:
        TypeError: ``model`` is not a module.

    Warns:
        UserWarning: a class of transformers or timm is not as fastact knows it; it is left.

    Example:
        >>> import fastact, torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.GELU(), torch.nn.PReLU())
        >>> fastact.replace(model)
        fastact replaced 1, left 1
          count  where  was   now
          1      *      GELU  fastact.nn.GELU
          count  where  left   why
          1      *      PReLU  fastact has no such op
        >>> fastact.restore(model)
        1
    """
    if not isinstance(model, Module):
        raise TypeError(f"replace(): argument 'model' must be a Module, not {type(model).__name__}")
    report = Report(dry_run=dry_run)
    modules: list[tuple[Module, str]] = []
    models: list[tuple[Module, _losses.Loss]] = []
    for name, module in model.named_modules():
        found = _recognised(module, losses)
        if isinstance(found, Left):
            report.left.append(dataclasses.replace(found, name=name))
        elif found is not None:
            report.replaced.append(Replaced(name, type(module).__qualname__, _now(module, found)))
            modules.append((module, found))
        elif not isinstance(module, Swapped):
            report.left += _functions(name, module)
        loss = _lm_loss(name, module, report) if losses else None
        if loss is not None:
            models.append((module, loss))
    for was, why in sorted({(left.was, left.why) for left in report.left if UNKNOWN in left.why}):
        text = f"{was}: {why}; it is left as it is. A newer fastact may know it."
        warnings.warn(text, stacklevel=2)
    if not dry_run:
        for module, kind in modules:
            own: type = type(module)
            become(module, swapped(own, kind))
        for module, loss in models:
            module.loss_function = loss  # type: ignore[assignment]
    return report


def restore(model: Module) -> int:
    """Undoes :func:`replace` in a model, a copy of it, or a part of it.

    Every module gets its own class back; a model of transformers the loss of its class.

    Args:
        model: any module.

    Returns:
        How many modules and losses were restored.

    Raises:
        TypeError: ``model`` is not a module.

    Warns:
        UserWarning: a module's class has been changed again since, by FSDP for one; it is left.

    Example:
        >>> import fastact, torch
        >>> act = torch.nn.SiLU()
        >>> _ = fastact.replace(act)
        >>> fastact.restore(act), type(act) is torch.nn.SiLU
        (1, True)
    """
    if not isinstance(model, Module):
        raise TypeError(f"restore(): argument 'model' must be a Module, not {type(model).__name__}")
    count = 0
    for name, module in model.named_modules():
        own = type(module).__dict__.get("_fastact")
        if own is not None:
            become(module, own[0])
            count += 1
        elif isinstance(module, Swapped):
            warnings.warn(
                f"restore(): the class of {name or 'the model'!r} has been changed since fastact "
                f"replaced it, to {type(module).__qualname__}; it is left",
                stacklevel=2,
            )
        if module.__dict__.get("_loss_function") in _losses.OURS:
            _losses.unset(module)
            count += 1
    return count
