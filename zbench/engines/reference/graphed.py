"""Forwards as CUDA graphs: one launch in place of some thousand, so that the host cannot fall behind the device.

A graph is captured for each shape of the inputs, a prompt's length among them, and replayed from then on. Collectives
and copies between devices are captured too. Nothing may look at values on the host, so a step cache, which decides
there, and weights that wait there do not go with it (`methods.graphs`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from zbench.engines.reference.compiling import compile_seconds

WARM_UP = 2
"""Calls before a capture: what is made once (handles, compiled code, tables) is no part of a graph."""


class _Captured(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    made: Any


class GraphedForward:
    """Takes the place of a module's `forward`, until `close`. What it gives is the caller's own."""

    def __init__(self, module: Any, pool: Any) -> None:
        """`module` is on the current device, sharded and compiled before.

        Graphs that never run at the same time may share a `pool` of memory (`torch.cuda.graph_pool_handle`): none of
        them has anything in it that another one's replay must leave alone.
        """
        self._module, self._pool = module, pool
        self._own: Callable[..., Any] = module.forward
        self._replaced = vars(module).get("forward")  # what hooks put there, such as those of Ulysses
        self._captured: dict[Any, _Captured] = {}
        self.seconds = 0.0  # that captures took, what torch.compile says that it took within them left out
        module.forward = self

    @property
    def count(self) -> int:
        """How many shapes were captured so far."""
        return len(self._captured)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As the module's own; whatever is no tensor is a part of the shape."""
        leaves, structure = pytree.tree_flatten((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        shape = [(leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        key = (structure, *shape)
        if key not in self._captured:
            self._captured[key] = self._timed_capture(leaves, structure)
        captured = self._captured[key]
        for kept, new in zip(captured.inputs, tensors, strict=True):
            kept.copy_(new)
        captured.graph.replay()
        return pytree.tree_map(_own, captured.made)

    def forget(self, pool: Any) -> None:
        """Capture anew what is called from now on, into another pool: torch takes none whose graphs are all gone."""
        self._captured.clear()
        self._pool = pool

    def close(self) -> None:
        """Leave the module its own forward."""
        if vars(self._module).get("forward") is self:
            del self._module.forward
            if self._replaced is not None:
                self._module.forward = self._replaced
        self._captured.clear()

    def _timed_capture(self, leaves: list[Any], structure: Any) -> _Captured:
        torch.cuda.synchronize()  # what was asked of the device before is no part of it
        began, compiled_s = time.perf_counter(), compile_seconds()
        captured = self._capture(leaves, structure)
        torch.cuda.synchronize()
        within_s = (compile_seconds() or 0.0) - (compiled_s or 0.0)
        self.seconds += max(0.0, time.perf_counter() - began - within_s)
        return captured

    def _capture(self, leaves: list[Any], structure: Any) -> _Captured:
        leaves = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]

        def forward() -> Any:
            args, kwargs = pytree.tree_unflatten(list(leaves), structure)
            return self._own(*args, **kwargs)

        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                forward()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):  # NCCL's threads go on
            made = forward()
        return _Captured(graph, [leaf for leaf in leaves if isinstance(leaf, Tensor)], made)


def _own(leaf: Any) -> Any:
    """A replay writes where the last one wrote. A decode in tiles or slices keeps what several of them gave."""
    return leaf.clone() if isinstance(leaf, Tensor) else leaf
