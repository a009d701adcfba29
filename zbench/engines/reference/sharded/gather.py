"""Gather: attention in which each rank keeps its queries and gathers everybody's keys and values.

Exact, for any number of ranks, with no head count to divide and no log-sum-exp to merge. Between attentions a rank
holds only its share of the tokens: ceil(tokens / ranks), the last rank what is left. Only what is sent is padded to a
whole share, and what is received is cut to the tokens there are, so no mask is needed.

With Ulysses inside (ulysses x gather) the ranks of a Ulysses group first exchange tokens for heads (Jacobs et al.
2023), and each gathers the keys and values of its heads alone.

Sent a layer and rank: keys and values of a share, to each of the others. The values travel while the keys are computed,
the keys while the queries are; over gloo none does (`ONE_AT_A_TIME`). The collectives are functional, so a block
compiles whole, with them inside.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.distributed import ProcessGroup

from zbench.engines.reference.sharded.copies import TURNS, Carrier, await_shares, register, release, send_share
from zbench.methods.parallel import share, whole_share

collectives = torch.ops._c10d_functional

ONE_AT_A_TIME = "gloo"
"""The backend on which each gather is waited for at once. With torch 2.13 two functional collectives that are under way
together write into freed memory there, once in some 10,000 pairs: `malloc(): unaligned tcache chunk detected`."""

KEYS, VALUES = 0, 1
"""Kinds of what is gathered."""


class _Peers:
    """A process group as functional collectives see it. Tensors have their tokens first: tokens x batch x …"""

    def __init__(self, group: ProcessGroup | None) -> None:
        self.size = 1 if group is None else group.size()
        self.rank = 0 if group is None else group.rank()
        self._name = "" if group is None else group.group_name
        self._waits = group is not None and dist.get_backend(group) == ONE_AT_A_TIME

    def begin_gather(self, share: Tensor) -> Tensor:
        """All shares, one after another; complete only once it was waited for."""
        if self.size == 1:
            return share
        gathered: Tensor = collectives.all_gather_into_tensor(share.contiguous(), self.size, self._name)
        return self._complete(gathered) if self._waits else gathered

    def wait(self, gathered: Tensor) -> Tensor:
        """What `begin_gather` began."""
        if self.size == 1 or self._waits:
            return gathered
        return self._complete(gathered)

    def _complete(self, gathered: Tensor) -> Tensor:
        complete: Tensor = collectives.wait_tensor(gathered)
        return complete

    def tokens_for_heads(self, x: Tensor) -> Tensor:
        """The tokens of a rank, all heads, become those of the group, some heads: tokens x batch x heads x width."""
        if self.size == 1:
            return x
        tokens, batch, heads, width = x.shape
        parts = x.reshape(tokens, batch, self.size, heads // self.size, width).permute(2, 0, 1, 3, 4)
        return self._exchange(parts).flatten(0, 1)

    def heads_for_tokens(self, x: Tensor) -> Tensor:
        """The way back; what is exchanged is part of the heads x tokens x batch x heads x width."""
        if self.size == 1:
            return x
        parts = self._exchange(x.reshape(self.size, -1, *x.shape[1:]))
        return parts.permute(1, 2, 0, 3, 4).flatten(2, 3)

    def _exchange(self, parts: Tensor) -> Tensor:
        ones = [1] * self.size
        sent = collectives.all_to_all_single(parts.contiguous(), ones, ones, self._name)
        received: Tensor = collectives.wait_tensor(sent)
        return received


class _Ranks:
    """Those that a sequence is spread over, and this one's place among them: Ulysses' groups lie inside gather's."""

    def __init__(self, gather: ProcessGroup | None, ulysses: ProcessGroup | None) -> None:
        self.gather, self.ulysses = _Peers(gather), _Peers(ulysses)
        self._count = self.gather.size * self.ulysses.size
        self._index = self.gather.rank * self.ulysses.size + self.ulysses.rank

    def own(self, tokens: int) -> tuple[int, int]:
        """Where this rank's share begins and ends."""
        return whole_share(tokens, self._count, self._index)

    def lacking(self, tokens: int) -> int:
        """How many tokens its share lacks to a whole one."""
        begin, end = self.own(tokens)
        return share(tokens, self._count) - (end - begin)


