"""What speaks against a figure, and what cannot: doubts follow where a metric comes from, and what was compared."""

import json
from dataclasses import replace

import pytest
from factories import complete, demo_records, projected, trial, with_window
from loads import loaded, under

from zbench.analysis.caveats import cut_prompts
from zbench.analysis.view import view_of
from zbench.config import CacheConfig, ComputeConfig, DBCacheConfig, OffloadConfig
from zbench.measurement import DeviceTurn, Effective, ImageQuality
from zbench.recommend import Limits, recommend
from zbench.record import Record
from zbench.report.tables.main import render

NEVER_FIRES = DBCacheConfig(residual_diff_threshold=0.01)


def changed(record: Record, **changes: object) -> Record:
    assert record.measurement is not None
    measured = record.measurement
    if "requests" in changes:
        measured = with_window(measured, requests=changes.pop("requests"))
    return replace(record, measurement=replace(measured, **changes))  # type: ignore[arg-type]


def disturbed(record: Record) -> Record:
    """As measured on a busy machine that never settled."""
    assert record.measurement is not None
    rounds = [replace(r, disturbances=["other_load"]) for r in record.measurement.requests]
    return changed(record, requests=rounds, validity=["latencies had not settled after 12 warm-up rounds"])


def caveats_of(record: Record, *others: Record) -> tuple[str, ...]:
    return next(row.caveats for row in view_of([*others, record]).trials if row.trial_id == record.trial_id)


def with_turn(record: Record, *about: object) -> Record:
    return replace(record, measurement=with_window(record.measurement, turn=DeviceTurn(["cpu"], *about)))  # type: ignore[arg-type]


def test_a_trial_that_shared_its_device_is_doubted_and_one_that_had_it_alone_is_not() -> None:
    record = complete(trial())
    assert caveats_of(record) == caveats_of(with_turn(record, "alone", 12.0)) == ()
    (said,) = caveats_of(with_turn(record, "shared"))
    assert "executor.share_device=true" in said
    (said,) = caveats_of(with_turn(record, "alone", 0.0, ["zbench sweep (runs/x, pid 7)"]))
    assert "zbench sweep (runs/x, pid 7)" in said and "executor.share_device=true" in said
    assert caveats_of(projected(with_turn(record, "shared"), latency_s=1.0, vram_gib=20)) == ()


# Where a metric comes from


def test_other_load_spoils_a_measured_latency_and_no_roofline() -> None:
    busy = disturbed(complete(trial()))
    assert len(caveats_of(busy)) == 2
    assert caveats_of(projected(busy, latency_s=1.0, vram_gib=20)) == ()


def test_projections_made_on_a_busy_machine_can_be_recommended() -> None:
    records = [disturbed(r) for r in demo_records() if r.measurement is not None]
    ahead = [projected(r, latency_s=r.measurement.requests[0].latency_s, vram_gib=20) for r in records]
    (answer,) = recommend(view_of(ahead), Limits(min_ssim=0.95), allow_proxy=True).answers
    assert answer.chosen.speedup == pytest.approx(1.41, abs=0.02)  # type: ignore[union-attr]


@pytest.mark.parametrize(("reason", "told"), [("non_finite_latents", True), ("foreign_process", False)])
def test_invalid_rounds_of_a_proxy_matter_where_they_spoil_images(reason: str, told: bool) -> None:
    record = complete(trial())
    assert record.measurement is not None
    rounds = [replace(r, valid=False, invalid_reasons=[reason]) for r in record.measurement.requests]
    spoilt = changed(record, requests=rounds)
    assert caveats_of(spoilt) == (f"no round was valid ({reason} 8)",)
    assert bool(caveats_of(projected(spoilt, latency_s=1.0, vram_gib=20))) == told


# Content


def test_a_request_of_a_load_that_does_not_count_marks_the_load() -> None:
    """Others waited for it, and the table's latency leaves it out."""
    record = loaded(under(arrivals="concurrent", concurrency=2), [(0.0, 0.0, k, k + 1.0) for k in range(4)])
    assert record.measurement is not None and not caveats_of(record)
    requests = record.measurement.window.requests
    hot = replace(requests[1], valid=False, invalid_reasons=["throttled:sw_thermal"])
    window = replace(record.measurement.window, requests=[requests[0], hot, *requests[2:]])
    (said,) = caveats_of(changed(record, window=window))
    assert said.startswith("1 of 4 requests do not count (throttled:sw_thermal 1)")


