"""Attention of one head that is wider than attention kernels take, as the VAE's: its 512 channels are one head.

Past 256 channels torch has no flash kernel, and what it falls back to reaches a fraction of the device's matmuls. Two
plain matmuls do, with the scores of a stretch of queries between them. Scores are summed and normalised in float32, as
a kernel does, so the result is exact up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor

STRETCH = 4096
"""Queries at a time: of 16,384 keys their scores are 256 MiB."""


class WideHeadAttnProcessor:
    """A processor of diffusers' `Attention` with one head and a group norm, over the pixels of an image."""

    def __call__(self, attn: Any, hidden_states: Tensor, temb: None = None, **_none: Any) -> Tensor:
        """`hidden_states`: batch x channels x height x width; the same comes back. `temb` is nothing in a VAE."""
        pixels = attn.group_norm(hidden_states.flatten(2)).transpose(1, 2)
        made = attended(attn.to_q(pixels), attn.to_k(pixels), attn.to_v(pixels))
        for layer in attn.to_out:
            made = layer(made)
        made = made.transpose(1, 2).reshape(hidden_states.shape) + hidden_states
        return made / attn.rescale_output_factor  # type: ignore[no-any-return]


def fits(attn: Any) -> bool:
    """Whether this is what the processor is for: attention as diffusers has it, not split over ranks."""
    if type(attn.processor) is not AttnProcessor2_0:
        return False
    plain = attn.heads == 1 and attn.group_norm is not None and attn.spatial_norm is None and attn.norm_q is None
    return bool(plain and attn.residual_connection)


def attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Each batch x tokens x width, and so is the result."""
    keys, scale = key.transpose(1, 2), query.shape[-1] ** -0.5
    stretches = torch.split(query, STRETCH, dim=1)
    shares = ((_products(some, keys) * scale).softmax(-1).to(value.dtype) for some in stretches)
    return torch.cat([torch.bmm(share, value) for share in shares], dim=1)


def _products(queries: Tensor, keys: Tensor) -> Tensor:
    """Of each query with each key, in float32."""
    if queries.is_cuda and queries.dtype != torch.float32:
        return torch.bmm(queries, keys, out_dtype=torch.float32)
    return torch.bmm(queries.float(), keys.float())
