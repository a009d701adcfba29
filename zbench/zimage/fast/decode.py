"""The VAE's decode in the layout that convolutions are fastest in, and compiled.

An H100's convolutions want channels last; GroupNorm, as torch has it, does not, and copies there and back, so that
layout alone is slower than none. Compiled, norms and activations are one kernel and the layout stays. Of 1024²: 92 ms
as it is, 143 with channels last and autotuned convolutions, 38 compiled as well. Its one attention is made of matmuls.

`vae.decode` is left alone: tiles and slices call the decoder as they do, hooks and clocks stay around it. So do a split
over ranks and an offload that fetches the VAE whole; what hooks modules inside the decoder breaks compiled code apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from zbench.zimage.fast.shapes import compiled as compiled_by_shape
from zbench.zimage.fast.shapes import each_shape
from zbench.zimage.fast.stand_in import Undo, stand_in, undoing
from zbench.zimage.fast.wide_attention import WideHeadAttnProcessor, fits

MODES = ("eager", "channels_last", "compiled")


def speed_decode(vae: Any, mode: str) -> Undo:
    """Decode by `mode`, one of `MODES`, in `vae`, a diffusers `AutoencoderKL`, until the result is called.

    `compiled`: the decoder is one graph for each shape of latents, a tile's among them. To capture a CUDA graph of,
    `vae.decoder` is the module, as before. Raises ValueError for another mode.
    """
    if mode not in MODES:
        raise ValueError(f"decode={mode}: must be one of {', '.join(MODES)}")
    if mode == "eager":
        return undoing([])
    decoder = vae.decoder
    tuned = mode == "compiled"
    run: Callable[..., Any] = compiled_by_shape(decoder.forward, whole=False) if tuned else decoder.forward

    def forward(latents: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Batch × 3 × height × width, rows first in memory, of latents (batch × channels × h × w)."""
        with _autotuned() if tuned else nullcontext(), each_shape() if tuned else nullcontext():
            made = run(latents.contiguous(memory_format=torch.channels_last), *args, **kwargs)
        return made.contiguous()

    attention = [_by_matmuls(decoder)] if tuned else []
    return undoing([_weights_last(decoder), *attention, stand_in(decoder, "forward", forward)])


def _weights_last(decoder: Any) -> Undo:
    decoder.to(memory_format=torch.channels_last)
    return lambda: decoder.to(memory_format=torch.contiguous_format)


def _by_matmuls(decoder: Any) -> Undo:
    attentions = [one for one in decoder.mid_block.attentions if one is not None and fits(one)]
    own = [one.processor for one in attentions]
    for one in attentions:
        one.set_processor(WideHeadAttnProcessor())

    def undo() -> None:
        for one, processor in zip(attentions, own, strict=True):
            one.set_processor(processor)

    return undo


@contextmanager
def _autotuned() -> Iterator[None]:
    """cuDNN tries its algorithms for each new shape; the switch is the whole process's, and is put back."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
