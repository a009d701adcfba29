"""Code that torch compiles once for each shape of its inputs, and what keeps it from giving up on that unsaid.

Past `recompile_limit` shapes of one function (8 in torch 2.11 to 2.13) Dynamo runs it as plain Python, or raises where
the whole of it was to be one graph. Buckets of prompts, batches and tiles of images are more than 8, so the limit is
raised for a call alone, and past it there is an error, never a slower call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo import config as dynamo

SHAPES = 128
"""Of one function; 512 prompt tokens in buckets of 64, in batches of 1 to 16."""


BACKEND = "inductor"
"""What compiles the graphs that Dynamo finds."""


def compiled(function: Callable[..., Any], *, whole: bool) -> Callable[..., Any]:
    """`function` compiled for static shapes; `whole`: a graph break is an error. Call it under `each_shape`."""
    made: Callable[..., Any] = torch.compile(function, dynamic=False, fullgraph=whole, backend=BACKEND)
    return made


def each_shape() -> Any:
    """A context in which code is compiled for up to `SHAPES` shapes, and beyond them an error is raised."""
    return dynamo.patch(
        recompile_limit=max(SHAPES, dynamo.recompile_limit),
        accumulated_recompile_limit=max(8 * SHAPES, dynamo.accumulated_recompile_limit),
        fail_on_recompile_limit_hit=True,
    )
