"""Stages show what was computed, at which rate and how near the ceiling; what is not known is not shown."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from ceilings import CEILINGS, CPU_CEILINGS
from factories import ENVIRONMENT, TINY, TURBO, complete, demo_projection, demo_records, trial, with_window

from zbench.analysis.stages import ceiling_rates, stage_figures, stage_seconds
from zbench.analysis.view import view_of
from zbench.config import CustomCacheConfig, DBCacheConfig, OffloadConfig, ParallelConfig
from zbench.errors import RecordError
from zbench.measurement import Effective, Memory, ServerView, Telemetry
from zbench.record import Record
from zbench.report.page.write import write_report
from zbench.report.tables.offload import offload_table
from zbench.report.tables.stages import stage_table
from zbench.report.tables.text_table import to_markdown, to_text
from zbench.report.text.cells import ABSENT
from zbench.sweeper.measured import sized
from zbench.trial import geometry_of
from zbench.zimage.flops import Flops, step_flops, text_encoder_flops, vae_decode_flops
from zbench.zimage.layout import preset_folder

GPU = {"device": "cuda", "dtype": "bfloat16", "weights": "random"}


def on(record, ceilings, rounds=None, **effective):
    """The record as measured where these ceilings were known, with changed rounds and effects."""
    measurement = record.measurement
    changed = replace(
        with_window(measurement, requests=[replace(r, **(rounds or {})) for r in measurement.requests]),
        effective=replace(measurement.effective, **effective),
    )
    return replace(record, measurement=changed, environment={**ENVIRONMENT, "ceilings": ceilings})


def ordered(*records):
    return view_of(records)


TIMED = {"stages_s": {"text_encode": 0.02, "denoise": 2.0, "decode": 0.1}, "text_tokens": [30]}
IMAGE_TOKENS = 64 * 64  # of 1024 × 1024 pixels
FULL = step_flops(geometry_of(TURBO), IMAGE_TOKENS, 30)


def ideal_s(flops: Flops) -> float:
    return flops.gemm / 700e12 + flops.attention / 500e12


def test_a_stage_has_its_rate_and_its_share_of_the_ceiling():
    found = stage_figures(on(complete(trial(pipeline=TURBO)), CEILINGS, TIMED, **GPU))
    text, decode = text_encoder_flops(geometry_of(TURBO), 512), vae_decode_flops(geometry_of(TURBO), 1024, 1024)
    for stage, flops, seconds in (("text_encode", text, 0.02), ("denoise", FULL * 8, 2.0), ("decode", decode, 0.1)):
        assert found[stage].seconds == seconds
        assert found[stage].tflops == pytest.approx(flops.total / seconds / 1e12)
        assert found[stage].share == pytest.approx(ideal_s(flops) / seconds)
    assert found["denoise"].tflops == pytest.approx(8 * 55.6 / 2, rel=0.01)  # one forward is 55.6 TFLOP


def test_float32_is_held_against_float32():
    found = stage_figures(on(complete(trial(pipeline=TURBO)), CEILINGS, TIMED, device="cuda:0", dtype="float32"))
    assert found["denoise"].share == pytest.approx(8 * (FULL.gemm / 50e12 + FULL.attention / 25e12) / 2)


def test_a_skipped_step_computes_its_first_and_last_blocks_alone():
    cache = DBCacheConfig(Fn_compute_blocks=2, Bn_compute_blocks=1)
    record = on(complete(trial(cache, pipeline=TURBO), cached=(3, 5, 6)), CEILINGS, TIMED, **GPU)
    flops = FULL * 5 + step_flops(geometry_of(TURBO), IMAGE_TOKENS, 30, blocks=3) * 3
    assert stage_figures(record)["denoise"].tflops == pytest.approx(flops.total / 2 / 1e12)


def test_what_a_cache_from_outside_computes_is_not_known():
    cache = CustomCacheConfig(method="mine", target="a:B")
    found = stage_figures(on(complete(trial(cache, pipeline=TURBO), cached=(3, 5)), CEILINGS, TIMED, **GPU))
    assert found["denoise"].tflops is None and "mine" in found["denoise"].why_no_rate
    assert found["decode"].tflops is not None


def test_batches_and_guidance_count_what_a_forward_held():
    pipeline = replace(TURBO, batch_size=2, images_per_prompt=3, guidance_scale=4.0)
    rounds = {**TIMED, "images": 6, "text_tokens": [30] * 6 + [70] * 6}  # padded to the longest
    found = stage_figures(on(complete(trial(pipeline=pipeline)), CEILINGS, rounds, **GPU))
    geometry = geometry_of(TURBO)
    text, decode = text_encoder_flops(geometry, 512) * 4, vae_decode_flops(geometry, 1024, 1024) * 6
    denoise = step_flops(geometry, IMAGE_TOKENS, 70) * 8 * 12
    assert found["text_encode"].tflops == pytest.approx(text.total / 0.02 / 1e12)
    assert found["denoise"].tflops == pytest.approx(denoise.total / 2 / 1e12)
    assert found["decode"].tflops == pytest.approx(decode.total / 0.1 / 1e12)


def test_a_rounds_own_forwards_count():
    record = on(complete(trial(pipeline=TURBO)), CEILINGS, {**TIMED, "steps_s": [0.2] * 9}, **GPU)
    assert stage_figures(record)["denoise"].tflops == pytest.approx(9 * FULL.total / 2 / 1e12)


def test_rounds_that_do_not_count_are_left_out():
    record = on(complete(trial(pipeline=TURBO)), CEILINGS, TIMED, **GPU)
    rounds = record.measurement.requests
    slow = replace(rounds[0], valid=False, stages_s={"denoise": 1000.0})
    spoilt = replace(record, measurement=with_window(record.measurement, requests=[slow] * 20 + rounds))
    assert stage_figures(spoilt) == stage_figures(record)


def test_an_old_record_has_no_rate_of_denoising():
    found = stage_figures(on(complete(trial(pipeline=TURBO)), CEILINGS, {**TIMED, "text_tokens": []}, **GPU))
    assert found["denoise"].tflops is None and "prompts" in found["denoise"].why_no_rate
    assert found["denoise"].seconds == 2.0 and found["decode"].share is not None


def test_a_folder_that_is_gone_leaves_no_rate_at_all(tmp_path):
    gone = replace(TURBO, weights=str(tmp_path / "gone"))
    found = stage_figures(on(complete(trial(pipeline=gone)), CEILINGS, TIMED, **{**GPU, "weights": "folder"}))
    assert all(f.tflops is None and str(tmp_path / "gone") in f.why_no_rate for f in found.values())


def test_how_large_the_model_is_is_read_from_the_record_and_from_no_folder_that_it_names(tmp_path, monkeypatch):
    named = trial(pipeline=replace(TURBO, weights=str(preset_folder("zimage_tiny"))))
    measured = sized(named, complete(named).measurement)
    assert measured.effective.geometry == geometry_of(TINY)
    elsewhere = trial(pipeline=replace(TURBO, weights="/somewhere/else"))
    effects = {**GPU, "weights": "folder", "geometry": measured.effective.geometry}
    record = Record.from_json(on(complete(elsewhere), None, TIMED, **effects).to_json())
    with monkeypatch.context() as watched:
        watched.setattr(Path, "is_file", lambda path: pytest.fail(f"looked at {path}"))
        found = stage_figures(record)
    assert found["text_encode"].tflops == pytest.approx(text_encoder_flops(geometry_of(TINY), 512).total / 0.02 / 1e12)
    assert sized(trial(), complete(trial()).measurement).effective.geometry is None, "the preset says it"


def test_a_geometry_that_cannot_be_is_refused():
    record = complete(trial(), effective=Effective(geometry=geometry_of(TINY)))
    assert Record.from_json(record.to_json()).measurement.effective.geometry == geometry_of(TINY)
    with pytest.raises(RecordError, match=r"effective\.geometry\.transformer\.n_heads=0: must be positive"):
        Record.from_json(re.sub(r'"n_heads":\d+', '"n_heads":0', record.to_json(), count=1))


@pytest.mark.parametrize("change", [{"vae": "/a/folder"}, {"vae_tiling": True}])
def test_a_decode_that_is_not_the_closed_forms_has_no_rate(change):
    found = stage_figures(on(complete(trial(pipeline=replace(TURBO, **change))), CEILINGS, TIMED, **GPU))
    assert found["decode"].tflops is None and found["decode"].why_no_rate
    assert found["denoise"].tflops is not None


def test_a_config_of_another_zbench_leaves_the_seconds():
    record = on(complete(trial(pipeline=TURBO)), CEILINGS, TIMED, **GPU)
    found = stage_figures(replace(record, config={"pipeline": {"unheard_of": 1}}))
    assert found["denoise"].seconds == 2.0 and "not one of this zbench" in found["denoise"].why_no_rate


def test_the_ceilings_of_another_device_give_no_share():
    record = on(complete(trial()), CEILINGS)  # ran on the CPU of a machine with an H100
    assert "NVIDIA H100" in stage_figures(record)["decode"].why_no_share
    sharded = complete(trial(pipeline=TURBO, parallel=ParallelConfig(ulysses_size=2)))
    assert "several" in stage_figures(on(sharded, CEILINGS, TIMED, **GPU))["denoise"].why_no_share


@pytest.mark.parametrize("ceilings", [None, {}, {"kind": "cuda"}, {"kind": "cuda", "figures": {}}])
def test_without_figures_there_are_no_rates(ceilings):
    assert isinstance(ceiling_rates(ceilings, Effective(**GPU)), str)
    assert stage_table(ordered(on(complete(trial(pipeline=TURBO)), ceilings, TIMED, **GPU))) is not None


def test_the_table_shows_shares_and_says_what_of():
    text = to_text(stage_table(ordered(on(complete(trial(pipeline=TURBO)), CEILINGS, TIMED, **GPU))))
    share = round(100 * 8 * ideal_s(FULL) / 2)
    assert f"({share} %)" in text
    assert (
        "Ceilings of NVIDIA H100 80GB HBM3 in bfloat16: matmul 700.0 TFLOP/s, attention 500.0 TFLOP/s (cudnn)" in text
    )
    assert "2026-01-01" in text and "doctor --measure" not in text


def test_without_ceilings_the_rate_stands_alone_and_the_way_to_a_share_is_named():
    table = stage_table(ordered(*demo_records()))
    assert not any("share" in header for header in table.headers)
    assert "zbench doctor --measure" in to_text(table)
    assert len(table.rows) == 14  # FAILED and PRUNED have no stages


def test_reasons_name_the_trials_they_hold_for():
    old = on(complete(trial(DBCacheConfig()), cached=(4,)), CPU_CEILINGS, {"text_tokens": []})
    table = stage_table(ordered(on(complete(trial()), CPU_CEILINGS), old))
    assert "No TFLOP/s of denoise (F1B0_W4_MC3_R0.24): the record does not say" in to_text(table)
    assert [row[4] == "–" for row in table.rows] == [False, True]


def test_a_projection_has_no_stages():
    assert stage_table(ordered(*demo_projection())) is None
    assert offload_table(ordered(*demo_projection())) is None


def offloaded(mode="text_encoder", moved=None, received=None, host=None, **kwargs):
    record = complete(trial(pipeline=TINY, offload=OffloadConfig(mode=mode), **kwargs))
    measurement = replace(
        with_window(
            record.measurement,
            telemetry=Telemetry(pcie_rx_bytes=received),
            memory=Memory(host_peak_rss_bytes=host),
        ),
        effective=replace(record.measurement.effective, offload_moved_bytes=moved),
    )
    return replace(record, measurement=measurement)


def test_what_was_moved_is_shown_where_it_is_known():
    gib = 2**30
    all_known = offloaded("all", {"text_encoder": 8 * gib, "vae": gib // 2, "transformer": 0}, 88 * gib, 20 * gib)
    table = offload_table(ordered(offloaded("none"), all_known))
    by_mode = {row[1]: row[2:] for row in table.rows}
    # 88 GiB in 8 rounds
    assert by_mode["all"] == ("8.5 GiB", "text_encoder 8.0 GiB, vae 512 MiB", "11.0 GiB", "20.0 GiB")
    assert by_mode["none"] == ("–", "–", "–", "–")


def test_columns_that_no_trial_has_are_left_out():
    table = offload_table(ordered(offloaded("all", {"vae": 2**30})))
    assert table.headers == ("trial", "offload", "moved to the device, a call")
    assert offload_table(ordered(offloaded("none", host=2**30))) is None


def test_both_tables_stand_on_the_pages_escaped(tmp_path):
    evil = {**CEILINGS, "device": "<script>alert(1)</script>"}
    record = on(offloaded("all", {"<b>vae</b>": 2**30, "text_encoder": 1}), evil, {"text_tokens": [30]}, **GPU)
    write_report(view_of([record]), {"demo": tmp_path}, tmp_path / "out")
    for name in ("report.html", "report.md"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert "Stages" in text and "Offloading" in text and "decode, TFLOP/s (share)" in text
        assert "<script>" not in text and "<b>" not in text
        assert "&lt;script&gt;" in text and "&lt;b&gt;" in text
    assert "decode, s" in to_markdown(stage_table(ordered(record)))


def told_by_a_server(**stages_s: float) -> Record:
    """As of the engine sglang: its timed requests have no stages, and an untimed one told of them."""
    return on(
        complete(trial(pipeline=TURBO)),
        CEILINGS,
        {"stages_s": {}, "latency_s": 1.31},
        server=ServerView(version="0.5.15.post1", stages_s=stages_s, steps_s=[0.1] * 8),
    )


TOLD = {"text_encode": 0.02, "denoise": 0.84, "decode": 0.08}


def test_the_stages_that_a_server_told_stand_beside_those_of_the_built_in_pipeline():
    own = on(complete(trial(DBCacheConfig(), pipeline=TURBO)), CEILINGS, TIMED, **GPU)
    table = stage_table(view_of([told_by_a_server(**TOLD), own]))
    assert table is not None
    (found,) = [row[1:] for row in table.rows if row[0].startswith("none")]
    assert found == ("0.0200", ABSENT, "0.840", ABSENT, "0.0800", ABSENT)
    text = " ".join(to_text(table).split())
    assert text.count("one untimed request of the first prompt and seed") == 1, "said once"
    assert "a server told its seconds, and not what it computed" in text


def test_what_a_latency_holds_beside_a_server_s_stages_is_shown():
    measured = told_by_a_server(**TOLD).measurement
    assert stage_seconds(measured) == pytest.approx({**TOLD, "other": 1.31 - sum(TOLD.values())})


def test_a_server_that_told_no_stages_has_none():
    assert stage_figures(told_by_a_server()) == {} and stage_table(view_of([told_by_a_server()])) is None
