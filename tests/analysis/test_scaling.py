"""What several devices bought, from records with known answers: 1.000 s on one device, 0.600 s on two."""

import json
from dataclasses import replace

import pytest
from factories import ENVIRONMENT, GIB, complete, failed, projected, pruned, trial
from several_devices import ONE, TWO, data_parallel, on, one_device, timed, two_devices

from zbench.analysis.metrics import REGISTRY
from zbench.analysis.scaling import (
    ELSEWHERE,
    FAILED,
    NO_PAIR,
    NOT_MEASURED,
    OTHER_SOURCE,
    REQUEST,
    OneDevice,
    forward_s,
    ranks_of,
    scaling_of,
)
from zbench.analysis.sharded import pruned_topologies, same_devices, sharded_trials
from zbench.analysis.view import view_of
from zbench.config import ComputeConfig, DBCacheConfig, ParallelConfig
from zbench.measurement import Communication, RankView
from zbench.record import Record
from zbench.report.tables.scaling import topology_table
from zbench.trial import Trial, settled, unsharded

U2, TP2, G2 = ParallelConfig(ulysses_size=2), ParallelConfig(tp_size=2), ParallelConfig(gather_size=2)


def found(record: Record, *others: Record):
    """What `record` bought, among `others`."""
    return OneDevice({(r.sweep, r.trial_id): r for r in (record, *others)}).compare(record)


def row_of(record: Record, *others: Record):
    return next(row for row in view_of([record, *others]).trials if row.trial_id == record.trial_id)


def test_speed_up_and_efficiency_of_each_stage_and_of_the_request():
    stages = found(two_devices(), one_device()).stages
    assert {name: stage.speedup for name, stage in stages.items()} == pytest.approx(
        {"text_encode": 1.0, "denoise": 2.0, "decode": 1.0, REQUEST: 1 / 0.6}
    )
    assert {name: stage.efficiency for name, stage in stages.items()} == pytest.approx(
        {"text_encode": 0.5, "denoise": 1.0, "decode": 0.5, REQUEST: 1 / 1.2}
    )


def test_one_forward_of_the_transformer():
    forward = found(two_devices(), one_device()).forward
    assert (forward.one_s, forward.own_s, forward.speedup) == pytest.approx((0.1, 0.05, 2.0))


def test_a_forward_is_one_that_was_computed_whole():
    record = timed(on(cache=DBCacheConfig()), 0.6, TWO, cached=(1, 2))
    measured = record.measurement
    requests = [replace(r, steps_s=[0.05, 0.001, 0.001, *[0.05] * 5]) for r in measured.requests]
    assert forward_s(replace(measured, window=replace(measured.window, requests=requests))) == pytest.approx(0.05)


def test_the_part_that_does_not_scale_bounds_the_speed_up():
    amdahl = found(two_devices(), one_device()).amdahl
    assert amdahl.serial_s == pytest.approx({"text_encode": 0.05, "decode": 0.1, "other": 0.05})
    assert (amdahl.bound_here, amdahl.bound) == pytest.approx((1 / 0.6, 5.0))


@pytest.mark.parametrize(
    ("split", "serial_s", "bound"),
    [
        ({"vae": "split"}, {"text_encode": 0.05, "other": 0.05}, 10.0),
        ({"text_encoder": "tp"}, {"decode": 0.1, "other": 0.05}, 1 / 0.15),
        ({"vae": "split", "text_encoder": "tp"}, {"other": 0.05}, 20.0),
    ],
)
def test_a_stage_that_is_split_too_scales(split, serial_s, bound):
    amdahl = found(two_devices(ParallelConfig(tp_size=2, **split)), one_device()).amdahl
    assert amdahl.serial_s == pytest.approx(serial_s) and amdahl.bound == pytest.approx(bound)


def test_data_parallelism_is_efficient_by_images_and_splits_no_image():
    scaling = found(data_parallel(), one_device())
    assert scaling.request.speedup == pytest.approx(1 / 1.02)
    assert scaling.request.efficiency == pytest.approx(1 / 1.02)
    assert scaling.stages["denoise"].efficiency == pytest.approx(1.0)
    assert scaling.amdahl is None


