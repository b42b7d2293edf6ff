"""The sizes below which backend "auto" leaves a call to torch, which is faster there.

``benchmarks/cutoffs.py`` measures them, and prints the lines of the tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

Pair = tuple[int, int]  # without a gradient to record, and with one

NEVER = 62  # as a power of two
# Ops over classes are measured at so many classes, a line each. Below 32 classes each lane of a
# vector holds a row, and torch's kernels are slow; from 32 to 511 a row is too short to keep
# vectors full.
OVER_CLASSES = ("softmax", "log_softmax", "nll_loss", "cross_entropy")
CLASSES = (10, 100, 1000)


@dataclass(frozen=True)
class Cutoffs:
    """Fewer elements than these go to torch; of float64 as many as of float32."""

    fp32: Pair = (2**14, 2**14)
    bf16: Pair = (2**14, 2**14)
    fp16: Pair = (2**14, 2**14)
    of: Mapping[torch.dtype, Pair] = field(init=False, repr=False, compare=False)
    # Below the least torch answers in any dtype, with a gradient or without; from the most on none.
    least: int = field(init=False)
    most: int = field(init=False)

    def __post_init__(self) -> None:
        of = {
            torch.float32: self.fp32,
            torch.float64: self.fp32,
            torch.bfloat16: self.bf16,
            torch.float16: self.fp16,
        }
        object.__setattr__(self, "of", of)
        object.__setattr__(self, "least", min(map(min, of.values())))
        object.__setattr__(self, "most", max(map(max, of.values())))


class _Table(dict[str, Cutoffs]):
    """By op; what has no line of its own has the cutoffs ``other``."""

    def __init__(self, lines: Mapping[str, Cutoffs], other: Cutoffs) -> None:
        super().__init__(lines)
        self._other = other

    def __missing__(self, _op: str) -> Cutoffs:
        return self._other


# Powers of two, for float32, bfloat16 and float16; in elements of the input, of gated ops in
# elements of the result. A new op has the sizes of Cutoffs until it is measured.
Line = tuple[Pair, Pair, Pair]
_COMPILED: dict[str, Line] = {
    "gelu": ((0, 0), (0, 0), (16, 15)),
    "gelu_tanh": ((12, 13), (12, 13), (12, 13)),
    "quick_gelu": ((0, 0), (0, 0), (0, 0)),
    "silu": ((16, 19), (14, 16), (15, 17)),
    "sigmoid": ((17, 23), (15, 18), (15, 17)),
    "tanh": ((11, 14), (12, 15), (12, 15)),
    "softplus": ((13, 15), (13, 14), (13, 14)),
    "logsigmoid": ((13, 15), (13, 15), (13, 15)),
    "mish": ((10, 11), (10, 11), (10, 11)),
    "elu": ((13, 14), (13, 14), (13, 14)),
    "selu": ((12, 14), (12, 14), (12, 14)),
    "celu": ((13, 15), (13, 14), (13, 14)),
    "relu": ((23, 23), (15, 18), (17, 18)),
    "relu6": ((23, 23), (15, 17), (15, 18)),
    "leaky_relu": ((23, 23), (15, 18), (24, 24)),
    "squared_relu": ((15, 14), (13, 13), (10, 10)),
    "hardswish": ((23, 23), (15, 18), (17, 18)),
    "hardsigmoid": ((19, 23), (14, 17), (15, 18)),
    "silu_mul": ((15, 15), (13, 14), (14, 15)),
    "silu_glu": ((14, 14), (13, 14), (14, 14)),
    "gelu_mul": ((0, 0), (0, 0), (16, 14)),
    "gelu_glu": ((0, 0), (0, 0), (14, 13)),
    "gelu_tanh_mul": ((12, 13), (11, 12), (12, 12)),
    "gelu_tanh_glu": ((11, 12), (11, 12), (11, 11)),
    "relu_mul": ((16, 17), (14, 15), (15, 15)),
    "relu_glu": ((16, 14), (13, 14), (14, 14)),
    "sigmoid_glu": ((18, 17), (15, 17), (17, 17)),
    "softmax C=10": ((10, 12), (11, 13), (11, 13)),
    "softmax C=100": ((16, 19), (16, 18), (16, 18)),
    "softmax C=1000": ((16, 18), (16, 18), (16, 18)),
    "log_softmax C=10": ((10, 12), (10, 12), (10, 12)),
    "log_softmax C=100": ((19, 20), (19, 21), (19, 21)),
    "log_softmax C=1000": ((16, 18), (16, 18), (16, 18)),
    "nll_loss C=10": ((NEVER, NEVER), (NEVER, NEVER), (NEVER, NEVER)),
    "nll_loss C=100": ((NEVER, NEVER), (NEVER, NEVER), (NEVER, NEVER)),
    "nll_loss C=1000": ((NEVER, NEVER), (NEVER, NEVER), (NEVER, NEVER)),
    "cross_entropy C=10": ((12, 13), (12, 13), (12, 12)),
    "cross_entropy C=100": ((16, 17), (16, 17), (16, 17)),
    "cross_entropy C=1000": ((17, 18), (17, 18), (17, 18)),
    "bce_with_logits": ((13, 15), (11, 14), (11, 14)),
}
_NUMBA: dict[str, Line] = {
    "gelu": ((24, 23), (24, 24), (24, 24)),
    "gelu_tanh": ((18, 19), (18, 19), (18, 18)),
    "quick_gelu": ((21, 21), (24, 23), (23, 22)),
    "silu": ((23, 23), (24, 24), (24, 24)),
    "sigmoid": ((23, 23), (24, 24), (24, 24)),
    "tanh": ((15, 18), (19, 22), (18, 20)),
    "softplus": ((20, 23), (18, 24), (20, 24)),
    "logsigmoid": ((19, 22), (21, 24), (19, 24)),
    "mish": ((13, 14), (13, 14), (13, 14)),
    "elu": ((19, 22), (19, NEVER), (19, 22)),
    "selu": ((19, 22), (19, 24), (19, 21)),
    "celu": ((19, 22), (20, 24), (19, 22)),
    "relu": ((23, 23), (24, 24), (24, 24)),
    "relu6": ((23, 23), (24, 24), (24, 24)),
    "leaky_relu": ((23, 23), (24, 24), (24, 24)),
    "squared_relu": ((22, 20), (23, 21), (13, 18)),
    "hardswish": ((23, 23), (24, 24), (NEVER, NEVER)),
    "hardsigmoid": ((23, 23), (NEVER, 24), (NEVER, 24)),
    "silu_mul": ((22, 23), (24, 24), (24, 24)),
    "silu_glu": ((22, 21), (24, 23), (24, 23)),
    "gelu_mul": ((22, 22), (24, 24), (24, 24)),
    "gelu_glu": ((22, 21), (NEVER, 24), (24, 23)),
    "gelu_tanh_mul": ((18, 19), (18, 19), (18, 19)),
    "gelu_tanh_glu": ((18, 18), (19, 19), (18, 19)),
    "relu_mul": ((21, 21), (23, 22), (23, 22)),
    "relu_glu": ((21, 20), (23, 22), (22, 21)),
    "sigmoid_glu": ((23, 22), (24, 23), (NEVER, 23)),
    "softmax C=10": ((16, 19), (NEVER, NEVER), (NEVER, NEVER)),
    "softmax C=100": ((24, 23), (24, 24), (24, 24)),
    "softmax C=1000": ((24, 24), (NEVER, NEVER), (NEVER, NEVER)),
    "log_softmax C=10": ((17, 23), (16, 22), (16, 22)),
    "log_softmax C=100": ((23, 23), (24, NEVER), (24, NEVER)),
    "log_softmax C=1000": ((24, 24), (NEVER, NEVER), (NEVER, NEVER)),
    "nll_loss C=10": ((NEVER, NEVER), (NEVER, NEVER), (NEVER, NEVER)),
    "nll_loss C=100": ((NEVER, 23), (NEVER, NEVER), (NEVER, NEVER)),
    "nll_loss C=1000": ((NEVER, 24), (NEVER, NEVER), (NEVER, NEVER)),
    "cross_entropy C=10": ((16, 18), (16, 17), (16, 17)),
    "cross_entropy C=100": ((23, 23), (NEVER, 24), (NEVER, 24)),
    "cross_entropy C=1000": ((21, 22), (21, 22), (21, 22)),
    "bce_with_logits": ((23, 23), (24, NEVER), (24, 24)),
}


def _table(lines: dict[str, Line]) -> Mapping[str, Cutoffs]:
    table = {
        op: Cutoffs(*((2**plain, 2**grad) for plain, grad in line)) for op, line in lines.items()
    }
    for op in OVER_CLASSES:  # whatever the classes
        lines_of_op = [table[f"{op} C={classes}"] for classes in CLASSES]
        least = (
            tuple(map(min, zip(*(line.of[dtype] for line in lines_of_op), strict=True)))
            for dtype in (torch.float32, torch.bfloat16, torch.float16)
        )
        table[op] = Cutoffs(*least)
    return _Table(table, Cutoffs())


# By whose kernels they are, and by op. Numba's are slow in float16 where it is not converted by the
# processor's instructions (_numba_jit.py).
CUTOFFS = {
    "compiled": _table(_COMPILED),
    "numba": _table(_NUMBA),
    "numba without float16": _table(
        {op: (fp32, bf16, (NEVER, NEVER)) for op, (fp32, bf16, _) in _NUMBA.items()}
    ),
}


def no_cutoffs() -> Mapping[str, Cutoffs]:
    """Nothing goes to torch for its size."""
    return _Table({}, Cutoffs((0, 0), (0, 0), (0, 0)))


def line_of(op: str, classes: int) -> str:
    """The line of an op, of rows of so many classes if it is over classes."""
    if op not in OVER_CLASSES:
        return op
    return f"{op} C={CLASSES[0 if classes < 32 else 1 if classes < 512 else 2]}"
