"""Says between a phase's steps how well its weights paint, and keeps the best."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import save_file

from zbench.zimage.evaluate import scenes_with_captions, tally
from zbench.zimage.scenes.captions import LANGUAGES
from zbench.zimage.train.autoencoder import decode
from zbench.zimage.train.batches import by_length
from zbench.zimage.train.flow import sample
from zbench.zimage.train.joint import tokenize
from zbench.zimage.train.recipe import Recipe


class Validation:
    """Paints validation captions with the sampler; keeps in `best` the last weights whose images are read best."""

    def __init__(self, vae: Any, tokenizer: Any, recipe: Recipe, console: Console, best: Path | None = None) -> None:
        self.vae, self.tokenizer, self.recipe, self.console, self.best = vae, tokenizer, recipe, console, best

    def is_best(self, share: float) -> bool:
        """Whether no weights kept so far got a greater share of attributes right; False without a file to keep them."""
        if self.best is None or not self.best.is_file():
            return self.best is not None
        with safe_open(self.best, framework="pt") as file:
            return share >= float(file.metadata()["share"])

    def __call__(self, step: int, joint: Any) -> None:
        """Judge the weights of a checkpoint."""
        device = next(joint.parameters()).device
        shares = []
        for language in LANGUAGES:
            asked = scenes_with_captions(self.recipe.validation_scenes, "validation", language, 0)
            images: dict[int, NDArray[np.uint8]] = {}
            texts = tokenize(self.tokenizer, [text for _, text in asked])
            for part in by_length(torch.arange(len(asked)), texts):
                latents = sample(joint, part.captions.to(device), (16, 32, 32), self.recipe.forwards, seed=0)
                painted = decode(self.vae, latents).cpu().numpy()
                images.update(zip(part.scenes.tolist(), painted, strict=True))
            shares.append(tally([scene for scene, _ in asked], [images[i] for i in range(len(asked))]))
        share = sum(t.share() for t in shares) / len(shares)
        rates = {kind: sum(t.rates()[kind] for t in shares) / len(shares) for kind in shares[0].rates()}
        kept = self.is_best(share)
        if self.best and kept:
            tensors = {name: tensor.contiguous() for name, tensor in joint.state_dict().items()}
            partial = self.best.with_name(self.best.name + ".partial")
            save_file(tensors, partial, metadata={"share": str(share), "step": str(step)})
            os.replace(partial, self.best)
        self.console.print(
            f"validation at {step}: {100 * share:.1f} % of attributes right"
            + (", none better so far" if kept else "")
            + "".join(f", {kind} {100 * rate:.1f} %" for kind, rate in rates.items()),
            highlight=False,
        )
