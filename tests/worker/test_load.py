"""Requests under load: due whether or not former ones are done, none lost, failures counted, waiting told apart.

No test looks at a clock: what is at once is held at a barrier, and of times only their order is asked.
"""

import gc
import threading
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import trial
from fake_nvml import FakeNvml
from scripted import ScriptedEngine

from zbench.engines import Generation
from zbench.engines.failure import CodedError
from zbench.hardware.nvml import Nvml
from zbench.measurement import Cold, Measurement
from zbench.trial import Trial
from zbench.worker.gauges import Gauges
from zbench.worker.job import StopAsked, TrialJob
from zbench.worker.load import kept_pairs
from zbench.worker.measuring import measure_trials

WAIT_S = 30


def under(**load: Any) -> Trial:
    """A trial of two prompts under this load."""
    of = trial()
    return replace(of, workload=replace(of.workload, **load))


def measured(folder: Path, engine: ScriptedEngine, of: Trial, **job: Any) -> Measurement:
    told = {"tell": lambda event: None, "stopping": lambda: False, **job}
    one = TrialJob(of, replace_measure(), folder, None, **told)
    return measure_trials(engine, [one], Gauges(Nvml(FakeNvml())), Cold(load_s=1.0))[0]


def replace_measure() -> Any:
    from zbench.config import MeasureConfig

    return MeasureConfig(max_warmup_rounds=1)


class Lost(CodedError):
    """As a server's client says it."""

    code = "http_status"


class Crowd(ScriptedEngine):
    """Takes several calls at once. Requests of `fails`, by their number, fail; the others meet at a barrier."""

    def __init__(self, at_once: int | None, parties: int = 1, fails: tuple[int, ...] = (), error: Any = Lost) -> None:
        super().__init__()
        self._at_once, self._fails, self._error = at_once, fails, error
        self._meeting = threading.Barrier(parties)
        self._counting = threading.Lock()
        self.calls = -3  # one call warms up, and one would be a server's alone
        self.in_flight = self.most_in_flight = 0

    def at_once(self) -> int | None:
        return self._at_once

    def generate_for(self, trial: Trial, prompt_text: str, seed: int) -> Generation:
        raise AssertionError("no prompt of these loads has a size of its own")

    def generate(self, prompt_text: str, seed: int) -> Generation:
        with self._counting:
            self.calls += 1
            number = self.calls
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if number in self._fails:
                raise self._error(f"request {number} is lost")
            if number >= 0:
                self._meeting.wait(WAIT_S)
            with self._counting:
                return super().generate(prompt_text, seed)
        finally:
            with self._counting:
                self.in_flight -= 1


def test_an_engine_of_one_thread_has_one_queue_and_waiting_is_told_apart(tmp_path: Path) -> None:
    class OneThread(ScriptedEngine):
        def generate(self, prompt_text: str, seed: int) -> Generation:
            threads.append(threading.current_thread())
            return super().generate(prompt_text, seed)

    threads: list[threading.Thread] = []
    of = under(arrivals="replay", arrival_times_s=[0.0] * 6)
    window = measured(tmp_path, OneThread([0.25]), of).window
    assert set(threads) == {threading.current_thread()}, "torch keeps modes by thread"
    assert [r.index for r in window.requests] == list(range(6)) and window.failures == []
    assert [r.due_s for r in window.requests] == [0.0] * 6, "due at once, whoever is served before"
    for former, later in zip(window.requests, window.requests[1:], strict=False):
        assert later.begun_s is not None and later.begun_s >= former.done_s
        assert window.queued_s(later) == later.begun_s and later.latency_s == later.done_s
    assert [r.server_s for r in window.requests] == [0.25] * 6, "the call itself, without the waiting"
    assert window.wall_s == window.requests[-1].done_s
    kept = window.arrivals
    assert (kept.kind, kept.concurrency, kept.at_once, window.stop_reason) == ("replay", None, 1, "all_sent")


