"""Phase one: an AutoencoderKL that gives scenes back, and the scale of its latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zbench.zimage.scenes.draw import draw
from zbench.zimage.scenes.world import Scene
from zbench.zimage.train.batches import make_scenes
from zbench.zimage.train.loop import Phase, Session, learn

KL_WEIGHT = 1e-3
"""Of the divergence of a latent value from N(0, 1), against the error of a pixel."""
LATENT_NOISE = 0.05
"""Standard deviation of noise on the latents that the decoder learns from, in shares of their own: what a sampler gives
is never exactly what the encoder gave."""
ENCODE_BATCH = 256


def to_unit(images: Tensor) -> Tensor:
    """uint8 images × height × width × 3 to float × 3 × height × width in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last) / 127.5 - 1


def train_autoencoder(vae: Any, phase: Phase, seed: int, session: Session) -> Any:
    """The averaged autoencoder, its config's scaling and shift factors set to those of its latents."""
    device = next(vae.parameters()).device
    generator = torch.Generator(device)

    def loss_at(step: int) -> Tensor:
        generator.manual_seed(seed * 1_000_003 + step)
        scenes = make_scenes(phase.batch, "train", seed * 1_000_003 + step)
        images = to_unit(draw(scenes, step, device))
        with torch.autocast(device.type, torch.bfloat16):
            posterior = vae.encode(images).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator, device=device)
            spread = posterior.std + LATENT_NOISE * posterior.mean.detach().std()
            decoded = vae.decode(posterior.mean + spread * noise).sample
        error: Tensor = decoded.float() - images
        divergence = posterior.kl().mean() / posterior.mean[0].numel()
        loss: Tensor = error.abs().mean() + error.square().mean() + KL_WEIGHT * divergence
        return loss

    learned: Any = learn(phase, vae, loss_at, session)
    latents = encode(learned, make_scenes(min(512, 4 * phase.steps), "train", seed), seed)
    learned.register_to_config(
        scaling_factor=round(1 / float(latents.std()), 4), shift_factor=round(float(latents.mean()), 4)
    )
    return learned


@torch.no_grad()
def encode(vae: Any, scenes: Sequence[Scene], seed: int) -> Tensor:
    """Mean latents of drawn scenes, unscaled, scenes × 16 × 32 × 32, bf16 on the autoencoder's device."""
    device = next(vae.parameters()).device
    chunks = []
    for start in range(0, len(scenes), ENCODE_BATCH):
        images = to_unit(draw(scenes[start : start + ENCODE_BATCH], seed * 1_000_003 + start, device))
        with torch.autocast(device.type, torch.bfloat16):
            chunks.append(vae.encode(images).latent_dist.mean.to(torch.bfloat16))
    return torch.cat(chunks)


def scaled(vae: Any, latents: Tensor) -> Tensor:
    """Latents as the transformer sees them, of about unit variance."""
    values: Tensor = (latents.float() - vae.config.shift_factor) * vae.config.scaling_factor
    return values


@torch.no_grad()
def decode(vae: Any, latents: Tensor) -> Tensor:
    """Scaled latents to uint8 images × height × width × 3."""
    with torch.autocast(latents.device.type, torch.bfloat16):
        images: Tensor = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor).sample
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
