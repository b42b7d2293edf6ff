"""Every case of the benchmarks: an op, a dtype, a size and a pass, and who competes in it.

The ops come from fastact's registry, so a new activation is measured without a line here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as TF
from timing import Call, written_out
from torch import Tensor

import fastact
from fastact import functional as F
from fastact._registry import ACTIVATIONS, GATES

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp64": torch.float64,
}
GRID_DTYPES = ("fp32", "bf16", "fp16")
FORWARD, BOTH = MODES = ("forward", "forward+backward")
FAMILIES = ("activations", "gated", "losses")
# "fastact" is what a user gets, the choice of torch for tiny tensors included.
CONTENDERS = ("fastact", "compiled", "numba", "torch", "torch.compile")
COPY = "copy"

Shapes = dict[str, tuple[int, ...]]
TensorOp = Callable[..., Tensor]
ACTIVATION_SHAPES: Shapes = {
    "16": (16,),
    "4096": (4096,),
    "2^20": (2**20,),
    "2^24": (2**24,),
}
# Rows of a hidden layer of LLaMA, 11008 wide, as near to those sizes as whole rows come.
GATED_SHAPES: Shapes = {
    "16": (1, 16),
    "4096": (1, 4096),
    "2^20": (95, 11008),
    "2^24": (1524, 11008),
}


@dataclass(frozen=True, eq=False)
class Op:
    """A function of fastact and torch's of the same value."""

    name: str
    family: str
    function: str  # in fastact.functional
    theirs: TensorOp
    inputs: Callable[[tuple[int, ...], torch.dtype], tuple[Tensor, ...]]
    shapes: Shapes
    # Passes over a tensor of the shape that nothing can avoid: forward, then backward.
    moves: tuple[int, int]
    keywords: dict[str, Any] = field(default_factory=dict)  # of fastact's function
    gate: str = ""  # the activation that gates
    differentiated: int = 1  # how many of the inputs, from the first on
    scalar: bool = False  # whether the result is one number
    indexed: bool = False  # whether a pass reads an integer for each row too
    overwrites: bool = False  # whether the backward pass does so to the first input
    dtypes: tuple[str, ...] = tuple(DTYPES)
    modes: tuple[str, ...] = MODES

    @property
    def ours(self) -> TensorOp:
        """The public function, with its keywords."""
        function: TensorOp = getattr(F, self.function)
        return partial(function, **self.keywords) if self.keywords else function


def _generator(seed: int) -> torch.Generator:
    return torch.Generator(torch.get_default_device()).manual_seed(seed)


@cache
def _pool(seed: int, _: torch.device) -> Tensor:
    return torch.randn(2**20, generator=_generator(seed))


