"""A trial of several ranks on CUDA is profiled once, after its window; of others it is known why not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import trial
from fake_nvml import FakeNvml
from synthetic import Synthetic, SyntheticEngine

from zbench.config import DBCacheConfig, MeasureConfig, ParallelConfig
from zbench.engines import Engine, Generation, Profiled
from zbench.hardware.nvml import Nvml
from zbench.measurement import Communication, Effective, Measurement
from zbench.trial import Trial
from zbench.worker.gauges import Gauges
from zbench.worker.job import TrialJob
from zbench.worker.measuring import measure_trials

SEEN = [Communication(0, 0.8, 0.1, 0.04), Communication(1, 0.8, 0.12, 0.06)]
PAIR = ParallelConfig(gather_size=2)


class OnCuda(Synthetic):
    """Says that it ran on a GPU."""

    def effective(self) -> Effective:
        return replace(super().effective(), device="cuda")


class Profiling(OnCuda):
    """Keeps what was called, in order."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.calls: list[tuple[Any, ...]] = []
        self.seen = SEEN

    def configure(self, trial: Trial) -> None:
        super().configure(trial)
        self.calls.append(("configure", trial.trial_id))

    def generate(self, prompt_text: str, seed: int) -> Generation:
        self.calls.append(("generate", prompt_text, seed))
        return super().generate(prompt_text, seed)

    def communication(self, prompt_text: str, seed: int, negative_prompt: str = "") -> list[Communication]:
        self.calls.append(("communication", prompt_text, seed))
        return self.seen


def made(kind: Any, **options: Any) -> Any:
    return kind(**SyntheticEngine(round_s=0.001, **options)._settings)


def measured(folder: Path, engine: Engine, *trials: Trial) -> list[Measurement]:
    measure = MeasureConfig(max_warmup_rounds=1, min_rounds=2, max_rounds=2, budget_s=0.01)
    jobs = [
        TrialJob(each, measure, folder / each.trial_id, None, lambda event: None, lambda: False, shares=len(trials) > 1)
        for each in trials
    ]
    return measure_trials(engine, jobs, Gauges(Nvml(FakeNvml())), None)


def test_it_is_asked_once_after_the_window(tmp_path: Path) -> None:
    engine = made(Profiling)
    assert isinstance(engine, Profiled)
    (result,) = measured(tmp_path, engine, trial(parallel=PAIR))
    assert result.communication == SEEN and "communication" not in result.reasons
    kinds = [call[0] for call in engine.calls]
    assert kinds == ["configure", *["generate"] * 3, "communication"] and len(result.requests) == 2
    assert engine.calls[-1][1:] == engine.calls[1][1:]  # the workload's first pair, which has no negative prompt


def test_trials_of_one_window_are_asked_each_as_configured(tmp_path: Path) -> None:
    engine = made(Profiling)
    trials = [trial(parallel=PAIR), trial(parallel=PAIR, cache=DBCacheConfig(residual_diff_threshold=0.2))]
    results = measured(tmp_path, engine, *trials)
    assert [result.communication for result in results] == [SEEN, SEEN]
    asked = [i for i, call in enumerate(engine.calls) if call[0] == "communication"]
    latest = [[call for call in engine.calls[:i] if call[0] == "configure"][-1] for i in asked]
    assert latest == [("configure", each.trial_id) for each in trials]


@pytest.mark.parametrize(
    ("kind", "parallel", "why"),
    [
        (Profiling, ParallelConfig(), "one_device"),
        (Profiling, ParallelConfig(dp_size=2), "one_device"),
        (Synthetic, PAIR, "gloo"),
        (OnCuda, PAIR, "not_profiled"),
    ],
)
def test_where_there_is_nothing_it_is_known_why(
    tmp_path: Path, kind: type[Synthetic], parallel: ParallelConfig, why: str
) -> None:
    engine = made(kind)
    (result,) = measured(tmp_path, engine, trial(parallel=parallel))
    assert result.communication == [] and result.reasons["communication"] == why
    assert not isinstance(engine, Profiling) or "communication" not in {call[0] for call in engine.calls}


def test_a_profiler_that_saw_nothing_is_no_answer(tmp_path: Path) -> None:
    engine = made(Profiling)
    engine.seen = []
    (result,) = measured(tmp_path, engine, trial(parallel=PAIR))
    assert result.reasons["communication"] == "not_profiled"


def test_a_trial_that_failed_for_its_images_is_not_profiled(tmp_path: Path) -> None:
    engine = made(Profiling, black_on=0.2)
    spoilt = trial(parallel=PAIR, cache=DBCacheConfig(residual_diff_threshold=0.2))
    (result,) = measured(tmp_path, engine, spoilt)
    assert np.all([request.has_spoilt_images for request in result.requests])
    assert result.communication == [] and result.reasons["communication"] == "invalid_images"
