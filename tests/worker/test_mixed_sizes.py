"""Prompts with a size and steps of their own: each call has what its prompt asks for, and what cannot be is refused."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import TINY, TURBO, trial
from fake_nvml import FakeNvml
from scripted import ScriptedEngine

from zbench.analysis.stages import stage_figures
from zbench.config import EngineConfig, HardwareConfig, MeasureConfig, Prompt, WorkloadConfig
from zbench.engines import Generation, describe, why_not
from zbench.hardware.nvml import Nvml
from zbench.measurement import Measurement
from zbench.space import constraint
from zbench.trial import Trial, geometry_of
from zbench.worker.gauges import Gauges
from zbench.worker.job import TrialJob
from zbench.worker.measuring import measure_trials

PROMPTS = [Prompt("plain", "a cat"), Prompt("wide", "a wide cat", width=512, steps=4)]
WORKLOAD = WorkloadConfig(name="mixed", prompts=PROMPTS)


def mixed(**load: Any) -> Trial:
    return trial(workload=replace(WORKLOAD, **load))


def measured(folder: Path, engine: ScriptedEngine, of: Trial) -> Measurement:
    measure = MeasureConfig(max_warmup_rounds=1, min_rounds=4, max_rounds=4)
    job = TrialJob(of, measure, folder, None, lambda event: None, lambda: False)
    return measure_trials(engine, [job], Gauges(Nvml(FakeNvml())), None)[0]


class Configured(ScriptedEngine):
    """Notes width and steps of each call, and how often it was configured."""

    def __init__(self) -> None:
        super().__init__()
        self.at: tuple[int, int] = (0, 0)
        self.made: list[tuple[str, tuple[int, int]]] = []
        self.configured = 0

    def configure(self, trial: Trial) -> None:
        self.at = (trial.pipeline.width, trial.pipeline.steps)
        self.configured += 1

    def generate(self, prompt_text: str, seed: int) -> Generation:
        self.made.append((prompt_text, self.at))
        return super().generate(prompt_text, seed)


class Served(ScriptedEngine):
    """Takes size and steps with each call, several at once."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[str, int, int]] = []
        self.lock = threading.Lock()

    def at_once(self) -> int | None:
        return None

    def generate(self, prompt_text: str, seed: int) -> Generation:
        with self.lock:
            return super().generate(prompt_text, seed)

    def generate_for(self, trial: Trial, prompt_text: str, seed: int) -> Generation:
        with self.lock:
            self.made.append((prompt_text, trial.pipeline.width, trial.pipeline.steps))
        return self.generate(prompt_text, seed)


@pytest.mark.parametrize("load", [{}, {"arrivals": "concurrent", "concurrency": 4}])
def test_each_call_has_the_size_and_steps_of_its_prompt(load: dict[str, Any], tmp_path: Path) -> None:
    engine = Configured()
    result = measured(tmp_path, engine, mixed(**load))
    assert [r.prompt_id for r in result.requests] == ["plain", "wide"] * 2
    assert set(engine.made) == {("a cat", (256, 8)), ("a wide cat", (512, 4))}
    assert engine.at == (256, 8), "at the end it is what the trial is"
    assert engine.made[0][0] == "a wide cat", "each size is met once before the settled rounds of the first prompt"


def test_without_own_sizes_the_engine_is_configured_once(tmp_path: Path) -> None:
    engine = Configured()
    measured(tmp_path, engine, trial())
    assert engine.configured == 1


def test_a_server_gets_them_with_each_request(tmp_path: Path) -> None:
    engine = Served()
    result = measured(tmp_path, engine, mixed(arrivals="concurrent", concurrency=4, requests=8))
    assert len(result.requests) == 8 and set(engine.made) == {("a wide cat", 512, 4)}
    assert len(engine.prompts) == 8 + 3 and len(engine.made) == 4 + 1, "one of each size warms up; one is alone"


def test_own_sizes_are_part_of_a_trial_and_their_lack_is_not() -> None:
    assert "width" not in trial().to_dict()["workload"]["prompts"][0]
    plain, wide = mixed().to_dict()["workload"]["prompts"]
    assert "width" not in plain and (wide["width"], wide["steps"], "height" in wide) == (512, 4, False)
    assert Trial.from_dict(mixed().to_dict()) == mixed()


def reason_of(of: Trial) -> str | None:
    return constraint(of, geometry_of(of.pipeline)) or why_not(describe(of.engine), of)


def test_an_engine_that_makes_all_alike_refuses_with_prompt_key_and_value() -> None:
    synthetic = EngineConfig(name="synthetic", target="synthetic:SyntheticEngine")
    said = why_not(describe(synthetic, allow_code=True), replace(mixed(), engine=synthetic)) or ""
    assert said.startswith("workload.prompts: wide has width=512 steps=4, and engine=synthetic makes all alike here")
    compiled = replace(mixed(), compute=replace(mixed().compute, compile=True))
    assert "wide has width=512 steps=4, and engine=reference" in (reason_of(compiled) or "")
    assert reason_of(mixed()) is None


def test_what_one_prompt_asks_for_must_fit_too() -> None:
    tall = replace(WORKLOAD, prompts=[Prompt("tall", "x", height=16384)])
    assert (reason_of(trial(workload=tall)) or "").startswith("workload.prompts: tall: pipeline.height=16384:")
    gpu = HardwareConfig(name="b300", title="B300", datasheet="none")
    projected = trial(pipeline=TURBO, workload=WORKLOAD, hardware=gpu)
    assert "sizes of single prompts are measured, and hardware=b300" in (reason_of(projected) or "")


def test_nothing_is_counted_of_stages_whose_sizes_differ() -> None:
    from factories import complete

    figures = stage_figures(complete(trial(pipeline=TINY, workload=WORKLOAD)))
    assert {f.why_no_rate for f in figures.values()} == {"its prompts have sizes or steps of their own"}