def normal(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Normal numbers; above 2^20 they repeat, as drawing them would take longer than the rest."""
    count = math.prod(shape)
    pool = _pool(seed, torch.get_default_device()).to(dtype)
    return pool.repeat(-(-count // pool.numel()))[:count].clone().view(shape)


def _one(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    return (normal(shape, dtype),)


def _two(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    return normal(shape, dtype), normal(shape, dtype, 1)


def _halves(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    return (normal((*shape[:-1], 2 * shape[-1]), dtype),)


def _logits(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    return normal(shape, dtype), torch.randint(shape[1], shape[:1], generator=_generator(2))


def _probabilities(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    return normal(shape, dtype), torch.sigmoid(normal(shape, dtype, 1))


def _tanh(gate: str) -> tuple[str, dict[str, Any]]:
    """The public name of a gate, and what its function takes beside the tensors."""
    name = gate.removesuffix("_tanh")
    return name, {} if name == gate else {"approximate": "tanh"}


def _activations() -> Iterator[Op]:
    for row in ACTIVATIONS.values():
        function, keywords = _tanh(row.name)
        theirs = row.reference
        if keywords:
            theirs = partial(TF.gelu, **keywords)  # as a user calls it, without a Python frame
        yield Op(row.name, FAMILIES[0], function, theirs, _one, ACTIVATION_SHAPES, (2, 3), keywords)


_PACKED = {"silu": "swiglu", "gelu": "geglu", "relu": "reglu", "sigmoid": "glu"}


def _gated() -> Iterator[Op]:
    family, shapes, moves = FAMILIES[1], GATED_SHAPES, (3, 5)
    for gate in GATES:
        name, keywords = _tanh(gate)
        suffix = "_tanh" if keywords else ""
        reference = ACTIVATIONS[gate].reference

        def multiplied(gate: Tensor, up: Tensor, reference: TensorOp = reference) -> Tensor:
            return reference(gate) * up

        def packed(x: Tensor, reference: TensorOp = reference) -> Tensor:
            gate, up = x.chunk(2, -1)
            return reference(gate) * up

        if hasattr(F, f"{name}_mul"):
            yield Op(
                f"{name}_mul{suffix}", family, f"{name}_mul", multiplied, _two, shapes, moves,
                keywords, gate, differentiated=2,
            )  # fmt: skip
        if name in _PACKED:
            function = _PACKED[name]
            theirs = TF.glu if function == "glu" else packed
            yield Op(
                function + suffix, family, function, theirs, _halves, shapes, moves, keywords, gate
            )


def _losses() -> Iterator[Op]:
    family, dtypes = FAMILIES[2], ("fp32", "bf16")

    def shapes(*sizes: tuple[int, int]) -> Shapes:
        return {f"{rows}x{columns}": (rows, columns) for rows, columns in sizes}

    large, wide, images, tiny = (2048, 32000), (512, 128256), (4096, 1000), (64, 10)
    characters = (16384, 256)
    yield Op(
        "cross_entropy", family, "cross_entropy", TF.cross_entropy, _logits,
        shapes(large, wide, images, characters, tiny), (1, 2), scalar=True, indexed=True,
        dtypes=dtypes,
    )  # fmt: skip
    yield Op(
        "cross_entropy_inplace", family, "cross_entropy", TF.cross_entropy, _logits,
        shapes(large), (1, 2), {"inplace_backward": True}, scalar=True, indexed=True,
        overwrites=True, dtypes=dtypes, modes=(BOTH,),
    )  # fmt: skip
    # One pass, which reads the logits and writes the gradient.
    yield Op(
        "cross_entropy_expected", family, "cross_entropy", TF.cross_entropy, _logits,
        shapes(large, wide), (1, 1), {"expected_grad": 1.0}, scalar=True, indexed=True,
        dtypes=dtypes, modes=(BOTH,),
    )  # fmt: skip
    for name, function in (("softmax", TF.softmax), ("log_softmax", TF.log_softmax)):
        yield Op(
            name, family, name, partial(function, dim=-1), _one, shapes(large, images, tiny),
            (2, 3), {"dim": -1}, dtypes=dtypes,
        )  # fmt: skip
    yield Op(
        "nll_loss", family, "nll_loss", TF.nll_loss, _logits, shapes(images), (0, 1), scalar=True,
        indexed=True, dtypes=dtypes,
    )  # fmt: skip
    bce = "binary_cross_entropy_with_logits"
    yield Op(
        bce, family, bce, TF.binary_cross_entropy_with_logits, _probabilities,
        {"2^20": (2**20,)}, (2, 3), scalar=True, dtypes=dtypes,
    )  # fmt: skip


OPS = {op.name: op for op in (*_activations(), *_gated(), *_losses())}


@dataclass(frozen=True)
class Case:
    """An op at one dtype, shape and pass."""

    op: Op
    dtype: str
    where: str  # the size or shape, as it is printed
    mode: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result; of the logits, where that is one number."""
        return self.op.shapes[self.where]

    @property
    def elements(self) -> int:
        """How many elements that has."""
        return math.prod(self.shape)

    @property
    def name(self) -> str:
        """Names the case in one word."""
        return f"{self.op.name}-{self.dtype}-{self.where}-{self.mode}"

    @property
    def bytes(self) -> int:
        """What has to be read and written at least."""
        passes = 1 if self.mode == FORWARD else 2
        moved = sum(self.op.moves[:passes]) * self.elements * DTYPES[self.dtype].itemsize
        return moved + (passes * self.shape[0] * 8 if self.op.indexed else 0)

    @property
    def copy_bytes(self) -> int:
        """What a copy of as many elements as the result has reads and writes."""
        return 2 * self.elements * DTYPES[self.dtype].itemsize

    def compiles(self) -> bool:
        """Whether torch.compile, whose compilation takes seconds, competes by default."""
        return self.dtype == "fp32" and self.mode == BOTH and self.elements >= 2**20 * 0.99

    def calls(self, contenders: Iterable[str] = CONTENDERS) -> dict[str, Call]:
        """What to time: the contenders that exist here, and a copy into mapped memory."""
        dtype = DTYPES[self.dtype]
        tensors = self.op.inputs(self.shape, dtype)
        grad = normal(self.shape, dtype, 3)
        target = torch.zeros_like(grad)
        calls = {}
        for contender in contenders:
            call = self._call(contender, tensors, None if self.op.scalar else grad)
            if _works(call):
                calls[contender] = call
        return {**calls, COPY: Call(partial(target.copy_, grad))}

    def _call(self, contender: str, tensors: tuple[Tensor, ...], grad: Tensor | None) -> Call:
        function = self.op.theirs
        within: Callable[[], AbstractContextManager[object]] = nullcontext
        ours = not contender.startswith("torch")
        if contender == "torch.compile":
            torch.compiler.reset()  # else it gives up after some functions, and runs them eagerly
            function = torch.compile(function, dynamic=False)
        elif ours:
            function = self.op.ours
            within = partial(fastact.backend, "auto" if contender == "fastact" else contender)
        if self.mode == FORWARD:
            return Call(written_out(function, *tensors), within)
        count = self.op.differentiated
        leaves = [t.detach().requires_grad_() for t in tensors[:count]]
        rest, before = tensors[count:], None
        if ours and self.op.overwrites:
            leaves[0] = tensors[0].clone().requires_grad_() * 1  # a leaf may not be overwritten
            before = partial(_restore, leaves[0], tensors[0])

        forward = written_out(function, *leaves, *rest)

        def both() -> object:
            return torch.autograd.grad(forward(), leaves, grad)

        return Call(both, within, before)


@torch.no_grad()
def _restore(tensor: Tensor, original: Tensor) -> None:
    tensor.copy_(original)


def _works(call: Call) -> bool:
    """Whether a backend takes this case; what it says it does not take is left out."""
    try:
        call.sample(1)
    except NotImplementedError:
        return False
    return True


def available() -> list[str]:
    """The contenders that this machine has."""
    missing = {info.name for info in fastact.backends() if not info.available}
    return [name for name in CONTENDERS if name not in missing]


def select(
    families: Iterable[str] = FAMILIES,
    ops: Iterable[str] | None = None,
    dtypes: Iterable[str] = GRID_DTYPES,
    sizes: Iterable[str] | None = None,
    modes: Iterable[str] = MODES,
) -> list[Case]:
    """The cases that pass every filter, op by op."""
    families, dtypes, modes = set(families), set(dtypes), set(modes)
    ops, sizes = ops and set(ops), sizes and set(sizes)
    return [
        Case(op, dtype, where, mode)
        for op in OPS.values()
        if op.family in families and (not ops or op.name in ops)
        for dtype in op.dtypes
        if dtype in dtypes
        for where in op.shapes
        if not sizes or where in sizes
        for mode in op.modes
        if mode in modes
    ]
