"""What a server's own time leaves out of a lone request is no queueing of those under load."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from factories import trial
from fake_nvml import FakeNvml
from scripted import ScriptedEngine

from zbench.config import MeasureConfig
from zbench.engines import Generation
from zbench.engines.failure import CodedError
from zbench.hardware.nvml import Nvml
from zbench.measurement import Cold, Measurement
from zbench.measurement.lone import waited_s
from zbench.trial import Trial
from zbench.worker.gauges import Gauges
from zbench.worker.job import TrialJob
from zbench.worker.measuring import measure_trials


class Full(CodedError):
    code = "refused"


class Remote(ScriptedEngine):
    """A server: its client sees `latencies_s`, and it says of each request that it took `server_s`."""

    def __init__(self, latencies_s: Any, server_s: float | None, *, fails_from: int | None = None) -> None:
        super().__init__(latencies_s)
        self._server_s, self._fails_from = server_s, fails_from

    def at_once(self) -> int | None:
        return None

    def generate_for(self, trial: Trial, prompt_text: str, seed: int, negative_prompt: str = "") -> Generation:
        steps = trial.pipeline.steps
        return replace(self.generate(prompt_text, seed), latency_s=float(steps), server_s=steps - 0.25 * (steps - 1))

    def generate(self, prompt_text: str, seed: int, negative_prompt: str = "") -> Generation:
        if self._fails_from is not None and len(self.prompts) >= self._fails_from:
            raise Full("come again")
        return replace(super().generate(prompt_text, seed), served=True, server_s=self._server_s)


def under(**load: Any) -> Trial:
    of = trial()
    return replace(of, workload=replace(of.workload, arrivals="concurrent", **load))


def measured(folder: Path, engine: Remote, of: Trial) -> Measurement:
    job = TrialJob(
        of, MeasureConfig(max_warmup_rounds=1), folder, None, tell=lambda event: None, stopping=lambda: False
    )
    return measure_trials(engine, [job], Gauges(Nvml(FakeNvml())), Cold(load_s=1.0))[0]


def queued(made: Measurement) -> list[float | None]:
    """At the server. The client sends at once what is due, by a clock that no test looks at."""
    return [None if s is None else round(s, 9) for s in (waited_s(r, made.window.lone) for r in made.requests)]


def test_a_request_that_waits_for_nobody_has_no_queueing(tmp_path: Path) -> None:
    """The client sees 1.31 s and the server 0.89 s, of each request alike."""
    made = measured(tmp_path, Remote([1.31], 0.89), under(concurrency=1, requests=4))
    assert [(one.latency_s, one.server_s) for one in made.window.lone] == [(1.31, 0.89)] * 3
    assert made.window.lone[0].stands_for == [] and queued(made) == [0.0] * 4


def test_what_is_beyond_a_lone_request_is_queueing(tmp_path: Path) -> None:
    """One call warms up, three are alone, and the others wait for each other."""
    engine = Remote([9.0, 1.25, 1.25, 2.5, 1.25, 2.25, 3.25, 1.0], 1.0)
    made = measured(tmp_path, engine, under(concurrency=1, requests=4))
    assert queued(made) == [0.0, 1.0, 2.0, 0.0], "0.25 s lie outside; the lone one that was held up does not count"


def test_a_load_that_begins_cold_is_the_first_that_the_server_sees(tmp_path: Path) -> None:
    engine = Remote([5.0, 1.25, 1.25, 1.25, 1.25, 1.25], 1.0)
    made = measured(tmp_path, engine, under(concurrency=1, requests=2, warm_up=False))
    assert [r.latency_s for r in made.requests] == [5.0, 1.25] and len(made.window.lone) == 3
    assert queued(made) == [3.75, 0.0]


def test_a_server_that_tells_no_time_has_no_queueing(tmp_path: Path) -> None:
    engine = Remote([1.0], None)
    made = measured(tmp_path, engine, under(concurrency=1, requests=2))
    assert made.window.lone == [] and queued(made) == [None, None] and len(engine.prompts) == 4, "one asks whether"


def test_prompts_of_other_steps_have_lone_requests_of_their_own(tmp_path: Path) -> None:
    of = under(concurrency=1, requests=2)
    prompts = [replace(of.workload.prompts[0], steps=5), of.workload.prompts[1]]
    of = replace(of, workload=replace(of.workload, prompts=prompts))
    made = measured(tmp_path, Remote([1.31], 0.89), of)
    assert [(one.stands_for, one.latency_s) for one in made.window.lone] == [
        *[([prompts[0].id], 5.0)] * 3,
        *[([prompts[1].id], 1.31)] * 3,
    ]
    assert queued(made) == [0.0, 0.0]


def test_a_lone_request_that_fails_fails_no_trial(tmp_path: Path) -> None:
    made = measured(tmp_path, Remote([1.0], 0.5, fails_from=3), under(concurrency=1, requests=2, warm_up=False))
    assert len(made.window.lone) == 1 and queued(made) == [0.0, 0.0]


def test_a_lone_image_that_is_none_fails_the_trial(tmp_path: Path) -> None:
    engine = Remote([1.0], 0.5)
    engine._black = (2,)
    made = measured(tmp_path, engine, under(concurrency=1, requests=2))
    assert made.image_fault is not None
    assert made.image_fault.startswith("images of 1 of 3 lone requests are not valid (black_image 1)")


def test_one_after_another_nobody_waits(tmp_path: Path) -> None:
    made = measured(tmp_path, Remote([1.31], 0.89), trial())
    assert made.window.lone == [] and made.requests[0].server_s == 0.89
    assert {made.window.queued_s(r) for r in made.requests} == {0.0}
