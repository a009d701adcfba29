"""Text encoder and transformer over whole batches, as `ZImagePipeline` runs them one sample at a time.

`ZImageTransformer2DModel.forward` takes lists and prepares every sample with dozens of small kernels. Here captions of
a batch are padded to one length, a multiple of 32, which is what the model would pad each to; no mask is then
needed and all samples go through each block together. A test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PADDING_MULTIPLE = 32
"""To which the transformer pads captions and images (diffusers' SEQ_MULTI_OF)."""
PATCH = 2
SHIFT = 3.0
"""Of the noise levels towards noise, in training as in sampling."""


@dataclass(frozen=True)
class Captions:
    """Token ids and which of them are real, both captions × length, the length a multiple of 32."""

    ids: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> Captions:
        return Captions(self.ids.to(device, non_blocking=True), self.mask.to(device, non_blocking=True))

    def __len__(self) -> int:
        return len(self.ids)


def chat(tokenizer: Any, caption: str) -> str:
    """A caption as the pipeline hands it to the tokenizer."""
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": caption}], tokenize=False, add_generation_prompt=True, enable_thinking=True
    )
    return text


def tokenize(tokenizer: Any, captions: list[str]) -> Captions:
    """Padded to the longest caption's next multiple of 32."""
    texts = [chat(tokenizer, caption) for caption in captions]
    made = tokenizer(texts, padding=True, pad_to_multiple_of=PADDING_MULTIPLE, return_tensors="pt")
    return Captions(made.input_ids, made.attention_mask.bool())


def encode_text(text_encoder: Any, captions: Captions) -> Tensor:
    """Features of each token, captions × length × width: the hidden states before the last layer."""
    features: Tensor = text_encoder(
        input_ids=captions.ids, attention_mask=captions.mask, output_hidden_states=True
    ).hidden_states[-2]
    return features


def predict_velocity(transformer: Any, latents: Tensor, sigma: Tensor, features: Tensor, mask: Tensor) -> Tensor:
    """Velocity noise − image at `latents` (batch × 16 × height × width), of noise level `sigma` (batch, 0 to 1).

    `features` and `mask` are captions × length × width and captions × length. The transformer is told 1 − sigma and
    gives the negative velocity; both are the pipeline's conventions.
    """
    rows, columns = latents.shape[2] // PATCH, latents.shape[3] // PATCH
    if rows * columns % PADDING_MULTIPLE:
        raise ValueError(f"{rows} × {columns} patches are no multiple of {PADDING_MULTIPLE}")
    batch, length = mask.shape
    key = f"{PATCH}-1"
    timestep = transformer.t_embedder((1 - sigma) * transformer.t_scale).to(latents.dtype)

    image = transformer.all_x_embedder[key](_patches(latents))
    image_frequencies = _frequencies(transformer, _grid(1, rows, columns, length + 1, latents.device), batch)
    for block in transformer.noise_refiner:
        image = block(image, None, image_frequencies, timestep)

    caption = transformer.cap_embedder(features)
    caption = torch.where(mask[..., None], caption, transformer.cap_pad_token.to(caption.dtype))
    caption_frequencies = _frequencies(transformer, _grid(length, 1, 1, 1, latents.device), batch)
    for block in transformer.context_refiner:
        caption = block(caption, None, caption_frequencies)

    tokens = torch.cat([image, caption.to(image.dtype)], dim=1)
    frequencies = torch.cat([image_frequencies, caption_frequencies], dim=1)
    for block in transformer.layers:
        tokens = block(tokens, None, frequencies, timestep)
    out: Tensor = transformer.all_final_layer[key](tokens[:, : rows * columns], c=timestep)
    return -_unpatched(out, rows, columns)


def shifted(u: Tensor) -> Tensor:
    """Noise levels from evenly spread ones, both 0 to 1."""
    return SHIFT * u / (1 + (SHIFT - 1) * u)


def sampling_sigmas(steps: int) -> Tensor:
    """Noise levels of a sampler's steps and the final 0, steps + 1, descending; the pipeline's schedule."""
    return shifted(torch.linspace(1, 0, steps + 1))


def _grid(depth: int, rows: int, columns: int, start: int, device: torch.device) -> Tensor:
    """Position ids, tokens × 3."""
    axes = (torch.arange(start, start + depth), torch.arange(rows), torch.arange(columns))
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2).to(device)


def _frequencies(transformer: Any, positions: Tensor, batch: int) -> Tensor:
    frequencies: Tensor = transformer.rope_embedder(positions)
    return frequencies.expand(batch, *frequencies.shape)


def _patches(latents: Tensor) -> Tensor:
    """batch × channels × height × width to batch × tokens × (2 · 2 · channels)."""
    batch, channels, height, width = latents.shape
    split = latents.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return split.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, PATCH * PATCH * channels)


def _unpatched(tokens: Tensor, rows: int, columns: int) -> Tensor:
    """The inverse of `_patches`."""
    batch = len(tokens)
    split = tokens.reshape(batch, rows, columns, PATCH, PATCH, -1)
    return split.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, rows * PATCH, columns * PATCH)
