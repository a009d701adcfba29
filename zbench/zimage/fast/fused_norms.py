"""A block's norms with what stands around them as one kernel each: modulation and rounding to FP8, gate and residual.

A block has four norms. The first gives attention its input, the third the feed-forward, each modulated and in FP8; the
second and fourth take what these give, gate it and add it to the residual. The second and third are one kernel. What a
norm multiplies with, its weight and its modulation, is one float32 factor, made once a forward. What attention's last
layer reads is rounded by one kernel too, or is as attention in FP8 left it.

It changes no image but for rounding: a compiler keeps float32 between these steps too. Fuse after blocks were
quantised, attention's projections and both halves of the feed-forward each as one layer, and before they are compiled.
Blocks without modulation or without quantised layers stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any, NamedTuple

import torch
from diffusers.models.normalization import RMSNorm
from diffusers.models.transformers.transformer_z_image import ZImageTransformerBlock
from torch import Tensor, nn

from zbench.zimage.fast.limits import NORMS_ALREADY, NORMS_APART
from zbench.zimage.fast.scaled import RowsLinear, ScaledRows, is_quantised, rounded

NORMS = ("attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2")
"""Of a block, in the order in which it uses them, which is that of its modulation."""


class Kernels(NamedTuple):
    """Functions of batch x tokens x width; those with a norm take factors, which factor is the first, and epsilon."""

    rounded: Callable[[Tensor], tuple[Tensor, Tensor]]
    normed: Callable[[Tensor, Tensor, int, float], tuple[Tensor, Tensor]]
    added: Callable[[Tensor, Tensor, Tensor, int, float], Tensor]
    added_and_normed: Callable[[Tensor, Tensor, Tensor, int, float], tuple[Tensor, Tensor, Tensor]]


def in_triton() -> Kernels:
    """One kernel each; raises ImportError without Triton."""
    from zbench.zimage.fast.normed_rows import added_and_normed_rows, added_rows, normed_rows, rounded_rows

    return Kernels(rounded_rows, normed_rows, added_rows, added_and_normed_rows)


def in_torch() -> Kernels:
    """The same in plain words, for any device, at no speed."""

    def normed(x: Tensor, factors: Tensor, place: int, eps: float) -> tuple[Tensor, Tensor]:
        return rounded(_times(x, factors, place, eps))

    def added(x: Tensor, y: Tensor, factors: Tensor, place: int, eps: float) -> Tensor:
        return (x.float() + _times(y, factors, place, eps)).to(x.dtype)

    def added_and_normed(
        x: Tensor, y: Tensor, factors: Tensor, place: int, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        sums = added(x, y, factors, place, eps)
        return sums, *normed(sums, factors, place + 1, eps)

    return Kernels(rounded, normed, added, added_and_normed)


def _times(x: Tensor, factors: Tensor, place: int, eps: float) -> Tensor:
    """Each row over its root mean square, times its image's factor; float32."""
    whole = x.float()
    return whole * torch.rsqrt(whole.pow(2).mean(-1, keepdim=True) + eps) * factors[:, place, None]


class FusedNorms(nn.Module):
    """What a block's forward needs of its norms; they go on to hold their weights."""

    weights: Tensor
    gates: Tensor

    def __init__(self, norms: list[Any], kernels: Kernels) -> None:
        """`norms`: the four, with weights and one epsilon."""
        super().__init__()
        self.eps = float(norms[0].eps)
        weights = torch.stack([norm.weight.detach().float() for norm in norms])
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("gates", torch.tensor([[False], [True]] * 2, device=weights.device), persistent=False)
        self.normed, self.added, self.added_and_normed = kernels[1:]

    def factors(self, modulation: Tensor, batch: int) -> Tensor:
        """`modulation`: batch x four times the width, as a block's layer gives it. Returns batch x 4 x width."""
        each = modulation.float().view(modulation.shape[0], 4, -1)
        made = self.weights * torch.where(self.gates, each.tanh(), 1 + each)
        return made.expand(batch, -1, -1).contiguous()


def forward_with_fused_norms(
    self: Any,
    x: Tensor,
    attn_mask: Tensor,
    freqs_cis: Tensor,
    adaln_input: Tensor | None = None,
    noise_mask: Tensor | None = None,
    adaln_noisy: Tensor | None = None,
    adaln_clean: Tensor | None = None,
) -> Tensor:
    """A modulated block's. `x`: batch x tokens x width; the same comes back. A modulation a token is not fused."""
    if noise_mask is not None:
        own = ZImageTransformerBlock.forward
        plain: Tensor = own(self, x, attn_mask, freqs_cis, adaln_input, noise_mask, adaln_noisy, adaln_clean)
        return plain
    norms = self.fused_norms
    x = x.contiguous()
    factors = norms.factors(self.adaLN_modulation(adaln_input), x.shape[0])
    rows = ScaledRows(*norms.normed(x, factors, 0, norms.eps))
    attended = self.attention(rows, attention_mask=attn_mask, freqs_cis=freqs_cis)
    x, values, scales = norms.added_and_normed(x, attended.contiguous(), factors, 1, norms.eps)
    fed = self.feed_forward(ScaledRows(values, scales))
    made: Tensor = norms.added(x, fed.contiguous(), factors, 3, norms.eps)
    return made


def fuse_norms(transformer: Any, kernels: Kernels | None = None) -> int:
    """Fuse the norms of a ZImageTransformer2DModel's quantised main blocks, for good; returns how many blocks.

    `kernels`: Triton's if none are given. Raises ValueError where no block can be fused, ImportError without Triton.
    """
    if any(isinstance(module, FusedNorms) for module in transformer.modules()):
        raise ValueError(NORMS_ALREADY)
    blocks = [block for block in transformer.layers if _fits(block)]
    if not blocks:
        raise ValueError(NORMS_APART)
    kernels = kernels or in_triton()
    for block in blocks:
        attention, feed_forward = block.attention, block.feed_forward
        attention.to_qkv = RowsLinear(attention.to_qkv, kernels.rounded)
        attention.to_out[0] = RowsLinear(attention.to_out[0], kernels.rounded)
        feed_forward.w13 = RowsLinear(feed_forward.w13, kernels.rounded)
        block.fused_norms = FusedNorms([getattr(block, name) for name in NORMS], kernels)
        block.forward = MethodType(forward_with_fused_norms, block)
    return len(blocks)


def _fits(block: Any) -> bool:
    """Whether it is modulated, reads FP8 by joined layers without bias, and has norms of one epsilon, weights alone."""
    attention, feed_forward = block.attention, block.feed_forward
    readers: tuple[Any, ...] = (
        getattr(attention, "to_qkv", None),
        attention.to_out[0],
        getattr(feed_forward, "w13", None),
    )
    norms = [getattr(block, name) for name in NORMS]
    plain = all(type(norm) is RMSNorm and norm.weight is not None and norm.bias is None for norm in norms)
    reads = all(is_quantised(reader) and reader.bias is None for reader in readers)
    return bool(block.modulation and reads and plain and len({norm.eps for norm in norms}) == 1)