def test_a_closed_load_sends_the_next_when_one_is_done(tmp_path: Path) -> None:
    requests = measured(tmp_path, ScriptedEngine(), under(arrivals="concurrent", concurrency=2, requests=5)).requests
    assert [r.due_s for r in requests[:2]] == [0.0, 0.0]
    assert [r.due_s for r in requests[2:]] == [r.done_s for r in requests[:3]]


def test_so_many_are_at_once_as_the_load_says(tmp_path: Path) -> None:
    engine = Crowd(at_once=None, parties=4)  # a request returns only when four are in flight
    result = measured(tmp_path, engine, under(arrivals="concurrent", concurrency=4, requests=12))
    assert sorted(r.index for r in result.requests) == list(range(12)) and engine.most_in_flight == 4
    assert [r.prompt_id for r in result.requests] == ["en-circle", "zh-square"] * 6


def test_no_more_are_at_once_than_the_engine_takes(tmp_path: Path) -> None:
    engine = Crowd(at_once=2, parties=2)
    result = measured(tmp_path, engine, under(arrivals="concurrent", concurrency=6, requests=8))
    assert engine.most_in_flight == 2 and len(result.requests) == 8
    assert result.window.arrivals.at_once == 2 and sum(r.due_s == 0 for r in result.requests) == 6


def test_an_open_load_does_not_wait_for_what_was_sent_before(tmp_path: Path) -> None:
    """Were a request sent only after the former one, the first would wait for the other four in vain."""
    engine = Crowd(at_once=None, parties=5)
    result = measured(tmp_path, engine, under(arrivals="replay", arrival_times_s=[0.0, 0.01, 0.02, 0.03, 0.04]))
    assert len(result.requests) == 5 and all(r.sent_s >= r.due_s for r in result.requests)


def test_a_failed_request_is_kept_with_its_reason_and_the_trial_goes_on(tmp_path: Path) -> None:
    result = measured(tmp_path, Crowd(None, fails=(0, 3)), under(arrivals="concurrent", concurrency=1, requests=6))
    assert [r.index for r in result.requests] == [1, 2, 4, 5]
    assert [(f.index, f.code, f.message) for f in result.window.failures] == [
        (0, "http_status", "request 0 is lost"),
        (3, "http_status", "request 3 is lost"),
    ]
    assert len(list(tmp_path.glob("*.png"))) == 2, "a prompt whose first request failed has its next one's image"


def test_a_trial_of_which_every_request_failed_has_failed(tmp_path: Path) -> None:
    with pytest.raises(Lost, match="request 0 is lost"):
        measured(tmp_path, Crowd(None, fails=(0, 1, 2)), under(arrivals="concurrent", concurrency=1, requests=3))


