"""A batch of several requests makes the image that each makes alone, up to what sums in another order round."""

from dataclasses import replace

import numpy as np
import pytest
from factories import TINY, TURBO, trial

from zbench.config import CacheConfig, ComputeConfig, DBCacheConfig, ParallelConfig, SCMConfig
from zbench.engines import Batched
from zbench.engines.reference import ReferenceEngine
from zbench.engines.reference.pipeline import ReferencePipeline

SMALL = replace(TINY, height=64, width=96, steps=8)
LONG = "three small blue squares above a green star and the word CAT in yellow " * 3
CALLS = [("a large red circle", 3, ""), (LONG, 4, ""), ("a star", 5, "")]
FORCED = SCMConfig(scm_preset="fast", scm_policy="static")
EXACT = ComputeConfig(device="cpu", dtype="float32")


def latents_and_images(cache: CacheConfig, **pipeline: float) -> list[tuple[float, int, bool]]:
    """Of each request, together and alone: how far latents lie apart, relative, and images, in levels; same steps."""
    negative = "blurry" if pipeline else ""
    calls = [(prompt, seed, negative if seed == 4 else "") for prompt, seed, _ in CALLS]
    wanted = trial(cache, pipeline=replace(SMALL, **pipeline), compute=EXACT)
    engine = ReferencePipeline()
    engine.launch(wanted)
    try:
        engine.configure(wanted)
        together = engine.generate_batch(calls)
        pairs = [(made, engine.generate(*call)) for made, call in zip(together, calls, strict=True)]
    finally:
        engine.close()
    seen = []
    for made, alone in pairs:
        assert made.text_tokens == alone.text_tokens and made.images == 1 and not made.invalid_reasons
        assert made.latents is not None and alone.latents is not None
        relative = float(np.abs(made.latents - alone.latents).max() / np.abs(alone.latents).max())
        levels = int(np.abs(made.image.astype(int) - alone.image).max())
        seen.append((relative, levels, made.cached_steps == alone.cached_steps))
    return seen


@pytest.mark.parametrize(
    ("cache", "pipeline"),
    [
        (CacheConfig(), {}),
        (SCMConfig(scm_preset="fast", scm_policy="static"), {}),
        (CacheConfig(), {"guidance_scale": 3.0}),
    ],
    ids=["every step", "forced mask", "guided"],
)
def test_prompts_of_any_length_share_a_batch_up_to_rounding(cache: CacheConfig, pipeline: dict[str, float]) -> None:
    """float32 has 24 bits: 1e-4 of the largest value after 8 steps is rounding, and at most one level of 255."""
    for relative, levels, same_steps in latents_and_images(cache, **pipeline):
        assert relative < 1e-4 and levels <= 1 and same_steps


def test_a_threshold_looks_at_the_whole_batch_and_skips_other_steps() -> None:
    """Which is why the server makes such requests alone."""
    seen = latents_and_images(DBCacheConfig(max_warmup_steps=1, residual_diff_threshold=0.4))
    assert not all(same_steps for *_, same_steps in seen)


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ({}, None),
        ({"compute": ComputeConfig(compile=True)}, "compute.compile=true"),
        ({"compute": ComputeConfig(graphs="all")}, "compute.graphs=all"),
        ({"compute": ComputeConfig(attention_backend="flash")}, "compute.attention_backend=flash: takes no mask"),
        ({"parallel": ParallelConfig(gather_size=2)}, "parallel: 2 devices"),
    ],
)
def test_what_makes_one_at_a_time_is_named(groups: dict[str, object], says: str | None) -> None:
    problem = ReferenceEngine().batching_problem(trial(pipeline=TURBO, **groups))
    assert (says is None and problem is None) or (says is not None and says in str(problem))
    assert isinstance(ReferenceEngine().engine(), Batched)
