"""Where images alone are asked for: one request a sample, no warm-up, and nothing said of time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from factories import complete, trial
from fake_nvml import FakeNvml
from scripted import ScriptedEngine

from zbench.analysis.metrics import REGISTRY
from zbench.analysis.view import view_of
from zbench.config import DBCacheConfig, MeasureConfig
from zbench.engines import Generation
from zbench.hardware.nvml import Nvml
from zbench.measurement import QUALITY_ONLY, UNTIMED, Cold, Measurement
from zbench.record import Record, held_to_its_images
from zbench.report.text.findings import findings
from zbench.trial import Trial
from zbench.worker.gauges import Gauges
from zbench.worker.job import TrialJob
from zbench.worker.measuring import measure_trials

CACHED = DBCacheConfig(max_warmup_steps=1)


class SkippingEngine(ScriptedEngine):
    """Skips two steps of each image."""

    def generate(self, prompt_text: str, seed: int) -> Generation:
        return replace(super().generate(prompt_text, seed), cached_steps=[2, 5])


def judged(folder: Path, of: Trial, engine: ScriptedEngine | None = None, **options: Any) -> Measurement:
    measure = MeasureConfig(quality_only=True)
    reference = folder if options.pop("with_reference", True) else None
    job = TrialJob(of, measure, folder, reference, lambda event: None, lambda: False, **options)
    return measure_trials(engine or SkippingEngine(), [job], Gauges(Nvml(FakeNvml())), Cold(load_s=2.0))[0]


def recorded(of: Trial, measured: Measurement) -> Record:
    config = {**of.to_dict(), "measure": {"quality_only": True}}
    return held_to_its_images(replace(complete(of), measurement=measured, config=config))


def test_each_sample_is_made_once_without_warm_up(tmp_path: Path) -> None:
    engine = SkippingEngine([3.0, 1.0, 1.0])
    result = judged(tmp_path, trial(CACHED), engine)
    assert [r.prompt_id for r in result.requests] == ["en-circle", "zh-square"] and len(engine.prompts) == 2
    assert (result.warmup_latencies_s, result.warmup_end) == ([], "left_out")
    assert result.window.stop_reason == QUALITY_ONLY


def test_a_reference_is_made_once_too_so_its_noise_is_not_known(tmp_path: Path) -> None:
    result = judged(tmp_path, trial(), is_reference=True, with_reference=False)
    assert len(result.requests) == 2 and result.reasons["noise_floor"] == "one_cycle"


def test_nothing_is_said_of_time_and_the_reason_is_given(tmp_path: Path) -> None:
    result = judged(tmp_path, trial(CACHED))
    assert {path: result.reasons[path] for path in UNTIMED} == dict.fromkeys(UNTIMED, QUALITY_ONLY)
    assert result.energy is None and result.cold == Cold() and result.quality_only
    of_time = [m for m in REGISTRY.values() if m.about == "latency"]
    assert {m.name for m in of_time if m.read(result) is not None} == set()
    assert not [m.name for m in of_time if m.samples is not None and m.samples(result)]


def test_images_are_judged_and_skipped_steps_kept_as_ever(tmp_path: Path) -> None:
    result = judged(tmp_path, trial(CACHED))
    assert result.quality is not None and all(q.identical for q in result.quality)
    assert REGISTRY["steps.cached"].read(result) == 2
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".png", ".png", ".safetensors"]


def test_its_figures_have_no_doubts_and_no_speedup(tmp_path: Path) -> None:
    of = trial(CACHED)
    rows = view_of([complete(trial()), recorded(of, judged(tmp_path, of))]).trials
    row = next(row for row in rows if not row.is_reference)
    assert (row.caveats, row.speedup, row.latency_median_s, row.rounds, row.invalid_rounds) == ((), None, None, 0, 0)
    assert (row.cached_steps, row.is_identical, row.why_missing("latency")) == (2, True, QUALITY_ONLY)


def test_a_report_of_nothing_else_says_that_it_was_not_timed(tmp_path: Path) -> None:
    of = trial(CACHED)
    (said,) = findings(view_of([recorded(of, judged(tmp_path, of))]).trials)
    assert said == "No trial was timed: images alone were asked for (quality_only), so there is no speed to compare."


def test_its_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    of = trial(CACHED)
    record = recorded(of, judged(tmp_path, of))
    again = Record.from_json(record.to_json())
    assert again.measurement == record.measurement and again.measure.quality_only


def test_images_that_are_none_fail_the_trial_all_the_same(tmp_path: Path) -> None:
    of = trial(CACHED)
    assert recorded(of, judged(tmp_path, of, ScriptedEngine(black=[1]))).has_invalid_images
