"""One knob, all else equal: who is whose neighbour, what changed between the two, and what is called inert."""

from dataclasses import replace
from typing import Any

import pytest
from factories import GIB, TINY, complete, demo_records, projected, trial, with_window

from zbench.analysis.one_knob import KnobPair, knob_pairs
from zbench.analysis.view import view_of
from zbench.config import ComputeConfig, DBCacheConfig, OffloadConfig, SCMConfig
from zbench.measurement import Cold, Memory
from zbench.record import Record
from zbench.report.tables.effects import effects_table, verdict
from zbench.trial import Trial


def cached(**parameters: Any) -> Trial:
    return trial(DBCacheConfig(**parameters))


def found(*records: Record) -> list[KnobPair]:
    return knob_pairs(view_of(records))


def held(of: Trial, peak_gib: float = 1.0, **figures: Any) -> Record:
    return complete(of, memory=Memory(host_peak_rss_bytes=int(peak_gib * GIB)), **{"n_rounds": 24, **figures})


def parted(pairs: list[KnobPair]) -> list[tuple[str, Any, Any]]:
    return [(pair.knob, *pair.values) for pair in pairs]


def test_each_value_stands_beside_the_next_and_nothing_between_is_jumped() -> None:
    steps = [complete(cached(max_warmup_steps=n)) for n in (4, 1, 2)]
    assert parted(found(*steps)) == [("cache.max_warmup_steps", 1, 2), ("cache.max_warmup_steps", 2, 4)]


def test_trials_that_two_knobs_part_are_no_neighbours() -> None:
    one, other = cached(max_warmup_steps=1, Fn_compute_blocks=1), cached(max_warmup_steps=2, Fn_compute_blocks=8)
    assert found(complete(one), complete(other)) == []
    corner = complete(cached(max_warmup_steps=1, Fn_compute_blocks=8))
    assert parted(found(complete(one), complete(other), corner)) == [
        ("cache.Fn_compute_blocks", 1, 8),
        ("cache.max_warmup_steps", 1, 2),
    ]


def test_taylorseer_is_one_knob_whose_order_means_nothing_while_it_is_off() -> None:
    off, first, second = cached(), *(cached(enable_taylorseer=True, taylorseer_order=order) for order in (1, 2))
    pairs = found(*map(complete, (second, off, first)))
    assert parted(pairs) == [("cache.taylorseer_order", "off", 1), ("cache.taylorseer_order", 1, 2)]


def test_compiling_a_mask_and_where_weights_wait_are_knobs_in_their_own_order() -> None:
    eager, compiled = trial(), trial(compute=ComputeConfig(compile=True))
    assert parted(found(complete(compiled), complete(eager))) == [("compute", "eager", "compiled")]
    graph = trial(compute=ComputeConfig(compile=True, graphs="all"))
    assert parted(found(complete(graph), complete(compiled)))[0] == ("compute", "compiled", "graph")
    masks = [complete(trial(SCMConfig(scm_preset=name))) for name in ("ultra", "slow", "fast")]
    assert parted(found(*masks)) == [("cache.scm_preset", "slow", "fast"), ("cache.scm_preset", "fast", "ultra")]
    waiting = trial(offload=OffloadConfig(mode="text_encoder"))
    assert ("offload.mode", "none", "text_encoder") in parted(found(complete(eager), complete(waiting)))


def test_what_parts_two_quantised_trials_has_its_own_name() -> None:
    plain = ComputeConfig(device="cuda")
    fp8 = replace(plain, quantization="fp8")
    found_of = {name: complete(trial(compute=replace(fp8, **{name: value}))) for name, value in PARTS.items()}
    quantised, every = complete(trial(compute=fp8)), complete(trial(compute=plain))
    assert parted(found(every, quantised)) == [("compute.quantization", "none", "fp8")]
    assert parted(found(quantised, found_of["norms"])) == [("compute.norms", "split", "fused")]
    assert parted(found(quantised, found_of["scope"])) == [("compute.scope", "both", "ffn")]
    assert parted(found(*found_of.values())) == [("compute.quantization", "fp8 norms:fused", "fp8:ffn")]
    assert parted(found(every, found_of["norms"])) == [("compute.quantization", "none", "fp8 norms:fused")]


PARTS = {"norms": "fused", "scope": "ffn"}


def test_what_was_projected_is_beside_nothing() -> None:
    records = [r for r in demo_records() if r.measurement is not None]
    assert found(*records) != []
    assert found(*(projected(r, latency_s=1.0, vram_gib=20) for r in records)) == []


def test_each_figure_is_the_new_ones_beside_the_former() -> None:
    base = held(cached(residual_diff_threshold=0.1), latency_s=1.0, cached=(5,), ssim=0.95)
    new = held(cached(residual_diff_threshold=0.2), 1.25, latency_s=0.8, cached=(5, 6, 7), ssim=0.90)
    (pair,) = found(new, base)
    assert pair.latency is not None and pair.latency.estimate == pytest.approx(0.8, abs=0.01)
    assert pair.latency.low < 0.8 < pair.latency.high < 1
    assert pair.skipped is not None and (pair.skipped.mean, pair.skipped.least, pair.skipped.most) == (2, 2, 2)
    assert pair.memory_bytes == GIB // 4
    assert pair.ssim is not None and pair.ssim.mean == pytest.approx(-0.05)
    assert (pair.same_steps, pair.same_images, pair.is_inert) == (False, False, False)
    assert verdict(pair) == "faster"


