"""Dead units and vanishing gradients, recorded while a model trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from . import nn as ours
from ._dtensor import is_dtensor
from ._private import functorch_active, is_jit_tracing

# Elementwise and of one input. RReLU is missing, whose slope is drawn anew at every call.
ELEMENTWISE = (
    nn.CELU, nn.ELU, nn.GELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh,
    nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.PReLU, nn.ReLU, nn.SELU, nn.Sigmoid, nn.SiLU,
    nn.Softplus,
    nn.Softshrink, nn.Softsign, nn.Tanh, nn.Tanhshrink, nn.Threshold, ours.QuickGELU,
    ours.SquaredReLU,
)  # fmt: skip
# Of two inputs, or of the halves of one.
GATED = (
    nn.GLU, ours.GEGLU, ours.GELUMul, ours.ReGLU, ours.ReLUMul, ours.SiLUMul, ours.SwiGLU,
)  # fmt: skip
# Modules of Python whose classes without children are activations.
HOMES = ("transformers.activations", "timm.layers.activations", "timm.layers.activations_me")
CHUNK = 1024  # records for which memory is taken at a time


def is_activation(module: nn.Module) -> bool:
    """Whether a module computes an activation that is known, gated or not."""
    if isinstance(module, (*ELEMENTWISE, *GATED)):
        return True
    return type(module).__module__ in HOMES and not list(module.children())


def unit_dim(x: Tensor) -> int:
    """The dimension of x that counts units: the channels of (N, C, H, W), else the last one."""
    return 1 if x.dim() in (4, 5) else x.dim() - 1


def itself(x: Tensor) -> Tensor:
    """What is saved is kept as it is."""
    return x


def is_operand(value: object) -> bool:
    """Whether a module may have a slope at one of its arguments."""
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.dim() > 0
        and value.numel() > 0
        and not is_dtensor(value)
    )


def differentiates() -> bool:
    """Whether a slope can be taken here by a backward pass of our own."""
    return torch.compiler.is_compiling() or not (
        functorch_active() or torch.is_inference_mode_enabled() or is_jit_tracing()
    )


def slopes_of(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> list[Tensor]:
    """What reaches each input of a module of a gradient of ones, without a trace of that anywhere.

    Of the shape of the output: of an input twice as large, each half counts as one.
    """
    operands: list[Tensor] = []
    inplace = getattr(module, "inplace", False)

    def apart(value: Any) -> Any:
        if not is_operand(value):
            return value
        operands.append(value.detach().requires_grad_())
        # Autograd refuses to let a leaf be overwritten.
        return operands[-1].clone() if inplace else operands[-1]

    # Checkpointing counts what is saved, in hooks that these hide.
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(itself, itself):
        y = module.forward(*map(apart, args), **{name: apart(v) for name, v in named.items()})
        if not isinstance(y, Tensor):
            return []
        found = torch.autograd.grad(y, operands, torch.ones_like(y), allow_unused=True)
    return [part for slope in found if slope is not None for part in like(y, slope)]


def like(y: Tensor, slope: Tensor) -> tuple[Tensor, ...]:
    """The parts of a slope that have the shape of y: the slope, its halves, or nothing."""
    if slope.shape == y.shape:
        return (slope,)
    if slope.dim() == y.dim():
        sizes = enumerate(zip(slope.shape, y.shape, strict=True))
        other = [(dim, large == 2 * small) for dim, (large, small) in sizes if large != small]
        if len(other) == 1 and other[0][1]:
            return slope.chunk(2, other[0][0])
    return ()


@dataclass
class Layer:
    """What is recorded of one call of one activation: a row for each recorded step.

    All of it stays on the device of the layer, so that a GPU is never waited for.
    """

    units: int
    last_alive: Tensor  # of each unit: the record in which it was alive last
    rows: list[Tensor] = field(default_factory=list)  # CHUNK x (share of dead units, mean |grad|)

    def write(self, record: int, column: int, value: Tensor) -> None:
        """Keeps a 0-dim tensor."""
        while record >= CHUNK * len(self.rows):
            device = self.last_alive.device
            self.rows.append(torch.full((CHUNK, 2), float("nan"), device=device))
        self.rows[record // CHUNK][record % CHUNK, column] = value

    def read(self, column: int, records: int) -> list[float]:
        """The values of a column."""
        if not self.rows:
            return [float("nan")] * records
        values: list[float] = torch.cat(self.rows)[:records, column].tolist()
        return values + [float("nan")] * (records - len(values))


class Record:
    """What :class:`fastact.monitor` saw. ``str(record)`` is a table of the last recorded step.

    Attributes:
        steps: the numbers of the recorded steps, from 0 on.
    """

    def __init__(self) -> None:
        self.steps: list[int] = []
        self._layers: dict[str, Layer] = {}

    def to_dict(self) -> dict[str, Any]:
        """Everything, in lists.

        ``steps``, and for each of ``layers`` its number of ``units``, the share of ``dead`` ones
        and the mean absolute ``gradient`` at each step; NaN where a layer was not seen.
        """
        count = len(self.steps)
        layers = {
            name: {
                "units": layer.units,
                "dead": layer.read(0, count),
                "gradient": layer.read(1, count),
            }
            for name, layer in self._layers.items()
        }
        return {"steps": list(self.steps), "layers": layers}

    def table(self) -> str:
        """Each layer's units, dead units and gradient at the last recorded step, as text."""
        if not self.steps:
            return "fastact.monitor: no step was recorded"
        head = ("layer", "units", "dead", "mean |gradient|")
        rows = [head]
        for name, layer in self.to_dict()["layers"].items():
            dead, gradient = layer["dead"][-1], layer["gradient"][-1]
            rows.append((name, str(layer["units"]), f"{dead:.1%}", f"{gradient:.2e}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"fastact.monitor: step {self.steps[-1]}, {len(self.steps)} recorded"]
        for first, *rest in rows:
            cells = [first.ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
            lines.append("  " + "  ".join(cells))
        return "\n".join(lines)

    __str__ = table

    def plot(self) -> Any:
        """Draws dead units and gradients over the steps, a line for each layer.

        Returns:
            A matplotlib Figure; ``figure.savefig("dead.png")`` keeps it.

        Raises:
            ModuleNotFoundError: matplotlib is not installed: ``pip install 'fastact[monitor]'``.
        """
        try:
            from matplotlib.figure import Figure
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "plot() needs matplotlib, which is not installed; run: "
                "pip install 'fastact[monitor]'"
            ) from error
        from matplotlib import colormaps

        figure = Figure(figsize=(11, 4), layout="constrained")
        dead, gradient = figure.subplots(1, 2)
        seen = self.to_dict()
        shades = colormaps["viridis"].resampled(max(len(seen["layers"]), 2))
        for number, (name, layer) in enumerate(seen["layers"].items()):
            colour = shades(number)
            dead.plot(seen["steps"], layer["dead"], color=colour, label=name)
            gradient.plot(seen["steps"], layer["gradient"], color=colour, label=name)
        dead.set(title="share of dead units", xlabel="step", ylim=(-0.02, 1.02))
        gradient.set(title="mean |gradient| by the layer's output", xlabel="step", yscale="log")
        if seen["layers"]:
            figure.legend(*dead.get_legend_handles_labels(), loc="outside right upper")
        return figure


class monitor:
    """Records, while a model trains, the share of dead units and the gradient of each activation.

    A unit is a feature of an activation's output: a channel of ``(N, C, H, W)``, else an index of
    the last dimension, that of ``(N, C, L)`` included. It is *dead* at a recorded step when its
    slope was at most ``threshold`` in absolute value on every sample (and position) of the last
    ``window`` recorded steps, or of all of them where there are fewer: no gradient passes it, so
    nothing before it learns from it. For ReLU that is a unit whose output is zero throughout (Lu,
    Shin, Su and Karniadakis, *Dying ReLU and Initialization*, 2020, arXiv:1903.06733); for
    functions that saturate (sigmoid, tanh, and GELU and SiLU far below zero) one that stays where
    they are flat. A unit of a gated activation, ``act(gate) * up``, has two slopes, ``act'(gate) *
    up`` and ``act(gate)``, and is dead when both are that small: when its gate is shut. The
    gradient is that of the loss by the activation's output, averaged in absolute value over its
    elements.

    What is seen is modules: those of fastact.nn (softmax and losses have no units of their own) and
    of torch.nn (not RReLU, whose slope is random), transformers and timm that compute an
    activation. In an MLP that :func:`fastact.replace` has fused, the activation's own module is
    called again as long as it is watched. One whose output has not the shape of an input or of half
    of one is passed over, and so are DTensors, and calls under torch.func, in inference mode and by
    torch.jit.trace. Functions are not seen, fastact.functional's as little as
    torch.nn.functional's: what a ``forward`` computes by ``relu(x)`` has no name to be recorded
    under, and nowhere to hang a hook. torch.nn.TransformerEncoderLayer is such a module, unless it
    was given ``activation=torch.nn.ReLU()``. Make such a call a module to have it recorded.

    A step is a call of the model in training mode; what is called with the model in evaluation mode
    is not looked at. An activation module that is called several times in a step is several layers:
    ``relu``, ``relu#2``, ... Nothing is read back from a GPU before the results are asked for.
    Gradient checkpointing works; with its reentrant form, gradients are recorded of modules that
    are called once. A copy of the model that is made inside of the block records nothing. A
    compiled model works too, but not with ``fullgraph=True``: what is recorded breaks the graph.

    Args:
        model: the model, before or after :func:`fastact.replace`; in place of a model under
            torch.compile give the original, before it is compiled.
        every: records every so many-th step; the others cost a few microseconds.
        window: how many recorded steps a unit has to be without a slope to count as dead.
        threshold: what counts as no slope.
        select: which modules to record, instead of those that are known as activations; each has
            to compute an elementwise function of its arguments, or of the halves of one.

    Raises:
        TypeError: ``model`` is not a torch.nn.Module, or a number is not an int.
        ValueError: ``every`` or ``window`` is below 1, or the model has no such module. When a
            selected module runs: it is not elementwise.

    Example:
        >>> import fastact, torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), fastact.nn.ReLU())
        >>> with fastact.monitor(model, every=1) as record:
        ...     for _ in range(3):
        ...         model(torch.randn(16, 4)).sum().backward()
        >>> record.steps
        [0, 1, 2]
        >>> sorted(record.to_dict()["layers"]["1"])
        ['dead', 'gradient', 'units']
    """

    # As long as it is not active, and of the hooks in a copy of the model.
    _handles: Sequence[RemovableHandle] = ()
    _step = -1
    _depth = 0  # of calls of the model

    def __init__(
        self,
        model: nn.Module,
        *,
        every: int = 50,
        window: int = 10,
        threshold: float = 1e-6,
        select: Callable[[nn.Module], bool] = is_activation,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"monitor(): model must be a Module, not {type(model).__name__}")
        for name, value in (("every", every), ("window", window)):
            if not isinstance(value, int):
                raise TypeError(f"monitor(): {name} must be an int, not {type(value).__name__}")
            if value < 1:
                raise ValueError(f"monitor(): {name} must be at least 1; got {value}")
        self._model, self._every, self._window = model, every, window
        self._threshold, self._selected = threshold, select is not is_activation
        # Each module once, under its first name.
        self._modules = {name: m for name, m in model.named_modules() if select(m)}
        if not self._modules:
            raise ValueError(
                f"monitor(): {type(model).__name__} has no module that is an activation, and calls "
                "of functions are not seen; name modules of yours with select="
            )
        self._record = Record()
        self._watching: list[RemovableHandle] = []
        self._calls: dict[str, int] = {}  # of each module in this step

    def __reduce__(self) -> tuple[Any, ...]:
        # A model that is copied or saved inside of the block takes its hooks along, which hold us.
        return object.__new__, (monitor,)

    def __enter__(self) -> Record:
        if self._handles:
            raise RuntimeError("monitor(): this monitor is active already; make another one")
        model = self._model
        self._handles = [
            model.register_forward_pre_hook(self._begin),
            model.register_forward_hook(self._end, always_call=True),
        ]
        self._watch(True)
        return self._record

    def __exit__(self, *_: Any) -> None:
        self._watch(False)
        for handle in self._handles:
            handle.remove()
        self._handles, self._depth = [], 0

    def _watch(self, records: bool) -> None:
        """Hangs hooks on the activations, for a step that is recorded: all others do without."""
        if not records:
            for handle in self._watching:
                handle.remove()
            self._watching = []
        elif not self._watching:
            for name, module in self._modules.items():
                self._watching += [
                    module.register_forward_pre_hook(partial(self._before, name), with_kwargs=True),
                    module.register_forward_hook(partial(self._after, name)),
                ]

    @property
    def _records(self) -> bool:
        """Whether this step is recorded."""
        return self._step >= 0 and self._step % self._every == 0

    def _begin(self, model: nn.Module, _inputs: Any) -> None:
        if not self._handles:
            return
        self._depth += 1
        if self._depth == 1 and model.training:
            self._step += 1
            self._calls = {}
            if self._records:
                self._record.steps.append(self._step)
            # A compiled graph keeps the hooks that it was traced with; and a model that is an
            # activation itself has begun its call.
            if not torch.compiler.is_compiling() and "" not in self._modules:
                self._watch(self._records)

    def _end(self, *_: Any) -> None:
        # It comes also where a hook before ours has raised and the call never began.
        self._depth = max(self._depth - 1, 0)

    def _before(
        self, name: str, module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]
    ) -> None:
        # Before the call, which may overwrite its input. A call outside the model's own is
        # checkpointing's, which repeats one of this step that was seen already.
        if not (self._records and module.training and self._depth and differentiates()):
            return
        if not any(map(is_operand, (*args, *named.values()))):
            return
        self._calls[name] = self._calls.get(name, 0) + 1
        slopes = slopes_of(module, args, named)
        if not slopes:
            if not self._selected:
                return
            raise ValueError(
                f"monitor(): {self._key(name)!r} ({type(module).__name__}) was selected, but its "
                "output has neither the shape of an input nor that of half of one"
            )
        unit = unit_dim(slopes[0])
        others = [d for d in range(slopes[0].dim()) if d != unit]
        # The largest absolute value; in one pass, where abs().amax() takes two.
        largest = [
            torch.linalg.vector_norm(s, math.inf, others) if others else s.abs() for s in slopes
        ]
        self._mark(self._key(name), reduce(torch.maximum, largest) > self._threshold)

    def _mark(self, key: str, alive: Tensor) -> None:
        """Notes which units are alive, and how many are not."""
        record = len(self._record.steps) - 1
        layer = self._record._layers.get(key)
        if layer is None or layer.units != alive.numel():
            never = torch.full(alive.shape, -1, dtype=torch.int32, device=alive.device)
            rows = layer.rows if layer else []  # other units, but the same layer
            layer = self._record._layers[key] = Layer(alive.numel(), never, rows)
        layer.last_alive.masked_fill_(alive, record)
        first = max(record - self._window + 1, 0)
        layer.write(record, 0, (layer.last_alive < first).float().mean())

    def _after(self, name: str, module: nn.Module, _inputs: Any, output: Any) -> None:
        if not (self._records and module.training and isinstance(output, Tensor)):
            return
        calls = self._calls.get(name, 0)  # none of an empty batch
        if calls and output.requires_grad and (self._depth or calls == 1):
            layer = self._record._layers.get(self._key(name))
            if layer is not None:
                record = len(self._record.steps) - 1
                # (With create_graph the gradient has a history, which the record would keep.)
                output.register_hook(lambda g: layer.write(record, 1, g.detach().abs().mean()))

    def _key(self, name: str) -> str:
        """The name of a layer: of the call that runs, or ran last."""
        name, call = name or "(the model)", self._calls[name]
        return name if call == 1 else f"{name}#{call}"
