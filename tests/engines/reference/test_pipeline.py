"""The real engine on the tiny pipeline, loaded once, at 128×128: what is claimed does not depend on the size."""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from factories import TINY, trial

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")

from zbench.config import CacheConfig, ComputeConfig, DBCacheConfig, OffloadConfig, SCMConfig
from zbench.engines.reference.calls import call_arguments
from zbench.engines.reference.pipeline import ReferencePipeline
from zbench.errors import ConfigError
from zbench.probes.watched import Watched
from zbench.trial import Trial

SMALL = replace(TINY, height=128, width=128)
PROMPT = "a large red circle on a white background"
FORCED = SCMConfig(max_warmup_steps=0, max_continuous_cached_steps=-1, scm_policy="static", scm_preset="ultra")


def small(cache: CacheConfig, steps: int = SMALL.steps) -> Trial:
    return trial(cache, pipeline=replace(SMALL, steps=steps))


@pytest.fixture(scope="module")
def loaded(one_thread: None) -> Iterator[ReferencePipeline]:
    engine = ReferencePipeline()
    engine.launch(trial(pipeline=SMALL))
    yield engine
    engine.close()


@pytest.fixture
def engine(loaded: ReferencePipeline) -> Iterator[ReferencePipeline]:
    """Uncached after each test: cache-dit marks the class, and some tests make a second pipeline of it."""
    yield loaded
    loaded.configure(small(CacheConfig()))


def test_pipeline_that_was_cached_and_is_not_gives_the_very_same_output(engine: ReferencePipeline) -> None:
    engine.configure(small(CacheConfig()))
    before = engine.generate(PROMPT, 0)
    for threshold in (0.1, 0.4, 1.5):
        engine.configure(small(DBCacheConfig(max_warmup_steps=1, residual_diff_threshold=threshold)))
        engine.generate(PROMPT, 0)
        engine.configure(small(CacheConfig()))
        after = engine.generate(PROMPT, 0)
        assert after.latents is not None and before.latents is not None
        assert np.array_equal(after.image, before.image) and np.array_equal(after.latents, before.latents)


def test_output_is_what_the_bare_pipeline_makes(engine: ReferencePipeline) -> None:
    engine.configure(small(CacheConfig()))
    made = engine.generate(PROMPT, 3)
    bare = engine.pipe(**call_arguments(SMALL, PROMPT, 3), output_type="latent").images[0]
    assert made.latents is not None and np.array_equal(made.latents, bare.numpy())
    assert made.image.shape == (128, 128, 3) and made.image.dtype == np.uint8


def test_new_setting_replaces_the_one_before(engine: ReferencePipeline) -> None:
    """cache-dit ignores a second enable; were it not switched off between, the masks would not change."""
    engine.configure(small(FORCED))
    assert engine.generate(PROMPT, 0).cached_steps == [2, 3, 5, 6]  # cache-dit's ultra at 8 steps: 11001001
    engine.configure(small(replace(FORCED, scm_preset="slow")))
    assert engine.generate(PROMPT, 0).cached_steps == [5]  # slow: 11111011
    assert engine.effective().cache["steps_computation_mask"] == [1, 1, 1, 1, 1, 0, 1, 1]


@pytest.mark.parametrize("mask", ["10000000", "11010010", "10111110"])
def test_a_mask_of_ones_own_computes_exactly_its_steps_the_last_one_too(mask: str, engine: ReferencePipeline) -> None:
    engine.configure(small(replace(FORCED, steps_mask=mask)))
    skipped = [step for step, digit in enumerate(mask) if digit == "0"]
    assert engine.generate(PROMPT, 0).cached_steps == skipped


CACHES = {
    "none": CacheConfig(),
    "dbcache": DBCacheConfig(max_warmup_steps=2, residual_diff_threshold=0.3, max_continuous_cached_steps=-1),
    "forced": FORCED,
    "taylorseer": replace(FORCED, enable_taylorseer=True),
}


@pytest.mark.parametrize("name", CACHES)
def test_steps_change_without_loading_and_make_the_images_of_a_fresh_load(name: str, engine: ReferencePipeline) -> None:
    cache = CACHES[name]
    engine.configure(small(cache, steps=8))
    engine.generate(PROMPT, 0)
    engine.configure(small(cache, steps=10))
    switched = [engine.generate(PROMPT, 0), engine.generate(PROMPT, 1)]
    assert engine.effective().steps == 10 and len(switched[0].steps_s) == 10
    engine.configure(small(CacheConfig()))  # cache-dit marks the class, so the next pipeline needs it off
    fresh = ReferencePipeline()
    fresh.launch(small(cache, steps=10))
    fresh.configure(small(cache, steps=10))
    for seed, made in enumerate(switched):
        wanted = fresh.generate(PROMPT, seed)
        assert made.latents is not None and wanted.latents is not None
        assert np.array_equal(made.image, wanted.image) and np.array_equal(made.latents, wanted.latents)
        assert (made.cached_steps, made.residual_diffs) == (wanted.cached_steps, wanted.residual_diffs)
    assert name == "none" or switched[0].cached_steps
    fresh.close()


def test_on_a_host_gauges_watch_this_process_alone(engine: ReferencePipeline) -> None:
    assert engine.watch() == Watched((os.getpid(),))