INERT: dict[str, Any] = {"latency_s": 0.8, "cached": (5,), "ssim": 0.95}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "inert"),
        ({"peak_gib": 1.01}, "inert"),  # no more than one process differs by
        ({"peak_gib": 1.1}, "same images"),
        ({"latency_s": 0.88}, "slower, same images"),
        ({"latency_s": 0.72}, "faster, same images"),
        ({"spread": 0.5}, "same images"),  # an interval that says nothing
        ({"ssim": 0.96}, "not told apart"),
        ({"cached": (6,)}, "same images"),
        ({"n_rounds": 4}, "same images"),
    ],
)
def test_inert_is_what_changed_neither_steps_images_memory_nor_time(changes: dict[str, Any], told: str) -> None:
    base = held(cached(max_continuous_cached_steps=3), **INERT)
    peak = changes.get("peak_gib", 1.0)
    figures = INERT | {key: value for key, value in changes.items() if key != "peak_gib"}
    (pair,) = found(base, held(cached(max_continuous_cached_steps=4), peak, **figures))
    assert verdict(pair) == told and pair.is_inert == (told == "inert")


def test_an_inert_flag_is_named_with_the_trials_that_show_it() -> None:
    records = [held(cached(max_continuous_cached_steps=n), **INERT) for n in (3, 4)]
    table = effects_table(view_of(records))
    said = [text for text in table.legend if " is inert: " in text] if table is not None else []
    assert len(said) == 1 and said[0].startswith("cache.max_continuous_cached_steps 3 → 4 is inert: the same steps and")
    assert "F1B0_W4_MC3_R0.24 and F1B0_W4_MC4_R0.24, time 1.000 [" in said[0] and "memory +0 MiB" in said[0]


def test_trials_by_turns_have_no_memory_of_their_own_and_may_be_inert_all_the_same() -> None:
    records = [held(cached(max_continuous_cached_steps=n), **INERT) for n in (3, 4)]
    shared = [replace(r, measurement=with_window(r.measurement, memory=Memory()), label=r.trial.label) for r in records]
    (pair,) = found(*shared)
    assert pair.memory_bytes is None and pair.is_inert


def test_what_compiling_costs_at_the_start_is_paid_back_after_so_many_calls() -> None:
    def paid(of: Trial, latency_s: float, cold: Cold) -> Record:
        return complete(of, latency_s=latency_s, n_rounds=24, cold=cold)

    eager = paid(trial(), 1.0, Cold(load_s=2.0, first_latency_s=1.0))
    compiled = paid(trial(compute=ComputeConfig(compile=True)), 0.8, Cold(load_s=3.0, first_latency_s=10.0))
    (pair,) = found(eager, compiled)
    assert pair.pays_after == pytest.approx(50)  # 10 s more, 0.2 s less a call
    assert verdict(pair) == "faster, same images, worth its start after 50 calls"
    sooner = paid(trial(compute=ComputeConfig(compile=True)), 0.8, Cold(load_s=3.0, first_latency_s=2.05))
    assert verdict(found(eager, sooner)[0]).endswith("after 11 calls"), "10.25 calls: the eleventh pays it back"
    slower = paid(trial(compute=ComputeConfig(compile=True)), 1.2, Cold(load_s=3.0, first_latency_s=10.0))
    assert found(eager, slower)[0].pays_after is None


def test_the_table_has_a_row_a_pair_and_marks_what_is_doubted() -> None:
    base = held(cached(max_warmup_steps=1), **INERT)
    doubted = held(cached(max_warmup_steps=2), **INERT, validity=["the machine slept"])
    table = effects_table(view_of([base, doubted]))
    assert table is not None
    ((knob, change, like, time, skipped, memory, ssim, says),) = table.rows
    assert (knob, change, like) == ("cache.max_warmup_steps", "1 → 2", "F1B0_W1_MC3_R0.24")
    assert time.startswith("1.000 [0.97") and (skipped, memory, ssim) == ("+0.0", "+0 MiB", "+0.000")
    assert says == "inert (!)"
    assert effects_table(view_of([base])) is None


def test_images_that_differ_from_round_to_round_are_not_the_same() -> None:
    one, other = (held(cached(max_warmup_steps=n), **INERT) for n in (1, 2))
    assert other.measurement is not None
    first, *rest = other.measurement.requests
    window = replace(other.measurement.window, requests=[replace(first, image_sha256="another"), *rest])
    (pair,) = found(one, replace(other, measurement=replace(other.measurement, window=window)))
    assert pair.same_images is False and not pair.is_inert


def test_what_is_the_default_comes_before_what_is_named() -> None:
    pipelines = [replace(TINY, weights=weights) for weights in ("/m/fp8", "auto", "/m/a.gguf")]
    trials = [trial(pipeline=pipeline) for pipeline in pipelines]
    first = trials[1].trial_id
    records = [replace(complete(one), reference_id=first, baseline_id=first) for one in trials]
    assert parted(found(*records)) == [
        ("pipeline.weights", "auto", "/m/a.gguf"),
        ("pipeline.weights", "/m/a.gguf", "/m/fp8"),
    ]


def test_a_column_of_which_nothing_is_known_is_left_out() -> None:
    records = [held(cached(residual_diff_threshold=threshold)) for threshold in (0.1, 0.2)]
    unlike = [replace(r, measurement=replace(r.measurement, quality=None)) for r in records]  # type: ignore[type-var]
    table = effects_table(view_of(unlike))
    assert table is not None and "SSIM" not in table.headers and "peak memory" in table.headers
    assert all(len(row) == len(table.headers) == len(table.aligns) for row in table.rows)


def test_no_difference_has_no_minus_sign() -> None:
    base = held(cached(residual_diff_threshold=0.1), cached=(5,), ssim=0.95)
    table = effects_table(view_of([base, held(cached(residual_diff_threshold=0.2), cached=(5,), ssim=0.9499999)]))
    assert table is not None and "-0.000" not in str(table.rows) and "+0.000" in str(table.rows)
