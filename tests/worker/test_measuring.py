"""The measuring loop over an engine whose latencies a test writes down, so that when it stops can be worked out."""

import gc
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import complete, trial
from fake_allocator import on_gpu
from fake_nvml import GIB, FakeGpu, FakeNvml
from scripted import ScriptedEngine

from zbench.config import DBCacheConfig, MeasureConfig
from zbench.engines import Generation
from zbench.engines.failure import code_of
from zbench.hardware.nvml import Nvml
from zbench.measurement import Cold, Effective, Measurement
from zbench.probes.watched import Watched
from zbench.record import Record, held_to_its_images
from zbench.worker.gauges import Gauges
from zbench.worker.job import StopAsked, TrialJob
from zbench.worker.measuring import measure_trials


def measured(
    folder: Path,
    engine: ScriptedEngine,
    load_s: float | None = None,
    gauges: Gauges | None = None,
    **measure: Any,
) -> Measurement:
    job = TrialJob(trial(), MeasureConfig(**measure), folder, folder, lambda event: None, lambda: False)
    cold = None if load_s is None else Cold(load_s=load_s)
    return measure_trials(engine, [job], gauges or Gauges(Nvml(FakeNvml())), cold)[0]


def test_every_prompt_is_measured_equally_often(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    result = measured(tmp_path, engine, max_warmup_rounds=1, min_rounds=3, max_rounds=3)
    # Three rounds become two cycles over the workload's two prompts; the warm-up took the first prompt.
    assert [r.prompt_id for r in result.requests] == ["en-circle", "zh-square"] * 2
    assert [r.index for r in result.requests] == [0, 1, 2, 3] and len(engine.prompts) == 5


def test_steady_latencies_end_the_block_early_and_unsteady_ones_do_not(tmp_path: Path) -> None:
    steady = measured(tmp_path, ScriptedEngine([1.0, 1.01]), min_rounds=2, max_rounds=20)
    assert (steady.window.stop_reason, len(steady.requests)) == ("interval", 6)  # the fewest that have an interval
    unsteady = measured(tmp_path, ScriptedEngine([1.0, 2.0]), min_rounds=2, max_rounds=8)
    assert (unsteady.window.stop_reason, len(unsteady.requests)) == ("max_rounds", 8)


def test_cold_figures_belong_to_the_trial_that_loaded(tmp_path: Path) -> None:
    engine = ScriptedEngine([5.0, 1.0, 1.0])
    cold = measured(tmp_path, engine, load_s=3.0, min_rounds=2, max_rounds=2).cold
    assert (cold.load_s, cold.first_latency_s) == (3.0, 5.0)
    warm = measured(tmp_path, engine, min_rounds=2, max_rounds=2)
    assert warm.cold.first_latency_s is None and warm.reasons["cold.first_latency_s"] == "resident"


def test_own_folder_as_reference_finds_identical_images(tmp_path: Path) -> None:
    result = measured(tmp_path, ScriptedEngine(latent=1.0), min_rounds=2, max_rounds=2)
    assert result.quality is not None and all(q.identical and q.latent_rel_error == 0 for q in result.quality)


def test_latents_that_are_not_finite_make_a_round_invalid(tmp_path: Path) -> None:
    result = measured(tmp_path, ScriptedEngine(latent=float("nan")), min_rounds=2, max_rounds=2)
    assert [(r.valid, r.invalid_reasons) for r in result.requests] == [(False, ["non_finite_latents"])] * 2


def reference_run(folder: Path, engine: ScriptedEngine, **measure: Any) -> tuple[Measurement, Record]:
    """Calls 0 and 1 warm up, then come two cycles over two prompts; and the record that a sweep makes of it."""
    of = trial()
    options = {"max_warmup_rounds": 2, "min_rounds": 4, "max_rounds": 40, "target_rel_ci": 1e-9, **measure}
    job = TrialJob(of, MeasureConfig(**options), folder, None, lambda e: None, lambda: False, is_reference=True)
    result = measure_trials(engine, [job], Gauges(Nvml(FakeNvml())), Cold(load_s=1.0))[0]
    return result, held_to_its_images(replace(complete(of), measurement=result))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (0, "images of 1 of 2 warm-up calls are not valid (black_image 1), first en-circle"),  # the cold one
        (1, "images of 1 of 2 warm-up calls are not valid (black_image 1), first en-circle"),
        (3, "images of 1 of 4 requests are not valid (black_image 1), first zh-square with seed 0"),
        (5, "images of 1 of 4 requests are not valid (black_image 1), first zh-square"),  # made for the noise floor
    ],
)
def test_one_black_image_anywhere_fails_the_trial_and_its_requests_are_kept(
    call: int, told: str, tmp_path: Path
) -> None:
    result, record = reference_run(tmp_path, ScriptedEngine(black=[call]))
    assert (record.state, record.has_invalid_images) == ("FAILED", True)
    assert record.reason is not None and record.reason.message.startswith(told)
    assert record.measurement == result and record.valid_measurement is None
    # Four requests were wanted: more would only say the same.
    assert (len(result.requests), result.window.stop_reason) == (4, "invalid_images")
    assert (result.quality, result.noise_floor) == (None, None), "black ones would be identical"
    assert {result.reasons[path] for path in ("quality", "noise_floor", "prompt_fidelity")} == {"invalid_images"}
    assert not list(tmp_path.iterdir()), "no image of it is kept for others to be judged against"


