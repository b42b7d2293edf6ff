"""The private names of torch that fastact uses, in one place.

Each is one that torch's own Python uses for the same purpose (torch/_library/autograd.py,
torch/_functorch/autograd_function.py); there is no public way to run an op below autograd, or to
record one inside a functorch transform. Where a torch lacks one, ``MISSING`` says so,
fastact.backends() repeats it, and every call goes to torch's own ops.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch._C._functorch
import torch._functorch.utils
import torch._subclasses
import torch.overrides
from torch import Tensor
from torch.autograd import Function, forward_ad

_missing: list[str] = []


def _find(owner: Any, name: str, stand_in: Any = None) -> Any:
    if not hasattr(owner, name):
        _missing.append(f"{owner.__name__}.{name}")
    return getattr(owner, name, stand_in)


# Context managers: dispatch to what lies below autograd, or below the version counter.
below_autograd = _find(torch._C, "_AutoDispatchBelowAutograd")
below_version_counter = _find(torch._C, "_AutoDispatchBelowADInplaceOrView")
after_version_counter = _find(torch._C, "_after_ADInplaceOrView_keyset")  # the keys left then
# The base class of torch.autograd.Function, whose apply is the C entry point and nothing else,
# and a context manager that allows to call it inside a transform.
SingleLevelFunction = _find(torch.autograd.function, "_SingleLevelFunction", Function)
# What compiled autograd asks a Function for, and that class lacks.
compiled_autograd_key: Any = getattr(Function, "_compiled_autograd_key", None)
allow_single_level = _find(torch._functorch.utils, "enable_single_level_autograd_function")
functorch_active = _find(torch._C, "_are_functorch_transforms_active", lambda: False)
is_functorch_wrapped = _find(torch._C._functorch, "is_functorch_wrapped_tensor", lambda _: False)
is_grad_tracking = _find(torch._C._functorch, "is_gradtrackingtensor", lambda _: True)
unwrapped = _find(torch._C._functorch, "get_unwrapped", lambda t: t)
forward_ad_enabled = _find(torch._C, "_is_fwd_grad_enabled")
set_forward_ad = _find(forward_ad, "_set_fwd_grad_enabled")  # context manager
_find(forward_ad, "_current_level")
# The tensors of torch.autograd.grad(is_grads_batched=True), which takes no op that writes; unknown,
# every tensor may be one.
is_legacy_batched = getattr(torch._C._functorch, "is_legacy_batchedtensor", lambda _: True)
# What torch.nn.functional's functions of these names call, with the reduction as a number: for tiny
# tensors, which notice every Python frame. Where one is gone, the public function answers.
cross_entropy_loss = getattr(torch._C._nn, "cross_entropy_loss", None)
nll_loss_nd = getattr(torch._C._nn, "nll_loss_nd", None)
# Whether torch.jit.trace runs: what torch.jit.is_tracing asks, at every call of an activation.
is_jit_tracing: Callable[[], bool] = getattr(torch._C, "_is_tracing", lambda: False)
# Whether a TorchFunctionMode is on, which may do something to what an op returns.
function_mode_active: Callable[[], bool] = getattr(
    torch._C, "_is_torch_function_mode_enabled", lambda: False
)
_function_modes: Any = getattr(torch.overrides, "_get_current_function_mode_stack", None)
# Whether somebody listens to the calls of every module (register_module_forward_hook and the like).
has_global_hooks = getattr(torch.nn.modules.module, "_has_any_global_hook", lambda: True)
# The one tensor subclass that behaves as a plain tensor in everything that matters here.
FakeTensor = _find(torch._subclasses, "FakeTensor", torch.Tensor)
# Tensors without memory, also of devices that are not there; else real ones do.
FakeTensorMode: Any = getattr(torch._subclasses, "FakeTensorMode", nullcontext)
# The types of devices that have no autocast. torch.amp.is_autocast_available is asked here and not
# at a call: Dynamo of torch 2.10 cannot trace it.
WITHOUT_AUTOCAST = frozenset(
    kind for kind in ("meta", "lazy", "vulkan") if not torch.amp.is_autocast_available(kind)
)

MISSING: str | None = None
if _missing:
    MISSING = (
        f"torch {torch.__version__} lacks {', '.join(_missing)}, which this version of fastact "
        "builds on; upgrade fastact"
    )


def result_mode_active() -> bool:
    """Whether a TorchFunctionMode is on that may change results: not torch.device or the like."""
    if not function_mode_active():
        return False
    device_mode = getattr(getattr(torch.utils, "_device", None), "DeviceContext", None)
    if _function_modes is None or device_mode is None:
        return True
    return any(not isinstance(mode, device_mode) for mode in _function_modes())


def builtin(activation: str) -> Callable[..., Tensor] | None:
    """What torch.nn.functional's function of that name calls, where it is one of C++.

    A method rather than the function of torch, which reads its arguments by name. (A
    TorchFunctionMode is told of what is called.)
    """
    for owner in (torch._C._nn, Tensor, torch):
        found: Callable[..., Tensor] | None = getattr(owner, activation, None)
        if found is not None:
            return found
    return None


torchs_glu = builtin("glu") or torch.nn.functional.glu


def openmp_parallel() -> Callable[[Callable[[Any], None], int], None] | None:
    """What calls a function in each of so many of torch's threads: ``parallel(function, threads)``.

    It is the function of libgomp that compilers make calls of, found among what torch's library
    needs; None where there is none: another system, or another OpenMP.
    """
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        gomp_parallel: Any = library.GOMP_parallel
    except (OSError, AttributeError):
        return None
    body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    gomp_parallel.argtypes = [body, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    gomp_parallel.restype = None

    def parallel(function: Callable[[Any], None], threads: int) -> None:
        gomp_parallel(body(function), None, threads, 0)

    return parallel


def autocasts(device: torch.device) -> bool:
    """Whether autocast is on for a device; some have none, and asking about those is an error."""
    kind = device.type
    return kind not in WITHOUT_AUTOCAST and torch.is_autocast_enabled(kind)


def dual_level_active() -> bool:
    """Whether forward AD has been entered."""
    level: int = getattr(forward_ad, "_current_level", -1)
    return level >= 0


def decide(condition: bool) -> bool:
    """A comparison of sizes while compiling; False where a size is known only when it runs."""
    # There is no public way to ask. Without it the comparison is as any other.
    from torch.fx.experimental import symbolic_shapes

    guard_or_false = getattr(symbolic_shapes, "guard_or_false", bool)
    return bool(guard_or_false(condition))


def is_exporting() -> bool:
    """Whether torch.export traces."""
    # Before torch 2.12 Dynamo takes torch.compiler.is_exporting() for true whatever it traces.
    flag = getattr(torch.compiler, "_is_exporting_flag", None)
    return torch.compiler.is_exporting() if flag is None else bool(flag)
