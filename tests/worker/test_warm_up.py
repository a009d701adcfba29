"""When warming up ends, and what it runs until then."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from factories import trial
from scripted import ScriptedEngine

from zbench.config import ComputeConfig, MeasureConfig
from zbench.worker.job import StopAsked, TrialJob
from zbench.worker.warm_up import WarmUp, warm_up
from zbench.workload import pairs


def warmed(engine: ScriptedEngine, *, knobs: Any = None, stop_after: int = 99, **measure: Any) -> WarmUp:
    told: list[dict[str, Any]] = []
    of = trial(compute=ComputeConfig(**knobs or {}))
    job = TrialJob(of, MeasureConfig(**measure), Path(), None, told.append, lambda: len(told) >= stop_after)
    warm = warm_up(engine, job, pairs(of.workload))
    assert [event["latency_s"] for event in told] == warm.latencies_s
    assert all(event["phase"] == "warmup" for event in told)
    return warm


def test_steady_rounds_settle_at_once() -> None:
    engine = ScriptedEngine([1.0, 1.001])
    warm = warmed(engine)
    assert warm.end == "settled" and len(warm.latencies_s) == 4 and warm.suspicions() == []
    assert len(set(engine.prompts)) == 1


def test_a_slow_start_is_waited_out() -> None:
    warm = warmed(ScriptedEngine([9.0, 3.0, 1.5, 1.1, *[1.0] * 20]))
    assert warm.end == "settled" and 6 <= len(warm.latencies_s) < 12


def test_rounds_that_never_settle_end_at_the_bound_and_say_so() -> None:
    warm = warmed(ScriptedEngine([2.0**-k for k in range(20)]), max_warmup_rounds=9)
    assert (warm.end, len(warm.latencies_s)) == ("max_rounds", 9)
    (said,) = warm.suspicions()
    assert said == "latencies had not settled after 9 warm-up rounds, where measure.max_warmup_rounds ends them"


@pytest.mark.parametrize("most", [0, 2])
def test_a_fixed_few_are_someones_choice(most: int) -> None:
    warm = warmed(ScriptedEngine(), max_warmup_rounds=most)
    assert (warm.end, len(warm.latencies_s), warm.suspicions()) == ("max_rounds", most, [])


def test_slow_rounds_end_with_the_budget() -> None:
    warm = warmed(ScriptedEngine([2.0**-k for k in range(20)]), budget_s=1e-9)
    assert (warm.end, len(warm.latencies_s)) == ("budget", 4)
    assert "where measure.budget_s ends them" in warm.suspicions()[0]


@pytest.mark.parametrize("knobs", [{"compile": True}, {"text": "compiled"}, {"device": "cuda", "graphs": "auto"}])
def test_every_prompt_is_compiled_or_captured_before_any_is_timed(knobs: dict[str, Any]) -> None:
    engine = ScriptedEngine([60.0, *[1.0] * 20])
    warm = warmed(engine, knobs=knobs, budget_s=1e-9)
    assert len(set(engine.prompts)) == 2 and len(set(engine.prompts[1:])) == 1
    assert warm.end == "settled" and len(warm.latencies_s) == 5, "the compiled round is no part of the series"


def test_a_round_that_compiles_takes_nothing_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    latencies = [20.0, *[1.0] * 20]
    engine = ScriptedEngine(latencies, compiles=[0])
    clock = SimpleNamespace(monotonic=lambda: sum(latencies[: len(engine.prompts)]))
    monkeypatch.setattr("zbench.worker.warm_up.time", clock)
    warm = warmed(engine, budget_s=8.0)
    assert warm.end == "settled" and 4 < len(warm.latencies_s) < 8


def test_a_stop_is_noticed() -> None:
    with pytest.raises(StopAsked):
        warmed(ScriptedEngine(), stop_after=2)