def test_a_trial_whose_images_are_good_is_not_refused(tmp_path: Path) -> None:
    result, record = reference_run(tmp_path, ScriptedEngine(), max_rounds=4)
    assert record.state == "COMPLETE" and record.valid_measurement == result and result.image_fault is None
    assert result.noise_floor is not None and list(tmp_path.glob("*.png"))


def test_of_trials_that_take_turns_the_one_with_black_images_fails_alone(tmp_path: Path) -> None:
    """The turns of a window are A B, B A, A B, B A after one warm-up each: the second and third timed calls are B's."""
    jobs = [
        TrialJob(of, MeasureConfig(max_warmup_rounds=1, min_rounds=2, max_rounds=2), tmp_path / of.trial_id, None,
                 lambda e: None, lambda: False, shares=True)
        for of in (trial(), trial(DBCacheConfig()))
    ]  # fmt: skip
    good, black = measure_trials(ScriptedEngine(black=[3, 4]), jobs, Gauges(Nvml(FakeNvml())), None)
    assert good.image_fault is None and "2 of 2 requests" in (black.image_fault or "")


def test_a_residual_difference_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    class Comparing(ScriptedEngine):
        def generate(self, prompt_text: str, seed: int) -> Generation:
            return replace(super().generate(prompt_text, seed), residual_diffs={"3": float("nan"), "4": 0.1})

    result = measured(tmp_path, Comparing(), min_rounds=2, max_rounds=2)
    assert [r.residual_diffs for r in result.requests] == [{"4": 0.1}] * 2


def test_an_image_of_one_colour_is_kept_and_doubted(tmp_path: Path) -> None:
    class Flat(ScriptedEngine):
        def generate(self, prompt_text: str, seed: int) -> Generation:
            return replace(super().generate(prompt_text, seed), image=np.full((16, 16, 3), 128, np.uint8))

    result = measured(tmp_path, Flat(), min_rounds=2, max_rounds=2)
    assert result.image_fault is None and len(result.paired_latencies_s) == 2
    assert result.validity == ["2 of 2 images are of one colour all over, first en-circle with seed 0: look at it"]