def made_with(record: Record, weights: str, configs: str = "c") -> Record:
    return changed(record, effective=Effective(device="cpu", weights_sha256=weights, configs_sha256=configs))


@pytest.mark.parametrize(("weights", "configs", "told"), [("new", "c", "weights"), ("old", "d", "configs")])
def test_a_trial_is_never_compared_with_a_reference_of_other_content(weights: str, configs: str, told: str) -> None:
    base = made_with(complete(trial()), "old")
    cached = made_with(complete(trial(DBCacheConfig()), cached=(5,), ssim=0.23), weights, configs)
    row = next(row for row in view_of([base, cached]).trials if row.trial_id == cached.trial_id)
    assert (row.speedup, row.ssim_worst, row.psnr_mean_db, row.identical_images) == (None, None, None, None)
    assert row.why_missing("quality") == "other_content"
    (caveat,) = row.caveats
    assert caveat.startswith(f"its quality reference was made with other {told}")


def test_what_the_images_show_of_their_prompts_needs_no_reference() -> None:
    base = made_with(complete(trial(), prompt_share=1.0), "old")
    cached = made_with(complete(trial(DBCacheConfig()), cached=(5,), ssim=0.23, prompt_share=0.9), "new")
    row = view_of([base, cached]).trials[1]
    assert row.prompt_fidelity_worst == 0.9


def test_equal_content_is_compared_wherever_it_lies() -> None:
    base = made_with(complete(trial(), latency_s=1.0), "same")
    cached = made_with(complete(trial(DBCacheConfig()), cached=(2, 3, 4, 5), ssim=0.9, latency_s=0.6), "same")
    row = view_of([base, cached]).trials[1]
    assert row.speedup == pytest.approx(1 / 0.6, rel=0.01) and row.ssim_worst == 0.9 and row.is_trusted


def test_a_baseline_of_other_content_costs_the_speed_up_alone() -> None:
    compiled = trial(compute=ComputeConfig(compile=True))
    reference, baseline = made_with(complete(trial()), "same"), made_with(complete(compiled, latency_s=0.7), "old")
    cached = made_with(complete(trial(DBCacheConfig()), cached=(5,), ssim=0.9, latency_s=0.6), "same")
    cached = replace(cached, baseline_id=baseline.trial_id)
    row = next(row for row in view_of([reference, baseline, cached]).trials if row.trial_id == cached.trial_id)
    assert row.speedup is None and row.ssim_worst == 0.9
    assert row.caveats[0].startswith("its speed baseline was made with other weights")


# The second net: what skips no step and computes alike must be its reference


def unlike(**groups: object) -> Record:
    """A trial that skipped no step; its images are nothing like the reference's."""
    cache = groups.pop("cache", NEVER_FIRES)
    return complete(trial(cache, **groups), cached=(), ssim=0.23, psnr_db=8.0)  # type: ignore[arg-type]


def test_a_trial_that_skips_nothing_and_computes_alike_must_equal_its_reference() -> None:
    (caveat,) = caveats_of(unlike(), complete(trial()))
    assert "it skipped no step and computes as its reference does" in caveat and "SSIM 0.230" in caveat
    base = complete(trial())
    waiting = replace(unlike(cache=CacheConfig(), offload=OffloadConfig(mode="vae")), reference_id=base.trial_id)
    (caveat,) = caveats_of(waiting, base)
    assert "its images differ" in caveat, "offload changes no image"


def test_what_computes_otherwise_or_skips_may_differ() -> None:
    base = complete(trial())
    assert caveats_of(unlike(compute=ComputeConfig(dtype="bfloat16")), base) == ()
    assert caveats_of(complete(trial(DBCacheConfig()), cached=(5,), ssim=0.23), base) == ()
    assert caveats_of(complete(trial(NEVER_FIRES), cached=()), base) == (), "its images are identical"


