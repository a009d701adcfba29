"""What cannot work is left out with its reason, references come first, and the pipeline changes seldom."""

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from factories import SCENES, TINY, TURBO, trial

from zbench.config import (
    CacheConfig,
    ComputeConfig,
    DBCacheConfig,
    HardwareConfig,
    OffloadConfig,
    ParallelConfig,
    SCMConfig,
)
from zbench.engines import Descriptions
from zbench.errors import ConfigError
from zbench.methods.parallel import ParallelDims
from zbench.space import NEVER_REACHED, Space, arrange, constraint, reference_of
from zbench.trial import Trial, geometry_of
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


def test_degrees_are_asked_of_their_owner_and_of_the_stack_where_they_are_projected() -> None:
    def sharded(**degrees: int) -> Trial:
        return trial(pipeline=TURBO, parallel=ParallelConfig(**degrees), hardware=GPU)

    assert "parallel.tp_size=4: 30 heads" in reason(sharded(tp_size=4)) and reason(sharded(tp_size=5)) == ""
    assert "10,240 columns" in reason(sharded(tp_size=6)) and "4,096 image tokens" in reason(sharded(ring_size=3))
    assert "cache-dit" in reason(sharded(ulysses_size=16))  # 30 heads over 16 devices
    measured = replace(sharded(ulysses_size=16), hardware=None)
    assert reason(measured) == "", "its engine is asked what its stack can"


def test_ring_needs_a_backend_that_returns_the_log_sum_exp() -> None:
    ring = trial(pipeline=TURBO, parallel=ParallelConfig(ring_size=4), hardware=GPU)
    assert reason(ring) == ""
    assert "log-sum-exp" in reason(replace(ring, compute=ComputeConfig(attention_backend="_native_cudnn")))


@pytest.mark.parametrize(("steps", "works"), [(4, True), (5, False), (6, True), (7, False), (8, True), (9, True)])
def test_step_masks_exist_only_for_some_numbers_of_steps(steps: int, works: bool) -> None:
    assert (reason(trial(SCMConfig(), pipeline=replace(TINY, steps=steps))) == "") == works


def held_to(space: Space) -> dict[str, tuple[str, str]]:
    """Reference and baseline of every trial, by its id."""
    every = [*space.placed, *(placed for placed, _ in space.pruned)]
    return {p.trial.trial_id: (p.reference_id, p.baseline_id) for p in every}


def as_compiled(reference: Trial) -> Trial:
    return replace(reference, compute=replace(reference.compute, compile=True))


def test_the_reference_is_added_comes_first_and_is_the_baseline() -> None:
    asked = [trial(DBCacheConfig(residual_diff_threshold=t)) for t in (0.1, 0.2)]
    space = arrange(asked)
    first = space.placed[0]
    assert [p.trial.cache.method for p in space.placed] == ["none", "dbcache", "dbcache"]
    assert set(held_to(space).values()) == {(first.trial.trial_id, first.trial.trial_id)}
    assert first.is_reference and first.is_baseline and not space.placed[1].is_reference


def test_a_listed_reference_is_not_doubled() -> None:
    space = arrange([trial(DBCacheConfig()), trial(CacheConfig())])
    assert [p.trial.cache.method for p in space.placed] == ["none", "dbcache"]


def test_each_piece_of_work_has_its_own_reference() -> None:
    nine = replace(TINY, steps=9)
    space = arrange([trial(DBCacheConfig()), trial(DBCacheConfig(), pipeline=nine)])
    references = {p.trial.pipeline.steps: p.trial.trial_id for p in space.placed if p.is_reference}
    assert set(references) == {8, 9} and [p.trial.cache.method for p in space.placed[:2]] == ["none", "none"]
    assert all(p.reference_id == references[p.trial.pipeline.steps] for p in space.placed)


@pytest.mark.parametrize(
    "other",
    [
        {"cache": DBCacheConfig()},
        {"compute": replace(CPU, compile=True)},
        {"compute": replace(CPU, dtype="bfloat16")},
        {"compute": replace(CPU, attention_backend="_native_cudnn")},
        {"offload": OffloadConfig(mode="all")},
    ],
)
def test_whatever_way_the_work_is_done_it_is_held_to_the_native_way(other: dict[str, Any]) -> None:
    native, done_otherwise = trial(compute=CPU), replace(trial(compute=CPU), **other)
    assert held_to(arrange([done_otherwise]))[done_otherwise.trial_id] == (native.trial_id, native.trial_id)


def test_sharded_trials_are_held_to_one_device() -> None:
    sharded = trial(pipeline=TURBO, parallel=ParallelConfig(tp_size=2), hardware=GPU)
    space = arrange([sharded])
    assert [ParallelDims.of(p.trial.parallel).devices for p in space.placed] == [1, 2]
    assert space.placed[1].reference_id == space.placed[0].trial.trial_id


@pytest.mark.parametrize(
    "other",
    [
        {"vram_limit_gib": 16.0},
        {"hardware": GPU},
        {"compute": ComputeConfig(device="cpu")},
        {"pipeline": replace(TINY, steps=9)},
        {"workload": replace(SCENES, seeds=[1])},
    ],
)
def test_other_work_has_another_reference(other: dict[str, Any]) -> None:
    one = trial(compute=ComputeConfig(device="cuda"))
    assert one.reference.trial_id != replace(one, **other).reference.trial_id