def test_garbage_collector_rests_during_timed_rounds_only(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    measured(tmp_path, engine, max_warmup_rounds=1, min_rounds=2, max_rounds=2)
    assert engine.collector_was_on == [True, False, False] and gc.isenabled()


def test_stop_is_noticed_before_the_next_round(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    events: list[dict[str, Any]] = []
    job = TrialJob(trial(), MeasureConfig(), tmp_path, None, events.append, lambda: len(events) >= 2)
    with pytest.raises(StopAsked):
        measure_trials(engine, [job], Gauges(Nvml(FakeNvml())), None)
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
    assert code_of(error) == code


def without_reference(folder: Path, *, is_reference: bool) -> Measurement:
    """A trial that has nothing to be compared with."""
    measure = MeasureConfig(min_rounds=1, max_rounds=8, target_rel_ci=1e-9, budget_s=0.0)
    job = TrialJob(trial(), measure, folder, None, lambda event: None, lambda: False, is_reference=is_reference)
    return measure_trials(ScriptedEngine(), [job], Gauges(Nvml(FakeNvml())), None)[0]


def test_a_trial_whose_reference_failed_makes_its_images_once_and_is_no_reference(tmp_path: Path) -> None:
    result = without_reference(tmp_path, is_reference=False)
    assert len(result.requests) == 2 and result.noise_floor is None
    assert (result.reasons["quality"], result.reasons["noise_floor"]) == ("no_reference", "not_a_reference")


def test_a_reference_makes_its_images_twice_and_knows_its_noise_floor(tmp_path: Path) -> None:
    result = without_reference(tmp_path, is_reference=True)
    # Two prompts, each made twice, although one round would have been enough; the script paints alike every time.
    assert len(result.requests) >= 4 and result.quality is None
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
    assert [r.invalid_reasons for r in result.requests] == [[], ["compiled"], [], []]
    assert len(result.paired_latencies_s) == 3


@pytest.mark.parametrize("latency_s", [0.0, -1.0, float("nan")])
def test_a_latency_that_can_be_none_is_no_measurement(latency_s: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ScriptedEngine\.generate says that the call took"):
        measured(tmp_path, ScriptedEngine([1.0, 1.0, latency_s]), max_warmup_rounds=1, min_rounds=4, max_rounds=4)


def test_a_clock_that_is_set_back_changes_no_latency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wall = iter(1e9 - 3600 * k for k in range(10_000))
    monkeypatch.setattr("zbench.probes.disturbance.time.time", lambda: next(wall))
    result = measured(tmp_path, ScriptedEngine([1.0, 1.01]), min_rounds=2, max_rounds=20)
    assert result.window.stop_reason == "interval" and len(result.paired_latencies_s) == 6
    assert all(r.valid and "clock_step" in r.disturbances for r in result.requests)


def test_the_record_says_how_warming_up_ended(tmp_path: Path) -> None:
    settled = measured(tmp_path, ScriptedEngine(), min_rounds=2, max_rounds=2)
    assert settled.warmup_end == "settled" and settled.validity == []
    falling = measured(tmp_path, ScriptedEngine([0.5**k for k in range(40)]), min_rounds=2, max_rounds=2)
    assert falling.warmup_end == "max_rounds" and "not settled" in falling.validity[0]


class Blaming(Gauges):
    """Speaks against the timed rounds whose index is given."""

    def __init__(self, spoilt: set[int]) -> None:
        super().__init__(Nvml(FakeNvml()))
        self._spoilt, self._ended = spoilt, 0

    def end_round(self) -> list[str]:
        self._ended += 1
        return ["throttled:hw_power_brake"] if self._ended - 1 in self._spoilt else []


def test_a_throttled_round_is_kept_and_does_not_count(tmp_path: Path) -> None:
    result = measured(tmp_path, ScriptedEngine(), gauges=Blaming({1}), min_rounds=4, max_rounds=4)
    assert [r.valid for r in result.requests] == [True, False, True, True]
    assert result.requests[1].invalid_reasons == ["throttled:hw_power_brake"] and len(result.paired_latencies_s) == 3


def test_a_round_keeps_its_other_reasons_beside_those_of_the_gauges(tmp_path: Path) -> None:
    engine = ScriptedEngine(latent=float("nan"))
    result = measured(tmp_path, engine, gauges=Blaming({0}), min_rounds=2, max_rounds=2)
    assert result.requests[0].invalid_reasons == ["non_finite_latents", "throttled:hw_power_brake"]
    assert result.requests[1].invalid_reasons == ["non_finite_latents"]


def test_only_valid_rounds_end_the_block_by_their_interval(tmp_path: Path) -> None:
    """Six rounds have an interval, eight are wanted: the block goes on until as many are valid."""
    steady = dict[str, Any](min_rounds=8, max_rounds=40)
    good = measured(tmp_path, ScriptedEngine(), **steady)
    assert (good.window.stop_reason, len(good.requests)) == ("interval", 8)
    spoilt = measured(tmp_path, ScriptedEngine(), gauges=Blaming({0, 1, 4}), **steady)
    assert (spoilt.window.stop_reason, len(spoilt.requests), len(spoilt.paired_latencies_s)) == ("interval", 12, 9)
    none = measured(tmp_path, ScriptedEngine(), gauges=Blaming(set(range(40))), **steady)
    assert (none.window.stop_reason, len(none.requests), none.paired_latencies_s) == ("max_rounds", 40, [])


class OnCuda(ScriptedEngine):
    """Runs on a fake GPU, whose own clock says `device_s`; `happens` has what befalls the GPU in a call."""

    def __init__(self, gpu: FakeGpu, happens: dict[int, dict[str, Any]], device_s: float | None) -> None:
        super().__init__()
        self._gpu, self._happens, self._device_s = gpu, happens, device_s

    def generate(self, prompt_text: str, seed: int) -> Generation:
        calm = {"throttle": 0, "compute": {os.getpid(): GIB}}
        for name, value in {**calm, **self._happens.get(len(self.prompts), {})}.items():
            setattr(self._gpu, name, value)
        return replace(super().generate(prompt_text, seed), device_s=self._device_s)

    def effective(self) -> Effective:
        return replace(super().effective(), device="cuda")

    def watch(self) -> Watched:
        return on_gpu()


def on_cuda(folder: Path, happens: dict[int, dict[str, Any]], device_s: float | None = 1.0) -> Measurement:
    """One warm-up, then four rounds: calls 1 to 4."""
    gpu = FakeGpu()
    gauges = Gauges(Nvml(FakeNvml(gpu)))
    engine = OnCuda(gpu, happens, device_s)
    return measured(folder, engine, gauges=gauges, max_warmup_rounds=1, min_rounds=4, max_rounds=4)


def test_throttling_in_one_round_spoils_that_round_alone(tmp_path: Path) -> None:
    result = on_cuda(tmp_path, {2: {"throttle": FakeNvml.nvmlClocksEventReasonSwThermalSlowdown}})
    assert [r.invalid_reasons for r in result.requests] == [[], ["throttled:sw_thermal"], [], []]


@pytest.mark.parametrize(("device_s", "doubted"), [(0.995, False), (1.009, False), (0.98, True), (1.02, True)])
def test_the_two_clocks_are_compared_on_the_first_round(tmp_path: Path, device_s: float, doubted: bool) -> None:
    result = on_cuda(tmp_path, {}, device_s)
    check = result.telemetry.clock_check
    assert (check.host_s, check.device_s) == (1.0, device_s)
    assert check.rel_difference == pytest.approx(device_s - 1)
    assert any("device's clock" in doubt for doubt in result.validity) == doubted


def test_without_a_device_s_clock_there_is_a_reason(tmp_path: Path) -> None:
    result = on_cuda(tmp_path, {}, device_s=None)
    assert result.telemetry.clock_check is None
    assert result.reasons["telemetry.clock_check"] == "no_device_clock"


def test_a_spent_budget_waits_for_as_many_valid_rounds_as_were_wanted(tmp_path: Path) -> None:
    wanted = dict[str, Any](min_rounds=4, max_rounds=40, budget_s=1e-6, target_rel_ci=1e-9)
    good = measured(tmp_path, ScriptedEngine(), **wanted)
    assert (good.window.stop_reason, len(good.requests)) == ("budget", 4)
    spoilt = measured(tmp_path, ScriptedEngine(), gauges=Blaming({0, 1}), **wanted)
    assert (spoilt.window.stop_reason, len(spoilt.paired_latencies_s)) == ("budget", 4)
