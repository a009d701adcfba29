"""Layers that take turns in two places on a GPU: one comes by a stream of its own while the one before it computes.

The host is ahead of the device: it asks for the next layer as soon as it has said what the one before it computes.
Events alone order the two streams: a layer computes once it has arrived, and another is copied over it once it has
computed. So there are never more than two, however far ahead the host is. Places are taken from the stream that
computes, and given back to it, for one call of the layers' module. It decides nothing else: `offloading` says when a
layer is needed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zbench.engines.reference.host_copy import HostCopy

PLACES = 2


@dataclass
class _DevicePlace:
    block: Tensor
    left: Any  # the event after which nobody reads it


class LayersAhead:
    """The places, for layers that run one after another."""

    def __init__(self, nbytes: int, device: torch.device, cuda: Any = torch.cuda) -> None:
        """`nbytes`: of the largest layer; `cuda` is `torch.cuda`, or a fake with its streams."""
        self._nbytes, self._device, self._cuda = nbytes, device, cuda
        self._side = cuda.Stream(device)
        self._places: deque[_DevicePlace] = deque()

    def begin(self) -> None:
        """The layers' module is about to run."""
        for _ in range(PLACES):
            block = torch.empty(self._nbytes, dtype=torch.uint8, device=self._device)
            self._places.append(_DevicePlace(block, self._current.record_event()))

    def need(self, layer: HostCopy) -> None:
        """What the current stream is given from now on has `layer`."""
        with self._cuda.stream(self._side):
            self._side.wait_event(self._places[0].left)
            layer.fetch(self._places[0].block)
            arrived = self._side.record_event()
        self._current.wait_event(arrived)

    def done(self, layer: HostCopy) -> None:
        """What the current stream is given from now on does without `layer`."""
        layer.drop()
        self._places[0].left = self._current.record_event()
        self._places.rotate()

    def end(self) -> None:
        """The module has run, or failed: the places go, once nothing is copied into them."""
        self._current.wait_stream(self._side)
        self._places.clear()

    @property
    def _current(self) -> Any:
        return self._cuda.current_stream(self._device)
