"""What starting cost: loading and the first call are the first trial's, compiling is that of each trial's own calls."""

from pathlib import Path

import pytest
from factories import trial
from fake_nvml import FakeNvml
from scripted import ScriptedEngine

from zbench.config import DBCacheConfig, MeasureConfig, ServedEngineConfig
from zbench.hardware.nvml import Nvml
from zbench.measurement import Cold, Measurement
from zbench.trial import Trial
from zbench.worker.gauges import Gauges
from zbench.worker.job import TrialJob
from zbench.worker.measuring import measure_trials

FEW = MeasureConfig(max_warmup_rounds=4, min_rounds=2, max_rounds=2)


def job(of: Trial, folder: Path, name: str) -> TrialJob:
    return TrialJob(of, FEW, folder / name, folder / "reference", lambda event: None, lambda: False)


def measured(folder: Path, engine: ScriptedEngine, of: Trial, cold: Cold | None, launched_for: str) -> Measurement:
    gauges = Gauges(Nvml(FakeNvml()))
    return measure_trials(engine, [job(of, folder, of.trial_id)], gauges, cold, launched_for)[0]


def test_each_trial_has_what_its_own_calls_compiled_and_a_resident_one_names_who_loaded(tmp_path: Path) -> None:
    first, second = trial(), trial(DBCacheConfig())
    engine = ScriptedEngine([9.0, 1.0], compiles=[0, 1])
    loaded = measured(tmp_path, engine, first, Cold(load_s=3.0), first.trial_id).cold
    assert (loaded.load_s, loaded.first_latency_s, loaded.compile_s, loaded.compiled_calls) == (3.0, 9.0, 1.0, 2)
    assert loaded.launched_for is None
    resident = measured(tmp_path, engine, second, None, first.trial_id)
    assert (resident.cold.compile_s, resident.cold.compiled_calls) == (0.0, 0)
    assert resident.cold.launched_for == first.trial_id
    assert resident.reasons["cold.load_s"] == "resident" and "cold.compile_s" not in resident.reasons


def test_trials_that_take_turns_in_one_window_were_launched_for_the_first(tmp_path: Path) -> None:
    of = [trial(), trial(DBCacheConfig())]
    jobs = [job(each, tmp_path, each.trial_id) for each in of]
    one, other = measure_trials(ScriptedEngine(), jobs, Gauges(Nvml(FakeNvml())), Cold(load_s=2.0), of[0].trial_id)
    assert (one.cold.load_s, one.cold.launched_for) == (2.0, None)
    assert (other.cold.load_s, other.cold.launched_for) == (None, of[0].trial_id)


def test_what_the_window_compiled_is_the_requests_own_and_counts_too(tmp_path: Path) -> None:
    engine = ScriptedEngine(compiles=[0, 4])  # the first of the window, after four warm-up calls
    result = measured(tmp_path, engine, trial(), Cold(load_s=1.0), trial().trial_id)
    assert [r.compile_s for r in result.requests] == [0.5, 0.0]
    assert result.cold.compile_s == 0.5 and result.compile_s == 1.0


@pytest.mark.parametrize("served", [False, True])
def test_where_nobody_says_how_long_it_compiled_the_reason_is_there(tmp_path: Path, served: bool) -> None:
    engine = (
        {"engine": ServedEngineConfig(name="sglang", target="zbench.engines.sglang:SGLangEngine")} if served else {}
    )
    result = measured(tmp_path, ScriptedEngine(compile_s=None), trial(**engine), Cold(load_s=1.0), "x")
    assert (result.cold.compile_s, result.compile_s) == (None, None)
    assert result.reasons["cold.compile_s"] == ("server_does_not_say" if served else "engine_does_not_say")
