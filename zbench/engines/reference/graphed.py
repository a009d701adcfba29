"""The transformer's forward as CUDA graphs: one launch in place of some thousand, so that the host cannot fall behind.

A graph is captured for each shape of the inputs, a prompt's length among them, and replayed from then on. Collectives
and copies between devices are captured too. Nothing may look at values on the host, so a step cache, which decides
there, and weights that wait there do not go with it (`space`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

WARM_UP = 2
"""Calls before a capture: what is made once (handles, compiled code, tables) is no part of a graph."""


class _Captured(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: list[Tensor]


class GraphedForward:
    """Takes the place of a Z-Image transformer's `forward`, until `close`. Outputs hold until the next call."""

    def __init__(self, transformer: Any) -> None:
        """`transformer`: diffusers' ZImageTransformer2DModel, sharded and compiled before, on the current device."""
        self._transformer = transformer
        self._own: Callable[..., Any] = transformer.forward
        self._captured: dict[tuple[Any, ...], _Captured] = {}
        self._pool = torch.cuda.graph_pool_handle()
        transformer.forward = self

    @property
    def count(self) -> int:
        """How many shapes were captured so far."""
        return len(self._captured)

    def __call__(
        self, x: list[Tensor], t: Tensor, cap_feats: list[Tensor], return_dict: bool = False, **options: Any
    ) -> tuple[list[Tensor]]:
        """As the pipeline calls the transformer. Raises ValueError for what a graph does not answer with."""
        if return_dict or any(value is not None for value in options.values()):
            raise ValueError(f"a captured forward takes no further arguments, and gives a tuple: {sorted(options)}")
        inputs = [*x, t, *cap_feats]
        key = (len(x), *((tuple(tensor.shape), tensor.dtype) for tensor in inputs))
        if key not in self._captured:
            self._captured[key] = self._capture(inputs, len(x))
        captured = self._captured[key]
        for kept, new in zip(captured.inputs, inputs, strict=True):
            kept.copy_(new)
        captured.graph.replay()
        return (list(captured.outputs),)

    def close(self) -> None:
        """Leave the transformer its own forward; the graphs' memory is given back."""
        if vars(self._transformer).get("forward") is self:
            del self._transformer.forward
        self._captured.clear()

    def _capture(self, inputs: list[Tensor], samples: int) -> _Captured:
        kept = [tensor.clone() for tensor in inputs]

        def forward() -> list[Tensor]:
            made: tuple[list[Tensor]] = self._own(kept[:samples], kept[samples], kept[samples + 1 :], return_dict=False)
            return made[0]

        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                forward()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):  # NCCL's threads go on
            outputs = forward()
        return _Captured(graph, kept, outputs)