@pytest.mark.parametrize("baseline_of", [None, as_compiled])
def test_the_order_of_trials_changes_neither_references_nor_baselines(
    baseline_of: Callable[[Trial], Trial] | None,
) -> None:
    trials = [
        trial(cache, pipeline=replace(TINY, steps=steps), compute=compute)
        for cache in (CacheConfig(), DBCacheConfig(), DBCacheConfig(Fn_compute_blocks=BLOCKS + 1))
        for steps in (8, 9)
        for compute in (CPU, replace(CPU, compile=True), replace(CPU, dtype="bfloat16"))
    ]
    wanted = held_to(arrange(trials, baseline_of))
    chance = random.Random(7)
    for _ in range(20):
        chance.shuffle(trials)
        assert held_to(arrange(trials, baseline_of)) == wanted


def test_a_named_baseline_is_added_runs_after_the_references_and_is_judged_against_them() -> None:
    nine = replace(TINY, steps=9)
    asked = [trial(DBCacheConfig(), compute=CPU), trial(DBCacheConfig(), compute=CPU, pipeline=nine)]
    space = arrange(asked, as_compiled)
    roles = [(p.is_reference, p.is_baseline) for p in space.placed]
    assert roles == [(True, False)] * 2 + [(False, True)] * 2 + [(False, False)] * 2
    for placed in space.placed:
        assert placed.reference_id == placed.trial.reference.trial_id
        assert placed.baseline_id == as_compiled(placed.trial.reference).trial_id


def test_a_baseline_that_names_the_references_setting_is_the_reference() -> None:
    space = arrange([trial(DBCacheConfig())], lambda reference: replace(reference, cache=CacheConfig()))
    assert [(p.is_reference, p.is_baseline) for p in space.placed] == [(True, True), (False, False)]


@pytest.mark.parametrize(
    ("memory_gib", "mode"),
    [(80.0, "none"), (16.0, "text_encoder"), (15.0, "all"), (8.0, "group"), (0.5, "none"), (None, "none")],
)
def test_a_projected_reference_has_the_offload_that_moves_least_of_those_that_fit(
    memory_gib: float | None, mode: str
) -> None:
    card = replace(GPU, memory_gib=memory_gib)
    asked = trial(DBCacheConfig(), pipeline=TURBO, hardware=card)
    reference = reference_of(asked)
    assert reference.offload.mode == mode
    assert replace(reference, offload=OffloadConfig()) == asked.reference
    assert held_to(arrange([asked]))[asked.trial_id][0] == reference.trial_id
    assert reference_of(reference) == reference


def test_a_cap_on_a_projected_card_counts_and_a_measured_reference_is_tried_as_it_is() -> None:
    capped = replace(GPU, memory_gib=80.0, vram_limit_gib=16.0)
    assert reference_of(trial(pipeline=TURBO, hardware=capped)).offload.mode == "text_encoder"
    measured = trial(pipeline=TURBO, compute=ComputeConfig(device="cuda"), vram_limit_gib=16.0)
    assert reference_of(measured).offload.mode == "none"


def test_trials_on_one_loaded_pipeline_run_together() -> None:
    compiled = replace(CPU, compile=True)
    mixed = [
        trial(DBCacheConfig(residual_diff_threshold=t), compute=compute)
        for t in (0.1, 0.2, 0.3)
        for compute in (CPU, compiled)
    ]
    process_of = Descriptions().process
    keys = [process_of(p.trial) for p in arrange(mixed, process_of=process_of).placed]
    changes = sum(a != b for a, b in pairwise(keys))
    assert changes == 1


def test_what_follows_references_and_baselines_begins_with_the_pipeline_that_is_loaded() -> None:
    mixed = [trial(DBCacheConfig(), compute=compute) for compute in (CPU, replace(CPU, compile=True))]
    compiled = [p.trial.compute.compile for p in arrange(mixed, as_compiled, process_of=Descriptions().process).placed]
    assert compiled == [False, True, True, False]


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
        above_all = replace(cache, residual_diff_threshold=NEVER_REACHED)
        assert reason(trial(above_all, pipeline=random)) == ""  # which steps it skips depends on no weights


def test_a_lora_beside_the_layers_is_not_projected_and_nothing_is_fused_with_quantised_weights() -> None:
    styled = replace(TURBO, lora="/style.safetensors")
    beside = replace(styled, lora_fused=False)
    assert reason(trial(pipeline=styled, hardware=GPU)) == reason(trial(pipeline=beside)) == ""
    assert "pipeline.lora_fused=false is not projected" in reason(trial(pipeline=beside, hardware=GPU))
    quantised = replace(styled, weights="/q4.GGUF")
    assert "use pipeline.lora_fused=false" in reason(trial(pipeline=quantised))
    assert reason(trial(pipeline=replace(quantised, lora_fused=False))) == ""


@pytest.mark.parametrize("mode", ["group", "sequential"])
def test_what_swaps_weights_inside_blocks_is_not_compiled(mode: str) -> None:
    compiled = ComputeConfig(device="cuda", compile=True)
    assert "what compute.compile=true would compile" in reason(
        trial(offload=OffloadConfig(mode=mode), compute=compiled)
    )
    assert reason(trial(offload=OffloadConfig(mode="all"), compute=compiled)) == ""


def test_what_the_engine_cannot_run_is_pruned_with_its_word_after_what_cannot_work_at_all() -> None:
    good, slow = trial(DBCacheConfig()), trial(DBCacheConfig(residual_diff_threshold=0.5))
    bad = trial(DBCacheConfig(Fn_compute_blocks=BLOCKS + 1))
    space = arrange([good, slow, bad], supports=lambda of: None if of in (good, good.reference) else "not here")
    assert {p.trial.trial_id: why for p, why in space.pruned} == {slow.trial_id: "not here", bad.trial_id: reason(bad)}
