"""How a module is swapped: it stays the same object and gets another class.

The class derives from the module's own and differs in ``forward``. So everything that a module
holds and everything that holds the module stays as it is, and ``isinstance`` too; the way back is
the class that it had. ``copy.deepcopy`` and pickle go through ``_revive``, since such a class has
no place to be imported from.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

from torch.nn import Module


@dataclass(frozen=True)
class Kind:
    """What a swapped module computes, and how."""

    label: str  # for the report
    forward: Callable[..., Any] | None = None  # None: the base has it
    base: type[Module] | None = None  # None: the module's own class
    # The op by which it gates another tensor, "silu", "gelu", "gelu_tanh" or "relu"; or a property
    # that tells.
    gate: str | property | None = None
    namespace: Mapping[str, Any] = field(default_factory=dict)  # what else its class gets
    # Whether a class still says what it said when a module of it was swapped, and pickled.
    is_known: Callable[[type], bool] = lambda _: True


KINDS: dict[str, Kind] = {}
OWN_GATES: dict[type, str | property] = {}  # as Kind.gate, of classes that need no swap


class Swapped:
    """The mark of a swapped module."""

    _fastact: tuple[type, str]  # its own class, and the name of a kind

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        reduced = super().__reduce_ex__(protocol)
        # Of a class that came on top later nothing is known here.
        if "_fastact" not in vars(type(self)):
            return reduced  # type: ignore[return-value]
        assert isinstance(reduced, tuple)
        return (_revive, self._fastact, *reduced[2:])


@functools.cache
def swapped(original: type, kind: str) -> type:
    """The class that a module of another class gets."""
    row = KINDS[kind]
    namespace: dict[str, Any] = {
        # As its own, for whoever asks for a module's class by name.
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        "_fastact": (original, kind),
        "_fastact_gate": row.gate,
        **row.namespace,
    }
    if row.forward is not None:
        namespace["forward"] = _as_called(row.forward, original)
    return type(original.__name__, (Swapped, row.base or original), namespace)


def _as_called(forward: Callable[..., Any], original: Any) -> FunctionType:
    """A forward whose argument has the name that it has in another class.

    Callers may use it, and torch.export asks for it.
    """
    assert isinstance(forward, FunctionType)
    code = forward.__code__
    _, name, *_ = inspect.signature(original.forward).parameters
    names = (code.co_varnames[0], name, *code.co_varnames[2:])
    renamed = code.replace(co_varnames=names)
    return FunctionType(renamed, forward.__globals__, "forward", None, forward.__closure__)


def become(module: Module, cls: type) -> None:
    """Gives a module another class."""
    module.__class__ = cls
    # torch.compile (2.10) looks at a module again where one of its dictionaries has changed.
    changed = vars(module)
    changed["_fastact_changed"] = True
    del changed["_fastact_changed"]


def _revive(original: type, kind: str) -> Any:
    if kind not in KINDS or not KINDS[kind].is_known(original):
        here = "it has another forward here" if kind in KINDS else f"there is no {kind!r} here"
        text = (
            f"{original.__qualname__}: fastact computed it where it was pickled or copied from, "
            f"but {here}; it is left as it is"
        )
        warnings.warn(text, stacklevel=2)
        return object.__new__(original)
    return object.__new__(swapped(original, kind))


def gate_of(act: object) -> str | None:
    """The op by which an activation gates, if it is a swapped one that does, or one of our own."""
    if type(act) in OWN_GATES:
        return _told(OWN_GATES[type(act)], act)
    gate: str | None = getattr(act, "_fastact_gate", None)
    return gate


def gate_once_swapped(module: Module, kind: str) -> str | None:
    """What ``gate_of`` will say of a module that is not swapped yet."""
    return _told(KINDS[kind].gate, module)


def _told(gate: str | property | None, module: object) -> str | None:
    if isinstance(gate, property):
        found: str | None = gate.fget(module) if gate.fget else None
        return found
    return gate
