"""Deterministic random weights on which step caching behaves as on trained ones; it reads and writes no file.

With the usual random weights DBCache's residual difference is near 0.75 at every step (measured on an H100 in
Z-Image-Turbo's geometry), so no realistic threshold ever fires. Two things cause it: the timestep's embedding, half of
whose sinusoids turn by more than a radian between steps, drives the modulation; and the predicted velocity has nothing
to do with the latent, so the latent jumps. Both are put right here, for any geometry:

- Gates have a bias, `GATE_TOTAL` shared out over the main blocks, and the timestep moves them only by about
  `TIMESTEP_SWING` of it; scales likewise. The first block's residual then drifts from step to step instead of being
  drawn anew.
- The final layer is the transpose of the image embedder times `-CONTRACTION`, plus `INVENTION` times random weights. A
  sampler step therefore shrinks the noise, which leaves directions alone, and adds what the blocks made of it and of
  the prompt, which turns them. How fast they turn sets the residual difference: it grows from step to step, because the
  flow's shift makes the last steps the longest.
- Queries and keys are normalised to `SHARPNESS` rather than 1, so that attention tells tokens apart: the velocity
  depends on the prompt and on neighbouring tokens, not on one average.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

GATE_TOTAL = 1.1
TIMESTEP_SWING = 0.1
CONTRACTION = 0.7
INVENTION = 0.4
SHARPNESS = 1.5


def fill_transformer(transformer: nn.Module, generator: torch.Generator) -> None:
    """Overwrite every parameter of a `ZImageTransformer2DModel` in place; the generator must be on its device."""
    fill(transformer, generator)
    gate = GATE_TOTAL * len(cast(nn.ModuleList, transformer.layers)) ** -0.5
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if name.endswith(("norm_q.weight", "norm_k.weight")):
                parameter.fill_(SHARPNESS)
            elif "adaLN_modulation" in name and name.endswith("weight"):
                parameter.mul_(TIMESTEP_SWING * gate)
            elif name.endswith("adaLN_modulation.0.bias"):
                # Scale and gate of attention, then scale and gate of the feed-forward; gates pass a tanh.
                _, gate_attention, _, gate_feed_forward = parameter.chunk(4)
                gate_attention.fill_(gate)
                gate_feed_forward.fill_(gate)
        for key, embedder in cast(nn.ModuleDict, transformer.all_x_embedder).items():
            final = cast(nn.ModuleDict, transformer.all_final_layer)[key]
            _contract(cast(Tensor, embedder.weight), cast(nn.Linear, final.linear).weight)


def _contract(embedder: Tensor, final: Tensor) -> None:
    """Make `final` (patch, dim) read back, with the opposite sign, what `embedder` (dim, patch) wrote."""
    pseudo_inverse = embedder.T / embedder.float().pow(2).sum(0).mean()
    final.mul_(INVENTION).sub_(CONTRACTION * pseudo_inverse)


def fill(module: nn.Module, generator: torch.Generator) -> None:
    """Overwrite every parameter in place: weights N(0, 1/fan_in), embeddings N(0, 1), norms one, biases zero."""
    with torch.no_grad():
        for parent in module.modules():
            for name, parameter in parent.named_parameters(recurse=False):
                if name == "bias" or name.endswith("pad_token"):
                    parameter.zero_()
                elif parameter.ndim == 1:
                    parameter.fill_(1.0)
                elif isinstance(parent, nn.Embedding):
                    parameter.normal_(generator=generator)
                else:
                    parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