def test_skipped_steps_are_those_under_the_threshold(engine: ReferencePipeline) -> None:
    cache = DBCacheConfig(max_warmup_steps=2, residual_diff_threshold=0.3, max_continuous_cached_steps=-1)
    engine.configure(small(cache))
    made = engine.generate(PROMPT, 0)
    assert set(made.residual_diffs) == {str(step) for step in range(2, 8)}, "every step after the warm-up is judged"
    assert made.cached_steps == [step for step in range(2, 8) if made.residual_diffs[str(step)] < 0.3]


def test_threshold_of_one_or_more_leaves_no_made_up_differences(engine: ReferencePipeline) -> None:
    engine.configure(
        small(DBCacheConfig(max_warmup_steps=2, residual_diff_threshold=2.0, max_continuous_cached_steps=-1))
    )
    made = engine.generate(PROMPT, 0)
    assert made.cached_steps == [2, 3, 4, 5, 6, 7]
    assert made.residual_diffs == {}  # cache-dit notes −1 for a comparison that it did not make


def test_uncached_pipeline_reports_no_skipping(engine: ReferencePipeline) -> None:
    engine.configure(small(CacheConfig()))
    made = engine.generate(PROMPT, 0)
    assert (made.cached_steps, made.residual_diffs, engine.effective().cache) == ([], {}, {})


def test_taylorseer_is_calibrated_and_changes_the_image(engine: ReferencePipeline) -> None:
    plain = replace(FORCED, scm_preset="medium")
    engine.configure(small(plain))
    reused = engine.generate(PROMPT, 0)
    engine.configure(small(replace(plain, enable_taylorseer=True, taylorseer_order=2)))
    extrapolated = engine.generate(PROMPT, 0)
    assert engine.effective().cache["calibrator"] == "T1O2"
    assert extrapolated.cached_steps == reused.cached_steps
    assert not np.array_equal(extrapolated.image, reused.image)


def test_stages_lie_within_the_latency_and_steps_within_denoising(engine: ReferencePipeline) -> None:
    engine.configure(small(CacheConfig()))
    made = engine.generate(PROMPT, 0)
    assert set(made.stages_s) == {"text_encode", "denoise", "decode"}
    assert all(seconds > 0 for seconds in made.stages_s.values())
    assert sum(made.stages_s.values()) <= made.latency_s
    assert len(made.steps_s) == SMALL.steps and sum(made.steps_s) <= made.stages_s["denoise"]


def test_too_many_blocks_are_one_clear_error(engine: ReferencePipeline) -> None:
    with pytest.raises(ConfigError, match=r"cache\.Fn_compute_blocks\+cache\.Bn_compute_blocks=8\+3: .* 10 blocks"):
        engine.configure(small(DBCacheConfig(Fn_compute_blocks=8, Bn_compute_blocks=3)))
    engine.configure(small(DBCacheConfig(Fn_compute_blocks=8, Bn_compute_blocks=2)))  # all of them is allowed


def test_effective_settings_say_what_ran(engine: ReferencePipeline) -> None:
    engine.configure(small(DBCacheConfig(max_warmup_steps=2, residual_diff_threshold=0.12)))
    effective = engine.effective()
    assert effective.n_blocks == 10 and effective.weights == "preset" and effective.threads >= 1
    assert effective.cache["residual_diff_threshold"] == 0.12 and effective.cache["max_warmup_steps"] == 2


def test_closing_takes_every_wrapper_off() -> None:
    engine = ReferencePipeline()
    engine.launch(trial(pipeline=SMALL))
    pipe = engine.pipe
    engine.configure(small(DBCacheConfig()))
    engine.close()
    assert "encode_prompt" not in vars(pipe) and "decode" not in vars(pipe.vae)
    assert not pipe.transformer._forward_hooks and not pipe.transformer._forward_pre_hooks
    assert "forward" not in vars(pipe.transformer)


@pytest.mark.parametrize(
    ("groups", "key"),
    [
        ({"compute": ComputeConfig(attention_backend="nope")}, "compute.attention_backend"),
        ({"cache": SCMConfig(), "pipeline": replace(SMALL, steps=5)}, "cache.scm_preset"),
    ],
)
def test_settings_that_cannot_run_are_refused_by_key(groups: dict[str, Any], key: str) -> None:
    of = trial(**{"pipeline": SMALL, **groups})
    engine = ReferencePipeline()
    with pytest.raises(ConfigError) as raised:
        engine.launch(of)
        engine.configure(of)
    assert raised.value.key == key
    engine.close()


def test_group_offload_makes_the_same_image_and_survives_the_cache(engine: ReferencePipeline) -> None:
    offloaded = ReferencePipeline()
    of = trial(pipeline=SMALL, offload=OffloadConfig(mode="group", num_blocks_per_group=4))
    caches = (CacheConfig(), FORCED, CacheConfig())
    expected = []
    for cache in caches:  # one after the other: cache-dit marks the class that both pipelines have
        engine.configure(small(cache))
        expected.append(engine.generate(PROMPT, 0).image)
    offloaded.launch(of)
    for cache, image in zip(caches, expected, strict=True):
        offloaded.configure(small(cache))
        assert np.array_equal(offloaded.generate(PROMPT, 0).image, image)
    offloaded.close()
