"""Holds a process to less device memory than the card has, so that what fits a small card is proven on a large one.

torch's allocator is limited to the cap less what lies outside it: the context, measured, and a reserve for what still
grows there (kernels that are loaded when first called). It promises nothing about the device's own view: whether NVML's
peak stayed under the cap is judged afterwards, from the record.
"""

import functools
import os
from dataclasses import dataclass

import torch

from zbench.config import VRAM_RESERVE_GIB
from zbench.errors import ConfigError
from zbench.hardware.nvml import Nvml, visible

GIB = 2**30


@dataclass(frozen=True)
class VramLimit:
    """A cap in force. Bytes."""

    limit_bytes: int
    allocator_bytes: int


def set_vram_limit(limit_gib: float) -> VramLimit:
    """Limit this process's allocator on the current CUDA device.

    Raises ConfigError where the card is smaller than the cap, where the context alone fills it, or where nothing says
    how large the context is.
    """
    limit = round(limit_gib * GIB)
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    if limit > total:
        problem = f"the card has {total / GIB:.1f} GiB; a cap cannot make it larger"
        raise ConfigError("hardware.vram_limit_gib", limit_gib, problem)
    context = context_bytes(torch.cuda.current_device())
    if context is None:
        problem = "NVML does not say what the context takes, so nothing can be proven; leave it out"
        raise ConfigError("hardware.vram_limit_gib", limit_gib, problem)
    allocator = limit - context - round(VRAM_RESERVE_GIB * GIB)
    if allocator <= 0:
        problem = f"the context of {context / GIB:.2f} GiB and a reserve of {VRAM_RESERVE_GIB:g} GiB leave nothing"
        raise ConfigError("hardware.vram_limit_gib", limit_gib, problem)
    torch.cuda.set_per_process_memory_fraction(allocator / total)
    return VramLimit(limit, allocator)


def lift_vram_limit() -> None:
    """Let the allocator have the whole card again."""
    torch.cuda.set_per_process_memory_fraction(1.0)


@functools.cache
def context_bytes(device: int) -> int | None:
    """Device memory of this process outside torch's allocator, with the libraries' handles made; measured once.

    `device` is torch's number of the one that this process is to compute on; it is the current one from then on, and no
    other is touched. None where NVML does not say: it hides this process, and others may have changed what the device
    holds.
    """
    nvml = Nvml()
    devices = visible(nvml.devices())
    touched = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    before = None if touched or device >= len(devices) else nvml.used_bytes(devices[device].index)
    torch.cuda.set_device(device)  # first of all: a context is made on the current one
    if device >= len(devices):
        return None
    _touch_libraries()
    found = nvml.process_memory(devices[device].index, [os.getpid()], before)
    return None if found is None else max(0, found.bytes - torch.cuda.memory_reserved())


def _touch_libraries() -> None:
    """cuBLAS and cuDNN take memory of their own when they are first used."""
    small = torch.ones(64, 64, device="cuda", dtype=torch.bfloat16)
    small @ small
    torch.nn.functional.conv2d(small.view(1, 1, 64, 64), small[:3, :3].view(1, 1, 3, 3))
    torch.cuda.synchronize()
