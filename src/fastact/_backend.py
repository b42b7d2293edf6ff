"""Which backend answers: the one that was forced, or the best there is."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import threading
from collections.abc import Mapping
from contextlib import ContextDecorator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from . import _autograd, _library, _private
from ._cutoffs import CUTOFFS, OVER_CLASSES, Cutoffs, no_cutoffs
from ._registry import ACTIVATIONS, GATES

NAMES = ("auto", "compiled", "numba", "torch")
OPS = (
    *ACTIVATIONS, *(f"{gate}_mul" for gate in GATES), *(f"{gate}_glu" for gate in GATES),
    *OVER_CLASSES, "bce_with_logits",
)  # fmt: skip


class _Least:
    """A plain object: nothing is read faster than its attributes."""


# For each of these ops, below how many elements torch answers whatever the dtype: the cutoffs of
# the choice in force. 0: the choice itself is asked.
LEAST: Any = _Least()
vars(LEAST).update(dict.fromkeys(OPS, 0))


@dataclass(frozen=True)
class BackendInfo:
    """One backend: its name, whether it can be used here, and the details or the reason why not."""

    name: str
    available: bool
    detail: str


def _compiled_info() -> BackendInfo:
    if _private.MISSING:
        return BackendInfo("compiled", False, _private.MISSING)
    cpu = _library.cpu()
    if cpu.error:
        return BackendInfo("compiled", False, cpu.error)
    return BackendInfo("compiled", True, f"CPU, {cpu.isa} of {', '.join(cpu.isas)}")


def _with_gpu(compiled: BackendInfo) -> BackendInfo:
    """What the compiled kernels can do on a GPU, too. Loads their library."""
    if not compiled.available:
        return compiled
    cuda = _library.cuda()
    refusals = []
    if cuda.error is None and torch.cuda.is_initialized():  # asking would start CUDA
        devices = [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
        refusals = [f"{d}: {refusal}" for d in devices if (refusal := cuda.refusal(d))]
    on_gpu = cuda.error or "; ".join(
        [f"{cuda.detail}; only when forced, as they are not measured yet", *refusals]
    )
    return BackendInfo(compiled.name, True, f"{compiled.detail}; GPU: {on_gpu}")


def _numba_info() -> BackendInfo:
    """Imports Numba, as that it can be found does not say that it works."""
    if _private.MISSING:
        return BackendInfo("numba", False, _private.MISSING)
    if importlib.util.find_spec("numba") is None:
        return BackendInfo("numba", False, "numba is not installed; run: pip install numba")
    try:
        import numba
    except Exception as error:  # of a NumPy that is too new for it, say
        return BackendInfo("numba", False, f"numba cannot be imported: {error}")
    if getattr(numba.config, "DISABLE_JIT", False):
        return BackendInfo("numba", False, "NUMBA_DISABLE_JIT is set")
    return BackendInfo("numba", True, "CPU, compiled at the first call of each op")


def backends() -> list[BackendInfo]:
    """Lists the backends, what each runs on, and why one is not available.

    Example:
        >>> import fastact
        >>> [backend.name for backend in fastact.backends()]
        ['compiled', 'numba', 'torch']
    """
    return [
        _with_gpu(_compiled_info()),
        _numba_info(),
        BackendInfo("torch", True, f"torch {torch.__version__}"),
    ]


@dataclass(frozen=True)
class Choice:
    """What a backend name stands for now."""

    name: str
    functions: dict[str, _autograd.Functions]  # by op; empty: torch's own ops answer
    auto: bool = False  # whether torch answers where it is faster
    source: str = "torch"  # whose kernels those are
    cutoffs: Mapping[str, Cutoffs] = field(default_factory=no_cutoffs)  # by op, where auto
    cuda: _library.CudaLibrary | None = None  # whose kernels take CUDA tensors; None: torch's
    least: Mapping[str, int] = field(init=False, repr=False, compare=False)  # see LEAST

    def __post_init__(self) -> None:
        least = {op: self.cutoffs[op].least if self.auto else 0 for op in OPS}
        object.__setattr__(self, "least", least)


def _resolve(name: str) -> Choice:
    if name not in NAMES:
        raise ValueError(f"backend must be one of {', '.join(NAMES)}; got {name!r}")
    if name == "torch":
        return Choice(name, {})
    source = name
    if name == "auto":
        infos = (info() for info in (_compiled_info, _numba_info))
        source = next((info.name for info in infos if info.available), "torch")
    else:
        info = _compiled_info() if name == "compiled" else _numba_info()
        if not info.available:
            raise RuntimeError(f"the backend {name!r} is not available: {info.detail}")
    if source == "torch":
        return Choice(name, {})
    namespace = _library.NAMESPACES[source]
    table = source
    if source == "numba":
        from . import _numba_jit, _numba_losses

        _numba_losses.register()
        if not _numba_jit.CONVERTS_FLOAT16:
            table = "numba without float16"
    # "auto" leaves GPUs to torch until our kernels are measured there. The library is loaded here,
    # not at the first CUDA tensor, which may be one that a compiler traces.
    cuda = _library.cuda() if name == "compiled" else None
    auto = name == "auto"
    cutoffs = CUTOFFS[table] if auto else no_cutoffs()
    return Choice(name, _autograd.functions(namespace), auto, source, cutoffs, cuda)


class _State:
    """The choice in force; one attribute of one object, so that a call reads it fast."""

    error: Exception | None = None  # why the environment's choice could not be made
    choice: Choice
    # The last one that has any: another thread may choose torch while a call is on its way to one.
    kernels: Choice

    def __init__(self, choice: Choice) -> None:
        self.use(choice)

    def use(self, choice: Choice) -> None:
        if choice.functions:
            self.kernels = choice
        self.choice = choice
        vars(LEAST).update(choice.least)


class _Refused(_State):
    """Without a choice: nobody answers in place of what was asked for."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        if name != "choice" or self.error is None:
            raise AttributeError(name)
        raise self.error.with_traceback(None)