@pytest.mark.parametrize(("floor_ssim", "doubted"), [(0.95, False), (0.999, True), (None, True)])
def test_a_difference_within_the_noise_floor_is_none(floor_ssim: float | None, doubted: bool) -> None:
    ids = ("en-circle", "zh-square")
    floor = None if floor_ssim is None else [ImageQuality(i, 0, False, 20.0, floor_ssim, 0.01) for i in ids]
    base = complete(trial(), noise_floor=floor)
    record = complete(trial(NEVER_FIRES), cached=(), ssim=0.96, psnr_db=30.0)
    assert bool(caveats_of(record, base)) == doubted


# Roles


def test_the_reference_comes_first_then_the_baseline_then_the_fastest() -> None:
    compiled = trial(compute=ComputeConfig(compile=True))
    fast, slow = DBCacheConfig(max_warmup_steps=2), DBCacheConfig()
    records = [
        complete(trial(fast), latency_s=0.5, cached=(2, 3, 4, 5, 6), ssim=0.9),
        complete(compiled, latency_s=0.8, ssim=0.999, psnr_db=60.0),
        complete(trial(slow), latency_s=0.7, cached=(5, 6, 7), ssim=0.9),
        complete(trial(), latency_s=1.0),
    ]
    records = [replace(r, reference_id=trial().trial_id, baseline_id=compiled.trial_id) for r in records]
    rows = view_of(records).trials
    assert [(row.is_reference, row.is_baseline) for row in rows[:2]] == [(True, False), (False, True)]
    assert [row.speedup for row in rows] == pytest.approx([0.8, 1.0, 1.6, 0.8 / 0.7], rel=0.02)


@pytest.mark.parametrize(("ssim", "psnr_db", "doubted"), [(0.94, 19.0, False), (0.90, 16.0, False), (0.70, 10.0, True)])
def test_an_honest_trial_just_below_the_floor_is_not_doubted(ssim: float, psnr_db: float, doubted: bool) -> None:
    """The floor is one draw of the noise, the trial another: half lie below it, few by four times its error."""
    floor = [ImageQuality(i, 0, False, 20.0, 0.95, 0.01) for i in ("en-circle", "zh-square")]
    base = complete(trial(), noise_floor=floor)
    record = complete(trial(NEVER_FIRES), cached=(), ssim=ssim, psnr_db=psnr_db)
    assert bool(caveats_of(record, base)) == doubted


def test_what_a_baseline_skips_itself_bounds_the_speed_up_over_it() -> None:
    skipping = DBCacheConfig(max_warmup_steps=2)
    base = complete(trial(skipping), latency_s=1.0, cached=(4, 5, 6, 7), ssim=0.9)
    faster = complete(trial(DBCacheConfig(max_warmup_steps=1)), latency_s=0.6, cached=(2, 3, 4, 5, 6, 7), ssim=0.9)
    held = [complete(trial(), latency_s=1.9), *(replace(r, baseline_id=base.trial_id) for r in (base, faster))]
    assert caveats_of(held[2], *held[:2]) == (), "2 of 8 steps over 4 of 8 can give 2.0×"
    unbelievable = changed(held[2], requests=[replace(r, latency_s=0.3) for r in held[2].measurement.requests])  # type: ignore[union-attr]
    assert "can give (2.00× at most)" in caveats_of(unbelievable, *held[:2])[0]


def cut(record: Record, tokens: dict[str, int]) -> Record:
    measured = record.measurement
    assert measured is not None
    return replace(record, measurement=replace(measured, effective=replace(measured.effective, cut_tokens=tokens)))


def test_cut_prompts_are_said_once_above_the_table() -> None:
    records = [cut(complete(trial()), {"p1": 12}), cut(complete(trial(DBCacheConfig())), {"p1": 12})]
    said = (
        "Prompts were cut, in tokens: p1 by 12; pipeline.max_sequence_length=128 ends them, and what lies beyond is "
        "not painted (zimage_tiny)."
    )
    assert [cut_prompts(record) for record in records] == [said, said]
    text = render(view_of(records), "table")
    assert text.startswith(said[:60]) and text.count("Prompts were cut") == 1
    assert json.loads(render(view_of(records), "json"))["head"] == [said]
    many = cut(complete(trial()), {f"p{i}": i for i in range(1, 6)})
    assert "p1 by 1, p2 by 2, p3 by 3 and 2 more" in str(cut_prompts(many))
    assert cut_prompts(complete(trial())) is None
    again = Record.from_json(records[0].to_json())
    assert again.measurement is not None and again.measurement.effective.cut_tokens == {"p1": 12}
