"""Copies to and from a GPU by page-locked memory, in the order of the current stream."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """`tensor`, which is in host memory, on `device`, not waited for.

    A copy from pageable memory would wait until the device has done all that it was asked for before.
    """
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def received(tensor: Tensor) -> Tensor:
    """`tensor` in host memory, arrived. What comes from a GPU is page-locked; nothing else gets it while it is held."""
    if tensor.device.type != "cuda":
        return tensor.cpu()
    there = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensor.device).synchronize()
    return there
