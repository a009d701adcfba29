"""The VAE's decode split over ranks by rows of the image: each computes its own, and every one has the whole image.

It is exact up to rounding. What a row needs of others is exchanged:

- A 3 x 3 convolution needs one row above and one below its share. Outside the image they are zeros.
- A GroupNorm needs mean and variance of all rows. Each rank sends those of its share, in float32, and combines all of
  them by how many rows they stand for (Chan et al. 1983), which loses nothing where the mean is large.
- A GroupNorm stands before nearly every convolution, so both travel at once: the rows before the norm, with the
  statistics beside them. The norm is applied to the neighbours' rows too.
- The attention of the middle block has each rank's queries and everybody's keys and values. Its input is gathered
  before its norm: that is half of what keys and values are, it needs no statistics, and the two matrix products that
  each rank then makes for all tokens are 17 GFLOP at 1024², 3 % of the attention itself.
- A nearest upsampling needs nothing of others. The rows for its convolution are exchanged before it, at half the width.

Every collective is an all-gather, functional, so that a decoder compiles with them inside. A decode of Z-Image's VAE
makes 34: 29 norms, 3 upsamplings, the attention and the image. At 1024² on 2 ranks each gives 41.4 MB in bf16: 29.9 MB
of rows and statistics (always float32, so that one message holds both), 8.4 MB for the attention, 3.1 MB of image.

The weights are whole on every rank. Modules stay what and where they are, and `vae.decode` is left alone, so what hooks
or wraps them (offload, clocks) does so before or after. `close` takes off hooks, puts back paddings and the attention's
processor, and lets the norms be themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.vae import Decoder
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from zbench.errors import ConfigError
from zbench.methods.parallel import even_shares

collectives = torch.ops._c10d_functional

KEY, VALUE = "parallel.vae", "split"


def split_decode(vae: Any, group: ProcessGroup | None) -> SplitDecode:
    """Split the decode of `vae`, a diffusers `AutoencoderKL`, over the ranks of `group` until the handle is closed.

    All of them then call `vae.decode` with the same latents, and have the same image. Without a group, or in a group of
    one, nothing changes. Raises ConfigError for a VAE that decodes in tiles, or is built of other parts.
    """
    return SplitDecode(vae, None if group is None or group.size() == 1 else group)


class SplitDecode:
    """What `split_decode` changed, and how to undo it."""

    def __init__(self, vae: Any, group: ProcessGroup | None) -> None:
        self._undo: list[Callable[[], object]] = []
        if group is None:
            return
        _refuse_tiles(vae)
        _refuse_other_parts(vae)
        self._vae, self._rows = vae, _Rows(group)
        decoder = vae.decoder
        self._undo += [
            decoder.register_forward_pre_hook(self._own_latents).remove,
            decoder.register_forward_hook(self._whole_image).remove,
        ]
        self._pad_columns_alone(decoder.conv_in)
        self._normalise_with_others(decoder.conv_norm_out, decoder.conv_out)
        for module in decoder.modules():
            if isinstance(module, ResnetBlock2D):
                self._normalise_with_others(module.norm1, module.conv1)
                self._normalise_with_others(module.norm2, module.conv2)
            elif isinstance(module, Upsample2D):
                self._undo.append(module.register_forward_pre_hook(self._with_halo).remove)
                self._undo.append(module.conv.register_forward_pre_hook(_without_outermost).remove)
                self._pad_columns_alone(module.conv)
            elif isinstance(module, Attention):
                self._undo.append(lambda it=module, own=module.processor: it.set_processor(own))  # type: ignore[misc]
                module.set_processor(_SplitAttnProcessor(self._rows))

    def close(self) -> None:
        """Leave the VAE as it was; a second time does nothing."""
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()

    def _pad_columns_alone(self, conv: Any) -> None:
        """A convolution that is given the rows above and below adds zeros to the left and to the right alone."""
        self._undo.append(lambda own=conv.padding: setattr(conv, "padding", own))  # type: ignore[misc]
        conv.padding = (0, conv.padding[1])

    def _normalise_with_others(self, norm: nn.GroupNorm, conv: Any) -> None:
        """`norm` answers with one row more on either side, which its convolution takes."""
        split = _SplitNorm(norm, self._rows)
        norm.forward = split  # type: ignore[method-assign,assignment]
        self._undo.append(split.close)
        self._pad_columns_alone(conv)

    def _own_latents(self, _decoder: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        _refuse_tiles(self._vae)
        latents, *others = args
        return self._rows.begin(latents), *others

    def _whole_image(self, _decoder: Any, _args: Any, image: Tensor) -> Tensor:
        return self._rows.gather(image)

    def _with_halo(self, _module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        share, *others = args
        above, below, _ = self._rows.exchange(share)
        return torch.cat([above, share, below], dim=2), *others


class _Rows:
    """Which rows are whose in the decode that runs, and their exchange. Tensors: batch x channels x rows x columns."""

    def __init__(self, group: ProcessGroup) -> None:
        self.rank, self.ranks, self._name = group.rank(), group.size(), group.group_name
        self.shares: list[int] = []  # rows of latents of each rank; a level further up they are all twice as many
        self._weights = torch.empty(0)  # each rank's part of all rows, on the device

    @property
    def is_first(self) -> bool:
        """Whether nothing is above its rows."""
        return self.rank == 0

    @property
    def is_last(self) -> bool:
        """Whether nothing is below them."""
        return self.rank == self.ranks - 1

    def begin(self, latents: Tensor) -> Tensor:
        """The rank's rows of whole latents, with one above and one below. Raises ConfigError for too few rows."""
        rows = latents.shape[2]
        if rows < self.ranks:
            problem = f"an image of {rows} rows of latents cannot be split over {self.ranks} ranks; leave it whole"
            raise ConfigError(KEY, VALUE, problem)
        shares = even_shares(rows, self.ranks)
        if self.shares != shares or self._weights.device != latents.device:
            self.shares = shares
            weights = [share / rows for share in shares]
            self._weights = torch.tensor(weights, dtype=torch.float32, device=latents.device)[:, None, None]
        above = sum(shares[: self.rank])
        return F.pad(latents, (0, 0, 1, 1))[:, :, above : above + shares[self.rank] + 2]

    def span(self, share: Tensor) -> tuple[int, int]:
        """At which row of the whole a share begins and ends."""
        scale = share.shape[2] // self.shares[self.rank]
        above = sum(self.shares[: self.rank])
        return above * scale, (above + self.shares[self.rank]) * scale

    def gather(self, share: Tensor) -> Tensor:
        """All rows. What is sent is padded to the largest share, and cut where it arrives."""
        scale = share.shape[2] // self.shares[self.rank]
        most = max(self.shares) * scale
        sent = share.movedim(2, 0)  # rows first, so that what arrives is in order
        if lacking := most - share.shape[2]:
            sent = F.pad(sent, (0, 0, 0, 0, 0, 0, 0, lacking))
        arrived = self._all_gather(sent)
        if len(set(self.shares)) > 1:
            ends = [(rank * most, rank * most + own * scale) for rank, own in enumerate(self.shares)]
            arrived = torch.cat([arrived[begin:end] for begin, end in ends])
        return arrived.movedim(0, 2).contiguous()

    def exchange(self, share: Tensor, moments: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """The row above a share and the one below it, and everybody's `moments` (ranks x 2 x batch x groups).

        Where the image ends they are zeros. One message, in float32, which holds the narrower types without loss.
        """
        edges = torch.stack([share[:, :, 0], share[:, :, -1]])
        parts = [edges.float().flatten(), *([] if moments is None else [moments.flatten()])]
        arrived = self._all_gather(torch.cat(parts)).view(self.ranks, -1)

        def edge(rank: int, which: int) -> Tensor:
            return arrived[rank, : edges.numel()].view(edges.shape)[which].to(share.dtype).unsqueeze(2)

        nothing = torch.zeros_like(share[:, :, :1])
        above = nothing if self.is_first else edge(self.rank - 1, 1)
        below = nothing if self.is_last else edge(self.rank + 1, 0)
        return above, below, None if moments is None else arrived[:, edges.numel() :].reshape(-1, *moments.shape)

    def combined(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of all rows (batch x groups) from those of every rank's (ranks x 2 x batch x groups)."""
        means, variances = moments.unbind(1)
        weights = self._weights
        mean = (weights * means).sum(0)
        return mean, (weights * (variances + (means - mean).square())).sum(0)

    def _all_gather(self, sent: Tensor) -> Tensor:
        begun = collectives.all_gather_into_tensor(sent.contiguous(), self.ranks, self._name)
        arrived: Tensor = collectives.wait_tensor(begun)
        return arrived


class _SplitNorm:
    """Stands in for the `forward` of a GroupNorm whose rows are split: it answers with one row more on either side.

    Those outside the image are zeros, and activations leave them so.
    """

    def __init__(self, norm: nn.GroupNorm, rows: _Rows) -> None:
        self._norm = norm
        self._rows: _Rows | None = rows

    def __call__(self, share: Tensor) -> Tensor:
        """`share`: batch x channels x rows x columns."""
        norm, rows = self._norm, self._rows
        if rows is None:  # closed, and held by who wrapped `forward` since
            return type(norm).forward(norm, share)
        above, below, moments = rows.exchange(share, _moments(share, norm.num_groups))
        assert moments is not None
        mean, variance = rows.combined(moments)
        batch, channels = share.shape[:2]
        each = channels // norm.num_groups
        wide = torch.cat([above, share, below], dim=2)
        normed = F.batch_norm(  # one pass, computed in float32 whatever the rows are
            wide.reshape(1, batch * channels, *wide.shape[2:]),
            mean.flatten().repeat_interleave(each),
            variance.flatten().repeat_interleave(each),
            norm.weight.float().repeat(batch),
            norm.bias.float().repeat(batch),
            eps=norm.eps,
        ).reshape(wide.shape)
        if rows.is_first:
            normed[:, :, 0] = 0
        if rows.is_last:
            normed[:, :, -1] = 0
        return normed

    def close(self) -> None:
        """The norm is itself again, even where something has wrapped this in the meantime."""
        self._rows = None
        if vars(self._norm).get("forward") is self:
            del self._norm.forward


class _SplitAttnProcessor:
    """The middle block's attention on the rank's rows; a processor of diffusers' `Attention`."""

    def __init__(self, rows: _Rows) -> None:
        self._rows = rows

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """`hidden_states`: batch x channels x the rank's rows x columns; the same comes back. A VAE gives no others."""
        begin, end = (row * hidden_states.shape[3] for row in self._rows.span(hidden_states))
        tokens = self._rows.gather(hidden_states).flatten(2)
        if attn.group_norm is not None:
            tokens = attn.group_norm(tokens)
        tokens = tokens.transpose(1, 2)
        query, key, value = (
            layer(some).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, some in ((attn.to_q, tokens[:, begin:end]), (attn.to_k, tokens), (attn.to_v, tokens))
        )
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        for layer in attn.to_out:
            attended = layer(attended)
        attended = attended.transpose(1, 2).reshape(hidden_states.shape)
        if attn.residual_connection:
            attended = attended + hidden_states
        scaled: Tensor = attended / attn.rescale_output_factor
        return scaled


def _moments(share: Tensor, groups: int) -> Tensor:
    """Mean and variance of each group of channels (2 x batch x groups), in float32, without a wider copy of `share`."""
    batch, channels, *area = share.shape
    grouped, inside = share.view(batch, groups, channels // groups, *area), (2, 3, 4)
    if share.dtype == torch.float32 or torch.compiler.is_compiling():  # a compiler makes no copy either
        variance, mean = torch.var_mean(grouped.float(), inside, correction=0)
    else:
        mean = grouped.mean(inside, dtype=torch.float32)
        variance = torch.var(grouped, inside, correction=0, out=torch.empty_like(mean))
    return torch.stack([mean, variance])


def _without_outermost(_module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Each row beside the share was doubled too, and its outer half is of no use."""
    rows, *others = args
    return rows[:, :, 1:-1], *others


def _refuse_tiles(vae: Any) -> None:
    if vae.use_tiling:
        problem = "pipeline.vae_tiling=true decodes in tiles, which are not split and give another image; use one"
        raise ConfigError(KEY, VALUE, problem)


def _refuse_other_parts(vae: Any) -> None:
    """Raise ConfigError for a decoder of which more than what is split here looks beyond its rows."""
    decoder: nn.Module = vae.decoder
    if not isinstance(decoder, Decoder):
        raise ConfigError(
            KEY, VALUE, f"the VAE's decoder is a {type(decoder).__name__}, which is not split; leave it whole"
        )
    ends = {id(module) for module in (decoder.conv_in, decoder.conv_norm_out, decoder.conv_out)}
    seen = ends if isinstance(decoder.conv_norm_out, nn.GroupNorm) else set()
    others = []
    for module in decoder.modules():
        if isinstance(module, ResnetBlock2D | Upsample2D | Attention):
            others += [module] if _is_other(module) else []
            seen |= {id(part) for part in module.modules()}
        elif id(module) not in seen and (id(module) in ends or isinstance(module, nn.Conv2d | nn.GroupNorm)):
            others.append(module)
    if others:
        names = ", ".join(dict.fromkeys(type(module).__name__ for module in others))
        problem = f"the VAE's decoder has parts that are not split ({names}); leave it whole"
        raise ConfigError(KEY, VALUE, problem)


def _is_other(module: Any) -> bool:
    """Whether a part is set up in a way that the official VAE's are not."""
    if isinstance(module, ResnetBlock2D):
        return bool(module.up or module.down or module.time_emb_proj is not None)
    if isinstance(module, Upsample2D):
        plain = module.use_conv and module.interpolate and module.norm is None and module.name == "conv"
        return not plain or module.conv.kernel_size != (3, 3)
    return module.spatial_norm is not None or module.norm_q is not None or module.norm_k is not None
