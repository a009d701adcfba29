"""The figures of a trial follow from its raw samples, and sources never mix."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from factories import (
    GIB,
    TINY,
    TURBO,
    complete,
    demo_projection,
    demo_records,
    failed,
    measurement,
    projected,
    pruned,
    trial,
    with_window,
)

from zbench.analysis.figures import NOT_VALIDATED
from zbench.analysis.view import view_of
from zbench.config import ComputeConfig, DBCacheConfig, OffloadConfig, ParallelConfig, PipelineConfig
from zbench.measurement import Memory
from zbench.report.tables.main import to_csv, to_json

CACHED = trial(DBCacheConfig(max_warmup_steps=2))


def row_of(records, label):
    return next(row for row in view_of(records).trials if row.label == label)


def test_figures_are_those_of_the_raw_samples():
    record = complete(CACHED, latency_s=0.5, n_rounds=12, cached=(3, 5), ssim=0.9, psnr_db=25.0)
    row = row_of([complete(trial(), latency_s=1.0), record], record.label)
    samples = [r.latency_s for r in record.measurement.requests]
    assert row.latency_median_s == pytest.approx(np.median(samples))
    assert row.latency_p90_s == pytest.approx(np.quantile(samples, 0.9))
    # Of 12 samples the third smallest and third largest enclose the median 96.1 % of the time.
    assert (row.latency_low_s, row.latency_high_s) == (sorted(samples)[2], sorted(samples)[9])
    assert row.speedup == pytest.approx(2.0)
    assert row.images_per_s == pytest.approx(12 / sum(samples))
    assert (row.cached_steps, row.steps) == (2.0, 8)
    assert (row.ssim_worst, row.ssim_mean) == (0.9, pytest.approx(0.905))
    assert (row.psnr_worst_db, row.psnr_mean_db) == (25.0, pytest.approx(25.471, abs=1e-3))  # of 25 and 26 dB


def test_every_image_of_a_call_counts_in_images_a_second():
    record = complete(CACHED, n_rounds=12)
    batch = with_window(record.measurement, requests=[replace(r, images=4) for r in record.measurement.requests])
    samples = [r.latency_s for r in batch.requests]
    (row,) = view_of([replace(record, measurement=batch)]).trials
    assert row.images_per_s == pytest.approx(48 / sum(samples))
    (ahead,) = view_of([projected(replace(record, measurement=batch), latency_s=2.0, vram_gib=20)]).trials
    assert ahead.images_per_s == pytest.approx(4 / 2.0, rel=0.01)


def test_an_image_made_more_often_does_not_count_more():
    record = complete(CACHED, n_rounds=3)  # en-circle, zh-square, en-circle
    rounds = [replace(r, cached_steps=[4] if r.prompt_id == "en-circle" else []) for r in record.measurement.requests]
    record = replace(record, measurement=with_window(record.measurement, requests=rounds))
    assert row_of([record], record.label).cached_steps == 0.5


def test_invalid_rounds_are_left_out_and_counted():
    record = complete(CACHED, latency_s=1.0, spread=0.0)
    first, *rest = record.measurement.requests
    spoilt = replace(first, latency_s=100.0, valid=False, invalid_reasons=["throttled"])
    record = replace(record, measurement=with_window(record.measurement, requests=[spoilt, *rest]))
    row = row_of([record], record.label)
    assert (row.latency_p90_s, row.rounds, row.invalid_rounds) == (1.0, 7, 1)


def with_latencies(record, latencies, invalid=()):
    """The record with the latency of each prompt's rounds set; rounds whose index is in `invalid` do not count."""
    rounds = [
        replace(r, latency_s=latencies[r.prompt_id], valid=r.index not in invalid) for r in record.measurement.requests
    ]
    return replace(record, measurement=with_window(record.measurement, requests=rounds))


def test_a_speed_up_is_that_of_the_workload_not_of_the_commoner_prompt():
    # en-circle (rounds 0, 2, ...) takes 0.4 s of 1 s, zh-square all of it: 2 s of work become 1.4 s. With one round
    # of either left out the median over all would be 1.0 or 0.4.
    base = with_latencies(complete(trial()), {"en-circle": 1.0, "zh-square": 1.0})
    for invalid in ((), (0,), (1,)):
        cached = complete(CACHED, cached=(3, 4, 5, 6), ssim=0.9)
        cached = with_latencies(cached, {"en-circle": 0.4, "zh-square": 1.0}, invalid)
        assert row_of([base, cached], cached.label).speedup == pytest.approx(2.0 / 1.4)


def test_without_a_valid_round_nothing_is_trusted():
    record = with_latencies(complete(CACHED), {"en-circle": 1.0, "zh-square": 1.0}, invalid=range(8))
    row = row_of([complete(trial()), record], record.label)
    assert (row.latency_median_s, row.speedup, row.is_trusted) == (None, None, False)


def test_the_last_record_of_a_trial_counts():
    rows = view_of([failed(trial()), complete(trial(), latency_s=2.0), complete(trial(), latency_s=1.0)]).trials
    assert [(row.state, row.latency_median_s) for row in rows] == [("COMPLETE", pytest.approx(1.0))]


