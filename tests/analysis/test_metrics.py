"""The registry: each figure is read in one place, and table, CSV, gate and recommendation have the same one."""

import csv
import io
from dataclasses import replace

import pytest
from factories import complete, demo_projection, demo_records, trial, with_window

from zbench.analysis.figures import FROM_REGISTRY, TrialFigures
from zbench.analysis.metrics import GATED, IDENTICAL_DB, REGISTRY, pooled_psnr_db
from zbench.analysis.view import view_of
from zbench.config import DBCacheConfig
from zbench.gate.judge import assess
from zbench.gate.limits import parse_limit
from zbench.measurement import METRICS, Energy, ImageQuality, Measurement
from zbench.recommend import Limits, recommend
from zbench.report.tables.main import to_csv
from zbench.stats import Comparison, Verdict

CACHED = DBCacheConfig(max_warmup_steps=2)


def measurement(**changes: object) -> Measurement:
    made = complete(trial(CACHED), **changes).measurement  # type: ignore[arg-type]
    assert made is not None
    return made


def image(psnr_db: float | None, prompt_id: str = "en-circle") -> ImageQuality:
    """One image: identical where `psnr_db` is None."""
    same = psnr_db is None
    return ImageQuality(prompt_id, 0, same, psnr_db, 1.0 if same else 0.9, 0.0 if same else 0.1)


def with_images(*images: ImageQuality, of: DBCacheConfig = CACHED, **changes: object):
    return complete(trial(of), quality=list(images), cached=(2, 3, 4, 5, 6), **changes)


def test_a_name_says_which_figure_it_is() -> None:
    made = measurement(latency_s=0.5, ssim=0.9)
    assert REGISTRY["latency.median"].read(made) == pytest.approx(0.5)
    # the worst image has an SSIM of 0.9, the next 0.01 more
    assert REGISTRY["quality.ssim"].read(made) == pytest.approx(0.905)
    assert REGISTRY["quality.ssim.worst"].read(made) == pytest.approx(0.9)
    assert REGISTRY["memory.host_peak_rss"].read(made) == made.memory.host_peak_rss_bytes
    samples = REGISTRY["stages.decode.median"].samples
    assert samples is not None
    assert [s for _, s in samples(made)] == [r.stages_s["decode"] for r in made.requests]


def test_what_a_record_lacks_has_no_value() -> None:
    made = measurement()
    assert REGISTRY["memory.peak_device"].read(made) is None
    assert REGISTRY["quality.lpips"].read(made) is None
    assert REGISTRY["energy.per_image"].read(made) is None


def test_every_metric_names_a_source_and_reads_any_record() -> None:
    records = [*demo_records(), *demo_projection()]
    for metric in REGISTRY.values():
        assert metric.about in METRICS
        assert (metric.images != "") == metric.name.startswith("quality.")
        for record in records:
            if record.measurement is not None:
                metric.read(record.measurement)


def test_every_figure_of_a_trial_that_is_a_metric_comes_from_the_registry() -> None:
    names = {f for f in TrialFigures.__dataclass_fields__ if f.endswith(("_mean", "_worst", "_mean_db", "_worst_db"))}
    assert names - set(FROM_REGISTRY) == {"noise_ssim_worst", "noise_psnr_worst_db"}
    assert set(FROM_REGISTRY.values()) <= set(REGISTRY)


def test_a_projections_stages_are_not_those_of_its_proxy() -> None:
    ahead = demo_projection()[0].measurement
    assert ahead is not None and ahead.requests[0].stages_s
    assert REGISTRY["stages.denoise.median"].read(ahead) is None


def test_energy_is_that_of_all_rounds_over_all_their_images() -> None:
    made = measurement(n_rounds=8, energy=Energy(800.0, 8, "counter"))
    spoilt = [replace(r, valid=i > 0, images=2) for i, r in enumerate(made.requests)]
    assert REGISTRY["energy.per_image"].read(with_window(made, requests=spoilt)) == pytest.approx(50.0)


# PSNR: one meaning for the table, the CSV, the gate and the recommendation


@pytest.mark.parametrize(
    ("decibels", "pooled"),
    [
        ([30.0, 30.0], 30.0),
        ([100.0, 30.0], 33.0103),  # half the squared error is 3.01 dB more
        ([100.0, 100.0], 100.0),
        ([20.0, 30.0], 22.5964),  # the mean of 0.01 and 0.001 is 0.0055
    ],
)
def test_psnr_over_images_is_that_of_their_mean_squared_error(decibels: list[float], pooled: float) -> None:
    assert pooled_psnr_db(decibels) == pytest.approx(pooled, abs=1e-3)


@pytest.mark.parametrize("images", [(None, None), (None, 30.0), (25.0, 30.0), (130.0, None)])
def test_table_gate_and_recommendation_read_one_psnr(images: tuple[float | None, float | None]) -> None:
    judged = [image(db, prompt) for db, prompt in zip(images, ("en-circle", "zh-square"), strict=True)]
    base, ours = complete(trial()), with_images(*judged, latency_s=0.5)
    view = view_of([base, ours])
    row = next(row for row in view.trials if not row.is_reference)
    assert ours.measurement is not None
    assert row.psnr_mean_db == REGISTRY["quality.psnr"].read(ours.measurement)
    assert row.psnr_worst_db == REGISTRY["quality.psnr.worst"].read(ours.measurement)

    told = {r["trial_id"]: r for r in csv.DictReader(io.StringIO(to_csv(view)))}[ours.trial_id]
    assert float(told["psnr_mean_db"]) == row.psnr_mean_db and float(told["psnr_worst_db"]) == row.psnr_worst_db

    perfect = with_images(image(None), image(None, "zh-square"), latency_s=0.5)
    (finding,) = assess([ours], [perfect], [parse_limit("quality.psnr:-0.5")]).findings
    assert isinstance(finding.judgement.outcome, Comparison)
    assert row.psnr_mean_db is not None
    assert finding.judgement.outcome.estimate == pytest.approx(row.psnr_mean_db - IDENTICAL_DB)

    (answer,) = recommend(view, Limits(min_psnr_db=20.0)).answers
    (judgement,) = answer.judged  # type: ignore[union-attr]
    assert judgement.value == row.psnr_worst_db


def test_identical_images_stay_no_worse_than_identical_ones() -> None:
    perfect = with_images(image(None), image(None, "zh-square"))
    worse = with_images(image(None), image(60.0, "zh-square"))
    for new, verdict in ((perfect, Verdict.SAME), (worse, Verdict.SLOWER)):
        (finding,) = assess([new], [perfect], [parse_limit("quality.psnr.worst:-0.5")]).findings
        assert finding.judgement.verdict is verdict


def test_only_what_has_an_interval_or_no_chance_in_it_or_is_measured_once_is_gated() -> None:
    assert "latency.p90" not in GATED and "steps.cached" not in GATED
    assert {"throughput", "energy.per_image", "cold.load", "cold.first_latency", "cold.compile"} <= set(GATED)
    assert {"latency.median", "memory.peak_device", "quality.psnr.worst", "quality.clip"} <= set(GATED)
