"""Guidance's two passes on two devices: each computes one half of the batch, and both get both halves."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import ProcessGroup

from zbench.zimage.flops import padded_tokens


def compares(transformer: Any) -> bool:
    """Whether cache-dit decides by differences which steps it skips; from a threshold of 1 on it compares nothing."""
    manager = getattr(transformer, "_context_manager", None)
    contexts = {} if manager is None else manager._cached_context_manager
    return any(0.0 < context.get_residual_diff_threshold() < 1.0 for context in contexts.values())


class SplitGuidance:
    """A transformer of whose batch (positive prompts, then negative ones) a rank computes its part, until `close`.

    One process pads all samples to the longest, and DBCache compares what stands there too. So where it compares, a
    part is padded as far, or it would skip other steps. Nowhere else: a padded sequence needs a mask.
    """

    def __init__(self, transformer: Any, group: ProcessGroup) -> None:
        """`transformer`: diffusers' ZImageTransformer2DModel, called as its pipeline calls it with guidance.

        Whoever else replaces `_build_unified_sequence` does so after, around this one.
        """
        self._transformer, self._group = transformer, group
        self._lacking = 0  # tokens between this part's longest sample and the whole batch's, in the forward that runs
        transformer._build_unified_sequence = self._as_long_as_the_batch
        self._hooks = [
            transformer.register_forward_pre_hook(self._own_part, with_kwargs=True),
            transformer.register_forward_hook(self._all_parts),
        ]

    def close(self) -> None:
        """Leave the transformer as it was."""
        for hook in self._hooks:
            hook.remove()
        del self._transformer._build_unified_sequence

    def _own_part(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        latents, timesteps, texts, *others = args
        samples, parts = len(latents), self._group.size()
        if samples % parts:
            raise ValueError(f"parallel.cfg_size={parts}: a batch of {samples} samples does not divide")
        begin = samples // parts * self._group.rank()
        own = slice(begin, begin + samples // parts)
        tokens = [padded_tokens(len(text)) for text in texts]
        self._lacking = max(tokens) - max(tokens[own]) if compares(self._transformer) else 0
        return (latents[own], timesteps[own], texts[own], *others), kwargs

    def _as_long_as_the_batch(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Image and text joined, with the padding that one process would put behind, masked out."""
        own = type(self._transformer)._build_unified_sequence
        tokens, freqs, mask, *others = own(self._transformer, *args, **kwargs)
        if self._lacking:
            if mask is None:
                mask = tokens.new_ones(tokens.shape[:2], dtype=torch.bool)
            tokens, freqs, mask = (_longer(each, self._lacking) for each in (tokens, freqs, mask))
        return tokens, freqs, mask, *others

    def _all_parts(self, _module: Any, _args: Any, output: tuple[list[torch.Tensor]]) -> tuple[list[torch.Tensor]]:
        own = torch.stack(output[0])
        whole = own.new_empty(own.shape[0] * self._group.size(), *own.shape[1:])
        dist.all_gather_into_tensor(whole, own, group=self._group)
        return (list(whole.unbind()),)


def _longer(x: torch.Tensor, tokens: int) -> torch.Tensor:
    """Batch x tokens x …, with so many zeros behind."""
    return torch.cat([x, x.new_zeros(x.shape[0], tokens, *x.shape[2:])], dim=1)
