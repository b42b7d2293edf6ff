"""What fastact has to reach: how many times as fast forward and backward are as torch's."""

from __future__ import annotations

from dataclasses import dataclass

from cases import BOTH
from results import Row
from timing import Spread

FLOOR = 0.95  # of torch's speed, in every row

_ELEMENTWISE = (("2^20", "fp32"), ("2^24", "fp32"), ("2^20", "bf16"), ("2^24", "bf16"))
_LOGITS = ("2048x32000", "512x128256", "4096x1000", "64x10")


@dataclass(frozen=True)
class Bar:
    """One requirement."""

    op: str
    where: str
    dtype: str
    required: float
    against: str = "torch"

    def measured(self, rows: list[Row]) -> Spread | None:
        """The ratio that was measured; None where the case was not."""
        key = (self.op, self.where, self.dtype, BOTH)
        for row in rows:
            if (row.op, row.where, row.dtype, row.mode) == key:
                return row.ratio(against=self.against)
        return None


_REQUIRED = {
    "gelu_tanh": (4, 2.5, 4, 3),
    "gelu": (1.2, 2, 1.1, 1.5),
    "silu": (1.05, 2, 1.2, 1.5),
    "silu_mul": (2, 2, 2, 2),
    "leaky_relu": (1, 1.5, 1, 1.5),
    "relu": (1, 1.5, 1, 1.5),
}
_REQUIRED_LOSS = {"fp32": (5, 4, 2, 1), "bf16": (4, 3, 2, 1)}

BARS = [
    *(
        Bar(op, where, dtype, required)
        for op, row in _REQUIRED.items()
        for (where, dtype), required in zip(_ELEMENTWISE, row, strict=True)
    ),
    *(
        Bar("cross_entropy", where, dtype, required)
        for dtype, row in _REQUIRED_LOSS.items()
        for where, required in zip(_LOGITS, row, strict=True)
    ),
    Bar("cross_entropy", _LOGITS[0], "fp32", 2.5, against="torch.compile"),
    Bar("cross_entropy_inplace", _LOGITS[0], "fp32", 8),
]
