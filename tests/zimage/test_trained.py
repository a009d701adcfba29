"""Claims about the trained tiny pipeline: it paints what is asked, and cache thresholds mean something to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny_images import DEFAULT_THRESHOLD, PROMPTS, SCENES, STEPS, cached_image, image, psnr_db

from zbench.zimage.scenes.read import compare, read_scene
from zbench.zimage.scenes.world import parse_scene

NEVER_FIRES = 1e-4
"""A threshold below every difference: cache-dit compares all steps after the first and caches none."""


@pytest.fixture(scope="module")
def uncached(tiny: Any) -> dict[str, np.ndarray]:
    return {prompt: image(tiny, prompt) for prompt in PROMPTS}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_an_image_holds_what_its_prompt_asks_for(uncached: dict[str, np.ndarray], prompt: str) -> None:
    found = read_scene((uncached[prompt] * 255).round().astype(np.uint8))
    assert [str(a) for a in compare(parse_scene(SCENES[prompt]), found) if not a.right] == []


def test_images_follow_prompt_and_seed(tiny: Any, uncached: dict[str, np.ndarray]) -> None:
    """30 dB is what a lossy copy of the same picture has; other pictures must be further apart."""
    first, second, third = (uncached[prompt] for prompt in PROMPTS)
    assert psnr_db(first, second) < 30
    assert psnr_db(first, third) < 30
    assert psnr_db(first, image(tiny, PROMPTS[0], seed=1)) < 30


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_residual_differences_grow_and_shrink_as_a_trained_models_do(tiny: Any, prompt: str, seed: int) -> None:
    """Between 0.05 and 0.5, so that a threshold that users try (0.12) separates some steps from others."""
    _, diffs, cached = cached_image(tiny, prompt, seed, threshold=NEVER_FIRES, warmup=1)
    assert (len(diffs), cached) == (STEPS - 1, 0)
    assert all(0.05 < diff < 0.5 for diff in diffs)
    assert min(diffs) < 0.12 < max(diffs)


def test_a_higher_threshold_caches_more_steps_and_strays_further(tiny: Any, uncached: dict[str, np.ndarray]) -> None:
    """0.08 to 0.4 spans the published settings; each cached step replaces a residual by an older one."""
    counts, psnrs = [], []
    for threshold in (0.08, DEFAULT_THRESHOLD, 0.4):
        pixels, _, cached = cached_image(tiny, PROMPTS[0], threshold=threshold, warmup=2)
        counts.append(cached)
        if cached:
            psnrs.append(psnr_db(pixels, uncached[PROMPTS[0]]))
    assert counts == sorted(set(counts)), "three thresholds, three different counts"
    assert psnrs == sorted(psnrs, reverse=True)
    assert all(15 < psnr < 60 for psnr in psnrs)


def test_the_default_threshold_fires(tiny: Any) -> None:
    """Four warm-up steps are SGLang's default."""
    for prompt in PROMPTS:
        _, _, cached = cached_image(tiny, prompt, threshold=DEFAULT_THRESHOLD, warmup=4)
        assert cached >= 1


def test_disabling_the_cache_gives_the_uncached_image_again(tiny: Any, uncached: dict[str, np.ndarray]) -> None:
    """One resident pipeline serves a whole sweep only if nothing of a trial's cache stays behind."""
    cached_image(tiny, PROMPTS[0], threshold=0.4, warmup=2)
    assert np.array_equal(image(tiny, PROMPTS[0]), uncached[PROMPTS[0]])
