"""What a plan says before anything has run, held to cache-dit: equal settings skip the same steps and make the same
images, and what is not claimed to be equal would have been claimed wrongly."""

import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from factories import TINY, trial

os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")

from zbench.config import CacheConfig, DBCacheConfig, SCMConfig
from zbench.engines import Generation
from zbench.engines.reference import ReferenceEngine
from zbench.engines.reference.pipeline import ReferencePipeline
from zbench.methods.cache import method_of
from zbench.trial import geometry_of

SMALL = replace(TINY, height=128, width=128)
BLOCKS = geometry_of(SMALL).transformer.n_layers
EAGER = DBCacheConfig(max_warmup_steps=2, residual_diff_threshold=0.8, max_continuous_cached_steps=-1)
"""It skips all that it may."""
MASK = SCMConfig(max_warmup_steps=0, max_continuous_cached_steps=-1, scm_preset="ultra", residual_diff_threshold=0.8)
OWN_MASK = replace(MASK, scm_preset="medium", steps_mask="11001001", residual_diff_threshold=100.0)
FORCED = replace(MASK, scm_policy="static")


@pytest.fixture(scope="module")
def loaded(one_thread: None) -> Iterator[ReferencePipeline]:
    engine = ReferencePipeline()
    engine.launch(trial(pipeline=SMALL))
    yield engine
    engine.close()


def twice(engine: ReferencePipeline, cache: CacheConfig) -> list[Generation]:
    """Two images, for what is left of the first one may show in the second."""
    engine.configure(trial(cache, pipeline=SMALL))
    made = [engine.generate("a large red circle on a white background", seed) for seed in (0, 1)]
    engine.configure(trial(CacheConfig(), pipeline=SMALL))
    return made


def alike(one: list[Generation], other: list[Generation]) -> bool:
    pairs = list(zip(one, other, strict=True))
    same = [a.latents is not None and b.latents is not None and np.array_equal(a.latents, b.latents) for a, b in pairs]
    return all(same) and all(np.array_equal(a.image, b.image) for a, b in pairs)


IDLE = [
    replace(EAGER, max_warmup_steps=8),
    replace(EAGER, max_warmup_steps=20, enable_taylorseer=True, taylorseer_order=2),
    replace(EAGER, residual_diff_threshold=0.0),
    replace(MASK, residual_diff_threshold=0.0),
    replace(EAGER, Fn_compute_blocks=BLOCKS),
    replace(EAGER, Fn_compute_blocks=BLOCKS - 1, Bn_compute_blocks=1, enable_taylorseer=True),
    replace(FORCED, Fn_compute_blocks=1, Bn_compute_blocks=BLOCKS - 1),
]


@pytest.mark.parametrize("cache", IDLE, ids=lambda cache: method_of(cache).label)
def test_what_is_said_to_skip_nothing_makes_the_uncached_images(
    loaded: ReferencePipeline, cache: DBCacheConfig
) -> None:
    plain, why = method_of(cache).plainest(BLOCKS, 8)
    assert plain == CacheConfig() and why
    made = twice(loaded, cache)
    assert alike(made, twice(loaded, CacheConfig()))
    computes_all = cache.Fn_compute_blocks + cache.Bn_compute_blocks == BLOCKS
    assert computes_all or all(one.cached_steps == [] for one in made)


@pytest.mark.parametrize(
    ("cache", "named"),
    [
        (replace(EAGER, max_continuous_cached_steps=8), "max_continuous_cached_steps"),
        (replace(EAGER, max_continuous_cached_steps=6), "max_continuous_cached_steps"),
        (replace(OWN_MASK, max_continuous_cached_steps=2), "max_continuous_cached_steps"),
        (replace(EAGER, taylorseer_order=2), "taylorseer_order"),
        (replace(MASK, max_warmup_steps=8), "max_warmup_steps"),
        (replace(MASK, max_warmup_steps=3), "max_warmup_steps"),
        (replace(FORCED, residual_diff_threshold=0.0), "residual_diff_threshold"),
        (replace(FORCED, max_continuous_cached_steps=1, max_warmup_steps=8), "max_continuous_cached_steps"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parameters_that_are_said_to_decide_nothing_change_neither_steps_nor_images(
    loaded: ReferencePipeline, cache: DBCacheConfig, named: str
) -> None:
    plain, why = method_of(cache).plainest(BLOCKS, 8)
    assert plain != cache and f"cache.{named}=" in why and why.endswith("nothing")
    made, plainly = twice(loaded, cache), twice(loaded, plain)
    assert alike(made, plainly)
    assert [one.cached_steps for one in made] == [one.cached_steps for one in plainly] != [[], []]


@pytest.mark.parametrize(
    ("cache", "beside"),
    [
        (replace(EAGER, max_warmup_steps=7), EAGER),  # the last step may be skipped
        (replace(EAGER, max_continuous_cached_steps=5), EAGER),
        (replace(OWN_MASK, max_continuous_cached_steps=1), OWN_MASK),
        (replace(EAGER, Fn_compute_blocks=BLOCKS - 1), EAGER),
        (replace(EAGER, max_warmup_steps=4, enable_taylorseer=True), replace(EAGER, max_warmup_steps=4)),
    ],
    ids=lambda cache: method_of(cache).label,
)
def test_what_changes_an_image_is_never_said_to_be_another(
    loaded: ReferencePipeline, cache: DBCacheConfig, beside: DBCacheConfig
) -> None:
    plain, why = method_of(cache).plainest(BLOCKS, 8)
    assert (plain, why) == (cache, "")
    made = twice(loaded, cache)
    assert not alike(made, twice(loaded, CacheConfig())) and not alike(made, twice(loaded, beside))


def test_of_ranks_loads_and_prompts_with_their_own_steps_nothing_is_claimed() -> None:
    engine, idle = ReferenceEngine(), trial(IDLE[0])
    assert engine.plainest(idle)[0].cache == CacheConfig()
    sharded = replace(idle, parallel=replace(idle.parallel, tp_size=2))
    loaded = replace(idle, workload=replace(idle.workload, arrivals="concurrent", concurrency=2))
    own = [replace(idle.workload.prompts[0], steps=20), *idle.workload.prompts[1:]]
    mixed = replace(idle, workload=replace(idle.workload, prompts=own))
    for other in (sharded, loaded, mixed):
        assert engine.plainest(other) == (other, "")