def _from_environment() -> _State:
    """What the environment variables ask for, or what is wrong with them."""
    name = os.environ.get("FASTACT_BACKEND") or "auto"
    if name not in NAMES:
        allowed = ", ".join(NAMES)
        return _Refused(ValueError(f"FASTACT_BACKEND must be one of {allowed}; got {name!r}"))
    try:
        choice = _resolve(name)
    except RuntimeError as error:
        return _Refused(RuntimeError(f"FASTACT_BACKEND={name}: {error}"))
    # Nothing else answers instead of the instruction set that was asked for.
    if name != "torch" and (wrong := _library.cpu().wrong_isa):
        return _Refused(RuntimeError(wrong))
    return _State(choice)


def _is_command() -> bool:
    """Whether this process is ``fastact`` or ``python -m fastact``."""
    first = sys.argv[0] if getattr(sys, "argv", None) else ""
    if first == "-m":  # while the package of the module is imported
        return sys.orig_argv[-len(sys.argv)].removeprefix("-m") == "fastact"
    return Path(first).stem == "fastact"


def check_environment() -> None:
    """Raises what is wrong with the environment variables; the command line says it by itself."""
    if STATE.error is not None and not _is_command():
        raise STATE.error.with_traceback(None)


class Block(ContextDecorator):
    """A ``with`` block that also decorates functions, of which it holds until they return."""

    def __call__(self, function: Any) -> Any:
        """Decorates a function."""
        later = inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction
        if any(runs(function) for runs in later):
            raise TypeError(
                f"{type(self).__name__}(): cannot decorate {function.__qualname__}(), which runs "
                "after it has returned; write a with block inside of it"
            )
        return super().__call__(function)


class backend(Block):
    """Forces a backend inside a ``with`` block or a decorated function, in the whole process.

    Args:
        name: ``"compiled"`` (the C++ kernels), ``"numba"``, ``"torch"`` (torch's own ops), or
            ``"auto"``: the compiled kernels where there are any, else Numba's, and torch where no
            kernel of ours serves or where torch is measured to be faster. A forced backend has no
            such cutoff. The environment variable ``FASTACT_BACKEND`` sets the start value. Under
            torch.compile ``"auto"`` leaves to torch what its compiler fuses. The block goes around
            the call of a compiled function, which cannot enter it inside.

    Raises:
        ValueError: the name is none of these.
        TypeError: what is decorated is a generator or coroutine function, which runs later.
        RuntimeError: the backend is not available here; the message says how to get it.

    Example:
        >>> import fastact, torch
        >>> with fastact.backend("torch"):
        ...     y = fastact.functional.gelu(torch.ones(3))
    """

    _lock = threading.Lock()
    # Of all blocks in the process, the first being none. Those of other threads may end before or
    # after one that began later; the last one that is still open decides.
    _open: ClassVar[dict[object, Choice]] = {}

    def __init__(self, name: str) -> None:
        self._choice = _resolve(name)
        self._entered: list[object] = []

    def __enter__(self) -> backend:
        with self._lock:
            if not self._open:
                self._open[None] = STATE.choice
            self._entered.append(object())
            self._open[self._entered[-1]] = self._choice
            STATE.use(self._choice)
        return self

    def __exit__(self, *_: Any) -> None:
        with self._lock:
            del self._open[self._entered.pop()]
            STATE.use(next(reversed(self._open.values())))
            if len(self._open) == 1:
                self._open.clear()


STATE = _from_environment()
