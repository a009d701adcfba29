"""A trial is named by what runs, and by nothing else."""

from dataclasses import replace
from typing import Any

import pytest
from factories import SCENES, TINY, trial

from zbench.config import (
    CacheConfig,
    ComputeConfig,
    DBCacheConfig,
    HardwareConfig,
    OffloadConfig,
    ParallelConfig,
    SCMConfig,
)
from zbench.trial import Trial


def test_the_id_is_twelve_hex_digits_and_stable_over_a_round_trip() -> None:
    first = trial(SCMConfig(scm_preset="fast"))
    again = Trial.from_dict(first.to_dict())
    assert again == first and again.trial_id == first.trial_id
    assert len(first.trial_id) == 12 and int(first.trial_id, 16) >= 0


def test_a_grid_does_not_change_the_trial() -> None:
    plain, gridded = DBCacheConfig(), DBCacheConfig(grid={"max_warmup_steps": "1,2"})
    assert trial(plain).trial_id == trial(gridded).trial_id


def test_every_other_change_does() -> None:
    base = trial(DBCacheConfig())
    others = [
        trial(DBCacheConfig(residual_diff_threshold=0.25)),
        trial(DBCacheConfig(Bn_compute_blocks=1)),
        replace(base, pipeline=replace(base.pipeline, steps=9)),
        replace(base, workload=replace(base.workload, seeds=[1])),
        replace(base, hardware=HardwareConfig(name="b300", title="B300", datasheet="none")),
    ]
    assert len({base.trial_id, *(t.trial_id for t in others)}) == len(others) + 1


def test_the_order_of_seeds_and_prompts_changes_neither_the_id_nor_the_reference() -> None:
    workload = replace(SCENES, seeds=[0, 1, 10])
    one = trial(workload=workload)
    other = trial(workload=replace(workload, seeds=[10, 0, 1], prompts=workload.prompts[::-1]))
    assert other.trial_id == one.trial_id
    assert other.reference.trial_id == one.reference.trial_id
    assert other.to_dict()["workload"]["seeds"] == [10, 0, 1], "what was asked for is kept as it was typed"
    assert Trial.from_dict(other.to_dict()) == other


def test_the_reference_is_the_native_way_to_do_the_same_work() -> None:
    sharded = trial(
        SCMConfig(),
        parallel=ParallelConfig(ulysses_size=2),
        offload=OffloadConfig(mode="group"),
        compute=ComputeConfig(device="cuda", dtype="float32", compile=True, attention_backend="flash"),
        vram_limit_gib=16.0,
    )
    assert sharded.reference == trial(compute=ComputeConfig(device="cuda"), vram_limit_gib=16.0)
    assert sharded.reference.reference == sharded.reference


STYLED = replace(TINY, lora="/style.safetensors")


def test_what_came_after_schema_2_is_written_only_where_it_is_used() -> None:
    """So that trials without it keep their ids."""
    assert not any("lora" in key for key in trial().to_dict()["pipeline"])
    written = trial(pipeline=replace(STYLED, lora_fused=False)).to_dict()["pipeline"]
    assert written["lora_fused"] is False and "lora_scale" not in written
    for pipeline in (STYLED, replace(STYLED, lora_scale=0.0), replace(STYLED, lora_fused=False)):
        again = Trial.from_dict(trial(pipeline=pipeline).to_dict())
        assert again.pipeline == pipeline and again.trial_id != trial().trial_id


def test_a_lora_is_part_of_the_work_and_whether_it_is_fused_is_not() -> None:
    fused, unfused = trial(pipeline=STYLED), trial(pipeline=replace(STYLED, lora_fused=False))
    assert unfused.reference == fused.reference == fused != unfused
    for other in (TINY, replace(STYLED, lora="/other.safetensors"), replace(STYLED, lora_scale=0.5)):
        assert trial(pipeline=other).reference != fused.reference
    kept = trial(pipeline=replace(STYLED, weights="q4.gguf", lora_fused=False))
    assert kept.reference == kept, "nothing can be added to weights that stay quantised"


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({}, "none lora:fused"),
        ({"lora_fused": False}, "none lora:unfused"),
        ({"lora_fused": False, "lora_scale": 0.8}, "none lora:unfused×0.8"),
    ],
)
def test_the_label_says_how_a_lora_is_used(changes: dict[str, Any], label: str) -> None:
    assert trial(pipeline=replace(STYLED, **changes)).label == label


@pytest.mark.parametrize(
    ("cache", "label"),
    [
        (CacheConfig(), "none"),
        (DBCacheConfig(), "F1B0_W4_MC3_R0.24"),
        (DBCacheConfig(enable_taylorseer=True, taylorseer_order=2), "F1B0_W4_MC3_R0.24_T1O2"),
        (SCMConfig(scm_preset="fast", scm_policy="static"), "forced_fast_F1B0"),
    ],
)
def test_labels_are_cache_dits(cache: CacheConfig, label: str) -> None:
    assert trial(cache).label == label


def test_the_label_names_the_cap_measured_or_projected() -> None:
    capped = HardwareConfig(name="h100", title="H100", datasheet="none", vram_limit_gib=16.0)
    assert trial(vram_limit_gib=16.0).label == trial(hardware=capped).label == "none cap:16GiB"


def test_what_came_after_schema_2_is_left_out_at_its_default() -> None:
    """So that the id of a trial that does not use it stays what it was."""
    plain = trial(pipeline=TINY)
    assert "variant" not in plain.to_dict()["pipeline"]
    fp16 = trial(pipeline=replace(TINY, variant="fp16"))
    assert Trial.from_dict(fp16.to_dict()) == fp16 and fp16.trial_id != plain.trial_id