def test_errors_are_let_go_though_no_garbage_is_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would keep the frames of its call alive, with what a server answered in them, until the load is over."""

    class Told(Lost):
        def __init__(self, said: str) -> None:
            super().__init__(said)
            alive.add(self)

    alive: weakref.WeakSet[Told] = weakref.WeakSet()
    at_collections: list[int] = []
    monkeypatch.setattr(gc, "collect", lambda: at_collections.append(len(alive)))
    engine = Crowd(None, fails=tuple(range(49)), error=Told)
    result = measured(tmp_path, engine, under(arrivals="concurrent", concurrency=1, requests=50))
    assert len(result.window.failures) == 49
    assert max(at_collections) <= 2, "the first, and one that a frame may still hold"


def test_what_is_no_failure_of_one_request_ends_the_trial(tmp_path: Path) -> None:
    class ServerGone(CodedError):
        code = "server_died"

    engine = Crowd(None, fails=(2,), error=ServerGone)
    with pytest.raises(ServerGone):
        measured(tmp_path, engine, under(arrivals="concurrent", concurrency=1, requests=50))
    assert gc.isenabled() and engine.in_flight == 0


@pytest.mark.parametrize("engine", [ScriptedEngine(), Crowd(None)])
def test_a_stop_ends_a_load_and_nothing_is_left_running(engine: ScriptedEngine, tmp_path: Path) -> None:
    events: list[Any] = []
    of = under(arrivals="poisson", rate_per_s=1000.0, requests=5000)
    with pytest.raises(StopAsked):
        measured(tmp_path, engine, of, tell=events.append, stopping=lambda: len(events) > 5)
    assert 5 < len(engine.prompts) < 5000 and gc.isenabled()
    assert not [t for t in threading.enumerate() if t.name.startswith("zbench-load")]


def test_garbage_is_collected_outside_the_load(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    result = measured(tmp_path, engine, under(arrivals="concurrent", concurrency=3))
    assert engine.collector_was_on == [True, False, False, False] and gc.isenabled()
    assert result.telemetry.garbage_collection == "after the window"


def test_a_load_may_begin_with_whatever_the_pipeline_is(tmp_path: Path) -> None:
    engine = ScriptedEngine([5.0, 1.0])
    result = measured(tmp_path, engine, under(arrivals="concurrent", concurrency=1, requests=2, warm_up=False))
    assert len(engine.prompts) == 2 and not result.window.arrivals.warmed_up
    assert (result.warmup_end, result.validity) == ("left_out", []) and result.cold.load_s == 1.0


def test_a_reference_under_load_knows_its_noise_where_every_image_came_twice(tmp_path: Path) -> None:
    twice = measured(tmp_path, ScriptedEngine(), under(arrivals="concurrent", concurrency=4), is_reference=True)
    assert twice.noise_floor is not None and len(twice.noise_floor) == 2
    once = measured(tmp_path, ScriptedEngine(), under(arrivals="concurrent", concurrency=3), is_reference=True)
    assert once.reasons["noise_floor"] == "one_cycle"


def test_images_of_a_load_that_are_none_are_seen(tmp_path: Path) -> None:
    result = measured(tmp_path, ScriptedEngine(black=[2]), under(arrivals="concurrent", concurrency=3))
    assert [r.invalid_reasons for r in result.requests] == [[], ["black_image"], []]
    assert "1 of 3 requests" in (result.image_fault or "")


class Watching:
    """Says what befell the host between one answer and the next, in turn."""

    told: tuple[list[str], ...] = ()

    def __init__(self, pids: object) -> None:
        self._told = iter(self.told)

    def begin(self) -> None:
        """Nothing is read."""

    def end(self) -> list[str]:
        return next(self._told)


def test_what_befalls_the_host_befell_every_request_on_its_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three are due at once: while the second is made the third waits, and the first is done."""
    monkeypatch.setattr(Watching, "told", ([], ["page_faults"], []))
    monkeypatch.setattr("zbench.worker.load.RoundWatch", Watching)
    result = measured(tmp_path, ScriptedEngine(), under(arrivals="concurrent", concurrency=3))
    assert [r.disturbances for r in result.requests] == [[], ["page_faults"], ["page_faults"]]
    assert all(r.valid for r in result.requests)


def test_requests_during_which_the_worker_was_stopped_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watching, "told", ([], [], ["suspended"]))
    monkeypatch.setattr("zbench.worker.load.RoundWatch", Watching)
    result = measured(tmp_path, ScriptedEngine(), under(arrivals="replay", arrival_times_s=[0.0, 0.0, 0.05]))
    assert [r.invalid_reasons for r in result.requests] == [[], [], ["suspended"]]
    assert result.reasons["energy"] == "suspended"


def test_images_of_many_prompts_are_not_all_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of the workload are kept and judged, so that a trial and its reference keep the same."""
    of = under(arrivals="concurrent", concurrency=1, requests=8)
    of = replace(of, workload=replace(of.workload, seeds=[0, 1]))
    assert len(kept_pairs(of)) == 4, "all of them, where there is room"
    pixels = 3 * of.pipeline.width * of.pipeline.height
    monkeypatch.setattr("zbench.worker.load.KEPT_BYTES", 3 * pixels)
    result = measured(tmp_path, ScriptedEngine(), of, is_reference=True)
    saved = {path.stem for path in tmp_path.rglob("*.png")}
    assert len(saved) == 3 and len(result.requests) == 8
    assert result.noise_floor is not None and len(result.noise_floor) == 3