def test_replicas_of_sharded_images_are_bounded_by_the_ranks_of_one():
    both = timed(on(ParallelConfig(dp_size=2, ulysses_size=2)), 0.6, TWO, images=2)
    scaling = found(both, one_device())
    assert scaling.amdahl.ranks == 2 and scaling.amdahl.bound_here == pytest.approx(1 / 0.6)
    assert scaling.request.efficiency == pytest.approx(2 / 0.6 / 4)


def test_one_device_is_held_against_nothing():
    assert found(one_device()) is None
    row = row_of(one_device())
    assert (row.devices, row.one_device_speedup, row.parallel_efficiency) == (1, None, None)


def elsewhere(record: Record) -> Record:
    return replace(record, environment={**ENVIRONMENT, "cpu": "Another CPU"})


def of_other_weights(record: Record) -> Record:
    effective = replace(record.measurement.effective, weights_sha256="b" * 64)
    return replace(record, measurement=replace(record.measurement, effective=effective))


def other_seed(record: Record) -> Record:
    measured = record.measurement
    requests = [replace(r, seed=r.seed + 7) for r in measured.requests]
    return replace(record, measurement=replace(measured, window=replace(measured.window, requests=requests)))


@pytest.mark.parametrize(
    ("others", "why"),
    [
        ([], NOT_MEASURED),
        ([timed(on(compute=ComputeConfig(device="cpu", compile=True)), 1.0, ONE)], NOT_MEASURED),
        ([elsewhere(one_device())], ELSEWHERE),
        ([failed(on())], FAILED),
        ([other_seed(one_device())], NO_PAIR),
    ],
)
def test_without_the_same_setting_here_there_is_no_efficiency_and_it_is_said_why(others, why):
    assert found(two_devices(), *others).why_none == why
    row = row_of(two_devices(), *others)
    assert row.parallel_efficiency is None and row.why_missing("parallel_efficiency") == why


def test_other_content_gives_no_efficiency():
    ours, theirs = of_other_weights(two_devices()), one_device()
    effective = replace(theirs.measurement.effective, weights_sha256="a" * 64)
    theirs = replace(theirs, measurement=replace(theirs.measurement, effective=effective))
    assert "other weights" in found(ours, theirs).why_none


def test_measured_is_not_held_against_projected():
    one = projected(one_device(), latency_s=1.0, vram_gib=20.0)
    assert scaling_of(two_devices(), one).why_none == OTHER_SOURCE


def test_two_projections_are_held_against_each_other():
    one = projected(one_device(), latency_s=1.0, vram_gib=20.0)
    two = projected(two_devices(), latency_s=0.6, vram_gib=20.0)
    row = row_of(two, one)
    assert row.one_device_speedup == pytest.approx(1 / 0.6) and row.latency_source == "projected"


def test_another_setting_on_one_device_is_none_of_it():
    cached = timed(on(U2, cache=DBCacheConfig()), 0.5, TWO)
    assert found(cached, one_device()).why_none == NOT_MEASURED
    assert found(cached, timed(on(cache=DBCacheConfig()), 0.7, ONE)).request.speedup == pytest.approx(1.4)


FAST = ComputeConfig(
    device="cuda",
    compile=True,
    attention_backend="auto",
    qkv="auto",
    rope="auto",
    text="compiled",
    decode="compiled",
    graphs="auto",
)


def settled_on(parallel: ParallelConfig, compute: ComputeConfig = FAST) -> Trial:
    """The trial that `compute` comes to on so many GPUs."""
    asked = replace(on(parallel), pipeline=replace(on().pipeline, preset="zimage_turbo"))
    return replace(asked, compute=settled(compute, "cuda", parallel, asked.pipeline))


@pytest.mark.parametrize(
    "parallel",
    [G2, ParallelConfig(ring_size=2), ParallelConfig(ulysses_size=2, ulysses_async=True)],
    ids=["queries apart", "another kernel", "complex rotations"],
)
@pytest.mark.parametrize(
    "compute", [FAST, replace(FAST, ffn="fused", quantization="fp8", norms="auto")], ids=["fast", "fp8"]
)
def test_what_auto_stands_for_may_be_another_thing_on_one_device(parallel, compute):
    one, two = settled_on(ParallelConfig(), compute), settled_on(parallel, compute)
    assert one.compute != two.compute and unsharded(two) == one
    assert one.compute.norms == ("split" if compute.norms == "split" else "fused")
    assert found(timed(two, 0.6, TWO), timed(one, 1.0, ONE)).request.speedup == pytest.approx(1 / 0.6)
    exact = replace(two, parallel=ParallelConfig())
    same = found(timed(two, 0.6, TWO), timed(one, 1.0, ONE), timed(exact, 1.2, ONE))
    assert same.request.speedup == pytest.approx(2.0)


