"""Guidance's two passes on two devices: each computes one half of the batch, and both get both halves."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import ProcessGroup


class SplitGuidance:
    """A transformer of whose batch (positive prompts, then negative ones) a rank computes its part, until `close`.

    A part pads its texts to its own longest, so a difference that DBCache records is that of the single process only
    where positive and negative prompts have equally many tokens after padding (to multiples of 32).
    """

    def __init__(self, transformer: Any, group: ProcessGroup) -> None:
        """`transformer`: diffusers' ZImageTransformer2DModel, called as its pipeline calls it with guidance."""
        self._group = group
        self._hooks = [
            transformer.register_forward_pre_hook(self._own_part, with_kwargs=True),
            transformer.register_forward_hook(self._all_parts),
        ]

    def close(self) -> None:
        """Leave the transformer as it was."""
        for hook in self._hooks:
            hook.remove()

    def _own_part(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        latents, timesteps, texts, *others = args
        samples, parts = len(latents), self._group.size()
        if samples % parts:
            raise ValueError(f"parallel.cfg_size={parts}: a batch of {samples} samples does not divide")
        begin = samples // parts * self._group.rank()
        own = slice(begin, begin + samples // parts)
        return (latents[own], timesteps[own], texts[own], *others), kwargs

    def _all_parts(self, _module: Any, _args: Any, output: tuple[list[torch.Tensor]]) -> tuple[list[torch.Tensor]]:
        own = torch.stack(output[0])
        whole = own.new_empty(own.shape[0] * self._group.size(), *own.shape[1:])
        dist.all_gather_into_tensor(whole, own, group=self._group)
        return (list(whole.unbind()),)
