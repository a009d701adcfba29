"""Phase two: text encoder and transformer learn together which velocity leads from noise to a caption's scene."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from zbench.zimage.train.batches import Batch, CaptionBatches, stream
from zbench.zimage.train.joint import Captions, encode_text, predict_velocity, sampling_sigmas
from zbench.zimage.train.loop import Phase, Session, learn

SHIFT = 3.0
"""Of the noise levels, in training as in sampling."""


class Joint(nn.Module):
    """The two modules that learn together."""

    def __init__(self, text_encoder: nn.Module, transformer: nn.Module) -> None:
        super().__init__()
        self.text_encoder, self.transformer = text_encoder, transformer

    def forward(self, latents: Tensor, sigma: Tensor, captions: Captions) -> Tensor:
        """Velocity at noisy latents (batch × 16 × height × width) of noise level `sigma` (batch)."""
        features = encode_text(self.text_encoder, captions)
        return predict_velocity(self.transformer, latents, sigma, features, captions.mask)


BatchLoss = Callable[[Tensor, Captions, torch.Generator], Tensor]
"""Summed loss over a batch, from its clean latents and captions."""


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
    ahead = None

    def loss_at(step: int) -> Tensor:
        nonlocal ahead
        if ahead is None:
            ahead = stream(batches, range(step, phase.steps), session.workers)
        generator.manual_seed(batches.seed * 1_000_003 + step)
        parts: list[Batch] = next(ahead)
        losses = [
            batch_loss(latents[part.scenes.to(device)].float(), part.captions.to(device), generator) for part in parts
        ]
        return torch.stack(losses).sum() / sum(len(part.captions) for part in parts)

    return learn(phase, joint, loss_at, session, on_save)


def flow_loss(joint: Joint) -> BatchLoss:
    """Squared error of the velocity at noise levels as dense as a sampler's steps are (rectified flow, shift 3)."""

    def loss(clean: Tensor, captions: Captions, generator: torch.Generator) -> Tensor:
        device = clean.device
        noise = torch.randn(clean.shape, generator=generator, device=device)
        u = torch.rand(len(clean), generator=generator, device=device)
        sigma = SHIFT * u / (1 + (SHIFT - 1) * u)
        noisy = _mix(clean, noise, sigma)
        with torch.autocast(device.type, torch.bfloat16):
            velocity = joint(noisy, sigma, captions)
        error: Tensor = velocity.float() - (noise - clean)
        return error.square().mean(dim=(1, 2, 3)).sum()

    return loss


def few_step_loss(
    student: Joint, teacher: Joint, empty: Captions, steps: int, substeps: int, guidance: float
) -> BatchLoss:
    """Squared error of one sampler step against `substeps` smaller, guided ones of the teacher.

    Progressive distillation (Salimans and Ho, 2022) of a guided teacher (Meng et al., 2023): afterwards `steps`
    unguided steps go where steps · substeps guided ones went. `empty` is one empty caption.
    """
    grid = sampling_sigmas(steps, SHIFT)

    @torch.no_grad()
    def teach(noisy: Tensor, first: Tensor, last: Tensor, captions: Captions) -> Tensor:
        here = noisy
        without = Captions(empty.ids.expand(len(noisy), -1), empty.mask.expand(len(noisy), -1))
        for k in range(substeps):
            sigma = first + (last - first) * k / substeps
            with torch.autocast(noisy.device.type, torch.bfloat16):
                conditional = teacher(here, sigma, captions).float()
                unconditional = teacher(here, sigma, without).float()
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
        return error.square().mean(dim=(1, 2, 3)).sum()

    return loss


@torch.no_grad()
def sample(joint: Joint, captions: Captions, shape: tuple[int, int, int], steps: int, seed: int) -> Tensor:
    """Scaled latents after `steps` unguided Euler steps from noise, captions × *shape."""
    device = captions.ids.device
    generator = torch.Generator(device).manual_seed(seed)
    latents = torch.randn((len(captions), *shape), generator=generator, device=device)
    sigmas = sampling_sigmas(steps, SHIFT).to(device)
    for here, there in itertools.pairwise(sigmas):
        with torch.autocast(device.type, torch.bfloat16):
            velocity = joint(latents, here.expand(len(latents)), captions)
        latents = latents + (there - here) * velocity.float()
    return latents


def _mix(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    return (1 - _wide(sigma)) * clean + _wide(sigma) * noise


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None, None]
