"""What the tests of softmax and of the losses share: exact results, layouts and comparisons.

The references take float64 and are independent of fastact._compositions; autograd differentiates
them without cancellation where a target is confident.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
import torch.nn.functional as TF
from support import generator
from torch import Tensor

from fastact import functional as F

HALF = (torch.bfloat16, torch.float16)
# Classes on both sides of what decides between the kernels' layouts, and of a block's width.
CLASSES = (1, 2, 10, 32, 64, 65, 100, 1000, 1024, 1025, 2500)


def class_dim(x: Tensor) -> int:
    return 0 if x.dim() == 1 else 1


def compute(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def eps(t: Tensor) -> float:
    return torch.finfo(t.dtype).eps


def own_log_loss(z: Tensor, index: Tensor, dim: int) -> Tensor:
    """lse - z[index], as softplus of what the other classes hold: small where it is small."""
    own = z.gather(dim, index)
    at_target = torch.zeros_like(z, dtype=torch.bool).scatter(dim, index, True)
    # Rows of -inf and of one class only: torch.logsumexp has NaN gradients there.
    others = (z - own).masked_fill(at_target, -torch.inf)
    top = others.detach().amax(dim, keepdim=True).clamp(min=-1e300)
    total = (others - top).exp().sum(dim, keepdim=True)
    rest = torch.where(total > 0, top + total.clamp(min=1e-300).log(), -1e300)
    return TF.softplus(rest, threshold=700)


def exact_rows(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss, log-sum-exp, entropy and weight of each row, differentiable; inputs in float64."""
    dim = class_dim(x)
    z = x if softcap is None else softcap * torch.tanh(x / softcap)
    classes = x.shape[dim]
    w = torch.ones(classes, dtype=x.dtype) if weight is None else weight
    w = w.view(-1, *(1,) * (x.dim() - dim - 1))
    indexed = not target.is_floating_point()
    used = target != ignore_index if indexed else torch.ones(x.sum(dim).shape, dtype=torch.bool)
    z = torch.where(used.unsqueeze(dim), z, 0.0)
    lse = torch.logsumexp(z, dim)
    deficits = lse.unsqueeze(dim) - z
    if indexed:
        index = torch.where(used, target.long(), 0).unsqueeze(dim)
        row_weight = w.expand_as(z).gather(dim, index).squeeze(dim)
        loss = (1 - label_smoothing) * row_weight * own_log_loss(z, index, dim).squeeze(dim)
        if label_smoothing:
            loss = loss + label_smoothing / classes * (w * deficits).sum(dim)
    else:
        q = target * (1 - label_smoothing) + label_smoothing / max(classes, 1)
        loss = torch.where(q * w == 0, 0.0, q * w * deficits).sum(dim)
        row_weight = torch.ones_like(lse)
    loss = loss + z_loss * lse.square()
    log_p = torch.log_softmax(z, dim)
    p = log_p.exp()
    entropy = -(p * torch.where(p == 0, 0.0, log_p)).sum(dim)
    return tuple(torch.where(used, t, 0.0) for t in (loss, lse, entropy, row_weight))


def exact(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Any = None,
    return_lse: bool = False,
    return_entropy: bool = False,
    **options: Any,
) -> tuple[Tensor, ...]:
    """cross_entropy in float64: always a tuple."""
    loss, lse, entropy, row_weight = exact_rows(x, target, weight, **options)
    if reduction != "none":
        total = loss.sum()
        if reduction == "mean":
            total = total / (row_weight.sum() if normalizer is None else normalizer)
        loss = total
    return (loss, *([lse] if return_lse else []), *([entropy] if return_entropy else []))


def doubled(value: Any) -> Any:
    """A floating tensor as float64; anything else as it is."""
    is_floating = isinstance(value, Tensor) and value.is_floating_point()
    return value.detach().double() if is_floating else value


def ours(x: Tensor, target: Tensor, *args: Any, **options: Any) -> tuple[Tensor, ...]:
    result = F.cross_entropy(x, target, *args, **options)
    return result if isinstance(result, tuple) else (result,)


def random_like(t: Tensor, seed: int) -> Tensor:
    return torch.randn(t.shape, generator=generator(seed), dtype=torch.float64).to(t.dtype)


def derivatives(function: Any, x: Tensor, grads: Any, v: Any, second: bool) -> list[Tensor]:
    """Outputs, gradient, and the gradients of the gradient by each cotangent and by x."""
    x = x.detach().requires_grad_()
    outputs = function(x)
    grads = [g.detach().requires_grad_() for g in grads]
    (first,) = torch.autograd.grad(outputs, x, grads, create_graph=second)
    if not second:
        return [*outputs, first]
    rest = torch.autograd.grad(first, (*grads, x), v, materialize_grads=True, allow_unused=True)
    return [t.detach() for t in (*outputs, first, *rest)]


