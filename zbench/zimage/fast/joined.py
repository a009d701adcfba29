"""Linear layers that read the same input as one layer with one matmul; their weights are held once, by that layer.

It joins plain weights alone, and those that tensor parallelism split by columns, of which it takes this rank's part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from zbench.zimage.fast.limits import ADAPTER_BESIDE, ALREADY, PACKED


def why_not_join(layers: Sequence[nn.Module | None]) -> str | None:
    """Why these cannot become one, in a sentence; None where they can."""
    for layer in layers:
        if layer is None:
            return ALREADY
        if hasattr(layer, "base_layer"):  # PEFT's
            return ADAPTER_BESIDE
        weight = getattr(layer, "weight", None)
        if type(layer) is not nn.Linear:
            return PACKED.format(kind=type(layer).__name__)
        if type(weight) not in (nn.Parameter, DTensor):
            return PACKED.format(kind=type(weight).__name__)
    return None


class Joined:
    """One layer that stands for several."""

    def __init__(self, layers: Sequence[Any]) -> None:
        """`layers`: linear layers without a bias and of one input, in the order that their outputs come in.

        They lose their weights until `part`. Raises ValueError for what cannot be joined.
        """
        if (reason := why_not_join(layers)) is not None:
            raise ValueError(reason)
        self._layers = list(layers)
        self._wrappers = [_wrapper(layer.weight) for layer in layers]
        parts = [_own(layer.weight.data) for layer in layers]
        self._rows = [len(part) for part in parts]
        self._trained = layers[0].weight.requires_grad
        self.layer = nn.Linear(parts[0].shape[1], sum(self._rows), bias=False, device="meta")
        """Its weight is that of all, one below the other."""
        self.layer.weight = nn.Parameter(torch.cat(parts), requires_grad=self._trained)
        self.layer.train(layers[0].training)
        for layer in layers:
            layer.weight = None

    def part(self) -> None:
        """Give the layers their weights back, wherever these are now; the joined layer has none then.

        Raises RuntimeError where the joined weight is no plain one any more.
        """
        weight = self.layer.weight
        if type(weight) is not nn.Parameter:
            raise RuntimeError(f"the joined weight has become a {type(weight).__name__}; undo that first")
        parts = torch.split(weight.data, self._rows)
        for layer, wrapped, part in zip(self._layers, self._wrappers, parts, strict=True):
            layer.weight = nn.Parameter(wrapped(part.clone()), requires_grad=self._trained)
        self.layer.weight = None  # type: ignore[assignment]


def _own(weight: Tensor) -> Tensor:
    """What this rank holds of a weight."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


def _wrapper(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """Makes of what this rank holds such a weight again."""
    if not isinstance(weight, DTensor):
        return lambda part: part
    mesh, placements = weight.device_mesh, weight.placements
    return lambda part: DTensor.from_local(part, mesh, placements, run_check=False)
