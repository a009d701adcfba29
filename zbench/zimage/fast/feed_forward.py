"""Z-Image's SwiGLU feed-forward with one matmul for both of its halves; exact up to rounding.

Fuse after a LoRA was fused and after the transformer was sharded, before it is quantised, compiled or offloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from diffusers.models.transformers.transformer_z_image import FeedForward
from torch import Tensor, nn

from zbench.zimage.fast.joined import Joined, why_not_join
from zbench.zimage.fast.limits import ALREADY


class FusedFeedForward(nn.Module):
    """In place of diffusers' `FeedForward`, whose `w2` it shares."""

    def __init__(self, w13: nn.Linear, w2: nn.Linear) -> None:
        """`w13` gives what `w1` and `w3` gave, one behind the other."""
        super().__init__()
        self.w13 = w13
        self.w2 = w2

    def forward(self, x: Tensor) -> Tensor:
        """Batch x tokens x width; the same comes back."""
        gate, up = self.w13(x).chunk(2, dim=-1)
        made: Tensor = self.w2(F.silu(gate) * up)
        return made


def why_not_fuse_feed_forward(transformer: Any) -> str | None:
    """Why `fuse_feed_forward` cannot, in a sentence that says the way out; None where it can."""
    if any(isinstance(module, FusedFeedForward) for module in transformer.modules()):
        return ALREADY
    layers = (why_not_join([block.feed_forward.w1, block.feed_forward.w3]) for block in _blocks(transformer))
    return next((reason for reason in layers if reason is not None), None)


def fuse_feed_forward(transformer: Any) -> Callable[[], None]:
    """Fuse `w1` and `w3` of a ZImageTransformer2DModel's blocks into a layer `w13`; returns undo.

    Undo restores layers and weights; after offloading it is of no use. Raises ValueError with what
    `why_not_fuse_feed_forward` says.
    """
    if (reason := why_not_fuse_feed_forward(transformer)) is not None:
        raise ValueError(reason)
    fused: list[tuple[Any, Any, Joined]] = []
    for block in _blocks(transformer):
        own = block.feed_forward
        joined = Joined([own.w1, own.w3])
        block.feed_forward = FusedFeedForward(joined.layer, own.w2).train(own.training)
        fused.append((block, own, joined))

    def undo() -> None:
        for block, own, joined in fused:
            joined.part()
            block.feed_forward = own

    return undo


def _blocks(transformer: Any) -> list[Any]:
    """Those with a feed-forward of diffusers' own, refiners among them."""
    return [block for block in transformer.modules() if isinstance(getattr(block, "feed_forward", None), FeedForward)]
