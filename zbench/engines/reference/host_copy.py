"""Weights in one block of host memory, which come to a device with one copy and leave it without one.

It does not know when they are needed: `offloading` asks for them, and `layers_ahead` for those of layers.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

ALIGNMENT = 256  # bytes; what the device's own allocator gives

STAYS_BELOW_BYTES = 2**16
"""Norms, biases and the like stay on the device: they weigh nothing, and by them diffusers knows where to compute."""


class HostCopy:
    """Weights in one block of host memory, fetched to a device with one copy."""

    def __init__(self, tensors: Iterable[Tensor], device: torch.device, *, pin: bool) -> None:
        """Takes the tensors over; all but small ones are in host memory from now on, until `fetch`."""
        self.resident = False
        self._device = device
        self._tensors: list[Tensor] = []
        for tensor in tensors:
            if tensor.nbytes < STAYS_BELOW_BYTES:
                tensor.data = tensor.data.to(device)
            else:
                self._tensors.append(tensor)
        self._places: list[tuple[int, int]] = []
        end = 0
        for tensor in self._tensors:
            begin = -(-end // ALIGNMENT) * ALIGNMENT
            end = begin + tensor.nbytes
            self._places.append((begin, end))
        self._strides = [tensor.stride() if _channels_last(tensor) else None for tensor in self._tensors]
        self._host = torch.empty(end, dtype=torch.uint8, pin_memory=pin)
        for tensor, view in zip(self._tensors, self._views(self._host), strict=True):
            tensor.data = view.copy_(tensor.data)

    @property
    def nbytes(self) -> int:
        """Size of one copy."""
        return self._host.nbytes

    def fetch(self, place: Tensor | None = None) -> None:
        """Copy the weights to the device, in the order of its current stream: into the first bytes of `place`, or into
        memory of their own."""
        if place is None:
            place = torch.empty_like(self._host, device=self._device, pin_memory=False)
        self._point_at(place[: self.nbytes].copy_(self._host, non_blocking=True))
        self.resident = True

    def drop(self) -> None:
        """Let the device's copy go, if there is one."""
        if self.resident:
            self._point_at(self._host)
            self.resident = False

    def _point_at(self, block: Tensor) -> None:
        for tensor, view in zip(self._tensors, self._views(block), strict=True):
            tensor.data = view

    def _views(self, block: Tensor) -> list[Tensor]:
        views = []
        for tensor, strides, (begin, end) in zip(self._tensors, self._strides, self._places, strict=True):
            flat = block[begin:end].view(tensor.dtype)
            views.append(flat.view(tensor.shape) if strides is None else flat.as_strided(tensor.shape, strides))
        return views


def _channels_last(tensor: Tensor) -> bool:
    """Whether a convolution's weights were laid out so, which they stay wherever they are copied."""
    return tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
