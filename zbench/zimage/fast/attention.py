"""Z-Image's attention with one matmul for queries, keys and values, and with rotations of real numbers.

Exact up to rounding. Norm and rotation are element-wise on real numbers, so a compiler makes one kernel of them, which
it cannot of diffusers' complex ones. The attention itself is diffusers' `dispatch_attention_fn`, with the layer's
backend and parallel configuration; but on one device cuDNN's is called on queries, keys and values as they lie, and
nothing is copied before or behind it.

Fuse after a LoRA was fused and after the transformer was sharded, before it is quantised, compiled or offloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_z_image import ZSingleStreamAttnProcessor
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from zbench.zimage.fast.attention_fp8 import attended_as_rows, attended_in_fp8, bound_of
from zbench.zimage.fast.joined import Joined, why_not_join
from zbench.zimage.fast.limits import ALREADY, ASYNC_SENDS_EACH, FOREIGN_PROCESSOR, GATHER_SENDS_EACH, NO_MASK
from zbench.zimage.fast.scaled import RowsLinear, ScaledRows

PROJECTIONS = ("to_q", "to_k", "to_v")
JOINED = "to_qkv"
"""Name of the layer that stands for these three."""


class FusedAttnProcessor:
    """A processor of diffusers' `Attention`, in place of `ZSingleStreamAttnProcessor`."""

    _attention_backend = None
    _parallel_config = None

    def __init__(self, own: Any, *, qkv: bool, rope: bool, in_fp8: bool = False) -> None:
        """`own` is the one whose place it takes; what was set on it (its backend, how it is sharded) goes on to hold.

        With `qkv` the layer has `to_qkv` in place of three projections; with `rope` its rotations are real; `in_fp8`
        is by cuDNN, whatever the backend.
        """
        vars(self).update(vars(own))
        self._qkv, self._rotated, self._in_fp8 = qkv, rotated if rope else rotated_as_complex, in_fp8

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor | ScaledRows,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        freqs_cis: Tensor | None = None,
    ) -> Tensor:
        """`hidden_states`: batch x tokens x width, or `ScaledRows` of it; the former comes back.

        `freqs_cis`: what the embedder gives.
        """
        query, key, value = self._projected(attn, hidden_states)
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        if attn.norm_k is not None:
            key = attn.norm_k(key)
        if freqs_cis is not None:
            query, key = self._rotated(query, freqs_cis), self._rotated(key, freqs_cis)
        if (
            attention_mask is not None and attention_mask.ndim == 2
        ):  # which tokens count; the same for heads and queries
            attention_mask = attention_mask[:, None, None, :]
        attended: Any
        if self._in_fp8:
            if attention_mask is not None:
                raise ValueError(NO_MASK)
            bounds = bound_of(attn.norm_q, query), bound_of(attn.norm_k, key)
            takes_rows = isinstance(attn.to_out[0], RowsLinear)
            attended = (attended_as_rows if takes_rows else attended_in_fp8)(query, key, value, bounds)
        elif self._attention_backend == AttentionBackendName._NATIVE_CUDNN and self._parallel_config is None:
            attended = attended_by_cudnn(query, key, value, attention_mask)
        else:
            attended = dispatch_attention_fn(
                query,
                key,
                value,
                attn_mask=attention_mask,
                dropout_p=0.0,
                is_causal=False,
                backend=self._attention_backend,
                parallel_config=self._parallel_config,
            )
        if isinstance(attended, Tensor):
            attended = attended.flatten(2, 3).to(value.dtype)
        for layer in attn.to_out:
            attended = layer(attended)
        made: Tensor = attended
        return made

    def _projected(self, attn: Any, hidden_states: Tensor | ScaledRows) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each batch x tokens x heads x width of a head."""
        if self._qkv:
            query, key, value = attn.to_qkv(hidden_states).unflatten(-1, (3, attn.heads, -1)).unbind(2)
        else:
            layers = (attn.to_q, attn.to_k, attn.to_v)
            query, key, value = (layer(hidden_states).unflatten(-1, (attn.heads, -1)) for layer in layers)
        return query, key, value


def attended_by_cudnn(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Each batch x tokens x heads x width, with any strides; the same comes back, laid out as the queries are."""
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)


def rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotary embedding in float32: each channel times its cosine, plus the other of its pair times its signed sine.

    `x`: batch x tokens x heads x width. `rotation`: batch x tokens x twice the width, as `RealRotations` gives it.
    """
    batch, tokens, _, width = x.shape
    cosine, signed_sine = rotation.reshape(batch, tokens, 1, 2, width).unbind(-2)
    whole = x.float()
    others = _in_pairs(whole).flip(-1).flatten(-2)
    return (whole * cosine + others * signed_sine).to(x.dtype)


def rotated_as_complex(x: Tensor, rotation: Tensor) -> Tensor:
    """The same with a pair of channels as a complex number; `rotation`: batch x tokens x half the width, complex."""
    turned = torch.view_as_complex(_in_pairs(x.float())) * rotation.unsqueeze(2)
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


def _in_pairs(x: Tensor) -> Tensor:
    return x.reshape(*x.shape[:-1], -1, 2)


class RealRotations:
    """In place of diffusers' `RopeEmbedder`: rotations as real numbers, looked up once a forward.

    A token's row has a cosine for each channel of a head, and behind these a signed sine for each. What pads a sequence
    is zero, as it is where rotations are complex.
    """

    def __init__(self, own: Any) -> None:
        """`own` is the embedder whose place it takes."""
        self._own = own
        self._tables: list[Tensor] = []  # of an axis: positions x 2 x its width

    def __call__(self, ids: Tensor) -> Tensor:
        """`ids`: tokens x axes, positions. Returns tokens x twice a head's width, float32."""
        if not self._tables:
            own = self._own
            complex_tables = own.precompute_freqs_cis(own.axes_dims, own.axes_lens, theta=own.theta)
            self._tables = [_cosines_and_signed_sines(table) for table in complex_tables]
        if self._tables[0].device != ids.device:
            self._tables = [table.to(ids.device) for table in self._tables]
        return torch.cat([table[ids[:, axis]] for axis, table in enumerate(self._tables)], dim=-1).flatten(1)


def _cosines_and_signed_sines(table: Tensor) -> Tensor:
    """Of positions x pairs of channels, complex: a pair (a, b) turns into (a cos - b sin, b cos + a sin)."""
    cosines = torch.stack([table.real, table.real], dim=-1)
    signed_sines = torch.stack([-table.imag, table.imag], dim=-1)
    return torch.stack([cosines.flatten(1), signed_sines.flatten(1)], dim=1)


def why_not_fuse_attention(transformer: Any, *, qkv: bool, rope: bool) -> str | None:
    """Why `fuse_attention` cannot, in a sentence that says the way out; None where it can."""
    if not (qkv or rope):
        return None
    if rope and isinstance(transformer.rope_embedder, RealRotations):
        return ALREADY
    for attention in _attentions(transformer):
        processor = attention.processor
        if _turns_by_real(processor):
            if qkv:
                return GATHER_SENDS_EACH
        elif type(processor) is not ZSingleStreamAttnProcessor:
            return FOREIGN_PROCESSOR.format(kind=type(processor).__name__)
        elif getattr(processor._parallel_config, "ulysses_async", False):
            return ASYNC_SENDS_EACH
        reason = why_not_join([getattr(attention, name) for name in PROJECTIONS]) if qkv else None
        if reason is not None:
            return reason
    return None


def fuse_attention(transformer: Any, *, qkv: bool, rope: bool, in_fp8: bool = False) -> Callable[[], None]:
    """Fuse a ZImageTransformer2DModel's projections (`qkv`), make its rotations real (`rope`), or both; returns undo.

    With one of them attention can be `in_fp8`, which changes images.

    Three projections become the layer `to_qkv`, the names `to_q`, `to_k` and `to_v` stay and hold nothing. Attention
    that gathers keys and values has real rotations of its own, and is left as it is. Undo restores layers, weights and
    processors; after offloading it is of no use. Raises ValueError with what `why_not_fuse_attention` says.
    """
    if (reason := why_not_fuse_attention(transformer, qkv=qkv, rope=rope)) is not None:
        raise ValueError(reason)
    own = [(attention, attention.processor) for attention in _attentions(transformer)]
    own = [(attention, processor) for attention, processor in own if not _turns_by_real(processor)]
    if not own or not (qkv or rope):  # nothing is asked for, or nothing is left to do
        return lambda: None
    joined: list[tuple[Any, Joined, list[Any]]] = []
    for attention, processor in own:
        if qkv:
            layers = [getattr(attention, name) for name in PROJECTIONS]
            one = Joined(layers)
            joined.append((attention, one, layers))
            for name in PROJECTIONS:
                setattr(attention, name, None)  # which keeps its place among the layers
            setattr(attention, JOINED, one.layer)
        attention.set_processor(FusedAttnProcessor(processor, qkv=qkv, rope=rope, in_fp8=in_fp8))
    embedder = transformer.rope_embedder
    if rope:
        transformer.rope_embedder = RealRotations(embedder)

    def undo() -> None:
        for attention, one, layers in joined:
            one.part()
            delattr(attention, JOINED)
            for name, layer in zip(PROJECTIONS, layers, strict=True):
                setattr(attention, name, layer)
        for attention, processor in own:
            attention.set_processor(processor)
        transformer.rope_embedder = embedder

    return undo


def _attentions(transformer: Any) -> list[Any]:
    return [module for module in transformer.modules() if isinstance(module, Attention)]


def _turns_by_real(processor: Any) -> bool:
    """Whether it rotates by real numbers without us, as gather's does."""
    return getattr(processor, "takes_real_rotations", False)