def test_baseline_first_then_fastest_then_failed_then_pruned():
    rows = view_of(list(reversed(demo_records()))).trials
    assert rows[0].is_baseline
    assert [row.state for row in rows] == ["COMPLETE"] * 14 + ["FAILED", "PRUNED"]
    speedups = [row.speedup for row in rows[1:14]]
    assert speedups == sorted(speedups, reverse=True)


def test_each_trial_is_compared_with_its_own_baseline():
    other = PipelineConfig(name="zimage_tiny", preset="zimage_tiny", height=512, width=512, steps=4)
    records = [
        complete(trial(), latency_s=1.0),
        complete(trial(pipeline=other), latency_s=4.0),
        complete(trial(DBCacheConfig(), pipeline=other), latency_s=2.0),
    ]
    rows = {row.trial_id: row for row in view_of(records).trials}
    assert rows[records[2].trial_id].speedup == pytest.approx(2.0)
    assert next(r.label for r in rows.values()) == "none pipeline.height=256"


def test_a_projected_trial_is_never_compared_with_a_measured_baseline():
    base = complete(trial())
    cached = projected(complete(CACHED), latency_s=0.5, vram_gib=20)
    rows = view_of([base, replace(cached, baseline_id=base.trial_id)]).trials
    assert rows[-1].speedup is None


def test_projected_figures_come_from_the_projection():
    record = projected(complete(CACHED, latency_s=9.0), latency_s=0.5, vram_gib=20)
    (row,) = view_of([record]).trials
    assert row.latency_median_s == pytest.approx(0.5 * 1.005)  # of 0.5 and 0.505
    assert (row.latency_low_s, row.latency_high_s) == (None, None)
    assert (row.peak_memory_bytes, row.memory_kind) == (20 * GIB, "device")
    assert (row.latency_source, row.quality_source, row.source) == ("projected", "proxy", "projected")


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (Memory(1, 2, 3, 4), (3, "device")),
        (Memory(1, 2, None, 4), (2, "reserved")),
        (Memory(1, None, None, 4), (1, "allocated")),
        (Memory(host_peak_rss_bytes=4), (4, "host RSS")),
        (Memory(), (None, None)),
    ],
)
def test_the_peak_shown_is_the_device_s_if_there_is_one(memory, expected):
    row = row_of([complete(CACHED, memory=memory)], CACHED.label)
    assert (row.peak_memory_bytes, row.memory_kind) == expected


def test_under_six_rounds_there_is_no_interval():
    row = row_of([complete(CACHED, n_rounds=4)], CACHED.label)
    assert row.latency_median_s is not None
    assert row.latency_low_s is None


def test_without_quality_nothing_is_made_up_and_the_reason_is_kept():
    record = complete(CACHED, quality=None, reasons={"quality": "random_weights"})
    row = row_of([record], record.label)
    assert (row.ssim_mean, row.psnr_mean_db, row.identical_images) == (None, None, None)
    assert row.why_missing("quality") == "random_weights"


def test_partly_identical_images_do_not_make_the_mean_infinite():
    whole = measurement(CACHED, ssim=0.9, psnr_db=20.0)
    same = replace(whole.quality[0], identical=True, psnr_db=None, ssim=1.0)
    record = complete(CACHED, quality=[same, whole.quality[1]])
    row = row_of([record], record.label)
    assert (row.identical_images, row.compared_images) == (1, 2)
    assert row.psnr_mean_db == pytest.approx(24.01, abs=1e-2), "half the squared error of 21 dB"
    assert not row.is_identical


def test_csv_has_a_row_a_trial_and_marks_what_was_not_validated():
    rows = list(csv.DictReader(io.StringIO(to_csv(view_of(demo_projection())))))
    assert len(rows) == 14
    assert {row["validation"] for row in rows} == {NOT_VALIDATED}
    assert {row["validation"] for row in csv.DictReader(io.StringIO(to_csv(view_of(demo_records()))))} == {""}


@pytest.mark.parametrize("records", [demo_records(), demo_projection(), [failed(trial())], [pruned(trial())]])
def test_csv_and_json_hold_no_nan(records):
    assert "nan" not in to_csv(view_of(records)).lower().replace("finance", "")
    assert "NaN" not in to_json(view_of(records))
    parsed = json.loads(to_json(view_of(records)))
    assert len(parsed["trials"]) == len(records)


def test_a_speed_up_beyond_what_skipping_can_give_is_distrusted():
    # With 4 of 8 steps skipped an image still takes half of the denoising: at most 2x, and 1.2 of slack.
    for latency_s, distrusted in ((0.5, False), (0.45, False), (0.4, True)):
        rows = view_of(
            [complete(trial(), latency_s=1.0), complete(CACHED, latency_s=latency_s, cached=(2, 3, 5, 6), ssim=0.9)]
        ).trials
        assert bool(rows[1].caveats) == distrusted
        assert not rows[0].caveats
    assert "it or its baseline was disturbed" in rows[1].caveats[0]


