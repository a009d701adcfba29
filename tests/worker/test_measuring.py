"""The measuring loop over an engine whose latencies a test writes down, so that when it stops can be worked out."""

import gc
from pathlib import Path
from typing import Any

import pytest
from factories import trial
from fake_nvml import FakeNvml
from scripted import ScriptedEngine

from zbench.config import MeasureConfig
from zbench.hardware.nvml import Nvml
from zbench.measurement import Measurement
from zbench.worker.__main__ import _code
from zbench.worker.gauges import Gauges
from zbench.worker.job import Job, StopAsked
from zbench.worker.measuring import measure_trial


def measured(folder: Path, engine: ScriptedEngine, load_s: float | None = None, **measure: Any) -> Measurement:
    job = Job(trial(), MeasureConfig(**measure), folder, folder, lambda event: None, lambda: False)
    return measure_trial(engine, job, Gauges(Nvml(FakeNvml())), load_s)


def test_every_prompt_is_measured_equally_often(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    result = measured(tmp_path, engine, max_warmup_rounds=1, min_rounds=3, max_rounds=3)
    # Three rounds become two cycles over the workload's two prompts; the warm-up took the first prompt.
    assert [r.prompt_id for r in result.rounds] == ["en-circle", "zh-square"] * 2
    assert [r.index for r in result.rounds] == [0, 1, 2, 3] and len(engine.prompts) == 5


def test_steady_latencies_end_the_block_early_and_unsteady_ones_do_not(tmp_path: Path) -> None:
    steady = measured(tmp_path, ScriptedEngine([1.0, 1.01]), min_rounds=2, max_rounds=20)
    assert (steady.stop_reason, len(steady.rounds)) == ("interval", 6)  # the fewest that have an interval
    unsteady = measured(tmp_path, ScriptedEngine([1.0, 2.0]), min_rounds=2, max_rounds=8)
    assert (unsteady.stop_reason, len(unsteady.rounds)) == ("max_rounds", 8)


def test_cold_figures_belong_to_the_trial_that_loaded(tmp_path: Path) -> None:
    engine = ScriptedEngine([5.0, 1.0, 1.0])
    cold = measured(tmp_path, engine, load_s=3.0, min_rounds=2, max_rounds=2).cold
    assert (cold.load_s, cold.first_latency_s, cold.compile_s) == (3.0, 5.0, None)
    warm = measured(tmp_path, engine, min_rounds=2, max_rounds=2)
    assert warm.cold.first_latency_s is None and warm.reasons["cold.first_latency_s"] == "resident"


def test_own_folder_as_reference_finds_identical_images(tmp_path: Path) -> None:
    result = measured(tmp_path, ScriptedEngine(latent=1.0), min_rounds=2, max_rounds=2)
    assert result.quality is not None and all(q.identical and q.latent_rel_error == 0 for q in result.quality)


def test_latents_that_are_not_finite_make_a_round_invalid(tmp_path: Path) -> None:
    result = measured(tmp_path, ScriptedEngine(latent=float("nan")), min_rounds=2, max_rounds=2)
    assert [(r.valid, r.invalid_reasons) for r in result.rounds] == [(False, ["non_finite_latents"])] * 2


def test_garbage_collector_rests_during_timed_rounds_only(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    measured(tmp_path, engine, max_warmup_rounds=1, min_rounds=2, max_rounds=2)
    assert engine.collector_was_on == [True, False, False] and gc.isenabled()


def test_stop_is_noticed_before_the_next_round(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    events: list[dict[str, Any]] = []
    job = Job(trial(), MeasureConfig(), tmp_path, None, events.append, lambda: len(events) >= 2)
    with pytest.raises(StopAsked):
        measure_trial(engine, job, Gauges(Nvml(FakeNvml())), None)
    assert len(engine.prompts) == 2 and gc.isenabled()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), "out_of_memory"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (RuntimeError("shapes cannot be multiplied"), "error"),
    ],
)
def test_every_face_of_running_out_of_memory_is_known(error: Exception, code: str) -> None:
    """torch has a type of its own on CUDA and none on a CPU, where only its allocator's name tells."""
    assert _code(error) == code


def test_a_baseline_makes_its_images_twice_and_knows_its_noise_floor(tmp_path: Path) -> None:
    job = Job(trial(), MeasureConfig(min_rounds=1, max_rounds=8), tmp_path, None, lambda event: None, lambda: False)
    result = measure_trial(ScriptedEngine(), job, Gauges(Nvml(FakeNvml())), None)
    # Two prompts, each made twice, although one round would have been enough; the script paints alike every time.
    assert len(result.rounds) >= 4 and result.quality is None
    assert result.noise_floor is not None
    assert [(q.prompt_id, q.identical) for q in result.noise_floor] == [("en-circle", True), ("zh-square", True)]
    assert result.reasons["prompt_fidelity"] == "no_scene" and "noise_floor" not in result.reasons


def test_random_weights_have_no_quality_of_any_kind(tmp_path: Path) -> None:
    result = measured(tmp_path, ScriptedEngine(weights="random"), min_rounds=2, max_rounds=2)
    assert (result.quality, result.prompt_fidelity, result.noise_floor) == (None, None, None)
    for path in ("quality", "prompt_fidelity", "noise_floor"):
        assert result.reasons[path] == "random_weights"


def test_a_round_that_compiled_is_kept_and_does_not_count(tmp_path: Path) -> None:
    result = measured(tmp_path, ScriptedEngine(compiles=[2]), max_warmup_rounds=1, min_rounds=4, max_rounds=4)
    assert [r.invalid_reasons for r in result.rounds] == [[], ["compiled"], [], []]
    assert len(result.paired_latencies_s) == 3


def test_a_clock_that_is_set_back_changes_no_latency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wall = iter(1e9 - 3600 * k for k in range(10_000))
    monkeypatch.setattr("zbench.probes.disturbance.time.time", lambda: next(wall))
    result = measured(tmp_path, ScriptedEngine([1.0, 1.01]), min_rounds=2, max_rounds=20)
    assert result.stop_reason == "interval" and len(result.paired_latencies_s) == 6
    assert all(r.valid and "clock_step" in r.disturbances for r in result.rounds)


def test_the_record_says_how_warming_up_ended(tmp_path: Path) -> None:
    settled = measured(tmp_path, ScriptedEngine(), min_rounds=2, max_rounds=2)
    assert settled.warmup_end == "settled" and settled.validity == []
    falling = measured(tmp_path, ScriptedEngine([0.5**k for k in range(40)]), min_rounds=2, max_rounds=2)
    assert falling.warmup_end == "max_rounds" and "not settled" in falling.validity[0]