def assert_near(got: Tensor, want: Tensor, ulps: float, scale: Any, name: str) -> None:
    """|got - want| <= ulps eps (|want| + scale), NaN and infinities in the same places."""
    assert got.shape == want.shape, f"{name}: {tuple(got.shape)}, expected {tuple(want.shape)}"
    got, dtype = got.detach().double(), got.dtype
    same = (got == want) | (got.isnan() & want.isnan())
    tiny = torch.finfo(dtype).smallest_normal
    bound = ulps * torch.finfo(dtype).eps * (want.abs() + scale) + tiny
    bad = ~(same | ((got - want).abs() <= bound))
    if bad.any():
        at = tuple(bad.nonzero()[0].tolist())
        raise AssertionError(
            f"{name}: {int(bad.sum())} of {bad.numel()} differ, first at {at}: got "
            f"{got[at].item()!r}, expected {want[at].item()!r} +- {bound.expand_as(got)[at]:.3g}"
        )


def is_mean(options: dict[str, Any]) -> bool:
    return options.get("reduction", "mean") == "mean" and not options.get("return_lse")


def check(
    x: Tensor, target: Tensor, second: bool = True, ulps: float = 12, name: str = "", **options: Any
) -> None:
    """Every output, gradient and second gradient of cross_entropy against float64.

    Errors are in ulp of the largest of what is compared and of the terms that it is a sum of.
    """
    name = f"{name} {tuple(x.shape)} {x.dtype} {options.keys() and options}"
    wide = {key: doubled(value) for key, value in options.items()}
    with torch.no_grad():
        like = ours(x, target, **options)
    grads = [random_like(t, i) for i, t in enumerate(like)]
    v = random_like(x, 7)
    target64 = doubled(target)
    got = derivatives(lambda t: ours(t, target, **options), x, grads, v, second)
    want = derivatives(
        lambda t: exact(t, target64, **wide), x.double(), [g.double() for g in grads],
        v.double(), second,
    )  # fmt: skip
    n = len(like)
    largest = max((float(g.abs().max()) for g in grads if g.numel()), default=0.0)
    largest /= max(1, math.prod(x.shape) // x.shape[class_dim(x)] if is_mean(options) else 1)
    moved = float(v.abs().max()) if v.numel() else 0.0
    kinds = [f"output {i}" for i in range(n)] + ["gradient"]
    kinds += [f"second by grad {i}" for i in range(n)] + ["second by x"]
    for kind, a, b in zip(kinds, got, want, strict=False):
        is_loss = kind.endswith("0")
        full = is_loss and options.get("normalizer") is None
        if not kind.startswith("second by grad"):
            assert a.dtype == (x.dtype if full or a.shape == x.shape or is_loss else
                               compute(x.dtype)), f"{name} {kind}: {a.dtype}"  # fmt: skip
        # Terms that cancel: of the size of the largest of their kind.
        finite = b.detach()[b.detach().isfinite()].abs()
        scale = finite.max().item() if finite.numel() else 0.0
        scale += largest * (moved if kind.startswith("second") else 1)
        if kind.startswith("second by grad") and b.dim() == 0:
            scale *= 1 if options.get("reduction", "mean") == "mean" else x.numel()
        assert_near(a, b.detach(), ulps, scale, f"{name} {kind}")


def make(*shape: int, dtype: torch.dtype = torch.float32, scale: float = 2.0, seed: int = 0):
    """Logits."""
    return (torch.randn(shape, generator=generator(seed), dtype=torch.float64) * scale).to(dtype)


def targets(x: Tensor, ignored: bool = True, seed: int = 1, ignore_index: int = -100) -> Tensor:
    """Class indices for logits; every third row of several is ignored."""
    dim = class_dim(x)
    shape = [s for d, s in enumerate(x.shape) if d != dim]
    target = torch.randint(x.shape[dim], shape, generator=generator(seed))
    if ignored and target.numel() > 1:
        target.view(-1)[1::3] = ignore_index
    return target


def probabilities(x: Tensor, seed: int = 3, sharp: float = 1.0) -> Tensor:
    noise = make(*x.shape, dtype=torch.float64, scale=sharp, seed=seed)
    return torch.softmax(noise, class_dim(x)).to(x.dtype)


def weights(classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.rand(classes, generator=generator(4), dtype=torch.float64) + 0.5).to(dtype)


def layouts(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Logits (N, C, ...) of every layout, of few and of many classes."""
    found = {}
    for c in (6, 70):
        made = {
            "contiguous": make(5, c, dtype=dtype),
            "transposed": make(c, 5, dtype=dtype).t(),
            "sliced rows": make(10, c, dtype=dtype)[::2],
            "sliced classes": make(5, c + 3, dtype=dtype)[:, 1 : c + 1],
            "every other class": make(5, 2 * c, dtype=dtype)[:, ::2],
            "expanded": make(1, c, dtype=dtype).expand(5, c),
            "expanded classes": make(5, 1, dtype=dtype).expand(5, c),
            "image": make(2, c, 3, 11, dtype=dtype),
            "channels last": make(2, c, 3, 11, dtype=dtype).to(memory_format=torch.channels_last),
            "image transposed": make(2, c, 11, 3, dtype=dtype).transpose(2, 3),
            "image sliced": make(2, c, 3, 22, dtype=dtype)[..., ::2],
            "batch last": make(c, 3, 2, dtype=dtype).permute(2, 0, 1),
            "tokens": make(2, 9, c, dtype=dtype).transpose(1, 2),
            "one position": make(4, c, 1, dtype=dtype),
            "unbatched": make(c, dtype=dtype),
            "unbatched, strided": make(2 * c, dtype=dtype)[::2],
            "no rows": make(0, c, dtype=dtype),
            "no positions": make(3, c, 0, dtype=dtype),
        }
        found |= {f"{name}, {c} classes": x for name, x in made.items()}
    return found


def grid(**choices: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Every combination, as keyword arguments; what is None or False is left out."""
    return [
        {k: v for k, v in zip(choices, values, strict=True) if v not in (None, False)}
        for values in itertools.product(*choices.values())
    ]


def describe(options: object) -> str:
    """For pytest's ids."""
    if isinstance(options, dict):
        return ",".join(f"{k}={v}" for k, v in options.items()) or "plain"
    return str(options).removeprefix("torch.")


def torch_gradient(x: Tensor, target: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """torch's own loss and gradient, with a gradient of ones."""
    x = x.detach().requires_grad_()
    loss = TF.cross_entropy(x, target, **options)
    return loss.detach(), torch.autograd.grad(loss.sum(), x)[0]


_INDICES = torch.tensor([0, 3, 1])
# What the ops and autograd Functions take after x, (3, 4), by the Function's name.
APPLY = {
    "Softmax": (1,),
    "LogSoftmax": (1,),
    "NLLLoss": (_INDICES, None, 1, -100),
    "CrossEntropy": (_INDICES, None, 1, 3, 0.1, 0.01, 5.0, False, True, True),
    "BCEWithLogits": (make(3, 4, dtype=torch.float64).sigmoid(), None, None, 1),
}


def operands(family: Any, dtype: torch.dtype = torch.float32) -> list[tuple[Any, tuple[Any, ...]]]:
    """Arguments for every op of a family of softmax or of losses."""
    n, extra = family.tensors, list(APPLY[family.symbol])
    x = make(3, 4, dtype=dtype)
    extra = [t.to(x.device) if isinstance(t, Tensor) else t for t in extra]
    extra = [t.to(dtype) if isinstance(t, Tensor) and t.is_floating_point() else t for t in extra]
    x = x.log_softmax(1).requires_grad_()
    with torch.no_grad():
        outputs = family.forward(x, *extra)
    outputs = tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)
    saved = [t.detach() if isinstance(t, Tensor) else t for t in family.saved((x, *extra), outputs)]
    saved[0] = saved[0].clone().requires_grad_()
    grads = [torch.randn_like(t).requires_grad_() for t in outputs[: family.outputs]]
    constants = extra[n - 1 :]
    v = torch.randn_like(x).requires_grad_()
    found = [
        (family.forward, (x, *extra)),
        (family.backward, (*grads, *saved, *constants)),
        (family.double_backward, (v, *grads, *saved, *constants)),
    ]
    if family.symbol == "CrossEntropy":
        plain = [t.detach().clone() if isinstance(t, Tensor) else t for t in (*grads, *saved)]
        expected, own = torch.ones((), dtype=dtype), plain[family.outputs :]
        given = {
            "_backward_": plain,
            "_with_grad": (expected, *own[: family.tensors]),
            "_correct_grad_": (torch.zeros_like(x), expected, *plain),
        }
        found += [(op, (*given[name], *constants)) for name, op in family.others.items()]
    return found
