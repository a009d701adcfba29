"""Phases three and four: both modules learn together which velocity leads from noise to a caption's scene."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zbench.zimage.train.batches import CaptionBatches, ahead
from zbench.zimage.train.joint import Captions, encode_text, predict_velocity, sampling_sigmas, shifted
from zbench.zimage.train.loop import Phase, Session, learn


class Joint(nn.Module):
    """The two modules that learn together."""

    def __init__(self, text_encoder: nn.Module, transformer: nn.Module) -> None:
        super().__init__()
        self.text_encoder, self.transformer = text_encoder, transformer

    def forward(self, latents: Tensor, sigma: Tensor, captions: Captions) -> Tensor:
        """Velocity at noisy latents (batch × 16 × height × width) of noise level `sigma` (batch)."""
        return self.velocity(latents, sigma, encode_text(self.text_encoder, captions), captions.mask)

    def velocity(self, latents: Tensor, sigma: Tensor, features: Tensor, mask: Tensor) -> Tensor:
        """The same from the captions' features (batch × length × width)."""
        return predict_velocity(self.transformer, latents, sigma, features, mask)


def compile_blocks(joint: Joint) -> None:
    """Compile every block for any batch and length, in place: a minute once, then steps of half the time on a GPU."""
    torch._dynamo.config.recompile_limit = 64  # blocks of every kind are one function, learning or only asked
    transformer: Any = joint.transformer
    text_encoder: Any = joint.text_encoder
    for blocks in (text_encoder.layers, transformer.noise_refiner, transformer.context_refiner, transformer.layers):
        for block in blocks:
            block.compile(dynamic=True)


BatchLoss = Callable[[Tensor, Captions, torch.Generator], Tensor]
"""Mean loss over a batch, from its clean latents and captions."""


def train_joint(
    joint: Joint,
    latents: Tensor,
    batches: CaptionBatches,
    phase: Phase,
    session: Session,
    batch_loss: BatchLoss,
    on_save: Callable[[int, nn.Module], None],
) -> nn.Module:
    """The averaged modules after the phase. `latents` are those of the batches' scenes, scaled, on the device used."""
    device = latents.device
    generator = torch.Generator(device)
    batch_at = ahead(batches, phase.steps, session.workers)

    def loss_at(step: int) -> Tensor:
        generator.manual_seed(batches.seed * 1_000_003 + step)
        batch = batch_at(step)
        return batch_loss(latents[batch.scenes.to(device)].float(), batch.captions.to(device), generator)

    return learn(phase, joint, loss_at, session, on_save)


def flow_loss(joint: Joint) -> BatchLoss:
    """Squared error of the velocity at noise levels as dense as a sampler's steps are (rectified flow, shift 3)."""

    def loss(clean: Tensor, captions: Captions, generator: torch.Generator) -> Tensor:
        device = clean.device
        noise = torch.randn(clean.shape, generator=generator, device=device)
        sigma = shifted(torch.rand(len(clean), generator=generator, device=device))
        noisy = _mix(clean, noise, sigma)
        with torch.autocast(device.type, torch.bfloat16):
            velocity = joint(noisy, sigma, captions)
        error: Tensor = velocity.float() - (noise - clean)
        return error.square().mean()

    return loss


def few_step_loss(
    student: Joint, teacher: Joint, empty: Captions, steps: int, substeps: int, guidance: float
) -> BatchLoss:
    """Squared error of one sampler step against `substeps` smaller, guided ones of the teacher.

    Progressive distillation (Salimans and Ho, 2022) of a guided teacher (Meng et al., 2023): afterwards `steps`
    unguided steps go where steps · substeps guided ones went. `empty` is one empty caption.
    """
    grid = sampling_sigmas(steps)

    @torch.no_grad()
    def teach(noisy: Tensor, first: Tensor, last: Tensor, captions: Captions) -> Tensor:
        here = noisy
        with torch.autocast(noisy.device.type, torch.bfloat16):
            features = encode_text(teacher.text_encoder, captions)
            nothing = encode_text(teacher.text_encoder, empty).expand(len(noisy), -1, -1)
            no_mask = empty.mask.expand(len(noisy), -1)
            for k in range(substeps):
                sigma = first + (last - first) * k / substeps
                conditional = teacher.velocity(here, sigma, features, captions.mask).float()
                unconditional = teacher.velocity(here, sigma, nothing, no_mask).float()
                velocity = conditional + guidance * (conditional - unconditional)
                here = here + velocity * _wide((last - first) / substeps)
        return (here - noisy) / _wide(last - first)

    def loss(clean: Tensor, captions: Captions, generator: torch.Generator) -> Tensor:
        device = clean.device
        noise = torch.randn(clean.shape, generator=generator, device=device)
        index = torch.randint(steps, (len(clean),), generator=generator, device=device)
        first, last = grid.to(device)[index], grid.to(device)[index + 1]
        noisy = _mix(clean, noise, first)
        target = teach(noisy, first, last, captions)
        with torch.autocast(device.type, torch.bfloat16):
            velocity = student(noisy, first, captions)
        error: Tensor = velocity.float() - target
        return error.square().mean()

    return loss


@torch.no_grad()
def sample(joint: Joint, captions: Captions, shape: tuple[int, int, int], steps: int, seed: int) -> Tensor:
    """Scaled latents after `steps` unguided Euler steps from noise, captions × *shape."""
    device = captions.ids.device
    generator = torch.Generator(device).manual_seed(seed)
    latents = torch.randn((len(captions), *shape), generator=generator, device=device)
    sigmas = sampling_sigmas(steps).to(device)
    for here, there in itertools.pairwise(sigmas):
        with torch.autocast(device.type, torch.bfloat16):
            velocity = joint(latents, here.expand(len(latents)), captions)
        latents = latents + (there - here) * velocity.float()
    return latents


def _mix(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    return (1 - _wide(sigma)) * clean + _wide(sigma) * noise


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None, None]