def test_words_that_leave_nothing_open_name_the_same_on_one_device():
    compiled = settled_on(G2, ComputeConfig(compile=True, graphs="all", attention_backend="_native_cudnn"))
    assert unsharded(compiled) == replace(compiled, parallel=ParallelConfig())
    split_norms = settled_on(U2, replace(FAST, ffn="fused", quantization="fp8", norms="split"))
    assert unsharded(split_norms).compute == split_norms.compute


def test_a_kernel_that_was_named_is_no_other_one_on_one_device():
    ring = settled_on(ParallelConfig(ring_size=2), ComputeConfig(compile=True))
    cudnn = settled_on(ParallelConfig(), ComputeConfig(compile=True, attention_backend="_native_cudnn"))
    assert found(timed(ring, 0.6, TWO), timed(cudnn, 1.0, ONE)).why_none == NOT_MEASURED


def test_an_equal_setting_that_failed_hides_none_of_the_same_words():
    one, two = settled_on(ParallelConfig()), settled_on(G2)
    equal = failed(replace(two, parallel=ParallelConfig()))
    assert found(timed(two, 0.6, TWO), equal, timed(one, 1.0, ONE)).request.speedup == pytest.approx(1 / 0.6)
    (group,) = same_devices(sharded_trials(view_of([equal, timed(one, 1.0, ONE), timed(two, 0.6, TWO)])))
    assert group.one.trial_id == one.trial_id


def test_splits_of_the_fast_path_are_one_group():
    one = timed(settled_on(ParallelConfig()), 1.0, ONE)
    two = [timed(settled_on(parallel), s, TWO) for parallel, s in ((U2, 0.6), (G2, 0.5))]
    (group,) = same_devices(sharded_trials(view_of([one, *two])))
    assert [trial.row.latency_median_s for trial in group.trials] == [pytest.approx(0.5), pytest.approx(0.6)]
    table = topology_table(sharded_trials(view_of([one, *two])))
    (said,) = [line for line in table.legend if "the same words" in line]
    assert said.endswith("g2 fast: on one device the same words mean compute.qkv=fused.")
    assert group.one.trial_id == one.trial_id
    (group,) = same_devices(sharded_trials(view_of(two)))
    assert group.one is None and len(group.trials) == 2


def test_its_own_sweep_comes_before_another():
    other = replace(one_device(2.0), sweep="another")
    assert found(two_devices(), other, one_device()).request.one_s == pytest.approx(1.0)
    assert found(two_devices(), other).request.one_s == pytest.approx(2.0)
    assert found(two_devices(), elsewhere(one_device()), other).request.one_s == pytest.approx(2.0)


def test_figures_of_a_sharded_trial():
    row = row_of(two_devices(ParallelConfig(tp_size=2, ring_size=2)), one_device())
    assert (row.devices, row.tp_size, row.ring_size, row.ulysses_size, row.dp_size) == (4, 2, 2, 1, 1)
    assert row.exposed_communication == pytest.approx(0.06)
    assert row.rank_memory_bytes == 14 * GIB
    assert row.parallel_efficiency == pytest.approx(1 / 0.6 / 4)


def test_exposed_communication_is_that_of_the_rank_that_waits_most():
    measured = replace(complete(trial()).measurement, communication=[])
    assert REGISTRY["communication.exposed"].read(measured) is None
    said = [Communication(0, 0.4, 0.1, 0.01), Communication(1, 0.5, 0.2, 0.1), Communication(2, 0.0, 0.0, 0.0)]
    assert REGISTRY["communication.exposed"].read(replace(measured, communication=said)) == pytest.approx(0.2)