class GatherAttnProcessor:
    """Z-Image's attention on a rank's share of the tokens; a processor of diffusers' `Attention`.

    `freqs_cis` are those of all tokens as real numbers (batch x tokens x half a head x 2), which says how many tokens
    there are; a mask is that of all tokens too.
    """

    _attention_backend = None
    _parallel_config = None  # diffusers looks for it
    takes_real_rotations = True  # `zimage.fast` looks for it

    def __init__(self, ranks: _Ranks) -> None:
        self._ranks = ranks
        self._carrier: int | None = None  # None: by collectives
        self._buffers: tuple[Tensor, ...] = ()  # of keys and of values

    def carry(self, carrier: int, buffers: tuple[Tensor, ...]) -> None:
        """Gather by a carrier (`copies`) from now on, keys and values into a buffer each."""
        self._carrier, self._buffers = carrier, buffers

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        freqs_cis: Tensor | None = None,
    ) -> Tensor:
        """`hidden_states`: batch x the rank's tokens x width; the same comes back."""
        if freqs_cis is None:
            raise ValueError("freqs_cis says how many tokens there are, and is missing")
        tokens = freqs_cis.shape[1]
        begin, end = self._ranks.own(tokens)
        lacking, ulysses = self._ranks.lacking(tokens), self._ranks.ulysses
        rotation = freqs_cis[:, begin:end].unsqueeze(3)  # the same for all heads

        def exchanged(x: Tensor) -> Tensor:
            """Tokens first and padded to a whole share; what Ulysses exchanges is exchanged."""
            x = x.transpose(0, 1)
            return ulysses.tokens_for_heads(F.pad(x, (0, 0, 0, 0, 0, 0, 0, lacking)) if lacking else x)

        value = exchanged(attn.to_v(hidden_states).unflatten(-1, (attn.heads, -1)))
        value = self._begin(value.contiguous(), VALUES, hidden_states)
        key = attn.to_k(hidden_states).unflatten(-1, (attn.heads, -1))
        key = self._begin(exchanged(rotated(_normed(attn.norm_k, key), rotation)).contiguous(), KEYS, hidden_states)
        query = attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1))
        query = exchanged(rotated(_normed(attn.norm_q, query), rotation))
        value, key = self._complete(value, VALUES)[:tokens], self._complete(key, KEYS)[:tokens]
        if attention_mask is not None and attention_mask.ndim == 2:
            attention_mask = attention_mask[:, None, None, :]
        attended = dispatch_attention_fn(
            query.transpose(0, 1),
            key.transpose(0, 1),
            value.transpose(0, 1),
            attn_mask=attention_mask,
            dropout_p=0.0,
            is_causal=False,
            backend=self._attention_backend,
            parallel_config=None,
        )
        attended = ulysses.heads_for_tokens(attended.transpose(0, 1)).transpose(0, 1)
        attended = attended[:, : end - begin].flatten(2, 3).to(hidden_states.dtype)
        for layer in attn.to_out:
            attended = layer(attended)
        return attended  # type: ignore[no-any-return]

    def _begin(self, share: Tensor, kind: int, later: Tensor) -> Tensor:
        """Begin to gather a share (tokens x batch x heads x width); `_complete` takes what comes back.

        What is computed of `later` from now on is computed meanwhile.
        """
        if self._carrier is None:
            return self._ranks.gather.begin_gather(share)
        send_share(share, self._buffers[kind], later, self._carrier)
        return share

    def _complete(self, begun: Tensor, kind: int) -> Tensor:
        """All shares, one after another."""
        if self._carrier is None:
            return self._ranks.gather.wait(begun)
        await_shares(begun, self._buffers[kind], self._carrier)
        shares, (tokens, *others) = self._ranks.gather.size, begun.shape
        return self._buffers[kind][: begun.numel() * shares].view(tokens * shares, *others)


def rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotary embedding with real numbers, which a compiler can fuse; computed in float32.

    `x`: batch x tokens x heads x width. `rotation`: cosine and sine, batch x tokens x half a head x 1 x 2.
    """
    even, odd = x.float().reshape(*x.shape[:-1], -1, 2).unbind(-1)
    cosine, sine = rotation.transpose(2, 3).unbind(-1)
    turned = torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1)
    return turned.flatten(-2).to(x.dtype)


def _normed(norm: Any, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


class ShardedSequence:
    """A Z-Image transformer whose tokens are spread over ranks, until `close`.

    Its blocks see a share of each sequence. What the model does with whole sequences, it does with gathered ones: image
    and text tokens are joined once a forward, and the last layer's output is gathered.
    """

    def __init__(self, transformer: Any, gather: ProcessGroup | None, ulysses: ProcessGroup | None) -> None:
        """`transformer`: diffusers' ZImageTransformer2DModel, its weights whole or split by tensor parallelism."""
        self._transformer = transformer
        self._ranks = _Ranks(gather, ulysses)
        self._carrier: int | None = None
        self._tokens = 0  # of the joined sequence of the forward that runs
        self._processors = [(m, m.processor) for m in transformer.modules() if isinstance(m, Attention)]
        for attention, own in self._processors:
            processor = GatherAttnProcessor(self._ranks)
            processor._attention_backend = own._attention_backend
            attention.set_processor(processor)
        self._joined_before = vars(transformer).get("_build_unified_sequence")  # that of split guidance, or none
        self._joined = transformer._build_unified_sequence
        transformer._prepare_sequence = self._prepare_sequence
        transformer._build_unified_sequence = self._build_unified_sequence
        self._hooks = [
            layer.register_forward_hook(self._whole_output) for layer in transformer.all_final_layer.values()
        ]

    def carry(self, carrier: Carrier) -> None:
        """Gather keys and values by a carrier whose buffers hold the longest sequence; before anything is compiled."""
        number = self._carrier = register(carrier)
        for layer, (attention, _) in enumerate(self._processors):
            attention.processor.carry(number, tuple(carrier.buffers[layer % TURNS :: TURNS]))

    def close(self) -> None:
        """Leave the transformer as it was."""
        for hook in self._hooks:
            hook.remove()
        del self._transformer._prepare_sequence, self._transformer._build_unified_sequence
        if self._joined_before is not None:
            self._transformer._build_unified_sequence = self._joined_before
        for attention, own in self._processors:
            attention.set_processor(own)
        if self._carrier is not None:
            release(self._carrier)
            self._carrier = None

    def _prepare_sequence(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The rank's share of a padded sequence, with the rotation and the mask of all of it."""
        own = type(self._transformer)._prepare_sequence
        tokens, freqs, *others = own(self._transformer, *args, **kwargs)
        return self._share(tokens), torch.view_as_real(freqs), *others

    def _build_unified_sequence(self, x: Tensor, x_freqs: Tensor, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """As above, of image and text together; `args` go on with what the text is."""
        x_seqlens, x_noise_mask, cap, cap_freqs, *others = args
        whole_x, whole_cap = self._whole(x, x_freqs.shape[1]), self._whole(cap, cap_freqs.shape[1])
        made = self._joined(whole_x, x_freqs, x_seqlens, x_noise_mask, whole_cap, cap_freqs, *others, **kwargs)
        unified, *rest = made
        self._tokens = unified.shape[1]
        return self._share(unified), *rest

    def _whole_output(self, _module: Any, _args: Any, output: Tensor) -> Tensor:
        return self._whole(output, self._tokens)

    def _share(self, whole: Tensor) -> Tensor:
        """The rank's tokens of batch x tokens x width."""
        begin, end = self._ranks.own(whole.shape[1])
        return whole[:, begin:end].contiguous()

    def _whole(self, own: Tensor, tokens: int) -> Tensor:
        """All tokens, of which `own` (batch x the rank's tokens x width) are a part."""
        lacking = self._ranks.lacking(tokens)
        padded = F.pad(own, (0, 0, 0, lacking)) if lacking else own
        gathered = padded.transpose(0, 1)
        for peers in (self._ranks.ulysses, self._ranks.gather):
            gathered = peers.wait(peers.begin_gather(gathered))
        return gathered[:tokens].transpose(0, 1)
