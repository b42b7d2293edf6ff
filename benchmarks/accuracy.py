"""Compares fastact, compiled and Numba, and torch with float64: writes the documentation's table.

    python benchmarks/accuracy.py [--step 1021] [--ops gelu silu] [--out docs/data/accuracy.json]

Each op with its default parameters: every step-th float32, and every bfloat16 and float16.
`make exhaustive` takes every float32, of the compiled kernels alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from references import every, every_float, exact_64, results, scales
from tables import progress_bar, stdout
from torch import Tensor

import fastact
from fastact._cli.accuracy import FROM_OUTPUT, errors, rounded
from fastact._library import cpu
from fastact._registry import ACTIVATIONS, Activation

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "docs" / "data" / "accuracy.json"
CONTENDERS = ("compiled", "numba", "torch")
KINDS = ("value", "slope")
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
CHUNK = 2**20


def torchs(row: Activation, x: Tensor) -> dict[str, Tensor]:
    """Value and slope by torch's own op, or its composition."""
    x = x.clone().requires_grad_()
    value = row.reference(x, *row.defaults)
    (slope,) = torch.autograd.grad(value, x, torch.ones_like(x))
    return {"value": value.detach(), "slope": slope}


def outcome(contender: str, row: Activation, x: Tensor) -> dict[str, Tensor]:
    """Value and slope by a contender."""
    if contender == "torch":
        return torchs(row, x)
    return results(row, row.defaults, x, contender)


def worst(found: dict[str, Any], error: Tensor, x: Tensor) -> dict[str, Any]:
    """The worst error so far, and how often a result was infinite or NaN and should not have been.

    Args:
        found: what the chunks before gave; empty at first.
        error: of each element, in ulp; infinite where the result or the truth alone is not finite.
        x: the inputs.
    """
    broken = error.isinf()
    error = error.masked_fill(broken, -1.0)
    at = int(error.argmax())
    made = found or {"ulp": 0.0, "at": 0.0, "broken": 0, "broken_at": None}
    if error[at] > made["ulp"]:
        made = {**made, "ulp": float(error[at]), "at": float(x[at])}
    if broken.any():
        where = x[broken]
        first = float(where[where.abs().argmin()])
        if made["broken_at"] is None or abs(first) < abs(made["broken_at"]):
            made = {**made, "broken_at": first}
        made = {**made, "broken": made["broken"] + int(broken.sum())}
    return made


def float32(row: Activation, x: Tensor) -> dict[str, dict[str, Any]]:
    """The worst errors over some float32."""
    found: dict[str, dict[str, Any]] = {c: {k: {} for k in KINDS} for c in CONTENDERS}
    for part in x.split(CHUNK):
        value, slope, curvature = exact_64(row, row.defaults, part)
        slope_scale, _ = scales(row, row.defaults, part.double(), value, slope, curvature)
        want = {"value": (value, value), "slope": (slope, slope_scale)}
        for contender in CONTENDERS:
            got = outcome(contender, row, part)
            for kind, (exact, scale) in want.items():
                # Where the float64 reference overflows on the way it has nothing to say.
                known = exact.isfinite()
                error = errors(got[kind][known], exact[known], scale[known])
                found[contender][kind] = worst(found[contender][kind], error, part[known])
    return found


def misrounded(row: Activation, dtype: torch.dtype) -> dict[str, dict[str, int | None]]:
    """How many of all inputs of 16 bits do not give the exact result, rounded once."""
    x = every(dtype)
    x = x[x.isfinite()]
    value, slope, _ = exact_64(row, row.defaults, x)
    found: dict[str, dict[str, int | None]] = {}
    for contender in CONTENDERS:
        got = outcome(contender, row, x)
        found[contender] = {}
        for kind, exact in (("value", value), ("slope", slope)):
            known = exact.isfinite()
            want, y = rounded(exact[known], dtype), got[kind][known]
            wrong = (y != want) & ~(y.isnan() & want.isnan())
            # Those slopes follow from the rounded output, in torch as here.
            from_output = kind == "slope" and row.name in FROM_OUTPUT
            found[contender][kind] = None if from_output else int(wrong.sum())
    return found


def compare(names: Iterable[str], step: int) -> dict[str, Any]:
    """The contents of the file."""
    x = every_float(step)
    ops: dict[str, Any] = {}
    with progress_bar() as progress:
        for name in progress.track(list(names), description="accuracy"):
            row = ACTIVATIONS[name]
            full = float32(row, x)
            half = {label: misrounded(row, dtype) for label, dtype in HALF.items()}
            ops[name] = {
                contender: {
                    "fp32": full[contender],
                    **{label: half[label][contender] for label in HALF},
                }
                for contender in CONTENDERS
            }
    return {
        "step": step,
        "inputs": x.numel(),
        "versions": {"fastact": fastact.__version__, "torch": torch.__version__, "isa": cpu().isa},
        "ops": ops,
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--step", type=int, default=1021, help="of the bit patterns of float32")
    parser.add_argument("--ops", nargs="+", choices=list(ACTIVATIONS), default=list(ACTIVATIONS))
    parser.add_argument("--out", type=Path, default=PUBLISHED)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = compare(options.ops, options.step)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    stdout.print(f"Wrote {options.out}")


if __name__ == "__main__":
    main()
