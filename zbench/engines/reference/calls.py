"""One call of diffusers' pipeline: what it is given and what came of it; it calls nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from zbench.config import PipelineConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Called(NamedTuple):
    """What came of one call of the pipeline."""

    images: list[NDArray[np.uint8]]
    latents: torch.Tensor  # of all images, as the last step left them
    finite: list[bool]  # of each image, before it was made into bytes
    told: dict[str, Any]  # the fields of a Generation that are the call's

    def spoilt(self, k: int) -> list[str]:
        """Why image k is none, as numbers say it before they are bytes."""
        seen = {"non_finite_latents": bool(torch.isfinite(self.latents[k]).all()), "non_finite_image": self.finite[k]}
        return [name for name, is_finite in seen.items() if not is_finite]


def call_arguments(pipeline: PipelineConfig, prompt_text: str, seed: int, negative_prompt: str = "") -> dict[str, Any]:
    """Arguments of one call of the pipeline, for that call alone: diffusers writes into a list of prompts.

    The noise is drawn on the CPU, so it is the same on every device; each image has a generator of its own, so the
    first is that of a call for one image.
    """
    batch = pipeline.batch_size
    negative = {"negative_prompt": negative_prompt if batch == 1 else [negative_prompt] * batch}
    return {
        "prompt": prompt_text if batch == 1 else [prompt_text] * batch,
        **(negative if negative_prompt else {}),
        "num_images_per_prompt": pipeline.images_per_prompt,
        "generator": [torch.Generator("cpu").manual_seed(seed + k) for k in range(pipeline.images)],
        **_common_arguments(pipeline),
    }


def batch_arguments(pipeline: PipelineConfig, calls: Sequence[tuple[str, int, str]]) -> dict[str, Any]:
    """Arguments of one call that makes an image for each prompt, seed and negative prompt."""
    negatives = [negative for _, _, negative in calls]
    return {
        "prompt": [prompt for prompt, _, _ in calls],
        **({"negative_prompt": negatives} if any(negatives) else {}),
        "generator": [torch.Generator("cpu").manual_seed(seed) for _, seed, _ in calls],
        **_common_arguments(pipeline),
    }


def _common_arguments(pipeline: PipelineConfig) -> dict[str, Any]:
    return {
        "height": pipeline.height,
        "width": pipeline.width,
        "num_inference_steps": pipeline.steps,
        "guidance_scale": pipeline.guidance_scale,
        "max_sequence_length": pipeline.max_sequence_length,
    }