@pytest.mark.parametrize("warmup_s", [0.5, 1.2])
def test_a_baseline_that_was_visibly_slowed_is_blamed_itself(warmup_s):
    """Its warm-up shows that it can do the same work in half of the time that its rounds took."""
    base = complete(trial(), latency_s=1.0, warmup_latencies_s=[warmup_s])
    cached = complete(CACHED, latency_s=0.4, cached=(2, 3, 5, 6), ssim=0.9)
    rows = view_of([base, cached]).trials
    assert [row.is_trusted for row in rows] == ([False, True] if warmup_s < 1 else [True, False])
    if warmup_s < 1:
        assert "the machine was busy while it ran" in rows[0].caveats[0]
    plausible = replace(cached, measurement=measurement(CACHED, latency_s=0.6, cached=(2, 3, 5, 6), ssim=0.9))
    assert all(row.is_trusted for row in view_of([base, plausible]).trials)


def test_several_devices_may_be_faster_than_skipping():
    sharded = trial(parallel=ParallelConfig(ulysses_size=2))
    rows = view_of([complete(trial(), latency_s=1.0), complete(sharded, latency_s=0.5)]).trials
    assert not rows[1].caveats


def test_labels_are_parted_by_as_few_keys_as_will_do():
    def label_of(pipeline):
        return next(row.label for row in rows if row.trial_id == trial(pipeline=pipeline).trial_id)

    small, other = replace(TINY, hub_id="someone/small"), replace(TURBO, height=256, width=256)
    rows = view_of([complete(trial(pipeline=p)) for p in (TINY, TURBO)]).trials
    assert [row.label for row in rows] == ["none pipeline.name=zimage_tiny", "none pipeline.name=zimage_turbo"]
    four = (TINY, TURBO, small, other)
    rows = view_of([complete(trial(pipeline=p)) for p in four]).trials
    assert (
        label_of(TURBO)
        == "none pipeline.name=zimage_turbo pipeline.hub_id=Tongyi-MAI/Z-Image-Turbo pipeline.height=1024"
    )
    assert len({row.label for row in rows}) == len(four)


def test_a_projection_that_does_not_fit_its_hardware_is_marked():
    base, cached = (
        projected(complete(t, ssim=0.9, cached=(5,)), latency_s=1.0, vram_gib=gib)
        for t, gib in ((trial(), 80), (CACHED, 80.1))
    )
    rows = {row.trial_id: row for row in view_of([base, cached]).trials}
    assert rows[base.trial_id].caveats == () and rows[base.trial_id].misfit is None
    row = rows[cached.trial_id]
    assert row.caveats == (row.misfit,) == ("does not fit into the 80 GiB of NVIDIA H100 80GB",)
    assert not row.is_trusted and row.doubts == ()


def test_the_defaults_of_cache_dit_are_known_by_their_values_not_by_their_label():
    compiled = trial(DBCacheConfig(), compute=ComputeConfig(compile=True))
    rows = view_of([complete(t) for t in (trial(), CACHED, compiled)]).trials
    assert [row.trial_id for row in rows if row.has_default_cache] == [compiled.trial_id]


def with_invalid(record, reasons):
    """The record with the reasons of its first rounds given, a list each."""
    told = [*reasons, *([[]] * len(record.measurement.requests))]
    rounds = [
        replace(r, valid=not why, invalid_reasons=why)
        for r, why in zip(record.measurement.requests, told, strict=False)
    ]
    return replace(record, measurement=with_window(record.measurement, requests=rounds))


def test_a_trial_most_of_whose_rounds_are_invalid_says_why():
    capped, visited = ["throttled:hw_power_brake"], ["foreign_process"]
    for reasons, caveats in (
        ([capped] * 6, ()),  # half of twelve
        ([capped] * 7, ("7 of 12 rounds were invalid (throttled:hw_power_brake 7)",)),
        (
            [visited, [*visited, *capped], *([capped] * 6)],
            ("8 of 12 rounds were invalid (throttled:hw_power_brake 7, foreign_process 2)",),
        ),
        ([capped] * 12, ("no round was valid (throttled:hw_power_brake 12)",)),
    ):
        record = with_invalid(complete(CACHED, n_rounds=12), reasons)
        row = row_of([record], record.label)
        assert (row.caveats, row.invalid_rounds) == (caveats, len(reasons))
        assert (row.latency_median_s is None) == (len(reasons) == 12)


def test_a_capped_trial_that_nvml_saw_above_its_cap_is_not_to_be_trusted() -> None:
    under, over = (
        complete(trial(pipeline=TURBO, vram_limit_gib=16.0, offload=OffloadConfig(mode=mode)), vram_gib=gib)
        for mode, gib in (("text_encoder", 15.2), ("dit", 16.5))
    )
    rows = {row.trial_id: row for row in view_of([under, over]).trials}
    assert rows[under.trial_id].is_trusted
    assert rows[over.trial_id].doubts == ("does not fit into the 16 GiB of its cap",)
