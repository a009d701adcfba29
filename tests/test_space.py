"""What cannot work is left out with its reason, the baseline comes first, and the pipeline changes seldom."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from factories import TINY, TURBO, trial

from zbench.config import (
    CacheConfig,
    ComputeConfig,
    DBCacheConfig,
    HardwareConfig,
    OffloadConfig,
    ParallelConfig,
    SCMConfig,
)
from zbench.errors import ConfigError
from zbench.space import arrange, constraint, geometry_of
from zbench.trial import Trial
from zbench.zimage.layout import preset_folder

CPU = ComputeConfig(device="cpu")
GPU = HardwareConfig(name="b300", title="B300", datasheet="none")
BLOCKS = geometry_of(TINY).transformer.n_layers


def reason(of: Trial) -> str:
    return constraint(of, geometry_of(of.pipeline)) or ""


def test_first_and_last_blocks_beyond_the_models_blocks_are_named() -> None:
    fits = DBCacheConfig(Fn_compute_blocks=BLOCKS - 1, Bn_compute_blocks=1)
    assert reason(trial(fits)) == ""
    said = reason(trial(replace(fits, Bn_compute_blocks=2)))
    assert f"cache.Fn_compute_blocks={BLOCKS - 1} + cache.Bn_compute_blocks=2 exceed the {BLOCKS} blocks" in said


@pytest.mark.parametrize(("size", "works"), [(2, True), (3, True), (4, False), (5, True), (6, True), (8, False)])
def test_thirty_heads_decide_which_degrees_work(size: int, works: bool) -> None:
    for axis in ("tp_size", "ulysses_size"):
        sharded = trial(pipeline=TURBO, parallel=ParallelConfig(**{axis: size}), hardware=GPU)
        assert (reason(sharded) == "") == works
        if not works:
            assert f"parallel.{axis}={size}: 30 heads are not divisible by {size}" in reason(sharded)


def test_ring_needs_a_backend_that_returns_the_log_sum_exp() -> None:
    ring = trial(pipeline=TURBO, parallel=ParallelConfig(ring_size=4), hardware=GPU)
    assert "log-sum-exp" in reason(ring)
    assert reason(replace(ring, compute=ComputeConfig(attention_backend="_native_cudnn"))) == ""


def test_sharding_is_not_measured_on_one_device() -> None:
    assert "2 devices" in reason(trial(pipeline=TURBO, parallel=ParallelConfig(tp_size=2)))


@pytest.mark.parametrize(("mode", "works"), [("none", True), ("group", True), ("all", True), ("sequential", False)])
def test_offload_modes_that_need_an_accelerator_are_left_out_on_a_cpu(mode: str, works: bool) -> None:
    assert (reason(trial(offload=OffloadConfig(mode=mode), compute=CPU)) == "") == works
    assert reason(trial(offload=OffloadConfig(mode=mode), compute=ComputeConfig(device="cuda"))) == ""


@pytest.mark.parametrize(("steps", "works"), [(4, True), (5, False), (6, True), (7, False), (8, True), (9, True)])
def test_step_masks_exist_only_for_some_numbers_of_steps(steps: int, works: bool) -> None:
    assert (reason(trial(SCMConfig(), pipeline=replace(TINY, steps=steps))) == "") == works


def test_the_baseline_is_added_and_comes_first() -> None:
    asked = [trial(DBCacheConfig(residual_diff_threshold=t)) for t in (0.1, 0.2)]
    space = arrange(asked)
    assert [p.trial.cache.method for p in space.placed] == ["none", "dbcache", "dbcache"]
    assert {p.baseline_id for p in space.placed} == {space.placed[0].trial.trial_id}


def test_a_listed_baseline_is_not_doubled() -> None:
    space = arrange([trial(DBCacheConfig()), trial(CacheConfig())])
    assert [p.trial.cache.method for p in space.placed] == ["none", "dbcache"]


def test_each_piece_of_work_has_its_own_baseline() -> None:
    nine = replace(TINY, steps=9)
    space = arrange([trial(DBCacheConfig()), trial(DBCacheConfig(), pipeline=nine)])
    assert [(p.trial.cache.method, p.trial.pipeline.steps) for p in space.placed] == [
        ("none", 8),
        ("none", 9),
        ("dbcache", 8),
        ("dbcache", 9),
    ]
    assert len({p.baseline_id for p in space.placed}) == 2


def test_compiled_trials_are_compared_with_the_first_way_to_compute() -> None:
    eager, compiled = (
        trial(CacheConfig(), compute=CPU),
        trial(CacheConfig(), compute=replace(CPU, compile=True)),
    )
    space = arrange([eager, compiled])
    assert {p.baseline_id for p in space.placed} == {eager.trial_id}


def test_trials_on_one_loaded_pipeline_run_together() -> None:
    compiled = replace(CPU, compile=True)
    mixed = [
        trial(DBCacheConfig(residual_diff_threshold=t), compute=compute)
        for t in (0.1, 0.2, 0.3)
        for compute in (CPU, compiled)
    ]
    keys = [p.trial.resident_key for p in arrange(mixed).placed]
    changes = sum(a != b for a, b in pairwise(keys))
    assert changes == 1


def test_pruned_trials_keep_their_reason_and_do_not_run() -> None:
    good, bad = trial(DBCacheConfig()), trial(DBCacheConfig(Fn_compute_blocks=BLOCKS + 1))
    space = arrange([good, bad])
    assert [p.trial for p, _ in space.pruned] == [bad]
    assert bad.trial_id not in {p.trial.trial_id for p in space.placed}


def test_another_vae_counts_with_its_own_dimensions() -> None:
    vae = preset_folder("zimage_turbo") / "vae"
    geometry = geometry_of(replace(TINY, vae=str(vae)))
    assert geometry.vae == geometry_of(TURBO).vae != geometry_of(TINY).vae
    assert geometry.transformer == geometry_of(TINY).transformer
    assert geometry_of(replace(TINY, vae="/nowhere")) == geometry_of(TINY), "what runs there will say so"


def test_a_vae_whose_config_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"pipeline\.vae=.*config\.json: key 'block_out_channels' is missing"):
        geometry_of(replace(TINY, vae=str(tmp_path)))


def test_on_random_weights_only_forced_masks_skip_steps() -> None:
    random = replace(TURBO, weights="random")
    assert reason(trial(SCMConfig(scm_policy="static"), pipeline=random)) == ""
    for cache in (DBCacheConfig(), SCMConfig()):
        assert reason(trial(cache, pipeline=random)).startswith("random_weights: ")
        assert "cache=forced" in reason(trial(cache, pipeline=random))
        assert reason(trial(cache, pipeline=random, hardware=GPU)) == ""  # a projection's proxy has trained weights


@pytest.mark.parametrize("mode", ["group", "sequential"])
def test_what_swaps_weights_inside_blocks_is_not_compiled(mode: str) -> None:
    compiled = ComputeConfig(device="cuda", compile=True)
    assert "use compute=eager" in reason(trial(offload=OffloadConfig(mode=mode), compute=compiled))
    assert reason(trial(offload=OffloadConfig(mode="all"), compute=compiled)) == ""


def test_a_cap_is_for_gpus() -> None:
    assert "hardware.vram_limit_gib=16" in reason(trial(compute=CPU, vram_limit_gib=16.0))
    assert reason(trial(compute=ComputeConfig(device="cuda"), vram_limit_gib=16.0)) == ""