def test_ranks_are_kept_apart():
    first, second = ranks_of(two_devices().measurement)
    assert (first.rank, first.device, first.latency_s, first.exposed) == (0, "cuda:0", 0.6, 0.06)
    assert (second.rank, second.device) == (1, "cuda:1") and second.latency_s == pytest.approx(0.59)
    assert (second.peak_bytes, second.peak_kind, second.forward_s) == (int(13.5 * GIB), "device", 0.05)
    assert ranks_of(one_device().measurement) == ()


def test_the_peak_that_says_most_is_taken():
    record = two_devices(peaks_gib=())
    assert REGISTRY["memory.rank"].read(record.measurement) is None
    measured = record.measurement
    views = [RankView(0, 0.6, peak_reserved_bytes=7, peak_allocated_bytes=5, host_peak_rss_bytes=9)]
    requests = [replace(r, ranks=views) for r in measured.requests]
    (rank,) = ranks_of(replace(measured, window=replace(measured.window, requests=requests)))
    assert (rank.peak_bytes, rank.peak_kind) == (7, "reserved")


@pytest.mark.parametrize(
    ("ranks", "named"),
    [
        ((0.6, 0.56), None),
        ((0.6, 0.5), "rank 0 (cuda:0)"),
        ((0.5, 0.51, 0.6), "rank 2 (cuda:2)"),
        ((0.5, 0.6, 0.6, 0.62), None),
        ((0.5, 0.5, 0.5, 0.62), "rank 3 (cuda:3)"),
    ],
)
def test_a_straggler_is_named_and_its_trial_is_doubted(ranks, named):
    row = row_of(two_devices(ParallelConfig(ring_size=len(ranks)), ranks=ranks, peaks_gib=(), exposed=()))
    assert row.is_trusted == (named is None)
    if named:
        (caveat,) = row.caveats
        assert caveat.startswith(f"{named} holds the others up")


def test_a_rank_that_alone_makes_the_picture_is_no_straggler():
    """It takes the time of the others and that of converting the image, which holds nobody up."""
    record = two_devices(ranks=(0.6, 0.6))
    measured = record.measurement
    views = [replace(view, latency_s=0.6 if view.rank == 0 else 0.4) for view in measured.requests[0].ranks]
    requests = [replace(r, ranks=views) for r in measured.requests]
    measured = replace(measured, window=replace(measured.window, requests=requests))
    assert row_of(replace(record, measurement=measured)).is_trusted


def test_groups_and_what_images_side_by_side_would_make():
    (group,) = same_devices(sharded_trials(view_of([one_device(), two_devices(), two_devices(TP2, 0.65)])))
    assert (group.devices, len(group.trials), group.one.trial_id) == (2, 2, on().trial_id)
    assert (group.side_by_side.images_per_s, group.side_by_side.is_measured) == (pytest.approx(2.0), False)
    (group,) = same_devices(sharded_trials(view_of([one_device(), two_devices(), data_parallel()])))
    assert (group.side_by_side.images_per_s, group.side_by_side.is_measured) == (pytest.approx(2 / 1.02), True)
    (group,) = same_devices(sharded_trials(view_of([two_devices()])))
    assert (group.one, group.side_by_side) == (None, None)
    assert sharded_trials(view_of([one_device()])) == []


def test_pruned_topologies_are_grouped_by_reason():
    records = [one_device()]
    records += [pruned(on(ParallelConfig(tp_size=tp)), "30 heads") for tp in (7, 8)]
    records += [pruned(on(ParallelConfig(tp_size=7), cache=DBCacheConfig()), "30 heads")]
    records += [pruned(on(ParallelConfig(ulysses_size=2, ring_size=2)), "no log-sum-exp")]
    told = {each.reason: each.topologies for each in pruned_topologies(view_of(records))}
    assert told == {"30 heads": ("tp7", "tp8"), "no log-sum-exp": ("u2 r2",)}


def test_ranks_and_communication_read_back_and_older_records_have_none():
    record = two_devices()
    again = Record.from_json(record.to_json())
    assert again == record and again.measurement.communication[1].exposed_s == pytest.approx(0.016)
    data = json.loads(one_device().to_json())
    del data["measurement"]["communication"]
    for request in data["measurement"]["window"]["requests"]:
        del request["ranks"]
    old = Record.from_data(data)
    assert old.measurement.communication == [] and old.measurement.requests[0].ranks == []
    assert row_of(two_devices(), old).parallel_efficiency == pytest.approx(1 / 1.2)
