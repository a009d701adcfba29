"""One image from a pipeline, with or without DBCache, as the tests of this room make it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

STEPS = 8
DEFAULT_THRESHOLD = 0.24
"""SGLang's default `SGLANG_CACHE_DIT_RDT`, which Z-Image's users start from."""

SCENES = {
    "a large red circle in the center on a white background": "large red circle center; on white",
    "黑色背景上，左上角有一个大的蓝色正方形，下面写着文字“CAT”": "large blue square top-left; on black; word CAT",
    "a small blue star in the top right corner, a large cyan square on the left and a small purple diamond at the "
    'bottom on a gray background, with the word "STAR" below': (
        "small blue star top-right; large cyan square left; small purple diamond bottom; on gray; word STAR"
    ),
}
"""Prompt and what it asks for: short, Chinese and long."""
PROMPTS = tuple(SCENES)


def image(pipeline: Any, prompt: str, seed: int = 0, side: int = 256) -> np.ndarray:
    """Pixels in [0, 1], shape (side, side, 3)."""
    return pipeline(
        prompt,
        height=side,
        width=side,
        num_inference_steps=STEPS,
        guidance_scale=0.0,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
    ).images[0]


def cached_image(
    pipeline: Any, prompt: str, seed: int = 0, *, threshold: float, warmup: int
) -> tuple[np.ndarray, list[float], int]:
    """Pixels, the residual differences of the steps that were compared, and how many steps were cached."""
    import cache_dit

    config = cache_dit.DBCacheConfig(
        Fn_compute_blocks=1,
        Bn_compute_blocks=0,
        max_warmup_steps=warmup,
        residual_diff_threshold=threshold,
        max_continuous_cached_steps=3,
        num_inference_steps=STEPS,
    )
    cache_dit.enable_cache(pipeline, cache_config=config)
    try:
        pixels = image(pipeline, prompt, seed)
        summary = cache_dit.summary(pipeline, logging=False)[0]
    finally:
        cache_dit.disable_cache(pipeline)
    return pixels, [float(diff) for diff in summary.residual_diffs.values()], len(summary.cached_steps)


def psnr_db(one: np.ndarray, other: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((one - other) ** 2)))
