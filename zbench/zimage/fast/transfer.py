"""Copies to and from a GPU that nobody waits for: by page-locked memory, in the order of the current stream."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """`tensor`, in host memory, on `device`. From pageable memory the host would wait for all that was asked before."""
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
