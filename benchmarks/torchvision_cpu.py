"""timm, imported also beside a CPU build of torch.

The package index has torchvision for torch with CUDA, whose library another build of torch cannot
load. timm needs nothing of that library, but importing torchvision's Python part asks for the
schemas of two of its operators. Here they are, without kernels. The two are installed into a folder
of their own (Makefile), or in the usual place.

That folder is looked into here only: processes that are started later inherit ``sys.path``, and
would find a torchvision there which they cannot import.
"""

import sys
from pathlib import Path

import torch

sys.path.append(str(Path(sys.prefix, "vision")))

try:
    import torchvision  # noqa: F401
except RuntimeError:
    _schemas = torch.library.Library("torchvision", "FRAGMENT")  # kept, or it is undone
    for _op in ("nms", "qnms"):
        _schemas.define(f"{_op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm

sys.path.remove(str(Path(sys.prefix, "vision")))

__all__ = ["timm"]
