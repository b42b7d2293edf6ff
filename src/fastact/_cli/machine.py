"""What this machine is, in words."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import torch


def processor() -> str:
    """The name of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def gpus() -> str:
    """The GPUs that torch can use, or why there is none."""
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None:
        built = torch.version.cuda or torch.version.hip
        return f"none that torch can use (its build is for {built or 'the CPU only'})"
    if accelerator.type != "cuda":
        return accelerator.type
    names = []
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        names.append(f"{torch.cuda.get_device_name(index)} (sm_{major}{minor})")
    return ", ".join(names)


def lacks(device: torch.device) -> str:
    """Why torch cannot use a device here; empty where it can."""
    if device.type in ("cpu", "meta"):
        return ""
    module = getattr(torch, device.type, None)
    if module is None or not getattr(module, "is_available", bool)():
        built = torch.version.cuda or torch.version.hip
        return f"its build is for {built or 'the CPU only'}, and it finds no such device"
    count = module.device_count()
    return f"there are {count} of them" if (device.index or 0) >= count else ""


def driver() -> str:
    """The version of NVIDIA's driver; empty where there is none."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return ""
    query = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        run = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown: nvidia-smi failed ({type(error).__name__})"
    return ", ".join(sorted(set(run.stdout.split())))
